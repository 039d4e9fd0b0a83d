package sandbox

import (
	"slices"
	"sync"
	"time"
)

// A Journal is what the sandbox saw and did, as it saw it: the evidence against which a test holds what callers were told.
// Every list is in the order of events.
type Journal struct {
	// Stored has an entry for every commit of an object, so a path that was written twice stands here twice.
	Stored []StoredObject `json:"stored"`
	// Published has an entry for every file event that entered a conversation.
	Published []PublishedFile `json:"published"`
	// Signed has an entry for every signed URL that was given out.
	Signed []SignedURL `json:"signed"`
	// Conversations has an entry for every change of a conversation's state.
	Conversations []ConversationChange `json:"conversations"`
	// Fetched has an entry for every run of bytes that was sent from an object.
	Fetched []FetchedRange `json:"fetched"`
	// Refused has an entry for every request that the store answered with an error.
	Refused []RefusedRequest `json:"refused"`
	// Delivered has an entry for every try to deliver a webhook.
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
	Path         string    `json:"path"`
	FileType     string    `json:"fileType"`
	Caption      string    `json:"caption"`
	// Preview is the length of the preview in bytes; 0: none was sent.
	Preview int `json:"preview"`
}

// A SignedURL is one URL that was given out. Its signature is not kept.
type SignedURL struct {
	At      time.Time `json:"at"`
	Account string    `json:"account"`
	Method  string    `json:"method"`
	Path    string    `json:"path"`
	// Owner is who asked for it.
	Owner string `json:"owner"`
}

// A ConversationChange is a conversation that came into a state.
type ConversationChange struct {
	At      time.Time `json:"at"`
	Account string    `json:"account"`
	ID      string    `json:"id"`
	State   string    `json:"state"`
}

// A FetchedRange is a run of an object's bytes that was sent: from From up to, not including, To.
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

// What became of a try to deliver a webhook.
const (
	// HookDelivered: the endpoint took it.
	HookDelivered = "delivered"
	// HookFailed: it will be tried again.
	HookFailed = "failed"
	// HookAbandoned: it failed, and will not be tried again.
	HookAbandoned = "abandoned"
	// HookLost: it never left, by a fault or because too many were waiting.
	HookLost = "lost"
)

// A DeliveredWebhook is one try to deliver a webhook.
type DeliveredWebhook struct {
	At      time.Time `json:"at"`
	Account string    `json:"account"`
	// App is the id of the app install.
	App string `json:"app"`
	// Event is the type that the webhook is for, "ms.MessagingEventNotification.ContentEvent" for example.
	Event        string `json:"event"`
	Conversation string `json:"conversation"`
	// Sequence is the event's; nil if it has none.
	Sequence *int `json:"sequence,omitempty"`
	// Try counts from 1; 0 if it never came to one.
	Try int `json:"try"`
	// Status is the endpoint's answer; 0: none came in time.
	Status int `json:"status"`
	// Outcome is one of the Hook constants.
	Outcome string `json:"outcome"`
}

// journal is the Journal while it is being written. Entries are only ever added.
type journal struct {
	now func() time.Time

	mu  sync.Mutex
	all Journal
}

// newJournal returns an empty journal. Its lists are empty rather than nil, so that they read [] and not null as JSON.
func newJournal(now func() time.Time) *journal {
	return &journal{now: now, all: Journal{
		Stored: []StoredObject{}, Published: []PublishedFile{}, Signed: []SignedURL{},
		Conversations: []ConversationChange{}, Fetched: []FetchedRange{}, Refused: []RefusedRequest{},
		Delivered: []DeliveredWebhook{},
	}}
}

// urlSigned notes a signed URL that was given to owner.
func (j *journal) urlSigned(account, method, path, owner string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.all.Signed = append(j.all.Signed, SignedURL{At: j.now(), Account: account, Method: method, Path: path, Owner: owner})
}

// published notes a file event that entered a conversation; preview is the length of its preview.
func (j *journal) published(account, conversation, dialog string, sequence int, originator, path, fileType, caption string, preview int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.all.Published = append(j.all.Published, PublishedFile{
		At: j.now(), Account: account, Conversation: conversation, Dialog: dialog, Sequence: sequence,
		Originator: originator, Path: path, FileType: fileType, Caption: caption, Preview: preview,
	})
}

// conversation notes that a conversation came into state.
func (j *journal) conversation(account, id, state string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.all.Conversations = append(j.all.Conversations, ConversationChange{At: j.now(), Account: account, ID: id, State: state})
}

// stored notes a commit.
func (j *journal) stored(path string, size int64, etag, sha256 string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.all.Stored = append(j.all.Stored, StoredObject{At: j.now(), Path: path, Size: size, ETag: etag, SHA256: sha256})
}

// fetched notes that the bytes from up to, not including, to were sent.
func (j *journal) fetched(path string, from, to int64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.all.Fetched = append(j.all.Fetched, FetchedRange{At: j.now(), Path: path, From: from, To: to})
}

// refused notes a request that got an error.
func (j *journal) refused(method, path string, status int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.all.Refused = append(j.all.Refused, RefusedRequest{At: j.now(), Method: method, Path: path, Status: status})
}

// delivered notes a try to deliver a webhook.
func (j *journal) delivered(d DeliveredWebhook) {
	j.mu.Lock()
	defer j.mu.Unlock()
	d.At = j.now()
	j.all.Delivered = append(j.all.Delivered, d)
}

// snapshot returns a copy of everything noted so far.
func (j *journal) snapshot() Journal {
	j.mu.Lock()
	defer j.mu.Unlock()
	return Journal{
		Stored:        slices.Clone(j.all.Stored),
		Published:     slices.Clone(j.all.Published),
		Signed:        slices.Clone(j.all.Signed),
		Conversations: slices.Clone(j.all.Conversations),
		Fetched:       slices.Clone(j.all.Fetched),
		Refused:       slices.Clone(j.all.Refused),
		Delivered:     slices.Clone(j.all.Delivered),
	}
}
