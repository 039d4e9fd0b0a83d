package lpapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

const (
	// maxBody is the most that is read of an answer.
	maxBody = 1 << 20
	// unavailableWait is what LivePerson asks for after a failed call (retry-policy-recommendations: 5, 10, 15 s).
	unavailableWait = 5 * time.Second
	// maxRetryAfter is the longest wait that a peer can ask for.
	maxRetryAfter = 10 * time.Minute
)

// A call is one exchange with LivePerson.
type call struct {
	name    string // for logs: what it is, without a caller's data
	service string // for messages
	method  string
	url     string // without query
	query   url.Values
	header  http.Header
	body    any        // sent as JSON; nil: an empty body
	form    url.Values // sent instead of body, as a form's
	// refused are the errors of statuses that mean something to this call.
	refused map[int]*share.Error
	// cookies, if not nil, gets the cookies of a success.
	cookies *[]*http.Cookie
	// rateWait is the least wait after a 429. 0: 1 s.
	rateWait time.Duration
}

// ask looks up where a service of an account is and does k there; path is that behind the account.
func (c *Client) ask(ctx context.Context, account, service, path string, k call) ([]byte, error) {
	base, err := c.BaseURL(ctx, account, service)
	if err != nil {
		return nil, err
	}
	k.service = service
	k.url = base + "/api/account/" + account + path
	data, err := c.exchange(ctx, k)
	if share.Is(err, share.LPUnavailable, share.LPTimeout) {
		c.Forget(account, service)
	}
	return data, err
}

// exchange does k and returns the body of a success.
func (c *Client) exchange(ctx context.Context, k call) ([]byte, error) {
	start := time.Now()
	status, data, err := c.roundTrip(ctx, k)
	c.log.Debug("asked LivePerson", "call", k.name, "status", status, "kind", string(share.KindOf(err)), "took", time.Since(start))
	return data, err
}

func (c *Client) roundTrip(parent context.Context, k call) (status int, data []byte, err error) {
	ctx, cancel := context.WithTimeout(parent, c.cfg.Timeout)
	defer cancel()
	var body []byte
	if k.body != nil {
		if body, err = json.Marshal(k.body); err != nil {
			return 0, nil, share.Errorf(share.Internal, "the request to LivePerson cannot be written", nil)
		}
	}
	if k.form != nil {
		body = []byte(k.form.Encode())
	}
	once := sentOnce{body: body} // a password that is tried again and again locks its user out
	ctx = once.watch(ctx)
	req, err := http.NewRequestWithContext(ctx, k.method, k.url, bytes.NewReader(body))
	if err != nil {
		return 0, nil, share.Errorf(share.Internal, "the request to LivePerson cannot be made", nil) // err shows the URL
	}
	if len(body) > 0 {
		req.GetBody = once.again
	}
	req.URL.RawQuery = k.query.Encode()
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Cache-Control", "no-cache")
	req.Header.Set("User-Agent", "lpfileshare")
	if k.method != http.MethodGet {
		req.Header.Set("Content-Type", "application/json")
	}
	if k.form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	for name, values := range k.header {
		req.Header[name] = values
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, nil, broken(parent, k.service, err)
	}
	defer resp.Body.Close()
	if err := statusError(k, resp); err != nil {
		_, _ = io.CopyN(io.Discard, resp.Body, 16<<10) // so that the connection can be used again
		return resp.StatusCode, nil, err
	}
	data, err = io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err != nil {
		return resp.StatusCode, nil, broken(parent, k.service, err)
	}
	if len(data) > maxBody {
		return resp.StatusCode, nil, share.Errorf(share.LPProtocolError, "LivePerson's answer ("+k.service+") is too long", nil)
	}
	if k.cookies != nil {
		*k.cookies = resp.Cookies()
	}
	return resp.StatusCode, data, nil
}

// statusError says what a status other than a success means.
func statusError(k call, resp *http.Response) error {
	status := resp.StatusCode
	if status >= 200 && status <= 299 {
		return nil
	}
	if e := k.refused[status]; e != nil {
		return e
	}
	said := fmt.Errorf("HTTP status %d", status)
	switch {
	case status == http.StatusTooManyRequests:
		e := share.Errorf(share.LPRateLimited, "LivePerson ("+k.service+") asks for fewer requests; wait and try again", said)
		e.RetryAfter = max(k.rateWait, time.Second, retryAfter(resp))
		return e
	case status == http.StatusUnauthorized, status == http.StatusForbidden, status == http.StatusUnavailableForLegalReasons:
		return share.Errorf(share.LPCredentialsRejected, "LivePerson ("+k.service+") refuses the credentials", said)
	case status >= 500 || status == http.StatusRequestTimeout:
		e := share.Errorf(share.LPUnavailable, "LivePerson ("+k.service+") reports trouble of its own; try again", said)
		e.RetryAfter = max(unavailableWait, retryAfter(resp))
		return e
	}
	return share.Errorf(share.LPProtocolError, fmt.Sprintf("LivePerson (%s) answers with the unexpected status %d", k.service, status), nil)
}

// retryAfter reads a Retry-After header in seconds.
func retryAfter(resp *http.Response) time.Duration {
	n, err := strconv.ParseUint(resp.Header.Get("Retry-After"), 10, 31)
	if err != nil {
		return 0
	}
	return min(time.Duration(n)*time.Second, maxRetryAfter)
}

// broken is the error of an exchange that did not come to its end. parent is the caller's context.
func broken(parent context.Context, service string, err error) error {
	if ctxErr := parent.Err(); ctxErr != nil {
		return fmt.Errorf("lpapi: asking %s: %w", service, ctxErr)
	}
	var timeout net.Error
	if errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout() {
		e := share.Errorf(share.LPTimeout, "LivePerson ("+service+") did not answer in time; try again", cause(err))
		e.RetryAfter = unavailableWait
		return e
	}
	e := share.Errorf(share.LPUnavailable, "LivePerson ("+service+") cannot be reached; try again", cause(err))
	e.RetryAfter = unavailableWait
	return e
}

// cause finds in err what may be logged. A *url.Error shows the whole URL, and what net/http says of a broken answer shows the
// answer, so that nothing is shown but errors whose text is known to be made of hosts, certificates and system calls.
func cause(err error) error {
	if op, ok := errors.AsType[*net.OpError](err); ok {
		return op
	}
	if dns, ok := errors.AsType[*net.DNSError](err); ok {
		return dns
	}
	if cert, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return cert
	}
	if unknown, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return unknown
	}
	for _, plain := range []error{io.EOF, io.ErrUnexpectedEOF, context.DeadlineExceeded, context.Canceled, os.ErrDeadlineExceeded} {
		if errors.Is(err, plain) {
			return plain
		}
	}
	return errors.New("the HTTP exchange broke off")
}

// unreadable says that a success had a body that is not what it should be. The body's own text may hold secrets.
func unreadable(service string) *share.Error {
	return share.Errorf(share.LPProtocolError, "LivePerson's answer ("+service+") is not readable", nil)
}
