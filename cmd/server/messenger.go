package main

import (
	"context"

	"github.com/lpfileshare/lpfileshare/internal/accounts"
	"github.com/lpfileshare/lpfileshare/internal/lpws"
	"github.com/lpfileshare/lpfileshare/internal/service"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// messenger lets lpws be a service.Messenger: Go wants the interfaces' own types in the results, which lpws must not know.
type messenger struct {
	pool     *lpws.Pool
	accounts *accounts.Registry
}

var _ service.Messenger = messenger{}

func (m messenger) Session(ctx context.Context, c share.Credential) (service.Session, error) {
	if _, ok := m.accounts.Account(c.Account); !ok {
		return nil, share.Errorf(share.NotAllowed, "this server does not serve account "+c.Account, nil)
	}
	if c.Scheme == share.ExternalConsumerID {
		return nil, share.Errorf(share.MethodNotImplemented, "this server has no account that uses the Connector API; call with lp-consumer-token", nil)
	}
	s, err := m.pool.Session(ctx, c)
	if err != nil {
		return nil, err
	}
	return session{s}, nil
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
