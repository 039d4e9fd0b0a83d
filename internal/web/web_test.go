package web_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/internal/web"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	origin      = "https://www.example.com"
	uploadPath  = pb.FileSharingService_UploadSmallFile_FullMethodName
	watchPath   = pb.FileSharingService_WatchFiles_FullMethodName
	maxMessage  = 100_000
	requestIDOf = "lpfs-request-id"
)

// A backend is the gRPC service behind a Handler.
type backend struct {
	pb.UnimplementedFileSharingServiceServer
	calls chan call     // what arrived
	ended chan struct{} // one for each watch that has ended
	hold  chan struct{} // if set, calls wait for it
}

type call struct {
	peer *peer.Peer
	md   metadata.MD
}

func (b *backend) arrived(ctx context.Context) {
	p, _ := peer.FromContext(ctx)
	md, _ := metadata.FromIncomingContext(ctx)
	select {
	case b.calls <- call{p, md}:
	default:
	}
}

func (b *backend) UploadSmallFile(ctx context.Context, req *pb.UploadSmallFileRequest) (*pb.UploadSmallFileResponse, error) {
	b.arrived(ctx)
	if b.hold != nil {
		<-b.hold
	}
	if req.GetSpec().GetCaption() == "fail" {
		s, _ := status.New(codes.NotFound, "no such file, 100 %\n").WithDetails(&errdetails.ErrorInfo{Reason: "FILE_NOT_FOUND", Domain: "lpfileshare"})
		return nil, s.Err()
	}
	_ = grpc.SetHeader(ctx, metadata.Pairs(requestIDOf, "id"))
	return &pb.UploadSmallFileResponse{Result: &pb.UploadResponse{File: &pb.File{StoredSizeBytes: proto.Int64(int64(len(req.GetData())))}}}, nil
}

// WatchFiles sends as many messages as the parent says, and then waits for the client to leave unless the token is "end".
func (b *backend) WatchFiles(req *pb.WatchFilesRequest, stream grpc.ServerStreamingServer[pb.WatchFilesResponse]) error {
	b.arrived(stream.Context())
	defer func() { b.ended <- struct{}{} }()
	var n, size int
	_, _ = fmt.Sscanf(req.GetParent(), "%d of %d", &n, &size)
	for range n {
		if err := stream.Send(&pb.WatchFilesResponse{ResumeToken: strings.Repeat("x", size)}); err != nil {
			return err
		}
	}
	if req.GetResumeToken() == "end" {
		return nil
	}
	<-stream.Context().Done()
	return stream.Context().Err()
}

// A site is a Handler on an address, before a backend.
type site struct {
	*backend
	url    string
	client *http.Client
	server *grpc.Server
}

// newSite starts a site. change may adjust its configuration.
func newSite(t *testing.T, change func(*web.Config), start func(*httptest.Server)) *site {
	t.Helper()
	s := &site{backend: &backend{calls: make(chan call, 1000), ended: make(chan struct{}, 1000)}}
	pipe := web.NewPipe()
	s.server = grpc.NewServer(grpc.Creds(web.Credentials(insecure.NewCredentials())), grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(250), grpc.WaitForHandlers(true))
	pb.RegisterFileSharingServiceServer(s.server, s.backend)
	c := web.Config{
		Pipe: pipe, Services: []string{"lpfileshare.v1.FileSharingService"}, AllowOrigin: web.Origins([]string{origin}), LoopbackHost: true,
		IdentityHeaders: []string{"lp-consumer-token"}, ResponseHeaders: []string{requestIDOf},
		Refused:         map[string]*share.Error{"lp-external-consumer-id": share.Reject(share.CallerNotAuthenticated, "not here")},
		MaxMessageBytes: maxMessage, Memory: 64 << 20, RequestTimeout: time.Minute, ReadStall: time.Minute,
		TooLarge: func(string, int64) *share.Error { return share.Reject(share.FileTooLarge, "too large") },
		Status: func(e *share.Error) *status.Status {
			code := map[share.Kind]codes.Code{share.FileTooLarge: codes.InvalidArgument, share.TooManyUploads: codes.ResourceExhausted, share.ServerDraining: codes.Unavailable,
				share.CallerNotAuthenticated: codes.Unauthenticated}[e.Kind]
			s, _ := status.New(code, e.Message).WithDetails(&errdetails.ErrorInfo{Reason: string(e.Kind), Domain: "lpfileshare"})
			return s
		},
	}
	if change != nil {
		change(&c)
	}
	h, err := web.New(c)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = s.server.Serve(pipe)
	}()
	front := httptest.NewUnstartedServer(h)
	if start == nil {
		start = (*httptest.Server).Start
	}
	start(front)
	s.url, s.client = front.URL, front.Client()
	t.Cleanup(func() {
		s.client.CloseIdleConnections()
		front.CloseClientConnections()
		front.Close()
		s.server.Stop()
		<-served
		h.Close()
	})
	return s
}

