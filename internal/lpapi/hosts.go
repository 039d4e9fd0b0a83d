package lpapi

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
)

var (
	serviceName = regexp.MustCompile(`^[A-Za-z0-9]{1,64}$`)
	hostName    = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)
)

var defaultSuffixes = []string{".liveperson.net", ".lpsnmedia.net", ".liveperson.com"}

// A hostRule says which hosts LivePerson may name.
type hostRule struct {
	below     []string // ".example.com"
	exact     map[string]bool
	plainHTTP bool
}

func newHostRule(suffixes []string, plainHTTP bool) (hostRule, error) {
	if len(suffixes) == 0 {
		suffixes = defaultSuffixes
	}
	rule := hostRule{exact: map[string]bool{}, plainHTTP: plainHTTP}
	for _, s := range suffixes {
		host := strings.ToLower(s)
		name, isSuffix := strings.CutPrefix(host, ".")
		_, err := netip.ParseAddr(host)
		switch {
		case isSuffix && hostName.MatchString(name):
			rule.below = append(rule.below, host)
		case !isSuffix && (err == nil || hostName.MatchString(host)):
			rule.exact[host] = true
		default:
			return hostRule{}, fmt.Errorf(`%q is neither a suffix nor a host; give ".example.com" for every host below it, or one host, without scheme and port`, s)
		}
	}
	return rule, nil
}

// errHostRefused says that a host may not be used.
var errHostRefused = errors.New("outside the allowed suffixes")

// base checks a host that LivePerson named, host[:port] as its answers have it, and returns its base URL.
func (rule hostRule) base(named string) (string, error) {
	hostport, host, err := splitHost(named)
	if err != nil {
		return "", err
	}
	if rule.plainHTTP {
		if !loopback(host) {
			return "", errors.New("not on loopback, and plain HTTP goes nowhere else")
		}
		return "http://" + hostport, nil
	}
	if rule.exact[host] {
		return "https://" + hostport, nil
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return "", errHostRefused
	}
	for _, suffix := range rule.below {
		if len(host) > len(suffix) && strings.HasSuffix(host, suffix) {
			return "https://" + hostport, nil
		}
	}
	return "", errHostRefused
}

// configuredBase reads a base URL or host[:port] that the operator gave.
func configuredBase(where string, plainHTTP bool) (string, error) {
	const form = `give "https://host[:port]", without path, query and user`
	scheme := "https"
	if plainHTTP {
		scheme = "http"
	}
	hostport := where
	if strings.Contains(where, "://") {
		u, err := url.Parse(where)
		if err != nil || u.User != nil || (u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Opaque != "" {
			return "", errors.New(form) // where itself may hold a password
		}
		scheme, hostport = u.Scheme, u.Host
	}
	hostport, host, err := splitHost(hostport)
	switch {
	case err != nil:
		return "", fmt.Errorf("%w; %s", err, form)
	case scheme != "http" && scheme != "https":
		return "", fmt.Errorf("%q is neither http nor https; %s", scheme, form)
	case scheme == "http" && !loopback(host):
		return "", fmt.Errorf("tokens go over plain HTTP to loopback only, and %s is not there; use https", host)
	}
	return scheme + "://" + hostport, nil
}

// CheckHost says what is wrong with a value of Config.Overrides.
func CheckHost(where string, plainHTTP bool) error {
	_, err := configuredBase(where, plainHTTP)
	return err
}

// CheckSuffix says what is wrong with one of Config.Suffixes.
func CheckSuffix(suffix string) error {
	_, err := newHostRule([]string{suffix}, false)
	return err
}

// splitHost checks the form host[:port], and returns it in lower case, and the host alone without an IPv6 address's brackets.
func splitHost(s string) (hostport, host string, err error) {
	if len(s) == 0 || len(s) > 260 {
		return "", "", errors.New("not a host: empty or too long")
	}
	s = strings.ToLower(s)
	host, port := s, ""
	if strings.HasPrefix(s, "[") || strings.Contains(s, ":") {
		if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
			host = s[1 : len(s)-1]
		} else if host, port, err = net.SplitHostPort(s); err != nil {
			return "", "", errors.New("not of the form host[:port]")
		} else if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
			return "", "", errors.New("not a port")
		}
	}
	ip, err := netip.ParseAddr(host)
	if err == nil && ip.Zone() != "" || err != nil && (len(host) > 253 || !hostName.MatchString(host)) {
		return "", "", errors.New("not a host name")
	}
	if (err == nil && ip.Is6()) != strings.HasPrefix(s, "[") {
		return "", "", errors.New("not a host name: brackets are for IPv6 addresses, which need them")
	}
	return s, host, nil
}

// loopback reports whether host, without port, is this machine by name or address.
func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}
