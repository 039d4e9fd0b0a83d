// Package web serves a gRPC server to browsers, which cannot speak gRPC: by the Connect protocol and gRPC-Web.
//
// It translates (Vanguard) and passes each call on over a connection in this process, so that interceptors, limits and the drain of the
// gRPC server hold for calls of browsers too. docs/adr/0043 says why, and docs/browsers.md how it is used.
package web

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"connectrpc.com/vanguard"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// Config is what a Handler needs. Every field is required unless it says otherwise.
type Config struct {
	// Pipe is what the gRPC server serves.
	Pipe *Pipe
	// Services are the full names of the services that browsers may call. The others do not exist for them.
	Services []string
	// AllowOrigin decides by the Origin of a request whether a page may call. Requests without an Origin come here too.
	AllowOrigin func(*http.Request) bool
	// LoopbackHost rejects requests whose Host is not this machine. It is for a listener on loopback.
	LoopbackHost bool
	// IdentityHeaders are the request headers that identify a caller. They are passed on; no others are, and no cookies.
	IdentityHeaders []string
	// Refused are request headers that are not accepted, with the errors of such calls. It may be empty.
	Refused map[string]*share.Error
	// ResponseHeaders are the headers of the service that pages may read.
	ResponseHeaders []string
	// MaxMessageBytes is the largest message that the gRPC server receives.
	MaxMessageBytes int64
	// Memory is how many bytes the requests of all browsers may hold until the gRPC server has received them: at least MinMemory of
	// MaxMessageBytes. Each address has a share.
	Memory int64
	// RequestTimeout limits the time in which a request must arrive.
	RequestTimeout time.Duration
	// ReadStall limits the time in which a client may read nothing of a response.
	ReadStall time.Duration
	// TooLarge returns the error of a call of a method, "/package.Service/Method", whose request of so many bytes is too large. If it
	// returns nil, the call ends as gRPC itself would end it.
	TooLarge func(method string, bytes int64) *share.Error
	// Status turns a condition into the status that clients see.
	Status func(*share.Error) *status.Status
}

// A Handler serves calls of browsers. It must be closed.
type Handler struct {
	Config
	memory     *memory
	transcoder http.Handler
	transport  *http.Transport
	errors     *connect.ErrorWriter
	kept       []string                                 // request headers that are passed on
	exposed    string                                   // response headers that pages may read
	methods    map[string]protoreflect.MethodDescriptor // by path
}

// Streams of one in-process connection, and the windows that limit what is buffered for a client that reads slowly.
const (
	streamWindow     = 64 << 10
	connectionWindow = 32 << 20 // more than all streams of a connection can fill
	idleTimeout      = 10 * time.Second
)

// formats are the content types that are served: those of the Connect protocol and of gRPC-Web, in binary and JSON.
var formats = []string{
	"application/json", "application/proto", "application/connect+json", "application/connect+proto",
	"application/grpc-web", "application/grpc-web+proto", "application/grpc-web+json",
}

