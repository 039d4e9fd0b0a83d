package ledger

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ParseServers reads a list of NATS URLs, separated by commas: nats://host:4222, or tls:// to demand TLS. What is in them is not
// repeated in errors, since it could be a password.
func ParseServers(list string) ([]string, error) {
	var servers []string
	for i, s := range strings.Split(list, ",") {
		u, err := url.Parse(strings.TrimSpace(s))
		switch {
		case err != nil || u.Scheme != "nats" && u.Scheme != "tls" || u.Hostname() == "":
			return nil, fmt.Errorf("server %d is no NATS URL; give nats://HOST:4222 or tls://HOST:4222, separated by commas", i+1)
		case u.User != nil:
			return nil, fmt.Errorf("the URL of server %d has a user in it, which everybody can see; give --ledger-creds FILE, or --ledger-user and --ledger-password-file", i+1)
		case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "":
			return nil, fmt.Errorf("the URL of server %d has something behind the port; give nats://HOST:4222 or tls://HOST:4222", i+1)
		case u.Port() == "":
			u.Host = net.JoinHostPort(u.Hostname(), "4222")
		}
		servers = append(servers, u.Scheme+"://"+u.Host)
	}
	return servers, nil
}

// connect reaches NATS, trying until ctx ends. Once connected, the connection comes back by itself for ever.
func (l *KV) connect(ctx context.Context, c Config) error {
	opts := []nats.Option{
		nats.Name("lpfileshare"),
		nats.MaxReconnects(-1),
		// Nothing is kept for later while there is no connection: a write that its caller has given up must not come then.
		nats.ReconnectBufSize(-1),
		nats.CustomReconnectDelay(func(tries int) time.Duration { return min(50*time.Millisecond<<min(tries, 10), 2*time.Second) }),
		// A server that is gone without a word is noticed within some six seconds.
		nats.PingInterval(2 * time.Second), nats.MaxPingsOutstanding(2),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			l.log.Debug("the ledger's connection", "error", err)
		}),
		nats.ClosedHandler(func(*nats.Conn) { close(l.closed) }),
	}
	if l.own != nil {
		opts = append(opts, nats.InProcessServer(l.own.server))
	} else {
		opts = append(opts,
			nats.Timeout(min(2*time.Second, c.StartTimeout/time.Duration(len(c.Servers)))),
			nats.IgnoreAuthErrorAbort(), // a cluster whose accounts are being changed is not to be given up
			nats.DisconnectErrHandler(func(_ *nats.Conn, err error) {
				if err != nil { // else we closed it
					l.log.Warn("the ledger's connection was lost", "error", err)
				}
			}),
			nats.ReconnectHandler(func(conn *nats.Conn) { l.log.Info("the ledger is connected again", "to", conn.ConnectedAddr()) }),
		)
	}
	if c.TLS != nil {
		opts = append(opts, nats.Secure(c.TLS))
	}
	if c.CredsFile != "" {
		opts = append(opts, nats.UserCredentials(c.CredsFile))
	}
	if c.User != "" {
		opts = append(opts, nats.UserInfo(c.User, c.Password))
	}
	for {
		conn, err := nats.Connect(strings.Join(c.Servers, ","), opts...)
		if err == nil {
			l.conn = conn
			return nil
		}
		if hopeless(err) || !pause(ctx) {
			return fmt.Errorf("the ledger at %s cannot be reached: %w", strings.Join(c.Servers, ","), explain(err))
		}
	}
}

var errStorage = errors.New("it is there, but not with file storage; remove it (the request ids in it are then forgotten)")

// hopeless tells that waiting does not help.
func hopeless(err error) bool {
	for _, e := range []error{
		nats.ErrAuthorization, nats.ErrAuthExpired, nats.ErrAccountAuthExpired, nats.ErrSecureConnRequired, nats.ErrSecureConnWanted,
		nats.ErrPermissionViolation, jetstream.ErrJetStreamNotEnabled, jetstream.ErrJetStreamNotEnabledForAccount, errStorage,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	e, ok := errors.AsType[*jetstream.APIError](err)
	return ok && e.ErrorCode == replicasAlone
}

// replicasAlone is NATS's code for several replicas where there is one server.
const replicasAlone jetstream.ErrorCode = 10074

// explain adds what to do.
func explain(err error) error {
	for _, c := range []struct {
		is   error
		todo string
	}{
		{nats.ErrAuthorization, "check --ledger-creds, or --ledger-user and --ledger-password-file"},
		{nats.ErrSecureConnRequired, "the server wants TLS: say tls:// and, if need be, --ledger-ca"},
		{nats.ErrSecureConnWanted, "the server has no TLS: say nats://"},
		{nats.ErrNoServers, "start it, or correct --ledger"},
		{nats.ErrNoResponders, "JetStream must be switched on in the NATS servers, and a majority of them be there"},
		{context.DeadlineExceeded, "a majority of the NATS servers must be there"},
		{jetstream.ErrJetStreamNotEnabled, "switch JetStream on in the NATS servers"},
		{jetstream.ErrJetStreamNotEnabledForAccount, "switch JetStream on for this NATS account"},
	} {
		if errors.Is(err, c.is) {
			return fmt.Errorf("%w; %s", err, c.todo)
		}
	}
	if e, ok := errors.AsType[*jetstream.APIError](err); ok {
		return fmt.Errorf("%w; --ledger-replicas and --ledger-bytes must fit what the cluster and the account allow", e)
	}
	return err
}
