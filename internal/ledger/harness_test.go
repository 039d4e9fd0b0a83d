package ledger

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"go.uber.org/goleak"

	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/test/process"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDirEnv); dir != "" {
		saveUntilKilled(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// ledger is implemented by KV and ledgertest.Memory.
type ledger interface {
	Load(ctx context.Context, key string) (share.Record, uint64, error)
	Save(ctx context.Context, key string, r share.Record, rev uint64) (uint64, error)
}

// A clock is set by hand.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func newClock() *clock { return &clock{t: time.Now()} }

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// config returns a configuration for tests. Without servers it is for an embedded one. Its timeouts are long, so that only a test that
// shortens them can meet one, however busy the machine is.
func config(t testing.TB, dir string, servers ...string) Config {
	t.Helper()
	return Config{
		Servers: servers, Dir: dir, TTL: 24 * time.Hour, MaxBytes: 64 << 20, Timeout: time.Minute, StartTimeout: 2 * time.Minute,
		interval: 100 * time.Millisecond, Now: time.Now, Log: slog.New(slog.NewTextHandler(logTo{t}, nil)),
	}
}

// logTo writes lines to a test's log.
type logTo struct{ t testing.TB }

func (l logTo) Write(p []byte) (int, error) {
	l.t.Logf("%s", p)
	return len(p), nil
}

// impatient returns a configuration whose calls end after d.
func impatient(c Config, d time.Duration) Config {
	c.Timeout = d
	return c
}

func open(t testing.TB, c Config) *KV {
	t.Helper()
	l, err := Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() }) // a second Close is harmless
	return l
}

// A peer is a NATS server that listens on a port.
type peer struct {
	t    testing.TB
	opts server.Options
	s    *server.Server
}

func (p *peer) start() {
	p.t.Helper()
	opts := p.opts
	s, err := server.NewServer(&opts)
	if err != nil {
		p.t.Fatal(err)
	}
	p.s = s
	s.Start()
	if !s.ReadyForConnections(time.Minute) {
		p.t.Fatal("a NATS server did not start")
	}
}

func (p *peer) stop() {
	p.s.Shutdown()
	p.s.WaitForShutdown()
}

func (p *peer) addr() string { return fmt.Sprintf("127.0.0.1:%d", p.opts.Port) }
func (p *peer) url() string  { return "nats://" + p.addr() }

// newPeer starts a NATS server without a cluster.
func newPeer(t testing.TB, change ...func(*server.Options)) *peer {
	t.Helper()
	p := &peer{t: t, opts: server.Options{Host: "127.0.0.1", Port: freePorts(t, 1)[0], NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir()}}
	for _, c := range change {
		c(&p.opts)
	}
	p.start()
	t.Cleanup(func() { p.stop() })
	return p
}

// freePorts returns ports that no outgoing connection takes, also not while a server is stopped.
func freePorts(t testing.TB, n int) []int {
	t.Helper()
	ports, err := process.FreePorts(n)
	if err != nil {
		t.Fatal(err)
	}
	return ports
}

// newCluster starts three NATS servers.
func newCluster(t testing.TB) []*peer {
	t.Helper()
	ports := freePorts(t, 6)
	clusterPorts := ports[3:]
	var routes []*url.URL
	for _, port := range clusterPorts {
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", port)})
	}
	var peers []*peer
	var starts sync.WaitGroup
	for i, port := range clusterPorts {
		p := &peer{t: t, opts: server.Options{
			ServerName: fmt.Sprintf("peer-%d", i), Host: "127.0.0.1", Port: ports[i], NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir(),
			Cluster: server.ClusterOpts{Name: "peers", Host: "127.0.0.1", Port: port}, Routes: routes,
		}}
		peers = append(peers, p)
		starts.Go(p.start)
	}
	starts.Wait()
	t.Cleanup(func() {
		for _, p := range peers {
			p.stop()
		}
	})
	// A request before the leader is elected gets no answer. NATS has no event for it.
	for limit := time.After(2 * time.Minute); !ready(peers); {
		select {
		case <-time.After(10 * time.Millisecond):
		case <-limit:
			t.Fatal("the NATS cluster elected no leader")
		}
	}
	return peers
}

// ready reports whether the peers have elected a leader that can place three replicas.
func ready(peers []*peer) bool {
	led := false
	for _, p := range peers {
		if !p.s.JetStreamIsCurrent() {
			return false
		}
		led = led || p.s.JetStreamIsLeader() && len(p.s.JetStreamClusterPeers()) == len(peers)
	}
	return led
}

func urls(peers []*peer) []string {
	var all []string
	for _, p := range peers {
		all = append(all, p.url())
	}
	return all
}

// lossyProxy is a TCP proxy of a peer that can drop its answers.
type lossyProxy struct {
	listener net.Listener
	to       string

	mu    sync.Mutex
	drop  bool
	conns []net.Conn
	wg    sync.WaitGroup
}

func newLossyProxy(t testing.TB, to string) *lossyProxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &lossyProxy{listener: listener, to: to}
	p.wg.Go(func() {
		for {
			in, err := listener.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			p.mu.Lock()
			p.conns = append(p.conns, in, out)
			p.mu.Unlock()
			p.wg.Go(func() { p.copy(out, in, false) })
			p.wg.Go(func() { p.copy(in, out, true) })
		}
	})
	t.Cleanup(func() {
		listener.Close()
		p.cut()
		p.wg.Wait()
	})
	return p
}

func (p *lossyProxy) url() string { return "nats://" + p.listener.Addr().String() }

func (p *lossyProxy) copy(to, from net.Conn, answers bool) {
	defer to.Close()
	defer from.Close()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		p.mu.Lock()
		drop := p.drop && answers
		p.mu.Unlock()
		if drop {
			continue
		}
		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// dropAnswers drops everything that the server sends.
func (p *lossyProxy) dropAnswers(yes bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.drop = yes
}

// cut closes every connection.
func (p *lossyProxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
	p.conns = nil
}

// put stores bytes under a key without using the ledger.
func put(t *testing.T, url, key string, value []byte) {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	js, err := nc.JetStream()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := js.Publish("$KV."+bucketName+"."+key, value); err != nil {
		t.Fatal(err)
	}
}

func subdir(t testing.TB) string { return filepath.Join(t.TempDir(), "ledger") }

// check makes a health check now, and fails the test unless the ledger is usable or full.
func check(t testing.TB, l *KV) {
	t.Helper()
	if now := l.checkAll(); now.Ledger != nil && now.Ledger != errFull {
		t.Fatal(now.Ledger)
	}
}
