package lpfileshare

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// The metadata keys of an identity. A call carries exactly one.
const (
	keyConsumer = "lp-consumer-token"
	keyAgent    = "lp-agent-token"
	keyExternal = "lp-external-consumer-id"
)

// An Identity identifies the caller of a call. The zero Identity adds nothing to calls.
type Identity struct {
	key    string
	source *hiddenSource // nil: the zero Identity
}

// A hiddenSource is a TokenSource in a function, because fmt prints the contents of unexported fields without their String methods.
// So neither an Identity nor a Client prints its token. Behind a pointer an Identity stays comparable.
type hiddenSource struct{ get func() TokenSource }

func hide(source TokenSource) *hiddenSource {
	return &hiddenSource{func() TokenSource { return source }}
}

// String returns the kind of the identity, without the token.
func (id Identity) String() string {
	if id.key == "" {
		return "no identity"
	}
	return id.key + " [token]"
}

// GoString hides the token from %#v.
func (id Identity) GoString() string { return id.String() }

// ConsumerToken is the identity of a consumer with a LivePerson token.
func ConsumerToken(source TokenSource) Identity { return Identity{keyConsumer, hide(source)} }

// AgentToken is the identity of an agent or bot, with a token from SignInAgent.
func AgentToken(source TokenSource) Identity { return Identity{keyAgent, hide(source)} }

// ExternalConsumerID is the identity of a consumer by the id that the brand knows, for accounts that the server has credentials of.
// The server accepts it only from services that it knows: by a client certificate (see [WithTLS]), a bearer token (see
// [WithBearerToken]), or loopback.
func ExternalConsumerID(id string) Identity {
	return Identity{keyExternal, hide(StaticToken(id))}
}

// A TokenSource provides the token of a call. It must be safe for concurrent use.
//
// A source that can also get a new token implements [Renewer].
type TokenSource interface {
	// Token returns the token to use now. ctx limits the wait for it.
	Token(ctx context.Context) (string, error)
}

// A Renewer is a TokenSource that can replace a token that the server rejected. Each call uses it at most once.
type Renewer interface {
	// Renew returns a token other than the rejected one, or an error.
	Renew(ctx context.Context, rejected string) (string, error)
}

// StaticToken is a TokenSource with one fixed token.
type StaticToken string

// Token returns the token.
func (t StaticToken) Token(context.Context) (string, error) { return string(t), nil }

// String hides the token.
func (t StaticToken) String() string { return "[token]" }

// GoString hides the token from %#v.
func (t StaticToken) GoString() string { return t.String() }

// TokenFunc is a TokenSource that is a function. It is called for each call, and again if the server rejects the token: then it must
// return another one.
type TokenFunc func(ctx context.Context) (string, error)

// Token calls f.
func (f TokenFunc) Token(ctx context.Context) (string, error) { return f(ctx) }

// Renew calls f.
func (f TokenFunc) Renew(ctx context.Context, rejected string) (string, error) {
	token, err := f(ctx)
	if err == nil && token == rejected {
		err = errors.New("the function returned the token that the server rejected")
	}
	return token, err
}

// A ConsumerSession is the result of signing in a consumer.
type ConsumerSession struct {
	// Token is the token for calls. Secret.
	Token string
	// Expires is when Token expires. Zero: not known.
	Expires time.Time
	// RenewalSecret gets the next token. Empty: this session cannot be renewed. Secret.
	RenewalSecret string
	// ConsumerID is LivePerson's id of the consumer.
	ConsumerID string
}

// String hides the secrets.
func (s ConsumerSession) String() string { return "session of consumer " + s.ConsumerID }

// GoString hides the secrets from %#v.
func (s ConsumerSession) GoString() string { return s.String() }

// SignInConsumer signs in a consumer. The client does not store the session. The call is never repeated: a second sign-in is
// another sign-in.
func (c *Client) SignInConsumer(ctx context.Context, req *pb.SignInConsumerRequest) (ConsumerSession, error) {
	r, err := c.raw.Identity.SignInConsumer(ctx, req)
	if err != nil {
		return ConsumerSession{}, err
	}
	return consumerSession(r), nil
}

// consumerSession converts the response of SignInConsumer or RenewConsumer.
func consumerSession(r interface {
	GetConsumerToken() string
	GetExpireTime() *timestamppb.Timestamp
	GetRenewalSecret() string
	GetConsumerId() string
}) ConsumerSession {
	s := ConsumerSession{Token: r.GetConsumerToken(), RenewalSecret: r.GetRenewalSecret(), ConsumerID: r.GetConsumerId()}
	if t := r.GetExpireTime(); t != nil {
		s.Expires = t.AsTime()
	}
	return s
}

// An AgentSession is the result of signing in an agent or a bot.
type AgentSession struct {
	// Token is the value for [WithAgentToken]. Secret.
	Token string
	// AgentID is LivePerson's id of the agent.
	AgentID string
	// Expires is when the login ends if no call uses the token. Zero: not known.
	Expires time.Time
}

