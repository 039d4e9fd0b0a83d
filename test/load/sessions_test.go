package load

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sync/errgroup"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/harness"
)

// BenchmarkIdleSessions opens 5,000 LivePerson sessions, leaves them idle, reports what one costs the server, and then uses each
// once. The sandbox is in this process, the server in one of its own.
func BenchmarkIdleSessions(b *testing.B) {
	const sessions = 5000
	for _, tls := range []bool{false, true} {
		name := map[bool]string{false: "plaintext", true: "TLS"}[tls]
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				s := sessionServer(b, tls)
				before := s.inUse()
				conn, err := lpfileshare.Dial(s.Addr)
				if err != nil {
					b.Fatal(err)
				}
				clients := openSessions(b, conn, sessions)
				after := s.inUse()
				perSession := func(a, b int64) float64 { return float64(a-b) / sessions }
				b.ReportMetric(perSession(after.heap+after.stack, before.heap+before.stack)/1024, "KiB/session")
				b.ReportMetric(perSession(after.heap, before.heap)/1024, "KiB-heap/session")
				b.ReportMetric(perSession(after.stack, before.stack)/1024, "KiB-stack/session")
				b.ReportMetric(perSession(after.resident, before.resident)/1024, "KiB-resident/session")
				b.ReportMetric(perSession(after.goroutines, before.goroutines), "goroutines/session")
				useEach(b, s, clients)
				conn.Close()
				if err := s.Stop(); err != nil {
					b.Error(err)
				}
				s.sb.Close()
			}
		})
	}
}

func sessionServer(b *testing.B, tls bool) *server {
	b.Helper()
	const limits = "--max-sessions=6000"
	if !tls {
		return startServer(b, limits)
	}
	ca := filepath.Join(b.TempDir(), "ca.pem")
	sb := harness.Sandbox(b, frames, sandbox.Options{TLSListen: "127.0.0.1:0", CAFile: ca})
	return startServerBefore(b, sb, "--domain-api="+sb.TLSURL(), "--domain-suffix=127.0.0.1", "--lp-ca="+ca, limits)
}

// openSessions signs so many consumers up and makes each one's socket open.
func openSessions(b *testing.B, conn *lpfileshare.Client, n int) []*lpfileshare.Client {
	b.Helper()
	clients := make([]*lpfileshare.Client, n)
	each(b, n, func(i int) error {
		in, err := conn.SignInConsumer(b.Context(), &pb.SignInConsumerRequest{Account: accountPath, Grant: &pb.SignInConsumerRequest_SignUp{SignUp: &pb.SignUp{}}})
		if err != nil {
			return err
		}
		clients[i] = conn.As(lpfileshare.ConsumerToken(lpfileshare.StaticToken(in.Token)))
		_, err = clients[i].Raw().Files.GetCapabilities(b.Context(), &pb.GetCapabilitiesRequest{Account: accountPath})
		return err
	})
	return clients
}

// useEach creates a conversation in each session, over the socket that has been idle.
func useEach(b *testing.B, s *server, clients []*lpfileshare.Client) {
	b.Helper()
	open := s.sb.Sockets()
	var mu sync.Mutex
	made := map[string]bool{}
	each(b, len(clients), func(i int) error {
		conv, err := clients[i].CreateConversation(b.Context(), &pb.CreateConversationRequest{Account: accountPath})
		if err == nil {
			mu.Lock()
			made[conv.GetName()] = true
			mu.Unlock()
		}
		return err
	})
	if open != len(clients) || len(made) != len(clients) {
		b.Fatalf("%d sockets were open and %d conversations made, want %d", open, len(made), len(clients))
	}
}

func each(b *testing.B, n int, do func(int) error) {
	b.Helper()
	var group errgroup.Group
	group.SetLimit(64)
	for i := range n {
		group.Go(func() error { return do(i) })
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
}

// A usage is what the server has in use, in bytes.
type usage struct{ heap, stack, resident, goroutines int64 }

func (s *server) inUse() usage {
	s.tb.Helper()
	goroutines, err := strconv.ParseInt(strings.TrimSpace(string(s.get("/debug/gc"))), 10, 64)
	if err != nil {
		s.tb.Fatal(err)
	}
	var vars struct {
		MemStats struct{ HeapAlloc, StackInuse int64 }
	}
	if err := json.Unmarshal(s.get("/debug/vars"), &vars); err != nil {
		s.tb.Fatal(err)
	}
	return usage{vars.MemStats.HeapAlloc, vars.MemStats.StackInuse, s.Memory(s.tb, "VmRSS"), goroutines}
}

func (s *server) get(path string) []byte {
	s.tb.Helper()
	resp, err := http.Get(fmt.Sprintf("http://%s%s", s.Debug, path))
	if err != nil {
		s.tb.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		s.tb.Fatal(err)
	}
	return body
}
