package upload

import (
	"context"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/retry"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// Attempts of the steps of storing, before the caller sees the error.
const (
	maxPuts        = 4 // that fail with passing errors
	maxRejections  = 3 // with signed URLs that the store rejects: the first, and two fresh ones
	maxCorruptions = 2
	maxURLRequests = 3
	// minURLLife is the life that a signed URL must have left for another PUT.
	minURLLife = 5 * time.Second
	firstPause = 200 * time.Millisecond
)

// putLimits are the limits of PUTs that fail with a condition that does not pass by itself.
var putLimits = map[share.Kind]retry.Limit{
	share.StorageURLRejected: {Attempts: maxRejections},
	share.StorageCorrupted:   {Attempts: maxCorruptions},
}

// A storing stores one spool.
type storing struct {
	*transfer
	spool *spool
	md5   string // of the stored bytes, in hexadecimal; set before the spool is released; empty: the stored object is not checked

	cancel  context.CancelFunc
	done    chan struct{} // closed when nothing reads the spool any more
	outcome struct {      // set then
		object share.StoredObject
		path   string
		err    error
	}
}

// startStoring begins to store a spool. The store commits nothing before the spool is released. The caller calls stop, which ends ctx
// with cancel.
func (t *transfer) startStoring(ctx context.Context, cancel context.CancelFunc, s *spool) *storing {
	p := &storing{transfer: t, spool: s, cancel: cancel, done: make(chan struct{})}
	t.Drain.Go(func() {
		defer close(p.done)
		defer share.Recover(ctx, t.Log, &p.outcome.err) // a panic here would end the process
		p.outcome.object, p.outcome.path, p.outcome.err = p.put(ctx)
	})
	return p
}

// ended returns a channel that is closed when storing has ended; of a nil storing it never is.
func (p *storing) ended() <-chan struct{} {
	if p == nil {
		return nil
	}
	return p.done
}

// stop ends storing, and returns when nothing reads the spool any more.
func (p *storing) stop() {
	p.cancel()
	<-p.done
}

// wait waits for the object and completes file with its place.
func (p *storing) wait(ctx context.Context, file *share.StoredFile) (*share.StoredFile, error) {
	select {
	case <-p.done:
		if p.outcome.err != nil {
			return nil, p.outcome.err
		}
		file.File.StoragePath, file.ETag, file.Time = p.outcome.path, string(p.outcome.object.ETag), p.Now()
		return file, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// put stores the spool, with retries, and returns the object and its path when nothing reads the spool any more.
//
// The first PUT runs while the bytes arrive. The store cannot confirm it before the spool is released, but it can reject it, or
// report that it has something newer. Later PUTs wait for the whole file: repeating half of it gains nothing.
func (p *storing) put(ctx context.Context) (share.StoredObject, string, error) {
	size := p.spec.Size
	if size < 0 { // the signed URL is for a size
		if err := p.spool.awaitRelease(ctx); err != nil {
			return share.StoredObject{}, "", err
		}
		size = p.spool.len()
	}
	attempts := retry.New(retry.Policy{
		Attempts: maxPuts, Kinds: putLimits, Backoff: retry.Backoff{First: firstPause}, Log: p.Log, Operation: "PUT",
	})
	var url share.TempURL
	for {
		if url.Path == "" || url.ExpireTime.Sub(p.Now()) < minURLLife {
			var err error
			if url, err = p.requestURL(ctx, size); err != nil {
				return share.StoredObject{}, "", err
			}
		}
		object, superseded, err := p.putOnce(ctx, url, size)
		if err == nil {
			return object, url.Path, nil
		}
		if share.Is(err, share.StorageURLRejected) || superseded && share.Is(err, share.StorageCorrupted) {
			url = share.TempURL{} // a rejected URL is not used again, and what is newer under its path stays newer
		}
		if err := attempts.Wait(ctx, err); err != nil {
			return share.StoredObject{}, "", err
		}
		if err := p.spool.awaitRelease(ctx); err != nil {
			return share.StoredObject{}, "", err
		}
	}
}

// requestURL requests a signed URL. A repeated request has no effect.
func (p *storing) requestURL(ctx context.Context, size int64) (url share.TempURL, err error) {
	policy := retry.Policy{Attempts: maxURLRequests, Backoff: retry.Backoff{First: firstPause}, Log: p.Log, Operation: "upload URL request"}
	err = retry.Do(ctx, policy, func(ctx context.Context) error {
		url, err = p.session.UploadURL(ctx, size, p.spec.FileType)
		return err
	})
	return url, err
}

// putOnce makes one PUT and verifies its result. superseded reports that the store had something newer under the path.
func (p *storing) putOnce(ctx context.Context, url share.TempURL, size int64) (object share.StoredObject, superseded bool, err error) {
	object, err = p.Store.Put(ctx, p.spec.Account, url, size, p.spec.FileType.MediaType(), p.spool.body(ctx))
	switch {
	case share.Is(err, share.FileTooLarge): // the store's own limit, which it does not report
		return object, false, TooLarge(size-1, size)
	case err != nil:
		return object, false, err
	case object.Superseded:
		object, err = p.newer(ctx, url, size)
		superseded = true
	case !p.spool.isReleased():
		err = share.Reject(share.StorageProtocolError, "the store acknowledged the upload before receiving the whole file")
	}
	if err == nil && p.md5 != "" {
		object, err = p.check(ctx, url, size, object)
	}
	return object, superseded, err
}

// check verifies that the store has the uploaded bytes, and returns what the store says of the object. An answer without an ETag
// that can be compared, such as one that a proxy changed, is no proof: then a HEAD request must show the object.
func (p *storing) check(ctx context.Context, url share.TempURL, size int64, object share.StoredObject) (share.StoredObject, error) {
	if proof := p.compare(object); proof != unknown && !object.Large {
		return object, proof.err()
	}
	object, err := p.Store.Head(ctx, p.spec.Account, url)
	switch {
	case share.Is(err, share.FileNotFound):
		return object, share.Errorf(share.StorageCorrupted, "the store acknowledged the upload, but does not have the file", err)
	case err != nil:
		return object, err
	case object.Size >= 0 && object.Size != size:
		return object, share.Reject(share.StorageCorrupted, "the stored object has %d bytes, but %d were uploaded", object.Size, size)
	}
	proof := p.compare(object)
	if proof == unknown && object.ETag != "" && !object.Large && object.Size == size {
		// The store's ETags are no MD5s. The size is all that can be compared.
		return object, nil
	}
	return object, proof.err()
}

// A proof is the result of comparing a stored object with the uploaded bytes.
type proof int

const (
	unknown proof = iota
	same
	different
)

// compare compares an object's ETag with the MD5 of the uploaded bytes.
func (p *storing) compare(object share.StoredObject) proof {
	sum, _ := object.ETag.MD5()
	switch {
	case sum == p.md5:
		return same
	case sum != "" && !object.Large:
		return different
	default:
		return unknown
	}
}

func (is proof) err() error {
	switch is {
	case same:
		return nil
	case different:
		return share.Reject(share.StorageCorrupted, "the stored object's checksum differs from that of the uploaded bytes")
	default:
		return share.Reject(share.StorageCorrupted, "the store does not show that it has the uploaded bytes: it sends no ETag that can be compared")
	}
}

// newer returns what the store has under the path instead of what was sent (202). Usually that is this upload's own earlier PUT,
// whose answer was lost, sent through a proxy whose clock is ahead. Only a whole file can be compared.
func (p *storing) newer(ctx context.Context, url share.TempURL, size int64) (share.StoredObject, error) {
	if err := p.spool.awaitRelease(ctx); err != nil {
		return share.StoredObject{}, err
	}
	object, err := p.Store.Head(ctx, p.spec.Account, url)
	if share.Is(err, share.FileNotFound) || err == nil && object.Size != size {
		return share.StoredObject{}, share.Errorf(share.StorageCorrupted, "the store has a newer object under the path, and it is not this file", err)
	}
	return object, err
}
