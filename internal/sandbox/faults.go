package sandbox

import (
	"sync"
	"time"
)

// A Fault is trouble made on demand: what the sandbox does instead of, before or after the right thing.
// The zero value of every field but On means "not this one".
type Fault struct {
	// On names the place. "store:PUT", "store:GET", "store:HEAD"; "http:domains", "http:login", "http:refresh", "http:logout",
	// "http:signup", "http:authorize", "http:authenticate", "http:property"; the Connector API's "http:token" (AppJWT),
	// "http:consumer" (ConsumerJWS), "http:conversation" (the batch that creates one) and "http:send"; "ws:upgrade"; "ws:idle"
	// (the socket, at the next frame of any kind); a try to deliver any webhook, "webhook:POST", or one of some type,
	// "webhook:ContentEvent" for example; or a request's type without its ".ams." prefix: "ms.PublishEvent", "GetClock", and so
	// on, be it by a socket or by the Connector API.
	On string `json:"on"`
	// Skip lets so many occasions pass before the fault strikes.
	Skip int `json:"skip,omitempty"`
	// Count is how often it strikes; 0 means every time until it is cleared.
	Count int `json:"count,omitempty"`

	// Delay is waited before the request is processed. JSON: nanoseconds.
	Delay time.Duration `json:"delay,omitempty"`
	// AnswerDelay is waited after processing, before the answer is sent. JSON: nanoseconds.
	AnswerDelay time.Duration `json:"answerDelay,omitempty"`
	// Status answers with this HTTP status (store, http, ws:upgrade) or response code (socket requests), without processing.
	Status int `json:"status,omitempty"`
	// ErrorCode is body.errorCode of the error answer of a socket or of the Connector API; 0: Status*100.
	ErrorCode int `json:"errorCode,omitempty"`
	// RetryAfter is sent as a Retry-After header in seconds with Status.
	RetryAfter int `json:"retryAfter,omitempty"`
	// Drop cuts the connection (TCP reset) before the request is processed.
	Drop bool `json:"drop,omitempty"`
	// DropAfter processes the request, then cuts the connection without answering: the answer is lost.
	DropAfter bool `json:"dropAfter,omitempty"`
	// Mute processes the request and never answers; the connection stays.
	Mute bool `json:"mute,omitempty"`
	// CloseCode closes the socket with this WebSocket close code, before processing.
	CloseCode int `json:"closeCode,omitempty"`
	// Garbage answers with a frame or body that cannot be parsed.
	Garbage bool `json:"garbage,omitempty"`
	// BytesPerSecond paces the body: of a PUT as it is read, of a GET as it is written.
	BytesPerSecond int64 `json:"bytesPerSecond,omitempty"`
	// CutAfter resets the connection once so many bytes of the body have passed (PUT and GET); -1: before the first.
	CutAfter int64 `json:"cutAfter,omitempty"`
	// StallAfter stops reading or writing the body after so many bytes, until the peer goes away; -1: before the first.
	StallAfter int64 `json:"stallAfter,omitempty"`
	// Corrupt flips one bit of what is stored (PUT) or sent (GET).
	Corrupt bool `json:"corrupt,omitempty"`
	// WrongETag answers with another object's ETag.
	WrongETag bool `json:"wrongETag,omitempty"`
	// Expire treats the signed URL as expired: 401.
	Expire bool `json:"expire,omitempty"`

	// Of a webhook, Delay, Drop (it is lost), DropAfter (the answer is lost, so it is sent again), Status (as if the endpoint had
	// answered with it; nothing is sent), Garbage (half of it) and Corrupt work too; the signature stays that of what was meant.

	// Twice delivers a webhook twice.
	Twice bool `json:"twice,omitempty"`
	// Shuffle lets a webhook wait for a random part of Delay (100 ms if that is 0), while others overtake it.
	Shuffle bool `json:"shuffle,omitempty"`
	// WrongSignature signs a webhook with another secret.
	WrongSignature bool `json:"wrongSignature,omitempty"`
}

// faults holds the faults in force, in the order in which they were injected.
type faults struct {
	mu     sync.Mutex
	active []*armed
	total  int
}

type armed struct {
	Fault
	seen, struck int
}

// inject arms f; it takes effect from the next occasion on.
func (fs *faults) inject(f Fault) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.active = append(fs.active, &armed{Fault: f})
}

// struck counts how often faults have struck since the sandbox began.
func (fs *faults) struck() int {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	return fs.total
}

// clear disarms every fault.
func (fs *faults) clear() {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	fs.active = nil
}

// take reports the fault that strikes at this occasion: the first armed one for on whose turn it is. Each call is one occasion.
func (fs *faults) take(on string) (Fault, bool) {
	fs.mu.Lock()
	defer fs.mu.Unlock()
	var hit *armed
	for _, a := range fs.active {
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
	fs.total++
	return hit.Fault, true
}
