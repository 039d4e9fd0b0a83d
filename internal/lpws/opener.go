package lpws

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/netrules"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// opener opens the connections of one session. Only one goroutine may use it at a time, except for aside.
type opener struct {
	p       *Pool
	cred    share.Credential
	dialect dialect
	renewal *renewal         // nil for a credential with its own token
	start   func(*transport) // starts the reader of a transport
	streams *atomic.Int64    // see transport
	log     func(message string)

	// Read by other goroutines.
	inFrame  atomic.Bool // send the credential in an InitConnection request
	openOnly atomic.Bool // subscribe to open conversations only, because all of them exceed a frame
}

// refusedUpgrade is an HTTP answer other than 101.
type refusedUpgrade struct {
	status     int
	retryAfter time.Duration // 0 if there is none
}

func (e *refusedUpgrade) Error() string {
	return fmt.Sprintf("the upgrade was answered %d", e.status)
}

// requestedWait returns the Retry-After of the upgrade that caused err; 0 if there is none.
func requestedWait(err error) time.Duration {
	if e, ok := errors.AsType[*refusedUpgrade](err); ok {
		return e.retryAfter
	}
	return 0
}

// open returns a connection on which LivePerson has accepted the credential and has listed the caller's conversations.
func (o *opener) open(ctx context.Context) (t *transport, err error) {
	ctx, end := o.p.cfg.Step.Begin(ctx, share.SystemLivePerson, string(lpwire.StepOpen))
	defer func() { end(err) }()
	if o.renewal == nil {
		return o.openOnce(ctx)
	}
	return o.openInstead(ctx, o.renewal.rejectedToken())
}

// openInstead opens a connection with a new token, other than instead. If LivePerson rejects that token, it tries one more.
func (o *opener) openInstead(ctx context.Context, instead string) (*transport, error) {
	for attempt := 1; ; attempt++ {
		if err := o.renewal.obtain(ctx, instead); err != nil {
			return nil, o.explain(ctx, err)
		}
		t, err := o.openOnce(ctx)
		if err == nil {
			o.renewal.accept()
		}
		if err != errTokensRejected || attempt == 2 {
			return t, err
		}
		instead = o.renewal.identity.current().token
	}
}

// openOnce opens a connection with the current token. It repeats the opening in another form where LivePerson requires that.
func (o *opener) openOnce(ctx context.Context) (*transport, error) {
	t, err := o.connect(ctx)
	if r, ok := errors.AsType[*closeReason](err); ok && r.kind == closedTooLarge && !o.openOnly.Load() {
		o.openOnly.Store(true)
		o.log("the list of conversations exceeds a frame; subscribing to the open ones only")
		t, err = o.connect(ctx)
	}
	if _, ok := o.dialect.initHeaders(); ok && !o.inFrame.Load() {
		if e, ok := errors.AsType[*refusedUpgrade](err); ok && (e.status == http.StatusBadRequest || e.status == http.StatusRequestHeaderFieldsTooLarge) {
			// A proxy may have rejected the header with the credential.
			o.inFrame.Store(true)
			if t, err = o.connect(ctx); err != nil {
				o.inFrame.Store(false)
			}
		}
	}
	if err != nil {
		return nil, o.explain(ctx, err)
	}
	return t, nil
}

// explain converts an error of an opening to the error for callers.
func (o *opener) explain(ctx context.Context, err error) error {
	if e, ok := errors.AsType[*refusedUpgrade](err); ok {
		return o.explainUpgrade(e)
	}
	if r, ok := errors.AsType[*closeReason](err); ok {
		if r.kind == closedIdentity || o.renewal != nil && o.renewal.identity.endsToken(r.code) {
			return o.dialect.rejected()
		}
		return r.callError()
	}
	if ctx.Err() != nil {
		if o.p.ctx.Err() != nil {
			return errDraining
		}
		return context.Cause(ctx)
	}
	if share.Is(err, share.LPIdentityExpired) {
		return o.dialect.rejected()
	}
	if share.KindOf(err) != "" {
		return err
	}
	return errUnavailable(sanitize(err))
}

func (o *opener) explainUpgrade(e *refusedUpgrade) error {
	switch {
	case e.status == http.StatusUnauthorized || e.status == http.StatusForbidden:
		return o.dialect.rejected()
	case e.status == http.StatusNotFound:
		return share.Errorf(share.NotAllowed, "LivePerson has no messaging for this account", e)
	case e.status == http.StatusTooManyRequests:
		return &share.Error{
			Kind: share.LPRateLimited, Message: "LivePerson's limit of new sessions is reached; retry later",
			RetryAfter: max(e.retryAfter, lpwire.ThrottledWait), Cause: e,
		}
	case e.status >= 500:
		unavailable := errUnavailable(e)
		unavailable.RetryAfter = max(e.retryAfter, lpwire.UnavailableWait)
		return unavailable
	}
	return share.Errorf(share.LPProtocolError, "LivePerson did not open a WebSocket; please report it", e)
}

// connect opens a socket and makes the first requests on it. Its errors are not for callers: see explain.
func (o *opener) connect(ctx context.Context) (*transport, error) {
	t, err := o.socket(ctx)
	if err != nil {
		return nil, err
	}
	o.start(t)
	return o.require(t, o.introduce(ctx, t))
}

