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
	"sync/atomic"
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

// serviceConfig has the timeouts of single attempts, and makes calls wait for a connection. A method's entry replaces the whole
// entry of its service. There is no retryPolicy: see identityConn.Invoke and the pacer.
//
// The health of "" is that of the server as a whole, which accepts calls until it drains. That of FileSharingService also ends while
// the ledger cannot be used, but then only uploads fail, and say why.
const serviceConfig = `{
 "loadBalancingConfig": [{"round_robin": {}}],
 "healthCheckConfig": {"serviceName": ""},
 "methodConfig": [
  {"name": [{"service": "lpfileshare.v1.FileSharingService"}, {"service": "lpfileshare.v1.ConversationService"},
            {"service": "lpfileshare.v1.AccountService"}, {"service": "lpfileshare.v1.IdentityService", "method": "SignOutAgent"}],
   "timeout": "15s", "waitForReady": true},
  {"name": [{"service": "lpfileshare.v1.IdentityService"}], "timeout": "30s", "waitForReady": true},
  {"name": [{"service": "lpfileshare.v1.FileSharingService", "method": "PublishUpload"}], "timeout": "60s", "waitForReady": true},
  {"name": [{"service": "lpfileshare.v1.FileSharingService", "method": "UploadSmallFile"}], "timeout": "600s", "waitForReady": true},
  {"name": [{"service": "lpfileshare.v1.FileSharingService", "method": "Upload"}],
   "timeout": "600s", "waitForReady": true, "maxRequestMessageBytes": 1114112},
  {"name": [{"service": "lpfileshare.v1.FileSharingService", "method": "Download"}], "timeout": "600s", "waitForReady": true},
  {"name": [{"service": "lpfileshare.v1.FileSharingService", "method": "WatchFiles"}], "waitForReady": true}
 ]}`

// A Client is a connection to an lpfileshare server, or to several, with the identity that its calls carry.
type Client struct {
	conn    *grpc.ClientConn
	dial    []grpc.DialOption // the options that conn was created with
	id      Identity
	account string // id, or empty
	// certificateAsked reports that a server asked for a client certificate and got none, since Connect last succeeded.
	certificateAsked *atomic.Bool

	raw     Stubs
	streams pb.FileSharingServiceClient // without identity: streams add theirs themselves, because they need the token to renew it
}

// Stubs are the generated clients. Their calls carry the identity of the Client. Unary calls follow the retry rule and return
// [*Error]; streaming calls return the plain gRPC status.
type Stubs struct {
	// Files is the client of FileSharingService.
	Files pb.FileSharingServiceClient
	// Conversations is the client of ConversationService.
	Conversations pb.ConversationServiceClient
	// Identity is the client of IdentityService. Of its calls only SignOutAgent carries an identity.
	Identity pb.IdentityServiceClient
	// Accounts is the client of AccountService.
	Accounts pb.AccountServiceClient
}

// An Option changes how Dial connects.
type Option func(*settings) error

type settings struct {
	tls       *tls.Config
	plaintext bool
	userAgent string
	identity  Identity
	bearer    *hiddenSource // nil: none
	account   string
	dial      []grpc.DialOption
}

// WithTLS connects over TLS with the given configuration, for example with a private certificate authority or a client certificate.
func WithTLS(config *tls.Config) Option {
	return func(s *settings) error {
		if config == nil {
			return errors.New("WithTLS: the configuration is nil")
		}
		s.tls = config.Clone()
		return nil
	}
}

// WithPlaintext connects without TLS to any target. Tokens and files are then readable on the network: use it only if something
// else protects the connection, for example a service mesh.
func WithPlaintext() Option {
	return func(s *settings) error { s.plaintext = true; return nil }
}

// WithUserAgent adds the name and version of a program to the user agent, before those of this package.
func WithUserAgent(agent string) Option {
	return func(s *settings) error { s.userAgent = agent; return nil }
}

// WithDialOptions adds options of gRPC after those that Dial sets.
func WithDialOptions(options ...grpc.DialOption) Option {
	return func(s *settings) error { s.dial = append(s.dial, options...); return nil }
}

// WithConsumerToken sets the identity to [ConsumerToken].
func WithConsumerToken(source TokenSource) Option { return withIdentity(ConsumerToken(source)) }

// WithAgentToken sets the identity to [AgentToken].
func WithAgentToken(source TokenSource) Option { return withIdentity(AgentToken(source)) }

// WithExternalConsumerID sets the identity to [ExternalConsumerID].
func WithExternalConsumerID(id string) Option { return withIdentity(ExternalConsumerID(id)) }

// WithAccount sets the account of requests that do not name one: see [Client.Account].
func WithAccount(id string) Option {
	return func(s *settings) error { s.account = id; return nil }
}

func withIdentity(id Identity) Option {
	return func(s *settings) error {
		if s.identity.key != "" {
			return fmt.Errorf("two identities, %s and %s; a call carries exactly one", s.identity.key, id.key)
		}
		s.identity = id
		return nil
	}
}

