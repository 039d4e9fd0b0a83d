// Package download reads stored files, and continues by itself if the store ends a transfer early. It knows no gRPC: package
// service decides who may read a file, and sends its bytes.
package download

import (
	"bytes"
	"context"
	"crypto/sha256"
	"hash"
	"io"
	"log/slog"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/drain"
	"github.com/lpfileshare/lpfileshare/internal/retry"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

const (
	// maxFruitless is how often in a row a transfer may end without a single byte.
	maxFruitless = 4
	// maxResumes is how often a transfer may end early in one download.
	maxResumes = 100
	// maxRejections is how many signed URLs in a row the store may reject.
	maxRejections = 3
	// justPublished is how long an object may take to appear after its message.
	justPublished = time.Second
	firstPause    = 200 * time.Millisecond
)

// A Session requests signed URLs for a caller.
type Session interface {
	// Principal is the identity that LivePerson accepted.
	Principal() share.Principal
	// DownloadURL requests a signed URL to read one object. It lives about a minute.
	DownloadURL(ctx context.Context, storagePath string) (share.TempURL, error)
}

// A Store reads objects behind signed URLs.
type Store interface {
	// Get opens an object from byte start on, for limit bytes (0: to the end), if its ETag is ifMatch (empty: any). A negative start
	// counts from the end. RangeNotSatisfiable, FileChanged, FileNotFound. The caller closes Body.
	Get(ctx context.Context, account string, u share.TempURL, start, limit int64, ifMatch share.ETag) (*share.ObjectReader, error)
	// Head returns what the store has.
	Head(ctx context.Context, account string, u share.TempURL) (share.StoredObject, error)
}

// An Object is one stored file, as a caller reads it.
type Object struct {
	Session Session
	Store   Store
	URLs    *URLs
	Log     *slog.Logger
	// Account and StoragePath identify it. Whether the caller may read it has been checked.
	Account, StoragePath string
}

// Stat returns what the store has.
func (o Object) Stat(ctx context.Context) (stat share.StoredObject, err error) {
	again := false
	err = retry.Do(ctx, o.policy("HEAD"), func(ctx context.Context) error {
		url, err := o.URLs.get(ctx, o, again)
		if again = true; err == nil {
			stat, err = o.Store.Head(ctx, o.Account, url)
		}
		return err
	})
	return stat, err
}

// policy is that of the first byte of an object.
func (o Object) policy(operation string) retry.Policy {
	return retry.Policy{
		Attempts: maxFruitless,
		Kinds: map[share.Kind]retry.Limit{
			share.StorageURLRejected: {Attempts: maxRejections},
			share.FileNotFound:       {Attempts: 2, Pause: justPublished},
		},
		Backoff: retry.Backoff{First: firstPause},
		Log:     o.Log, Operation: operation,
	}
}

// A Reader reads a part of an object. The caller closes it.
type Reader struct {
	// Stored is what the store said of the object. Start and End are the part: [Start, End).
	Stored     share.StoredObject
	Start, End int64

	object  Object
	ifMatch share.ETag // the ETag that the object must have; after the first response, that response's
	// sum is that of the bytes read so far, if nothing else in a later answer can show that it is of the same object; else nil.
	sum      hash.Hash
	at       int64
	held     *held         // the object in memory; nil: it is read from the store
	body     io.ReadCloser // nil: not open
	failures *retry.Loop   // in a row, without a byte
	resumes  int
}

// Open opens an object from byte offset on, for limit bytes (0: to the end), if its ETag is ifMatch (empty: any). A negative
// offset counts from the end.
func (o Object) Open(ctx context.Context, offset, limit int64, ifMatch share.ETag) (*Reader, error) {
	p := retry.Policy{Attempts: maxFruitless + 1, Backoff: retry.Backoff{First: firstPause}, Log: o.Log, Operation: "GET"}
	p.Kinds = map[share.Kind]retry.Limit{share.StorageTruncated: {Attempts: p.Attempts}, "": {Attempts: p.Attempts}}
	r := &Reader{object: o, ifMatch: ifMatch, failures: retry.New(p)}
	again := false
	err := retry.Do(ctx, o.policy("GET"), func(ctx context.Context) error {
		obj, err := r.get(ctx, again, offset, limit)
		if again = true; err != nil {
			return err
		}
		r.Stored, r.Start, r.at, r.End, r.body = obj.StoredObject, obj.Start, obj.Start, obj.End, obj.Body
		if obj.ETag != "" {
			r.ifMatch = obj.ETag
		}
		if obj.ETag == "" || obj.ETag.Weak() && obj.ModTime.IsZero() {
			r.sum = sha256.New()
		}
		return nil
	})
	return r, err
}

// get opens the object. After a failure it uses a fresh URL.
func (r *Reader) get(ctx context.Context, again bool, start, limit int64) (*share.ObjectReader, error) {
	url, err := r.object.URLs.get(ctx, r.object, again)
	if err != nil {
		return nil, err
	}
	return r.object.Store.Get(ctx, r.object.Account, url, start, limit, r.ifMatch)
}

// Account returns the account whose object it is.
func (r *Reader) Account() string { return r.object.Account }

// Offset returns the position of the next byte in the object.
func (r *Reader) Offset() int64 { return r.at }

// Done reports that all bytes were read.
func (r *Reader) Done() bool { return r.at >= r.End }

// Read fills buf, which must not be longer than what is left. If the store ends the transfer early, Read continues there with a
// fresh URL, as long as the object is the same: its ETag shows that, or else the bytes read so far, which are compared again.
// StorageTruncated if that keeps happening; FileChanged.
func (r *Reader) Read(ctx context.Context, buf []byte) error {
	if r.held != nil {
		r.held.read(buf, r.at)
		r.at += int64(len(buf))
		return nil
	}
	for n := 0; ; {
		m, err := io.ReadFull(r.body, buf[n:])
		if r.sum != nil {
			r.sum.Write(buf[n : n+m])
		}
		n, r.at = n+m, r.at+int64(m)
		if m > 0 {
			r.failures.Reset()
		}
		if err == nil {
			return nil
		}
		r.Close()
		if err := r.resume(ctx, err, r.at-int64(n)); err != nil {
			return err
		}
	}
}

// resume opens the object where the transfer ended because of err. sent is the position up to which the client has got the bytes.
func (r *Reader) resume(ctx context.Context, err error, sent int64) error {
	if kind := share.KindOf(err); kind == share.StorageProtocolError {
		return err
	}
	for r.body == nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		r.resumes++
		if r.resumes > maxResumes || r.failures.Wait(ctx, err) != nil {
			return drain.Cause(ctx, r.truncated(err, sent))
		}
		if err = r.reopen(ctx); share.Is(err, share.RangeNotSatisfiable) {
			return errChanged()
		}
		if kind := share.KindOf(err); err != nil && kind != share.StorageTruncated && !share.Passing(kind) {
			return err
		}
	}
	return nil
}

