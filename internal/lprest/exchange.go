package lprest

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/netrules"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// maxBody is the maximum length of a response body, in bytes.
const maxBody = 1 << 20

// A Request is one HTTP request to a LivePerson service.
type Request struct {
	// Name says in logs what the request does. It must not contain a caller's data.
	Name string
	// Service is the service's name, for messages.
	Service string
	Method  string
	// URL has no query. SendService sets it.
	URL   string
	Query url.Values
	// Header replaces the headers that Send sets; its keys are sent as they are spelled.
	Header http.Header
	// JSON is encoded as the body, unless it is nil. Form is encoded as the body instead, as a form.
	JSON any
	Form url.Values
}

// A Response is LivePerson's response to a Request. Its Body has at most 1 MiB; the body of an error response may be cut there.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// Cookies returns the cookies that the response sets.
func (r Response) Cookies() []*http.Cookie { return (&http.Response{Header: r.Header}).Cookies() }

// Success reports whether the status is 2xx.
func (r Response) Success() bool { return r.Status >= 200 && r.Status <= 299 }

// Send sends a request at most once and returns the response, whatever its status is. If it fails, sent reports whether
// LivePerson may have received the request nevertheless. Errors are LPTimeout, LPUnavailable, LPProtocolError for a body that is
// too long, Internal, or that of ctx, wrapped.
func (c *Client) Send(ctx context.Context, r Request) (resp Response, sent bool, err error) {
	start := time.Now()
	ctx, end := c.cfg.Step.Begin(ctx, share.SystemLivePerson, r.Name)
	resp, sent, err = c.send(ctx, r)
	end(failure(r, resp, err))
	c.log.Debug("LivePerson request", "call", r.Name, "status", resp.Status, "kind", string(share.KindOf(err)), "took", time.Since(start))
	return resp, sent, err
}

// failure returns the error of a step: err, or what a response says that nobody can use. Other responses may be what the caller expects.
func failure(r Request, resp Response, err error) error {
	if err == nil && (resp.Status >= 500 || resp.Status == http.StatusTooManyRequests || resp.Status == http.StatusRequestTimeout) {
		return Call{Request: r}.statusError(resp)
	}
	return err
}

func (c *Client) send(parent context.Context, r Request) (got Response, sent bool, err error) {
	ctx, cancel := context.WithTimeout(parent, c.cfg.Timeout)
	defer cancel()
	body, contentType, err := r.encode()
	if err != nil {
		return Response{}, false, share.Errorf(share.Internal, "the request to LivePerson cannot be encoded", nil)
	}
	once := sentOnce{body: body}
	ctx = once.watch(ctx)
	req, err := http.NewRequestWithContext(ctx, r.Method, r.URL, bytes.NewReader(body))
	if err != nil {
		return Response{}, false, share.Errorf(share.Internal, "the request to LivePerson cannot be made", nil) // err shows the URL
	}
	if len(body) > 0 {
		req.GetBody = once.bodyAgain
	}
	req.URL.RawQuery = r.Query.Encode()
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "lpfileshare")
	if r.Method == http.MethodGet {
		req.Header.Set("Cache-Control", "no-cache")
	} else {
		req.Header.Set("Content-Type", contentType)
	}
	for name, values := range r.Header {
		req.Header[name] = values
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return Response{}, once.connected.Load(), failed(parent, r.Service, err)
	}
	defer resp.Body.Close()
	got = Response{Status: resp.StatusCode, Header: resp.Header}
	got.Body, err = io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	switch {
	case resp.StatusCode >= 300: // the status says enough
	case err != nil:
		return Response{Status: resp.StatusCode}, true, failed(parent, r.Service, err)
	case len(got.Body) > maxBody:
		return Response{Status: resp.StatusCode}, true, share.Errorf(share.LPProtocolError, "LivePerson's response ("+r.Service+") is too long", nil)
	}
	return got, true, nil
}

func (r Request) encode() (body []byte, contentType string, err error) {
	switch {
	case r.Form != nil:
		return []byte(r.Form.Encode()), "application/x-www-form-urlencoded", nil
	case r.JSON != nil:
		body, err = json.Marshal(r.JSON)
	}
	return body, "application/json", err
}

// SendService looks up the host of an account's service and sends the request to path there. If the host cannot be reached, the
// next call looks it up again. Errors are those of Send and BaseURL.
func (c *Client) SendService(ctx context.Context, account, service, path string, r Request) (resp Response, sent bool, err error) {
	base, err := c.BaseURL(ctx, account, service)
	if err != nil {
		return Response{}, false, err
	}
	r.Service, r.URL = service, base+path
	resp, sent, err = c.Send(ctx, r)
	c.forgetUnreachable(account, service, err)
	return resp, sent, err
}