// aside opens a socket that only reads messages: it does not list conversations. start starts its reader. It may be called at any
// time once the session is open.
func (o *opener) aside(ctx context.Context, start func(*transport) error) (*transport, error) {
	t, err := o.socket(ctx)
	if err == nil {
		t.whole = asideWhole
		if err = start(t); err != nil {
			_ = t.ws.Close()
		} else {
			t, err = o.require(t, o.authenticate(ctx, t))
		}
	}
	if err != nil {
		return nil, o.explain(ctx, err)
	}
	return t, nil
}

// require closes the transport if err is not nil.
func (o *opener) require(t *transport, err error) (*transport, error) {
	if err != nil {
		t.close(&closeReason{kind: closedLocally, cause: errIdle})
		<-t.done
		return nil, err
	}
	return t, nil
}

// socket opens a socket. The caller must start its reader.
func (o *opener) socket(ctx context.Context) (*transport, error) {
	base, err := o.p.cfg.SocketURL(ctx, o.cred.Account, o.socketScheme())
	if err != nil {
		return nil, err
	}
	ws, err := o.dial(ctx, strings.TrimRight(base, "/"))
	if err != nil {
		if report := o.p.cfg.Unreachable; report != nil && ctx.Err() == nil && (share.KindOf(err) == "" || share.Is(err, share.LPUnavailable)) {
			report(o.cred.Account, o.socketScheme())
		}
		return nil, err
	}
	ws.SetReadLimit(maxStream)
	keepAlive := o.p.cfg.KeepAlive
	t := newTransport(o.p.lastTransport.Add(1), ws, &o.p.wg, &o.p.readBuffers, keepAlive*5/2, o.p.cfg.MaxFrame, o.streams, o.dialect.endsIdentity)
	t.nextPing.Store(time.Now().Add(keepAlive/2 + rand.N(keepAlive/2+1)).UnixNano()) // spread, so that not all sessions ping at once
	return t, nil
}

// authenticate sends the credential, unless the upgrade has.
func (o *opener) authenticate(ctx context.Context, t *transport) error {
	headers, ok := o.dialect.initHeaders()
	if !ok || !o.inFrame.Load() {
		return nil
	}
	// LivePerson accepts no other request before it has answered this one.
	answer, _, err := t.roundTrip(ctx, request{Type: reqInit, Headers: headers})
	if err != nil {
		return err
	}
	if answer.failed() {
		if answer.Code == 400 || answer.Code == 403 {
			return o.dialect.rejected()
		}
		return answerError(lpwire.StepOpen, &answer)
	}
	return nil
}

// introduce makes LivePerson accept the credential on a new connection, and waits for the list of conversations.
func (o *opener) introduce(ctx context.Context, t *transport) error {
	if err := o.authenticate(ctx, t); err != nil {
		return err
	}
	answer, _, err := t.roundTrip(ctx, request{Type: o.dialect.requestType(reqSubscribeConvs), Body: o.subscription()})
	if err != nil {
		return err
	}
	if answer.failed() {
		if answer.Code == 403 {
			return share.Errorf(share.NotAllowed, "LivePerson does not permit the identity to read its conversations", nil)
		}
		return answerError(lpwire.StepOpen, &answer)
	}
	t.subscription = subscriptionID(&answer)
	select {
	case <-t.listed:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.done:
		return t.closeReason()
	}
}

// subscription returns the request for the caller's conversations.
func (o *opener) subscription() subscribeConversations {
	return o.dialect.subscription(o.openOnly.Load())
}

// socketScheme returns the scheme of the socket: a consumer whose tokens the server obtains uses the consumer socket.
func (o *opener) socketScheme() share.Scheme {
	if o.cred.Scheme == share.ExternalConsumerID {
		return share.ConsumerToken
	}
	return o.cred.Scheme
}

// dial opens the socket.
func (o *opener) dial(ctx context.Context, base string) (*websocket.Conn, error) {
	path, header := o.dialect.endpoint(o.inFrame.Load())
	var stop func() bool
	dialer := websocket.Dialer{
		Proxy:           http.ProxyFromEnvironment,
		TLSClientConfig: o.p.tls.Load(),
		ReadBufferSize:  1 << 10,  // each socket keeps one
		WriteBufferSize: 64 << 10, // pooled; large enough to send a message with its preview as one frame
		WriteBufferPool: &o.p.writeBuffers,
		NetDialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			nc, err := o.p.cfg.dial(ctx, network, addr)
			if err == nil {
				// The dialer checks the context only until it is connected, not during the upgrade.
				stop = context.AfterFunc(ctx, func() { _ = nc.Close() })
			}
			return nc, err
		},
	}
	ws, resp, err := dialer.DialContext(ctx, base+path, header)
	if stop != nil && !stop() && err == nil {
		_ = ws.Close()
		return nil, context.Cause(ctx)
	}
	if err == nil {
		return ws, nil
	}
	if resp != nil && errors.Is(err, websocket.ErrBadHandshake) {
		return nil, &refusedUpgrade{resp.StatusCode, netrules.RetryAfter(resp.Header)}
	}
	return nil, sanitize(err)
}
