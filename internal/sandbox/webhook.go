package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Types of events that an app install can have a webhook for.
const (
	WebhookContent      = "ms.MessagingEventNotification.ContentEvent"
	WebhookRichContent  = "ms.MessagingEventNotification.RichContentEvent"
	WebhookAcceptStatus = "ms.MessagingEventNotification.AcceptStatusEvent"
	WebhookChatState    = "ms.MessagingEventNotification.ChatStateEvent"
	WebhookConversation = "cqm.ExConversationChangeNotification"
)

const (
	// maxRetries is the most that a webhook by count may ask for; defaultRetries is what it gets if it says nothing.
	maxRetries     = 5
	defaultRetries = 3
	// minRetention and maxRetention bound for how long a delivery is tried again.
	minRetention = 2 * time.Second
	maxRetention = 72 * time.Hour
)

// Webhooks say where an app install is told of what happens in the conversations that it created, and how hard that is tried.
// The zero value is no webhooks.
//
// As JSON it is the "webhooks" object of LivePerson's manifests, {"retry":{"retention_time":SECONDS},"TYPE":{"endpoint":URL,
// "max_retries":N}}, with two members more: "endpoint", for every type that has none of its own, and "signature".
type Webhooks struct {
	// Endpoints are where each type of event goes; see the Webhook constants. No endpoint: not told of.
	Endpoints map[string]Webhook
	// Retention is for how long a delivery that fails is tried again, 2 s to 72 h, in whole seconds: after 2, 4, 8 s and so on,
	// at most 5 minutes, and what comes after it in its conversation waits. 0: a number of times, see Webhook.MaxRetries.
	Retention time.Duration
	// Signature is the digest of the signature: "sha1", the default, or "sha256".
	Signature string
}

// A Webhook is where one type of event goes.
type Webhook struct {
	// Endpoint is a URL on loopback, http or https.
	Endpoint string `json:"endpoint"`
	// MaxRetries is how often a delivery that fails is tried again, 0 to 5 times, 30 s apart, while others overtake it. Nil: 3
	// times. Where there is a Retention, that counts instead, but for 0: a type that is never tried again.
	MaxRetries *int `json:"max_retries,omitempty"`
}

// AllEvents are endpoints that send every type of event to url.
func AllEvents(url string) map[string]Webhook {
	all := map[string]Webhook{}
	for _, event := range webhookEvents() {
		all[event] = Webhook{Endpoint: url}
	}
	return all
}

func webhookEvents() []string {
	return []string{WebhookContent, WebhookRichContent, WebhookAcceptStatus, WebhookChatState, WebhookConversation}
}

// check refuses what LivePerson's manifests cannot say, and endpoints that are not on loopback: whoever reaches the sandbox
// could have it post to anybody else.
func (h Webhooks) check() error {
	for event, hook := range h.Endpoints {
		if !slices.Contains(webhookEvents(), event) {
			return fmt.Errorf("there is no webhook for %q; there are %s", event, strings.Join(webhookEvents(), ", "))
		}
		u, err := url.Parse(hook.Endpoint)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return fmt.Errorf("the webhook of %s must go to http://HOST:PORT/PATH or https://HOST:PORT/PATH", event)
		}
		if ip := net.ParseIP(u.Hostname()); u.Hostname() != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return fmt.Errorf("the webhook of %s goes to %s, which is not on loopback", event, u.Hostname())
		}
		if n := hook.MaxRetries; n != nil && (*n < 0 || *n > maxRetries) {
			return fmt.Errorf("max_retries of %s must be 0 to %d", event, maxRetries)
		}
	}
	if r := h.Retention; r != 0 && (r < minRetention || r > maxRetention || r%time.Second != 0) {
		return fmt.Errorf("retention_time must be %d to %d, in seconds", minRetention/time.Second, maxRetention/time.Second)
	}
	if h.Signature != "" && h.Signature != "sha1" && h.Signature != "sha256" {
		return errors.New(`signature must be "sha1" or "sha256"`)
	}
	return nil
}

func (h Webhooks) clone() Webhooks {
	h.Endpoints = maps.Clone(h.Endpoints)
	return h
}

