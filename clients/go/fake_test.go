package lpfileshare_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"hash/crc32"
	"io"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

type (
	uploadStream   = grpc.ClientStreamingServer[pb.UploadRequest, pb.UploadResponse]
	downloadStream = grpc.ServerStreamingServer[pb.DownloadResponse]
	watchStream    = grpc.ServerStreamingServer[pb.WatchFilesResponse]
)

// A fake is a server whose responses are written by each test. n is the number of the call of its method, from 1.
type fake struct {
	pb.UnimplementedFileSharingServiceServer
	pb.UnimplementedConversationServiceServer
	pb.UnimplementedIdentityServiceServer

	upload    func(n int, s uploadStream) error
	download  func(n int, r *pb.DownloadRequest, s downloadStream) error
	watch     func(n int, r *pb.WatchFilesRequest, s watchStream) error
	getUpload func(r *pb.GetUploadRequest) (*pb.GetUploadResponse, error)
	publish   func(n int, r *pb.PublishUploadRequest) (*pb.PublishUploadResponse, error)
	small     func(n int, r *pb.UploadSmallFileRequest) (*pb.UploadSmallFileResponse, error)
	caps      func(r *pb.GetCapabilitiesRequest) (*pb.GetCapabilitiesResponse, error)
	stat      func(ctx context.Context, n int) (*pb.StatFileResponse, error)
	list      func(r *pb.ListFilesRequest) (*pb.ListFilesResponse, error)
	listConvs func(r *pb.ListConversationsRequest) (*pb.ListConversationsResponse, error)
	create    func(n int, r *pb.CreateConversationRequest) (*pb.CreateConversationResponse, error)
	renew     func(ctx context.Context, n int, r *pb.RenewConsumerRequest) (*pb.RenewConsumerResponse, error)
	signOut   func(ctx context.Context, n int, r *pb.SignOutAgentRequest) (*pb.SignOutAgentResponse, error)
	signIn    func(r *pb.SignInConsumerRequest) (*pb.SignInConsumerResponse, error)

	addr string // for Dial
	cut  func() // breaks all connections

	mu    sync.Mutex
	calls map[string]int
}

func (f *fake) call(method string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls[method]++
	return f.calls[method]
}

func (f *fake) count(method string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.calls[method]
}

func (f *fake) Upload(s uploadStream) error { return f.upload(f.call("Upload"), s) }
func (f *fake) Download(r *pb.DownloadRequest, s downloadStream) error {
	return f.download(f.call("Download"), r, s)
}
func (f *fake) WatchFiles(r *pb.WatchFilesRequest, s watchStream) error {
	return f.watch(f.call("WatchFiles"), r, s)
}
func (f *fake) GetUpload(_ context.Context, r *pb.GetUploadRequest) (*pb.GetUploadResponse, error) {
	if f.getUpload == nil {
		return nil, failure(codes.NotFound, pb.ErrorReason_ERROR_REASON_UPLOAD_NOT_FOUND)
	}
	return f.getUpload(r)
}
func (f *fake) StatFile(ctx context.Context, _ *pb.StatFileRequest) (*pb.StatFileResponse, error) {
	return f.stat(ctx, f.call("StatFile"))
}
func (f *fake) ListFiles(_ context.Context, r *pb.ListFilesRequest) (*pb.ListFilesResponse, error) {
	return f.list(r)
}
func (f *fake) CreateConversation(_ context.Context, r *pb.CreateConversationRequest) (*pb.CreateConversationResponse, error) {
	return f.create(f.call("CreateConversation"), r)
}
func (f *fake) RenewConsumer(ctx context.Context, r *pb.RenewConsumerRequest) (*pb.RenewConsumerResponse, error) {
	return f.renew(ctx, f.call("RenewConsumer"), r)
}
func (f *fake) SignOutAgent(ctx context.Context, r *pb.SignOutAgentRequest) (*pb.SignOutAgentResponse, error) {
	return f.signOut(ctx, f.call("SignOutAgent"), r)
}
func (f *fake) SignInConsumer(_ context.Context, r *pb.SignInConsumerRequest) (*pb.SignInConsumerResponse, error) {
	return f.signIn(r)
}

func (f *fake) PublishUpload(_ context.Context, r *pb.PublishUploadRequest) (*pb.PublishUploadResponse, error) {
	return f.publish(f.call("PublishUpload"), r)
}
func (f *fake) UploadSmallFile(_ context.Context, r *pb.UploadSmallFileRequest) (*pb.UploadSmallFileResponse, error) {
	return f.small(f.call("UploadSmallFile"), r)
}
func (f *fake) GetCapabilities(_ context.Context, r *pb.GetCapabilitiesRequest) (*pb.GetCapabilitiesResponse, error) {
	return f.caps(r)
}
func (f *fake) ListConversations(_ context.Context, r *pb.ListConversationsRequest) (*pb.ListConversationsResponse, error) {
	return f.listConvs(r)
}