// connectHTTP2 starts a server with TLS, over which clients speak HTTP/2.
func connectHTTP2(s *httptest.Server) {
	s.EnableHTTP2 = true
	s.StartTLS()
}

// request is a POST of a page of the allowed origin.
func (s *site) request(t *testing.T, path, format string, body io.Reader) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+path, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Origin", origin)
	r.Header.Set("Content-Type", format)
	r.Header.Set("Connect-Protocol-Version", "1")
	return r
}

// do sends a request, and returns the response with its body read.
func (s *site) do(t *testing.T, r *http.Request) (*http.Response, string) {
	t.Helper()
	resp, err := s.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(b)
}

// fromPage adds the Origin of the allowed page to the requests of a connect-go client.
type fromPage struct{ http.RoundTripper }

func (f fromPage) RoundTrip(r *http.Request) (*http.Response, error) {
	r.Header.Set("Origin", origin)
	return f.RoundTripper.RoundTrip(r)
}

// protocols are what pages speak. Requests are not compressed.
var protocols = map[string][]connect.ClientOption{
	"connect": nil, "connect JSON": {connect.WithProtoJSON()}, "gRPC-Web": {connect.WithGRPCWeb()}, "gRPC-Web JSON": {connect.WithGRPCWeb(), connect.WithProtoJSON()},
}

func newClient[In, Out any](s *site, path string, options ...connect.ClientOption) *connect.Client[In, Out] {
	return connect.NewClient[In, Out](&http.Client{Transport: fromPage{s.client.Transport}}, s.url+path, options...)
}

func TestHandler_Calls(t *testing.T) {
	t.Parallel()
	for kind, start := range map[string]func(*httptest.Server){"HTTP/1.1": nil, "HTTP/2": connectHTTP2} {
		s := newSite(t, nil, start)
		for name, options := range protocols {
			t.Run(kind+"/"+name, func(t *testing.T) {
				upload := newClient[pb.UploadSmallFileRequest, pb.UploadSmallFileResponse](s, uploadPath, options...)
				watch := newClient[pb.WatchFilesRequest, pb.WatchFilesResponse](s, watchPath, options...)

				req := connect.NewRequest(&pb.UploadSmallFileRequest{Data: bytes.Repeat([]byte{1}, 90_000)})
				req.Header().Set("Lp-Consumer-Token", "token")
				req.Header().Set("Cookie", "a=b")
				req.Header().Set("X-Forwarded-For", "192.0.2.1")
				resp, err := upload.CallUnary(t.Context(), req)
				if err != nil || resp.Msg.GetResult().GetFile().GetStoredSizeBytes() != 90_000 {
					t.Fatalf("got %v, %v", resp, err)
				}
				if resp.Header().Get(requestIDOf) != "id" || !strings.Contains(strings.ToLower(resp.Header().Get("Access-Control-Expose-Headers")), requestIDOf) {
					t.Errorf("pages cannot read the request id: %v", resp.Header())
				}
				got := <-s.calls
				if tcp, ok := got.peer.Addr.(*net.TCPAddr); !ok || !tcp.IP.IsLoopback() || !web.IsBrowser(got.peer) {
					t.Errorf("the peer is %v, browser %t", got.peer.Addr, web.IsBrowser(got.peer))
				}
				if got.md.Get("lp-consumer-token")[0] != "token" || got.md.Get("cookie") != nil || got.md.Get("x-forwarded-for") != nil || got.md.Get("origin") != nil {
					t.Errorf("metadata %v", got.md)
				}

				_, err = upload.CallUnary(t.Context(), connect.NewRequest(&pb.UploadSmallFileRequest{Spec: &pb.UploadSpec{Caption: "fail"}}))
				wantError(t, err, connect.CodeNotFound, "FILE_NOT_FOUND")
				if !strings.Contains(err.Error(), "no such file, 100 %\n") {
					t.Errorf("message %q", err)
				}
				<-s.calls

				stream, err := watch.CallServerStream(t.Context(), connect.NewRequest(&pb.WatchFilesRequest{Parent: "3 of 10", ResumeToken: "end"}))
				if err != nil {
					t.Fatal(err)
				}
				messages := 0
				for stream.Receive() {
					messages++
				}
				if stream.Err() != nil || messages != 3 {
					t.Errorf("%d messages, %v", messages, stream.Err())
				}
				stream.Close()
				<-s.calls
			})
		}
	}
}

