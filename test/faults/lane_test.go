package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/faults/audit"
	"github.com/lpfileshare/lpfileshare/test/faults/proxy"
	"github.com/lpfileshare/lpfileshare/test/harness"
	"github.com/lpfileshare/lpfileshare/test/wire"
)

const (
	account     = harness.Account
	accountPath = harness.AccountPath
)

// The server's timeouts, short. A socket that was lost is opened again within a second, so a call must wait for longer.
const (
	lpTimeout   = 1500 * time.Millisecond
	settle      = 500 * time.Millisecond
	storeStall  = time.Second
	idleTimeout = 2 * time.Second
	heartbeat   = time.Second
)

// frames are those of all sandboxes here, held against the schemas of test/wire.
var frames = wire.NewSuite("faults")

// program is the server as `make build` builds it, without the race detector.
var program harness.Program

// summary is printed after the tests.
var summary bytes.Buffer

func TestMain(m *testing.M) {
	code := harness.Main(m, frames, &program)
	fmt.Print(summary.String()) // after what the testing package prints, so that its last line is the last one
	os.Exit(code)
}

// A lane is a server as a process of its own, the sandbox that plays LivePerson and the store for it, and a fault proxy on each
// way: to LivePerson, to the store, from the caller, and for webhooks. One case at a time runs on it.
type lane struct {
	over              *messenger
	dir               string // its files
	sb                *sandbox.Sandbox
	tap               *wire.Tap
	spoiling          atomic.Bool // bytes are spoiled on the way to LivePerson just now
	lp, store, caller *proxy.Proxy
	hooks             *proxy.Proxy // nil where there are no webhooks
	server            *harness.Server
	direct            *lpfileshare.Client // past the proxy
	record            audit.Record
}

// openLane starts a lane. The caller closes it, even after an error.
func openLane(over *messenger) (_ *lane, err error) {
	l := &lane{over: over}
	if l.dir, err = os.MkdirTemp("", "lpfileshare-lane"); err != nil {
		return l, err
	}
	if l.tap, err = frames.Tap(); err != nil {
		return l, err
	}
	if l.sb, err = sandbox.Start(sandbox.Options{OnFrame: l.sawFrame, OnExchange: l.sawExchange, WebhookUnit: 50 * time.Millisecond, WebhookTimeout: 2 * lpTimeout}); err != nil {
		return l, err
	}
	if err = harness.Warm(l.sb); err != nil {
		return l, err
	}
	at := strings.TrimPrefix(l.sb.URL(), "http://")
	if l.lp, err = proxy.Listen(at, over.protocol); err != nil {
		return l, err
	}
	if l.store, err = proxy.Listen(at, proxy.HTTP); err != nil {
		return l, err
	}
	flags, err := over.flags(l.dir)
	if err != nil {
		return l, err
	}
	for _, service := range over.domains {
		flags = append(flags, "--domain="+service+"="+l.lp.Addr())
	}
	flags = append(flags, harness.Before(l.sb)...)
	l.server, err = harness.Start(program, append(flags, "--ledger=memory",
		"--domain=swift="+l.store.Addr(), "--documents", "--log-level=debug",
		"--lp-timeout="+lpTimeout.String(), "--settle="+settle.String(), "--store-stall="+storeStall.String(),
		"--upload-idle-timeout="+idleTimeout.String(), "--heartbeat-interval="+heartbeat.String(), "--drain-time=1s", "--drain-notice=0s")...)
	if err != nil {
		return l, err
	}
	if l.caller, err = proxy.Listen(l.server.Addr, proxy.HTTP2); err != nil {
		return l, err
	}
	if l.server.Webhooks != "" {
		if l.hooks, err = proxy.Listen(l.server.Webhooks, proxy.HTTPCalls); err != nil {
			return l, err
		}
		hooks := sandbox.Webhooks{Endpoints: sandbox.AllEvents("http://" + l.hooks.Addr() + "/webhooks"), Retention: time.Hour, Signature: "sha256"}
		if err = l.sb.SetWebhooks("", "", hooks); err != nil {
			return l, err
		}
	}
	l.direct, err = lpfileshare.Dial(l.server.Addr)
	return l, err
}

// sawExchange is sawFrame for the Connector API.
func (l *lane) sawExchange(x sandbox.Exchange) {
	if l.spoiling.Load() {
		l.tap.Exempt(wire.Frame{})
		return
	}
	l.tap.CheckExchange(wire.Exchange(x))
}

// sawFrame checks a frame, unless the case damages bytes on the socket: the sandbox then receives other frames than the server sent.
func (l *lane) sawFrame(f sandbox.Frame) {
	if l.spoiling.Load() {
		l.tap.Exempt(wire.Frame(f))
		return
	}
	l.tap.Check(wire.Frame(f))
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
	for _, p := range []*proxy.Proxy{l.caller, l.store, l.lp, l.hooks} {
		if p != nil {
			p.Close()
		}
	}
	if l.sb != nil {
		l.sb.Close()
		err = errors.Join(err, l.tap.Close())
	}
	return errors.Join(err, os.RemoveAll(l.dir))
}

// audit compares the results that the lane's callers got with the sandbox's journal. No call may be running.
func (l *lane) audit(ctx context.Context) (audit.Report, error) {
	e, err := audit.Fetch(ctx, l.sb.URL())
	if err != nil {
		return audit.Report{}, err
	}
	return audit.Check(l.record, e), nil
}

// A consumer is a new one, with a conversation of its own.
type consumer struct {
	id           lpfileshare.Identity
	owner        string              // LivePerson's id of it
	conversation string              // its name
	direct       *lpfileshare.Client // past the proxy
}

func (l *lane) consumer(ctx context.Context) (*consumer, error) {
	id, owner, err := l.over.signIn(ctx, l)
	if err != nil {
		return nil, fmt.Errorf("sign-in: %w", err)
	}
	c := &consumer{id: id, owner: owner}
	c.direct = l.direct.As(c.id)
	c.conversation, err = harness.Open(ctx, c.direct, account)
	return c, err
}
