package service

import (
	"context"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/policy"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// maxSecret is the maximum length of a secret in a sign-in, in bytes.
const maxSecret = 16 << 10

// SignInConsumer is the contract's SignInConsumer. Nothing of it is stored or logged.
func (s *Server) SignInConsumer(ctx context.Context, req *lpfilesharev1.SignInConsumerRequest) (*lpfilesharev1.SignInConsumerResponse, error) {
	var v violations
	account := checkAccount(&v, req.GetAccount())
	var signIn func() (share.SignIn, error)
	switch m := req.GetGrant().(type) {
	case *lpfilesharev1.SignInConsumerRequest_SignUp:
		signIn = func() (share.SignIn, error) { return s.ports.Accounts.SignUp(ctx, account) }
	case *lpfilesharev1.SignInConsumerRequest_Anonymous:
		checkSecret(&v, "anonymous.connector_id", m.Anonymous.GetConnectorId())
		signIn = func() (share.SignIn, error) {
			return s.ports.Accounts.SignInAnonymous(ctx, account, m.Anonymous.GetConnectorId())
		}
	case *lpfilesharev1.SignInConsumerRequest_CustomerJwt:
		checkSecret(&v, "customer_jwt", m.CustomerJwt)
		signIn = func() (share.SignIn, error) { return s.ports.Accounts.Authenticate(ctx, account, m.CustomerJwt) }
	case *lpfilesharev1.SignInConsumerRequest_AuthCode:
		checkSecret(&v, "auth_code", m.AuthCode)
		signIn = func() (share.SignIn, error) { return s.ports.Accounts.Authenticate(ctx, account, m.AuthCode) }
	default:
		v.add("grant", "must be one of anonymous, sign_up, customer_jwt and auth_code")
	}
	if err := v.err(); err != nil {
		return nil, err
	}
	in, err := s.signIn(ctx, account, share.ConsumerToken, signIn)
	if err != nil {
		return nil, err
	}
	return &lpfilesharev1.SignInConsumerResponse{
		ConsumerToken: in.Token, ExpireTime: timeToProto(in.Expires), RenewalSecret: in.RenewalSecret, ConsumerId: in.ID,
	}, nil
}

// RenewConsumer is the contract's RenewConsumer.
func (s *Server) RenewConsumer(ctx context.Context, req *lpfilesharev1.RenewConsumerRequest) (*lpfilesharev1.RenewConsumerResponse, error) {
	var v violations
	account := checkAccount(&v, req.GetAccount())
	checkSecret(&v, "renewal_secret", req.GetRenewalSecret())
	if err := v.err(); err != nil {
		return nil, err
	}
	in, err := s.signIn(ctx, account, share.ConsumerToken, func() (share.SignIn, error) {
		return s.ports.Accounts.Renew(ctx, account, req.GetRenewalSecret())
	})
	if err != nil {
		return nil, err
	}
	return &lpfilesharev1.RenewConsumerResponse{
		ConsumerToken: in.Token, ExpireTime: timeToProto(in.Expires), RenewalSecret: in.RenewalSecret, ConsumerId: in.ID,
	}, nil
}

// SignInAgent is the contract's SignInAgent.
func (s *Server) SignInAgent(ctx context.Context, req *lpfilesharev1.SignInAgentRequest) (*lpfilesharev1.SignInAgentResponse, error) {
	var v violations
	account := checkAccount(&v, req.GetAccount())
	var signIn func() (share.SignIn, error)
	switch c := req.GetCredentials().(type) {
	case *lpfilesharev1.SignInAgentRequest_Password:
		p := c.Password
		checkSecret(&v, "password.username", p.GetUsername())
		checkSecret(&v, "password.password", p.GetPassword())
		signIn = func() (share.SignIn, error) {
			return s.ports.Accounts.SignInAgent(ctx, account, p.GetUsername(), p.GetPassword())
		}
	case *lpfilesharev1.SignInAgentRequest_BotKeys:
		k := share.BotKeys{
			Username: c.BotKeys.GetUsername(), AppKey: c.BotKeys.GetAppKey(), Secret: c.BotKeys.GetSecret(),
			AccessToken: c.BotKeys.GetAccessToken(), AccessTokenSecret: c.BotKeys.GetAccessTokenSecret(),
		}
		checkSecret(&v, "bot_keys.username", k.Username)
		checkSecret(&v, "bot_keys.app_key", k.AppKey)
		checkSecret(&v, "bot_keys.secret", k.Secret)
		checkSecret(&v, "bot_keys.access_token", k.AccessToken)
		checkSecret(&v, "bot_keys.access_token_secret", k.AccessTokenSecret)
		signIn = func() (share.SignIn, error) { return s.ports.Accounts.SignInBot(ctx, account, k) }
	default:
		v.add("credentials", "must be password or bot_keys")
	}
	if err := v.err(); err != nil {
		return nil, err
	}
	in, err := s.signIn(ctx, account, share.AgentToken, signIn)
	if err != nil {
		return nil, err
	}
	return &lpfilesharev1.SignInAgentResponse{AgentToken: s.seal.close(in.Token), ExpireTime: timeToProto(in.Expires), AgentId: in.ID}, nil
}

// SignOutAgent is the contract's SignOutAgent.
func (s *Server) SignOutAgent(ctx context.Context, req *lpfilesharev1.SignOutAgentRequest) (*lpfilesharev1.SignOutAgentResponse, error) {
	var v violations
	account := checkAccount(&v, req.GetAccount())
	if err := v.err(); err != nil {
		return nil, err
	}
	c, agent, err := s.agentCredential(ctx, account, "only an agent's login can be ended; a consumer's token expires by itself")
	if err != nil {
		return nil, err
	}
	// At once, whatever LivePerson answers, and then again for a session that was opened meanwhile.
	s.ports.Messenger.End(c)
	defer s.ports.Messenger.End(c)
	if err := s.ports.Accounts.SignOutAgent(ctx, agent); err != nil {
		return nil, err
	}
	return &lpfilesharev1.SignOutAgentResponse{}, nil
}

// signIn makes an exchange that returns a token of a scheme. It counts as an opening of its peer, as no caller is known yet.
func (s *Server) signIn(ctx context.Context, account string, scheme share.Scheme, exchange func() (share.SignIn, error)) (share.SignIn, error) {
	if err := permit(ctx, s.Permit, policy.Request{Caller: s.Caller(ctx), Account: account, Method: methodOf(ctx), Scheme: scheme}); err != nil {
		return share.SignIn{}, err
	}
	if err := s.checkServed(account); err != nil {
		return share.SignIn{}, err
	}
	end, err := s.Openings.Begin(ctx, share.Credential{Account: account, Peer: peerOf(ctx)})
	if err != nil {
		return share.SignIn{}, err
	}
	defer end(false)
	in, err := exchange()
	if err == nil {
		s.Openings.Know(share.Credential{Scheme: scheme, Account: account, Secret: in.Token})
	}
	return in, err
}

func checkAccount(v *violations, name string) string {
	account, ok := parseAccountName(name)
	if !ok {
		v.add("account", "must be accounts/{account}")
	}
	return account
}

// checkSecret checks a secret's length. The error never contains the secret.
func checkSecret(v *violations, field, secret string) {
	if secret == "" {
		v.add(field, "is required")
	} else if len(secret) > maxSecret {
		v.add(field, "must have at most %d bytes", maxSecret)
	}
}
