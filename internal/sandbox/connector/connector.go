// Package connector is a stand-in for LivePerson's Connector ("Send") API: a brand's server speaks for its consumers by single
// HTTPS requests, and webhooks notify it of what happens in their conversations.
package connector

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/sandbox/fault"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/feed"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/journal"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/jsonhttp"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/liveperson"
)

// Options configure an API. Every field is required unless its comment says otherwise; sandbox.Options documents those that have
// the same name there.
type Options struct {
	Accounts       []string
	AppInstalls    []AppInstall
	WebhookUnit    time.Duration
	WebhookTimeout time.Duration
	WebhookTLS     *tls.Config    // optional
	OnExchange     func(Exchange) // optional
	Logger         *slog.Logger
	Now            func() time.Time

	Faults  *fault.Set
	Journal *journal.Recorder
	Feed    *feed.Feed // gets the exchanges; optional
	// Signer signs the tokens.
	Signer *liveperson.Signer
	// MaxWaiting is the number of webhooks that may wait; later ones are lost.
	MaxWaiting int
}

// An Exchange is one HTTP request of the Connector API and its answer.
type Exchange struct {
	// Endpoint is "token" (AppJWT), "consumer" (ConsumerJWS), "conversation" (the batch that creates a conversation), "send", or
	// "webhook", which is a request from the sandbox.
	Endpoint string
	// Request is the request's body. The receiver must not change it, nor Answer.
	Request []byte
	// Status and Answer are the answer; 0 and empty if a fault discarded it or there was none.
	Status int
	Answer []byte
}

// observe reports an exchange to the feed and to OnExchange.
func (o *Options) observe(account, app string, x Exchange) {
	if o.Feed != nil {
		o.Feed.Add("exchange", feed.Exchange{
			Account: account, App: app, Endpoint: x.Endpoint, Request: feed.Cut(x.Request), Status: x.Status, Answer: feed.Cut(x.Answer),
		})
	}
	if o.OnExchange != nil {
		o.OnExchange(x)
	}
}

// An API is a running Connector API. Its methods may be called from any goroutine.
type API struct {
	opts       Options
	log        *slog.Logger
	now        func() time.Time
	deliveries *deliveries
	platform   *liveperson.Service // set by Register

	mu    sync.Mutex
	apps  map[string]map[string]*install // by account and id; the set never changes
	appOf map[consumer]*install          // the app install that speaks for a consumer
}

type consumer struct{ account, id string }

// New returns an API that delivers webhooks until ctx ends.
func New(ctx context.Context, opts Options) (*API, error) {
	a := &API{
		opts: opts, log: opts.Logger, now: opts.Now,
		apps: map[string]map[string]*install{}, appOf: map[consumer]*install{},
	}
	if err := a.install(opts.AppInstalls); err != nil {
		return nil, err
	}
	a.deliveries = newDeliveries(ctx, opts)
	return a, nil
}

// Register adds the API's endpoints to mux. Their requests are processed by platform.
func (a *API) Register(mux *http.ServeMux, platform *liveperson.Service) {
	a.platform = platform
	mux.HandleFunc("POST /sentinel/api/account/{account}/app/token", a.endpoint("http:token", nil, a.appToken))
	mux.HandleFunc("POST /api/account/{account}/consumer", a.endpoint("http:consumer", nil, a.consumerToken))
	const conversations = "/api/account/{account}/messaging/consumer/conversation"
	mux.HandleFunc("POST "+conversations, a.endpoint("http:conversation", requestTypes, a.createConversation))
	mux.HandleFunc("POST "+conversations+"/send", a.endpoint("http:send", requestTypes, a.sendRequest))
}

// WebhooksWaiting returns the number of webhooks that have been neither delivered nor abandoned.
func (a *API) WebhooksWaiting() int { return a.deliveries.count() }

// Wait returns when no webhook is being delivered any more. The context must have ended, and all requests to the platform.
func (a *API) Wait() { a.deliveries.wait() }

// endpoint wraps an endpoint of the Connector API: it reads the request's body, applies faults and calls Options.OnExchange.
// The faults are those for on and, as on a socket, those for the types of the requests in the body.
func (a *API) endpoint(on string, types func(body []byte) []string, serve func(r *http.Request, body []byte) (int, []byte)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, liveperson.MaxFrame))
		var tooLarge *http.MaxBytesError
		if err != nil && !errors.As(err, &tooLarge) {
			return // the client has disconnected
		}
		f := a.takeFault(on, types, body)
		answer := fault.Serve(f, w, r, func(w http.ResponseWriter, r *http.Request) {
			var status int
			var data []byte
			switch {
			case f.Status != 0:
				status, data = refusal("", liveperson.RefuseWith(f.Status, liveperson.ErrorCode(f), liveperson.MadeUp))
				if f.RetryAfter > 0 {
					w.Header().Set("Retry-After", strconv.Itoa(f.RetryAfter))
				}
			case f.Text != "":
				req, _ := liveperson.ParseRequest(body) // it has an id even if it is malformed
				status, data = http.StatusOK, jsonhttp.Encode(map[string]string{"code": "OK", "body": f.Text, "reqId": req.ID})
			case tooLarge != nil:
				status, data = refusal("", liveperson.Refuse(liveperson.CodeBodyTooLarge, "the maximum request size is %d bytes", liveperson.MaxFrame))
			default:
				r.Body = io.NopCloser(bytes.NewReader(body))
				status, data = serve(r, body)
				if f.StatusAfter != 0 {
					status, data = refusal("", liveperson.RefuseWith(f.StatusAfter, liveperson.ErrorCode(f), liveperson.MadeUp))
				}
			}
			jsonhttp.Write(w, status, data)
		})
		x := Exchange{Endpoint: strings.TrimPrefix(on, "http:"), Request: body}
		if answer != nil {
			x.Status, x.Answer = answer.Status, answer.Body
		}
		a.opts.observe(r.PathValue("account"), "", x)
	}
}

