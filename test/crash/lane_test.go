package crash

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/faults/audit"
	"github.com/lpfileshare/lpfileshare/test/faults/proxy"
	"github.com/lpfileshare/lpfileshare/test/harness"
	"github.com/lpfileshare/lpfileshare/test/process"
	"github.com/lpfileshare/lpfileshare/test/wire"
)

const (
	account     = harness.Account
	accountPath = harness.AccountPath
	stream      = "KV_lpfileshare" // below the ledger's bucket

	replicas = 3 // servers, and NATS nodes
)

// The servers' timeouts. What is held is struck within a second; a publication is taken over after both of these.
const (
	lpTimeout = 3 * time.Second
	settle    = time.Second
	drain     = time.Second
)

// A lane is three servers that share a ledger on three NATS nodes, each a process of its own, and outside of them the sandbox that
// plays LivePerson and the store. One case at a time runs on it.
type lane struct {
	sb      *sandbox.Sandbox
	tap     *wire.Tap
	nodes   [replicas]*node
	servers [replicas]*server
	bucket  jetstream.JetStream
	conn    *nats.Conn
	record  audit.Record
}

// A node is one of the NATS cluster's.
type node struct {
	name, url string
	args      []string
	process   *process.Process // nil: it was killed
}

func (n *node) start() (err error) {
	n.process, _, err = process.Start(regexp.MustCompile("Server is ready"), natsBinary, n.args...)
	return err
}

func (n *node) kill() {
	if n.process != nil {
		n.process.Kill()
		n.process = nil
	}
}

// A server is one of lpfileshare's, with a proxy on each of its ways.
type server struct {
	caller, socket, store *proxy.Proxy
	ledger                [replicas]*proxy.Proxy
	addr                  string // past the proxy; the same after a restart
	args                  []string
	process               *harness.Server
}

// start starts the server. A server ends if NATS is not ready in time; start then tries again, as a supervisor does.
func (s *server) start() error {
	for try := 1; ; try++ {
		p, err := harness.Start(program, s.args...)
		if err == nil {
			s.process = p
			return nil
		}
		if try == 3 {
			return err
		}
	}
}

// proxies are all of its.
func (s *server) proxies() []*proxy.Proxy { return append(s.ledger[:], s.caller, s.socket, s.store) }

// openLane starts a lane. The caller closes it, even after an error.
func openLane(dir string) (_ *lane, err error) {
	l := &lane{}
	if l.tap, err = frames.Tap(); err != nil {
		return l, err
	}
	if l.sb, err = sandbox.Start(sandbox.Options{OnFrame: func(f sandbox.Frame) { l.tap.Check(wire.Frame(f)) }}); err != nil {
		return l, err
	}
	if err := harness.Warm(l.sb); err != nil {
		return l, err
	}
	ports, err := process.FreePorts(3 * replicas)
	if err != nil {
		return l, err
	}
	clients, routes, grpcs := ports[:replicas], ports[replicas:2*replicas], ports[2*replicas:]
	var all, known []string
	for _, port := range routes {
		all = append(all, fmt.Sprintf("nats://127.0.0.1:%d", port))
	}
	for i := range replicas {
		n := &node{name: fmt.Sprintf("node-%d", i), url: fmt.Sprintf("nats://127.0.0.1:%d", clients[i])}
		// Nodes do not advertise each other: clients would reach them past the proxies.
		n.args = []string{
			"--name", n.name, "-a", "127.0.0.1", "-p", fmt.Sprint(clients[i]), "-js", "-sd", filepath.Join(dir, n.name),
			"--cluster_name", filepath.Base(dir), "--cluster", all[i], "--routes", strings.Join(all, ","), "--no_advertise",
		}
		l.nodes[i] = n
		known = append(known, n.url)
	}
	var starts sync.WaitGroup
	errs := make([]error, replicas)
	for i, n := range l.nodes {
		starts.Go(func() { errs[i] = n.start() })
	}
	starts.Wait()
	if err := errors.Join(errs...); err != nil {
		return l, err
	}
	if l.conn, err = nats.Connect(strings.Join(known, ","), nats.MaxReconnects(-1), nats.ReconnectWait(100*time.Millisecond)); err != nil {
		return l, err
	}
	if l.bucket, err = jetstream.New(l.conn); err != nil {
		return l, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), caseTimeout)
	defer cancel()
	for { // the nodes have to choose a leader first, and what one is asked before is not answered
		try, done := context.WithTimeout(ctx, time.Second)
		_, err := l.bucket.AccountInfo(try)
		done()
		if err == nil {
			break
		}
		if ctx.Err() != nil {
			return l, fmt.Errorf("the NATS cluster does not get ready: %w\n%s", err, l.nodes[0].process.Logs.Tail())
		}
	}
	for i := range replicas {
		s := &server{addr: fmt.Sprintf("127.0.0.1:%d", grpcs[i])}
		l.servers[i] = s
		if err := l.connect(s); err != nil {
			return l, err
		}
		if err := s.start(); err != nil {
			return l, err
		}
	}
	return l, l.whole(ctx)
}

