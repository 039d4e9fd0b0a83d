package main

import (
	"context"

	"github.com/lpfileshare/lpfileshare/internal/accounts"
	"github.com/lpfileshare/lpfileshare/internal/connector"
	"github.com/lpfileshare/lpfileshare/internal/lpws"
	"github.com/lpfileshare/lpfileshare/internal/service"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// messenger selects the LivePerson API for an account's callers. It adapts lpws and connector to service.Messenger: their methods
// return types of their own, because they must not import package service.
type messenger struct {
	pool      *lpws.Pool
	connector *connector.Messenger
	accounts  *accounts.Registry
}

var _ service.Messenger = messenger{}

func (m messenger) Session(ctx context.Context, c share.Credential) (service.Session, error) {
	account, ok := m.accounts.Account(c.Account)
	switch {
	case !ok:
		return nil, share.Errorf(share.NotAllowed, "this server does not serve account "+c.Account, nil)
	case account.Messenger == accounts.Connector && c.Scheme == share.ConsumerToken:
		return nil, share.Errorf(share.NotAllowed, "account "+c.Account+" uses the Connector API, which identifies consumers by the brand's own ids; call with "+
			"lp-external-consumer-id", nil)
	case account.Messenger == accounts.Connector && c.Scheme == share.ExternalConsumerID:
		s, err := m.connector.Session(ctx, c)
		if err != nil {
			return nil, err
		}
		return connectorSession{s}, nil
	case c.Scheme == share.ExternalConsumerID && account.Issuer == nil:
		return nil, share.Errorf(share.IdentityNotConfigured, "this server has no credentials for account "+c.Account+
			"; call with lp-consumer-token, or have the operator add identity to the account in the accounts file", nil)
	}
	s, err := m.pool.Session(ctx, c)
	if err != nil {
		return nil, err
	}
	return session{s}, nil
}

func (m messenger) Opened(c share.Credential) bool {
	account, ok := m.accounts.Account(c.Account)
	if ok && account.Messenger == accounts.Connector && c.Scheme == share.ExternalConsumerID {
		return m.connector.Opened(c)
	}
	return ok && m.pool.Opened(c)
}

type connectorSession struct{ *connector.Session }

func (s connectorSession) WatchFiles(ctx context.Context, conversation string, after share.Cursor) (service.FileWatch, error) {
	w, err := s.Session.WatchFiles(ctx, conversation, after)
	if err != nil {
		return nil, err
	}
	return w, nil
}

func (m messenger) End(c share.Credential) { m.pool.End(c) }

type session struct{ *lpws.Session }

func (s session) WatchFiles(ctx context.Context, conversation string, after share.Cursor) (service.FileWatch, error) {
	w, err := s.Session.WatchFiles(ctx, conversation, after)
	if err != nil {
		return nil, err
	}
	return w, nil
}
