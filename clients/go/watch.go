package lpfileshare

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

const (
	missedHeartbeats = 3                // a watch without a message for this many intervals is dead
	firstSilence     = 90 * time.Second // the limit until the first heartbeat has reported the interval
	minSilence       = time.Second      // the lowest limit, however short the interval: a busy machine is not a dead one
	watchAge         = 25 * time.Minute // a watch is opened again after this time, so that every call has an end
	watchSteady      = 10 * time.Second // a call that has sent messages for this long counts as progress
)

// ErrWatchReset means that a watch cannot continue from its token without missing or repeating a file (WATCH_RESET). List the files
// again, and watch from FileList.WatchToken. Use errors.Is: the error of the watch is an [*Error].
var ErrWatchReset = errors.New("watch cannot continue from its token; list the files again")

// WatchOptions selects the files of a watch. Parent is required.
type WatchOptions struct {
	// Parent is accounts/{account}/conversations/{conversation}. "-" as {conversation} selects all conversations of the caller.
	Parent string
	// Token is where the watch begins: FileList.WatchToken, or FileWatch.Token of an earlier watch of the same parent. Empty: when
	// the server opens the watch. If the connection breaks before the first message, it begins later than the first time; list the
	// files first to have no such gap.
	Token string
	// OnConnection receives nil when the watch is open (its first message has arrived, which is the heartbeat that the server sends at
	// once), and the error when the connection is lost or not possible and is about to be retried. It is called for changes only. It
	// must return quickly.
	OnConnection func(err error)
	// OnUnreadable receives each conversation that the watch leaves out, because the server could not read it. Only a watch of all
	// conversations does so. It must return quickly.
	OnUnreadable func(*pb.UnreadableConversation)
	// MaxSilence is the time without any message after which the watch is opened again. 0: three of the server's heartbeat intervals.
	MaxSilence time.Duration
	// RetryFor is how long after the last progress another attempt may begin. 0: for ever. Negative: one attempt.
	RetryFor time.Duration
}

// A FileWatch is a watch of files. It makes no call before All is ranged over.
type FileWatch struct {
	client  *Client
	ctx     context.Context // of the watch, which is one operation over any number of calls
	options WatchOptions
	pace    *pacer

	silence  time.Duration // without any message, after which the call is given up
	reported bool          // OnConnection was called
	open     bool          // what it was called with last

	mu    sync.Mutex
	token string
}

// Watch returns each file as it is published, by any sender: range over All of the result. The watch continues from its last message
// if the connection breaks or stays silent, the server shuts down, or it ends the call because the loop was too slow.
func (c *Client) Watch(ctx context.Context, o WatchOptions) *FileWatch {
	if o.RetryFor == 0 {
		o.RetryFor = 1<<63 - 1
	}
	w := &FileWatch{client: c, ctx: ctx, options: o, token: o.Token, silence: o.MaxSilence}
	if w.silence <= 0 {
		w.silence = firstSilence
	}
	return w
}

// All returns the files of the watch. It ends only with an error, which is the last element: the cause of ctx, or an [*Error]. If
// the loop breaks off, ranging over All again continues after the last file. It must not be ranged over concurrently.
func (w *FileWatch) All() iter.Seq2[*pb.File, error] {
	return func(yield func(*pb.File, error) bool) {
		w.pace = newPacer("watch", w.options.RetryFor)
		w.pace.waiting = w.connection
		for {
			w.pace.attempts++
			token, broken, err := w.attempt(yield)
			if broken {
				return
			}
			if w.ctx.Err() != nil {
				yield(nil, context.Cause(w.ctx))
				return
			}
			if err == nil {
				continue // its age was reached
			}
			if err := w.pace.retry(w.ctx, err, w.client.id, token, nil); err != nil {
				if w.ctx.Err() != nil {
					err = context.Cause(w.ctx)
				}
				yield(nil, err)
				return
			}
		}
	}
}

// Token returns the token that continues the watch, in this or another process, after the last message that arrived. In the body of
// the loop that is after the current file: store it when the file is processed. Heartbeats advance it too, so that it does not
// become too old while no file is published. Token may be called concurrently with the loop.
func (w *FileWatch) Token() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.token
}

func (w *FileWatch) setToken(t string) {
	if t == "" {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.token = t
}

// connection reports a change of the connection.
func (w *FileWatch) connection(err error) {
	if open := err == nil; w.options.OnConnection != nil && (!w.reported || open != w.open) {
		w.reported, w.open = true, open
		w.options.OnConnection(err)
	}
}

// attempt makes one call. broken: the loop broke off. A nil error: the call has reached its maximum age. It returns the identity
// token that it used.
func (w *FileWatch) attempt(yield func(*pb.File, error) bool) (token string, broken bool, err error) {
	ctx, cancel := context.WithCancelCause(w.ctx)
	defer cancel(nil)
	silent, aged := errors.New("silent"), errors.New("aged")
	silence := time.AfterFunc(w.silence, func() { cancel(silent) })
	defer silence.Stop()
	age := time.AfterFunc(watchAge, func() { cancel(aged) })
	defer age.Stop()

	call, token, err := w.client.id.attach(ctx)
	if err != nil {
		return "", false, err
	}
	stream, err := w.client.streams.WatchFiles(call, &pb.WatchFilesRequest{Parent: w.options.Parent, ResumeToken: w.Token()})
	if err == nil {
		broken, err = w.receive(stream, silence, yield)
	}
	switch context.Cause(ctx) {
	case silent:
		err = status.Errorf(codes.Unavailable, "no message for %v", w.silence)
	case aged:
		err = nil
	}
	if err == io.EOF {
		err = status.Error(codes.Unavailable, "the server ended the watch")
	}
	return token, broken, err
}

func (w *FileWatch) receive(stream grpc.ServerStreamingClient[pb.WatchFilesResponse], silence *time.Timer, yield func(*pb.File, error) bool) (broken bool, err error) {
	var first time.Time
	for {
		m, err := stream.Recv()
		if err != nil {
			return false, err
		}
		silence.Stop() // the loop may take its time
		if first.IsZero() {
			first = time.Now()
		}
		w.connection(nil)
		w.setToken(m.GetResumeToken())
		switch event := m.GetEvent().(type) {
		case *pb.WatchFilesResponse_Heartbeat:
			if interval := event.Heartbeat.GetInterval().AsDuration(); interval > 0 && w.options.MaxSilence <= 0 {
				w.silence = max(missedHeartbeats*interval, minSilence)
			}
			// The first heartbeat is no progress: a server or proxy that ends each call right after it would be called without backoff.
			if time.Since(first) >= watchSteady {
				w.pace.progress()
			}
		case *pb.WatchFilesResponse_File:
			w.pace.progress()
			if !yield(event.File, nil) {
				return true, nil
			}
		case *pb.WatchFilesResponse_UnreadableConversation:
			if w.options.OnUnreadable != nil {
				w.options.OnUnreadable(event.UnreadableConversation)
			}
		}
		silence.Reset(w.silence)
	}
}
