package connector

import (
	"bytes"
	"context"
	"crypto/hmac"
	cryptorand "crypto/rand"
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

	"github.com/lpfileshare/lpfileshare/internal/sandbox/fault"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/journal"
)

const (
	// maxPosts is the number of concurrent requests to endpoints.
	maxPosts = 64
	// maxHookBytes is the number of bytes of all waiting webhooks; webhooks beyond it are lost.
	maxHookBytes = 64 << 20
	// maxHookAnswer is the number of bytes of an endpoint's answer to read, so that its connection can be reused.
	maxHookAnswer = 64 << 10

	// The waits between attempts, in units of Options.WebhookUnit. By retention they begin with firstBackoff and double up to
	// maxBackoff; by count they are countedWait.
	firstBackoff = 2
	maxBackoff   = 300
	countedWait  = 30

	// defaultShuffle is the time within which Fault.Shuffle delays webhooks by default.
	defaultShuffle = 100 * time.Millisecond
)

// deliveries delivers webhooks. It has one goroutine for each conversation with waiting webhooks.
type deliveries struct {
	opts       Options
	ctx        context.Context
	client     http.Client
	slots      chan struct{} // holds an element for each request to an endpoint
	goroutines sync.WaitGroup

	mu      sync.Mutex
	queues  map[string]*queue // by conversation, without empty ones
	waiting int
	bytes   int
}

// A queue holds the waiting webhooks of one conversation in the order of their events. deliveries.mu guards it.
type queue struct {
	posts []*post
	wake  chan struct{}
}

// A post is one notification for one endpoint.
type post struct {
	app          *install
	conversation string
	event        string
	sequence     *int
	url          string
	digest       string
	body         []byte
	retries      int           // by count
	retention    time.Duration // by retention, if not 0
	unordered    bool          // whether it may overtake others and be overtaken
	created      time.Time
	due          time.Time // of the next attempt; zero: there is none
	attempts     int
	fault        fault.Fault // for the next attempt
}

