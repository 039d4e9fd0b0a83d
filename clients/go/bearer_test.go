package lpfileshare

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// bearerServer keeps what calls carry as authorization.
type bearerServer struct {
	pb.UnimplementedFileSharingServiceServer
	seen chan []string
}

func (s *bearerServer) GetCapabilities(ctx context.Context, _ *pb.GetCapabilitiesRequest) (*pb.GetCapabilitiesResponse, error) {
	s.seen <- metadata.ValueFromIncomingContext(ctx, "authorization")
	return &pb.GetCapabilitiesResponse{}, nil
}

func TestBearerToken_FileIsReadForEachCall(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	fake, server := &bearerServer{seen: make(chan []string, 1)}, grpc.NewServer()
	pb.RegisterFileSharingServiceServer(server, fake)
	go func() { _ = server.Serve(listener) }() // ends with Stop
	defer server.Stop()
	file := filepath.Join(t.TempDir(), "token")
	t.Setenv(EnvAddress, listener.Addr().String())
	t.Setenv(EnvBearerTokenFile, file)
	c, err := DialEnv(WithConsumerToken(StaticToken("consumer")))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if text := fmt.Sprintf("%+v %#v", c, c); strings.Contains(text, file) {
		t.Errorf("a client prints its source of tokens: %s", text)
	}
	for _, token := range []string{"s3cret-1", "s3cret-2"} {
		if err := os.WriteFile(file, []byte(token+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Raw().Files.GetCapabilities(t.Context(), &pb.GetCapabilitiesRequest{}); err != nil {
			t.Fatal(err)
		}
		if got := <-fake.seen; len(got) != 1 || got[0] != "Bearer "+token {
			t.Errorf("the call carries %q", got)
		}
	}
	for _, text := range []string{"", "two tokens", "s3cret\x00", strings.Repeat("a", maxTokenFile+1)} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := c.Raw().Files.GetCapabilities(t.Context(), &pb.GetCapabilitiesRequest{})
		if status.Code(err) != codes.Unauthenticated || !strings.Contains(err.Error(), "does not contain one token") || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("a file with %d bytes: %v", len(text), err)
		}
	}
}

func TestBearerToken_NeedsTLS(t *testing.T) {
	for target, plaintext := range map[string]bool{"127.0.0.1:1": true, "unix:/s": true, "files.example.com:443": false} {
		s := settings{bearer: hide(StaticToken("t"))}
		if got := s.bearerCredentials(target).RequireTransportSecurity(); got == plaintext {
			t.Errorf("%s requires TLS: %v", target, got)
		}
		s.plaintext = true
		if s.bearerCredentials(target).RequireTransportSecurity() {
			t.Errorf("%s with WithPlaintext requires TLS", target)
		}
	}
}
