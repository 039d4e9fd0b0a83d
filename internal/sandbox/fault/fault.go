// Package fault describes failures that a test or an operator asks the sandbox to simulate, and keeps the ones that are armed.
package fault

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/sandbox/feed"
)

// A Fault is a failure to simulate instead of, before or after the correct behavior.
// The zero value of every field but On disables that field.
type Fault struct {
	// On names the place where the fault strikes:
	//   - "store:PUT", "store:GET", "store:HEAD", "store:POST", "store:DELETE": requests to the store;
	//   - "http:domains", "http:login", "http:refresh", "http:logout", "http:signup", "http:authorize", "http:authenticate",
	//     "http:property", "http:users" (agents' public profiles): LivePerson's REST services;
	//   - "http:token" (AppJWT), "http:consumer" (ConsumerJWS), "http:conversation" (the batch that creates a conversation),
	//     "http:send": the Connector API;
	//   - "ws:upgrade": the opening of a socket; "ws:idle": the next frame of any kind on an open socket;
	//   - "webhook:POST": every delivery attempt, "webhook:ContentEvent" and so on: attempts for one event type;
	//   - a request type without its ".ams." prefix, such as "ms.PublishEvent" or "GetClock", on a socket or the Connector API.
	On string `json:"on"`
	// Skip is the number of occasions to let pass before the fault strikes.
	Skip int `json:"skip,omitempty"`
	// Count is how many times the fault strikes; 0: until it is cleared.
	Count int `json:"count,omitempty"`

	// Delay is the wait before the request is processed. JSON: "1.5s" or nanoseconds.
	Delay time.Duration `json:"delay,omitempty"`
	// AnswerDelay is the wait between processing and the answer. JSON: "1.5s" or nanoseconds.
	AnswerDelay time.Duration `json:"answerDelay,omitempty"`
	// Status is the HTTP status (store, http, ws:upgrade) or response code (socket requests) to answer with, without processing.
	Status int `json:"status,omitempty"`
	// StatusAfter is Status for requests of a socket or of the Connector API, but the request is processed first: it takes effect, and
	// the answer denies it.
	StatusAfter int `json:"statusAfter,omitempty"`
	// ErrorCode is body.errorCode in the error answer of a socket or of the Connector API; 0: the status with two zeros.
	ErrorCode int `json:"errorCode,omitempty"`
	// Text is the body of the answer to a request of a socket or of the Connector API, without processing. The code is 200: LivePerson
	// refuses some requests by a text such as "Agent not allowed".
	Text string `json:"text,omitempty"`
	// RetryAfter is the Retry-After header, in seconds, to send with Status.
	RetryAfter int `json:"retryAfter,omitempty"`
	// Drop resets the TCP connection before the request is processed.
	Drop bool `json:"drop,omitempty"`
	// DropAfter processes the request, then resets the connection without an answer.
	DropAfter bool `json:"dropAfter,omitempty"`
	// Mute processes the request and never answers; the connection stays open.
	Mute bool `json:"mute,omitempty"`
	// CloseCode closes the socket with this WebSocket close code, before processing.
	CloseCode int `json:"closeCode,omitempty"`
	// Garbage answers with a frame or body that cannot be parsed.
	Garbage bool `json:"garbage,omitempty"`
	// BytesPerSecond limits the rate of the body: of a PUT as it is read, of a GET as it is written.
	BytesPerSecond int64 `json:"bytesPerSecond,omitempty"`
	// CutAfter resets the connection after this many bytes of the body (PUT and GET); -1: before the first.
	CutAfter int64 `json:"cutAfter,omitempty"`
	// StallAfter stops reading or writing the body after this many bytes until the peer disconnects; -1: before the first.
	StallAfter int64 `json:"stallAfter,omitempty"`
	// Corrupt flips one bit of the bytes stored (PUT) or sent (GET).
	Corrupt bool `json:"corrupt,omitempty"`
	// WrongETag answers with the ETag of another object.
	WrongETag bool `json:"wrongETag,omitempty"`
	// NoETag answers without an ETag.
	NoETag bool `json:"noETag,omitempty"`
	// WeakETag answers with a weak ETag, W/"...", as a proxy that changes answers does.
	WeakETag bool `json:"weakETag,omitempty"`
	// ETagSuffix is appended to the ETag, which is then quoted, as by a proxy that compresses answers: "-gzip".
	ETagSuffix string `json:"etagSuffix,omitempty"`
	// LargeObject marks the object as a segmented one: X-Static-Large-Object.
	LargeObject bool `json:"largeObject,omitempty"`
	// NoLength answers GET and HEAD without Content-Length.
	NoLength bool `json:"noLength,omitempty"`
	// Expire treats the signed URL as expired: 401.
	Expire bool `json:"expire,omitempty"`

	// For a webhook, Delay, Drop (the event is lost), DropAfter (the answer is lost, so the webhook is sent again), Status (treated
	// as the endpoint's answer; nothing is sent), Garbage (half of the body) and Corrupt work too. The signature remains that of
	// the original body.

	// Twice delivers a webhook twice.
	Twice bool `json:"twice,omitempty"`
	// Shuffle delays a webhook by a random part of Delay (100 ms if that is 0), so that others overtake it.
	Shuffle bool `json:"shuffle,omitempty"`
	// WrongSignature signs a webhook with another secret.
	WrongSignature bool `json:"wrongSignature,omitempty"`
}

