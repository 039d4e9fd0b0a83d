package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/connlimit"
	"github.com/lpfileshare/lpfileshare/internal/netrules"
	"github.com/lpfileshare/lpfileshare/internal/service"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/internal/web"
)

// webFlags are the settings for calls of browsers; docs/browsers.md describes them.
type webFlags struct {
	Listen    string   `name:"web-listen" placeholder:"ADDR" help:"Address to serve browsers on, by the Connect protocol and gRPC-Web: with --web-cert, on loopback, or behind a proxy that adds TLS (--web-plaintext). Default: none."`
	Origins   []string `name:"web-origin" sep:"none" placeholder:"ORIGIN" help:"Origin whose pages may call over --web-listen, for example https://www.example.com; repeatable. Default: none."`
	Cert      string   `name:"web-cert" placeholder:"FILE" help:"PEM file of the certificate for --web-listen, followed by its chain. It is reloaded: see --reload-every. Default: none, no TLS."`
	Key       string   `name:"web-key" placeholder:"FILE" help:"PEM file of the key of --web-cert."`
	Plaintext bool     `name:"web-plaintext" help:"Serve browsers without TLS on an address that is not loopback. Requires a proxy in front that adds TLS."`
	Agents    bool     `name:"web-agents" help:"Accept lp-agent-token from browsers too. An agent's token gives access to the conversations of many consumers."`
	Memory    byteSize `name:"web-memory" default:"128MiB" placeholder:"SIZE" help:"Memory for requests of browsers that are being received and translated (${default})."`
}

// Validate checks the address, the origins and the TLS flags. The files are checked when they are read.
func (f *webFlags) Validate() error {
	var errs []error
	if (f.Cert == "") != (f.Key == "") {
		errs = append(errs, errors.New("--web-cert and --web-key belong together; give both or neither"))
	}
	for _, origin := range f.Origins {
		if err := web.CheckOrigin(origin); err != nil {
			errs = append(errs, fmt.Errorf("--web-origin: %w", err))
		}
	}
	if least := byteSize(web.MinMemory(service.MaxRecvMessageBytes)); f.Memory < least {
		errs = append(errs, fmt.Errorf("--web-memory is %d, which is too small for the largest request; set it to at least %d", f.Memory, least))
	}
	if f.Listen == "" {
		if f.Cert != "" || len(f.Origins) > 0 || f.Agents {
			errs = append(errs, errors.New("a flag for browsers is set, but none are served; add --web-listen, or leave the --web-... flags out"))
		}
		return errors.Join(errs...)
	}
	if host, _, err := net.SplitHostPort(f.Listen); err != nil {
		errs = append(errs, fmt.Errorf("--web-listen %q is not an address; give HOST:PORT, for example 0.0.0.0:8443", f.Listen))
	} else if !netrules.IsLoopback(host) && f.Cert == "" && !f.Plaintext {
		errs = append(errs, fmt.Errorf("--web-listen %s is not loopback, so tokens would be sent unencrypted; set --web-cert and --web-key, or "+
			"--web-plaintext if a proxy in front adds TLS", f.Listen))
	}
	if len(f.Origins) == 0 {
		errs = append(errs, errors.New("--web-listen serves no page without --web-origin; name the origins of your pages"))
	}
	return errors.Join(errs...)
}

// budget returns the memory for requests of browsers: none if they are not served.
func (f *webFlags) budget() int64 {
	if f.Listen == "" {
		return 0
	}
	return int64(f.Memory)
}

// onLoopback reports whether browsers reach the server by a name of this machine: not through a proxy, nor with a certificate.
func (f *webFlags) onLoopback() bool {
	host, _, err := net.SplitHostPort(f.Listen)
	return err == nil && netrules.IsLoopback(host) && f.Cert == "" && !f.Plaintext
}

