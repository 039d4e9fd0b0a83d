package connector

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

	"github.com/lpfileshare/lpfileshare/internal/sandbox/liveperson"
)

// Types of events to which a webhook can subscribe.
const (
	WebhookContent      = "ms.MessagingEventNotification.ContentEvent"
	WebhookRichContent  = "ms.MessagingEventNotification.RichContentEvent"
	WebhookAcceptStatus = "ms.MessagingEventNotification.AcceptStatusEvent"
	WebhookChatState    = "ms.MessagingEventNotification.ChatStateEvent"
	WebhookConversation = "cqm.ExConversationChangeNotification"
)

const (
	// maxRetries and defaultRetries are the maximum and default of Webhook.MaxRetries.
	maxRetries     = 5
	defaultRetries = 3
	// minRetention and maxRetention bound Webhooks.Retention.
	minRetention = 2 * time.Second
	maxRetention = 72 * time.Hour
)

// Webhooks configure how an app install is notified of what happens in the conversations that it created. The zero value is no
// webhooks.
//
// As JSON it is the "webhooks" object of LivePerson's manifests, {"retry":{"retention_time":SECONDS},"TYPE":{"endpoint":URL,
// "max_retries":N}}, with two more members: "endpoint", for every type without an endpoint of its own, and "signature".
type Webhooks struct {
	// Endpoints are the endpoints by type of event; see the Webhook constants. Events of other types are not delivered.
	Endpoints map[string]Webhook
	// Retention is how long a failing delivery is repeated, 2 s to 72 h, in whole seconds. The waits are 2, 4, 8 s and so on up to
	// 5 minutes, and later events of the conversation wait as well. 0: Webhook.MaxRetries applies.
	Retention time.Duration
	// Signature is the digest of the signature: "sha1" (default) or "sha256".
	Signature string
}

// A Webhook is the endpoint for one type of event.
type Webhook struct {
	// Endpoint is a URL on loopback, http or https.
	Endpoint string `json:"endpoint"`
	// MaxRetries is how often a failing delivery is repeated, 0 to 5 times, 30 s apart, while later events overtake it. Nil: 3.
	// Webhooks.Retention takes precedence, except over 0: such a type is never repeated.
	MaxRetries *int `json:"max_retries,omitempty"`
}

// AllEvents returns endpoints that send every type of event to url.
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

// check rejects values that are invalid in LivePerson's manifests, and endpoints that are not on loopback, because every local client
// of the sandbox can set them.
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

// UnmarshalJSON reads the form of a manifest. Unknown members are an error, because events of a misspelt type would never be
// delivered.
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
			// Clamped so that the product does not overflow; check rejects the value.
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

// strictly decodes JSON that has no members other than those of v.
func strictly(data []byte, v any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	return dec.Decode(v)
}

// SetWebhooks replaces the webhooks of an app install from the next event on. Webhooks that wait to be delivered keep their
// endpoint. An empty account is the first of Options.Accounts, an empty app is DefaultAppID.
func (a *API) SetWebhooks(account, app string, hooks Webhooks) error {
	if err := hooks.check(); err != nil {
		return err
	}
	in, err := a.installed(account, app)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	in.webhooks = hooks.clone()
	return nil
}

// Webhooks returns the webhooks of an app install. The defaults are those of SetWebhooks.
func (a *API) Webhooks(account, app string) (Webhooks, error) {
	in, err := a.installed(account, app)
	if err != nil {
		return Webhooks{}, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return in.webhooks.clone(), nil
}

func (a *API) installed(account, app string) (*install, error) {
	if account == "" {
		account = a.opts.Accounts[0]
	}
	if app == "" {
		app = DefaultAppID
	}
	in := a.apps[account][app]
	if in == nil {
		return nil, fmt.Errorf("no app %q is installed in account %q", app, account)
	}
	return in, nil
}

// Listener returns the listener for the new conversations of a consumer: the app install that last spoke for the consumer, or
// nil.
func (a *API) Listener(account, consumerID string) liveperson.Listener {
	a.mu.Lock()
	defer a.mu.Unlock()
	app := a.appOf[consumer{account, consumerID}]
	if app == nil {
		return nil
	}
	return listener{a, app}
}

// A listener queues webhooks for the events of the conversations that an app install created.
type listener struct {
	api *API
	app *install
}

// Notify implements liveperson.Listener.
func (l listener) Notify(conversation, event string, sequence *int, body func() []byte) {
	l.api.mu.Lock()
	hooks := l.app.webhooks // never changed in place
	l.api.mu.Unlock()
	if hook, wanted := hooks.Endpoints[event]; wanted {
		l.api.deliveries.put(l.app, conversation, event, sequence, hook, hooks, body())
	}
}
