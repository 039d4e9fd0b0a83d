package sandbox

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// maxPosts is how many webhooks are under way at once; maxHooksWaiting and maxHookBytes are what may wait, all together. What
	// comes then is lost, as LivePerson says that it may be.
	maxPosts        = 64
	maxHooksWaiting = 20_000
	maxHookBytes    = 64 << 20
	// maxHookAnswer is how much of an endpoint's answer is read, so that its connection can be used again.
	maxHookAnswer = 64 << 10

	// firstBackoff, doubled with each try up to maxBackoff, is the wait of retries by retention, countedWait that by count. All in
	// units of Options.WebhookUnit.
	firstBackoff = 2
	maxBackoff   = 300
	countedWait  = 30

	// shuffleTime is within which deliveries that a fault shuffles are held back, if it does not say.
	shuffleTime = 100 * time.Millisecond
)

// hooks delivers webhooks: one goroutine for each conversation that has some to deliver, of which the sandbox's Close waits.
type hooks struct {
	s     *Sandbox
	posts http.Client
	slots chan struct{} // maxPosts of them

	mu         sync.Mutex
	queues     map[*conversation]*hookQueue // those that have something in them
	waiting    int
	bytes      int
	maxWaiting int // the constant maxHooksWaiting, a field so that a test can lower it
}

// A hookQueue is what waits to be delivered of one conversation, in the order in which it happened. hooks.mu guards it.
type hookQueue struct {
	posts []*post
	wake  chan struct{}
}

// A post is one notification on its way to one endpoint.
type post struct {
	app       *install
	conv      *conversation
	event     string
	sequence  *int
	url       string
	digest    string
	body      []byte
	retries   int           // by count
	retention time.Duration // by retention, if not 0
	loose     bool          // overtakes, and is overtaken
	born      time.Time
	due       time.Time
	tries     int
	fault     Fault // for the next try
}

