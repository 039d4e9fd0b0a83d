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

// An Identity says as whom calls are made. The zero Identity is nobody.
type Identity struct {
	key    string
	source TokenSource
}

// ConsumerToken is the identity of a consumer with a LivePerson token.
func ConsumerToken(source TokenSource) Identity { return Identity{keyConsumer, source} }

// AgentToken is the identity of an agent or bot, with a token from SignInAgent.
func AgentToken(source TokenSource) Identity { return Identity{keyAgent, source} }

// ExternalConsumerID is the identity of a consumer by the id that the brand knows, for accounts that the server holds credentials
// of. The server takes it only over a connection that proves who calls: TLS with a client certificate (see [WithTLS]), or loopback.
func ExternalConsumerID(id string) Identity { return Identity{keyExternal, StaticToken(id)} }

// A TokenSource gives the token that a call carries. It is safe for concurrent use.
//
// A source that can also get a new token implements [Renewer].
type TokenSource interface {
	// Token returns the token to use now. ctx bounds the wait for it.
	Token(ctx context.Context) (string, error)
}

// A Renewer is a TokenSource that can replace a token that the server refused. It is asked once per call.
type Renewer interface {
	// Renew returns a token other than the refused one, or an error when there is none to be had.
	Renew(ctx context.Context, refused string) (string, error)
}

// StaticToken is a token that stays as it is.
type StaticToken string

// Token returns the token.
func (t StaticToken) Token(context.Context) (string, error) { return string(t), nil }

// String hides the token.
func (t StaticToken) String() string { return "[token]" }

// GoString hides the token from %#v.
func (t StaticToken) GoString() string { return t.String() }

// A ConsumerSession is what signing a consumer in gave.
type ConsumerSession struct {
	// Token goes into calls. A secret.
	Token string
	// Expires is when it ends; zero where that is not known.
	Expires time.Time
	// RenewalSecret gets the next token. Empty: this session cannot be renewed. A secret.
	RenewalSecret string
	// ConsumerID is LivePerson's id of the consumer.
	ConsumerID string
}

// String hides the secrets.
func (s ConsumerSession) String() string { return "session of consumer " + s.ConsumerID }

// GoString hides the secrets from %#v.
func (s ConsumerSession) GoString() string { return s.String() }

// SignInConsumer signs a consumer in. The session is the caller's to keep; nothing here stores it. It is not repeated by
// itself, since it is not repeatable.
func (c *Client) SignInConsumer(ctx context.Context, req *pb.SignInConsumerRequest) (ConsumerSession, error) {
	r, err := c.identity.SignInConsumer(ctx, req)
	if err != nil {
		return ConsumerSession{}, err
	}
	return consumerSession(r), nil
}

// consumerSession reads the answer of SignInConsumer or RenewConsumer.
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

// SignOutAgent ends the login of the agent or bot that the client's identity is, in an account (the bare id). Its token is good for
// nothing afterwards, on any connection. Repeating it is no error.
func (c *Client) SignOutAgent(ctx context.Context, account string) error {
	_, err := c.identity.SignOutAgent(ctx, &pb.SignOutAgentRequest{Account: "accounts/" + account})
	return err
}

const (
	renewBefore  = time.Minute      // how long before its end a token is renewed
	renewTimeout = 20 * time.Second // how long one renewal may take
	renewPause   = 5 * time.Second  // how long after a failed renewal a token that still lives is used as it is
)

// ConsumerTokens is a [TokenSource] that renews a consumer's token a minute before it ends, and once when the server refuses
// it. However many calls ask, one renewal is on the way at a time. It works once a client uses it: it renews over the
// connection of the first one.
type ConsumerTokens struct {
	account string
	onRenew func(ConsumerSession)
	now     func() time.Time

	mu       sync.Mutex
	identity pb.IdentityServiceClient
	session  ConsumerSession
	pause    time.Time // no renewal ahead of time before this
	running  *renewal  // nil: none
}

// A renewal is one RenewConsumer call that any number of callers wait for.
type renewal struct {
	done chan struct{}
	err  error // valid once done is closed
}

// NewConsumerTokens makes a source out of a session of account (the bare account id). onRenew, if not nil, is told of each
// new session, one at a time, before any call uses it: the place to store it.
func NewConsumerTokens(account string, session ConsumerSession, onRenew func(ConsumerSession)) *ConsumerTokens {
	return &ConsumerTokens{account: account, session: session, onRenew: onRenew, now: time.Now}
}

// bind names the client to renew by. The first wins.
func (t *ConsumerTokens) bind(c pb.IdentityServiceClient) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.identity == nil {
		t.identity = c
	}
}