// wantError checks the code and the reason of an error.
func wantError(t *testing.T, err error, code connect.Code, reason string) {
	t.Helper()
	if connect.CodeOf(err) != code || reasonOf(err) != reason {
		t.Errorf("got %v with reason %q, want %v with %q", err, reasonOf(err), code, reason)
	}
}

func reasonOf(err error) string {
	e, ok := errors.AsType[*connect.Error](err)
	if !ok {
		return ""
	}
	for _, d := range e.Details() {
		if m, err := d.Value(); err == nil {
			if info, ok := m.(*errdetails.ErrorInfo); ok {
				return info.GetReason()
			}
		}
	}
	return ""
}

func TestHandler_Rejects(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, nil)
	for name, c := range map[string]struct {
		change func(*http.Request)
		path   string
		code   int
		says   string
	}{
		"no origin":                 {change: func(r *http.Request) { r.Header.Del("Origin") }, code: 403},
		"another origin":            {change: func(r *http.Request) { r.Header.Set("Origin", "https://evil.example") }, code: 403},
		"the origin with a port":    {change: func(r *http.Request) { r.Header.Set("Origin", origin+":8443") }, code: 403},
		"null":                      {change: func(r *http.Request) { r.Header.Set("Origin", "null") }, code: 403},
		"another host":              {change: func(r *http.Request) { r.Host = "evil.example" }, code: 421},
		"GET":                       {change: func(r *http.Request) { r.Method = http.MethodGet }, code: 405},
		"OPTIONS, not a preflight":  {change: func(r *http.Request) { r.Method = http.MethodOptions }, code: 405},
		"native gRPC":               {change: format("application/grpc"), code: 415},
		"native gRPC with a codec":  {change: format("application/grpc+proto"), code: 415},
		"a simple request":          {change: format("text/plain"), code: 415},
		"a form":                    {change: format("application/x-www-form-urlencoded"), code: 415},
		"an identity of the server": {change: func(r *http.Request) { r.Header.Set("Lp-External-Consumer-Id", "c") }, says: "CALLER_NOT_AUTHENTICATED"},
		"compressed":                {change: func(r *http.Request) { r.Header.Set("Content-Encoding", "gzip") }, code: 501, says: "uncompressed"},
		"another service":           {path: "/grpc.health.v1.Health/Check", code: 501, says: "unimplemented"},
		"reflection":                {path: "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", code: 501},
		"a client stream":           {path: pb.FileSharingService_Upload_FullMethodName, change: format("application/connect+json"), says: "cannot stream"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := uploadPath
			if c.path != "" {
				path = c.path
			}
			r := s.request(t, path, "application/json", strings.NewReader("{}"))
			if c.change != nil {
				c.change(r)
			}
			resp, body := s.do(t, r)
			if c.code != 0 && resp.StatusCode != c.code || !strings.Contains(body, c.says) {
				t.Errorf("got %d %q, want %d with %q", resp.StatusCode, body, c.code, c.says)
			}
			if allowed := resp.Header.Get("Access-Control-Allow-Origin"); (c.code == 403 || c.code == 421) && allowed != "" {
				t.Errorf("the origin %q is allowed", allowed)
			}
			if resp.Header.Get("Access-Control-Allow-Credentials") != "" {
				t.Error("credentials are allowed")
			}
		})
	}
	t.Cleanup(func() {
		if len(s.calls) > 0 {
			t.Error("a rejected call has reached the service")
		}
	})
}