// connect puts the proxies on a server's ways.
func (l *lane) connect(s *server) (err error) {
	at := strings.TrimPrefix(l.sb.URL(), "http://")
	listen := func(p **proxy.Proxy, target string, protocol proxy.Protocol) {
		if err == nil {
			*p, err = proxy.Listen(target, protocol)
		}
	}
	listen(&s.caller, s.addr, proxy.HTTP2)
	listen(&s.socket, at, proxy.WebSocket)
	listen(&s.store, at, proxy.HTTP)
	var ledger []string
	for i, n := range l.nodes {
		if listen(&s.ledger[i], strings.TrimPrefix(n.url, "nats://"), proxy.NATS); err == nil {
			ledger = append(ledger, "nats://"+s.ledger[i].Addr())
		}
	}
	if err != nil {
		return err
	}
	s.args = append(harness.Before(l.sb),
		"--listen="+s.addr, "--ledger="+strings.Join(ledger, ","),
		"--domain=asyncMessagingEnt="+s.socket.Addr(), "--domain=swift="+s.store.Addr(), "--documents", "--log-level=debug",
		"--lp-timeout="+lpTimeout.String(), "--settle="+settle.String(), "--drain-time="+drain.String(), "--ledger-bytes=64MiB",
	)
	return nil
}

// whole returns when every server and node is there and has caught up.
func (l *lane) whole(ctx context.Context) error {
	for {
		err := l.isWhole(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the lane does not come back: %w", err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (l *lane) isWhole(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	c, err := l.cluster(ctx)
	if err != nil {
		return err
	}
	if c.Leader == "" || len(c.Replicas) != replicas-1 {
		return fmt.Errorf("the leader is %q, with %d others", c.Leader, len(c.Replicas))
	}
	for _, r := range c.Replicas {
		if !r.Current || r.Offline {
			return fmt.Errorf("%s is behind", r.Name)
		}
	}
	for i := range l.servers {
		c, err := lpfileshare.Dial(l.servers[i].addr)
		if err != nil {
			return err
		}
		status, err := c.Health(ctx, "lpfileshare.ledger")
		c.Close()
		if err != nil || status != healthpb.HealthCheckResponse_SERVING {
			return fmt.Errorf("the ledger of server %d is %v, %w", i, status, err)
		}
	}
	return nil
}

// cluster returns the state of the bucket's nodes.
func (l *lane) cluster(ctx context.Context) (*jetstream.ClusterInfo, error) {
	s, err := l.bucket.Stream(ctx, stream)
	if err != nil {
		return nil, err
	}
	if s.CachedInfo().Cluster == nil {
		return nil, errors.New("the bucket is in no cluster")
	}
	return s.CachedInfo().Cluster, nil
}

// victim is the bucket's leader, or one that is not.
func (l *lane) victim(ctx context.Context, leader bool) (*node, error) {
	c, err := l.cluster(ctx)
	if err != nil {
		return nil, err
	}
	for _, n := range l.nodes {
		if (n.name == c.Leader) == leader {
			return n, nil
		}
	}
	return nil, errors.New("NATS names no leader")
}

// direct is a client of one server, past its proxy, or of all if n is -1.
func (l *lane) direct(n int) (*lpfileshare.Client, error) {
	if n >= 0 {
		return lpfileshare.Dial(l.servers[n].addr)
	}
	var all []string
	for _, s := range l.servers {
		all = append(all, s.addr)
	}
	return lpfileshare.Dial(strings.Join(all, ","))
}

// close ends all of the lane, the servers first.
func (l *lane) close() error {
	var errs []error
	for _, s := range l.servers {
		if s == nil {
			continue
		}
		if s.process != nil && !s.process.Over() {
			if err := s.process.Stop(); err != nil {
				errs = append(errs, fmt.Errorf("a server ended with %w\n%s", err, s.process.Logs.Tail()))
			}
		}
		for _, p := range s.proxies() {
			if p != nil {
				p.Close()
			}
		}
	}
	if l.conn != nil {
		l.conn.Close()
	}
	for _, n := range l.nodes {
		if n != nil {
			n.kill()
		}
	}
	if l.sb != nil {
		l.sb.Close()
	}
	if l.tap != nil {
		errs = append(errs, l.tap.Close())
	}
	return errors.Join(errs...)
}

// audit compares the results that the lane's callers got with the sandbox's journal. No call may be running.
func (l *lane) audit(ctx context.Context) (audit.Report, error) {
	e, err := audit.Fetch(ctx, l.sb.URL())
	if err != nil {
		return audit.Report{}, err
	}
	return audit.Check(l.record, e), nil
}

// published is how many messages LivePerson has with a caption.
func (l *lane) published(caption string) (n int) {
	for _, m := range l.sb.Journal().Published {
		if m.Caption == caption {
			n++
		}
	}
	return n
}

// consumer signs a new consumer up. Its client is closed: a case dials the servers that it needs.
func (l *lane) consumer(ctx context.Context) (harness.Consumer, error) {
	any, err := l.direct(-1)
	if err != nil {
		return harness.Consumer{}, err
	}
	defer any.Close()
	return harness.SignUpAndTalk(ctx, any, account)
}
