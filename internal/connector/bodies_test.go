package connector

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"

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
	end := h.slowDeliveries(40, 300_000) // in buffers of 512 KiB: more than maxPeerMemory
	for i := range 10 {
		h.deliver(fileEvent(i))
	}
	end()
	if n := h.m.Counts(); n.Kept != 10 || n.Failed != 0 {
		t.Errorf("counted %+v", n)
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
