package main

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/uuid"
	"google.golang.org/genproto/googleapis/rpc/errdetails"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/internal/service"
	"github.com/lpfileshare/lpfileshare/test/harness"
)

const webOrigin = "http://shop.example:8080"

// A page makes calls as a page of webOrigin does. Each page has connections of its own.
type page struct {
	w         *world
	transport http.RoundTripper
	options   []connect.ClientOption
	token     string
}

func (w *world) page(options ...connect.ClientOption) *page {
	transport := &http.Transport{}
	w.t.Cleanup(transport.CloseIdleConnections)
	return &page{w, transport, options, ""}
}

// RoundTrip implements http.RoundTripper.
func (p *page) RoundTrip(r *http.Request) (*http.Response, error) {
	r.Header.Set("Origin", webOrigin)
	if p.token != "" {
		r.Header.Set("Lp-Consumer-Token", p.token)
	}
	return p.transport.RoundTrip(r)
}

func pageClient[In, Out any](p *page, method string) *connect.Client[In, Out] {
	return connect.NewClient[In, Out](&http.Client{Transport: p}, "http://"+p.w.server.Web+method, p.options...)
}

// pageCall makes a unary call.
func pageCall[Out, In any](ctx context.Context, p *page, method string, req *In) (*Out, http.Header, error) {
	resp, err := pageClient[In, Out](p, method).CallUnary(ctx, connect.NewRequest(req))
	if err != nil {
		return nil, nil, err
	}
	return resp.Msg, resp.Header(), nil
}

// signUp makes the page that of a new consumer, with a conversation.
func (p *page) signUp() (conversation string) {
	p.w.t.Helper()
	in, _, err := pageCall[pb.SignInConsumerResponse](p.w.t.Context(), p, pb.IdentityService_SignInConsumer_FullMethodName,
		&pb.SignInConsumerRequest{Account: accountPath, Grant: &pb.SignInConsumerRequest_SignUp{SignUp: &pb.SignUp{}}})
	if err != nil {
		p.w.t.Fatal(err)
	}
	p.token = in.GetConsumerToken()
	c, _, err := pageCall[pb.CreateConversationResponse](p.w.t.Context(), p, pb.ConversationService_CreateConversation_FullMethodName,
		&pb.CreateConversationRequest{Account: accountPath})
	if err != nil {
		p.w.t.Fatal(err)
	}
	return c.GetConversation().GetName()
}

func (p *page) upload(conversation string, data []byte) (*pb.File, http.Header, error) {
	resp, header, err := pageCall[pb.UploadSmallFileResponse](p.w.t.Context(), p, pb.FileSharingService_UploadSmallFile_FullMethodName,
		&pb.UploadSmallFileRequest{Data: data, Spec: &pb.UploadSpec{
			Conversation: conversation, RequestId: uuid.NewString(), FileType: pb.FileType_FILE_TYPE_JPEG, DisplayName: "a.jpg",
		}})
	return resp.GetResult().GetFile(), header, err
}

func (p *page) watch(conversation string) (*connect.ServerStreamForClient[pb.WatchFilesResponse], error) {
	return pageClient[pb.WatchFilesRequest, pb.WatchFilesResponse](p, pb.FileSharingService_WatchFiles_FullMethodName).
		CallServerStream(p.w.t.Context(), connect.NewRequest(&pb.WatchFilesRequest{Parent: conversation}))
}

func pageReason(err error) string {
	e, ok := err.(*connect.Error)
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

func newWebWorld(t *testing.T, args ...string) *world {
	t.Helper()
	return newWorld(t, sandbox.Options{}, append([]string{"--web-listen=127.0.0.1:0", "--web-origin=" + webOrigin}, args...)...)
}

func TestWeb_Journey(t *testing.T) {
	t.Parallel()
	w := newWebWorld(t)
	data := photo(t, 2_900_000)
	for name, options := range map[string][]connect.ClientOption{"Connect": nil, "Connect JSON": {connect.WithProtoJSON()}, "gRPC-Web": {connect.WithGRPCWeb()}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := w.page(options...)
			conversation := p.signUp()
			watch, err := p.watch(conversation)
			if err != nil || !watch.Receive() { // the first message is a heartbeat
				t.Fatal(err, watch.Err())
			}
			defer watch.Close()
			file, header, err := p.upload(conversation, data)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := uuid.Parse(header.Get(service.RequestIDHeader)); err != nil {
				t.Errorf("the header of the upload has no request id: %v", header)
			}
			for watch.Msg().GetFile().GetName() != file.GetName() {
				if !watch.Receive() {
					t.Fatal(watch.Err())
				}
			}
			download, err := pageClient[pb.DownloadRequest, pb.DownloadResponse](p, pb.FileSharingService_Download_FullMethodName).
				CallServerStream(t.Context(), connect.NewRequest(&pb.DownloadRequest{Source: &pb.DownloadRequest_Name{Name: file.GetName()}}))
			if err != nil {
				t.Fatal(err)
			}
			defer download.Close()
			var got bytes.Buffer
			trailer := false
			for download.Receive() {
				got.Write(download.Msg().GetChunk().GetData())
				trailer = download.Msg().GetTrailer() != nil
			}
			if download.Err() != nil || !trailer || sha(got.Bytes()) != sha(data) {
				t.Errorf("%d bytes, trailer %t, %v", got.Len(), trailer, download.Err())
			}
		})
	}
	t.Cleanup(func() { w.logged("finished call", "UploadSmallFile", "peer=127.0.0.1:0", "caller=") })
}

