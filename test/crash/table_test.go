package crash

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"syscall"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/test/faults/proxy"
)

// A hold keeps the exchange of one upload at one place, until it is released. The place is at every server; the one that the upload
// comes to first is held, and the others let it pass.
type hold struct {
	reached chan int // the server
	release func()

	mu       sync.Mutex
	taken    bool
	released chan struct{}
}

func newHold() *hold {
	h := &hold{reached: make(chan int, 1), released: make(chan struct{})}
	h.release = sync.OnceFunc(func() { close(h.released) })
	return h
}

// take makes server the one that is held, if there is none yet.
func (h *hold) take() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	first := !h.taken
	h.taken = true
	return first
}

// free reports whether no server is held yet.
func (h *hold) free() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.taken
}

// at is what a proxy does at the place, with the bytes in its hands.
func (h *hold) at(server int) func() {
	return func() {
		if h.take() {
			h.reached <- server
			<-h.released
		}
	}
}

// A state is a row of the table: where an upload is held, and the state that the ledger then has.
type state struct {
	name   string
	ledger pb.UploadState
	// messages is how many there are in LivePerson.
	messages int
	// place arms the proxies of a server.
	place func(s *server, n int, h *hold)
	// streaming means that only a streaming upload has this state.
	streaming bool
}

func says(words ...string) func(proxy.Message) bool {
	return func(m proxy.Message) bool { return m.Says(words...) }
}

// The caller's first stream is that of the health check. Of an upload the first DATA frame is the spec.
func ofUpload(m proxy.Message) bool { return m.Stream >= 3 && m.Name == "DATA" }

// written holds NATS's answer to the write of a state: it is in the ledger, and the server does not know.
func written(state string) func(*server, int, *hold) {
	return func(s *server, n int, h *hold) {
		for _, p := range s.ledger {
			p.Arm(proxy.Fault{Dir: proxy.ToServer, Match: says(`"State":"` + state + `"`), Before: func() {
				p.Arm(proxy.Fault{Dir: proxy.ToClient, Match: says(`"stream":"`+stream+`"`, `"seq":`), Before: h.at(n)})
			}})
		}
	}
}

var states = []state{
	{name: "RECEIVING, half of the body sent", streaming: true, ledger: pb.UploadState_UPLOAD_STATE_RECEIVING, place: func(s *server, n int, h *hold) {
		s.caller.Arm(proxy.Fault{Dir: proxy.ToServer, Match: ofUpload, Skip: 3, At: proxy.Part(0.5), Before: h.at(n)})
	}},
	{name: "RECEIVING, answer with the URL withheld", ledger: pb.UploadState_UPLOAD_STATE_RECEIVING, place: func(s *server, n int, h *hold) {
		s.socket.Arm(proxy.Fault{Dir: proxy.ToClient, Match: says("ms.BaseGenerateURLResponse"), Before: h.at(n)})
	}},
	{name: "RECEIVING, answer of the PUT withheld", ledger: pb.UploadState_UPLOAD_STATE_RECEIVING, place: func(s *server, n int, h *hold) {
		s.store.Arm(proxy.Fault{Dir: proxy.ToClient, Match: says(" 201 "), Before: h.at(n)})
	}},
	{name: "PUBLISHING, frame not written", ledger: pb.UploadState_UPLOAD_STATE_PUBLISHING, place: written("PUBLISHING")},
	{name: "PUBLISHING, waiting for a socket", ledger: pb.UploadState_UPLOAD_STATE_PUBLISHING, place: func(s *server, n int, h *hold) {
		for _, p := range s.ledger {
			p.Arm(proxy.Fault{Dir: proxy.ToServer, Match: says(`"State":"PUBLISHING"`), Before: func() {
				if h.free() {
					s.socket.Arm(proxy.Fault{Dir: proxy.ToClient, Match: says("HTTP/1.1 101"), Before: h.at(n)})
					s.socket.Cut(proxy.Reset)
				}
			}})
		}
	}},
	{name: "PUBLISHING, answer withheld", ledger: pb.UploadState_UPLOAD_STATE_PUBLISHING, messages: 1, place: func(s *server, n int, h *hold) {
		s.socket.Arm(proxy.Fault{Dir: proxy.ToClient, Match: says("ms.PublishEventResponse"), Before: h.at(n)})
	}},
	{name: "PUBLISHED, answer withheld", ledger: pb.UploadState_UPLOAD_STATE_PUBLISHED, messages: 1, place: func(s *server, n int, h *hold) {
		s.caller.Arm(proxy.Fault{Dir: proxy.ToClient, Match: ofUpload, Before: h.at(n)})
	}},
}

