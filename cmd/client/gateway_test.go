package main

import (
	"context"
	"fmt"
	"hash/crc32"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// A gateway is a server with one account, whose conversations and files are in memory.
type gateway struct {
	pb.UnimplementedFileSharingServiceServer
	pb.UnimplementedConversationServiceServer
	pb.UnimplementedIdentityServiceServer
	pb.UnimplementedAccountServiceServer

	address string
	health  *health.Server

	// Set before the first call.
	noAgents      bool                                                                          // an agent finds no conversation
	breakDownload error                                                                         // how downloads end after 1,000 bytes
	onDownload    func()                                                                        // called after 1,000 bytes of a download, which then waits until the client ends it
	onWatch       func() error                                                                  // called after the first heartbeat of a watch
	state         *pb.Upload                                                                    // the response of GetUpload
	corrupt       bool                                                                          // downloads return other bytes than were uploaded
	signInExpiry  time.Duration                                                                 // lifetime of a consumer's token
	image         *pb.ImageChange                                                               // of each response to an upload
	unreadable    []*pb.UnreadableConversation                                                  // what listings and watches leave out
	maxInput      int64                                                                         // of images that are fitted
	upload        func(s grpc.ClientStreamingServer[pb.UploadRequest, pb.UploadResponse]) error // instead of the real one

	mu            sync.Mutex
	changed       chan struct{} // closed and replaced with each file
	signIns       int
	signOuts      int            // of agents
	signOutFails  pb.ErrorReason // reason of the next SignOutAgent errors
	seen          []string       // identities of the calls that carried one
	conversations []*pb.Conversation
	creators      []string // identities that created them
	files         []*pb.File
	data          map[string][]byte
	specs         []*pb.UploadSpec
	enabled       bool
}

func startGateway(t *testing.T, g *gateway) *gateway {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g.address, g.health, g.changed, g.data = listener.Addr().String(), health.NewServer(), make(chan struct{}), map[string][]byte{}
	if g.signInExpiry == 0 {
		g.signInExpiry = time.Hour
	}
	g.health.SetServingStatus("lpfileshare.v1.FileSharingService", healthpb.HealthCheckResponse_SERVING)
	server := grpc.NewServer()
	pb.RegisterFileSharingServiceServer(server, g)
	pb.RegisterConversationServiceServer(server, g)
	pb.RegisterIdentityServiceServer(server, g)
	pb.RegisterAccountServiceServer(server, g)
	healthpb.RegisterHealthServer(server, g.health)
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(listener) }()
	t.Cleanup(func() { server.Stop(); <-done })
	return g
}

func failure(code codes.Code, reason pb.ErrorReason) error {
	st, _ := status.New(code, "rejected by the test").WithDetails(
		&errdetails.ErrorInfo{Reason: lpfileshare.ReasonName(reason), Domain: "lpfileshare"})
	return st.Err()
}

// retriable is a failure after which the call may be repeated.
func retriable(code codes.Code, reason pb.ErrorReason, after time.Duration) error {
	st, _ := status.Convert(failure(code, reason)).WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
	return st.Err()
}

// authenticate accepts the tokens of this gateway, and records the identities.
func (g *gateway) authenticate(ctx context.Context) (agent bool, err error) {
	md, _ := metadata.FromIncomingContext(ctx)
	consumer, agents, external := md.Get("lp-consumer-token"), md.Get("lp-agent-token"), md.Get("lp-external-consumer-id")
	if len(consumer)+len(agents)+len(external) != 1 {
		return false, failure(codes.Unauthenticated, pb.ErrorReason_ERROR_REASON_TOKEN_INVALID)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seen = append(g.seen, strings.Join(append(append(consumer, agents...), external...), ""))
	if len(agents) == 1 {
		if agents[0] != "agent-token" {
			err = failure(codes.Unauthenticated, pb.ErrorReason_ERROR_REASON_TOKEN_INVALID)
		} else if g.noAgents {
			err = failure(codes.NotFound, pb.ErrorReason_ERROR_REASON_CONVERSATION_NOT_FOUND)
		}
		return true, err
	}
	if len(consumer) == 1 && !strings.HasPrefix(consumer[0], "consumer-token-") {
		err = failure(codes.Unauthenticated, pb.ErrorReason_ERROR_REASON_TOKEN_INVALID)
	}
	return false, err
}

func (g *gateway) session() (token, secret string, expires *timestamppb.Timestamp) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.signIns++
	return fmt.Sprint("consumer-token-", g.signIns), fmt.Sprint("secret-", g.signIns), timestamppb.New(time.Now().Add(g.signInExpiry))
}

func (g *gateway) SignInConsumer(_ context.Context, r *pb.SignInConsumerRequest) (*pb.SignInConsumerResponse, error) {
	if r.GetSignUp() == nil && r.GetAnonymous().GetConnectorId() != "77" && r.GetCustomerJwt() != "a.b.c" && r.GetAuthCode() != "code" {
		return nil, failure(codes.FailedPrecondition, pb.ErrorReason_ERROR_REASON_LP_CREDENTIALS_REJECTED)
	}
	token, secret, expires := g.session()
	return &pb.SignInConsumerResponse{ConsumerToken: token, RenewalSecret: secret, ExpireTime: expires, ConsumerId: "sub-" + strings.TrimPrefix(token, "consumer-token-")}, nil
}