// New returns a Handler. It returns an error if a service is not one of the program's.
func New(c Config) (*Handler, error) {
	h := &Handler{Config: c, memory: newMemory(c.Memory), errors: connect.NewErrorWriter(), methods: make(map[string]protoreflect.MethodDescriptor)}
	h.kept = append([]string{
		"Content-Type", "Connect-Protocol-Version", "Connect-Timeout-Ms", "Grpc-Timeout", "X-Grpc-Web", "X-User-Agent", "User-Agent",
	}, c.IdentityHeaders...)
	h.exposed = strings.Join(append([]string{"Grpc-Status", "Grpc-Message", "Grpc-Status-Details-Bin"}, c.ResponseHeaders...), ", ")
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	h.transport = &http.Transport{
		Protocols: &protocols, DisableCompression: true, IdleConnTimeout: idleTimeout,
		HTTP2: &http.HTTP2Config{MaxReceiveBufferPerStream: streamWindow, MaxReceiveBufferPerConnection: connectionWindow},
		DialContext: func(ctx context.Context, _, name string) (net.Conn, error) {
			from, err := addrOf(name)
			if err != nil {
				return nil, err
			}
			return c.Pipe.dial(ctx, from)
		},
	}
	target := &httputil.ReverseProxy{
		Rewrite: passOn, Transport: h.transport, FlushInterval: -1, ErrorHandler: h.failed, ErrorLog: log.New(io.Discard, "", 0),
	}
	var services []*vanguard.Service
	for _, name := range c.Services {
		found, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(name))
		service, ok := found.(protoreflect.ServiceDescriptor)
		if err != nil || !ok {
			return nil, fmt.Errorf("web: %s is not a service of this program", name)
		}
		for i := range service.Methods().Len() {
			method := service.Methods().Get(i)
			h.methods["/"+name+"/"+string(method.Name())] = method
		}
		services = append(services, vanguard.NewServiceWithSchema(service, target,
			vanguard.WithTargetProtocols(vanguard.ProtocolGRPC), vanguard.WithTargetCodecs(vanguard.CodecProto), vanguard.WithNoTargetCompression(),
			// limitOf is what limits requests: this must never be what rejects one, because clients would retry.
			vanguard.WithMaxMessageBufferBytes(uint32(4*c.MaxMessageBytes))))
	}
	transcoder, err := vanguard.NewTranscoder(services)
	if err != nil {
		return nil, fmt.Errorf("web: %w", err)
	}
	h.transcoder = transcoder
	return h, nil
}

// Close ends the idle in-process connections. Calls must have ended.
func (h *Handler) Close() { h.transport.CloseIdleConnections() }

// ServeHTTP implements http.Handler. A request is checked in the order of what is known of it: nothing of its body is read before its
// host, origin, method, format and headers are accepted.
func (h *Handler) ServeHTTP(inner http.ResponseWriter, r *http.Request) {
	w := &boundedWriter{inner, http.NewResponseController(inner), h.ReadStall}
	defer w.begin() // for what net/http writes when the handler has returned
	if !h.admit(w, r) {
		return
	}
	method := r.URL.Path
	l, err := h.check(r, method)
	if err != nil {
		h.reject(w, r, err)
		return
	}
	held := h.memory.reserve(r.RemoteAddr)
	defer held.release()
	pieces, err := h.receive(w.rc, r, method, l, held)
	if err != nil {
		h.reject(w, r, err)
		return
	}
	if err := held.translate(r.Context(), l.copies); err != nil {
		return // the client has left
	}
	call := r.WithContext(context.WithValue(r.Context(), heldKey{}, held))
	call.Body = &body{pieces}
	call.Trailer = nil // as a second frame of headers it would end the connection, which others share
	call.Header = make(http.Header, len(h.kept))
	for _, name := range h.kept {
		if values := r.Header.Values(name); len(values) > 0 {
			call.Header[http.CanonicalHeaderKey(name)] = values
		}
	}
	h.transcoder.ServeHTTP(w, call)
}

// admit decides by host, origin and HTTP method. It reports false if it has answered the request.
func (h *Handler) admit(w http.ResponseWriter, r *http.Request) bool {
	header := w.Header()
	header.Add("Vary", "Origin")
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Cache-Control", "no-store")
	switch {
	case h.LoopbackHost && !isLoopbackHost(r):
		http.Error(w, "the Host header must be localhost or a loopback address", http.StatusMisdirectedRequest)
		return false
	case !h.AllowOrigin(r):
		http.Error(w, "pages of this origin may not call; --web-origin names those that may", http.StatusForbidden)
		return false
	}
	header.Set("Access-Control-Allow-Origin", r.Header.Get("Origin"))
	switch {
	case r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "":
		header.Del("Cache-Control")
		header.Set("Access-Control-Allow-Methods", http.MethodPost)
		header.Set("Access-Control-Allow-Headers", strings.Join(h.kept, ", "))
		header.Set("Access-Control-Max-Age", "7200")
		w.WriteHeader(http.StatusNoContent)
		return false
	case r.Method != http.MethodPost:
		header.Set("Allow", "POST, OPTIONS")
		http.Error(w, "calls are POST requests", http.StatusMethodNotAllowed)
		return false
	}
	header.Set("Access-Control-Expose-Headers", h.exposed)
	if sent := r.Header.Values("Content-Type"); len(sent) != 1 || !slices.Contains(formats, sent[0]) {
		http.Error(w, "the Content-Type must be one of "+strings.Join(formats, ", ")+"; native gRPC has an address of its own", http.StatusUnsupportedMediaType)
		return false
	}
	return true
}

