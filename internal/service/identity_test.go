package service

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/dynamicpb"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// identified has a valid request of every method that requires a token.
var identified = map[string]proto.Message{
	pb.FileSharingService_Upload_FullMethodName:          &pb.UploadRequest{FirstMessage: &pb.UploadRequest_Spec{Spec: &pb.UploadSpec{Conversation: parent, FileType: 1}}},
	pb.FileSharingService_Download_FullMethodName:        byName(fileName(account, conversation, conversation, path("a"))),
	pb.FileSharingService_GetUpload_FullMethodName:       &pb.GetUploadRequest{Name: accountName(account) + "/uploads/" + "6f0c3a52-7d9e-4b1c-9d0a-3c1d2e4f5a6b"},
	pb.FileSharingService_UploadSmallFile_FullMethodName: &pb.UploadSmallFileRequest{Spec: &pb.UploadSpec{Conversation: parent, FileType: 1}, Data: []byte{0xff, 0xd8, 0xff}},
	pb.FileSharingService_PublishUpload_FullMethodName:   &pb.PublishUploadRequest{Name: accountName(account) + "/uploads/" + "6f0c3a52-7d9e-4b1c-9d0a-3c1d2e4f5a6b"},
	pb.FileSharingService_StatFile_FullMethodName:        &pb.StatFileRequest{Source: &pb.StatFileRequest_Name{Name: fileName(account, conversation, conversation, path("a"))}},
	pb.FileSharingService_ListFiles_FullMethodName:       &pb.ListFilesRequest{Parent: parent},
	pb.FileSharingService_WatchFiles_FullMethodName:      &pb.WatchFilesRequest{Parent: parent},
	pb.FileSharingService_GetCapabilities_FullMethodName: &pb.GetCapabilitiesRequest{Account: accountName(account)},

	pb.ConversationService_CreateConversation_FullMethodName: &pb.CreateConversationRequest{Account: accountName(account)},
	pb.ConversationService_GetConversation_FullMethodName:    &pb.GetConversationRequest{Name: parent},
	pb.ConversationService_ListConversations_FullMethodName:  &pb.ListConversationsRequest{Account: accountName(account)},
	pb.ConversationService_CloseConversation_FullMethodName:  &pb.CloseConversationRequest{Name: parent},

	pb.AccountService_GetFileSharing_FullMethodName: &pb.GetFileSharingRequest{Account: accountName(account)},
	pb.AccountService_SetFileSharing_FullMethodName: &pb.SetFileSharingRequest{Account: accountName(account), Enabled: proto.Bool(true)},
}

// call calls any method by name with one request, and returns the error of the first response.
func (h *harness) call(ctx context.Context, method string, req proto.Message) error {
	stream, err := h.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		return err
	}
	_ = stream.SendMsg(req)
	if err := stream.CloseSend(); err != nil {
		return err
	}
	return stream.RecvMsg(dynamicpb.NewMessage(req.ProtoReflect().Descriptor()))
}

func TestIdentity_EveryMethodRequiresOneValidToken(t *testing.T) {
	tooLong := strings.Repeat("x", share.MaxToken+1)
	for what, md := range map[string][]string{
		"none":                {},
		"two of one kind":     {"lp-consumer-token", aliceToken, "lp-consumer-token", aliceToken},
		"two of two kinds":    {"lp-consumer-token", aliceToken, "lp-agent-token", agentToken("bearer-" + secret)},
		"empty":               {"lp-consumer-token", ""},
		"with a space":        {"lp-consumer-token", "two words"},
		"too long":            {"lp-consumer-token", tooLong},
		"agent, no token":     {"lp-agent-token", "@@@"},
		"rejected":            {"lp-consumer-token", "forged-" + secret},
		"agent, rejected":     {"lp-agent-token", agentToken("forged-" + secret)},
		"external, rejected":  {"lp-external-consumer-id", "forged-" + secret},
		"authorization alone": {"authorization", "Bearer " + aliceToken},
	} {
		t.Run(what, inBubble(func(t *testing.T) {
			h := newHarness(t)
			// A session of the same token is open: it must not authenticate other calls.
			h.watch(h.alice(), parent, "")
			for service, info := range h.grpc.GetServiceInfo() {
				for _, m := range info.Methods {
					method := "/" + service + "/" + m.Name
					if strings.HasSuffix(service, ".IdentityService") {
						continue
					}
					req, ok := identified[method]
					if !ok {
						t.Errorf("no request is known for %s", method)
						continue
					}
					t.Log(method)
					ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(t.Context(), md...))
					wantError(t, h.call(ctx, method, req), share.TokenInvalid)
					cancel()
				}
			}
			if n := h.ledger.count("Load", "Save") + h.lp.count("UploadURL", "DownloadURL", "PublishFile", "CreateConversation", "CloseConversation"); n != 0 {
				t.Errorf("%d calls were made without a valid token", n)
			}
		}))
	}
}

