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
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

func TestRetryAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for text, want := range map[string]time.Duration{
			"":                     0,
			"0":                    0,
			"7":                    7 * time.Second,
			"300":                  MaxRetryAfter,
			"3600":                 MaxRetryAfter,
			"-1":                   0,
			"1.5":                  0,
			"soon":                 0,
			"99999999999999999999": 0,
			time.Now().Add(20 * time.Second).UTC().Format(http.TimeFormat):    20 * time.Second,
			time.Now().Add(-20 * time.Second).UTC().Format(http.TimeFormat):   0,
			time.Now().Add(20 * 24 * time.Hour).UTC().Format(http.TimeFormat): MaxRetryAfter,
			time.Now().Add(20*24*time.Hour).UTC().Format(time.RFC3339) + " x": 0,
		} {
			if got := RetryAfter(http.Header{"Retry-After": {text}}); got != want {
				t.Errorf("%q: %s, want %s", text, got, want)
			}
		}
		if got := RetryAfter(http.Header{}); got != 0 {
			t.Errorf("without the header: %s", got)
		}
	})
}

func TestIsLoopback(t *testing.T) {
	for host, want := range map[string]bool{
		"localhost": true, "LocalHost": true, "127.0.0.1": true, "127.9.9.9": true, "::1": true, "::ffff:127.0.0.1": true,
		"": false, "localhost.example": false, "127.0.0.1.example": false, "10.0.0.1": false, "0.0.0.0": false, "::": false, "[::1]": false,
	} {
		if got := IsLoopback(host); got != want {
			t.Errorf("%q: %t, want %t", host, got, want)
		}
	}
}

type timeoutError struct{}

func (timeoutError) Error() string   { return "https://host/?sig=open-sesame timed out" }
func (timeoutError) Timeout() bool   { return true }
func (timeoutError) Temporary() bool { return true }

func TestSafeError(t *testing.T) {
	const secret = "open-sesame"
	addr := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443}
	inURL := func(err error) error {
		return fmt.Errorf("put: %w", &url.Error{Op: "Put", URL: "https://host/?temp_url_sig=" + secret, Err: err})
	}
	for name, c := range map[string]struct {
		err  error
		text string
		is   error
	}{
		"refused":     {inURL(&net.OpError{Op: "dial", Net: "tcp", Addr: addr, Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}), "dial 127.0.0.1:443: connection refused", syscall.ECONNREFUSED},
		"peer's text": {inURL(&net.OpError{Op: "read", Net: "tcp", Addr: addr, Err: errors.New(secret)}), "read 127.0.0.1:443: the connection failed (*errors.errorString)", nil},
		"reset":       {inURL(syscall.ECONNRESET), "connection reset by peer", syscall.ECONNRESET},
		"no host":     {inURL(&net.DNSError{Err: secret, Name: secret, IsNotFound: true}), "the host name has no address", nil},
		"slow DNS":    {inURL(&net.DNSError{Err: secret, IsTimeout: true}), "resolving the host name timed out", nil},
		"broken DNS":  {inURL(&net.DNSError{Err: secret}), "the host name cannot be resolved", nil},
		"unknown CA":  {inURL(&tls.CertificateVerificationError{Err: x509.UnknownAuthorityError{}}), "the host's certificate is signed by an unknown authority", nil},
		"other host":  {inURL(&tls.CertificateVerificationError{Err: x509.HostnameError{Certificate: &x509.Certificate{}, Host: secret}}), "the host's certificate is for another host", nil},
		"expired":     {inURL(&tls.CertificateVerificationError{Err: x509.CertificateInvalidError{Reason: x509.Expired, Detail: secret}}), "the host's certificate has expired or is not valid yet", nil},
		"untrusted":   {inURL(&tls.CertificateVerificationError{Err: errors.New(secret)}), "the host's certificate is not trusted", nil},
		"timeout":     {inURL(timeoutError{}), "i/o timeout", os.ErrDeadlineExceeded},
		"deadline":    {inURL(context.DeadlineExceeded), "context deadline exceeded", context.DeadlineExceeded},
		"cut":         {inURL(fmt.Errorf("%s: %w", secret, io.ErrUnexpectedEOF)), "unexpected EOF", io.ErrUnexpectedEOF},
		"other":       {inURL(fmt.Errorf("malformed HTTP status code %q", secret)), "the connection failed (*fmt.fmtError)", nil},
	} {
		got := SafeError(c.err)
		if got.Error() != c.text && !(name == "other" && strings.HasPrefix(got.Error(), "the connection failed (")) {
			t.Errorf("%s: %q, want %q", name, got, c.text)
		}
		if c.is != nil && !errors.Is(got, c.is) {
			t.Errorf("%s: %v is not %v", name, got, c.is)
		}
		if again := SafeError(fmt.Errorf("wrapped: %w", got)); again.Error() != got.Error() {
			t.Errorf("%s: the second time it is %q", name, again)
		}
		if text := fmt.Sprintf("%+v %#v", got, got); strings.Contains(text, secret) {
			t.Errorf("%s shows the secret: %s", name, text)
		}
	}
}

func TestPeer_IsASubscriber(t *testing.T) {
	for addr, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1", "::1": "::/64",
		"2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64", "2001:db8:1:2::": "2001:db8:1:2::/64", "2001:db8:1:3::": "2001:db8:1:3::/64",
	} {
		if got := Peer(&net.TCPAddr{IP: net.ParseIP(addr), Port: 1}); got != want {
			t.Errorf("%s is %s, want %s", addr, got, want)
		}
	}
	for _, a := range []net.Addr{nil, &net.UnixAddr{Name: "x"}, &net.TCPAddr{}} {
		if got := Peer(a); got != "" {
			t.Errorf("%v is %s", a, got)
		}
	}
}
