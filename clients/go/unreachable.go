package lpfileshare

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
)

// lookupTimeout is how long unreachable waits for the name service.
const lookupTimeout = 3 * time.Second

// A lookupHost is net.Resolver.LookupHost.
type lookupHost func(ctx context.Context, host string) ([]string, error)

// unreachable returns the error of Connect. It says what gRPC's own text does not: that a host name is not known, or that the server
// asked for a client certificate.
func (c *Client) unreachable(ctx context.Context, err error, lookup lookupHost) error {
	target := strings.TrimPrefix(c.conn.Target(), listScheme+":///")
	err = newError("connect to "+target, err)
	e, ok := errors.AsType[*Error](err)
	if !ok || e.Code != codes.Unavailable {
		return err
	}
	if c.certificateAsked.Load() && lostAfterDial(e.Message) {
		e.Message += "; the server asked for a client certificate, and none was given"
		e.advice = "Set the client certificate and its key: " + EnvClientCert + " and " + EnvClientKey + ", or the flags of these names."
	} else if host := unknownHost(ctx, target, lookup); host != "" {
		e.Message = "the host " + host + " is not known"
		e.advice = "Check the name of the host."
	}
	return err
}

// notHandshake are parts of gRPC's errors whose cause is not that a server closed the connection after the handshake. There is no other
// sign of the cause, and the errors of the connection itself have the texts of the operating system.
var notHandshake = []string{"while dialing", "unexpected HTTP status", "resolver error", "lookup error"}

// lostAfterDial reports whether a connection may have failed in its handshake or later. A server that requires a certificate closes it then.
func lostAfterDial(message string) bool {
	return !slices.ContainsFunc(notHandshake, func(part string) bool { return strings.Contains(message, part) })
}

// unknownHost returns the first host of a target that has no address. Empty: all have one, or that cannot be said.
func unknownHost(ctx context.Context, target string, lookup lookupHost) string {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	for address := range strings.SplitSeq(strings.TrimPrefix(target, "dns:///"), ",") {
		host, _, err := net.SplitHostPort(strings.TrimSpace(address))
		if err != nil || host == "" || net.ParseIP(host) != nil || usesProxy(address) {
			continue
		}
		_, err = lookup(ctx, host)
		if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
			return host
		}
	}
	return ""
}

// usesProxy reports whether gRPC connects through a proxy of the environment, which looks up the host itself.
func usesProxy(address string) bool {
	proxy, err := http.ProxyFromEnvironment(&http.Request{URL: &url.URL{Scheme: "https", Host: strings.TrimSpace(address)}})
	return err == nil && proxy != nil
}
