package service

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/crc32c"
	"github.com/lpfileshare/lpfileshare/internal/ledger/ledgertest"
	"github.com/lpfileshare/lpfileshare/internal/policy"
	"github.com/lpfileshare/lpfileshare/internal/rejections"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// inBubble runs a subtest in a synctest bubble. Every test that has a harness runs in one: time passes only when all goroutines
// wait, so no test depends on the machine's load, and time.Sleep costs nothing.
func inBubble(test func(t *testing.T)) func(t *testing.T) {
	return func(t *testing.T) { synctest.Test(t, test) }
}

// The account, the conversation and the callers of the tests.
const (
	account      = "12345678"
	conversation = "conv-1"
	parent       = "accounts/" + account + "/conversations/" + conversation

	aliceToken   = "alice-" + secret
	renewedToken = "alice-renewed-" + secret
	bobToken     = "bob-" + secret
)

// A harness is the service behind a real gRPC server and client, with fakes for LivePerson, the store, the ledger and images.
type harness struct {
	t        *testing.T
	lp       *fakeMessenger
	store    *fakeStore
	ledger   *fakeLedger
	images   *fakeImages
	accounts *fakeAccounts

	server  *Server
	buffers poisoningPool
	grpc    *grpc.Server
	conn    *grpc.ClientConn
	files   pb.FileSharingServiceClient
	convs   pb.ConversationServiceClient
	ids     pb.IdentityServiceClient
	accts   pb.AccountServiceClient

	log *lockedBuffer

	// Hooks of calls, which a test may set before the first one.
	accept func() error
	ended  func(context.Context, *EndedCall)
	unseen func(ctx context.Context, method string, exceeded bool)
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// newHarness starts a harness. When the test ends, it checks that nothing is left running or reserved.
func newHarness(t *testing.T, change ...func(*Config)) *harness {
	t.Helper()
	h := &harness{t: t, lp: newFakeMessenger(), store: newFakeStore(), images: &fakeImages{}, accounts: &fakeAccounts{bearers: map[string]bool{"bearer-" + secret: true}}, log: &lockedBuffer{}}
	h.ledger = &fakeLedger{}
	h.lp.tokens[aliceToken] = share.Principal{Account: account, ID: "alice", Role: share.RoleConsumer}
	h.lp.tokens[renewedToken] = h.lp.tokens[aliceToken]
	h.lp.tokens[bobToken] = share.Principal{Account: account, ID: "bob", Role: share.RoleConsumer}
	h.lp.addConversation(conversation, true, "alice", "bob")
	h.lp.addConversation("conv-closed", false, "alice")
	h.lp.addConversation("conv-bob", true, "bob")

	c := Config{
		Serves:   func(string) bool { return true },
		Settings: func(string) Settings { return testSettings },
		Caller: func(ctx context.Context) policy.Caller { // as a client certificate would name it
			name := strings.Join(metadata.ValueFromIncomingContext(ctx, "test-service"), "")
			if name == "" {
				return policy.Caller{Via: policy.ViaLoopback}
			}
			return policy.Caller{Name: policy.Name{Kind: policy.CN, Value: name}, Via: policy.ViaMTLS}
		},
		Permit:       func(policy.Request) error { return nil },
		Connection:   func(context.Context) context.Context { return context.Background() },
		MemoryBudget: 16 * admission.BlockBytes, DownloadMemory: 16 * admission.MinDownloadBytes, Buffers: &h.buffers, QueueLength: 2, QueueWait: 100 * time.Millisecond,
		MaxUploadsPerCaller: 8, MaxStreamsPerCaller: 8, MaxWatches: 16,
		IdleTimeout: 10 * time.Second, UploadTimeout: 20 * time.Second, UnaryTimeout: 10 * time.Second,
		RequestIDTTL:   time.Hour,
		PublishTimeout: 200 * time.Millisecond, Settle: 100 * time.Millisecond,
		Heartbeat: 10 * time.Second, ReadStall: 10 * time.Second,
		Openings: testOpenings(), Now: time.Now,
		Log: slog.New(slog.NewTextHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, f := range change {
		f(&c)
	}
	c.Rejections = rejections.New(c.Log)
	t.Cleanup(c.Rejections.Close)
	h.ledger.Memory = ledgertest.NewMemory(1000, c.Now)
	h.server = New(c, Ports{Messenger: h.lp, Accounts: h.accounts, Store: h.store, Ledger: h.ledger, Images: h.images})
	h.serve(c)
	t.Cleanup(h.checkLeftovers)
	return h
}

func testOpenings() *admission.Openings {
	return admission.NewOpenings(admission.OpeningLimits{InFlight: 16, Queue: 16, Timeout: time.Second, FirstBytes: 8 << 20, Now: time.Now})
}

// testSettings are the settings of every account, unless a test changes them with set.
var testSettings = Settings{MaxFileBytes: 300_000, MaxImagePixels: 1000, CheckETag: true}

// set changes the settings of every account.
func set(change func(*Settings)) func(*Config) {
	return func(c *Config) {
		s := c.Settings(account)
		change(&s)
		c.Settings = func(string) Settings { return s }
	}
}

// serve runs the gRPC server with the options of cmd/server.
func (h *harness) serve(c Config) {
	h.grpc = grpc.NewServer(h.serverOptions(c)...)
	h.server.Register(h.grpc)
	l := bufconn.Listen(1 << 20)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = h.grpc.Serve(l)
	}()
	dial := func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }
	var err error
	// The windows do not grow, so a client that reads nothing is certain to stop its download.
	h.conn, err = grpc.NewClient("passthrough:bufconn", grpc.WithContextDialer(dial), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStaticStreamWindowSize(64<<10), grpc.WithStaticConnWindowSize(1<<20))
	if err != nil {
		h.t.Fatal(err)
	}
	h.files, h.convs = pb.NewFileSharingServiceClient(h.conn), pb.NewConversationServiceClient(h.conn)
	h.ids, h.accts = pb.NewIdentityServiceClient(h.conn), pb.NewAccountServiceClient(h.conn)
	h.t.Cleanup(func() {
		h.conn.Close()
		h.grpc.Stop()
		<-served
		h.server.Close()
	})
}

func (h *harness) serverOptions(c Config) []grpc.ServerOption {
	recovered := recovery.WithRecoveryHandlerContext(Recovered(c.Log))
	calls := &Calls{
		UnaryTimeout: c.UnaryTimeout, Rejections: c.Rejections, Log: c.Log,
		Accept: func() error {
			if h.accept == nil {
				return nil
			}
			return h.accept()
		},
		Ended: []func(context.Context, *EndedCall){func(ctx context.Context, ended *EndedCall) {
			if h.ended != nil {
				h.ended(ctx, ended)
			}
		}},
	}
	unseen := func(ctx context.Context, method string, exceeded bool) {
		if h.unseen != nil {
			h.unseen(ctx, method, exceeded)
		}
	}
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(MaxRecvMessageBytes),
		grpc.ForceServerCodecV2(Codec()),
		experimental.BufferPool(c.Buffers),
		grpc.WaitForHandlers(true),
		grpc.InTapHandle(RequestTimeout(c.IdleTimeout, unseen)),
		grpc.InitialWindowSize(1 << 20),
		grpc.InitialConnWindowSize(4 << 20),
		grpc.ChainUnaryInterceptor(recovery.UnaryServerInterceptor(recovered), UnaryRequestReceived, calls.Unary),
		grpc.ChainStreamInterceptor(recovery.StreamServerInterceptor(recovered), StreamRequestReceived, calls.Stream),
	}
}

