package sandbox

import (
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// swiftAccount is the only account that the store has.
	swiftAccount = "AUTH_async-images"
	// maxObject is the largest object that a Swift takes by default.
	maxObject = 5368709122
	// maxHeld is how many bytes the store keeps, or is in the middle of receiving, at most.
	maxHeld = 1 << 30
	// clientTimeout is how long a Swift waits for 64 KiB of a body to come or go.
	clientTimeout = 60 * time.Second
)

// storeOptions are what a store works with. Every field is required.
type storeOptions struct {
	// Key signs the URLs.
	Key string
	// Digest is "sha1" or "sha256": what sign uses. All of Swift's digests are accepted, whatever it says.
	Digest string
	// Now is the clock.
	Now func() time.Time
	// Faults are asked at every request.
	Faults *faults
	// Journal is told of what was stored, fetched and refused.
	Journal *journal
	// Log hears of refusals and their reasons, which the answers do not tell; never of signatures.
	Log *slog.Logger
}

// A store plays OpenStack Swift, as far as one signed URL reaches: objects in memory, under one account.
//
// It answers what a real Swift was measured to answer, and it answers when a real Swift would: a refusal does not wait for the
// announced body. A ServeMux must not stand before it, as that cleans paths, and here every byte of a path counts.
type store struct {
	storeOptions

	// Limits, fields so that tests can lower them.
	maxObject, maxHeld int64
	clientTimeout      time.Duration

	done  chan struct{}
	close func()
	// writes orders PUTs by when they came: of two at once the later one stays.
	writes atomic.Int64

	mu         sync.Mutex
	containers map[string]bool
	objects    map[string]*object
	held       int64
}

// An object is a stored file. It is never changed once it is in the store.
type object struct {
	data        []byte
	etag        string
	contentType string
	modified    time.Time
	// header holds what came with the PUT and is given back with every GET.
	header http.Header
	write  int64
}

func newStore(o storeOptions) *store {
	done := make(chan struct{})
	return &store{
		storeOptions:  o,
		maxObject:     maxObject,
		maxHeld:       maxHeld,
		clientTimeout: clientTimeout,
		done:          done,
		close:         sync.OnceFunc(func() { close(done) }),
		containers:    map[string]bool{},
		objects:       map[string]*object{},
	}
}

// LimitStore sets the largest object that the store takes, in bytes, and how long it waits for 64 KiB of a body, in place of what a
// Swift has by default: 5 GiB and a minute. It must be called before the store is used.
func (s *Sandbox) LimitStore(maxObject int64, clientTimeout time.Duration) {
	s.store.maxObject, s.store.clientTimeout = maxObject, clientTimeout
}

// createContainer makes the container that holds the files of a LivePerson account.
func (st *store) createContainer(account string) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.containers["/v1/"+swiftAccount+"/"+account] = true
}

// stat reports what is stored at path.
func (st *store) stat(path string) (size int64, etag string, ok bool) {
	o := st.object(path)
	if o == nil {
		return 0, "", false
	}
	return int64(len(o.data)), o.etag, true
}

func (st *store) hasContainer(name string) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.containers[name]
}

// object returns what is stored at path, or nil.
func (st *store) object(path string) *object {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.objects[path]
}

// reserve takes n bytes of the store's room, unless it has not got them.
func (st *store) reserve(n int64) bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	if n > st.maxHeld-st.held {
		return false
	}
	st.held += n
	return true
}

// release gives n reserved bytes back.
func (st *store) release(n int64) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.held -= n
}

// overtaken reports whether a PUT that came later than write has been committed already.
func (st *store) overtaken(path string, write int64) bool {
	o := st.object(path)
	return o != nil && o.write > write
}

// commit puts o at path in place of what was there, and turns the reserved bytes into held ones. It reports false, and stores
// nothing, when a PUT that came later has been committed already.
func (st *store) commit(path string, o *object, reserved int64) bool {
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

// remove deletes what is at path and reports whether there was anything.
func (st *store) remove(path string) bool {
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

// update gives the object at path another type and other headers, and reports whether there is one.
func (st *store) update(path string, change func(o *object)) bool {
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
func (st *store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := st.newExchange(w, r)
	if x == nil {
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

// process does what the request asks for. No answer means that the fault in force has ended the exchange.
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

// methods are what an object can be asked. A Swift lists them in an order that changes from one start to the next.
const methods = "HEAD, GET, PUT, POST, OPTIONS, DELETE, COPY"

// options answers the question what one may ask. LivePerson's own web page uploads straight from a browser, so its container
// lets every origin in, and so does this one.
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

// post serves POST: it replaces an object's metadata, and its type where one is sent.
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
