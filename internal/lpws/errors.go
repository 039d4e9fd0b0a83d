package lpws

import (
	"errors"
	"fmt"
	"time"

	"github.com/gorilla/websocket"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/netrules"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// answerError returns the error for an answer that failed.
func answerError(s lpwire.Step, f *frame) error {
	if f.Code <= 399 {
		return lpwire.Refused(s)
	}
	return lpwire.Failure(s, int(f.Code), f.errorCode())
}

// effectError is answerError for a request with an effect: see lpwire.EffectFailure.
func effectError(s lpwire.Step, f *frame) *share.Error {
	if f.Code <= 399 {
		return lpwire.Refused(s)
	}
	return lpwire.EffectFailure(lpwire.Socket, s, int(f.Code), f.errorCode())
}

// errUnavailable returns the error for a LivePerson that is unreachable, or that lost the connection.
func errUnavailable(cause error) *share.Error {
	return &share.Error{
		Kind: share.LPUnavailable, Message: "LivePerson is unreachable; retry later", RetryAfter: lpwire.UnavailableWait, Cause: cause,
	}
}

// errTimeout ends a call that LivePerson did not answer within Config.CallTimeout.
var errTimeout error = share.Errorf(share.LPTimeout, "LivePerson did not answer in time", nil)

// errTooLate ends a call whose deadline passed before its frame was written.
var errTooLate error = share.Errorf(share.LPTimeout, "timed out before the request could be sent; nothing was sent to LivePerson", nil)

// errOpenTimeout ends an opening that exceeds Config.OpenTimeout.
var errOpenTimeout error = &share.Error{
	Kind: share.LPUnavailable, Message: "LivePerson did not open the session in time; retry later", RetryAfter: lpwire.UnavailableWait,
}

// errIdentityEnded ends a session whose credential has expired or is no longer accepted by LivePerson.
func errIdentityEnded(cause error) error {
	return share.Errorf(share.LPIdentityExpired, "LivePerson ended the session because the identity expired; renew the token or sign in again", cause)
}

// errSignedOut ends a session whose identity has signed out.
var errSignedOut error = share.Errorf(share.LPIdentityExpired, "the agent has signed out; sign in again", nil)

// errDraining ends everything when the pool is closed.
var errDraining error = &share.Error{Kind: share.ServerDraining, Message: "the server is shutting down; retry on another server", RetryAfter: time.Second}

// errTokensRejected means that LivePerson does not accept tokens that it has just issued. Callers cannot fix that.
var errTokensRejected error = share.Errorf(share.LPCredentialsRejected, "LivePerson rejects the tokens that it issues for the server's own credentials; "+
	"the operator must check the account's identity settings, in LivePerson and on this server", nil)

// errReplaced closes a connection after another one has replaced it.
var errReplaced = errors.New("another connection replaced this one")

// errIdle ends a session that no caller uses.
var errIdle = errors.New("the session is idle")

// errNoConnection is why a call ends that waited for a lost connection.
var errNoConnection = errors.New("the connection was lost and is not open again yet")

func errSessionLimit() error {
	e := share.Errorf(share.SessionLimit, "the server has reached its limit of LivePerson sessions; retry later", nil)
	e.RetryAfter = time.Second
	return e.With("limit", "sessions")
}

func errSessionShare() error {
	e := share.Errorf(share.SessionLimit, "the identity, or its account, uses its share of LivePerson sessions; end some of its calls, or retry later", nil)
	return e.With("limit", "caller")
}

func errNoConversation() error {
	return share.Errorf(share.ConversationNotFound, "no such conversation or dialog among those of the identity", nil)
}

func errClosed() *share.Error {
	return share.Errorf(share.ConversationClosed, "the conversation or dialog is closed; start a new one", nil)
}

// errDialogTooLarge ends the reading of a dialog whose files need more memory than one dialog may use.
func errDialogTooLarge() error {
	return share.Errorf(share.ConversationTooLarge, "the conversation has more files than this server reads", nil)
}

// errNoMemory ends the reading of a dialog while others use the memory for files.
func errNoMemory() error {
	return share.Reject(share.SessionLimit, "the server's memory for lists of files is in use; retry later").With("limit", "lists")
}

// errDiscarded ends the reading of a dialog with a message over Config.MaxFrame.
func errDiscarded() error {
	return share.Errorf(share.LPProtocolError, "LivePerson sent a message over the server's size limit; please report it", nil)
}

func errTooSlow() error {
	return share.Errorf(share.WatchTooSlow, "the reader of the watch is too slow; start a new watch with the last resume token", nil)
}

// errWatchClosed is the error of a watch after Close.
var errWatchClosed error = share.Errorf(share.Internal, "the watch is closed", nil)

// withKind returns err if it names a condition, and LPUnavailable otherwise.
func withKind(err error) error {
	if share.KindOf(err) == "" {
		return errUnavailable(err)
	}
	return err
}

// closeReason is why a connection ended.
type closeReason struct {
	kind  closeKind
	code  int   // LivePerson's close code; 0 if there is none
	cause error // for the log; free of secrets
}

type closeKind int

const (
	closedByPeer     closeKind = iota // the network or LivePerson ended it; another connection may work
	closedIdentity                    // LivePerson no longer accepts the credential
	closedUnreadable                  // a frame was malformed
	closedTooLarge                    // a frame exceeded Config.MaxFrame
	closedLocally                     // this server closed it; cause says why
	closedReplaced                    // this server closed it, and there is or will be another connection
)

// local reports whether this server closed the connection.
func (r *closeReason) local() bool { return r.kind == closedLocally || r.kind == closedReplaced }

// retryable reports whether a call may succeed on another connection.
func (r *closeReason) retryable() bool { return r.kind == closedByPeer || r.kind == closedReplaced }

func (r *closeReason) Error() string { return r.cause.Error() }
func (r *closeReason) Unwrap() error { return r.cause }

// callError returns the error for a call that was pending when the connection ended.
func (r *closeReason) callError() error {
	switch r.kind {
	case closedIdentity:
		return errIdentityEnded(r.cause)
	case closedUnreadable:
		return share.Errorf(share.LPProtocolError, "LivePerson sent a malformed frame; please report it", r.cause)
	case closedTooLarge:
		return share.Errorf(share.LPProtocolError, "LivePerson sent a frame over the server's size limit; please report it", r.cause)
	case closedLocally:
		return withKind(r.cause)
	}
	return errUnavailable(r.cause)
}

// sanitize returns what may be logged of err: see netrules.SafeError.
func sanitize(err error) error {
	if c, ok := errors.AsType[*websocket.CloseError](err); ok {
		return netrules.NewSafe(fmt.Sprintf("closed with code %d", c.Code))
	}
	return netrules.SafeError(err)
}
