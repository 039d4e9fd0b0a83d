package lpfileshare_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

func session(token string, life time.Duration) *lpfileshare.ConsumerTokens {
	return lpfileshare.NewConsumerTokens("12345678",
		lpfileshare.ConsumerSession{Token: token, RenewalSecret: "secret of " + token, Expires: time.Now().Add(life)}, nil)
}

func renewTo(token string) func(context.Context, int, *pb.RenewConsumerRequest) (*pb.RenewConsumerResponse, error) {
	return func(ctx context.Context, _ int, r *pb.RenewConsumerRequest) (*pb.RenewConsumerResponse, error) {
		if md, _ := metadata.FromIncomingContext(ctx); len(keysOf(md)) != 0 {
			return nil, status.Error(codes.InvalidArgument, "IdentityService was shown an identity")
		}
		if r.GetAccount() != "accounts/12345678" || !strings.HasPrefix(r.GetRenewalSecret(), "secret of ") {
			return nil, status.Error(codes.InvalidArgument, "wrong renewal")
		}
		return &pb.RenewConsumerResponse{
			ConsumerToken: token, RenewalSecret: "secret of " + token, ExpireTime: timestamppb.New(time.Now().Add(time.Hour)),
		}, nil
	}
}

// keysOf are the identities in a call's metadata.
func keysOf(md metadata.MD) []string {
	var keys []string
	for key, values := range md {
		if strings.HasPrefix(key, "lp-") {
			keys = append(keys, fmt.Sprint(key, values))
		}
	}
	return keys
}

func TestACallCarriesExactlyOneIdentity(t *testing.T) {
	var seen []string
	f := &fake{stat: func(ctx context.Context, _ int) (*pb.StatFileResponse, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		seen = keysOf(md)
		return &pb.StatFileResponse{}, nil
	}}
	c := start(t, f)
	ctx := metadata.AppendToOutgoingContext(testContext(t), "lp-agent-token", "of somebody else", "lp-consumer-token", "too")
	for _, tc := range []struct {
		id   lpfileshare.Identity
		want string
	}{
		{lpfileshare.ConsumerToken(lpfileshare.StaticToken("c")), "lp-consumer-token[c]"},
		{lpfileshare.AgentToken(lpfileshare.StaticToken("a")), "lp-agent-token[a]"},
		{lpfileshare.ExternalConsumerID("e"), "lp-external-consumer-id[e]"},
	} {
		if _, err := c.As(tc.id).Files().StatFile(ctx, &pb.StatFileRequest{}); err != nil {
			t.Fatal(err)
		}
		if len(seen) != 1 || seen[0] != tc.want {
			t.Errorf("got %v, want %v", seen, tc.want)
		}
	}
	f.signOut = func(ctx context.Context, n int, r *pb.SignOutAgentRequest) (*pb.SignOutAgentResponse, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		if seen = keysOf(md); n == 1 {
			return nil, failure(codes.Unavailable, pb.ErrorReason_ERROR_REASON_LP_UNAVAILABLE)
		}
		seen = append(seen, r.GetAccount())
		return &pb.SignOutAgentResponse{}, nil
	}
	agent := c.As(lpfileshare.AgentToken(lpfileshare.StaticToken("a")))
	if err := agent.SignOutAgent(ctx, "12345678"); err != nil || fmt.Sprint(seen) != "[lp-agent-token[a] accounts/12345678]" || f.count("SignOutAgent") != 2 {
		t.Errorf("a sign-out, which alone in IdentityService is made as somebody, and may be repeated: %v, %v", seen, err)
	}
	_, err := lpfileshare.Dial(f.addr, lpfileshare.WithAgentToken(lpfileshare.StaticToken("a")), lpfileshare.WithExternalConsumerID("e"))
	if err == nil {
		t.Error("two identities were taken")
	}
}

func TestTokensDoNotPrint(t *testing.T) {
	s := lpfileshare.ConsumerSession{Token: "geheim", RenewalSecret: "geheim"}
	for _, v := range []any{s, &s, lpfileshare.StaticToken("geheim")} {
		for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
			if text := fmt.Sprintf(format, v); strings.Contains(text, "geheim") {
				t.Errorf("%s of %T: %s", format, v, text)
			}
		}
	}
}

