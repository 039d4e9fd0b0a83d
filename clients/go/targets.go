package lpfileshare

import (
	"fmt"
	"net"
	"strings"

	"google.golang.org/grpc/resolver"
)

// listScheme is the name under which gRPC knows a list of servers.
const listScheme = "lpfileshare"

// A serverList is servers that answer for each other, in gRPC's words: calls go to them in turn, and past those that cannot be
// reached or say that they are not well. Their names are looked up anew for each connection.
type serverList []resolver.Endpoint

// parseTargets takes a list of targets apart. It returns nil for a single one, which is gRPC's to understand.
func parseTargets(target string) (serverList, error) {
	if !strings.Contains(target, ",") {
		return nil, nil
	}
	var list serverList
	for t := range strings.SplitSeq(target, ",") {
		t = strings.TrimSpace(t)
		host, _, err := net.SplitHostPort(t)
		if err != nil { // no port: as gRPC has it for a single name
			host = strings.Trim(t, "[]")
			t = net.JoinHostPort(host, "443")
		}
		if host == "" || strings.ContainsAny(t, "/ ") || err != nil && strings.Contains(host, ":") && net.ParseIP(host) == nil {
			return nil, fmt.Errorf("%q is not the address of a server; in a list each is HOST or HOST:PORT", t)
		}
		// The certificate is held against the name in the list, not against the list.
		list = append(list, resolver.Endpoint{Addresses: []resolver.Address{{Addr: t, ServerName: host}}})
	}
	return list, nil
}

// Scheme makes it a resolver.Builder.
func (serverList) Scheme() string { return listScheme }

// Build tells a connection all that there ever is to tell.
func (l serverList) Build(_ resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	if err := cc.UpdateState(resolver.State{Endpoints: l}); err != nil {
		return nil, fmt.Errorf("servers: %w", err)
	}
	return resolved{}, nil
}

// resolved is a resolver that has nothing left to do.
type resolved struct{}

func (resolved) ResolveNow(resolver.ResolveNowOptions) {}
func (resolved) Close()                                {}