// A strike is a column of the table: what happens to the server that holds the upload. A strike returns when the upload's caller
// has its answer and all goes on.
type strike struct {
	name string
	do   func(ctx context.Context, u *held) error
}

var strikes = []strike{
	{"kill -9", func(ctx context.Context, u *held) error {
		u.server().process.Kill()
		u.lose()
		return u.settle(ctx)
	}},
	{"SIGSTOP, take-over, SIGCONT", stopped},
	{"kill -9 with a NATS node", func(ctx context.Context, u *held) error {
		n, err := u.lane.victim(ctx, u.v%2 == 0)
		if err != nil {
			return err
		}
		n.kill()
		u.server().process.Kill()
		u.lose()
		return u.settle(ctx)
	}},
	{"SIGTERM", func(ctx context.Context, u *held) error {
		u.server().process.Signal(syscall.SIGTERM)
		if u.v%2 == 0 { // what is held comes in the time that a drain has
			if err := u.server().process.Logs.Wait(ctx, 1, "msg=draining"); err != nil {
				return err
			}
			u.hold.release()
		}
		_ = u.server().process.Wait() // cut off or not
		u.lose()
		return u.settle(ctx)
	}},
}

// lose loses what is on its way from and to the server, with what is held.
func (u *held) lose() {
	for _, p := range u.server().proxies() {
		p.Cut(proxy.Reset)
	}
	u.hold.release()
}

// stopped stops the server for as long as it takes another to do its work, and lets it go on then. How the work comes to another
// differs: the caller's connection breaks, or another caller repeats the upload while the caller waits, or the caller notices by itself
// that the server is silent.
func stopped(ctx context.Context, u *held) error {
	p := u.server().process
	p.Signal(syscall.SIGSTOP)
	goOn := sync.OnceFunc(func() { p.Signal(syscall.SIGCONT) })
	defer goOn()
	var err error
	switch u.v % 3 {
	case 0:
		u.server().caller.Cut(proxy.Reset)
		u.hold.release()
		err = u.settle(ctx)
	case 1: // the first caller's answer is the one that comes last
		if err := u.again(ctx); err != nil {
			return fmt.Errorf("the repeat at another server: %w", err)
		}
		u.hold.release()
		goOn()
		err = u.settle(ctx)
	case 2:
		err = u.settle(ctx)
		u.hold.release()
	}
	goOn()
	if err != nil {
		return err
	}
	// When the stopped server's call has ended, it does nothing more for the upload.
	ctx, cancel := context.WithTimeout(ctx, caseTimeout/2)
	defer cancel()
	if err := p.Logs.Wait(ctx, 1, "finished call", "method=FileSharingService/Upload"); err != nil {
		return fmt.Errorf("the stopped server's call does not end: %w\n%s", err, p.Logs.Tail())
	}
	return nil
}

// A trial is one case of the table.
type trial struct {
	row, column, v int
}

func (t trial) name() string {
	return fmt.Sprintf("%s/%s/%d", states[t.row].name, strikes[t.column].name, t.v)
}

// small reports whether the trial uploads by UploadSmallFile. Its request is one message: while half of it is sent, the server knows
// nothing of the upload.
func (t trial) small() bool { return !states[t.row].streaming && (t.row+t.column+t.v)%3 == 2 }

// trials is the whole table, each cell so many times; only those whose names hold a text.
func trials(repetitions int, only string) []trial {
	var all []trial
	for v := range repetitions {
		for row := range states {
			for column := range strikes {
				if t := (trial{row, column, v}); strings.Contains(t.name(), only) {
					all = append(all, t)
				}
			}
		}
	}
	return all
}
