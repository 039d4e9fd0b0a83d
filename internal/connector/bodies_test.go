package connector

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/lprest"
	"github.com/lpfileshare/lpfileshare/test/lpfake"
)

// TestUnverified_CutsTheOldestOfTheLargestPeer fills the memory with bodies from several addresses.
func TestUnverified_CutsTheOldestOfTheLargestPeer(t *testing.T) {
	var u unverified
	var stopped []string
	begin := func(name, from string, held int64) *unverifiedBody {
		b := u.begin(netip.MustParseAddr(from), func() { stopped = append(stopped, name) })
		if held > 0 && !b.grow(held) {
			t.Errorf("%s was cut at its first bytes", name)
		}
		return b
	}
	const mib = 1 << 20
	begin("empty", "192.0.2.1", 0)
	oldest := begin("oldest", "192.0.2.1", 10*mib)
	begin("second", "::ffff:192.0.2.1", 5*mib)
	begin("third", "192.0.2.1", 2*mib) // 17 MiB of one peer
	if strings.Join(stopped, " ") != "oldest" || !oldest.wasCut() || oldest.grow(1) {
		t.Errorf("stopped %v, want the oldest that holds memory", stopped)
	}
	oldest.release()
	begin("host 1", "2001:db8::1", 10*mib)
	begin("host 2", "2001:db8::ffff:0:0:1", 6*mib)
	begin("neighbour", "2001:db8:0:1::1", 16*mib)
	begin("other", "192.0.2.2", 16*mib)
	if len(stopped) != 1 {
		t.Errorf("stopped %v although the memory suffices", stopped)
	}
	begin("small", "192.0.2.3", 10*mib) // 65 MiB in all, and the first address holds 7 of them
	if len(stopped) != 2 || stopped[1] == "small" || stopped[1] == "second" {
		t.Errorf("stopped %v, want one of a peer that holds 16 MiB", stopped)
	}
	if u.held > maxBodyMemory {
		t.Errorf("%d bytes are held", u.held)
	}
}

func TestUnverified_CountsBuffersUntilRelease(t *testing.T) {
	var u unverified
	b := u.begin(netip.Addr{}, func() {})
	data, err := b.readAll(io.LimitReader(zeros{}, 100_000))
	if err != nil || len(data) != 100_000 || u.held != int64(cap(data)) {
		t.Errorf("read %d bytes, %v; %d are counted of %d", len(data), err, u.held, cap(data))
	}
	b.release()
	if u.held != 0 || len(u.peers) != 0 {
		t.Errorf("%d bytes of %d peers are still counted", u.held, len(u.peers))
	}
	cut := u.begin(netip.Addr{}, func() {})
	cut.cutOff()
	if _, err := cut.readAll(zeros{}); !errors.Is(err, errBodyMemory) {
		t.Errorf("a body that was cut: %v", err)
	}
}

// zeros is endless.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// Slow bodies that nobody signed, more than the memory for them, come from the same address as LivePerson's deliveries.
func TestWebhook_SlowBodiesDoNotCostADelivery(t *testing.T) {
	h := newWebhookEnv(t)
	target, err := url.Parse(h.hook)
	if err != nil {
		t.Fatal(err)
	}
	const attackers, sent = 300, 300_000 // 90 MB
	header := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: h\r\nX-Liveperson-Account-Id: %s\r\nX-Liveperson-Signature: %s\r\nContent-Length: %d\r\n\r\n",
		target.Path, lpfake.Account, signed("another secret", nil), maxDelivery)
	var attack sync.WaitGroup
	var conns []net.Conn
	for range attackers {
		conn, err := net.Dial("tcp", target.Host)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		conns = append(conns, conn)
		attack.Go(func() { _, _ = io.WriteString(conn, header+strings.Repeat("x", sent)) })
	}
	for i := range 20 {
		h.deliver(fileEvent(i))
	}
	attack.Wait()
	for i := range 20 {
		h.deliver(fileEvent(20 + i))
	}
	if n := h.m.Counts(); n.Kept != 40 || n.Failed != 0 {
		t.Errorf("counted %+v", n)
	}
	for _, conn := range conns { // when the server has ended them all, the count is final
		if err := conn.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if resp, err := http.ReadResponse(bufio.NewReader(conn), nil); err == nil {
			resp.Body.Close()
		} else if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("the server does not end a slow body")
		}
	}
	if n := h.m.cfg.Rejections.Counts()[limitBodies]; n == 0 {
		t.Error("no slow body was cut")
	}
}

func TestWebhook_LogsRejections(t *testing.T) {
	var out lockedBuffer
	h := newWebhookEnv(t, func(c *Config) {
		c.Client = newClient(t, lprest.Config{Logger: slog.New(slog.NewTextHandler(&out, nil))})
	})
	body, _ := json.Marshal(fileEvent(1))
	post(t, h.hook, body, map[string]string{"x-liveperson-account-id": lpfake.Account, "x-liveperson-signature": signed("other", body)})
	if got := out.String(); !strings.Contains(got, `level=WARN msg="a delivery was rejected" reason="the signature is wrong" peer=127.0.0.1:`) {
		t.Errorf("logged %s", got)
	}
}

type lockedBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}
