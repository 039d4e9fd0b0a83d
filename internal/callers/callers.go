// Package callers finds out which service makes a call: by the certificate of its connection, by a bearer token, or by what a trusted
// proxy reports. What the service may do is decided by package policy.
package callers

import (
	"context"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/lpfileshare/lpfileshare/internal/policy"
	"github.com/lpfileshare/lpfileshare/internal/recvlimit"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// The keys of metadata that can name a caller.
const (
	authorizationKey = "authorization"
	xfccKey          = "x-forwarded-client-cert"
)

// An Identifier finds out who calls. The zero Identifier knows callers by the client certificates that the TLS stack has verified.
type Identifier struct {
	// SPIFFE reports that certificates were verified by go-spiffe, which leaves no verified chains.
	SPIFFE bool
	// Loopback makes connections from this machine a proof. It must be set only if the server accepts no others, and requires
	// neither certificates nor tokens.
	Loopback bool
	// Anonymous, if set, reports whether a connection proves nothing: a browser is no service, because any page can run in it.
	Anonymous func(*peer.Peer) bool
	// Proxies are the certificates of proxies that may name callers by x-forwarded-client-cert.
	Proxies []policy.Pattern
	// Tokens verifies bearer tokens; nil: the server accepts none.
	Tokens *Tokens
}

// Identify returns the caller of ctx, an incoming call:
//
//  1. the subject of the bearer token, if the server accepts tokens and the call carries one,
//  2. the forwarded name, if the connection is of a trusted proxy,
//  3. the name in the certificate of the connection, or its right by loopback.
//
// A token or a header that is invalid is an error, and never ignored in favor of another proof. Identify returns
// CallerNotAuthenticated, or CallerKeysUnavailable if the token cannot be verified now.
func (i *Identifier) Identify(ctx context.Context) (policy.Caller, error) {
	connection := i.Connection(ctx)
	viaProxy := i.isProxy(connection.Name)
	forwarded := metadata.ValueFromIncomingContext(ctx, xfccKey)
	if len(forwarded) > 0 && !viaProxy {
		return policy.Caller{}, reject("header", "the call carries x-forwarded-client-cert, which only the proxies of --trusted-proxy may send; remove the header, "+
			"or have the proxy authenticate by a certificate that the server's operator names there")
	}
	if i.Tokens != nil {
		if values := metadata.ValueFromIncomingContext(ctx, authorizationKey); len(values) > 0 {
			subject, err := i.Tokens.verifyHeader(ctx, values)
			if err != nil {
				return policy.Caller{}, err
			}
			return policy.Caller{Name: policy.Name{Kind: policy.JWT, Value: subject}, Via: policy.ViaJWT, Proxy: connection.Name}, nil
		}
	}
	switch {
	case viaProxy:
		name, err := i.forwardedName(forwarded)
		if err != nil {
			return policy.Caller{}, err
		}
		return policy.Caller{Name: name, Via: policy.ViaXFCC, Proxy: connection.Name}, nil
	case i.Tokens != nil && !connection.Authenticated():
		return policy.Caller{}, reject("missing", "the call carries no bearer token, and the server requires one; send authorization: Bearer TOKEN in the metadata")
	}
	return connection, nil
}

// Start begins to fetch the keys of tokens, if the server accepts any, until Close.
func (i *Identifier) Start() {
	if i.Tokens != nil {
		i.Tokens.keys.start()
	}
}

// Close ends what Start has begun, and waits for it. No call may be left.
func (i *Identifier) Close() {
	if i.Tokens != nil {
		i.Tokens.keys.close()
	}
}

// Ready reports whether callers can be authenticated: the keys of tokens have been fetched, or the server accepts no tokens.
func (i *Identifier) Ready() bool { return i.Tokens == nil || i.Tokens.keys.ready() }

// Connection returns the caller that the connection of a call proves.
func (i *Identifier) Connection(ctx context.Context) policy.Caller {
	p, ok := peer.FromContext(ctx)
	if !ok || i.Anonymous != nil && i.Anonymous(p) {
		return policy.Caller{}
	}
	info, secure := recvlimit.AuthInfo(p).(credentials.TLSInfo)
	switch {
	case secure && i.SPIFFE && info.SPIFFEID != nil:
		return policy.Caller{Name: policy.Name{Kind: policy.URI, Value: info.SPIFFEID.String()}, Via: policy.ViaSPIFFE}
	case secure && !i.SPIFFE && len(info.State.VerifiedChains) > 0:
		return policy.Caller{Name: policy.NameOf(info.State.VerifiedChains[0][0]), Via: policy.ViaMTLS}
	case i.Loopback && onLoopback(p.Addr) && onLoopback(p.LocalAddr):
		return policy.Caller{Via: policy.ViaLoopback}
	}
	return policy.Caller{}
}

func onLoopback(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	return ok && t.IP.IsLoopback()
}

func (i *Identifier) isProxy(n policy.Name) bool {
	for _, p := range i.Proxies {
		if p.Matches(n) {
			return true
		}
	}
	return false
}

// reject returns CallerNotAuthenticated. why is part of the contract.
func reject(why, format string, args ...any) error {
	return share.Reject(share.CallerNotAuthenticated, format, args...).With("why", why)
}

type callerKey struct{}

// With returns ctx with the caller of a call.
func With(ctx context.Context, c policy.Caller) context.Context {
	return context.WithValue(ctx, callerKey{}, c)
}

// Of returns the caller of the call of ctx, which With has set, or else the zero Caller.
func Of(ctx context.Context) policy.Caller {
	c, _ := ctx.Value(callerKey{}).(policy.Caller)
	return c
}
