package ledger

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ParseServers parses a comma-separated list of NATS URLs: nats://host:4222, or tls:// to require TLS. Its errors do not quote the
// URLs, which might contain a password.
func ParseServers(list string) ([]string, error) {
	var servers []string
	for i, s := range strings.Split(list, ",") {
		u, err := url.Parse(strings.TrimSpace(s))
		switch {
		case err != nil || u.Scheme != "nats" && u.Scheme != "tls" || u.Hostname() == "":
			return nil, fmt.Errorf("server %d is not a NATS URL; use nats://HOST:4222 or tls://HOST:4222, separated by commas", i+1)
		case u.User != nil:
			return nil, fmt.Errorf("the URL of server %d contains a user, which is visible in the process list; use --ledger-creds FILE, or --ledger-user and --ledger-password-file", i+1)
		case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
			return nil, fmt.Errorf("the URL of server %d has a path, query or fragment; use nats://HOST:4222 or tls://HOST:4222", i+1)
		case u.Port() == "":
			u.Host = net.JoinHostPort(u.Hostname(), "4222")
		}
		servers = append(servers, u.Scheme+"://"+u.Host)
	}
	return servers, nil
}

// connect connects to NATS, and repeats until ctx ends. An established connection is restored automatically.
func (l *KV) connect(ctx context.Context, c Config) error {
	opts := []nats.Option{
		nats.Name("lpfileshare"),
		nats.MaxReconnects(-1),
		// Nothing is buffered without a connection: a write must not be sent after its caller has given up.
		nats.ReconnectBufSize(-1),
		nats.CustomReconnectDelay(func(attempts int) time.Duration {
			if l.own != nil {
				return 100 * time.Millisecond // nothing but a pipe in this process
			}
			return min(50*time.Millisecond<<min(attempts, 10), 2*time.Second)
		}),
		// A server that no longer answers is detected after about six seconds.
		nats.PingInterval(2 * time.Second), nats.MaxPingsOutstanding(2),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			l.log.Debug("ledger connection", "error", err)
		}),
		nats.ClosedHandler(func(*nats.Conn) { close(l.closed) }),
	}
	if l.own != nil {
		// A pipe in this process has no network that could block a write, so writes need no timers.
		opts = append(opts, nats.InProcessServer(l.own), nats.FlusherTimeout(0))
	} else {
		opts = append(opts,
			nats.Timeout(min(2*time.Second, c.StartTimeout/time.Duration(len(c.Servers)))),
			nats.IgnoreAuthErrorAbort(), // the accounts of a cluster may be under change
			nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
				if err != nil { // nil: closed by this process
					l.log.Warn("the connection to the ledger was lost", "error", err)
				}
			}),
			nats.ReconnectHandler(func(conn *nats.Conn) {
				l.log.Info("the connection to the ledger was restored", "server", conn.ConnectedAddr())
			}),
		)
	}
	if c.RootCAs != nil || c.Certificate != nil {
		opts = append(opts, nats.Secure(&tls.Config{MinVersion: tls.VersionTLS12}), nats.ClientTLSConfig(c.Certificate, c.RootCAs))
	}
	if c.CredsFile != "" {
		opts = append(opts, nats.UserCredentials(c.CredsFile))
	}
	if c.User != "" {
		opts = append(opts, nats.UserInfoHandler(func() (string, string) {
			password, err := c.Password()
			if err != nil {
				l.log.Error("the ledger's password cannot be read", "error", err)
			}
			return c.User, password
		}))
	}
	for {
		conn, err := nats.Connect(strings.Join(c.Servers, ","), opts...)
		if err == nil {
			l.conn = conn
			return nil
		}
		if permanent(err) || !pause(ctx) {
			return fmt.Errorf("the ledger at %s cannot be reached: %w", strings.Join(c.Servers, ","), explain(err))
		}
	}
}

var errStorage = errors.New("it exists, but without file storage; delete it (its request ids are then forgotten)")

// permanent reports whether repeating cannot help.
func permanent(err error) bool {
	for _, e := range []error{
		nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAccountAuthExpired, nats.ErrSecureConnRequired, nats.ErrSecureConnWanted,
		nats.ErrPermissionViolation, errLost, jetstream.ErrJetStreamNotEnabled, jetstream.ErrJetStreamNotEnabledForAccount, errStorage,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	e, ok := errors.AsType[*jetstream.APIError](err)
	return ok && e.ErrorCode == jetstream.ErrorCode(server.JSStreamReplicasNotSupportedErr) // several replicas on a single server
}

// explain adds the remedy to an error.
func explain(err error) error {
	for _, c := range []struct {
		is  error
		fix string
	}{
		{nats.ErrAuthorization, "check --ledger-creds, or --ledger-user and --ledger-password-file"},
		{nats.ErrSecureConnRequired, "the server requires TLS: use tls:// and, if needed, --ledger-ca"},
		{nats.ErrSecureConnWanted, "the server has no TLS: use nats://"},
		{nats.ErrNoServers, "start it, or correct --ledger"},
		{nats.ErrNoResponders, "enable JetStream in the NATS servers, and start a majority of them"},
		{context.DeadlineExceeded, "start a majority of the NATS servers, and check their disks"},
		{jetstream.ErrJetStreamNotEnabled, "enable JetStream in the NATS servers"},
		{jetstream.ErrJetStreamNotEnabledForAccount, "enable JetStream for this NATS account"},
	} {
		if errors.Is(err, c.is) {
			return fmt.Errorf("%w; %s", err, c.fix)
		}
	}
	if e, ok := errors.AsType[*jetstream.APIError](err); ok {
		if e.ErrorCode == jetstream.ErrorCode(server.JSStreamStoreFailedF) {
			return fmt.Errorf("%w; check the disks of the NATS servers", e)
		}
		return fmt.Errorf("%w; choose --ledger-replicas and --ledger-bytes within the limits of the cluster and the account", e)
	}
	return err
}