// listen serves a fake on a loopback socket until stop is called.
func (f *fake) listen(creds credentials.TransportCredentials) (stop func(), err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f.addr = listener.Addr().String()
	return f.serve(listener, creds), nil
}

// serve serves a fake until stop is called.
func (f *fake) serve(listener net.Listener, creds credentials.TransportCredentials) (stop func()) {
	cuttable := &cuttableListener{Listener: listener}
	options := []grpc.ServerOption{
		grpc.WaitForHandlers(true),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 15 * time.Second, PermitWithoutStream: true}),
	}
	if creds != nil {
		options = append(options, grpc.Creds(creds))
	}
	server := grpc.NewServer(options...)
	pb.RegisterFileSharingServiceServer(server, f)
	pb.RegisterConversationServiceServer(server, f)
	pb.RegisterIdentityServiceServer(server, f)
	h := health.NewServer()
	h.SetServingStatus("lpfileshare.v1.FileSharingService", healthpb.HealthCheckResponse_SERVING)
	healthpb.RegisterHealthServer(server, h)
	f.cut, f.calls = cuttable.cut, map[string]int{}
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(cuttable) }()
	return func() { server.Stop(); <-done }
}

// start serves a fake in memory and returns a client of it. In a synctest bubble, time-outs and backoff then take no real time.
func start(t *testing.T, f *fake, options ...lpfileshare.Option) *lpfileshare.Client {
	t.Helper()
	listener := bufconn.Listen(1 << 16)
	t.Cleanup(f.serve(listener, nil))
	f.addr = "passthrough:///memory"
	dialer := grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) })
	c, err := lpfileshare.Dial(f.addr, append(options, lpfileshare.WithPlaintext(), lpfileshare.WithDialOptions(dialer))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// simulated runs a subtest in a synctest bubble, where timeouts, backoff and heartbeats take no real time.
func simulated(t *testing.T, name string, test func(t *testing.T)) {
	t.Helper()
	t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
}

// pause waits in a handler, in simulated time, unless its call ends.
func pause(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// testContext ends a test that hangs.
func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// A cuttableListener can reset its connections.
type cuttableListener struct {
	net.Listener
	mu    sync.Mutex
	conns []net.Conn
}

func (l *cuttableListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.mu.Lock()
		l.conns = append(l.conns, c)
		l.mu.Unlock()
	}
	return c, err
}

func (l *cuttableListener) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.conns {
		c.Close()
	}
	l.conns = nil
}

// failure returns an error as the server creates it. By the contract it is repeatable if and only if details has a RetryInfo.
func failure(code codes.Code, reason pb.ErrorReason, details ...protoadapt.MessageV1) error {
	info := &errdetails.ErrorInfo{Reason: lpfileshare.ReasonName(reason), Domain: "lpfileshare", Metadata: map[string]string{"k": "v"}}
	st, err := status.New(code, "it failed").WithDetails(append([]protoadapt.MessageV1{info}, details...)...)
	if err != nil {
		return err
	}
	return st.Err()
}

func retryAfter(d time.Duration) protoadapt.MessageV1 {
	return &errdetails.RetryInfo{RetryDelay: durationpb.New(d)}
}

// received is an upload as the server received it.
type received struct {
	spec   *pb.UploadSpec
	data   []byte
	finish *pb.UploadFinish
	chunks int
}

// receiveSpec reads message 1 and accepts it.
func receiveSpec(s uploadStream) (*received, error) {
	m, err := s.Recv()
	if err != nil {
		return nil, err
	}
	if m.GetSpec() == nil || m.GetChunk() != nil || m.GetFinish() != nil {
		return nil, failure(codes.InvalidArgument, pb.ErrorReason_ERROR_REASON_STREAM_PROTOCOL_VIOLATION)
	}
	return &received{spec: m.GetSpec()}, s.SendHeader(metadata.Pairs("lpfs-request-id", m.GetSpec().GetRequestId()))
}

// receiveAll reads a whole upload, and rejects what the contract forbids.
func receiveAll(s uploadStream) (*received, error) {
	r, err := receiveSpec(s)
	for err == nil && r.finish == nil {
		err = r.next(s)
	}
	if err != nil {
		return r, err
	}
	if _, err := s.Recv(); err != io.EOF {
		return r, errors.New("a message followed finish")
	}
	crc, sum := crc32.Checksum(r.data, castagnoli), sha256.Sum256(r.data)
	for _, c := range []*pb.Checksums{r.spec.GetChecksums(), r.finish.GetChecksums()} {
		if c != nil && (c.GetCrc32C() != crc || !bytes.Equal(c.GetSha256(), sum[:])) {
			return r, failure(codes.InvalidArgument, pb.ErrorReason_ERROR_REASON_FILE_CHECKSUM_MISMATCH)
		}
	}
	if r.spec.SizeBytes != nil && r.spec.GetSizeBytes() != int64(len(r.data)) {
		return r, failure(codes.InvalidArgument, pb.ErrorReason_ERROR_REASON_UPLOAD_INCOMPLETE)
	}
	return r, nil
}