// Many calls at once with a token that is about to end, or that the server refuses, make one renewal.
func TestTokensAreRenewedOnceForAll(t *testing.T) {
	for _, tc := range []struct {
		name string
		life time.Duration
	}{{"before its end", 30 * time.Second}, {"when refused", time.Hour}} {
		t.Run(tc.name, func(t *testing.T) {
			f := &fake{stat: func(ctx context.Context, _ int) (*pb.StatFileResponse, error) {
				if md, _ := metadata.FromIncomingContext(ctx); md.Get("lp-consumer-token")[0] != "new" {
					return nil, failure(codes.Unauthenticated, pb.ErrorReason_ERROR_REASON_TOKEN_INVALID)
				}
				return &pb.StatFileResponse{}, nil
			}}
			f.renew = func(ctx context.Context, n int, r *pb.RenewConsumerRequest) (*pb.RenewConsumerResponse, error) {
				time.Sleep(100 * time.Millisecond)
				return renewTo("new")(ctx, n, r)
			}
			var told []string
			tokens := lpfileshare.NewConsumerTokens("12345678", lpfileshare.ConsumerSession{
				Token: "old", RenewalSecret: "secret of old", Expires: time.Now().Add(tc.life),
			}, func(s lpfileshare.ConsumerSession) { told = append(told, s.Token) })
			c := start(t, f, lpfileshare.WithConsumerToken(tokens))
			ctx := testContext(t)
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					if _, err := c.Files().StatFile(ctx, &pb.StatFileRequest{}); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if f.count("RenewConsumer") != 1 || fmt.Sprint(told) != "[new]" {
				t.Errorf("%d renewals, told %v", f.count("RenewConsumer"), told)
			}
			if tc.life < time.Minute && f.count("StatFile") != 20 {
				t.Errorf("%d calls: the old token was used", f.count("StatFile"))
			}
		})
	}
}

func TestAFailedRenewalLeavesALivingTokenInUse(t *testing.T) {
	f := &fake{
		stat: func(context.Context, int) (*pb.StatFileResponse, error) { return &pb.StatFileResponse{}, nil },
		renew: func(context.Context, int, *pb.RenewConsumerRequest) (*pb.RenewConsumerResponse, error) {
			return nil, failure(codes.Unavailable, pb.ErrorReason_ERROR_REASON_LP_UNAVAILABLE)
		},
	}
	c := start(t, f, lpfileshare.WithConsumerToken(session("old", 30*time.Second)))
	for range 3 {
		if _, err := c.Files().StatFile(testContext(t), &pb.StatFileRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	if n := f.count("RenewConsumer"); n != 1 {
		t.Errorf("%d renewals in a row", n)
	}
	c = c.As(lpfileshare.ConsumerToken(session("dead", -time.Second)))
	if _, err := c.Files().StatFile(testContext(t), &pb.StatFileRequest{}); lpfileshare.ErrorReason(err) != pb.ErrorReason_ERROR_REASON_LP_UNAVAILABLE {
		t.Errorf("with a dead token: %v", err)
	}
}

func TestChangesAreRepeatedUnderOneRequestID(t *testing.T) {
	var ids []string
	c := start(t, &fake{create: func(n int, r *pb.CreateConversationRequest) (*pb.CreateConversationResponse, error) {
		ids = append(ids, r.GetRequestId())
		if n == 1 {
			return nil, failure(codes.Unavailable, pb.ErrorReason_ERROR_REASON_LP_UNAVAILABLE)
		}
		return &pb.CreateConversationResponse{Conversation: &pb.Conversation{Name: conversation}}, nil
	}})
	req := &pb.CreateConversationRequest{Account: "accounts/12345678"}
	got, err := c.CreateConversation(testContext(t), req)
	if err != nil || got.GetName() != conversation || len(ids) != 2 || ids[0] == "" || ids[0] != ids[1] {
		t.Errorf("ids %q, answer %v, error %v", ids, got, err)
	}
	if req.GetRequestId() != "" {
		t.Error("the caller's message was changed")
	}
	if _, err := c.CreateConversation(testContext(t), &pb.CreateConversationRequest{RequestId: "mine"}); err != nil || ids[2] != "mine" {
		t.Errorf("ids %q, error %v", ids, err)
	}
}

func TestTLS(t *testing.T) {
	web := httptest.NewTLSServer(nil) // for its certificate
	defer web.Close()
	f := &fake{stat: func(context.Context, int) (*pb.StatFileResponse, error) { return &pb.StatFileResponse{}, nil }}
	stop, err := f.serve(credentials.NewServerTLSFromCert(&web.TLS.Certificates[0]))
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	c, err := lpfileshare.Dial(f.addr, lpfileshare.WithTLS(web.Client().Transport.(*http.Transport).TLSClientConfig))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Files().StatFile(testContext(t), &pb.StatFileRequest{}); err != nil {
		t.Error(err)
	}
	stranger, err := lpfileshare.Dial(f.addr, lpfileshare.WithTLS(&tls.Config{}))
	if err != nil {
		t.Fatal(err)
	}
	defer stranger.Close()
	if err := stranger.Connect(testContext(t)); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("a certificate of nobody's was taken: %v", err)
	}
}

func TestConnectSaysAtOnceThatNobodyIsThere(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	listener.Close()
	c, err := lpfileshare.Dial(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	begun := time.Now()
	err = c.Connect(testContext(t))
	var e *lpfileshare.Error
	if !errors.As(err, &e) || !strings.Contains(e.What(), "refused") || !strings.Contains(e.Advice(), "Check the address") || time.Since(begun) > 3*time.Second {
		t.Errorf("after %v: %v", time.Since(begun), err)
	}
}