// String hides the token.
func (s AgentSession) String() string { return "session of agent " + s.AgentID }

// GoString hides the token from %#v.
func (s AgentSession) GoString() string { return s.String() }

// SignInAgent signs in an agent or a bot. An empty account is set to the client's. The call is never repeated.
func (c *Client) SignInAgent(ctx context.Context, req *pb.SignInAgentRequest) (AgentSession, error) {
	if req.GetAccount() == "" {
		req = proto.CloneOf(req)
		req.Account = c.accountName("")
	}
	r, err := c.raw.Identity.SignInAgent(ctx, req)
	if err != nil {
		return AgentSession{}, err
	}
	s := AgentSession{Token: r.GetAgentToken(), AgentID: r.GetAgentId()}
	if t := r.GetExpireTime(); t != nil {
		s.Expires = t.AsTime()
	}
	return s, nil
}

// SignOutAgent ends the login of the agent or bot whose token this client carries. account is the id of the account, or its
// resource name; empty: the client's. The token is invalid afterwards, on every connection. A repeat is not an error.
func (c *Client) SignOutAgent(ctx context.Context, account string) error {
	_, err := c.raw.Identity.SignOutAgent(ctx, &pb.SignOutAgentRequest{Account: c.accountName(account)})
	return err
}

const (
	renewBefore  = time.Minute      // how long before it expires a token is renewed
	renewTimeout = 20 * time.Second // how long one renewal may take
	renewPause   = 5 * time.Second  // how long after a failed renewal a token that has not expired is used without another try
)

// ConsumerTokens is a [TokenSource] that renews a consumer's token a minute before it expires, and once when the server rejects
// it. Concurrent calls share one renewal. It renews over the connection of the first client that uses it.
type ConsumerTokens struct {
	account string
	onRenew func(ConsumerSession)
	now     func() time.Time

	mu       sync.Mutex
	identity pb.IdentityServiceClient
	session  ConsumerSession
	pause    time.Time // no renewal before the token expires until then
	running  *renewal  // nil: none
}

// A renewal is one RenewConsumer call that any number of callers wait for.
type renewal struct {
	done chan struct{}
	err  error // valid once done is closed
}

// NewConsumerTokens returns a source for a session of account, which is the id of the account or its resource name. onRenew, if not
// nil, receives each new session, one at a time, before a call uses it, for example to store it.
func NewConsumerTokens(account string, session ConsumerSession, onRenew func(ConsumerSession)) *ConsumerTokens {
	return &ConsumerTokens{account: account, session: session, onRenew: onRenew, now: time.Now}
}

// String hides the secrets.
func (t *ConsumerTokens) String() string { return t.Session().String() }

// GoString hides the secrets from %#v.
func (t *ConsumerTokens) GoString() string { return t.String() }

// bind sets the client to renew with. The first one wins.
func (t *ConsumerTokens) bind(c pb.IdentityServiceClient) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.identity == nil {
		t.identity = c
	}
}

// Session returns the current session.
func (t *ConsumerTokens) Session() ConsumerSession {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.session
}

// Token returns the token. It renews it first if it is about to expire. If that fails, it returns the old token until it expires.
func (t *ConsumerTokens) Token(ctx context.Context) (string, error) {
	t.mu.Lock()
	s, now := t.session, t.now()
	due := s.RenewalSecret != "" && !s.Expires.IsZero() && now.Add(renewBefore).After(s.Expires) && !now.Before(t.pause)
	t.mu.Unlock()
	if !due {
		return s.Token, nil
	}
	token, err := t.Renew(ctx, s.Token)
	if err != nil && ctx.Err() == nil && now.Before(s.Expires) {
		return s.Token, nil
	}
	return token, err
}

// Renew returns a token other than rejected, and renews the session unless that has happened since. If ctx ends, the renewal goes
// on, because other callers may wait for it.
func (t *ConsumerTokens) Renew(ctx context.Context, rejected string) (string, error) {
	t.mu.Lock()
	if t.session.Token != rejected {
		defer t.mu.Unlock()
		return t.session.Token, nil
	}
	if t.session.RenewalSecret == "" {
		t.mu.Unlock()
		return "", errors.New("renew token: this session cannot be renewed; sign in again")
	}
	if t.identity == nil {
		t.mu.Unlock()
		return "", errors.New("renew token: no client uses this token source yet; pass it to Dial or Client.As")
	}
	r := t.running
	if r == nil {
		r = &renewal{done: make(chan struct{})}
		t.running = r
		// It ends by its own timeout, or when the connection is closed. It must finish even if no caller waits for it any more,
		// because the server may have used up the old secret.
		go t.renew(context.WithoutCancel(ctx), r)
	}
	t.mu.Unlock()

	select {
	case <-r.done:
	case <-ctx.Done():
		return "", fmt.Errorf("renew token: %w", ctx.Err())
	}
	if r.err != nil {
		return "", r.err
	}
	return t.Session().Token, nil
}

