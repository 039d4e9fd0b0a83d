package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/audit"
	"github.com/lpfileshare/lpfileshare/internal/buildinfo"
	"github.com/lpfileshare/lpfileshare/internal/callers"
	"github.com/lpfileshare/lpfileshare/internal/policy"
)

// auditFlags say where the audit stream is written.
type auditFlags struct {
	To      string `name:"audit" placeholder:"FILE" help:"File to append one line of JSON to for each call, or stderr. SIGHUP opens the file again. Default: none."`
	Full    string `name:"audit-full" enum:"refuse,continue" default:"refuse" help:"What to do while the audit stream cannot be written: refuse calls with SERVER_DRAINING, or continue and count lost lines (${default})."`
	KeyFile string `placeholder:"FILE" name:"audit-key-file" help:"File with a key, 64 hex digits, whose HMAC replaces consumers, agents, conversations and files in the audit stream. Default: none, they are written as they are."`
}

// auditStderr is the value of --audit for the stream that the log is written to.
const auditStderr = "stderr"

// Validate checks which of the flags are set. The files are checked when they are opened.
func (f *auditFlags) Validate() error {
	if f.To == "" && f.KeyFile != "" {
		return errors.New("--audit-key-file requires an audit stream; add --audit")
	}
	return nil
}

// path returns the file of the stream; empty if there is none.
func (f *auditFlags) path() string {
	if f.To == auditStderr {
		return ""
	}
	return f.To
}

// openAudit opens the audit stream. It returns nil without --audit. The caller must close it.
func openAudit(f *flags, stderr io.Writer, log *slog.Logger) (*audit.Log, error) {
	if f.Audit.To == "" {
		return nil, nil
	}
	var key []byte
	if f.Audit.KeyFile != "" {
		read, err := readHexKey("--audit-key-file", f.Audit.KeyFile)
		if err != nil {
			return nil, err
		}
		key = read[:]
	}
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	trail, err := audit.Open(audit.Config{
		Path: f.Audit.path(), Out: stderr, Refuse: f.Audit.Full == "refuse", Key: key,
		Server: host, Version: buildinfo.Version(), Caller: callers.Of, Log: log,
	})
	if err != nil {
		return nil, fmt.Errorf("--audit: %w", err)
	}
	return trail, nil
}

// unseenCalls returns what service.RequestTimeout calls for calls that ended before an interceptor saw them; nil without a stream.
func unseenCalls(trail *audit.Log) func(ctx context.Context, method string, exceeded bool) {
	if trail == nil {
		return nil
	}
	names := map[string]string{} // of the contract's methods, by their full names
	for _, service := range []grpc.ServiceDesc{
		lpfilesharev1.FileSharingService_ServiceDesc, lpfilesharev1.ConversationService_ServiceDesc,
		lpfilesharev1.IdentityService_ServiceDesc, lpfilesharev1.AccountService_ServiceDesc,
	} {
		short := service.ServiceName[len("lpfileshare.v1."):] + "/"
		for _, method := range service.Methods {
			names["/"+service.ServiceName+"/"+method.MethodName] = short + method.MethodName
		}
		for _, stream := range service.Streams {
			names["/"+service.ServiceName+"/"+stream.StreamName] = short + stream.StreamName
		}
	}
	return func(ctx context.Context, method string, exceeded bool) {
		name, ok := names[method]
		if !ok { // of another service, or of none
			return
		}
		address := ""
		if p, ok := peer.FromContext(ctx); ok {
			address = p.Addr.String()
		}
		trail.Unseen(ctx, name, address, exceeded)
	}
}

// auditedHandshakes are credentials whose failed handshakes are audited.
type auditedHandshakes struct {
	credentials.TransportCredentials
	trail *audit.Log
}

// ServerHandshake implements credentials.TransportCredentials. A client that closes the connection without a word, such as a probe of a
// load balancer, was not denied.
func (c auditedHandshakes) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.TransportCredentials.ServerHandshake(raw)
	if err != nil && !errors.Is(err, io.EOF) {
		c.trail.HandshakeDenied(raw.RemoteAddr().String(), err)
	}
	return conn, info, err
}

// Clone implements credentials.TransportCredentials.
func (c auditedHandshakes) Clone() credentials.TransportCredentials {
	return auditedHandshakes{c.TransportCredentials.Clone(), c.trail}
}

// auditRequests audits the requests to a listener for operators, except probes: they say nothing of anybody.
func auditRequests(trail *audit.Log, listener string, next http.Handler) http.Handler {
	if trail == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/livez" || r.URL.Path == "/readyz" {
			next.ServeHTTP(w, r)
			return
		}
		begun, answer := time.Now(), &statusWriter{ResponseWriter: w, status: http.StatusOK}
		var caller policy.Name
		if r.TLS != nil && len(r.TLS.VerifiedChains) > 0 {
			caller = policy.NameOf(r.TLS.VerifiedChains[0][0])
		}
		defer func() {
			trail.Requested(listener, r.RemoteAddr, caller, r.Method, r.URL.Path, answer.status, time.Since(begun))
		}()
		next.ServeHTTP(answer, r)
	})
}

// statusWriter remembers the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap returns the writer for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