// newWebHandler returns what serves the calls of browsers; agents: with tokens of agents too. The caller closes it, when its calls have ended.
func newWebHandler(f *flags, server *grpc.Server, pipe *web.Pipe, allowOrigin func(*http.Request) bool, loopback, agents bool) (*web.Handler, error) {
	c := web.Config{
		Pipe: pipe, AllowOrigin: allowOrigin, LoopbackHost: loopback,
		IdentityHeaders: []string{string(share.ConsumerToken)}, ResponseHeaders: []string{service.RequestIDHeader},
		Refused: map[string]*share.Error{string(share.ExternalConsumerID): share.Reject(share.CallerNotAuthenticated,
			"browsers do not authenticate the caller, so lp-external-consumer-id is not accepted; use lp-consumer-token")},
		MaxMessageBytes: service.MaxRecvMessageBytes, Memory: int64(f.Web.Memory),
		RequestTimeout: f.Limits.UploadIdleTimeout, ReadStall: f.Limits.ReadStall,
		TooLarge: webTooLarge, Status: service.StatusOf,
	}
	if agents {
		c.IdentityHeaders = append(c.IdentityHeaders, string(share.AgentToken))
	} else {
		c.Refused[string(share.AgentToken)] = share.Reject(share.TokenInvalid,
			"agent tokens are not accepted from browsers; use lp-consumer-token, or set --web-agents")
	}
	for name := range server.GetServiceInfo() {
		if strings.HasPrefix(name, "lpfileshare.v1.") { // not reflection and health
			c.Services = append(c.Services, name)
		}
	}
	return web.New(c)
}

// webTooLarge returns the error of a request that is too large for any message.
func webTooLarge(method string, bytes int64) *share.Error {
	if method != lpfilesharev1.FileSharingService_UploadSmallFile_FullMethodName {
		return nil
	}
	return share.Reject(share.FileTooLarge, "the request is %d bytes, and the limit of a file is %d; send a smaller file", bytes, service.MaxSmallFileBytes).
		With("maxBytes", share.Itoa(service.MaxSmallFileBytes), "actualBytes", share.Itoa(bytes))
}

// A webServer serves browsers on --web-listen.
type webServer struct {
	flags    *webFlags
	cert     servedCert
	listener net.Listener
	handler  *web.Handler
	http     *http.Server
	ended    chan struct{}
}

// startWeb listens, and serves until close. It returns nil without --web-listen. connections limits what it accepts, and belongs to this
// server only.
func startWeb(f *flags, server *grpc.Server, pipe *web.Pipe, connections *connlimit.Limiter, reloads *reloader, log *slog.Logger) (_ *webServer, err error) {
	if f.Web.Listen == "" {
		return nil, nil
	}
	s := &webServer{flags: &f.Web, ended: make(chan struct{}), cert: servedCert{of: "web", cert: f.Web.Cert, key: f.Web.Key}}
	if f.Web.Cert != "" {
		reloads.add("web-cert", files(f.Web.Cert, f.Web.Key), func() error { return s.cert.reload(log) })
		if err := s.cert.load(); err != nil {
			return nil, err
		}
	}
	if s.handler, err = newWebHandler(f, server, pipe, web.Origins(f.Web.Origins), f.Web.onLoopback(), f.Web.Agents); err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", f.Web.Listen)
	if err != nil {
		return nil, fmt.Errorf("--web-listen: %w", err)
	}
	s.listener = connections.Listener(listener)
	s.http = &http.Server{
		Handler: s.handler, ConnState: connections.ConnState, ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		MaxHeaderBytes: 16 << 10, ReadHeaderTimeout: 5 * time.Second, IdleTimeout: 2 * time.Minute,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: 100, SendPingTimeout: 30 * time.Second, PingTimeout: 10 * time.Second, WriteByteTimeout: f.Limits.ReadStall,
			MaxReceiveBufferPerStream: 256 << 10, MaxReceiveBufferPerConnection: 1 << 20,
		},
	}
	serve := s.http.Serve
	if f.Web.Cert != "" {
		s.http.TLSConfig = s.cert.config()
		serve = func(l net.Listener) error { return s.http.ServeTLS(l, "", "") }
	}
	go func() {
		defer close(s.ended)
		if err := serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("web server failed", "error", err)
		}
	}()
	return s, nil
}

// webAnswers is how long responses may take to reach browsers when the gRPC server has ended all calls.
const webAnswers = time.Second

// drain accepts no further connections, and returns a function that waits for the running calls, once the gRPC server has ended them.
func (s *webServer) drain() (wait func()) {
	if s == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	idle := make(chan struct{})
	go func() {
		defer close(idle)
		_ = s.http.Shutdown(ctx)
	}()
	return func() {
		timer := time.AfterFunc(webAnswers, cancel)
		<-idle
		timer.Stop()
		cancel()
	}
}

// close ends the server. Calls that still run are cut.
func (s *webServer) close() {
	if s != nil {
		s.http.Close()
		<-s.ended
		s.handler.Close()
	}
}
