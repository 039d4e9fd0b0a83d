package main

import (
	"context"
	"net"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// caller tells which service calls, and whether its connection proves that it may use credentials that the server holds: by a
// client certificate, or because both ends of the connection are this machine's loopback.
func caller(ctx context.Context) (name string, trusted bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return "", false
	}
	if info, ok := p.AuthInfo.(credentials.TLSInfo); ok && len(info.State.VerifiedChains) > 0 {
		name = certificateName(info.State.VerifiedChains[0][0])
		return name, name != ""
	}
	return "", onLoopback(p.Addr) && onLoopback(p.LocalAddr)
}

func onLoopback(a net.Addr) bool {
	t, ok := a.(*net.TCPAddr)
	return ok && t.IP.IsLoopback()
}
