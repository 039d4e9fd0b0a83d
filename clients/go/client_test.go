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
	"testing/synctest"
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
			return nil, status.Error(codes.InvalidArgument, "a call of IdentityService carries an identity")
		}
		if r.GetAccount() != "accounts/12345678" || !strings.HasPrefix(r.GetRenewalSecret(), "secret of ") {
			return nil, status.Error(codes.InvalidArgument, "wrong renewal")
		}
		return &pb.RenewConsumerResponse{
			ConsumerToken: token, RenewalSecret: "secret of " + token, ExpireTime: timestamppb.New(time.Now().Add(time.Hour)),
		}, nil
	}
}

// keysOf returns the identities in the metadata of a call.
func keysOf(md metadata.MD) []string {
	var keys []string
	for key, values := range md {
		if strings.HasPrefix(key, "lp-") {
			keys = append(keys, fmt.Sprint(key, values))
		}
	}
	return keys
}

func TestIdentity_ExactlyOne(t *testing.T) {
	var seen []string
	f := &fake{stat: func(ctx context.Context, _ int) (*pb.StatFileResponse, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		seen = keysOf(md)
		return &pb.StatFileResponse{}, nil
	}}
	c := start(t, f)
	ctx := metadata.AppendToOutgoingContext(testContext(t), "lp-agent-token", "another", "lp-consumer-token", "another")
	for _, tc := range []struct {
		id   lpfileshare.Identity
		want string
	}{
		{lpfileshare.ConsumerToken(lpfileshare.StaticToken("c")), "lp-consumer-token[c]"},
		{lpfileshare.AgentToken(lpfileshare.StaticToken("a")), "lp-agent-token[a]"},
		{lpfileshare.ExternalConsumerID("e"), "lp-external-consumer-id[e]"},
	} {
		if _, err := c.As(tc.id).Raw().Files.StatFile(ctx, &pb.StatFileRequest{}); err != nil {
			t.Fatal(err)
		}
		if len(seen) != 1 || seen[0] != tc.want {
			t.Errorf("got %v, want %v", seen, tc.want)
		}
	}
	f.signOut = func(ctx context.Context, n int, r *pb.SignOutAgentRequest) (*pb.SignOutAgentResponse, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		if seen = keysOf(md); n == 1 {
			return nil, failure(codes.Unavailable, pb.ErrorReason_ERROR_REASON_LP_UNAVAILABLE, retryAfter(0))
		}
		seen = append(seen, r.GetAccount())
		return &pb.SignOutAgentResponse{}, nil
	}
	agent := c.As(lpfileshare.AgentToken(lpfileshare.StaticToken("a")))
	if err := agent.SignOutAgent(ctx, "12345678"); err != nil || fmt.Sprint(seen) != "[lp-agent-token[a] accounts/12345678]" || f.count("SignOutAgent") != 2 {
		t.Errorf("SignOutAgent, the only call of IdentityService with an identity, which may be repeated: %v, %v", seen, err)
	}
	_, err := lpfileshare.Dial(f.addr, lpfileshare.WithAgentToken(lpfileshare.StaticToken("a")), lpfileshare.WithExternalConsumerID("e"))
	if err == nil {
		t.Error("two identities were accepted")
	}
}

func TestTokens_AreNotPrinted(t *testing.T) {
	s := lpfileshare.ConsumerSession{Token: "s3cret", RenewalSecret: "s3cret"}
	for _, v := range []any{s, &s, lpfileshare.StaticToken("s3cret"), lpfileshare.AgentSession{Token: "s3cret"}} {
		for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
			if text := fmt.Sprintf(format, v); strings.Contains(text, "s3cret") {
				t.Errorf("%s of %T: %s", format, v, text)
			}
		}
	}
}

// A function is called for each call, and once more if its token is rejected.
func TestTokenFunc(t *testing.T) {
	f := &fake{stat: func(ctx context.Context, _ int) (*pb.StatFileResponse, error) {
		if md, _ := metadata.FromIncomingContext(ctx); md.Get("lp-consumer-token")[0] != "new" {
			return nil, failure(codes.Unauthenticated, pb.ErrorReason_ERROR_REASON_TOKEN_INVALID)
		}
		return &pb.StatFileResponse{}, nil
	}}
	for _, tc := range []struct {
		tokens []string // what the function returns
		want   pb.ErrorReason
	}{
		{[]string{"new"}, pb.ErrorReason_ERROR_REASON_UNSPECIFIED},
		{[]string{"old", "new"}, pb.ErrorReason_ERROR_REASON_UNSPECIFIED},
		{[]string{"old", "old"}, pb.ErrorReason_ERROR_REASON_TOKEN_INVALID},
	} {
		left := tc.tokens
		c := start(t, f, lpfileshare.WithConsumerToken(lpfileshare.TokenFunc(func(context.Context) (string, error) {
			token := left[0]
			left = left[min(1, len(left)-1):]
			return token, nil
		})))
		if _, err := c.Stat(testContext(t), "f"); lpfileshare.ErrorReason(err) != tc.want {
			t.Errorf("%v: %v", tc.tokens, err)
		}
	}
}

