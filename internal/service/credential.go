package service

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"github.com/lpfileshare/lpfileshare/internal/netrules"
	"github.com/lpfileshare/lpfileshare/internal/policy"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// maxExternalID is the maximum length of a consumer's id as the brand knows it, which becomes part of tokens.
const maxExternalID = 256

// credential reads the one identity that a call must carry. It proves nothing yet: see Messenger.Session.
func (s *Server) credential(ctx context.Context, account string) (share.Credential, error) {
	c, request, err := s.presented(ctx, account)
	if err == nil {
		err = permit(ctx, s.Permit, request)
	}
	if err != nil {
		return share.Credential{}, err
	}
	if c.Scheme == share.AgentToken {
		grant, err := s.seal.open(c.Secret)
		if err != nil {
			return share.Credential{}, err
		}
		c.Secret = grant
	}
	factsOf(ctx).claim(c)
	return c, nil
}

// presented reads the one identity that a call must carry, as it was sent, and returns what the policy is asked about it.
func (s *Server) presented(ctx context.Context, account string) (share.Credential, policy.Request, error) {
	fail := func(kind share.Kind, format string, args ...any) (share.Credential, policy.Request, error) {
		return share.Credential{}, policy.Request{}, share.Reject(kind, format, args...)
	}
	factsOf(ctx).add(func(known *Facts) { known.Account = account })
	var found []share.Credential
	for _, scheme := range []share.Scheme{share.ConsumerToken, share.AgentToken, share.ExternalConsumerID} {
		for _, value := range metadata.ValueFromIncomingContext(ctx, string(scheme)) {
			found = append(found, share.Credential{Scheme: scheme, Account: account, Secret: value, Peer: peerOf(ctx)})
		}
	}
	const ways = "give exactly one of lp-consumer-token, lp-agent-token and lp-external-consumer-id in the metadata"
	switch {
	case len(found) == 0:
		return fail(share.TokenInvalid, "the call carries no identity; %s", ways)
	case len(found) > 1:
		return fail(share.TokenInvalid, "the call carries more than one identity; %s", ways)
	}
	c := found[0]
	request := policy.Request{Caller: s.Caller(ctx), Account: account, Method: methodOf(ctx), Scheme: c.Scheme}
	if c.Scheme == share.ExternalConsumerID {
		if !request.Caller.Authenticated() {
			return fail(share.CallerNotAuthenticated, "lp-external-consumer-id is accepted only from services that are "+
				"known: by a client certificate, by a bearer token, or by loopback to a server that listens only there; or use lp-consumer-token")
		}
		c.Caller, request.Consumer = request.Caller.Name.String(), c.Secret
	}
	if !share.ValidToken(c.Secret) || c.Scheme == share.ExternalConsumerID && len(c.Secret) > maxExternalID {
		return fail(share.TokenInvalid, "%s is malformed", c.Scheme)
	}
	return c, request, nil
}

// methodOf returns the method of a call.
func methodOf(ctx context.Context) policy.Method {
	name, _ := grpc.Method(ctx)
	return policy.Method(name[strings.LastIndexByte(name, '/')+1:])
}

// permit asks the policy about a call, and notes its decision.
func permit(ctx context.Context, ask func(policy.Request) error, q policy.Request) error {
	err, decision := ask(q), Permitted
	if err != nil {
		decision = Denied
	}
	factsOf(ctx).add(func(known *Facts) { known.Account, known.Decision = q.Account, decision })
	return err
}

// peerOf returns the address that a call's connection comes from, as limits see it.
func peerOf(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok {
		return netrules.Peer(p.Addr)
	}
	return ""
}
