package main

import (
	"context"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"github.com/lpfileshare/lpfileshare/internal/recvlimit"
)

// caller returns the name of the calling service, and whether its connection proves that it may use the server's own credentials:
// by a client certificate that has a name, or because it is a loopback connection to a server that listens on loopback only.
func (f *serverFlags) caller(ctx context.Context) (name string, trusted bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return "", false
	}
	if info, ok := recvlimit.AuthInfo(p).(credentials.TLSInfo); ok && len(info.State.VerifiedChains) > 0 {
		name = certificateName(info.State.VerifiedChains[0][0])
		return name, name != ""
	}
	return "", f.listensOnLoopback() && onLoopback(p.Addr) && onLoopback(p.LocalAddr)
}

func onLoopback(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	return ok && t.IP.IsLoopback()
}