// A Call is a Request that must succeed: CallService turns any other status into an error.
type Call struct {
	Request
	// Rejected maps statuses that have a meaning of their own for this call to their errors.
	Rejected map[int]*share.Error
	// RateWait is the minimum wait after a 429. 0 means 1 second.
	RateWait time.Duration
}

// CallService is SendService for a request that must succeed. Besides its errors there are those of Call.Rejected,
// LPCredentialsRejected, LPRateLimited, LPUnavailable and LPProtocolError, by the status.
func (c *Client) CallService(ctx context.Context, account, service, path string, k Call) (Response, error) {
	resp, _, err := c.SendService(ctx, account, service, path, k.Request)
	if err != nil {
		return Response{}, err
	}
	k.Service = service
	err = k.statusError(resp)
	c.forgetUnreachable(account, service, err)
	return resp, err
}

func (c *Client) forgetUnreachable(account, service string, err error) {
	if share.Is(err, share.LPUnavailable, share.LPTimeout) {
		c.Forget(account, service)
	}
}

// statusError returns the error of a status that is not a success.
func (k Call) statusError(resp Response) error {
	if resp.Success() {
		return nil
	}
	if e := k.Rejected[resp.Status]; e != nil {
		return e
	}
	cause := fmt.Errorf("HTTP status %d", resp.Status)
	switch status := resp.Status; {
	case status == http.StatusTooManyRequests:
		e := share.Errorf(share.LPRateLimited, "LivePerson ("+k.Service+") limits the rate of requests; wait and retry", cause)
		e.RetryAfter = max(k.RateWait, time.Second, netrules.RetryAfter(resp.Header))
		return e
	case status == http.StatusUnauthorized, status == http.StatusForbidden, status == http.StatusUnavailableForLegalReasons:
		return share.Errorf(share.LPCredentialsRejected, "LivePerson ("+k.Service+") rejects the credentials", cause)
	case status >= 500 || status == http.StatusRequestTimeout:
		e := share.Errorf(share.LPUnavailable, "LivePerson ("+k.Service+") reports an internal failure; retry later", cause)
		e.RetryAfter = max(lpwire.UnavailableWait, netrules.RetryAfter(resp.Header))
		return e
	default:
		return share.Errorf(share.LPProtocolError, fmt.Sprintf("LivePerson (%s) returned the unexpected status %d", k.Service, status), nil)
	}
}

// RejectedAs gives several statuses one meaning, for Call.Rejected.
func RejectedAs(kind share.Kind, message string, statuses ...int) map[int]*share.Error {
	m := make(map[int]*share.Error, len(statuses))
	for _, s := range statuses {
		m[s] = share.Errorf(kind, message, nil)
	}
	return m
}

// Unreadable returns the error for a successful response whose body is not what it should be. It does not show the body, which
// may contain secrets.
func Unreadable(service string) *share.Error {
	return share.Errorf(share.LPProtocolError, "LivePerson's response ("+service+") cannot be read", nil)
}

// failed returns the error of an exchange without a complete response. parent is the caller's context.
func failed(parent context.Context, service string, err error) error {
	if ctxErr := parent.Err(); ctxErr != nil {
		return fmt.Errorf("lprest: request to %s: %w", service, ctxErr)
	}
	kind, message := share.LPUnavailable, "LivePerson ("+service+") cannot be reached; retry later"
	timeout, ok := errors.AsType[net.Error](err)
	if errors.Is(err, context.DeadlineExceeded) || ok && timeout.Timeout() {
		kind, message = share.LPTimeout, "LivePerson ("+service+") did not respond in time; retry later"
	}
	e := share.Errorf(kind, message, netrules.SafeError(err))
	e.RetryAfter = lpwire.UnavailableWait
	return e
}

// sentOnce keeps net/http from sending a request a second time once it may have arrived: a repeated login with a wrong password
// locks its user out, and a repeated message is published twice. Over HTTP/1.1 net/http repeats a POST only if not a byte of it
// was written, which is safe. Over HTTP/2 it also repeats one whose stream the peer reset with PROTOCOL_ERROR, whatever the peer
// did before that. It does not report which of the two happened.
type sentOnce struct {
	body      []byte
	connected atomic.Bool // there was a connection to write to, so the request may have left
	http2     atomic.Bool
	wrote     atomic.Bool // the headers were written
}

func (o *sentOnce) watch(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(info httptrace.GotConnInfo) {
			conn, ok := info.Conn.(*tls.Conn)
			o.http2.Store(ok && conn.ConnectionState().NegotiatedProtocol == "h2")
			o.connected.Store(true)
		},
		WroteHeaders: func() { o.wrote.Store(true) },
	})
}

// bodyAgain is the request's GetBody, which net/http calls before it sends the request again.
func (o *sentOnce) bodyAgain() (io.ReadCloser, error) {
	if o.http2.Load() && o.wrote.Load() {
		return nil, errors.New("the stream was reset, and the request may have been processed")
	}
	return io.NopCloser(bytes.NewReader(o.body)), nil
}
