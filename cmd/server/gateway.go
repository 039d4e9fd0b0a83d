package main

import (
	"fmt"
	"net"
	"net/http"

	"google.golang.org/grpc"

	"github.com/lpfileshare/lpfileshare/internal/buildinfo"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/internal/web"
)

// servePage makes the calls of the sandbox's page possible, as --web-listen does for other pages. It exists only with --sandbox, whose
// listener is on loopback: a nil sb does nothing. The caller calls closePage when the calls have ended.
func servePage(f *flags, server *grpc.Server, pipe *web.Pipe, sb *localSandbox, address net.Addr) (closePage func(), err error) {
	if sb == nil {
		return func() {}, nil
	}
	// The page is an agent too. The sandbox has checked host and origin. A request without an origin is no page's: the page shows
	// commands for curl.
	handler, err := newWebHandler(f, server, pipe, func(*http.Request) bool { return true }, true, true)
	if err != nil {
		return nil, fmt.Errorf("--sandbox: %w", err)
	}
	g := sandbox.Gateway{Handler: handler, Address: address.String(), TLS: f.Server.TLS.secure(), Version: buildinfo.Version()}
	if f.authenticatesCallers() { // by certificates or tokens that the page does not have
		g.Handler = nil
	}
	sb.SetGateway(g)
	return handler.Close, nil
}
