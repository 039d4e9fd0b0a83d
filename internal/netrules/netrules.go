// Package netrules holds the rules that all clients of remote servers follow: how long a Retry-After is honoured, what may be
// shown of a network error, and which hosts are this machine.
package netrules

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// MaxRetryAfter is the longest Retry-After that is honoured. A wrong value, such as a date by a wrong clock, must not lock an
// account out: after five minutes everything else that the server remembers of a host is looked up again too.
const MaxRetryAfter = 5 * time.Minute

// RetryAfter reads the Retry-After header, in seconds or as a date, and returns at most MaxRetryAfter. It returns 0 if the header
// is absent, unreadable or in the past.
func RetryAfter(header http.Header) time.Duration {
	text := header.Get("Retry-After")
	var wait time.Duration
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		wait = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(text); err == nil {
		wait = time.Until(at)
	}
	return min(max(wait, 0), MaxRetryAfter)
}

// IsLoopback reports whether host, without port and brackets, is this machine by its name alone: "localhost" or a loopback
// address. It resolves nothing.
func IsLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback()
}

// Peer returns the part of a peer's address that stands for one subscriber, as limits per address see it: an IPv4 address, or the /64
// network of an IPv6 address, in which one host can have any number of addresses. Other addresses, such as those of Unix sockets, are
// one peer.
func Peer(a net.Addr) string {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return ""
	}
	ip, ok := netip.AddrFromSlice(tcp.IP)
	if !ok {
		return ""
	}
	prefix := PeerPrefix(ip)
	if prefix.IsSingleIP() {
		return prefix.Addr().String()
	}
	return prefix.String()
}

// PeerPrefix returns the prefix of an address that stands for one subscriber: see Peer. It is the zero Prefix for the zero Addr.
func PeerPrefix(a netip.Addr) netip.Prefix {
	a = a.Unmap().WithZone("")
	bits := a.BitLen()
	if a.Is6() {
		bits = 64
	}
	prefix, _ := a.Prefix(bits) // fails for the zero Addr only
	return prefix
}

// A safeError has no secrets in its text.
type safeError struct {
	text  string
	cause error
}

func (e *safeError) Error() string { return e.text }

func (e *safeError) Unwrap() error { return e.cause }

// NewSafe returns an error with a text that contains no secrets, which SafeError does not change.
func NewSafe(text string) error { return &safeError{text: text} }

// SafeError returns what may be logged of a network error: its reason in fixed words, with the address of a failed connection.
// The error itself may contain a URL with its signature, a token or the peer's own text, so it is not wrapped. Errors of the
// operating system, of package io and of contexts can still be found with errors.Is. An error that SafeError or NewSafe returned is
// returned again.
func SafeError(err error) error {
	if e, ok := errors.AsType[*safeError](err); ok {
		return e
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Addr != nil && op.Err != nil {
		cause := SafeError(op.Err)
		return &safeError{fmt.Sprintf("%s %s: %s", op.Op, op.Addr, cause), cause}
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		return errno
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return dnsError(dns)
	}
	if text := certificateFault(err); text != "" {
		return NewSafe(text)
	}
	for _, known := range []error{
		context.Canceled, context.DeadlineExceeded, os.ErrDeadlineExceeded, io.ErrUnexpectedEOF, io.EOF, net.ErrClosed,
	} {
		if errors.Is(err, known) {
			return known
		}
	}
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		return os.ErrDeadlineExceeded
	}
	return NewSafe(fmt.Sprintf("the connection failed (%T)", err))
}

func dnsError(err *net.DNSError) error {
	switch {
	case err.IsNotFound:
		return NewSafe("the host name has no address")
	case err.IsTimeout:
		return NewSafe("resolving the host name timed out")
	}
	return NewSafe("the host name cannot be resolved")
}

// certificateFault says why a peer's certificate was rejected; empty if err is about something else.
func certificateFault(err error) string {
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return "the host's certificate is signed by an unknown authority"
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return "the host's certificate is for another host"
	}
	if invalid, ok := errors.AsType[x509.CertificateInvalidError](err); ok && invalid.Reason == x509.Expired {
		return "the host's certificate has expired or is not valid yet"
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return "the host's certificate is not trusted"
	}
	return ""
}