// Dial returns a client for target: a gRPC name such as "files.example.com:443" or "dns:///files.example.com:443", or several servers
// that share a ledger, "files-1.example.com:443,files-2.example.com:443". It does not connect yet; see [Client.Connect].
//
// If there are several servers, by a list or by a name with several addresses, calls are distributed over those that are reachable
// and healthy. An upload that is interrupted is repeated on the next one under the same request id. A server that stops responding
// is given up after at most 40 seconds.
//
// The connection uses TLS with the system's certificate authorities. To loopback addresses and Unix sockets it is plaintext.
// WithTLS and WithPlaintext change that. The caller must close the client.
func Dial(target string, options ...Option) (*Client, error) {
	var s settings
	if err := s.apply(options); err != nil {
		return nil, fmt.Errorf("dial %s: %w", target, err)
	}
	return s.dialTarget(target)
}

func (s *settings) apply(options []Option) error {
	for _, o := range options {
		if err := o(s); err != nil {
			return err
		}
	}
	return nil
}

func (s *settings) dialTarget(target string) (*Client, error) {
	if s.tls != nil && s.plaintext {
		return nil, fmt.Errorf("dial %s: WithTLS and WithPlaintext exclude each other", target)
	}
	servers, err := parseTargets(target)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", target, err)
	}
	asked := &atomic.Bool{}
	dial := append([]grpc.DialOption{
		grpc.WithTransportCredentials(s.credentials(target, asked)),
		grpc.WithDefaultServiceConfig(serviceConfig),
		grpc.WithUserAgent(strings.TrimSpace(s.userAgent + " lpfileshare-go/" + version())),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
	}, s.dial...)
	if s.bearer != nil {
		dial = append(dial, grpc.WithPerRPCCredentials(s.bearerCredentials(target)))
	}
	name := target
	if servers != nil {
		dial, name = append(dial, grpc.WithResolvers(servers)), listScheme+":///"+strings.ReplaceAll(target, " ", "")
	}
	conn, err := grpc.NewClient(name, dial...)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", target, err)
	}
	return newClient(&Client{
		conn: conn, dial: dial, id: s.identity, account: strings.TrimPrefix(s.account, accountPrefix), certificateAsked: asked,
	}), nil
}

// credentials returns how to connect. It sets asked if a server asks for a client certificate and there is none.
func (s *settings) credentials(target string, asked *atomic.Bool) credentials.TransportCredentials {
	config := s.tls
	if config == nil {
		if s.plaintext || IsLoopback(target) {
			return insecure.NewCredentials()
		}
		config = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if len(config.Certificates) == 0 && config.GetClientCertificate == nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			asked.Store(true)
			return &tls.Certificate{}, nil // none: a server that only asks accepts that
		}
	}
	return credentials.NewTLS(config)
}

// bearerCredentials returns what adds the bearer token to calls to a target.
func (s *settings) bearerCredentials(target string) bearer {
	return bearer{s.bearer, s.plaintext || s.tls == nil && IsLoopback(target)}
}

// newClient completes a client that has its connection, identity and account.
func newClient(c *Client) *Client {
	conn, id := c.conn, c.id
	ids := identityConn{conn: conn, id: id}
	*c = Client{
		conn: conn, dial: c.dial, id: id, account: c.account, certificateAsked: c.certificateAsked,
		streams: pb.NewFileSharingServiceClient(conn),
		raw: Stubs{
			Files:         pb.NewFileSharingServiceClient(ids),
			Conversations: pb.NewConversationServiceClient(ids),
			Identity:      pb.NewIdentityServiceClient(ids),
			Accounts:      pb.NewAccountServiceClient(ids),
		},
	}
	if id.source != nil {
		if b, ok := id.source.get().(interface {
			bind(pb.IdentityServiceClient)
		}); ok {
			b.bind(c.raw.Identity)
		}
	}
	return c
}

// As returns a client with another identity on the same connection. Closing either closes both.
func (c *Client) As(id Identity) *Client {
	return newClient(&Client{conn: c.conn, dial: c.dial, id: id, account: c.account, certificateAsked: c.certificateAsked})
}

// Close ends the connection and every call on it.
func (c *Client) Close() error { return c.conn.Close() }

// Raw returns the generated clients, for calls and fields that this package has no method for.
func (c *Client) Raw() Stubs { return c.raw }

// Account returns the resource name of the account that WithAccount or LPFILESHARE_ACCOUNT set, accounts/{account}. Empty: none.
func (c *Client) Account() string { return accountName(c.account) }

// Connect connects to the server, and returns an error as soon as the server turns out to be unreachable. It is optional: calls
// connect on demand, but they wait for a server that is not there yet.
func (c *Client) Connect(ctx context.Context) error {
	_, err := healthpb.NewHealthClient(c.conn).Check(ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(false))
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled:
		return c.unreachable(ctx, err, net.DefaultResolver.LookupHost)
	default: // any other result comes from the server
		c.certificateAsked.Store(false) // the server accepted that there was none
		return nil
	}
}

// Health returns the health of a service; "" is the whole server. It uses a connection of its own, because the client's does not
// send calls to a server that reports that it is not serving.
func (c *Client) Health(ctx context.Context, service string) (healthpb.HealthCheckResponse_ServingStatus, error) {
	const op = "check health"
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

// IsLoopback reports whether a target is on this machine, judged by its name alone: a loopback address, "localhost" or a Unix
// socket. Only there does Dial use plaintext by default. A list of targets is on this machine if all of them are.
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

// version returns the version of this module in the running program.
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