func newDeliveries(ctx context.Context, opts Options) *deliveries {
	trust := opts.WebhookTLS.Clone() // nil stays nil
	if trust == nil {
		trust = &tls.Config{}
	}
	trust.MinVersion = max(trust.MinVersion, tls.VersionTLS12)
	return &deliveries{
		opts: opts, ctx: ctx, slots: make(chan struct{}, maxPosts), queues: map[string]*queue{},
		client: http.Client{
			Transport:     &http.Transport{TLSClientConfig: trust, MaxIdleConnsPerHost: maxPosts, IdleConnTimeout: 30 * time.Second},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// put queues a notification. It does not block.
func (d *deliveries) put(app *install, conversation, event string, sequence *int, hook Webhook, hooks Webhooks, body []byte) {
	now := time.Now()
	p := &post{
		app: app, conversation: conversation, event: event, sequence: sequence, url: hook.Endpoint, digest: hooks.Signature,
		body: body, retries: defaultRetries, unordered: hooks.Retention == 0, created: now, due: now, fault: d.takeFault(event),
	}
	if hook.MaxRetries != nil {
		p.retries = *hook.MaxRetries
	}
	if p.retries > 0 {
		p.retention = hooks.Retention
	}
	if p.fault.Shuffle {
		span := p.fault.Delay
		if span <= 0 {
			span = defaultShuffle
		}
		p.fault.Delay = 0
		p.unordered, p.due = true, now.Add(rand.N(span))
	}
	posts := []*post{p}
	if p.fault.Twice {
		second := *p
		second.fault = fault.Fault{}
		posts = append(posts, &second)
	}

	d.mu.Lock()
	defer d.mu.Unlock()
	for _, p := range posts {
		if d.waiting >= d.opts.MaxWaiting || d.bytes+len(p.body) > maxHookBytes {
			d.record(p, 0, journal.HookLost)
			continue
		}
		d.waiting++
		d.bytes += len(p.body)
		q := d.queues[conversation]
		if q == nil {
			q = &queue{wake: make(chan struct{}, 1)}
			d.queues[conversation] = q
			d.goroutines.Go(func() { d.deliver(conversation, q) })
		}
		q.posts = append(q.posts, p)
		select {
		case q.wake <- struct{}{}:
		default:
		}
	}
}

// takeFault takes the fault for one attempt.
func (d *deliveries) takeFault(event string) fault.Fault {
	f, hit := d.opts.Faults.Take("webhook:POST")
	if !hit {
		f, _ = d.opts.Faults.Take("webhook:" + event[strings.LastIndex(event, ".")+1:])
	}
	return f
}

// deliver delivers the webhooks of a conversation until there are none or the context ends.
func (d *deliveries) deliver(conversation string, q *queue) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		d.mu.Lock()
		if len(q.posts) == 0 {
			delete(d.queues, conversation)
			d.mu.Unlock()
			return
		}
		p := q.next()
		d.mu.Unlock()
		if wait := time.Until(p.due); wait > 0 {
			timer.Reset(wait)
			select {
			case <-timer.C:
			case <-q.wake:
			case <-d.ctx.Done():
				return
			}
			continue
		}
		if !d.attempt(p) {
			return // the context has ended
		}
		d.mu.Lock()
		if p.due.IsZero() {
			q.posts = slices.DeleteFunc(q.posts, func(other *post) bool { return other == p })
			d.waiting--
			d.bytes -= len(p.body)
		}
		d.mu.Unlock()
	}
}

// next returns the post that is due first among those that may be sent now: the unordered ones and the first of the others.
func (q *queue) next() *post {
	var next *post
	blocked := false
	for _, p := range q.posts {
		if (p.unordered || !blocked) && (next == nil || p.due.Before(next.due)) {
			next = p
		}
		blocked = blocked || !p.unordered
	}
	return next
}

// attempt sends a post once and sets p.due to the time of the next attempt, or to zero if there is none. It returns false if the
// context has ended.
func (d *deliveries) attempt(p *post) bool {
	f := p.fault
	p.fault = fault.Fault{}
	if p.attempts > 0 {
		f = d.takeFault(p.event)
	}
	p.attempts++
	if !fault.Sleep(d.ctx, f.Delay) {
		return false
	}
	if f.Drop {
		p.due = time.Time{}
		d.record(p, 0, journal.HookLost)
		return true
	}
	status := f.Status
	if status == 0 {
		if status = d.send(p, f); status == 0 && d.ctx.Err() != nil {
			return false
		}
	}
	if f.DropAfter {
		status = 0
	}
	outcome := journal.HookDelivered
	if status == http.StatusOK || status == http.StatusCreated {
		p.due = time.Time{}
	} else if p.due = d.nextAttempt(p); p.due.IsZero() {
		outcome = journal.HookAbandoned
	} else {
		outcome = journal.HookFailed
	}
	d.record(p, status, outcome)
	return true
}

// nextAttempt returns when to repeat a failed post, or the zero time if its retries or its retention are exhausted.
func (d *deliveries) nextAttempt(p *post) time.Time {
	unit := d.opts.WebhookUnit
	if p.retention == 0 {
		if p.attempts > p.retries {
			return time.Time{}
		}
		return time.Now().Add(countedWait * unit)
	}
	backoff := time.Duration(maxBackoff)
	if p.attempts < 9 { // firstBackoff doubled 8 times exceeds maxBackoff
		backoff = min(backoff, firstBackoff<<(p.attempts-1))
	}
	due := time.Now().Add(backoff * unit)
	if due.Sub(p.created) > p.retention/time.Second*unit {
		return time.Time{}
	}
	return due
}

// send sends one request and returns the status of its answer, or 0 if there was none within the timeout.
func (d *deliveries) send(p *post, f fault.Fault) int {
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
	case <-d.ctx.Done():
		return 0
	}
	ctx, cancel := context.WithTimeout(d.ctx, d.opts.WebhookTimeout)
	defer cancel()
	secret, body := p.app.secret, p.body
	if f.WrongSignature {
		secret = cryptorand.Text()
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
		return 0 // cannot happen: Webhooks.check has parsed the URL
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("x-liveperson-account-id", p.app.account)
	req.Header.Set("x-liveperson-client-id", p.app.id)
	req.Header.Set("x-liveperson-signature", signature)
	resp, err := d.client.Do(req)
	x := Exchange{Endpoint: "webhook", Request: body}
	if err == nil {
		x.Status = resp.StatusCode
		x.Answer, err = io.ReadAll(io.LimitReader(resp.Body, maxHookAnswer))
		_ = resp.Body.Close()
	}
	d.opts.observe(p.app.account, p.app.id, x)
	if err != nil {
		return 0
	}
	return x.Status
}

// signWebhook returns the value of x-liveperson-signature: the base64 of the HMAC of the body with the app's secret.
func signWebhook(digest, secret string, body []byte) string {
	sum, name := sha1.New, "sha1"
	if digest == "sha256" {
		sum, name = sha256.New, "sha256"
	}
	mac := hmac.New(sum, []byte(secret))
	mac.Write(body)
	return name + "=" + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// record adds an attempt to the journal.
func (d *deliveries) record(p *post, status int, outcome string) {
	d.opts.Journal.Delivered(journal.DeliveredWebhook{
		Account: p.app.account, App: p.app.id, Event: p.event, Conversation: p.conversation, Sequence: p.sequence,
		Try: p.attempts, Status: status, Outcome: outcome,
	})
}

func (d *deliveries) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.waiting
}

// wait returns when all deliveries have ended. The context must have ended, and nothing may call put any more.
func (d *deliveries) wait() {
	d.goroutines.Wait()
	d.client.CloseIdleConnections()
}
