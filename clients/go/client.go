package lpfileshare

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	_ "google.golang.org/grpc/health" // lets the connection follow the server's health: see serviceConfig
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/netrules"
)

// serviceConfig is how calls wait and repeat by default. A method's entry replaces its service's whole entry.
//
// Upload and Download have no retryPolicy: gRPC would replay the stream behind the caller's back and without regard to
// RetryInfo, and Upload and Download here repeat by themselves. Signing in has none either, because signing in twice is
// not signing in once. Everything else is repeatable, with a request id where it changes something.
const serviceConfig = `{
 "loadBalancingConfig": [{"round_robin": {}}],
 "healthCheckConfig": {"serviceName": "lpfileshare.v1.FileSharingService"},
 "retryThrottling": {"maxTokens": 100, "tokenRatio": 0.1},
 "methodConfig": [
  {"name": [{"service": "lpfileshare.v1.FileSharingService"}, {"service": "lpfileshare.v1.ConversationService"},
            {"service": "lpfileshare.v1.AccountService"}, {"service": "lpfileshare.v1.IdentityService", "method": "SignOutAgent"}],
   "timeout": "15s", "waitForReady": true,
   "retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.2s", "maxBackoff": "5s", "backoffMultiplier": 2,
                   "retryableStatusCodes": ["UNAVAILABLE"]}},
  {"name": [{"service": "lpfileshare.v1.IdentityService"}], "timeout": "30s", "waitForReady": true},
  {"name": [{"service": "lpfileshare.v1.FileSharingService", "method": "Upload"}],
   "timeout": "600s", "waitForReady": true, "maxRequestMessageBytes": 1114112},
  {"name": [{"service": "lpfileshare.v1.FileSharingService", "method": "Download"}], "timeout": "600s", "waitForReady": true},
  {"name": [{"service": "lpfileshare.v1.FileSharingService", "method": "WatchFiles"}], "waitForReady": true}
 ]}`

// A Client is a connection to an lpfileshare server, and the identity that its calls carry.
type Client struct {
	conn *grpc.ClientConn
	dial []grpc.DialOption // how conn was made
	ids  identityConn      // conn, with the identity put on calls

	rawFiles pb.FileSharingServiceClient // without identity: streams put theirs on themselves, to know which token was refused
	files    pb.FileSharingServiceClient
	convs    pb.ConversationServiceClient
	identity pb.IdentityServiceClient
	accounts pb.AccountServiceClient
}

// An Option changes how Dial connects.
type Option func(*settings) error

type settings struct {
	tls       *tls.Config
	plaintext bool
	userAgent string
	identity  Identity
	dial      []grpc.DialOption
}

// WithTLS connects by TLS with a configuration of the caller's, for example with a private authority or a client certificate.
func WithTLS(config *tls.Config) Option {
	return func(s *settings) error {
		if config == nil {
			return errors.New("WithTLS needs a configuration")
		}
		s.tls = config.Clone()
		return nil
	}
}

// WithPlaintext connects without TLS to whatever target. Tokens and files then cross the network readable by anybody on the
// way: only for networks that are protected otherwise, such as a mesh.
func WithPlaintext() Option {
	return func(s *settings) error { s.plaintext = true; return nil }
}

// WithUserAgent puts a program's name and version before this package's own in the user agent.
func WithUserAgent(agent string) Option {
	return func(s *settings) error { s.userAgent = agent; return nil }
}

// WithDialOptions adds gRPC's own options, after those that Dial sets.
func WithDialOptions(options ...grpc.DialOption) Option {
	return func(s *settings) error { s.dial = append(s.dial, options...); return nil }
}

// WithConsumerToken makes calls carry a consumer's token.
func WithConsumerToken(source TokenSource) Option { return withIdentity(ConsumerToken(source)) }

// WithAgentToken makes calls carry an agent's token.
func WithAgentToken(source TokenSource) Option { return withIdentity(AgentToken(source)) }

// WithExternalConsumerID makes calls carry a consumer's id: see [ExternalConsumerID].
func WithExternalConsumerID(id string) Option { return withIdentity(ExternalConsumerID(id)) }

func withIdentity(id Identity) Option {
	return func(s *settings) error {
		if s.identity.key != "" {
			return fmt.Errorf("two identities: %s and %s; a call carries exactly one", s.identity.key, id.key)
		}
		s.identity = id
		return nil
	}
}

