package service

import (
	"context"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/dynamicpb"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// identified are valid requests of every method that wants an identity.
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

// call calls any method by name with one request, and gives the first answer.
func (h *house) call(ctx context.Context, method string, req proto.Message) error {
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

func TestEveryMethodWantsOneValidIdentity(t *testing.T) {
	tooLong := strings.Repeat("x", share.MaxToken+1)
	for what, md := range map[string][]string{
		"none":                {},
		"two of one kind":     {"lp-consumer-token", aliceToken, "lp-consumer-token", aliceToken},
		"two of two kinds":    {"lp-consumer-token", aliceToken, "lp-agent-token", agentToken("bearer-" + secret)},
		"empty":               {"lp-consumer-token", ""},
		"with a space":        {"lp-consumer-token", "two words"},
		"too long":            {"lp-consumer-token", tooLong},
		"agent, no token":     {"lp-agent-token", "@@@"},
		"refused":             {"lp-consumer-token", "forged-" + secret},
		"agent, refused":      {"lp-agent-token", agentToken("forged-" + secret)},
		"external, refused":   {"lp-external-consumer-id", "somebody-" + secret},
		"authorization alone": {"authorization", "Bearer " + aliceToken},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			// The true sessions are open meanwhile: that helps nobody.
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
					t.Run(m.Name, func(t *testing.T) {
						ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(t.Context(), md...))
						defer cancel()
						refused(t, h.call(ctx, method, req), share.TokenInvalid)
					})
				}
			}
			if n := h.book.count("Load", "Save") + h.lp.count("UploadURL", "DownloadURL", "PublishFile", "CreateConversation", "CloseConversation"); n != 0 {
				t.Errorf("%d calls were made for somebody who is nobody", n)
			}
		})
	}
}

func TestIdentityServiceTakesNoIdentity(t *testing.T) {
	h := newHouse(t)
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
		t.Run(what, func(t *testing.T) {
			token, err := call(t.Context())
			if err != nil || token == "" {
				t.Errorf("got %q, %v", token, err)
			}
			h.desk.fail("SignIn", kindError(share.LPCredentialsRejected))
			_, err = call(t.Context())
			refused(t, err, share.LPCredentialsRejected)
		})
	}
	if n := h.book.count("Load", "Save"); n != 0 {
		t.Errorf("the ledger was asked %d times", n)
	}
}

func TestAgentLogin_EndsWithSignOut(t *testing.T) {
	h := newHouse(t)
	req := &pb.SignOutAgentRequest{Account: accountName(account)}
	agent := metadata.AppendToOutgoingContext(t.Context(), string(share.AgentToken), agentToken("bearer-"+secret))
	for n := 1; n <= 2; n++ { // it may be repeated
		if _, err := h.ids.SignOutAgent(agent, req); err != nil {
			t.Fatal(err)
		}
		if out, ended := h.desk.count("SignOutAgent"), h.lp.count("End"); out != n || ended != 2*n {
			t.Errorf("LivePerson was asked %d times, and the session ended %d times", out, ended)
		}
	}
	h.desk.fail("SignOutAgent", kindError(share.LPUnavailable))
	_, err := h.ids.SignOutAgent(agent, req)
	refused(t, err, share.LPUnavailable)
	if n := h.lp.count("End"); n != 6 {
		t.Errorf("LivePerson did not answer, and the session was ended %d times", n)
	}

	written := share.AgentGrant{Account: account, UserID: "1", UserPID: "agent-1", Bearer: "bearer-" + secret} // by its holder
	for what, test := range map[string]struct {
		ctx  context.Context
		req  *pb.SignOutAgentRequest
		want share.Kind
	}{
		"nobody":           {t.Context(), req, share.TokenInvalid},
		"a consumer":       {h.alice(), req, share.NotAllowed},
		"not our token":    {metadata.AppendToOutgoingContext(t.Context(), string(share.AgentToken), written.Token()), req, share.TokenInvalid},
		"another account":  {agent, &pb.SignOutAgentRequest{Account: "accounts/other"}, share.NotAllowed},
		"no account named": {agent, &pb.SignOutAgentRequest{}, share.InvalidField},
	} {
		t.Run(what, func(t *testing.T) {
			_, err := h.ids.SignOutAgent(test.ctx, test.req)
			refused(t, err, test.want)
		})
	}
	if out, ended := h.desk.count("SignOutAgent"), h.lp.count("End"); out != 3 || ended != 6 {
		t.Errorf("for those who may not, LivePerson was asked %d times, and sessions ended %d times", out-3, ended-6)
	}
}

