package liveperson

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/google/uuid"
)

// An account is one brand with its agents, consumers, conversations and files. Service.mu guards it.
type account struct {
	id         string
	agents     map[string]*person // by user name
	agentsByID map[string]*person // by either of their ids
	profiles   map[string]json.RawMessage
	revision   int
	settings   map[string]*property

	conversations map[string]*conversation
	ordered       []*conversation            // oldest first
	of            map[string][]*conversation // by consumer, oldest first
	dialogs       map[string]*dialog

	rings map[string]*ring // by id

	granted map[string]string   // by path: the id of the person who got the upload URL
	files   map[string][]*event // by path: the events that published the file
	states  map[string]string   // by agent's id: availability

	present      map[string]map[*socket]struct{} // open sockets, by person's id
	agentSockets map[*socket]struct{}            // open sockets of agents
}

// A person is a consumer or an agent. An agent has two ids: id, a UUID, is the current form; oldID is the form that the agents'
// dialect of the protocol uses. A consumer's ids are the same.
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
		agentsByID:    map[string]*person{},
		profiles:      map[string]json.RawMessage{},
		settings:      map[string]*property{},
		conversations: map[string]*conversation{},
		dialogs:       map[string]*dialog{},
		of:            map[string][]*conversation{},
		rings:         map[string]*ring{},
		granted:       map[string]string{},
		files:         map[string][]*event{},
		states:        map[string]string{},
		present:       map[string]map[*socket]struct{}{},
		agentSockets:  map[*socket]struct{}{},
		revision:      1,
	}
	a.settings[fileSharingProperty] = &property{id: fileSharingProperty, kind: booleanProperty, value: fileSharing}
	return a
}

// agentNamed returns the agent with that user name. The ids depend on account and name only, so they are the same in every run.
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
	a.agents[name], a.agentsByID[p.id], a.agentsByID[p.oldID] = p, p, p
	return p
}

// enter adds an open socket.
func (a *account) enter(k *socket) {
	if a.present[k.who.id] == nil {
		a.present[k.who.id] = map[*socket]struct{}{}
	}
	a.present[k.who.id][k] = struct{}{}
	if k.who.agent {
		a.agentSockets[k] = struct{}{}
	}
}

// leave removes a socket and reports whether it was its owner's last.
func (a *account) leave(k *socket) bool {
	delete(a.agentSockets, k)
	delete(a.present[k.who.id], k)
	if len(a.present[k.who.id]) > 0 {
		return false
	}
	delete(a.present, k.who.id)
	return true
}

// sockets is the set of open sockets.
type sockets struct {
	mu   sync.Mutex
	open map[*socket]struct{}
	last int64 // number of the last socket
}

func newSockets() *sockets { return &sockets{open: map[*socket]struct{}{}} }

func (ss *sockets) add(k *socket) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.last++
	k.number = ss.last
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
