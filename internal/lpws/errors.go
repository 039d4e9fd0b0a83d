package lpws

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"syscall"
	"time"

	"github.com/gorilla/websocket"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// answerError is the condition that an answer with a code over 399 stands for.
func answerError(s lpwire.Step, f *frame) error { return lpwire.Failure(s, int(f.Code), f.errorCode()) }

// errUnavailable says that LivePerson cannot be reached, or not for long enough.
func errUnavailable(cause error) *share.Error {
	return &share.Error{
		Kind: share.LPUnavailable, Message: "LivePerson cannot be reached; try again later", RetryAfter: lpwire.UnavailableWait, Cause: cause,
	}
}

// errTimeout is why a call ends that LivePerson did not answer in time.
var errTimeout error = share.Errorf(share.LPTimeout, "LivePerson did not answer in time", nil)

// errTooLate is why a call ends whose time was over before its frame could be written.
var errTooLate error = share.Errorf(share.LPTimeout, "LivePerson could not be told in time; nothing was sent to it", nil)

// errOpenTimeout is why opening ends that takes too long.
var errOpenTimeout error = &share.Error{
	Kind: share.LPUnavailable, Message: "LivePerson did not open the session in time; try again later", RetryAfter: lpwire.UnavailableWait,
}

// errIdentityEnded ends a session whose credential LivePerson no longer accepts, or whose time is up.
func errIdentityEnded(cause error) error {
	return share.Errorf(share.LPIdentityExpired, "LivePerson ended the session because the identity expired; renew the token or sign in again", cause)
}

// errSignedOut ends a session whose identity has signed out.
var errSignedOut error = share.Errorf(share.LPIdentityExpired, "the agent has signed out; sign in again", nil)

// errDraining ends everything when the pool is closed.
var errDraining error = &share.Error{Kind: share.ServerDraining, Message: "the server is going down; repeat on another", RetryAfter: time.Second}

// errReplaced ends a connection that another has taken the place of.
var errReplaced = errors.New("the session goes on over another connection")

// errIdle ends a session that nobody holds.
var errIdle = errors.New("nobody holds the session")

// A death is why a connection ended.
type death struct {
	kind deathKind
	code int   // close code, if LivePerson sent one
	text error // for the log; free of secrets
}

type deathKind int

const (
	deathLost     deathKind = iota // the network, or LivePerson, let go of it: another one may work
	deathIdentity                  // LivePerson does not accept the credential any more
	deathGarbage                   // something came that cannot be read
	deathTooBig                    // a frame over the limit came
	deathOurs                      // closed by us, as text says
	deathReplaced                  // closed by us, and there is another one, or will be
)

// ours reports whether it was we who closed the connection.
func (d *death) ours() bool { return d.kind == deathOurs || d.kind == deathReplaced }

// again reports whether another connection may do what this one did not.
func (d *death) again() bool { return d.kind == deathLost || d.kind == deathReplaced }

func (d *death) Error() string { return d.text.Error() }
func (d *death) Unwrap() error { return d.text }

// asError is d for the caller of a call that it ended.
func (d *death) asError() error {
	switch d.kind {
	case deathIdentity:
		return errIdentityEnded(d.text)
	case deathGarbage:
		return share.Errorf(share.LPProtocolError, "LivePerson sent something that cannot be read; please report it", d.text)
	case deathTooBig:
		return share.Errorf(share.LPProtocolError, "LivePerson sent more at once than the server takes; its limit for frames is too low", d.text)
	case deathOurs:
		if share.KindOf(d.text) != "" {
			return d.text
		}
	}
	return errUnavailable(d.text)
}

// A harmless is the text of an error that may be shown.
type harmless string

func (h harmless) Error() string { return string(h) }

// plain is err without anything that could be secret: the errors of dialling, of TLS and of HTTP hold URLs and whatever the peer
// said, so only what is known to be harmless passes.
func plain(err error) error {
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err
	}
	if h, ok := errors.AsType[harmless](err); ok {
		return h
	}
	if c, ok := errors.AsType[*websocket.CloseError](err); ok {
		return harmless(fmt.Sprintf("closed with code %d", c.Code))
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return harmless("the host's name cannot be resolved")
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return harmless("the host's certificate is not trusted")
	}
	if n, ok := errors.AsType[syscall.Errno](err); ok {
		return harmless(n.Error())
	}
	if n, ok := errors.AsType[net.Error](err); ok && n.Timeout() {
		return harmless("timed out")
	}
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return harmless("the connection ended")
	}
	return harmless(fmt.Sprintf("%T", err))
}