// Concurrent calls with a token that is about to expire, or that the server rejects, share one renewal.
func TestConsumerTokens_RenewOnce(t *testing.T) {
	for _, tc := range []struct {
		name string
		life time.Duration
	}{{"about to expire", 30 * time.Second}, {"rejected", time.Hour}} {
		simulated(t, tc.name, func(t *testing.T) {
			f := &fake{stat: func(ctx context.Context, _ int) (*pb.StatFileResponse, error) {
				if md, _ := metadata.FromIncomingContext(ctx); md.Get("lp-consumer-token")[0] != "new" {
					return nil, failure(codes.Unauthenticated, pb.ErrorReason_ERROR_REASON_TOKEN_INVALID)
				}
				return &pb.StatFileResponse{}, nil
			}}
			f.renew = func(ctx context.Context, n int, r *pb.RenewConsumerRequest) (*pb.RenewConsumerResponse, error) {
				synctest.Wait() // until all calls wait for the renewal
				return renewTo("new")(ctx, n, r)
			}
			var renewed []string
			tokens := lpfileshare.NewConsumerTokens("12345678", lpfileshare.ConsumerSession{
				Token: "old", RenewalSecret: "secret of old", Expires: time.Now().Add(tc.life),
			}, func(s lpfileshare.ConsumerSession) { renewed = append(renewed, s.Token) })
			c := start(t, f, lpfileshare.WithConsumerToken(tokens))
			ctx := testContext(t)
			var wg sync.WaitGroup
			for range 20 {
				wg.Go(func() {
					if _, err := c.Raw().Files.StatFile(ctx, &pb.StatFileRequest{}); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if f.count("RenewConsumer") != 1 || fmt.Sprint(renewed) != "[new]" {
				t.Errorf("%d renewals, renewed %v", f.count("RenewConsumer"), renewed)
			}
			if tc.life < time.Minute && f.count("StatFile") != 20 {
				t.Errorf("%d calls: the old token was used", f.count("StatFile"))
			}
		})
	}
}

func TestConsumerTokens_FailedRenewal(t *testing.T) {
	f := &fake{
		stat: func(context.Context, int) (*pb.StatFileResponse, error) { return &pb.StatFileResponse{}, nil },
		renew: func(context.Context, int, *pb.RenewConsumerRequest) (*pb.RenewConsumerResponse, error) {
			return nil, failure(codes.Unavailable, pb.ErrorReason_ERROR_REASON_LP_UNAVAILABLE)
		},
	}
	c := start(t, f, lpfileshare.WithConsumerToken(session("old", 30*time.Second)))
	for range 3 {
		if _, err := c.Raw().Files.StatFile(testContext(t), &pb.StatFileRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	if n := f.count("RenewConsumer"); n != 1 {
		t.Errorf("%d renewals in a row", n)
	}
	c = c.As(lpfileshare.ConsumerToken(session("expired", -time.Second)))
	if _, err := c.Raw().Files.StatFile(testContext(t), &pb.StatFileRequest{}); lpfileshare.ErrorReason(err) != pb.ErrorReason_ERROR_REASON_LP_UNAVAILABLE {
		t.Errorf("with an expired token: %v", err)
	}
}

// A unary call follows the retry rule: RetryInfo decides, and sets the least delay.
func TestUnaryCalls_Repeat(t *testing.T) {
	const asked = 3 * time.Second
	for _, tc := range []struct {
		name  string
		err   error
		calls int
	}{
		{"with RetryInfo", failure(codes.ResourceExhausted, pb.ErrorReason_ERROR_REASON_LP_RATE_LIMITED, retryAfter(asked)), 4},
		{"without RetryInfo", failure(codes.Unavailable, pb.ErrorReason_ERROR_REASON_LP_UNAVAILABLE), 1},
		{"RetryInfo beyond the time limit", failure(codes.Unavailable, pb.ErrorReason_ERROR_REASON_LP_UNAVAILABLE, retryAfter(time.Minute)), 1},
		{"broken connection", status.Error(codes.Unknown, "h2 protocol error"), 4},
		{"proxy", status.Error(codes.Internal, "RST_STREAM"), 2},
		{"other status", status.Error(codes.NotFound, "not found"), 1},
	} {
		simulated(t, tc.name, func(t *testing.T) {
			f := &fake{stat: func(context.Context, int) (*pb.StatFileResponse, error) { return nil, tc.err }}
			c := start(t, f)
			began := time.Now()
			_, err := c.Stat(t.Context(), "f")
			e, ok := errors.AsType[*lpfileshare.Error](err)
			if !ok || e.Attempts != tc.calls || f.count("StatFile") != tc.calls || e.Code != status.Code(tc.err) {
				t.Errorf("%d calls, want %d: %v", f.count("StatFile"), tc.calls, err)
			}
			if tc.name == "with RetryInfo" && time.Since(began) < 3*asked {
				t.Errorf("repeated 3 times in %v, although the server asked for %v each time", time.Since(began), asked)
			}
		})
	}
	simulated(t, "sign-in is made once", func(t *testing.T) {
		calls := 0
		c := start(t, &fake{signIn: func(*pb.SignInConsumerRequest) (*pb.SignInConsumerResponse, error) {
			calls++
			return nil, failure(codes.Unavailable, pb.ErrorReason_ERROR_REASON_LP_TIMEOUT, retryAfter(0))
		}})
		if _, err := c.SignInConsumer(t.Context(), &pb.SignInConsumerRequest{}); err == nil || calls != 1 {
			t.Errorf("%d calls, %v", calls, err)
		}
	})
}

func TestUploadSmallFile_RepeatsUnderOneRequestID(t *testing.T) {
	var ids []string
	c := start(t, &fake{small: func(n int, r *pb.UploadSmallFileRequest) (*pb.UploadSmallFileResponse, error) {
		ids = append(ids, r.GetSpec().GetRequestId()+string(r.GetData()))
		if n == 1 {
			return nil, failure(codes.Unavailable, pb.ErrorReason_ERROR_REASON_LP_PUBLISH_UNCONFIRMED, retryAfter(0))
		}
		return &pb.UploadSmallFileResponse{}, nil
	}})
	req := &pb.UploadSmallFileRequest{Spec: &pb.UploadSpec{}, Data: []byte("data")}
	_, err := c.Raw().Files.UploadSmallFile(testContext(t), req)
	if err != nil || len(ids) != 2 || ids[0] != ids[1] || len(ids[0]) != 36+4 || req.GetSpec().GetRequestId() != "" {
		t.Errorf("requests %q, error %v", ids, err)
	}
}

func TestPublishUpload(t *testing.T) {
	c := start(t, &fake{publish: func(n int, r *pb.PublishUploadRequest) (*pb.PublishUploadResponse, error) {
		if n == 1 {
			return nil, failure(codes.Unavailable, pb.ErrorReason_ERROR_REASON_LP_PUBLISH_UNCONFIRMED, retryAfter(0))
		}
		return &pb.PublishUploadResponse{File: &pb.File{Name: r.GetName()}, Replayed: true}, nil
	}})
	r, err := c.PublishUpload(testContext(t), "accounts/1/uploads/u")
	if err != nil || r.GetFile().GetName() != "accounts/1/uploads/u" || !r.GetReplayed() {
		t.Errorf("got %v, %v", r, err)
	}
}

func TestCreateConversation_RepeatsUnderOneRequestID(t *testing.T) {
	var ids []string
	c := start(t, &fake{create: func(n int, r *pb.CreateConversationRequest) (*pb.CreateConversationResponse, error) {
		ids = append(ids, r.GetRequestId())
		if n == 1 {
			return nil, failure(codes.Unavailable, pb.ErrorReason_ERROR_REASON_LP_UNAVAILABLE, retryAfter(0))
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
	stop, err := f.listen(credentials.NewServerTLSFromCert(&web.TLS.Certificates[0]))
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	c, err := lpfileshare.Dial(f.addr, lpfileshare.WithTLS(web.Client().Transport.(*http.Transport).TLSClientConfig))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Raw().Files.StatFile(testContext(t), &pb.StatFileRequest{}); err != nil {
		t.Error(err)
	}
	other, err := lpfileshare.Dial(f.addr, lpfileshare.WithTLS(&tls.Config{}))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.Connect(testContext(t)); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown certificate authority was accepted: %v", err)
	}
}

func TestConnect_FailsAtOnce(t *testing.T) {
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
	began := time.Now()
	err = c.Connect(testContext(t))
	var e *lpfileshare.Error
	if !errors.As(err, &e) || !strings.Contains(e.What(), "refused") || !strings.Contains(e.Advice(), "Check the address") || time.Since(began) > time.Minute {
		t.Errorf("after %v: %v", time.Since(began), err)
	}
}