func TestIdentityService_RequiresNoToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		acct := accountName(account)
		for what, call := range map[string]func(context.Context) (token string, err error){
			"sign up": func(ctx context.Context) (string, error) {
				r, err := h.ids.SignInConsumer(ctx, &pb.SignInConsumerRequest{Account: acct, Grant: &pb.SignInConsumerRequest_SignUp{SignUp: &pb.SignUp{}}})
				return r.GetConsumerToken(), err
			},
			"anonymous": func(ctx context.Context) (string, error) {
				r, err := h.ids.SignInConsumer(ctx, &pb.SignInConsumerRequest{Account: acct, Grant: &pb.SignInConsumerRequest_Anonymous{Anonymous: &pb.AnonymousSignIn{ConnectorId: secret}}})
				return r.GetConsumerToken(), err
			},
			"jwt": func(ctx context.Context) (string, error) {
				r, err := h.ids.SignInConsumer(ctx, &pb.SignInConsumerRequest{Account: acct, Grant: &pb.SignInConsumerRequest_CustomerJwt{CustomerJwt: secret}})
				return r.GetConsumerToken(), err
			},
			"code": func(ctx context.Context) (string, error) {
				r, err := h.ids.SignInConsumer(ctx, &pb.SignInConsumerRequest{Account: acct, Grant: &pb.SignInConsumerRequest_AuthCode{AuthCode: secret}})
				return r.GetConsumerToken(), err
			},
			"renew": func(ctx context.Context) (string, error) {
				r, err := h.ids.RenewConsumer(ctx, &pb.RenewConsumerRequest{Account: acct, RenewalSecret: secret})
				return r.GetConsumerToken(), err
			},
			"password": func(ctx context.Context) (string, error) {
				r, err := h.ids.SignInAgent(ctx, &pb.SignInAgentRequest{Account: acct, Credentials: &pb.SignInAgentRequest_Password{Password: &pb.PasswordCredentials{Username: "u", Password: secret}}})
				return r.GetAgentToken(), err
			},
			"bot": func(ctx context.Context) (string, error) {
				r, err := h.ids.SignInAgent(ctx, &pb.SignInAgentRequest{Account: acct, Credentials: &pb.SignInAgentRequest_BotKeys{BotKeys: &pb.BotKeys{
					Username: "u", AppKey: secret, Secret: secret, AccessToken: secret, AccessTokenSecret: secret,
				}}})
				return r.GetAgentToken(), err
			},
		} {
			t.Log(what)
			token, err := call(t.Context())
			if err != nil || token == "" {
				t.Errorf("got %q, %v", token, err)
			}
			h.accounts.fail("SignIn", kindError(share.LPCredentialsRejected))
			_, err = call(t.Context())
			wantError(t, err, share.LPCredentialsRejected)
		}
		if n := h.ledger.count("Load", "Save"); n != 0 {
			t.Errorf("%d calls of the ledger", n)
		}
	})
}

func TestSignOutAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		req := &pb.SignOutAgentRequest{Account: accountName(account)}
		agent := metadata.AppendToOutgoingContext(t.Context(), string(share.AgentToken), agentToken("bearer-"+secret))
		for n := 1; n <= 2; n++ { // it may be repeated
			if _, err := h.ids.SignOutAgent(agent, req); err != nil {
				t.Fatal(err)
			}
			if out, ended := h.accounts.count("SignOutAgent"), h.lp.count("End"); out != n || ended != 2*n {
				t.Errorf("SignOutAgent was called %d times, End %d times", out, ended)
			}
		}
		h.accounts.fail("SignOutAgent", kindError(share.LPUnavailable))
		_, err := h.ids.SignOutAgent(agent, req)
		wantError(t, err, share.LPUnavailable)
		if n := h.lp.count("End"); n != 6 {
			t.Errorf("LivePerson is unavailable, and the session was ended %d times, want 6", n)
		}

		written := share.AgentGrant{Account: account, UserID: "1", UserPID: "agent-1", Bearer: "bearer-" + secret} // not sealed by this server
		for what, test := range map[string]struct {
			ctx  context.Context
			req  *pb.SignOutAgentRequest
			want share.Kind
		}{
			"no token":         {t.Context(), req, share.TokenInvalid},
			"a consumer":       {h.alice(), req, share.NotAllowed},
			"unsealed token":   {metadata.AppendToOutgoingContext(t.Context(), string(share.AgentToken), written.Token()), req, share.TokenInvalid},
			"another account":  {agent, &pb.SignOutAgentRequest{Account: "accounts/other"}, share.NotAllowed},
			"no account named": {agent, &pb.SignOutAgentRequest{}, share.InvalidField},
		} {
			t.Log(what)
			_, err := h.ids.SignOutAgent(test.ctx, test.req)
			wantError(t, err, test.want)
		}
		if out, ended := h.accounts.count("SignOutAgent"), h.lp.count("End"); out != 3 || ended != 6 {
			t.Errorf("rejected callers caused %d calls of SignOutAgent and %d of End", out-3, ended-6)
		}
	})
}