// checkLeftovers checks that all memory and sessions were released, whatever the result of the calls, and that no secret was logged.
// It is registered last, so it runs first: it waits for handlers that outlive their caller.
func (h *harness) checkLeftovers() {
	h.t.Helper()
	h.eventually("all sessions are released", func() bool { return h.lp.sessions() == 0 })
	h.eventually("the whole budget is free", func() bool { return h.budgetFree() == h.server.MemoryBudget })
	h.eventually("no attempt reserves space in the ledger", func() bool {
		none := true
		h.ledger.unfinished.Range(func(any, any) bool { none = false; return false })
		return none
	})
	h.eventually("no caller is counted", func() bool {
		u := h.server.memory.Usage()
		return u.Callers+u.Queued+h.server.streams.Open() == 0
	})
	h.eventually("nothing of callers without a proved identity is counted", func() bool {
		return h.server.Openings.Usage() == admission.OpeningsUsage{}
	})
	h.eventually("no attempt runs", func() bool { return h.server.uploads.Running() == 0 })
	if strings.Contains(h.log.String(), secret) {
		h.t.Errorf("a secret was logged:\n%s", h.log)
	}
}

// budgetFree returns how much of the budget is free.
func (h *harness) budgetFree() int64 { return h.server.memory.Usage().FreeBytes }

