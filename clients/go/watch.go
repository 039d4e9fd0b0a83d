package lpfileshare

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

const (
	watchSilence = 90 * time.Second
	watchAge     = 25 * time.Minute // a watch is opened anew after this long: every call has an end
)

// ErrWatchReset says that a watch cannot go on from its token: it is too old, or a file came late that belongs before some that were
// given. List the files again, and watch from the listing's token.
var ErrWatchReset = errors.New("watch: it cannot go on from its token; list the files again")

// WatchOptions says which files are watched for. Parent is required.
type WatchOptions struct {
	// Parent is accounts/{account}/conversations/{conversation}; "-" as conversation: all that the caller takes part in.
	Parent string
	// Token is where to go on: what ListFiles returned, or what OnToken was given last. Empty: from now on, where "now" is when
	// the server opens the watch, and again if that breaks off before its first message. For a watch without such gaps, list
	// first.
	Token string
	// OnToken is given the token behind each message, after the file in it was dealt with: keep it to go on from later.
	OnToken func(token string)
	// OnConnection is told nil when the watch stands (with the first message, the server's heartbeat at the latest), and the error
	// when that is lost or was not to be had and is now tried anew; the same is not told twice in a row. It must not block for
	// long.
	OnConnection func(err error)
	// MaxSilence is after how long without any message the watch is taken for dead and opened anew. The server sends a heartbeat
	// each GetCapabilitiesResponse.heartbeat_interval. 0: 90 seconds.
	MaxSilence time.Duration
	// RetryFor is how long after the last message transient errors are answered by opening the watch anew. 0: for ever;
	// negative: not at all.
	RetryFor time.Duration
}

// Watch gives fn each file as it is published, one at a time, until ctx ends, fn fails or the watch cannot go on. It opens the
// watch anew, right behind the last message, where the connection breaks, the server goes away or cuts a slow reader off. It
// returns fn's error as it is, ErrWatchReset, ctx's error, or an [*Error]; never nil.
func (c *Client) Watch(ctx context.Context, o WatchOptions, fn func(*pb.File) error) error {
	if o.MaxSilence <= 0 {
		o.MaxSilence = watchSilence
	}
	if o.RetryFor == 0 {
		o.RetryFor = 1<<63 - 1
	}
	w := &watch{client: c, options: o, token: o.Token, fn: fn, pace: newPacer(o.RetryFor)}
	err := w.run(ctx)
	var stop *stopError
	if errors.As(err, &stop) {
		return stop.err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	err = newError("watch", err)
	var e *Error
	if errors.As(err, &e) {
		e.Op, e.Attempts = "watch", w.pace.attempts
	}
	return err
}

// A watch is one watch over any number of calls.
type watch struct {
	client  *Client
	options WatchOptions
	token   string
	fn      func(*pb.File) error
	pace    *pacer
	told    bool // whether OnConnection was told anything
	stands  bool // what it was told last
}

// connection tells of a change.
func (w *watch) connection(err error) {
	if stands := err == nil; w.options.OnConnection != nil && (!w.told || stands != w.stands) {
		w.told, w.stands = true, stands
		w.options.OnConnection(err)
	}
}

// A stopError is the caller's own wish to end the watch.
type stopError struct{ err error }

func (e *stopError) Error() string { return e.err.Error() }

func (w *watch) run(ctx context.Context) error {
	for {
		w.pace.attempts++
		token, err := w.attempt(ctx)
		var stop *stopError
		if ctx.Err() != nil || errors.As(err, &stop) || errors.Is(err, ErrWatchReset) {
			return err
		}
		if err == nil {
			continue // its time was over, as planned
		}
		if !w.pace.renewed {
			if _, ok := w.client.ids.id.renew(ctx, err, token); ok {
				w.pace.renewed = true
				continue
			}
		}
		if !transient(err) && ErrorReason(err) != pb.ErrorReason_ERROR_REASON_WATCH_TOO_SLOW {
			return err
		}
		err = newError("watch", err)
		w.connection(err)
		if err := w.pace.wait(ctx, err); err != nil {
			return err
		}
	}
}

// attempt makes one call. nil: it went on for as long as one call may. It returns the identity token that it used.
func (w *watch) attempt(ctx context.Context) (string, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	silent := &damagedError{"nothing was heard of the watch for " + w.options.MaxSilence.String()}
	silence := time.AfterFunc(w.options.MaxSilence, func() { cancel(silent) })
	defer silence.Stop()
	aged := errors.New("a watch's time is over")
	age := time.AfterFunc(watchAge, func() { cancel(aged) })
	defer age.Stop()

	call, token, err := w.client.ids.id.attach(ctx)
	if err != nil {
		return "", err
	}
	stream, err := w.client.rawFiles.WatchFiles(call, &pb.WatchFilesRequest{Parent: w.options.Parent, ResumeToken: w.token})
	if err == nil {
		err = w.receive(stream, silence)
	}
	switch context.Cause(ctx) {
	case silent:
		return token, silent
	case aged:
		return token, nil
	}
	if err == io.EOF {
		err = &damagedError{"the server ended the watch"}
	}
	return token, err
}

func (w *watch) receive(stream grpc.ServerStreamingClient[pb.WatchFilesResponse], silence *time.Timer) error {
	for {
		m, err := stream.Recv()
		if ErrorReason(err) == pb.ErrorReason_ERROR_REASON_WATCH_RESET {
			return ErrWatchReset
		}
		if err != nil {
			return err
		}
		silence.Stop() // fn may take its time
		w.connection(nil)
		switch event := m.GetEvent().(type) {
		case *pb.WatchFilesResponse_File:
			if err := w.fn(event.File); err != nil {
				return &stopError{err}
			}
		}
		w.pace.progress()
		if t := m.GetResumeToken(); t != "" {
			w.token = t
			if w.options.OnToken != nil {
				w.options.OnToken(t)
			}
		}
		silence.Reset(w.options.MaxSilence)
	}
}
