package lprest

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/lpfileshare/lpfileshare/internal/netrules"
)

var (
	serviceName = regexp.MustCompile(`^[A-Za-z0-9]{1,64}$`)
	hostName    = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*$`)
)

var defaultSuffixes = []string{".liveperson.net", ".lpsnmedia.net", ".liveperson.com"}

// A hostRule decides which hosts LivePerson may name.
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
			return hostRule{}, fmt.Errorf(`%q is neither a suffix nor a host; use ".example.com" for every host below it, or one host, without scheme and port`, s)
		}
	}
	return rule, nil
}

var errHostNotAllowed = errors.New("outside the allowed suffixes")

// base checks a host that LivePerson named as host[:port], and returns its base URL.
func (rule hostRule) base(named string) (string, error) {
	hostport, host, err := splitHost(named)
	if err != nil {
		return "", err
	}
	if rule.plainHTTP {
		if !netrules.IsLoopback(host) {
			return "", errors.New("not on loopback; plain HTTP is for loopback only")
		}
		return "http://" + hostport, nil
	}
	if rule.exact[host] {
		return "https://" + hostport, nil
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return "", errHostNotAllowed
	}
	for _, suffix := range rule.below {
		if len(host) > len(suffix) && strings.HasSuffix(host, suffix) {
			return "https://" + hostport, nil
		}
	}
	return "", errHostNotAllowed
}

// configuredBase checks a base URL or host[:port] of the operator, and returns the base URL.
func configuredBase(where string, plainHTTP bool) (string, error) {
	const form = `use "https://host[:port]", without path, query and user`
	scheme := "https"
	if plainHTTP {
		scheme = "http"
	}
	hostport := where
	if strings.Contains(where, "://") {
		u, err := url.Parse(where)
		if err != nil || u.User != nil || (u.Path != "" && u.Path != "/") || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || u.Opaque != "" {
			return "", errors.New(form) // where itself may contain a password
		}
		scheme, hostport = u.Scheme, u.Host
	}
	hostport, host, err := splitHost(hostport)
	switch {
	case err != nil:
		return "", fmt.Errorf("%w; %s", err, form)
	case scheme != "http" && scheme != "https":
		return "", fmt.Errorf("%q is neither http nor https; %s", scheme, form)
	case scheme == "http" && !netrules.IsLoopback(host):
		return "", fmt.Errorf("%s is not on loopback, and tokens must not be sent over plain HTTP to other hosts; use https", host)
	}
	return scheme + "://" + hostport, nil
}

// CheckHost checks a value of Config.Overrides.
func CheckHost(where string, plainHTTP bool) error {
	_, err := configuredBase(where, plainHTTP)
	return err
}

// CheckSuffix checks one of Config.Suffixes.
func CheckSuffix(suffix string) error {
	_, err := newHostRule([]string{suffix}, false)
	return err
}

// splitHost checks the form host[:port]. It returns both in lower case, and the host alone, without the brackets of an IPv6 address.
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