// reserveAll reserves the whole budget for another caller.
func (h *harness) reserveAll() *admission.Reservation {
	h.t.Helper()
	r, err := h.server.memory.Reserve(context.Background(), admission.Holder{Group: account, Caller: admission.Caller{1}}, h.server.MemoryBudget, 0, false)
	if err != nil {
		h.t.Fatal(err)
	}
	return r
}

// eventually waits for a condition.
func (h *harness) eventually(what string, ok func() bool) {
	h.t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("after 30 s it is not true that %s", what)
		}
	}
}

// as returns the context of a caller with a token.
func (h *harness) as(token string) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	h.t.Cleanup(cancel)
	return metadata.AppendToOutgoingContext(ctx, string(share.ConsumerToken), token)
}

func (h *harness) alice() context.Context { return h.as(aliceToken) }

// external returns the context of a service that calls on behalf of a consumer, by the brand's own consumer id.
func (h *harness) external(consumer, service string) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	h.t.Cleanup(cancel)
	return metadata.AppendToOutgoingContext(ctx, string(share.ExternalConsumerID), consumer, "test-service", service)
}

// picture returns n bytes that begin like a JPEG.
func picture(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*7 + i>>8)
	}
	copy(b, "\xFF\xD8\xFF\xE0")
	return b
}

// spec returns the spec of a JPEG of b's size.
func spec(b []byte, change ...func(*pb.UploadSpec)) *pb.UploadSpec {
	s := &pb.UploadSpec{
		Conversation: parent, FileType: pb.FileType_FILE_TYPE_JPEG, SizeBytes: proto.Int64(int64(len(b))), RequestId: uuid.NewString(), WantChecksums: wantSHA256,
	}
	for _, f := range change {
		f(s)
	}
	return s
}

var wantSHA256 = []pb.ChecksumKind{pb.ChecksumKind_CHECKSUM_KIND_SHA256}

func undeclared(s *pb.UploadSpec) { s.SizeBytes = nil }
func storeOnly(s *pb.UploadSpec)  { s.PublishMode = pb.PublishMode_PUBLISH_MODE_STORE_ONLY }

func withID(id string) func(*pb.UploadSpec) { return func(s *pb.UploadSpec) { s.RequestId = id } }

// Messages of an upload.
func first(s *pb.UploadSpec) *pb.UploadRequest {
	return &pb.UploadRequest{FirstMessage: &pb.UploadRequest_Spec{Spec: s}}
}

func chunk(offset int, data []byte) *pb.UploadRequest {
	return &pb.UploadRequest{Chunk: &pb.DataChunk{Offset: int64(offset), Data: data}}
}

func finish() *pb.UploadRequest { return &pb.UploadRequest{Finish: &pb.UploadFinish{}} }

// whole returns the messages of a file: spec, chunks of size bytes, finish.
func whole(s *pb.UploadSpec, b []byte, size int) []*pb.UploadRequest {
	msgs := []*pb.UploadRequest{first(s)}
	for off := 0; off < len(b); off += size {
		msgs = append(msgs, chunk(off, b[off:min(off+size, len(b))]))
	}
	return append(msgs, finish())
}