// Parse reads a Fault from JSON. types are the request types on which a fault may strike. Unknown members, places and request types
// are errors: a misspelt fault would never strike, and the test that relies on it would pass.
func Parse(text []byte, types []string) (Fault, error) {
	var in struct {
		Fault
		Delay       duration `json:"delay"` // hides Fault.Delay from the decoder
		AnswerDelay duration `json:"answerDelay"`
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return Fault{}, fmt.Errorf("this is not one fault: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Fault{}, errors.New("this is not one fault: there is more text behind it")
	}
	f := in.Fault
	f.Delay, f.AnswerDelay = time.Duration(in.Delay), time.Duration(in.AnswerDelay)
	f.On = strings.TrimPrefix(strings.TrimPrefix(f.On, ".ams."), ".")
	return f, errors.Join(checkPlace(f.On, types), f.checkValues())
}

// checkPlace returns an error unless a fault can strike on that place or request type.
func checkPlace(on string, types []string) error {
	if on == "" {
		return errors.New(`a fault needs an "on"`)
	}
	if slices.Contains(places, on) || slices.Contains(types, on) {
		return nil
	}
	known := types
	if kind, _, isPlace := strings.Cut(on, ":"); isPlace {
		known = slices.DeleteFunc(slices.Clone(places), func(p string) bool { return !strings.HasPrefix(p, kind+":") })
		if len(known) == 0 {
			known = places
		}
	}
	return fmt.Errorf("there is no place or request type %q; similar ones are %s", on, strings.Join(known, ", "))
}

// checkValues returns an error if a number is out of its range.
func (f *Fault) checkValues() error {
	switch {
	case f.Skip < 0, f.Count < 0, f.ErrorCode < 0, f.RetryAfter < 0, f.BytesPerSecond < 0, f.Delay < 0, f.AnswerDelay < 0:
		return errors.New("skip, count, errorCode, retryAfter, bytesPerSecond, delay and answerDelay must not be negative")
	case f.CutAfter < -1, f.StallAfter < -1:
		return errors.New("cutAfter and stallAfter must be a number of bytes, or -1")
	case f.Status != 0 && (f.Status < 200 || f.Status > 599):
		return errors.New("status must be from 200 to 599")
	case f.StatusAfter != 0 && (f.StatusAfter < 400 || f.StatusAfter > 599):
		return errors.New("statusAfter must be from 400 to 599")
	case f.CloseCode != 0 && (f.CloseCode < 1000 || f.CloseCode > 4999):
		return errors.New("closeCode must be from 1000 to 4999")
	}
	return nil
}

// A duration is a time.Duration whose JSON is a string such as "1.5s". It decodes from a number of nanoseconds as well.
type duration time.Duration

// UnmarshalJSON accepts both forms.
func (d *duration) UnmarshalJSON(data []byte) error {
	if data[0] != '"' {
		if err := json.Unmarshal(data, (*int64)(d)); err != nil {
			return errors.New(`a duration is a string such as "1.5s", or a whole number of nanoseconds`)
		}
		return nil
	}
	var text string
	if err := json.Unmarshal(data, &text); err != nil {
		return err
	}
	parsed, err := time.ParseDuration(text)
	*d = duration(parsed)
	return err
}

// MarshalJSON returns the string.
func (d duration) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(d).String()) }