func TestASignInNamesAllThatIsMissing(t *testing.T) {
	h := newHouse(t)
	_, err := h.ids.SignInAgent(t.Context(), &pb.SignInAgentRequest{Credentials: &pb.SignInAgentRequest_BotKeys{BotKeys: &pb.BotKeys{Username: "u", AppKey: strings.Repeat(secret, maxSecret)}}})
	refused(t, err, share.InvalidField)
	want := []string{"account", "bot_keys.app_key", "bot_keys.secret", "bot_keys.access_token", "bot_keys.access_token_secret"}
	if got := fields(err); !slices.Equal(got, want) {
		t.Errorf("it names %v, want %v", got, want)
	}
	_, err = h.ids.SignInConsumer(t.Context(), &pb.SignInConsumerRequest{Account: accountName(account)})
	refused(t, err, share.InvalidField)
	_, err = h.ids.RenewConsumer(t.Context(), &pb.RenewConsumerRequest{})
	refused(t, err, share.InvalidField)
}

// LivePerson's word on whose account a token is of counts, not the name that the caller wrote.
func TestToken_OfAnotherAccountIsNotAllowed(t *testing.T) {
	h := newHouse(t)
	for method, req := range identified {
		if strings.Contains(method, ".AccountService/") {
			continue
		}
		other := proto.Clone(req)
		swapAccount(other, "87654321")
		refused(t, h.call(h.alice(), method, other), share.NotAllowed)
	}
	if n := h.book.count("Load", "Save") + h.lp.count("Conversation", "ListFiles", "FindFile"); n != 0 {
		t.Errorf("%d calls were made", n)
	}
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

func TestTheAccountsSwitchIsAnAgents(t *testing.T) {
	h := newHouse(t)
	agent := metadata.AppendToOutgoingContext(t.Context(), string(share.AgentToken), agentToken("bearer-"+secret))
	acct := accountName(account)
	_, err := h.accts.GetFileSharing(h.alice(), &pb.GetFileSharingRequest{Account: acct})
	refused(t, err, share.NotAllowed)
	_, err = h.accts.SetFileSharing(h.alice(), &pb.SetFileSharingRequest{Account: acct, Enabled: proto.Bool(true)})
	refused(t, err, share.NotAllowed)
	_, err = h.accts.GetFileSharing(agent, &pb.GetFileSharingRequest{Account: "accounts/other"})
	refused(t, err, share.NotAllowed)
	_, err = h.accts.SetFileSharing(agent, &pb.SetFileSharingRequest{})
	refused(t, err, share.InvalidField)
	if got, want := fields(err), []string{"account", "enabled"}; !slices.Equal(got, want) {
		t.Errorf("it names %v, want %v", got, want)
	}
	for _, on := range []bool{true, false} {
		if _, err := h.accts.SetFileSharing(agent, &pb.SetFileSharingRequest{Account: acct, Enabled: proto.Bool(on)}); err != nil {
			t.Fatal(err)
		}
		if r, err := h.accts.GetFileSharing(agent, &pb.GetFileSharingRequest{Account: acct}); err != nil || r.GetEnabled() != on {
			t.Errorf("got %v, %v, want %t", r, err, on)
		}
	}
}

func TestCapabilitiesAreTheSettings(t *testing.T) {
	h := newHouse(t)
	c, err := h.files.GetCapabilities(h.alice(), &pb.GetCapabilitiesRequest{Account: accountName(account)})
	if err != nil {
		t.Fatal(err)
	}
	if c.GetMaxFileBytes() != 300_000 || c.GetMaxImagePixels() != 1000 || c.GetMaxChunkBytes() != MaxChunkBytes || len(c.GetFileTypes()) != 3 ||
		c.GetRequestIdTtl().AsDuration() != h.server.RequestIDTTL || c.GetUploadIdleTimeout().AsDuration() != h.server.IdleTimeout ||
		c.GetUploadTimeout().AsDuration() != h.server.UploadTimeout || c.GetHeartbeatInterval().AsDuration() != h.server.Heartbeat {
		t.Errorf("got %v", c)
	}
}
