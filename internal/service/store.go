package service

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// How often the steps of storing are tried, before the caller hears of it.
const (
	maxPuts        = 4 // any trouble of the store
	maxRejections  = 3 // URLs that the store refuses: the first, and two fresh ones
	maxCorruptions = 2
	maxURLRequests = 3
	// urlReserve is the life that a signed URL must have left for another PUT on it.
	urlReserve = 5 * time.Second
	firstPause = 200 * time.Millisecond
)

// A storing is one file on its way from the spool into the store.
type storing struct {
	s       *Server
	session Session
	spec    uploadSpec
	spool   *spool
	etag    string // what the store must answer; set before the spool is released; empty: not compared

	cancel  context.CancelFunc
	done    chan struct{} // closed when nothing reads the spool any more
	outcome struct {      // set then
		obj  share.StoredObject
		path string
		err  error
	}
}

// startStoring begins to store the spool. Nothing is committed before the spool is released. The caller stops it.
func (s *Server) startStoring(ctx context.Context, session Session, spec uploadSpec, sp *spool) *storing {
	p := &storing{s: s, session: session, spec: spec, spool: sp, done: make(chan struct{})}
	ctx, p.cancel = context.WithCancel(ctx)
	s.goroutines.Go(func() {
		defer close(p.done)
		defer func() {
			if v := recover(); v != nil { // it would end the process: the interceptor sees the handler's goroutine only
				p.outcome.err = panicked(ctx, s.Log, v)
			}
		}()
		p.outcome.obj, p.outcome.path, p.outcome.err = p.put(ctx)
	})
	return p
}

// ended is closed when storing has ended; never where there is none.
func (p *storing) ended() <-chan struct{} {
	if p == nil {
		return nil
	}
	return p.done
}

// stop ends what still runs, and returns once nothing reads the spool any more.
func (p *storing) stop() {
	p.cancel()
	<-p.done
}

// wait waits for the object and says in file where it is.
func (p *storing) wait(ctx context.Context, file *share.StoredFile) (*share.StoredFile, error) {
	select {
	case <-p.done:
		if p.outcome.err != nil {
			return nil, p.outcome.err
		}
		file.File.StoragePath, file.ETag, file.Time = p.outcome.path, p.outcome.obj.ETag, p.s.Now()
		return file, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// put stores the spool, repeating what can be repeated, and returns the object and its path. It returns only once nothing reads
// the spool any more.
//
// The first PUT runs while the bytes come in. Its answer cannot come before the spool is released, unless it is a refusal or says
// that there is something newer. The later ones wait for the whole file: there is nothing to be won by repeating half of it.
func (p *storing) put(ctx context.Context) (share.StoredObject, string, error) {
	size := p.spec.size
	if size < 0 {
		if err := p.spool.await(ctx); err != nil {
			return share.StoredObject{}, "", err
		}
		size = p.spool.len()
	}
	var url share.TempURL
	var rejected, corrupted int
	for try := 1; ; try++ {
		if url.Path == "" || url.ExpireTime.Sub(p.s.Now()) < urlReserve {
			var err error
			if url, err = p.uploadURL(ctx, size); err != nil {
				return share.StoredObject{}, "", err
			}
		}
		obj, err := p.s.ports.Store.Put(ctx, p.spec.account, url, size, p.spec.fileType.MediaType(), p.spool.body(ctx))
		superseded := err == nil && obj.Superseded
		switch {
		case superseded:
			obj, err = p.newer(ctx, url, size)
		case err == nil && !p.spool.released():
			err = share.Errorf(share.StorageProtocolError, "the store confirmed a file that it had not got whole", nil)
		}
		if err == nil {
			err = p.checkETag(obj)
		}
		if err == nil {
			return obj, url.Path, nil
		}
		if ctx.Err() != nil {
			return share.StoredObject{}, "", context.Cause(ctx)
		}
		if share.Is(err, share.FileTooLarge) { // the store's own limit, which it does not tell
			return share.StoredObject{}, "", tooLarge(size-1, size)
		}
		again := false
		switch share.KindOf(err) {
		case share.StorageURLRejected:
			rejected++
			again = rejected < maxRejections
			url = share.TempURL{} // a URL that was refused is not tried again
		case share.StorageCorrupted:
			corrupted++
			again = corrupted < maxCorruptions
			if superseded {
				url = share.TempURL{} // what is there stays newer than whatever is sent there now
			}
		case share.StorageUnavailable, share.StorageRateLimited:
			again = try < maxPuts
		}
		if !again {
			return share.StoredObject{}, "", err
		}
		p.s.Log.LogAttrs(ctx, slog.LevelInfo, "a PUT is repeated from the spool", slog.Int("try", try), slog.Any("error", err))
		if err := p.spool.await(ctx); err != nil {
			return share.StoredObject{}, "", err
		}
		if err := sleep(ctx, pause(try, err)); err != nil {
			return share.StoredObject{}, "", err
		}
	}
}

// uploadURL asks for a signed URL, again where LivePerson has passing trouble: asking has no effect.
func (p *storing) uploadURL(ctx context.Context, size int64) (share.TempURL, error) {
	for try := 1; ; try++ {
		url, err := p.session.UploadURL(ctx, size, p.spec.fileType)
		if err == nil || try == maxURLRequests || !share.Is(err, share.LPTimeout, share.LPUnavailable, share.LPRateLimited) {
			return url, err
		}
		if err := sleep(ctx, pause(try, err)); err != nil {
			return share.TempURL{}, err
		}
	}
}

// newer is what the store has under the name instead of what was sent (202): by rights our own earlier PUT, whose answer was lost,
// by way of a proxy whose clock is ahead. The file must be whole before that can be told.
func (p *storing) newer(ctx context.Context, url share.TempURL, size int64) (share.StoredObject, error) {
	if err := p.spool.await(ctx); err != nil {
		return share.StoredObject{}, err
	}
	obj, err := p.s.ports.Store.Head(ctx, p.spec.account, url)
	if share.Is(err, share.FileNotFound) || err == nil && obj.Size != size {
		return share.StoredObject{}, share.Errorf(share.StorageCorrupted, "the store has a newer write under the name, and it is not this file", err)
	}
	return obj, err
}

// checkETag compares what the store says it holds with what was sent.
func (p *storing) checkETag(obj share.StoredObject) error {
	if p.etag == "" || obj.Large || obj.ETag == "" || strings.EqualFold(obj.ETag, p.etag) {
		return nil
	}
	return share.Errorf(share.StorageCorrupted, "the store holds other bytes than were sent to it", nil)
}

// pause is how long to wait before try+1: doubling, and no less than the peer asked for, which is bounded so that a caller does
// not wait for long on somebody else's behalf.
func pause(try int, err error) time.Duration {
	d := firstPause << (try - 1)
	var asked time.Duration
	if e, ok := errors.AsType[*share.Error](err); ok {
		asked = min(e.RetryAfter, 3*time.Second)
	}
	return max(d, asked)
}