// check decides by path and headers, and returns how large the request may be. Its error is for the client.
func (h *Handler) check(r *http.Request, method string) (limit, error) {
	descriptor := h.methods[method]
	if descriptor == nil {
		return limit{}, connect.NewError(connect.CodeUnimplemented, errors.New("browsers cannot call this method, or it does not exist"))
	}
	if descriptor.IsStreamingClient() {
		return limit{}, connect.NewError(connect.CodeUnimplemented, errors.New("browsers cannot stream requests; call a unary method"))
	}
	for name, err := range h.Refused {
		if r.Header.Get(name) != "" {
			return limit{}, h.status(err)
		}
	}
	// A compressed request could need any amount of memory.
	for _, name := range []string{"Content-Encoding", "Connect-Content-Encoding", "Grpc-Encoding"} {
		if coding := r.Header.Get(name); coding != "" && coding != "identity" {
			return limit{}, connect.NewError(connect.CodeUnimplemented, fmt.Errorf("%s %.20q is not supported; send the request uncompressed", name, coding))
		}
	}
	if strings.HasSuffix(r.Header.Get("Content-Type"), "json") {
		return limit{bytes: maxJSON(h.MaxMessageBytes), copies: 3}, nil
	}
	return limit{bytes: h.MaxMessageBytes + prefixBytes, copies: 1}, nil
}

// maxJSON is the largest request in JSON, in which bytes are base64.
func maxJSON(message int64) int64 { return message/3*4 + 64<<10 }

// MinMemory returns the least Memory for messages of up to so many bytes: one connection may use an eighth of it.
func MinMemory(message int64) int64 { return 8 * (maxJSON(message) + 2*pieceBytes) }

// prefixBytes is what precedes a message in a stream.
const prefixBytes = 5

// reject answers with an error, in the format of the request.
func (h *Handler) reject(w http.ResponseWriter, r *http.Request, err error) {
	_ = h.errors.Write(w, r, err)
}

// status returns the error of a condition.
func (h *Handler) status(e *share.Error) error {
	s := h.Status(e)
	err := connect.NewError(connect.Code(s.Code()), errors.New(s.Message()))
	for _, detail := range s.Proto().GetDetails() {
		if d, invalid := connect.NewErrorDetail(detail); invalid == nil {
			err.AddDetail(d)
		}
	}
	return err
}

// passOn addresses a translated request to the in-process connection of its browser.
func passOn(p *httputil.ProxyRequest) {
	p.Out.URL.Scheme, p.Out.URL.Host, p.Out.Host = "http", connectionOf(p.In.RemoteAddr), "in-process"
	p.Out.Body = releasing(p.In.Context(), p.Out.Body)
}

// failed answers a call that could not be passed on, or whose in-process connection ended before the response began. It is a response of
// gRPC without messages, which is then translated.
func (h *Handler) failed(w http.ResponseWriter, r *http.Request, err error) {
	s := status.New(codes.Unavailable, "the connection to the service ended; retry with the same request_id")
	switch {
	case errors.Is(err, errPipeClosed), h.Pipe.closed():
		s = h.Status(share.Reject(share.ServerDraining, "the server is shutting down; retry with the same request_id on another server"))
	case r.Context().Err() != nil:
		s = status.FromContextError(r.Context().Err())
	}
	header := w.Header()
	header.Set("Content-Type", "application/grpc+proto")
	header.Set("Grpc-Status", strconv.Itoa(int(s.Code())))
	header.Set("Grpc-Message", url.PathEscape(s.Message()))
	if details, err := proto.Marshal(s.Proto()); err == nil && len(s.Proto().GetDetails()) > 0 {
		header.Set("Grpc-Status-Details-Bin", base64.RawStdEncoding.EncodeToString(details))
	}
	w.WriteHeader(http.StatusOK)
}
