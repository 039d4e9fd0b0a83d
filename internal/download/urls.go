package download

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

const (
	// maxURLs is the number of signed URLs that are kept. Each has about 500 bytes.
	maxURLs = 4096
	// minURLLife is the life that a signed URL must have left to be used again. It covers clocks that differ.
	minURLLife = 10 * time.Second
	// maxURLAge is how long a URL is used again although LivePerson may sign for longer. LivePerson notices at a request that a token was
	// revoked.
	maxURLAge = time.Minute
)

// URLs keeps signed URLs, each for the caller that requested it and for one file. A caller that reads the file again within the minute
// that a URL lives, or reads several parts of it at the same time, costs LivePerson one request. Whether the caller may read the file is
// checked for each read. It is safe for concurrent use.
type URLs struct {
	now func() time.Time

	mu      sync.Mutex
	entries *simplelru.LRU[urlKey, *signedURL]
}

type urlKey struct {
	account, id, service string
	role                 share.Role
	path                 string
}

// A signedURL is a URL, or the request for it. url, err and left are set when done is closed.
type signedURL struct {
	done      chan struct{}
	requested time.Time
	url       share.TempURL
	err       error
	left      bool // the caller that made the request ended meanwhile
}

// NewURLs returns URLs that are empty.
func NewURLs(now func() time.Time) *URLs {
	entries, err := simplelru.NewLRU[urlKey, *signedURL](maxURLs, nil)
	if err != nil { // only a size of 0 or less causes it
		panic(err)
	}
	return &URLs{now: now, entries: entries}
}

// get returns a URL of o: a kept one, that of a request which runs, or a new one. With fresh it returns no kept one. If the request that
// it has waited for fails, it makes its own, which no other caller waits for: callers do not queue for requests that fail.
func (u *URLs) get(ctx context.Context, o Object, fresh bool) (share.TempURL, error) {
	p := o.Session.Principal()
	key := urlKey{p.Account, p.ID, p.Caller, p.Role, o.StoragePath}
	for {
		e, begin := u.join(key, fresh)
		if begin {
			return u.request(ctx, o, key, e)
		}
		select {
		case <-e.done:
		case <-ctx.Done():
			return share.TempURL{}, context.Cause(ctx)
		}
		switch {
		case e.err == nil:
			return e.url, nil
		case !e.left:
			return o.Session.DownloadURL(ctx, o.StoragePath)
		}
	}
}

// join returns the entry of a key. If begin is true it is new, and the caller must make the request.
func (u *URLs) join(key urlKey, fresh bool) (e *signedURL, begin bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if e, ok := u.entries.Get(key); ok {
		select {
		case <-e.done:
			if !fresh && e.err == nil && e.url.ExpireTime.Sub(u.now()) >= minURLLife && u.now().Sub(e.requested) < maxURLAge {
				return e, false
			}
		default:
			return e, false // it is being requested
		}
	}
	e = &signedURL{done: make(chan struct{}), requested: u.now(), err: errNoURL}
	u.entries.Add(key, e)
	return e, true
}

// errNoURL is the error of a request that has not ended, and never will if it panics.
var errNoURL = errors.New("no signed URL was requested")

// request makes the request of a new entry.
func (u *URLs) request(ctx context.Context, o Object, key urlKey, e *signedURL) (share.TempURL, error) {
	defer func() {
		close(e.done)
		u.mu.Lock()
		defer u.mu.Unlock()
		if now, ok := u.entries.Peek(key); ok && now == e && e.err != nil {
			u.entries.Remove(key)
		}
	}()
	e.url, e.err = o.Session.DownloadURL(ctx, o.StoragePath)
	e.left = ctx.Err() != nil
	return e.url, e.err
}

// RequestAhead begins to request a signed URL, which Open and Stat then use. It costs a request that was not needed if neither follows.
// The caller must call stop before it releases the Session. run runs the request in a goroutine.
func (o Object) RequestAhead(ctx context.Context, run func(func())) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	run(func() {
		defer close(done)
		var err error
		defer share.Recover(ctx, o.Log, &err)
		_, err = o.URLs.get(ctx, o, false) // Open reports an error of its own request
	})
	return func() {
		cancel()
		<-done
	}
}