// UnmarshalJSON reads the form of a manifest. Members that nobody knows are refused: a misspelt type would never be told of.
func (h *Webhooks) UnmarshalJSON(data []byte) error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(data, &members); err != nil {
		return errors.New("this is not one JSON object")
	}
	read := Webhooks{Endpoints: map[string]Webhook{}}
	for name, value := range members {
		var err error
		switch name {
		case "endpoint":
			var all string
			err = json.Unmarshal(value, &all)
			for event, hook := range AllEvents(all) {
				if members[event] == nil {
					read.Endpoints[event] = hook
				}
			}
		case "signature":
			err = json.Unmarshal(value, &read.Signature)
		case "retry":
			var retry struct {
				Seconds int64 `json:"retention_time"`
			}
			err = strictly(value, &retry)
			// So bounded it can be multiplied; check refuses what was out of bounds.
			read.Retention = time.Duration(max(-1, min(retry.Seconds, 1+int64(maxRetention/time.Second)))) * time.Second
		default:
			var hook Webhook
			err = strictly(value, &hook)
			read.Endpoints[name] = hook
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := read.check(); err != nil {
		return err
	}
	*h = read
	return nil
}

// MarshalJSON writes the form of a manifest.
func (h Webhooks) MarshalJSON() ([]byte, error) {
	members := map[string]any{}
	for event, hook := range h.Endpoints {
		members[event] = hook
	}
	if h.Retention > 0 {
		members["retry"] = map[string]int64{"retention_time": int64(h.Retention / time.Second)}
	}
	if h.Signature != "" {
		members["signature"] = h.Signature
	}
	return json.Marshal(members)
}

// strictly decodes JSON that must have no members but those of v.
func strictly(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	return dec.Decode(v)
}

// SetWebhooks changes the webhooks of an app install, from the next event on. What waits to be delivered goes where it was to
// go. An empty account is the first of Options.Accounts, an empty app the DefaultAppID.
func (s *Sandbox) SetWebhooks(account, app string, hooks Webhooks) error {
	if err := hooks.check(); err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	in, err := s.installed(account, app)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	in.webhooks = hooks.clone()
	return nil
}

// Webhooks returns those of an app install, named as SetWebhooks has it.
func (s *Sandbox) Webhooks(account, app string) (Webhooks, error) {
	in, err := s.installed(account, app)
	if err != nil {
		return Webhooks{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return in.webhooks.clone(), nil
}

// WebhooksWaiting returns how many webhooks have been neither delivered nor given up.
func (s *Sandbox) WebhooksWaiting() int { return s.hooks.count() }

func (s *Sandbox) installed(account, app string) (*install, error) {
	if account == "" {
		account = s.opts.Accounts[0]
	}
	if app == "" {
		app = DefaultAppID
	}
	acct := s.account(account)
	if acct == nil || acct.apps[app] == nil {
		return nil, fmt.Errorf("sandbox: no app %q is installed in account %q", app, account)
	}
	return acct.apps[app], nil
}

// hookEvent tells the app install that created a conversation of an event in it, as a consumer's socket would be told. Sandbox.mu
// is held.
func (s *Sandbox) hookEvent(e *event) {
	conv := e.dialog.conv
	if conv.app == nil || !e.public() {
		return
	}
	var content struct {
		Type string `json:"type"`
	}
	_ = json.Unmarshal(e.content, &content) // an object, or it were no event
	var sequence *int
	if e.numbered {
		sequence = &e.sequence
	}
	s.hooks.put(conv, "ms.MessagingEventNotification."+content.Type, sequence, func() []byte {
		return notification("ms.MessagingEventNotification", map[string]any{"changes": []eventView{conv.outside().eventView(e)}})
	})
}

// hookConversation tells the app install that created a conversation of a change of it. Unlike on a socket there is no
// subscription that it could name. Sandbox.mu is held.
func (s *Sandbox) hookConversation(conv *conversation) {
	if conv.app == nil {
		return
	}
	s.hooks.put(conv, WebhookConversation, nil, func() []byte {
		return notification(WebhookConversation, changes{Changes: []change{{"UPSERT", conv.outside().conversationView(conv)}}})
	})
}

// outside is a conversation's consumer as a caller, for what it may be told.
func (conv *conversation) outside() *caller {
	return &caller{account: conv.account, dialect: consumerDialect, version: "3", who: conv.consumer}
}
