package lpfileshare

import (
	"fmt"
	"net"
	"strings"

	"google.golang.org/grpc/resolver"
)

// listScheme is the scheme of gRPC targets that are a list of servers.
const listScheme = "lpfileshare"

// A serverList resolves to a fixed list of servers. Calls are distributed over those that are reachable and healthy. Each host name
// is looked up again for each connection.
type serverList []resolver.Endpoint

// parseTargets splits a list of targets. It returns nil for a single target, which gRPC parses itself.
func parseTargets(target string) (serverList, error) {
	if !strings.Contains(target, ",") {
		return nil, nil
	}
	var list serverList
	for t := range strings.SplitSeq(target, ",") {
		t = strings.TrimSpace(t)
		host, _, err := net.SplitHostPort(t)
		if err != nil { // no port: the same default as gRPC's for a single name
			host = strings.Trim(t, "[]")
			t = net.JoinHostPort(host, "443")
		}
		if host == "" || strings.ContainsAny(t, "/ ") || err != nil && strings.Contains(host, ":") && net.ParseIP(host) == nil {
			return nil, fmt.Errorf("%q is not the address of a server; each in a list must be HOST or HOST:PORT", t)
		}
		// The certificate is checked against this name, not against the whole list.
		list = append(list, resolver.Endpoint{Addresses: []resolver.Address{{Addr: t, ServerName: host}}})
	}
	return list, nil
}

// Scheme implements resolver.Builder.
func (serverList) Scheme() string { return listScheme }

// Build implements resolver.Builder. The list never changes, so it is reported once.
func (l serverList) Build(_ resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	if err := cc.UpdateState(resolver.State{Endpoints: l}); err != nil {
		return nil, fmt.Errorf("servers: %w", err)
	}
	return resolved{}, nil
}

// resolved is a resolver without further updates.
type resolved struct{}

func (resolved) ResolveNow(resolver.ResolveNowOptions) {}
func (resolved) Close()                                {}