func (r *received) next(s uploadStream) error {
	m, err := s.Recv()
	if err != nil {
		return err
	}
	if m.GetSpec() != nil || m.GetChunk() == nil && m.GetFinish() == nil {
		return failure(codes.InvalidArgument, pb.ErrorReason_ERROR_REASON_STREAM_PROTOCOL_VIOLATION)
	}
	if c := m.GetChunk(); c != nil {
		r.chunks++
		if c.GetOffset() != int64(len(r.data)) || len(c.GetData()) == 0 {
			return failure(codes.OutOfRange, pb.ErrorReason_ERROR_REASON_OFFSET_MISMATCH)
		}
		if c.Crc32C == nil || c.GetCrc32C() != crc32.Checksum(c.GetData(), castagnoli) {
			return failure(codes.Aborted, pb.ErrorReason_ERROR_REASON_CHUNK_CHECKSUM_MISMATCH)
		}
		r.data = append(r.data, c.GetData()...)
	}
	r.finish = m.GetFinish()
	return nil
}

func (r *received) answer(s uploadStream) error {
	return s.SendAndClose(&pb.UploadResponse{RequestId: r.spec.GetRequestId(), File: &pb.File{Name: r.spec.GetConversation() + "/files/f"}})
}

// sending is a download as the server does it. A test changes one thing.
type sending struct {
	data    []byte
	etag    string
	chunk   int
	breakAt int64                             // end before this byte with failure; -1: after the trailer; 0: do not
	failure error                             // the error at breakAt
	change  func(m *pb.DownloadResponse)      // changes a message before it is sent
	skip    func(m *pb.DownloadResponse) bool // omits a message
	before  func(at int64)                    // called before each chunk
	waitAt  int64                             // wait before this byte until the call has ended; 0: do not
}

func (d sending) send(r *pb.DownloadRequest, s downloadStream) error {
	if d.chunk == 0 {
		d.chunk = 1000
	}
	total := int64(len(d.data))
	if r.GetIfMatchEtag() != "" && r.GetIfMatchEtag() != d.etag {
		return failure(codes.Aborted, pb.ErrorReason_ERROR_REASON_FILE_CHANGED)
	}
	begin := r.GetReadOffset()
	if begin < 0 {
		begin = max(0, total+begin)
	}
	if begin > total {
		return failure(codes.OutOfRange, pb.ErrorReason_ERROR_REASON_RANGE_NOT_SATISFIABLE)
	}
	end := total
	if r.GetReadLimit() > 0 {
		end = min(end, begin+r.GetReadLimit())
	}
	emit := func(m *pb.DownloadResponse) error {
		if d.skip != nil && d.skip(m) {
			return nil
		}
		if d.change != nil {
			d.change(m)
		}
		return s.Send(m)
	}
	h := &pb.DownloadHeader{
		File:         &pb.File{Name: r.GetName(), Etag: d.etag},
		ContentRange: &pb.ContentRange{StartBytes: begin, EndBytes: end, TotalBytes: total},
	}
	if err := emit(&pb.DownloadResponse{Payload: &pb.DownloadResponse_Header{Header: h}}); err != nil {
		return err
	}
	for at := begin; at < end; {
		if d.before != nil {
			d.before(at)
		}
		if d.waitAt > 0 && at >= d.waitAt {
			<-s.Context().Done()
			return s.Context().Err()
		}
		if d.breakAt > 0 && at >= d.breakAt {
			return d.failure
		}
		data := d.data[at:min(at+int64(d.chunk), end)]
		c := &pb.DataChunk{Offset: at, Data: bytes.Clone(data), Crc32C: new(crc32.Checksum(data, castagnoli))}
		if err := emit(&pb.DownloadResponse{Payload: &pb.DownloadResponse_Chunk{Chunk: c}}); err != nil {
			return err
		}
		at += int64(len(data))
	}
	sums := &pb.Checksums{Crc32C: new(crc32.Checksum(d.data[begin:end], castagnoli))}
	if slices.Contains(r.GetWantChecksums(), pb.ChecksumKind_CHECKSUM_KIND_SHA256) {
		sum := sha256.Sum256(d.data[begin:end])
		sums.Sha256 = sum[:]
	}
	err := emit(&pb.DownloadResponse{Payload: &pb.DownloadResponse_Trailer{Trailer: &pb.DownloadTrailer{
		SentBytes: end - begin, SentChecksums: sums,
	}}})
	if err == nil && d.breakAt == -1 {
		return d.failure
	}
	return err
}

// picture returns size bytes that begin like a JPEG.
func picture(size int) []byte {
	data := make([]byte, size)
	seed := uint32(2463534242)
	for i := range data {
		seed ^= seed << 13
		seed ^= seed >> 17
		seed ^= seed << 5
		data[i] = byte(seed)
	}
	copy(data, "\xff\xd8\xff\xe0")
	return data
}

// once hides all methods of a reader except Read.
type once struct{ io.Reader }