// A page is none of the callers that the server trusts, whatever the address of its browser.
func TestWeb_Identity(t *testing.T) {
	t.Parallel()
	w := newWebWorld(t)
	agent := w.signInAgent("ann")
	ask := func(name, value string) error {
		p := w.page()
		req := connect.NewRequest(&pb.GetCapabilitiesRequest{Account: accountPath})
		req.Header().Set(name, value)
		_, err := pageClient[pb.GetCapabilitiesRequest, pb.GetCapabilitiesResponse](p, pb.FileSharingService_GetCapabilities_FullMethodName).CallUnary(t.Context(), req)
		return err
	}
	for _, c := range []struct{ name, value, reason string }{
		{"Lp-External-Consumer-Id", "c", "CALLER_NOT_AUTHENTICATED"},
		{"Lp-Agent-Token", agent, "TOKEN_INVALID"},
		{"Cookie", "lp-consumer-token=a", "TOKEN_INVALID"},
	} {
		if err := ask(c.name, c.value); pageReason(err) != c.reason {
			t.Errorf("%s: %v with %q, want %s", c.name, err, pageReason(err), c.reason)
		}
	}
	w.stop()
	w.start("--web-listen=127.0.0.1:0", "--web-origin="+webOrigin, "--web-agents")
	agent = w.signInAgent("ann")
	if err := ask("Lp-Agent-Token", agent); err != nil {
		t.Errorf("with --web-agents: %v", err)
	}
}

func TestWeb_FileTooLarge(t *testing.T) {
	t.Parallel()
	w := newWebWorld(t)
	p := w.page()
	p.token = "not checked yet"
	for _, size := range []int{service.MaxSmallFileBytes + 1, service.MaxRecvMessageBytes + 1} {
		if _, _, err := p.upload(accountPath+"/conversations/c", make([]byte, size)); connect.CodeOf(err) != connect.CodeInvalidArgument || pageReason(err) != "FILE_TOO_LARGE" {
			t.Errorf("%d bytes: %v with %q", size, err, pageReason(err))
		}
	}
}

// TestWeb_Drain stops the server while an upload is being stored and a watch is open.
func TestWeb_Drain(t *testing.T) {
	t.Parallel()
	w := newWebWorld(t, "--drain-time=10m", "--drain-notice=0s")
	p := w.page()
	conversation := p.signUp()
	watch, err := p.watch(conversation)
	if err != nil || !watch.Receive() {
		t.Fatal(err, watch.Err())
	}
	defer watch.Close()
	w.sb.Inject(sandbox.Fault{On: "store:PUT", Delay: 500 * time.Millisecond, Count: 1})
	struck := w.sb.FaultsStruck()
	uploaded := make(chan error, 1)
	go func() {
		_, _, err := p.upload(conversation, photo(t, 50_000))
		uploaded <- err
	}()
	harness.Eventually(t, "PUT", func() bool { return w.sb.FaultsStruck() > struck })
	w.server.Quit()
	for watch.Receive() {
	}
	if pageReason(watch.Err()) != "SERVER_DRAINING" {
		t.Errorf("the watch ended with %v", watch.Err())
	}
	if err := <-uploaded; err != nil {
		t.Errorf("the upload: %v", err)
	}
	w.stop()
	if n := len(w.sb.Journal().Published); n != 1 {
		t.Errorf("%d messages", n)
	}
}

func TestWebFlags_Validate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ args, says string }{
		{"--web-listen=127.0.0.1:0 --web-origin=https://a.example", ""},
		{"--web-listen=0.0.0.0:8443 --web-origin=https://a.example --web-plaintext", ""},
		{"--web-listen=0.0.0.0:8443 --web-origin=https://a.example", "not loopback"},
		{"--web-listen=127.0.0.1:0", "--web-origin"},
		{"--web-listen=nowhere --web-origin=https://a.example", "not an address"},
		{"--web-listen=127.0.0.1:0 --web-origin=*", "anybody"},
		{"--web-listen=127.0.0.1:0 --web-origin=https://a.example --web-cert=a", "belong together"},
		{"--web-origin=https://a.example", "add --web-listen"},
		{"--web-listen=127.0.0.1:0 --web-origin=https://a.example --web-memory=1MiB", "too small"},
		{"--web-listen=127.0.0.1:0 --web-origin=https://a.example --tls-cert=a --tls-key=a --tls-client-ca=a", "--web-listen excludes --tls-client-ca"},
	} {
		var stderr bytes.Buffer
		_, code, done := parse(strings.Fields(c.args), &stderr, &stderr)
		if failed := done && code == 2; failed != (c.says != "") || !strings.Contains(stderr.String(), c.says) {
			t.Errorf("%s: code %d: %s, want %q", c.args, code, &stderr, c.says)
		}
	}
}
