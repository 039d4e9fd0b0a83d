package main

import (
	"context"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/lpfileshare/lpfileshare/internal/accounts"
	"github.com/lpfileshare/lpfileshare/internal/policy"
	"github.com/lpfileshare/lpfileshare/internal/recvlimit"
	"github.com/lpfileshare/lpfileshare/internal/web"
)

// caller returns the calling service: by the name in its client certificate, or because its connection is a loopback connection to
// a server that listens on loopback only. A browser is none, because any page can run in it.
func (f *serverFlags) caller(ctx context.Context) policy.Caller {
	p, ok := peer.FromContext(ctx)
	if !ok || web.IsBrowser(p) {
		return policy.Caller{}
	}
	if info, ok := recvlimit.AuthInfo(p).(credentials.TLSInfo); ok && len(info.State.VerifiedChains) > 0 {
		return policy.Caller{Name: policy.NameOf(info.State.VerifiedChains[0][0])}
	}
	return policy.Caller{Loopback: f.listensOnLoopback() && onLoopback(p.Addr) && onLoopback(p.LocalAddr)}
}

// permit returns what decides whether a caller may make a call. With client certificates the rules of the accounts file do; without,
// nothing is known of callers that rules could be about.
func permit(f *flags, r *accounts.Registry) func(policy.Request) error {
	if f.Server.TLS.ClientCA == "" {
		return func(policy.Request) error { return nil }
	}
	return func(q policy.Request) error { return r.Set().Callers.Check(q) }
}

func onLoopback(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	return ok && t.IP.IsLoopback()
}
