package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/faults/audit"
	"github.com/lpfileshare/lpfileshare/test/faults/proxy"
	"github.com/lpfileshare/lpfileshare/test/process"
	"github.com/lpfileshare/lpfileshare/test/wire"
)

const (
	account     = "12345678"
	accountPath = "accounts/" + account
)

// The server's patience, short. A socket that was lost is opened again within a second, so a call must wait for longer.
const (
	lpTimeout   = 1500 * time.Millisecond
	settle      = 500 * time.Millisecond
	storeStall  = time.Second
	idleTimeout = 2 * time.Second
	heartbeat   = time.Second
)

// frames are those of all sandboxes here, held against the schemas of test/wire.
var frames = wire.NewSuite("faults")

// serverBinary is the server as `make build` builds it, without the race detector.
var serverBinary string

// summary is what the suite has to say in the end.
var summary bytes.Buffer

func TestMain(m *testing.M) {
	dir, err := os.MkdirTemp("", "lpfileshare-faults")
	if err != nil {
		panic(err)
	}
	serverBinary = filepath.Join(dir, "lpfileshare-server")
	code := 1
	if err := process.Build(serverBinary, "github.com/lpfileshare/lpfileshare/cmd/server"); err != nil {
		fmt.Fprintln(os.Stderr, err)
	} else {
		code = frames.Exit(m.Run())
	}
	os.RemoveAll(dir)
	fmt.Print(summary.String()) // behind what the testing package says, so that its last line is the last one
	os.Exit(code)
}

// A lane is a server as a process of its own, the sandbox that plays LivePerson and the store for it, and a fault proxy on each
// way: to the messaging socket, to the store, and from the caller. One case at a time runs on it.
type lane struct {
	sb                    *sandbox.Sandbox
	tap                   *wire.Tap
	spoiling              atomic.Bool // frames are spoiled on the socket just now
	socket, store, caller *proxy.Proxy
	server                *process.Process
	addr                  string              // the server's
	direct                *lpfileshare.Client // past the proxy
	told                  audit.Account
}

// readyLine is what a server says when it serves.
var readyLine = regexp.MustCompile(`msg=ready grpc=(\S+)`)

// openLane starts a lane. The caller closes it, even after an error.
func openLane() (_ *lane, err error) {
	l := &lane{}
	if l.tap, err = frames.Tap(); err != nil {
		return l, err
	}
	if l.sb, err = sandbox.Start(sandbox.Options{OnFrame: l.sawFrame}); err != nil {
		return l, err
	}
	if err = l.warm(); err != nil {
		return l, err
	}
	at := strings.TrimPrefix(l.sb.URL(), "http://")
	if l.socket, err = proxy.Listen(at, proxy.WebSocket); err != nil {
		return l, err
	}
	if l.store, err = proxy.Listen(at, proxy.HTTP); err != nil {
		return l, err
	}
	var ready []string
	l.server, ready, err = process.Start(readyLine, serverBinary, "--listen=127.0.0.1:0", "--ledger=memory", "--domain-api="+l.sb.URL(), "--lp-plain-http",
		"--domain=asyncMessagingEnt="+l.socket.Addr(), "--domain=swift="+l.store.Addr(), "--documents", "--log-level=debug",
		"--lp-timeout="+lpTimeout.String(), "--settle="+settle.String(), "--store-stall="+storeStall.String(),
		"--upload-idle-timeout="+idleTimeout.String(), "--heartbeat-interval="+heartbeat.String(), "--drain-time=1s", "--drain-notice=0s")
	if err != nil {
		return l, err
	}
	l.addr = ready[1]
	if l.caller, err = proxy.Listen(l.addr, proxy.HTTP2); err != nil {
		return l, err
	}
	l.direct, err = lpfileshare.Dial(l.addr)
	return l, err
}

// sawFrame checks a frame, unless it comes from a case that spoils bytes on the socket: what the sandbox hears then is not what
// the gateway said.
func (l *lane) sawFrame(f sandbox.Frame) {
	if l.spoiling.Load() {
		l.tap.Exempt(wire.Frame(f))
		return
	}
	l.tap.Check(wire.Frame(f))
}

// warm has the sandbox make its key, which takes longer than the server waits where many lanes begin at once.
func (l *lane) warm() error {
	resp, err := http.Post(l.sb.URL()+"/api/account/"+account+"/signup", "application/json", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the sandbox signs nobody up: %s", resp.Status)
	}
	return nil
}

// close ends all of the lane, the server first.
func (l *lane) close() error {
	var err error
	if l.direct != nil {
		l.direct.Close()
	}
	if l.server != nil {
		if err = l.server.Stop(); err != nil {
			err = fmt.Errorf("the server ended with %w\n%s", err, l.server.Logs.Tail())
		}
	}
	for _, p := range []*proxy.Proxy{l.caller, l.store, l.socket} {
		if p != nil {
			p.Close()
		}
	}
	if l.sb != nil {
		l.sb.Close()
		err = errors.Join(err, l.tap.Close())
	}
	return err
}

// audit holds what the lane's callers were told against what the sandbox has noted. Nothing may be going on any more.
func (l *lane) audit(ctx context.Context) (audit.Report, error) {
	e, err := audit.Fetch(ctx, l.sb.URL())
	if err != nil {
		return audit.Report{}, err
	}
	return audit.Check(l.told, e), nil
}

// A consumer is one who has signed up, with a conversation of its own.
type consumer struct {
	id           lpfileshare.Identity
	owner        string              // LivePerson's id of it
	conversation string              // its name
	direct       *lpfileshare.Client // past the proxy
}

func (l *lane) consumer(ctx context.Context) (*consumer, error) {
	in, err := l.direct.SignInConsumer(ctx, &pb.SignInConsumerRequest{
		Account: accountPath, Method: &pb.SignInConsumerRequest_SignUp{SignUp: &pb.SignUp{}},
	})
	if err != nil {
		return nil, fmt.Errorf("sign-up: %w", err)
	}
	c := &consumer{id: lpfileshare.ConsumerToken(lpfileshare.StaticToken(in.Token)), owner: in.ConsumerID}
	c.direct = l.direct.As(c.id)
	conv, err := c.direct.CreateConversation(ctx, &pb.CreateConversationRequest{Parent: accountPath})
	if err != nil {
		return nil, fmt.Errorf("conversation: %w", err)
	}
	c.conversation = conv.GetName()
	return c, nil
}

// forget ends all LivePerson sessions: nobody holds them, so the server lets them go.
func (l *lane) forget(ctx context.Context) error {
	l.sb.DropSockets(0)
	for l.sb.Sockets() > 0 {
		select {
		case <-ctx.Done():
			return fmt.Errorf("sockets stay open: %w", ctx.Err())
		case <-time.After(2 * time.Millisecond):
		}
	}
	return nil
}

// text is a file of n bytes that any check takes for plain text, and that no other case sends.
func text(seed uint64, n int) []byte {
	var b bytes.Buffer
	for i := uint64(0); b.Len() < n; i++ {
		fmt.Fprintf(&b, "%016x %016x\n", seed, (seed+i)*0x9E3779B97F4A7C15)
	}
	return b.Bytes()[:n]
}
