package main

import (
	"context"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/lpfileshare/lpfileshare/internal/netrules"
)

// caller tells which service calls, and whether its connection proves that it may use credentials that the server holds: by a
// client certificate that has a name, or because it comes over loopback to a server that listens nowhere else.
func (f *flags) caller(ctx context.Context) (name string, trusted bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return "", false
	}
	if info, ok := p.AuthInfo.(credentials.TLSInfo); ok && len(info.State.VerifiedChains) > 0 {
		name = certificateName(info.State.VerifiedChains[0][0])
		return name, name != ""
	}
	return "", f.listensOnLoopback() && onLoopback(p.Addr) && onLoopback(p.LocalAddr)
}

func (f *flags) listensOnLoopback() bool {
	host, _, err := net.SplitHostPort(f.Listen)
	return err == nil && netrules.IsLoopback(host)
}

func onLoopback(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	return ok && t.IP.IsLoopback()
}
