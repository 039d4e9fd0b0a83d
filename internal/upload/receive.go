package upload

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A transfer is one file on its way from the Source into the store.
type transfer struct {
	*Engine
	session Session
	spec    Spec // Size, FileType and Preview change with a transform
	memory  *admission.Reservation
	source  Source
}

// run receives, inspects, transforms, scans and stores the file. The store gets the last byte only after every check has passed, and it
// commits nothing before that. run returns when nothing refers to the bytes any more.
func (t *transfer) run(ctx context.Context) (*share.StoredFile, error) {
	input := newSpool(t.Memory, t.spec.Size)
	defer input.discard()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the reader's wait for memory, and storing
	in := t.inspect(!t.spec.transforms() && t.spec.Limits.CheckETag)
	var storing *storing
	var scanning *scanning
	if !t.spec.transforms() { // store and scan while the bytes arrive
		storing = t.startStoring(ctx, cancel, input)
		defer storing.stop()
		scanning = t.startScanning(ctx, input)
		defer scanning.stop()
	}
	if err := t.receive(ctx, input, in, storing, scanning); err != nil {
		return nil, err
	}
	if !t.spec.transforms() {
		t.memory.Shrink(input.len())
	}

	output, sums, image := input, in.sums, in.image.info
	var fitted *share.FittedImage
	if t.spec.transforms() {
		result, err := t.transform(ctx, input, in)
		if err != nil {
			return nil, err
		}
		defer result.output.discard()
		output, sums, image, fitted = result.output, result.sums, result.image, result.fitted
		storing = t.startStoring(ctx, cancel, output)
		defer storing.stop()
		scanning = t.startScanning(ctx, output) // what is stored must be clean, whatever was received
		defer scanning.stop()
	}
	storing.md5 = sums.MD5()
	if err := scanning.wait(ctx, storing); err != nil {
		return nil, err
	}
	output.release()

	file := t.newFile(output.len(), sums, image, fitted)
	if t.spec.GeneratePreview && file.File.Preview == "" {
		t.addPreview(ctx, file, output) // while the store writes
	}
	return storing.wait(ctx, file)
}

// turns returns the turns of one of the upload's goroutines at the processors.
func (t *transfer) turns() *admission.Transfer {
	return t.Processors.Transfer(admission.ByPrincipal(t.session.Principal()))
}

// newFile describes a file before it is stored.
func (t *transfer) newFile(size int64, sums *Sums, image share.ImageInfo, fitted *share.FittedImage) *share.StoredFile {
	p := t.session.Principal()
	file := &share.StoredFile{
		Conversation: t.spec.Conversation, Dialog: t.spec.Dialog, DisplayName: t.spec.DisplayName,
		File: share.HostedFile{FileType: string(t.spec.FileType), Caption: t.spec.Caption, Preview: t.spec.Preview},
		Size: size, Checksums: sums.Checksums(), Width: image.Width, Height: image.Height,
		SenderID: p.ID, SenderRole: p.Role,
	}
	if fitted != nil {
		file.Image = &fitted.Change
		if t.spec.GeneratePreview {
			file.File.Preview = fitted.Preview
		}
	}
	return file
}

// receive takes the bytes into the spool until all have arrived and every inspector has passed them. A storing that runs at the
// same time, and ends before the last byte, ends it too, and so does a scanning that fails; nil: none runs.
func (t *transfer) receive(ctx context.Context, spool *spool, in *inspection, storing *storing, scanning *scanning) error {
	reader := t.startReader(ctx, spool)
	pace := t.newPace(reader)
	defer pace.timer.Stop()
	for {
		more, err := in.advance(spool)
		if err != nil {
			return err
		}
		select {
		case <-more:
		case err := <-reader.ended:
			if err != nil {
				return err
			}
			in.sums.crc32c = reader.crc32c
			return in.finish(ctx, spool, t.source.Finish())
		case <-storing.ended(): // before the last byte, so it cannot be a success
			return storing.outcome.err
		case <-scanning.failed():
			return scanning.err
		case <-pace.timer.C:
			if err := pace.check(); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// A reader copies the Source into a spool. It has a goroutine of its own, because Source.Next cannot be interrupted.
type reader struct {
	*transfer
	spool    *spool
	declared int64 // -1: not declared
	limit    int64
	ended    chan error // nil: the client has finished
	crc32c   uint32     // of the whole file, when the client has finished

	begun    time.Time
	lastByte atomic.Int64 // when the latest byte arrived, in nanoseconds after begun: steps of the wall clock do not count
	waiting  atomic.Bool  // for memory, so that the client cannot send
	waits    atomic.Int64 // how often it has waited
}

func (t *transfer) startReader(ctx context.Context, spool *spool) *reader {
	r := &reader{
		transfer: t, spool: spool, declared: t.spec.Size, limit: t.spec.Limits.MaxInputBytes,
		ended: make(chan error, 1), begun: t.Now(),
	}
	t.Drain.Go(func() { r.ended <- r.run(ctx) }) // ends with the call at the latest
	return r
}

func (r *reader) run(ctx context.Context) error {
	turns := r.turns()
	var c Chunk
	next := func() (err error) {
		c, err = r.source.Next()
		return err
	}
	sum := func() { r.crc32c = addCRC32C(r.crc32c, c) }
	for n := int64(0); ; {
		err := turns.Work(next, sum)
		if errors.Is(err, io.EOF) {
			r.spool.seal()
			return nil
		}
		if err != nil {
			return err
		}
		size := c.size()
		if err := r.accept(ctx, n+size, &c); err != nil {
			for _, b := range c.Data {
				b.Free()
			}
			return err
		}
		r.spool.add(c)
		n += size
		r.touch()
	}
}

// accept checks that size bytes of the file may have arrived, and reserves memory for them.
func (r *reader) accept(ctx context.Context, size int64, c *Chunk) error {
	switch {
	case r.declared >= 0 && size > r.declared:
		return share.Reject(share.SizeExceeded, "more than the declared %d bytes arrived", r.declared).With("declaredBytes", share.Itoa(r.declared))
	case size > r.limit:
		return TooLarge(r.limit, size)
	case r.declared < 0:
		return r.reserve(ctx, size, c)
	}
	return nil
}

// reserve reserves memory for the bytes of a file whose size was not declared. While it waits the client cannot send, so the upload
// is neither idle nor slow. The chunk that waits is copied, because the buffers that gRPC received it in may be much larger.
func (r *reader) reserve(ctx context.Context, size int64, c *Chunk) error {
	err := r.memory.Grow(ctx, size, r.IdleTimeout, func() {
		c.copy()
		r.waits.Add(1)
		r.waiting.Store(true)
	})
	r.touch()
	r.waiting.Store(false)
	return err
}

func (r *reader) touch() { r.lastByte.Store(int64(r.Now().Sub(r.begun))) }

func (r *reader) sinceLastByte() time.Duration {
	if r.waiting.Load() {
		return 0
	}
	return r.Now().Sub(r.begun) - time.Duration(r.lastByte.Load())
}

// TooLarge returns the error for a file of more than limit bytes.
func TooLarge(limit, actual int64) *share.Error {
	return share.Reject(share.FileTooLarge, "the file is %d bytes, the limit is %d; send a smaller file, or set image.fit if the account fits images",
		actual, limit).With("maxBytes", share.Itoa(limit), "actualBytes", share.Itoa(actual))
}