func TestSignIn_ReportsAllInvalidFields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		_, err := h.ids.SignInAgent(t.Context(), &pb.SignInAgentRequest{Credentials: &pb.SignInAgentRequest_BotKeys{BotKeys: &pb.BotKeys{Username: "u", AppKey: strings.Repeat(secret, maxSecret)}}})
		wantError(t, err, share.InvalidField)
		want := []string{"account", "bot_keys.app_key", "bot_keys.secret", "bot_keys.access_token", "bot_keys.access_token_secret"}
		if got := fields(err); !slices.Equal(got, want) {
			t.Errorf("the violations name %v, want %v", got, want)
		}
		_, err = h.ids.SignInConsumer(t.Context(), &pb.SignInConsumerRequest{Account: accountName(account)})
		wantError(t, err, share.InvalidField)
		_, err = h.ids.RenewConsumer(t.Context(), &pb.RenewConsumerRequest{})
		wantError(t, err, share.InvalidField)
	})
}

// The token's account is the one that LivePerson reports, not the one in the request.
func TestIdentity_TokenOfAnotherAccountIsNotAllowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		for method, req := range identified {
			if strings.Contains(method, ".AccountService/") {
				continue
			}
			other := proto.Clone(req)
			swapAccount(other, "87654321")
			wantError(t, h.call(h.alice(), method, other), share.NotAllowed)
		}
		if n := h.ledger.count("Load", "Save") + h.lp.count("Conversation", "ListFiles", "FindFile"); n != 0 {
			t.Errorf("%d calls were made", n)
		}
	})
}

func swapAccount(m proto.Message, to string) {
	swap := func(name string) string { return strings.Replace(name, account, to, 1) }
	switch r := m.(type) {
	case *pb.UploadRequest:
		r.GetSpec().Conversation = swap(r.GetSpec().GetConversation())
	case *pb.DownloadRequest:
		r.Source = &pb.DownloadRequest_Name{Name: fileName(to, conversation, conversation, swap(path("a")))}
	case *pb.StatFileRequest:
		r.Source = &pb.StatFileRequest_Name{Name: fileName(to, conversation, conversation, swap(path("a")))}
	case *pb.GetUploadRequest:
		r.Name = swap(r.Name)
	case *pb.UploadSmallFileRequest:
		r.GetSpec().Conversation = swap(r.GetSpec().GetConversation())
	case *pb.PublishUploadRequest:
		r.Name = swap(r.Name)
	case *pb.ListFilesRequest:
		r.Parent = swap(r.Parent)
	case *pb.WatchFilesRequest:
		r.Parent = swap(r.Parent)
	case *pb.GetCapabilitiesRequest:
		r.Account = swap(r.Account)
	case *pb.CreateConversationRequest:
		r.Account = swap(r.Account)
	case *pb.ListConversationsRequest:
		r.Account = swap(r.Account)
	case *pb.GetConversationRequest:
		r.Name = swap(r.Name)
	case *pb.CloseConversationRequest:
		r.Name = swap(r.Name)
	}
}

func TestSetFileSharing_OnlyByAgents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		agent := metadata.AppendToOutgoingContext(t.Context(), string(share.AgentToken), agentToken("bearer-"+secret))
		acct := accountName(account)
		_, err := h.accts.GetFileSharing(h.alice(), &pb.GetFileSharingRequest{Account: acct})
		wantError(t, err, share.NotAllowed)
		_, err = h.accts.SetFileSharing(h.alice(), &pb.SetFileSharingRequest{Account: acct, Enabled: proto.Bool(true)})
		wantError(t, err, share.NotAllowed)
		_, err = h.accts.GetFileSharing(agent, &pb.GetFileSharingRequest{Account: "accounts/other"})
		wantError(t, err, share.NotAllowed)
		_, err = h.accts.SetFileSharing(agent, &pb.SetFileSharingRequest{})
		wantError(t, err, share.InvalidField)
		if got, want := fields(err), []string{"account", "enabled"}; !slices.Equal(got, want) {
			t.Errorf("the violations name %v, want %v", got, want)
		}
		for _, on := range []bool{true, false} {
			if _, err := h.accts.SetFileSharing(agent, &pb.SetFileSharingRequest{Account: acct, Enabled: proto.Bool(on)}); err != nil {
				t.Fatal(err)
			}
			if r, err := h.accts.GetFileSharing(agent, &pb.GetFileSharingRequest{Account: acct}); err != nil || r.GetEnabled() != on {
				t.Errorf("got %v, %v, want %t", r, err, on)
			}
		}
	})
}

func TestGetCapabilities_ReturnsTheSettings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		c, err := h.files.GetCapabilities(h.alice(), &pb.GetCapabilitiesRequest{Account: accountName(account)})
		if err != nil {
			t.Fatal(err)
		}
		if c.GetMaxFileBytes() != 300_000 || c.GetMaxImagePixels() != 1000 || c.GetMaxChunkBytes() != MaxChunkBytes || len(c.GetFileTypes()) != 3 ||
			c.GetRequestIdTtl().AsDuration() != h.server.RequestIDTTL || c.GetUploadIdleTimeout().AsDuration() != h.server.IdleTimeout ||
			c.GetUploadTimeout().AsDuration() != h.server.UploadTimeout || c.GetHeartbeatInterval().AsDuration() != h.server.Heartbeat {
			t.Errorf("got %v", c)
		}
	})
}