func format(text string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set("Content-Type", text) }
}

func TestHandler_Preflight(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, nil)
	r := s.request(t, uploadPath, "", nil)
	r.Method = http.MethodOptions
	r.Header = http.Header{"Origin": {origin}, "Access-Control-Request-Method": {"POST"}, "Access-Control-Request-Headers": {"lp-consumer-token"}}
	resp, _ := s.do(t, r)
	h := resp.Header
	if resp.StatusCode != 204 || h.Get("Access-Control-Allow-Origin") != origin || h.Get("Access-Control-Allow-Methods") != "POST" ||
		!strings.Contains(strings.ToLower(h.Get("Access-Control-Allow-Headers")), "lp-consumer-token") || h.Get("Vary") != "Origin" ||
		h.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("%s %v", resp.Status, h)
	}
	r.Header.Set("Origin", "https://evil.example")
	if resp, _ := s.do(t, r); resp.StatusCode != 403 {
		t.Errorf("another origin: %s", resp.Status)
	}
}

func TestHandler_SameOrigin(t *testing.T) {
	t.Parallel()
	s := newSite(t, func(c *web.Config) { c.AllowOrigin = web.SameOrigin }, nil)
	for from, want := range map[string]int{s.url: 200, origin: 403, "": 403} {
		r := s.request(t, uploadPath, "application/json", strings.NewReader("{}"))
		r.Header.Set("Origin", from)
		if resp, body := s.do(t, r); resp.StatusCode != want {
			t.Errorf("%q: %s %s", from, resp.Status, body)
		}
	}
}

// Clients repeat what a proxy answers with 502 and what is unavailable. A request that can never pass must not look like that.
func TestHandler_TooLarge(t *testing.T) {
	t.Parallel()
	for kind, start := range map[string]func(*httptest.Server){"HTTP/1.1": nil, "HTTP/2": connectHTTP2} {
		s := newSite(t, nil, start)
		for name, options := range protocols {
			t.Run(kind+"/"+name, func(t *testing.T) {
				t.Parallel()
				upload := newClient[pb.UploadSmallFileRequest, pb.UploadSmallFileResponse](s, uploadPath, options...)
				_, err := upload.CallUnary(t.Context(), connect.NewRequest(&pb.UploadSmallFileRequest{Data: make([]byte, 2*maxMessage)}))
				wantError(t, err, connect.CodeInvalidArgument, "FILE_TOO_LARGE")
			})
		}
		t.Run(kind+"/without a length", func(t *testing.T) {
			t.Parallel()
			data := io.MultiReader(bytes.NewReader(make([]byte, 2*maxMessage)))
			if resp, body := s.do(t, s.request(t, uploadPath, "application/proto", data)); resp.StatusCode != 400 || !strings.Contains(body, "invalid_argument") {
				t.Errorf("%s %s", resp.Status, body)
			}
		})
		t.Run(kind+"/the largest", func(t *testing.T) {
			t.Parallel()
			upload := newClient[pb.UploadSmallFileRequest, pb.UploadSmallFileResponse](s, uploadPath)
			req := &pb.UploadSmallFileRequest{Data: make([]byte, maxMessage)}
			req.Data = req.Data[:2*maxMessage-proto.Size(req)]
			if _, err := upload.CallUnary(t.Context(), connect.NewRequest(req)); err != nil {
				t.Error(err)
			}
		})
	}
}
