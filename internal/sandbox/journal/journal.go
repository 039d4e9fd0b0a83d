// Package journal records what the sandbox received and did, so that a test can compare it with what clients received.
package journal

import (
	"slices"
	"sync"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/sandbox/feed"
)

// A Journal lists what the sandbox received and did. Every list is in the order of events.
type Journal struct {
	// Stored has an entry for every commit of an object, so a path that was written twice is listed twice.
	Stored []StoredObject `json:"stored"`
	// Published has an entry for every file event published to a conversation.
	Published []PublishedFile `json:"published"`
	// Signed has an entry for every signed URL that was issued.
	Signed []SignedURL `json:"signed"`
	// Conversations has an entry for every change of a conversation's state.
	Conversations []ConversationChange `json:"conversations"`
	// Fetched has an entry for every range of bytes sent from an object.
	Fetched []FetchedRange `json:"fetched"`
	// Refused has an entry for every request that the store answered with an error.
	Refused []RefusedRequest `json:"refused"`
	// Delivered has an entry for every attempt to deliver a webhook.
	Delivered []DeliveredWebhook `json:"delivered"`
}

// A StoredObject is one commit to the store.
type StoredObject struct {
	At     time.Time `json:"at"`
	Path   string    `json:"path"`
	Size   int64     `json:"size"`
	ETag   string    `json:"etag"`
	SHA256 string    `json:"sha256"`
}

// A PublishedFile is one file event in a conversation.
type PublishedFile struct {
	At           time.Time `json:"at"`
	Account      string    `json:"account"`
	Conversation string    `json:"conversation"`
	Dialog       string    `json:"dialog"`
	Sequence     int       `json:"sequence"`
	Originator   string    `json:"originator"`
	// Role is the originator's in the conversation, such as "CONSUMER".
	Role     string `json:"role"`
	Path     string `json:"path"`
	FileType string `json:"fileType"`
	Caption  string `json:"caption"`
	// Preview is the length of the preview in bytes; 0: no preview was sent.
	Preview int `json:"preview"`
}

// A SignedURL is one URL that was issued, without its signature.
type SignedURL struct {
	At      time.Time `json:"at"`
	Account string    `json:"account"`
	Method  string    `json:"method"`
	Path    string    `json:"path"`
	// Owner is the id of the consumer or agent that requested it.
	Owner string `json:"owner"`
	// Expires is when the URL stops being valid.
	Expires time.Time `json:"expires"`
}

// A ConversationChange is a change of a conversation's state.
type ConversationChange struct {
	At      time.Time `json:"at"`
	Account string    `json:"account"`
	ID      string    `json:"id"`
	State   string    `json:"state"`
	// Consumer is the id of the conversation's consumer.
	Consumer string `json:"consumer"`
}

// A FetchedRange is the range [From, To) of an object's bytes that was sent.
type FetchedRange struct {
	At   time.Time `json:"at"`
	Path string    `json:"path"`
	From int64     `json:"from"`
	To   int64     `json:"to"`
}

// A RefusedRequest is a request that the store answered with an error.
type RefusedRequest struct {
	At     time.Time `json:"at"`
	Method string    `json:"method"`
	Path   string    `json:"path"`
	Status int       `json:"status"`
}

// Outcomes of an attempt to deliver a webhook.
const (
	// HookDelivered: the endpoint accepted it.
	HookDelivered = "delivered"
	// HookFailed: the attempt failed and will be repeated.
	HookFailed = "failed"
	// HookAbandoned: the attempt failed and will not be repeated.
	HookAbandoned = "abandoned"
	// HookLost: the webhook was never sent, because of a fault or because the queue was full.
	HookLost = "lost"
)

// A DeliveredWebhook is one attempt to deliver a webhook.
type DeliveredWebhook struct {
	At      time.Time `json:"at"`
	Account string    `json:"account"`
	// App is the id of the app install.
	App string `json:"app"`
	// Event is the type of the event, such as "ms.MessagingEventNotification.ContentEvent".
	Event        string `json:"event"`
	Conversation string `json:"conversation"`
	// Sequence is the sequence of the event; nil if it has none.
	Sequence *int `json:"sequence,omitempty"`
	// Try is the number of the attempt, from 1; 0 if there was none.
	Try int `json:"try"`
	// Status is the endpoint's HTTP status; 0: no answer within the timeout.
	Status int `json:"status"`
	// Outcome is one of the Hook constants.
	Outcome string `json:"outcome"`
}

// A Recorder writes a Journal. Its methods may be called from any goroutine; they set the entry's time.
type Recorder struct {
	now  func() time.Time
	feed *feed.Feed

	mu  sync.Mutex
	all Journal
}

// NewRecorder returns a Recorder with an empty journal that takes the time from now. Each entry is an event of the feed as well, which may
// be nil. The lists are empty rather than nil, so that they encode as [] in JSON.
func NewRecorder(now func() time.Time, events *feed.Feed) *Recorder {
	return &Recorder{now: now, feed: events, all: Journal{
		Stored: []StoredObject{}, Published: []PublishedFile{}, Signed: []SignedURL{},
		Conversations: []ConversationChange{}, Fetched: []FetchedRange{}, Refused: []RefusedRequest{},
		Delivered: []DeliveredWebhook{},
	}}
}

// Signed records that a URL was issued.
func (r *Recorder) Signed(u SignedURL) {
	r.mu.Lock()
	defer r.mu.Unlock()
	u.At = r.now()
	r.all.Signed = append(r.all.Signed, u)
	r.feed.Add("signed", u)
}

// Published records a file event.
func (r *Recorder) Published(f PublishedFile) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f.At = r.now()
	r.all.Published = append(r.all.Published, f)
	r.feed.Add("published", f)
}

// Conversation records a change of a conversation's state.
func (r *Recorder) Conversation(c ConversationChange) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c.At = r.now()
	r.all.Conversations = append(r.all.Conversations, c)
	r.feed.Add("conversation", c)
}

// Stored records a commit to the store.
func (r *Recorder) Stored(o StoredObject) {
	r.mu.Lock()
	defer r.mu.Unlock()
	o.At = r.now()
	r.all.Stored = append(r.all.Stored, o)
	r.feed.Add("stored", o)
}

// Fetched records bytes sent from an object.
func (r *Recorder) Fetched(f FetchedRange) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f.At = r.now()
	r.all.Fetched = append(r.all.Fetched, f)
	r.feed.Add("fetched", f)
}

// Refused records a request that the store answered with an error.
func (r *Recorder) Refused(q RefusedRequest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	q.At = r.now()
	r.all.Refused = append(r.all.Refused, q)
	r.feed.Add("refused", q)
}

// Delivered records an attempt to deliver a webhook.
func (r *Recorder) Delivered(d DeliveredWebhook) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d.At = r.now()
	r.all.Delivered = append(r.all.Delivered, d)
	r.feed.Add("delivered", d)
}

// Snapshot returns a copy of the journal.
func (r *Recorder) Snapshot() Journal {
	r.mu.Lock()
	defer r.mu.Unlock()
	return Journal{
		Stored:        slices.Clone(r.all.Stored),
		Published:     slices.Clone(r.all.Published),
		Signed:        slices.Clone(r.all.Signed),
		Conversations: slices.Clone(r.all.Conversations),
		Fetched:       slices.Clone(r.all.Fetched),
		Refused:       slices.Clone(r.all.Refused),
		Delivered:     slices.Clone(r.all.Delivered),
	}
}