// Places returns the valid values of Fault.On besides request types.
func Places() []string { return slices.Clone(places) }

var places = []string{
	"store:PUT", "store:GET", "store:HEAD", "store:POST", "store:DELETE", "ws:upgrade", "ws:idle", "http:domains", "http:login",
	"http:logout", "http:signup", "http:authorize", "http:authenticate", "http:refresh", "http:property", "http:token",
	"http:users", "http:consumer", "http:conversation", "http:send", "webhook:POST", "webhook:ContentEvent", "webhook:RichContentEvent",
	"webhook:AcceptStatusEvent", "webhook:ChatStateEvent", "webhook:ExConversationChangeNotification",
}

// A Set holds the armed faults in the order in which they were injected. The zero value is empty and ready to use; its methods
// may be called from any goroutine.
type Set struct {
	// Feed gets an event for each fault that is armed, strikes or is removed. It may be nil.
	Feed *feed.Feed

	mu     sync.Mutex
	armed  []*armed // without those that have struck Count times
	lastID int
	total  int
}

type armed struct {
	Fault
	id, seen, struck int
}

// A State is an armed fault with what is left of it.
type State struct {
	// ID identifies the fault in its Set.
	ID int `json:"id"`
	Fault
	Delay       duration `json:"delay,omitzero"` // hides Fault.Delay from the encoder
	AnswerDelay duration `json:"answerDelay,omitzero"`
	// Struck is how many times the fault has struck.
	Struck int `json:"struck"`
	// SkipsLeft is the number of occasions that still pass before the fault strikes.
	SkipsLeft int `json:"skipsLeft"`
	// Left is how many times the fault will still strike; nil if it strikes until it is removed.
	Left *int `json:"left"`
}

// Inject arms f and returns its id. It takes effect from the next occasion on.
func (s *Set) Inject(f Fault) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastID++
	a := &armed{Fault: f, id: s.lastID}
	s.armed = append(s.armed, a)
	s.report(a, "armed")
	return s.lastID
}

// List returns the armed faults in the order in which they were injected.
func (s *Set) List() []State {
	s.mu.Lock()
	defer s.mu.Unlock()
	states := make([]State, 0, len(s.armed))
	for _, a := range s.armed {
		state := State{
			ID: a.id, Fault: a.Fault, Delay: duration(a.Delay), AnswerDelay: duration(a.AnswerDelay),
			Struck: a.struck, SkipsLeft: max(0, a.Skip-a.seen),
		}
		state.Left = a.left()
		states = append(states, state)
	}
	return states
}

// left returns how many times the fault will still strike; nil: until it is removed.
func (a *armed) left() *int {
	if a.Count == 0 {
		return nil
	}
	left := a.Count - a.struck
	return &left
}

// report adds an event about a fault.
func (s *Set) report(a *armed, change string) {
	s.Feed.Add("fault", feed.Fault{ID: a.id, Change: change, On: a.On, Struck: a.struck, Left: a.left()})
}

// Remove disarms one fault, and reports whether it was armed.
func (s *Set) Remove(id int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.armed, func(a *armed) bool { return a.id == id })
	if i < 0 {
		return false
	}
	s.report(s.armed[i], "removed")
	s.armed = slices.Delete(s.armed, i, i+1)
	return true
}

// Struck returns how many times faults have struck in total.
func (s *Set) Struck() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.total
}

// Clear disarms every fault.
func (s *Set) Clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.armed {
		s.report(a, "removed")
	}
	s.armed = nil
}

// Take returns the fault that strikes on this occasion, and false if none does: the first armed fault for on that is past its
// Skip. Each call is one occasion.
func (s *Set) Take(on string) (Fault, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var hit *armed
	for _, a := range s.armed {
		if a.On != on {
			continue
		}
		a.seen++
		if hit == nil && a.seen > a.Skip {
			hit = a
		}
	}
	if hit == nil {
		return Fault{}, false
	}
	s.total++
	hit.struck++
	s.report(hit, "struck")
	if hit.struck == hit.Count {
		s.armed = slices.DeleteFunc(s.armed, func(a *armed) bool { return a == hit })
	}
	return hit.Fault, true
}