func (g *gateway) RenewConsumer(context.Context, *pb.RenewConsumerRequest) (*pb.RenewConsumerResponse, error) {
	g.signInExpiry = time.Hour
	token, secret, expires := g.session()
	return &pb.RenewConsumerResponse{ConsumerToken: token, RenewalSecret: secret, ExpireTime: expires, ConsumerId: "sub-1"}, nil
}

func (g *gateway) SignInAgent(_ context.Context, r *pb.SignInAgentRequest) (*pb.SignInAgentResponse, error) {
	if r.GetPassword().GetPassword() != "sandbox" && r.GetBotKeys().GetSecret() != "sandbox" {
		return nil, failure(codes.FailedPrecondition, pb.ErrorReason_ERROR_REASON_LP_CREDENTIALS_REJECTED)
	}
	return &pb.SignInAgentResponse{AgentToken: "agent-token", AgentId: "agent-1"}, nil
}

func (g *gateway) SignOutAgent(ctx context.Context, r *pb.SignOutAgentRequest) (*pb.SignOutAgentResponse, error) {
	if agent, err := g.authenticate(ctx); err != nil || !agent || r.GetAccount() != "accounts/12345678" {
		return nil, failure(codes.PermissionDenied, pb.ErrorReason_ERROR_REASON_NOT_ALLOWED)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.signOuts++
	if g.signOutFails != 0 {
		return nil, failure(codes.FailedPrecondition, g.signOutFails)
	}
	return &pb.SignOutAgentResponse{}, nil
}

func (g *gateway) CreateConversation(ctx context.Context, r *pb.CreateConversationRequest) (*pb.CreateConversationResponse, error) {
	if _, err := g.authenticate(ctx); err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	c := &pb.Conversation{
		Name: fmt.Sprintf("%s/conversations/c%d", r.GetAccount(), len(g.conversations)+1), State: pb.ConversationState_CONVERSATION_STATE_OPEN,
	}
	g.conversations, g.creators = append(g.conversations, c), append(g.creators, g.seen[len(g.seen)-1])
	return &pb.CreateConversationResponse{Conversation: proto.CloneOf(c)}, nil
}

func (g *gateway) find(ctx context.Context, name string) (*pb.Conversation, error) {
	if _, err := g.authenticate(ctx); err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, c := range g.conversations {
		if c.GetName() == name {
			return c, nil
		}
	}
	return nil, failure(codes.NotFound, pb.ErrorReason_ERROR_REASON_CONVERSATION_NOT_FOUND)
}

func (g *gateway) GetConversation(ctx context.Context, r *pb.GetConversationRequest) (*pb.GetConversationResponse, error) {
	c, err := g.find(ctx, r.GetName())
	return &pb.GetConversationResponse{Conversation: c}, err
}

func (g *gateway) CloseConversation(ctx context.Context, r *pb.CloseConversationRequest) (*pb.CloseConversationResponse, error) {
	c, err := g.find(ctx, r.GetName())
	if err == nil {
		c.State = pb.ConversationState_CONVERSATION_STATE_CLOSED
	}
	return &pb.CloseConversationResponse{Conversation: c}, err
}

func (g *gateway) ListConversations(ctx context.Context, r *pb.ListConversationsRequest) (*pb.ListConversationsResponse, error) {
	agent, err := g.authenticate(ctx)
	if err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	resp := &pb.ListConversationsResponse{}
	for i, c := range g.conversations {
		wanted := r.GetState() == pb.ConversationState_CONVERSATION_STATE_UNSPECIFIED || r.GetState() == c.GetState()
		if wanted && strings.HasPrefix(c.GetName(), r.GetAccount()+"/") && (agent || g.creators[i] == g.seen[len(g.seen)-1]) {
			resp.Conversations = append(resp.Conversations, c)
		}
	}
	return resp, nil
}

func (g *gateway) GetCapabilities(ctx context.Context, _ *pb.GetCapabilitiesRequest) (*pb.GetCapabilitiesResponse, error) {
	_, err := g.authenticate(ctx)
	return &pb.GetCapabilitiesResponse{MaxFileBytes: 3_000_000, MaxImageInputBytes: g.maxInput, FileTypes: []pb.FileType{pb.FileType_FILE_TYPE_JPEG}}, err
}

func (g *gateway) GetFileSharing(ctx context.Context, _ *pb.GetFileSharingRequest) (*pb.GetFileSharingResponse, error) {
	agent, err := g.authenticate(ctx)
	if err == nil && !agent {
		err = failure(codes.PermissionDenied, pb.ErrorReason_ERROR_REASON_NOT_ALLOWED)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return &pb.GetFileSharingResponse{Enabled: g.enabled}, err
}

func (g *gateway) SetFileSharing(ctx context.Context, r *pb.SetFileSharingRequest) (*pb.SetFileSharingResponse, error) {
	if _, err := g.GetFileSharing(ctx, nil); err != nil {
		return nil, err
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.enabled = r.GetEnabled()
	return &pb.SetFileSharingResponse{Enabled: g.enabled}, nil
}
