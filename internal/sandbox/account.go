package sandbox

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/google/uuid"
)

// An account is one brand: its people, their conversations, their files. Sandbox.mu guards it.
type account struct {
	id       string
	agents   map[string]*person // by user name
	byID     map[string]*person // agents, by either of their ids
	profiles map[string]json.RawMessage
	revision int
	settings map[string]*property

	conversations map[string]*conversation
	ordered       []*conversation            // oldest first
	of            map[string][]*conversation // by consumer, oldest first
	dialogs       map[string]*dialog

	granted map[string]string   // by path: who was given a URL to upload to it
	files   map[string][]*event // by path: the events that published it
	rings   map[string]*ring    // by ring id, the waiting ones
	states  map[string]string   // by agent's id: availability

	apps  map[string]*install // by id; the set never changes
	appOf map[string]*install // by consumer: the app install that speaks for it

	here map[string]map[*socket]struct{} // open sockets, by participant's id
	team map[*socket]struct{}            // agents' open sockets
}

// A person takes part in conversations. An agent has two ids: id, a uuid, is the one of today, and oldID the one that the
// brand's dialect of the protocol still speaks. A consumer's are the same.
type person struct {
	id, oldID string
	userID    string // an agent's, numeric
	name      string
	agent     bool
	admin     bool
}

func newAccount(id string, fileSharing bool) *account {
	a := &account{
		id:            id,
		agents:        map[string]*person{},
		byID:          map[string]*person{},
		profiles:      map[string]json.RawMessage{},
		settings:      map[string]*property{},
		conversations: map[string]*conversation{},
		dialogs:       map[string]*dialog{},
		of:            map[string][]*conversation{},
		granted:       map[string]string{},
		files:         map[string][]*event{},
		rings:         map[string]*ring{},
		states:        map[string]string{},
		apps:          map[string]*install{},
		appOf:         map[string]*install{},
		here:          map[string]map[*socket]struct{}{},
		team:          map[*socket]struct{}{},
		revision:      1,
	}
	a.settings[fileSharingProperty] = &property{id: fileSharingProperty, kind: booleanProperty, value: fileSharing}
	return a
}

// account returns the account of that id, or nil. The set of accounts never changes.
func (s *Sandbox) account(id string) *account { return s.accounts[id] }

// agentNamed returns the agent who logs in by that name: the same ids for the same name, in every sandbox and run.
func (a *account) agentNamed(name string, admin bool) *person {
	if p := a.agents[name]; p != nil {
		return p
	}
	sum := sha256.Sum256([]byte(a.id + "/" + name))
	userID := fmt.Sprint(1_000_000_000 + binary.BigEndian.Uint64(sum[:])%9_000_000_000)
	p := &person{
		id:     uuid.NewSHA1(uuid.NameSpaceOID, []byte(a.id+"/"+name)).String(),
		oldID:  a.id + "." + userID,
		userID: userID,
		name:   name,
		agent:  true,
		admin:  admin,
	}
	a.agents[name], a.byID[p.id], a.byID[p.oldID] = p, p, p
	return p
}

// enter notes an open socket of its owner.
func (a *account) enter(k *socket) {
	if a.here[k.who.id] == nil {
		a.here[k.who.id] = map[*socket]struct{}{}
	}
	a.here[k.who.id][k] = struct{}{}
	if k.who.agent {
		a.team[k] = struct{}{}
	}
}

// leave forgets a socket and reports whether it was its owner's last.
func (a *account) leave(k *socket) bool {
	delete(a.team, k)
	delete(a.here[k.who.id], k)
	if len(a.here[k.who.id]) > 0 {
		return false
	}
	delete(a.here, k.who.id)
	return true
}

// sockets are all the open sockets.
type sockets struct {
	mu   sync.Mutex
	open map[*socket]struct{}
}

func newSockets() *sockets { return &sockets{open: map[*socket]struct{}{}} }

func (ss *sockets) add(k *socket) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.open[k] = struct{}{}
}

func (ss *sockets) remove(k *socket) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	delete(ss.open, k)
}

func (ss *sockets) count() int {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	return len(ss.open)
}

func (ss *sockets) all() []*socket {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	all := make([]*socket, 0, len(ss.open))
	for k := range ss.open {
		all = append(all, k)
	}
	return all
}