// upload sends messages and returns the response.
func (h *harness) upload(ctx context.Context, msgs ...*pb.UploadRequest) (*pb.UploadResponse, error) {
	h.t.Helper()
	stream, err := h.files.Upload(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range msgs {
		if stream.Send(m) != nil {
			break // CloseAndRecv returns the reason
		}
	}
	return stream.CloseAndRecv()
}

// put uploads b as alice, which must succeed.
func (h *harness) put(b []byte, change ...func(*pb.UploadSpec)) *pb.UploadResponse {
	h.t.Helper()
	resp, err := h.upload(h.alice(), whole(spec(b, change...), b, 64<<10)...)
	if err != nil {
		h.t.Fatalf("upload: %v", err)
	}
	return resp
}

// begin starts an upload, and returns when it is accepted.
func (h *harness) begin(ctx context.Context, s *pb.UploadSpec) pb.FileSharingService_UploadClient {
	h.t.Helper()
	stream, err := h.files.Upload(ctx)
	if err != nil {
		h.t.Fatal(err)
	}
	if err := stream.Send(first(s)); err != nil {
		h.t.Fatal(err)
	}
	md, err := stream.Header()
	if err != nil {
		h.t.Fatal(err)
	}
	if len(md.Get(RequestIDHeader)) != 1 {
		_, err := stream.CloseAndRecv()
		h.t.Fatalf("the upload was not accepted: %v", err)
	}
	return stream
}

// wantError wants the complete status of a condition.
func wantError(t *testing.T, err error, kind share.Kind) *errdetails.ErrorInfo {
	t.Helper()
	row, ok := conditions[kind]
	if !ok {
		t.Fatalf("%s is not a condition", kind)
	}
	s, ok := status.FromError(err)
	if !ok || s.Code() == codes.OK {
		t.Fatalf("got %v, want %s", err, kind)
	}
	var info *errdetails.ErrorInfo
	seen := make(map[string]int)
	for _, d := range s.Details() {
		seen[fmt.Sprintf("%T", d)]++
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			info = d
		case *errdetails.RetryInfo:
			if d.GetRetryDelay().AsDuration() < row.retryAfter {
				t.Errorf("RetryInfo has %s, want at least %s", d.GetRetryDelay().AsDuration(), row.retryAfter)
			}
		}
	}
	if info == nil || info.GetReason() != string(kind) || info.GetDomain() != ErrorDomain || s.Code() != row.code {
		t.Fatalf("got %s %v %q, want %s %s", s.Code(), info, s.Message(), row.code, kind)
	}
	if _, known := pb.ErrorReason_value["ERROR_REASON_"+info.GetReason()]; !known {
		t.Errorf("reason %s is not in the contract", info.GetReason())
	}
	for kind, n := range seen {
		if n > 1 {
			t.Errorf("%d details of type %s", n, kind)
		}
	}
	if (seen["*errdetails.RetryInfo"] == 1) != (row.retryAfter > 0) {
		t.Errorf("RetryInfo: %t, want %t", seen["*errdetails.RetryInfo"] == 1, row.retryAfter > 0)
	}
	if (seen["*errdetails.PreconditionFailure"] == 1) != (row.precondition != "") {
		t.Errorf("PreconditionFailure: %t, want %t", seen["*errdetails.PreconditionFailure"] == 1, row.precondition != "")
	}
	if kind == share.InvalidField || kind == share.StreamProtocolViolation || kind == share.PageTokenInvalid {
		if seen["*errdetails.BadRequest"] != 1 {
			t.Error("there is no BadRequest")
		}
	}
	if n := proto.Size(s.Proto()) + len(s.Message()); n >= 3<<10 {
		t.Errorf("the status has %d bytes, want fewer than 3 KiB", n)
	}
	if s.Message() == "" || strings.Contains(s.String()+fmt.Sprint(s.Details()), secret) {
		t.Errorf("the status has no message, or reveals a secret: %v", s)
	}
	return info
}

// fields returns the fields that a BadRequest names.
func fields(err error) []string {
	var names []string
	for _, d := range status.Convert(err).Details() {
		if b, ok := d.(*errdetails.BadRequest); ok {
			for _, v := range b.GetFieldViolations() {
				names = append(names, v.GetField())
			}
		}
	}
	return names
}