// Session returns the session as it is now.
func (t *ConsumerTokens) Session() ConsumerSession {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.session
}

// Token returns the token, renewing it first if it is about to end. Where renewal fails, the old token is returned for as
// long as it lives.
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

// Renew returns a token other than refused, renewing unless that has happened since. Giving up waiting does not end the
// renewal, since others may wait for it too.
func (t *ConsumerTokens) Renew(ctx context.Context, refused string) (string, error) {
	t.mu.Lock()
	if t.session.Token != refused {
		defer t.mu.Unlock()
		return t.session.Token, nil
	}
	if t.session.RenewalSecret == "" {
		t.mu.Unlock()
		return "", errors.New("renew token: this session cannot be renewed; sign in again")
	}
	if t.identity == nil {
		t.mu.Unlock()
		return "", errors.New("renew token: no client uses these tokens yet")
	}
	r := t.running
	if r == nil {
		r = &renewal{done: make(chan struct{})}
		t.running = r
		// Ends by its own time-out, or when its connection is closed. Its owner is whoever waits below; a renewal that nobody
		// waits for any more must still end properly, because the old secret may be spent.
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

	resp, err := identity.RenewConsumer(ctx, &pb.RenewConsumerRequest{Account: "accounts/" + t.account, RenewalSecret: secret})
	if err == nil && resp.GetConsumerToken() == "" {
		err = errors.New("renew token: the server's answer has no token")
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

// attach puts the identity on a call's metadata, and nothing else that says who calls. It returns the token that it used.
func (id Identity) attach(ctx context.Context) (context.Context, string, error) {
	if id.key == "" {
		return ctx, "", nil
	}
	token, err := id.source.Token(ctx)
	if err != nil {
		return ctx, "", err
	}
	return id.with(ctx, token), token, nil
}

func (id Identity) with(ctx context.Context, token string) context.Context {
	md, _ := metadata.FromOutgoingContext(ctx) // a copy
	if md == nil {
		md = metadata.MD{}
	}
	for _, key := range []string{keyConsumer, keyAgent, keyExternal} {
		md.Delete(key)
	}
	md.Set(id.key, token)
	return metadata.NewOutgoingContext(ctx, md)
}

// renew gets another token after the server has refused one; ok is false where that does not apply.
func (id Identity) renew(ctx context.Context, err error, refused string) (token string, ok bool) {
	switch ErrorReason(err) {
	case pb.ErrorReason_ERROR_REASON_TOKEN_INVALID, pb.ErrorReason_ERROR_REASON_LP_IDENTITY_EXPIRED:
	default:
		return "", false
	}
	source, ok := id.source.(Renewer)
	if !ok {
		return "", false
	}
	token, rerr := source.Renew(ctx, refused)
	return token, rerr == nil && token != refused
}

// identityConn is a connection whose calls carry an identity, and whose unary errors are *Error.
type identityConn struct {
	conn *grpc.ClientConn
	id   Identity
}

// wants says whether a method takes an identity: all of ours do, except those that give one out.
func wants(method string) bool {
	return strings.HasPrefix(method, "/lpfileshare.v1.") && !strings.HasPrefix(method, "/lpfileshare.v1.IdentityService/") ||
		method == pb.IdentityService_SignOutAgent_FullMethodName
}

// Invoke makes a unary call, a second time with a new token where the first is refused.
func (c identityConn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	op := method[strings.LastIndexByte(method, '/')+1:]
	args = withRequestID(args)
	if !wants(method) {
		return newError(op, c.conn.Invoke(ctx, method, args, reply, opts...))
	}
	call, token, err := c.id.attach(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", op, err)
	}
	err = c.conn.Invoke(call, method, args, reply, opts...)
	if err != nil {
		if token, ok := c.id.renew(ctx, err, token); ok {
			err = c.conn.Invoke(c.id.with(ctx, token), method, args, reply, opts...)
		}
	}
	return newError(op, err)
}

// NewStream opens a streaming call.
func (c identityConn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	if wants(method) {
		var err error
		if ctx, _, err = c.id.attach(ctx); err != nil {
			return nil, err
		}
	}
	return c.conn.NewStream(ctx, desc, method, opts...)
}

// withRequestID gives a request that changes something a request id if it has none, so that gRPC may repeat it. The caller's
// message is left as it is.
func withRequestID(args any) any {
	req, ok := args.(*pb.CreateConversationRequest)
	if !ok || req.GetRequestId() != "" {
		return args
	}
	req = proto.CloneOf(req)
	req.RequestId = uuid.NewString()
	return req
}
