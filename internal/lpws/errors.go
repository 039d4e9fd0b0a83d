package lpws

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"syscall"
	"time"

	"github.com/gorilla/websocket"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

const (
	// unavailableWait is what LivePerson asks callers to wait before the first repeat.
	unavailableWait = 5 * time.Second
	// throttledWait is the least wait after a 429.
	throttledWait = time.Second
)

// A step is what was asked of LivePerson. Where it fails, that decides what the failure means. Its text is the metadata "step".
type step string

const (
	stepOpen        step = "open"
	stepUploadURL   step = "upload_url"
	stepDownloadURL step = "download_url"
	stepPublish     step = "publish"
	stepReceipt     step = "receipt"
	stepCreate      step = "create_conversation"
	stepClose       step = "close_conversation"
	stepSubscribe   step = "subscribe"
)

// answerError is the condition that an answer with a code over 399 stands for. LivePerson's own words go nowhere.
func answerError(s step, f *frame) error {
	status, number := int(f.Code), f.errorCode()
	cause := fmt.Errorf("liveperson answered %s with %d (%d)", s, status, number)
	e := func(kind share.Kind, message string) *share.Error { return share.Errorf(kind, message, cause) }
	withCode := func(e *share.Error) *share.Error {
		e.Metadata = map[string]string{"lpErrorCode": strconv.FormatInt(number, 10), "step": string(s)}
		return e
	}
	switch {
	case status == 401 || number/100 == 401:
		return e(share.LPIdentityExpired, "LivePerson no longer accepts the identity; renew the token or sign in again")
	case status == 403 && s == stepUploadURL:
		return e(share.FileSharingDisabled, "file sharing is switched off for the account; an administrator switches it on by setting the site "+
			"property messaging.file.sharing.enabled to true (AccountService.SetFileSharing)")
	case status == 403:
		return e(share.LPForbidden, "LivePerson forbids this to the identity")
	case status == 404 && s == stepDownloadURL:
		return e(share.FileNotFound, "LivePerson has no such file for this identity")
	case status == 404 && s != stepUploadURL:
		return e(share.ConversationNotFound, "LivePerson knows no such conversation or dialog")
	case status == 429:
		err := e(share.LPRateLimited, "LivePerson asks for fewer requests")
		err.RetryAfter = throttledWait
		return err
	case status >= 500 && s == stepPublish && status != 501 && status != 503:
		// These say that something broke or took too long somewhere behind LivePerson's door, not that nothing was done, or they say
		// nothing that is known; and what may have been published must never be published again unseen, or be called refused.
		err := e(share.LPPublishUnconfirmed, "LivePerson reported trouble of its own, and may or may not have published the message; repeat under the "+
			"same request_id")
		err.RetryAfter = unavailableWait
		return err
	case status >= 500 && status <= 599:
		err := e(share.LPUnavailable, "LivePerson reports trouble of its own")
		err.RetryAfter = unavailableWait
		return err
	case (status == 400 || status == 413) && (s == stepUploadURL || s == stepDownloadURL || s == stepPublish):
		return withCode(e(share.LPRejectedFile, "LivePerson refuses the file; check its size and type against the account's limits"))
	case status == 400 && s == stepCreate:
		return withCode(e(share.InvalidField, "LivePerson refuses the conversation as it was asked for; check skill, campaign, engagement and context"))
	}
	return withCode(e(share.LPProtocolError, "LivePerson refused a request for no reason that is known here; please report it"))
}

// errUnreadable says that an answer of LivePerson does not hold what it must.
func errUnreadable(what string) error {
	return share.Errorf(share.LPProtocolError, "LivePerson's answer cannot be read: "+what+"; please report it", nil)
}

// errUnavailable says that LivePerson cannot be reached, or not for long enough.
func errUnavailable(cause error) *share.Error {
	return &share.Error{
		Kind: share.LPUnavailable, Message: "LivePerson cannot be reached; try again later", RetryAfter: unavailableWait, Cause: cause,
	}
}

// errTimeout is why a call ends that LivePerson did not answer in time.
var errTimeout error = share.Errorf(share.LPTimeout, "LivePerson did not answer in time", nil)

// errOpenTimeout is why opening ends that takes too long.
var errOpenTimeout error = &share.Error{
	Kind: share.LPUnavailable, Message: "LivePerson did not open the session in time; try again later", RetryAfter: unavailableWait,
}

// errUnconfirmed says that a message may have been published, and why that is not known.
func errUnconfirmed(cause error) error {
	return share.Errorf(share.LPPublishUnconfirmed, "LivePerson did not confirm the message, which may or may not have been published; repeat under the "+
		"same request_id: that never publishes twice", cause)
}

// errIdentityEnded ends a session whose credential LivePerson no longer accepts, or whose time is up.
func errIdentityEnded(cause error) error {
	return share.Errorf(share.LPIdentityExpired, "LivePerson ended the session because the identity expired; renew the token or sign in again", cause)
}

// errSignedOut ends a session whose identity has signed out.
var errSignedOut error = share.Errorf(share.LPIdentityExpired, "the agent has signed out; sign in again", nil)

// errDraining ends everything when the pool is closed.
var errDraining error = &share.Error{Kind: share.ServerDraining, Message: "the server is going down; repeat on another", RetryAfter: time.Second}

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
)

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