// takeFault takes the fault for on or, if there is none, for the first type of request in the body that has one.
func (a *API) takeFault(on string, types func(body []byte) []string, body []byte) fault.Fault {
	f, hit := a.opts.Faults.Take(on)
	if types == nil {
		return f
	}
	for _, typ := range types(body) {
		if hit {
			break
		}
		f, hit = a.opts.Faults.Take(typ)
	}
	return f
}

// requestTypes returns the types of the requests in a body, without malformed ones.
func requestTypes(body []byte) []string {
	var requests liveperson.List[json.RawMessage]
	if len(bytes.TrimSpace(body)) == 0 || json.Unmarshal(body, &requests) != nil {
		return nil
	}
	var types []string
	for _, data := range requests {
		if req, err := liveperson.ParseRequest(data); err == nil {
			types = append(types, req.Type)
		}
	}
	return types
}

// createConversation answers POST .../messaging/consumer/conversation. The body is a batch of two requests: the consumer's
// profile, then the conversation.
func (a *API) createConversation(r *http.Request, body []byte) (int, []byte) {
	from, refused := a.onBehalf(r)
	if refused != nil {
		return refusal("", *refused)
	}
	var elements liveperson.List[json.RawMessage]
	if len(bytes.TrimSpace(body)) == 0 || json.Unmarshal(body, &elements) != nil {
		return refusal("", liveperson.Refuse(liveperson.CodeInvalid, "the body is not an array of requests"))
	}
	wanted := []string{"userprofile.SetUserProfile", "cm.ConsumerRequestConversation"}
	if len(elements) != len(wanted) {
		return refusal("", liveperson.Refuse(liveperson.CodeInvalid, "the body must have two requests: %s and %s", wanted[0], wanted[1]))
	}
	requests := make([]liveperson.Request, len(wanted))
	for i, data := range elements {
		req, err := liveperson.ParseRequest(data)
		if err != nil {
			return refusal(req.ID, liveperson.Refuse(liveperson.CodeInvalid, "%v", err))
		}
		if req.Type != wanted[i] {
			return refusal(req.ID, liveperson.Refuse(liveperson.CodeInvalid, "request %d must be %s", i+1, wanted[i]))
		}
		requests[i] = req
	}
	var answers []json.RawMessage
	for _, req := range requests {
		reply := a.platform.Process(from, req)
		if reply.Code >= http.StatusBadRequest {
			return refusal(req.ID, reply)
		}
		answers = append(answers, success(req.ID, reply))
	}
	return http.StatusOK, jsonhttp.Encode(answers)
}

// sendRequest answers POST .../messaging/consumer/conversation/send.
func (a *API) sendRequest(r *http.Request, body []byte) (int, []byte) {
	from, refused := a.onBehalf(r)
	if refused != nil {
		return refusal("", *refused)
	}
	req, err := liveperson.ParseRequest(body)
	if err != nil {
		return refusal(req.ID, liveperson.Refuse(liveperson.CodeInvalid, "%v", err))
	}
	if req.Type == "cm.ConsumerRequestConversation" {
		return refusal(req.ID, liveperson.Refuse(liveperson.CodeUnknownType, "create a conversation at .../messaging/consumer/conversation"))
	}
	reply := a.platform.Process(from, req)
	if reply.Code >= http.StatusBadRequest {
		return refusal(req.ID, reply)
	}
	return http.StatusOK, success(req.ID, reply)
}

// success returns the answer to one request, which has no kind, no type, and a code that is a word.
func success(id string, reply liveperson.Reply) []byte {
	body := reply.Body
	if text, ok := body.(string); ok {
		body = map[string]string{"msg": text}
	}
	return jsonhttp.Encode(struct {
		Code  string `json:"code"`
		Body  any    `json:"body"`
		ReqID string `json:"reqId"`
	}{"OK", body, id})
}

// refusal returns the status and body of an error answer, which is that of a socket. An empty id means that no request was read.
func refusal(id string, reply liveperson.Reply) (int, []byte) {
	return reply.Code, jsonhttp.Encode(struct {
		Code  int    `json:"code"`
		Body  any    `json:"body"`
		ReqID string `json:"reqId,omitempty"`
		Kind  string `json:"kind"`
		Type  string `json:"type"`
	}{reply.Code, reply.Body, id, "resp", reply.Type})
}