func newHooks(s *Sandbox) *hooks {
	trust := s.opts.WebhookTLS.Clone() // nil stays nil
	if trust == nil {
		trust = &tls.Config{}
	}
	trust.MinVersion = max(trust.MinVersion, tls.VersionTLS12)
	return &hooks{
		s: s, slots: make(chan struct{}, maxPosts), queues: map[*conversation]*hookQueue{}, maxWaiting: maxHooksWaiting,
		posts: http.Client{
			Transport:     &http.Transport{TLSClientConfig: trust, MaxIdleConnsPerHost: maxPosts, IdleConnTimeout: 30 * time.Second},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// put queues a notification, if its type has an endpoint. Sandbox.mu is held, so that the order in a conversation is that of its
// events; nothing here blocks.
func (h *hooks) put(conv *conversation, event string, sequence *int, body func() []byte) {
	hook, wanted := conv.app.webhooks.Endpoints[event]
	if !wanted {
		return
	}
	now := time.Now()
	p := &post{
		app: conv.app, conv: conv, event: event, sequence: sequence, url: hook.Endpoint, digest: conv.app.webhooks.Signature,
		body: body(), retries: defaultRetries, born: now, due: now,
	}
	if hook.MaxRetries != nil {
		p.retries = *hook.MaxRetries
	}
	if p.retries > 0 {
		p.retention = conv.app.webhooks.Retention
	}
	p.loose = conv.app.webhooks.Retention == 0
	p.fault = h.s.webhookFault(event)
	if p.fault.Shuffle {
		span := p.fault.Delay
		if span <= 0 {
			span = shuffleTime
		}
		p.fault.Delay = 0
		p.loose, p.due = true, now.Add(rand.N(span))
	}
	posts := []*post{p}
	if p.fault.Twice {
		again := *p
		again.fault = Fault{}
		posts = append(posts, &again)
	}

	h.mu.Lock()
	defer h.mu.Unlock()
	for _, p := range posts {
		if h.waiting >= h.maxWaiting || h.bytes+len(p.body) > maxHookBytes {
			h.note(p, 0, HookLost)
			continue
		}
		h.waiting++
		h.bytes += len(p.body)
		q := h.queues[conv]
		if q == nil {
			q = &hookQueue{wake: make(chan struct{}, 1)}
			h.queues[conv] = q
			h.s.work.Go(func() { h.deliver(conv, q) }) // whoever brought the event about is counted in work, so Close waits still
		}
		q.posts = append(q.posts, p)
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
}

// webhookFault takes the fault for one try.
func (s *Sandbox) webhookFault(event string) Fault {
	f, hit := s.faults.take("webhook:POST")
	if !hit {
		f, _ = s.faults.take("webhook:" + event[strings.LastIndex(event, ".")+1:])
	}
	return f
}

// deliver empties the queue of a conversation, and ends when that is done or the sandbox closes.
func (h *hooks) deliver(conv *conversation, q *hookQueue) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		h.mu.Lock()
		if len(q.posts) == 0 {
			delete(h.queues, conv)
			h.mu.Unlock()
			return
		}
		p := q.next()
		h.mu.Unlock()
		wait := time.Until(p.due)
		if wait <= 0 {
			if !h.attempt(p) {
				return // the sandbox closes
			}
			h.mu.Lock()
			if p.due.IsZero() {
				q.posts = slices.DeleteFunc(q.posts, func(other *post) bool { return other == p })
				h.waiting--
				h.bytes -= len(p.body)
			}
			h.mu.Unlock()
			continue
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-q.wake:
		case <-h.s.ctx.Done():
			return
		}
	}
}

// next is what is to be sent next: the earliest due of those that may go now. Of those that keep their order only the first may.
func (q *hookQueue) next() *post {
	var next *post
	held := false
	for _, p := range q.posts {
		if (p.loose || !held) && (next == nil || p.due.Before(next.due)) {
			next = p
		}
		held = held || !p.loose
	}
	return next
}

// attempt sends a post once, and says when to send it again; never, if due is zero afterwards. It reports whether the sandbox
// still runs.
func (h *hooks) attempt(p *post) bool {
	f := p.fault
	p.fault = Fault{}
	if p.tries > 0 {
		f = h.s.webhookFault(p.event)
	}
	p.tries++
	if !sleep(h.s.ctx, f.Delay) {
		return false
	}
	if f.Drop {
		p.due = time.Time{}
		h.note(p, 0, HookLost)
		return true
	}
	status := f.Status
	if status == 0 {
		if status = h.send(p, f); status == 0 && h.s.ctx.Err() != nil {
			return false
		}
	}
	if f.DropAfter {
		status = 0
	}
	if status == http.StatusOK || status == http.StatusCreated {
		p.due = time.Time{}
		h.note(p, status, HookDelivered)
		return true
	}
	outcome := HookFailed
	unit := h.s.opts.WebhookUnit
	switch {
	case p.retention > 0:
		backoff := time.Duration(maxBackoff)
		if p.tries < 9 { // 2^9 is more than the maximum
			backoff = min(backoff, firstBackoff<<(p.tries-1))
		}
		p.due = time.Now().Add(backoff * unit)
		if p.due.Sub(p.born) > p.retention/time.Second*unit {
			outcome = HookAbandoned
		}
	case p.tries <= p.retries:
		p.due = time.Now().Add(countedWait * unit)
	default:
		outcome = HookAbandoned
	}
	if outcome == HookAbandoned {
		p.due = time.Time{}
	}
	h.note(p, status, outcome)
	return true
}

// send sends one request and returns the status of its answer; 0 if there was none in time.
func (h *hooks) send(p *post, f Fault) int {
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	case <-h.s.ctx.Done():
		return 0
	}
	ctx, cancel := context.WithTimeout(h.s.ctx, h.s.opts.WebhookTimeout)
	defer cancel()
	secret, body := p.app.secret, p.body
	if f.WrongSignature {
		secret = randomHex(16)
	}
	signature := signWebhook(p.digest, secret, body)
	switch {
	case f.Garbage:
		body = body[:len(body)/2]
	case f.Corrupt:
		body = bytes.Clone(body)
		body[len(body)/2] ^= 1
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url, bytes.NewReader(body))
	if err != nil {
		return 0 // never: check has parsed the URL
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("x-liveperson-account-id", p.app.account.id)
	req.Header.Set("x-liveperson-client-id", p.app.id)
	req.Header.Set("x-liveperson-signature", signature)
	resp, err := h.posts.Do(req)
	x := Exchange{Endpoint: "webhook", Request: body}
	if err == nil {
		x.Status = resp.StatusCode
		x.Answer, err = io.ReadAll(io.LimitReader(resp.Body, maxHookAnswer))
		_ = resp.Body.Close()
	}
	if h.s.opts.OnExchange != nil {
		h.s.opts.OnExchange(x)
	}
	if err != nil {
		return 0
	}
	return x.Status
}

// signWebhook is the value of x-liveperson-signature: the HMAC of the body under the app's secret, in base64.
func signWebhook(digest, secret string, body []byte) string {
	sum, name := sha1.New, "sha1"
	if digest == "sha256" {
		sum, name = sha256.New, "sha256"
	}
	mac := hmac.New(sum, []byte(secret))
	mac.Write(body)
	return name + "=" + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// note writes a try to the journal.
func (h *hooks) note(p *post, status int, outcome string) {
	h.s.journal.delivered(DeliveredWebhook{
		Account: p.conv.account.id, App: p.app.id, Event: p.event, Conversation: p.conv.id, Sequence: p.sequence,
		Try: p.tries, Status: status, Outcome: outcome,
	})
}

func (h *hooks) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.waiting
}

func (h *hooks) close() { h.posts.CloseIdleConnections() }
