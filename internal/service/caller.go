package service

import (
	"context"
	"crypto/sha256"
	"sync"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A caller is whom a limit is counted for: before the identity is proved, the credential that the call brought; afterwards the
// principal. It is a hash, so that it keeps no secret.
type caller [sha256.Size]byte

// callerOf is who brought a credential. Of lp-external-consumer-id the service that calls is a part, where it is known.
func callerOf(c share.Credential) caller {
	return digest("credential", string(c.Scheme), c.Account, c.Caller, c.Secret)
}

func callerOfPrincipal(p share.Principal) caller {
	return digest("principal", p.Account, string(p.Role), p.ID, p.Caller)
}

// streams counts the downloads and watches that each caller has open.
type streams struct {
	most int

	mu   sync.Mutex
	open map[caller]int
}

func newStreams(most int) *streams { return &streams{most: most, open: make(map[caller]int)} }

// take counts one more; TooManyStreams if that is one too many. The caller of take calls done when it has ended.
func (s *streams) take(who caller) (done func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[who] >= s.most {
		return nil, refuse(share.TooManyStreams, "this caller has %d downloads and watches open, and may have no more; end some", s.most)
	}
	s.open[who]++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.open[who]--; s.open[who] == 0 {
			delete(s.open, who)
		}
	}, nil
}

// streamSession is session for a download or a watch, which is counted for its caller: by the credential, and once that is
// proved by the principal. done gives both back.
func (s *Server) streamSession(ctx context.Context, account string) (session Session, done func(), err error) {
	credential, err := s.credential(ctx, account)
	if err != nil {
		return nil, nil, err
	}
	brought, err := s.streams.take(callerOf(credential))
	if err != nil {
		return nil, nil, err
	}
	if session, err = s.session(ctx, account); err != nil {
		brought()
		return nil, nil, err
	}
	proved, err := s.streams.take(callerOfPrincipal(session.Principal()))
	if err != nil {
		session.Release()
		brought()
		return nil, nil, err
	}
	return session, func() {
		proved()
		session.Release()
		brought()
	}, nil
}