func (t *ConsumerTokens) renew(ctx context.Context, r *renewal) {
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	t.mu.Lock()
	identity, secret := t.identity, t.session.RenewalSecret
	t.mu.Unlock()

	resp, err := identity.RenewConsumer(ctx, &pb.RenewConsumerRequest{Account: accountName(t.account), RenewalSecret: secret})
	if err == nil && resp.GetConsumerToken() == "" {
		err = errors.New("renew token: the server's response has no token")
	}
	if err == nil && t.onRenew != nil {
		t.onRenew(consumerSession(resp))
	}

	t.mu.Lock()
	defer t.mu.Unlock()
	if err != nil {
		r.err, t.pause = err, t.now().Add(renewPause)
	} else {
		t.session = consumerSession(resp)
	}
	t.running = nil
	close(r.done)
}

// attach adds the identity to the metadata of a call, and removes every other one. It returns the token that it used.
func (id Identity) attach(ctx context.Context) (context.Context, string, error) {
	if id.key == "" {
		return ctx, "", nil
	}
	token, err := id.source.get().Token(ctx)
	if err != nil {
		return ctx, "", err
	}
	md, _ := metadata.FromOutgoingContext(ctx) // a copy
	if md == nil {
		md = metadata.MD{}
	}
	for _, key := range []string{keyConsumer, keyAgent, keyExternal} {
		md.Delete(key)
	}
	md.Set(id.key, token)
	return metadata.NewOutgoingContext(ctx, md), token, nil
}

// renew gets another token after the server rejected one. ok is false if the error has another reason or there is no other token.
func (id Identity) renew(ctx context.Context, err error, rejected string) (token string, ok bool) {
	switch ErrorReason(err) {
	case pb.ErrorReason_ERROR_REASON_TOKEN_INVALID, pb.ErrorReason_ERROR_REASON_LP_IDENTITY_EXPIRED:
	default:
		return "", false
	}
	if id.source == nil {
		return "", false
	}
	source, ok := id.source.get().(Renewer)
	if !ok {
		return "", false
	}
	token, rerr := source.Renew(ctx, rejected)
	return token, rerr == nil && token != rejected
}

// identityConn is a connection that adds an identity to calls. It applies the retry rule to unary calls, and returns their errors
// as *Error.
type identityConn struct {
	conn *grpc.ClientConn
	id   Identity
}

// takesIdentity reports whether calls of a method carry an identity. Those that return one do not.
func takesIdentity(method string) bool {
	return strings.HasPrefix(method, "/lpfileshare.v1.") && !strings.HasPrefix(method, "/lpfileshare.v1.IdentityService/") ||
		method == pb.IdentityService_SignOutAgent_FullMethodName
}

// Invoke makes a unary call, and repeats it by the retry rule. That is safe for every method that takes an identity: those that
// change something are idempotent, or have a request id (see withRequestID). Signing in and renewing are not, and are made once.
//
// gRPC's own retryPolicy is not used: it retries by status code alone and does not read RetryInfo.
func (c identityConn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	op := method[strings.LastIndexByte(method, '/')+1:]
	if !takesIdentity(method) {
		err := c.conn.Invoke(ctx, method, args, reply, opts...)
		if err != nil && ctx.Err() != nil {
			return contextError(ctx, op)
		}
		return newError(op, err)
	}
	args = withRequestID(args)
	pace := newPacer(op, unaryRetryFor)
	pace.maxAttempts = unaryAttempts
	for {
		pace.attempts++
		call, token, err := c.id.attach(ctx)
		if err == nil {
			err = c.conn.Invoke(call, method, args, reply, opts...)
		}
		if err == nil {
			return nil
		}
		if err := pace.retry(ctx, err, c.id, token, nil); err != nil {
			return err
		}
	}
}

// NewStream opens a streaming call.
func (c identityConn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if takesIdentity(method) {
		var err error
		if ctx, _, err = c.id.attach(ctx); err != nil {
			return nil, err
		}
	}
	return c.conn.NewStream(ctx, desc, method, opts...)
}

// withRequestID returns a request that may be repeated: it adds a request id to one that needs it and has none. The caller's
// message is not changed.
func withRequestID(args any) any {
	switch req := args.(type) {
	case *pb.CreateConversationRequest:
		if req.GetRequestId() == "" {
			req = proto.CloneOf(req)
			req.RequestId = uuid.NewString()
			return req
		}
	case *pb.UploadSmallFileRequest:
		if spec := req.GetSpec(); spec != nil && spec.GetRequestId() == "" {
			spec = proto.CloneOf(spec)
			spec.RequestId = uuid.NewString()
			return &pb.UploadSmallFileRequest{Spec: spec, Data: req.GetData()}
		}
	}
	return args
}
