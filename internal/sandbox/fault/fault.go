// Package fault describes failures that a test or an operator asks the sandbox to simulate, and keeps the ones that are armed.
package fault

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Fault is a failure to simulate instead of, before or after the correct behavior.
// The zero value of every field but On disables that field.
type Fault struct {
	// On names the place where the fault strikes:
	//   - "store:PUT", "store:GET", "store:HEAD", "store:POST", "store:DELETE": requests to the store;
	//   - "http:domains", "http:login", "http:refresh", "http:logout", "http:signup", "http:authorize", "http:authenticate",
	//     "http:property": LivePerson's REST services;
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

	// Delay is the wait before the request is processed. JSON: nanoseconds.
	Delay time.Duration `json:"delay,omitempty"`
	// AnswerDelay is the wait between processing and the answer. JSON: nanoseconds.
	AnswerDelay time.Duration `json:"answerDelay,omitempty"`
	// Status is the HTTP status (store, http, ws:upgrade) or response code (socket requests) to answer with, without processing.
	Status int `json:"status,omitempty"`
	// ErrorCode is body.errorCode in the error answer of a socket or of the Connector API; 0: Status*100.
	ErrorCode int `json:"errorCode,omitempty"`
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

// Parse reads a Fault from JSON. Unknown members are an error: a misspelt fault would never strike, and the test that relies on
// it would pass.
func Parse(text []byte) (Fault, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	var f Fault
	if err := dec.Decode(&f); err != nil {
		return Fault{}, fmt.Errorf("this is not one fault: %w", err)
	}
	if f.On == "" {
		return Fault{}, errors.New(`a fault needs an "on"`)
	}
	kind, _, isPlace := strings.Cut(f.On, ":")
	if isPlace && !slices.Contains(places, f.On) {
		var known []string
		for _, p := range places {
			if strings.HasPrefix(p, kind+":") {
				known = append(known, p)
			}
		}
		return Fault{}, fmt.Errorf("there is no %s; of that kind there are %s", f.On, strings.Join(known, ", "))
	}
	return f, nil
}

// places are the valid values of Fault.On besides request types.
var places = []string{
	"store:PUT", "store:GET", "store:HEAD", "store:POST", "store:DELETE", "ws:upgrade", "ws:idle", "http:domains", "http:login",
	"http:logout", "http:signup", "http:authorize", "http:authenticate", "http:refresh", "http:property", "http:token",
	"http:consumer", "http:conversation", "http:send", "webhook:POST", "webhook:ContentEvent", "webhook:RichContentEvent",
	"webhook:AcceptStatusEvent", "webhook:ChatStateEvent", "webhook:ExConversationChangeNotification",
}

// A Set holds the armed faults in the order in which they were injected. The zero value is empty and ready to use; its methods
// may be called from any goroutine.
type Set struct {
	mu    sync.Mutex
	armed []*armed
	total int
}

type armed struct {
	Fault
	seen, struck int
}

// Inject arms f. It takes effect from the next occasion on.
func (s *Set) Inject(f Fault) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed = append(s.armed, &armed{Fault: f})
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
	s.armed = nil
}

// Take returns the fault that strikes on this occasion, and false if none does: the first armed fault for on that is past its
// Skip and within its Count. Each call is one occasion.
func (s *Set) Take(on string) (Fault, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var hit *armed
	for _, a := range s.armed {
		if a.On != on {
			continue
		}
		a.seen++
		if hit == nil && a.seen > a.Skip && (a.Count == 0 || a.struck < a.Count) {
			a.struck++
			hit = a
		}
	}
	if hit == nil {
		return Fault{}, false
	}
	s.total++
	return hit.Fault, true
}
