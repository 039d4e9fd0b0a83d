package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

func serveForDemo(how string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	if got := strings.Join(os.Args[1:], " "); got != "--sandbox --listen 127.0.0.1:0" {
		fmt.Fprintln(os.Stderr, "called with", got)
		return 2
	}
	if how == "broken" {
		fmt.Fprintln(os.Stderr, "level=ERROR msg=\"no space left\"")
		return 1
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 1
	}
	g := &gateway{health: health.NewServer(), changed: make(chan struct{}), data: map[string][]byte{}, signInExpiry: time.Hour}
	server := grpc.NewServer()
	pb.RegisterFileSharingServiceServer(server, g)
	pb.RegisterConversationServiceServer(server, g)
	pb.RegisterIdentityServiceServer(server, g)
	healthpb.RegisterHealthServer(server, g.health)
	g.health.SetServingStatus("lpfileshare.v1.FileSharingService", healthpb.HealthCheckResponse_SERVING)
	context.AfterFunc(ctx, server.GracefulStop)
	fmt.Fprintf(os.Stderr, "level=INFO msg=starting grpc=nowhere\ntime=x level=INFO msg=ready grpc=%s sandbox=\"127.0.0.1:1\"\n", listener.Addr())
	server.Serve(listener)
	os.WriteFile(os.Getenv("LPFILESHARE_TEST_STOPPED"), nil, 0o600)
	return 0
}

func TestDemo(t *testing.T) {
	for name, g := range map[string]*gateway{"with an agent": {}, "with a second connection": {noAgents: true}} {
		t.Run(name, func(t *testing.T) {
			startGateway(t, g)
			s := newShell(t, g)
			out := s.ok("demo", "--address", g.address)
			last := out[strings.LastIndexByte(out, '\n')+1:]
			if !strings.HasPrefix(last, "demo: ok sha256=") || !strings.Contains(last, fmt.Sprintf(" bytes=%d ", len(demoPicture))) {
				t.Errorf("got\n%s", out)
			}
			if agent := strings.Contains(out, "agent agent-1 received"); agent == g.noAgents {
				t.Errorf("got\n%s", out)
			}
			if state := g.conversations[0].GetState(); state != pb.ConversationState_CONVERSATION_STATE_CLOSED {
				t.Errorf("the conversation is %v", state)
			}
			write(t, "mine.jpg", picture(777))
			if out := s.ok("demo", "--address", g.address, "mine.jpg"); !strings.Contains(out, " bytes=777 ") {
				t.Errorf("got\n%s", out)
			}
		})
	}
}

func TestDemo_Fails(t *testing.T) {
	g := startGateway(t, &gateway{corrupt: true})
	s := newShell(t, g)
	code, stdout, _ := s.run(t.Context(), "demo", "--address", g.address)
	last := stdout[strings.LastIndexByte(strings.TrimSuffix(stdout, "\n"), '\n')+1:]
	if code != exitFailed || !strings.HasPrefix(last, "demo: failed: the downloaded file has SHA-256") {
		t.Errorf("exit code %d\n%s", code, stdout)
	}
	if state := g.conversations[0].GetState(); state != pb.ConversationState_CONVERSATION_STATE_CLOSED {
		t.Errorf("the conversation is %v", state)
	}
}

func TestDemo_StartsAndStopsServer(t *testing.T) {
	s := newShell(t, nil)
	stopped := filepath.Join(t.TempDir(), "stopped")
	t.Setenv("LPFILESHARE_TEST_STOPPED", stopped)
	t.Setenv("LPFILESHARE_TEST_SERVER", "good")
	out := s.ok("demo", "--server", os.Args[0])
	if !strings.Contains(out, "server stopped\ndemo: ok sha256=") {
		t.Errorf("got\n%s", out)
	}
	if _, err := os.Stat(stopped); err != nil {
		t.Errorf("the server did not stop by SIGTERM: %v", err)
	}

	os.Remove(stopped)
	code, stdout, _ := s.run(t.Context(), "demo", "--server", os.Args[0], write(t, "empty", nil))
	if _, err := os.Stat(stopped); err != nil || code != exitFailed || !strings.Contains(stdout, "\ndemo: failed: ") {
		t.Errorf("a failed demo: %v, exit code %d\n%s", err, code, stdout)
	}

	t.Setenv("LPFILESHARE_TEST_SERVER", "broken")
	code, stdout, _ = s.run(t.Context(), "demo", "--server", os.Args[0])
	if code != exitFailed || !strings.HasPrefix(stdout, "demo: failed: start the server: the server ended before it was ready") || !strings.Contains(stdout, "no space left") {
		t.Errorf("exit code %d\n%s", code, stdout)
	}
}