// Dial makes a client for target, a gRPC name such as "files.example.com:443" or "dns:///files.example.com:443", or several servers
// that share their ledger, "files-1.example.com:443,files-2.example.com:443". It does not connect yet: see [Client.Connect].
//
// Where there are several servers, by a list or by a name with several addresses, calls go to them in turn, and past those that
// cannot be reached, go down or are not well. An upload that breaks off goes on, from its first byte, at the next one, under the
// same request id; a server that falls silent is given up after at most 40 seconds.
//
// The connection is TLS with the system's authorities, except to loopback addresses and Unix sockets, where it is plaintext;
// WithTLS and WithPlaintext say otherwise. The caller closes the client.
func Dial(target string, options ...Option) (*Client, error) {
	var s settings
	for _, o := range options {
		if err := o(&s); err != nil {
			return nil, fmt.Errorf("dial %s: %w", target, err)
		}
	}
	if s.tls != nil && s.plaintext {
		return nil, fmt.Errorf("dial %s: WithTLS and WithPlaintext exclude each other", target)
	}
	servers, err := parseTargets(target)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", target, err)
	}
	dial := append([]grpc.DialOption{
		grpc.WithTransportCredentials(s.credentials(target)),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithUserAgent(strings.TrimSpace(s.userAgent + " lpfileshare-go/" + version())),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
	}, s.dial...)
	name := target
	if servers != nil {
		dial, name = append(dial, grpc.WithResolvers(servers)), listScheme+":///"+strings.ReplaceAll(target, " ", "")
	}
	conn, err := grpc.NewClient(name, dial...)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", target, err)
	}
	return newClient(conn, dial, s.identity), nil
}

func (s *settings) credentials(target string) credentials.TransportCredentials {
	switch {
	case s.tls != nil:
		return credentials.NewTLS(s.tls)
	case s.plaintext || IsLoopback(target):
		return insecure.NewCredentials()
	default:
		return credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12})
	}
}

func newClient(conn *grpc.ClientConn, dial []grpc.DialOption, id Identity) *Client {
	ids := identityConn{conn: conn, id: id}
	c := &Client{
		conn: conn, dial: dial, ids: ids,
		rawFiles: pb.NewFileSharingServiceClient(conn),
		files:    pb.NewFileSharingServiceClient(ids),
		convs:    pb.NewConversationServiceClient(ids),
		identity: pb.NewIdentityServiceClient(ids),
		accounts: pb.NewAccountServiceClient(ids),
	}
	if b, ok := id.source.(interface {
		bind(pb.IdentityServiceClient)
	}); ok {
		b.bind(c.identity)
	}
	return c
}

// As gives a client with another identity over the same connection. Closing either closes both.
func (c *Client) As(id Identity) *Client { return newClient(c.conn, c.dial, id) }

// Close ends the connection and every call on it.
func (c *Client) Close() error { return c.conn.Close() }

// Files is the generated client of FileSharingService, with this client's identity on each call.
func (c *Client) Files() pb.FileSharingServiceClient { return c.files }

// Conversations is the generated client of ConversationService, with this client's identity on each call and a request id
// wherever the caller gives none.
func (c *Client) Conversations() pb.ConversationServiceClient { return c.convs }

// Identity is the generated client of IdentityService. Its calls carry no identity, but for SignOutAgent.
func (c *Client) Identity() pb.IdentityServiceClient { return c.identity }

// Accounts is the generated client of AccountService, with this client's identity on each call.
func (c *Client) Accounts() pb.AccountServiceClient { return c.accounts }

// Connect reaches the server, and fails as soon as it is known that it cannot be reached. Calls connect by themselves, but
// wait for a server that may come up; Connect is for programs that had rather say so at once.
func (c *Client) Connect(ctx context.Context) error {
	_, err := healthpb.NewHealthClient(c.conn).Check(ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(false))
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return newError("connect to "+strings.TrimPrefix(c.conn.Target(), listScheme+":///"), err)
	default: // an answer of whatever kind: the server is there
		return nil
	}
}

// Health asks for the server's health; "" is the server as a whole. It does so over a connection of its own, since calls on
// the client's go only to a server that says that it is well.
func (c *Client) Health(ctx context.Context, service string) (healthpb.HealthCheckResponse_ServingStatus, error) {
	const op = "ask for health"
	conn, err := grpc.NewClient(c.conn.Target(), append(slices.Clone(c.dial), grpc.WithDisableHealthCheck())...)
	if err != nil {
		return healthpb.HealthCheckResponse_UNKNOWN, fmt.Errorf("%s: %w", op, err)
	}
	defer conn.Close()
	r, err := healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{Service: service}, grpc.WaitForReady(false))
	if err != nil {
		return healthpb.HealthCheckResponse_UNKNOWN, newError(op, err)
	}
	return r.GetStatus(), nil
}

// IsLoopback says whether a target is on this machine by its name alone: a loopback address, "localhost" or a Unix socket.
// Only there does Dial leave TLS out by itself. Of several targets all must be.
func IsLoopback(target string) bool {
	if first, others, several := strings.Cut(target, ","); several {
		return IsLoopback(first) && IsLoopback(others)
	}
	target = strings.TrimSpace(target)
	if strings.HasPrefix(target, "unix:") || strings.HasPrefix(target, "unix-abstract:") {
		return true
	}
	for _, scheme := range []string{"dns:", "passthrough:"} {
		if rest, ok := strings.CutPrefix(target, scheme); ok {
			target = strings.TrimPrefix(rest, "///")
			break
		}
	}
	host, _, err := net.SplitHostPort(target)
	if err != nil {
		host = strings.Trim(target, "[]")
	}
	return netrules.IsLoopback(host)
}

// version is this module's version, as the program that uses it was built with.
func version() string {
	const path = "github.com/lpfileshare/lpfileshare"
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	for _, m := range append(info.Deps, &info.Main) {
		if m.Path == path && m.Version != "" {
			return strings.Trim(m.Version, "()")
		}
	}
	return "devel"
}
