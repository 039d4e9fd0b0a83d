// Package swift is a stand-in for OpenStack Swift as a client of signed URLs sees it. It keeps objects in memory.
package swift

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/sandbox/fault"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/feed"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/journal"
)

const (
	// DefaultMaxObjectSize is the largest object, in bytes, that a Swift accepts by default.
	DefaultMaxObjectSize = 5368709122
	// DefaultClientTimeout is how long a Swift waits for 64 KiB of a body by default.
	DefaultClientTimeout = 60 * time.Second

	// account is the only account in the store.
	account = "AUTH_async-images"
	// maxHeld is the number of bytes that the store keeps or is receiving, at most.
	maxHeld = 1 << 30
)

// Options configure a Store. Every field but Feed is required.
type Options struct {
	// Signer signs the URLs.
	Signer
	// MaxObjectSize is the largest object in bytes.
	MaxObjectSize int64
	// ClientTimeout is how long the store waits for 64 KiB of a body to be read or written.
	ClientTimeout time.Duration
	// Now is the clock.
	Now func() time.Time
	// Faults are consulted for every request.
	Faults *fault.Set
	// Journal records what was stored, fetched and refused.
	Journal *journal.Recorder
	// Feed gets an event at the beginning and at the end of each request. It may be nil.
	Feed *feed.Feed
	// Log receives refusals with their reasons, which the answers omit. Signatures are never logged.
	Log *slog.Logger
}

// A Store implements the part of OpenStack Swift that a client with a signed URL can reach, with one account.
//
// It answers as a real Swift was measured to answer, including when: a refusal does not wait for the announced body. Do not put
// an http.ServeMux in front of it: a ServeMux cleans paths, and the store's signatures cover every byte of a path.
type Store struct {
	Options
	maxHeld int64 // the constant, unless a test lowers it

	done  chan struct{}
	close func()
	// writes orders PUTs by arrival: of concurrent PUTs the latest wins.
	writes atomic.Int64

	mu         sync.Mutex
	containers map[string]bool
	objects    map[string]*object
	held       int64
}

// An object is a stored file. It is immutable once it is in the store.
type object struct {
	data        []byte
	etag        string
	contentType string
	modified    time.Time
	// header holds the headers of the PUT that every GET returns.
	header http.Header
	write  int64
}

// New returns an empty store. Callers must call Close when its HTTP server stops.
func New(o Options) *Store {
	done := make(chan struct{})
	return &Store{
		Options:    o,
		maxHeld:    maxHeld,
		done:       done,
		close:      sync.OnceFunc(func() { close(done) }),
		containers: map[string]bool{},
		objects:    map[string]*object{},
	}
}

// Close ends the requests that wait, for a client or for a fault.
func (st *Store) Close() { st.close() }

// CreateContainer creates the container for the files of a LivePerson account.
func (st *Store) CreateContainer(name string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.containers["/v1/"+account+"/"+name] = true
}

// Exists reports whether an object is stored at path. It never fails.
func (st *Store) Exists(_ context.Context, path string) (bool, error) {
	return st.object(path) != nil, nil
}

// Object returns the bytes stored at path, which the caller must not change.
func (st *Store) Object(path string) (data []byte, ok bool) {
	o := st.object(path)
	if o == nil {
		return nil, false
	}
	return o.data, true
}

func (st *Store) hasContainer(name string) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.containers[name]
}

// object returns the object at path, or nil.
func (st *Store) object(path string) *object {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.objects[path]
}

// reserve reserves n bytes of the store's memory and reports whether they were available.
func (st *Store) reserve(n int64) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if n > st.maxHeld-st.held {
		return false
	}
	st.held += n
	return true
}

// release returns n reserved bytes.
func (st *Store) release(n int64) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.held -= n
}

// overtaken reports whether a PUT that arrived after write has already been committed.
func (st *Store) overtaken(path string, write int64) bool {
	o := st.object(path)
	return o != nil && o.write > write
}

