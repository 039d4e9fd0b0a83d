package lpfileshare_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"hash/crc32"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
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

// A fake is a server whose every answer a test writes itself. The n of each call counts from 1.
type fake struct {
	pb.UnimplementedFileSharingServiceServer
	pb.UnimplementedConversationServiceServer
	pb.UnimplementedIdentityServiceServer

	upload    func(n int, s uploadStream) error
	download  func(n int, r *pb.DownloadRequest, s downloadStream) error
	watch     func(n int, r *pb.WatchFilesRequest, s watchStream) error
	getUpload func(r *pb.GetUploadRequest) (*pb.GetUploadResponse, error)
	stat      func(ctx context.Context, n int) (*pb.StatFileResponse, error)
	list      func(r *pb.ListFilesRequest) (*pb.ListFilesResponse, error)
	create    func(n int, r *pb.CreateConversationRequest) (*pb.CreateConversationResponse, error)
	renew     func(ctx context.Context, n int, r *pb.RenewConsumerRequest) (*pb.RenewConsumerResponse, error)
	signOut   func(ctx context.Context, n int, r *pb.SignOutAgentRequest) (*pb.SignOutAgentResponse, error)
	signIn    func(r *pb.SignInConsumerRequest) (*pb.SignInConsumerResponse, error)

	addr string
	cut  func() // breaks all connections off

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

// serve runs a fake on a loopback socket until the returned function is called.
func (f *fake) serve(creds credentials.TransportCredentials) (stop func(), err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	cuttable := &cuttableListener{Listener: listener}
	var options []grpc.ServerOption
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
	f.addr, f.cut, f.calls = listener.Addr().String(), cuttable.cut, map[string]int{}
	done := make(chan struct{})
	go func() { defer close(done); server.Serve(cuttable) }()
	return func() { server.Stop(); <-done }, nil
}

// start serves a fake for a test, and dials it.
func start(t *testing.T, f *fake, options ...lpfileshare.Option) *lpfileshare.Client {
	t.Helper()
	stop, err := f.serve(nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	c, err := lpfileshare.Dial(f.addr, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// testContext ends before the test run does.
func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
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
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
	l.conns = nil
}

// failure is an error as the server makes it.
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

// received is an upload as it came in.
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

// receiveAll reads a whole upload, and refuses what the contract forbids.
func receiveAll(s uploadStream) (*received, error) {
	r, err := receiveSpec(s)
	for err == nil && r.finish == nil {
		err = r.next(s)
	}
	if err != nil {
		return r, err
	}
	if _, err := s.Recv(); err != io.EOF {
		return r, errors.New("something came after finish")
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

// sending is a download as the server does it; a test changes one thing.
type sending struct {
	data    []byte
	etag    string
	chunk   int
	breakAt int64                             // break off before this byte with failure; -1: after the trailer; 0: not
	failure error                             // what to break off with
	mend    func(m *pb.DownloadResponse)      // changes a message on its way out
	skip    func(m *pb.DownloadResponse) bool // leaves a message out
	before  func(at int64)                    // is called before each chunk
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
		if d.mend != nil {
			d.mend(m)
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
	sum := sha256.Sum256(d.data[begin:end])
	err := emit(&pb.DownloadResponse{Payload: &pb.DownloadResponse_Trailer{Trailer: &pb.DownloadTrailer{
		SentBytes:     end - begin,
		SentChecksums: &pb.Checksums{Crc32C: new(crc32.Checksum(d.data[begin:end], castagnoli)), Sha256: sum[:]},
	}}})
	if err == nil && d.breakAt == -1 {
		return d.failure
	}
	return err
}

// picture is size bytes that begin as a JPEG does.
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

// once hides everything of a reader but Read.
type once struct{ io.Reader }