// reopen opens the object again at the next byte. If only the bytes themselves show that it is the same object, reopen reads the part
// from its start.
func (r *Reader) reopen(ctx context.Context) error {
	from := r.at
	if r.sum != nil {
		from = r.Start
	}
	obj, err := r.get(ctx, true, from, r.End-from)
	if err != nil {
		return err
	}
	if obj.Start != from || obj.End != r.End || !r.same(obj.StoredObject) {
		err = errChanged()
	} else if from < r.at {
		err = r.compare(obj.Body)
	}
	if err != nil {
		obj.Body.Close()
		return err
	}
	r.body = obj.Body
	return nil
}

// same reports whether the size and the time of an object are those of the first answer. Store.Get compares the ETag. An object that
// was replaced can keep a weak ETag, but not its time.
func (r *Reader) same(now share.StoredObject) bool {
	return now.Size == r.Stored.Size && (r.sum != nil || !r.ifMatch.Weak() || now.ModTime.Equal(r.Stored.ModTime))
}

// compare reads again what was read before.
func (r *Reader) compare(body io.Reader) error {
	sum := sha256.New()
	if _, err := io.CopyN(sum, body, r.at-r.Start); err == io.EOF {
		return share.Errorf(share.StorageTruncated, "the store ended the file early", err)
	} else if err != nil {
		return err
	}
	if !bytes.Equal(sum.Sum(nil), r.sum.Sum(nil)) {
		return errChanged()
	}
	return nil
}

func errChanged() error {
	return share.Reject(share.FileChanged, "the object changed while it was read; download it from byte 0")
}

func (r *Reader) truncated(err error, sent int64) error {
	return share.Errorf(share.StorageTruncated, "the store ended the transfer early several times; continue with read_offset", err).
		With("sentBytes", share.Itoa(sent-r.Start))
}

// Close ends the transfer. It may be called more than once.
func (r *Reader) Close() {
	if r.held != nil {
		r.held.free()
	}
	if r.body != nil {
		r.body.Close()
		r.body = nil
	}
}