// commit replaces the object at path with o and turns the reserved bytes into held ones. It stores nothing and returns false if
// a PUT that arrived later has already been committed.
func (st *Store) commit(path string, o *object, reserved int64) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	old := st.objects[path]
	if old != nil && old.write > o.write {
		st.held -= reserved
		return false
	}
	st.held += int64(len(o.data)) - reserved
	if old != nil {
		st.held -= int64(len(old.data))
	}
	st.objects[path] = o
	return true
}

// remove deletes the object at path and reports whether there was one.
func (st *Store) remove(path string) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	o := st.objects[path]
	if o == nil {
		return false
	}
	st.held -= int64(len(o.data))
	delete(st.objects, path)
	return true
}

// update replaces the object at path with a changed copy and reports whether there is one.
func (st *Store) update(path string, change func(o *object)) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	o := st.objects[path]
	if o == nil {
		return false
	}
	changed := *o
	change(&changed)
	st.objects[path] = &changed
	return true
}

// ServeHTTP serves everything under /v1/.
func (st *Store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	began := time.Now()
	x := st.newExchange(w, r)
	defer x.ended(began)
	if !x.wait(x.fault.Delay) {
		x.reset()
		return
	}
	if x.fault.Drop {
		x.reset()
		return
	}
	var a *answer
	if x.fault.Status != 0 {
		a = swiftError(x.fault.Status)
	} else if a = x.process(); a == nil {
		return
	}
	x.send(a)
}

// process handles the request. It returns nil if a fault has ended the exchange.
func (x *exchange) process() *answer {
	if x.r.Method == http.MethodOptions {
		return x.options()
	}
	if refusal := x.authorize(); refusal != nil {
		return refusal
	}
	switch x.r.Method {
	case http.MethodPut:
		return x.put()
	case http.MethodPost:
		return x.post()
	case http.MethodDelete:
		return x.remove()
	default:
		return x.get()
	}
}

// methods are the methods in Swift's answer to OPTIONS. A real Swift lists them in an order that changes with each start.
const methods = "HEAD, GET, PUT, POST, OPTIONS, DELETE, COPY"

// options serves OPTIONS. LivePerson's web page uploads from the browser, so its container allows every origin, and so does this
// one.
func (x *exchange) options() *answer {
	a := newAnswer(http.StatusOK)
	a.header.Set("Allow", methods)
	if x.r.Header.Get("Origin") == "" {
		return a
	}
	a.header.Set("Access-Control-Allow-Origin", "*")
	a.header.Set("Access-Control-Allow-Methods", methods)
	if asked := x.r.Header.Values("Access-Control-Request-Headers"); len(asked) > 0 {
		a.header.Set("Access-Control-Allow-Headers", strings.Join(asked, ", "))
	}
	return a
}

// remove serves DELETE.
func (x *exchange) remove() *answer {
	if refusal := x.forbiddenHeader(); refusal != nil {
		return refusal
	}
	if !x.st.remove(x.path) {
		return swiftError(http.StatusNotFound)
	}
	a := newAnswer(http.StatusNoContent)
	a.header.Set("Content-Type", htmlType)
	return a
}

// post serves POST, which replaces an object's metadata, and its type if one is sent.
func (x *exchange) post() *answer {
	if refusal := x.forbiddenHeader(); refusal != nil {
		return refusal
	}
	if refusal := x.badMetadata(); refusal != nil {
		return refusal
	}
	found := x.st.update(x.path, func(o *object) {
		o.header = keptHeader(x.r.Header)
		if t := x.r.Header.Get("Content-Type"); t != "" {
			o.contentType = t
		}
		o.modified = x.st.Now()
	})
	if !found {
		return swiftError(http.StatusNotFound)
	}
	return swiftError(http.StatusAccepted)
}

// hexString returns n random bytes as 2n hexadecimal digits.
func hexString(n int) string {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