// storedAndPublished counts the objects of the store and the messages of LivePerson.
func (h *harness) storedAndPublished() string {
	return fmt.Sprintf("%d objects, %d messages", h.store.stored(), len(h.lp.messages()))
}

// wantLastByteHeldBack wants that no PUT of a file of size bytes read the last byte or the end of its body.
func (h *harness) wantLastByteHeldBack(size int) {
	h.t.Helper()
	for _, p := range h.store.recordedPuts() {
		if errors.Is(p.end, io.EOF) {
			h.t.Errorf("the body of a file of %d bytes ended after %d", size, len(p.got))
		}
		if len(p.got) > max(size-1, 0) {
			h.t.Errorf("the store got %d bytes of %d before the checks had passed", len(p.got), size)
		}
	}
}

// wantNothingStored wants no object and no message, and that the body of every PUT of size bytes failed.
func (h *harness) wantNothingStored(size int) {
	h.t.Helper()
	if got := h.storedAndPublished(); got != "0 objects, 0 messages" {
		h.t.Errorf("there are %s", got)
	}
	h.wantLastByteHeldBack(size)
	for _, p := range h.store.recordedPuts() {
		if p.end == nil {
			h.t.Error("the body of a PUT did not fail")
		}
	}
}

// wantPublished wants exactly one message, which shows the file, and the bytes of the file in the store.
func (h *harness) wantPublished(b []byte) share.FileEvent {
	h.t.Helper()
	msgs := h.lp.messages()
	if len(msgs) != 1 {
		h.t.Fatalf("%d messages were published, want 1", len(msgs))
	}
	if !bytes.Equal(h.store.object(msgs[0].File.StoragePath), b) {
		h.t.Fatal("the stored bytes differ from the uploaded ones")
	}
	return msgs[0]
}

func sumsOf(b []byte) *pb.Checksums {
	sum := sha256.Sum256(b)
	return &pb.Checksums{Crc32C: new(crc32c.Update(0, b)), Sha256: sum[:]}
}

// download reads a download to its end.
func (h *harness) download(ctx context.Context, req *pb.DownloadRequest) (data []byte, header *pb.DownloadHeader, trailer *pb.DownloadTrailer, err error) {
	h.t.Helper()
	stream, err := h.files.Download(ctx, req)
	if err != nil {
		return nil, nil, nil, err
	}
	for {
		m, err := stream.Recv()
		if err == io.EOF {
			return data, header, trailer, nil
		}
		if err != nil {
			return data, header, trailer, err
		}
		switch p := m.GetPayload().(type) {
		case *pb.DownloadResponse_Header:
			header = p.Header
		case *pb.DownloadResponse_Chunk:
			if want := header.GetContentRange().GetStartBytes() + int64(len(data)); p.Chunk.GetOffset() != want {
				h.t.Errorf("a chunk has offset %d, want %d", p.Chunk.GetOffset(), want)
			}
			if p.Chunk.Crc32C == nil || p.Chunk.GetCrc32C() != crc32c.Update(0, p.Chunk.GetData()) {
				h.t.Error("a chunk's CRC is wrong or missing")
			}
			data = append(data, p.Chunk.GetData()...)
		case *pb.DownloadResponse_Trailer:
			trailer = p.Trailer
		}
	}
}

func byName(name string) *pb.DownloadRequest {
	return &pb.DownloadRequest{Source: &pb.DownloadRequest_Name{Name: name}, WantChecksums: wantSHA256}
}

// addFile adds an object and its message, and returns the name of the file.
func (h *harness) addFile(path string, b []byte) string {
	h.store.keep(path, b)
	h.lp.send(conversation, path, "bob")
	return fileName(account, conversation, conversation, path)
}

func path(name string) string { return "/v1/AUTH_async/" + account + "/bob/" + name }

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// agentToken returns an lp-agent-token of the account.
func agentToken(bearer string) string {
	return newAgentSeal([32]byte{}).close(share.AgentGrant{Account: account, UserID: "1", UserPID: "agent-1", Bearer: bearer}.Token())
}
