package share

import (
	"errors"
	"time"
)

// A LoggedEvent is an event of a dialog as an event log keeps it.
type LoggedEvent struct {
	Conversation, Dialog string
	// Sequence numbers the events of a dialog, from 0.
	Sequence int64
	// File is the file that the event shows; nil for any other event, of which nothing but its place in the dialog is kept.
	File *FileEvent `json:",omitempty"`
	// Place is where the event stands in the log, which numbers events in the order in which they came. The log sets it.
	Place uint64 `json:"-"`
	// Added is when it came. The log sets it.
	Added time.Time `json:"-"`
}

// A LoggedConversation is a conversation as an event log keeps it.
type LoggedConversation struct {
	Conversation
	// Updated is LivePerson's metaDataLastUpdateTs, in milliseconds: news that is older is dropped. 0: LivePerson has not told of
	// the conversation yet, and it stands as it was created.
	Updated int64
}

// LogPlace is the key under which the Cursor of a messenger with an event log has its place in that log. No dialog is called so.
const LogPlace = "~log"

// ErrWatchReset is why a watch cannot go on: something came that belongs before what it has given, or its place is too old. What
// is there must be listed again.
var ErrWatchReset = errors.New("the watch cannot go on in order")

// A Sight says how much of a conversation's messages a session can look for.
type Sight int

const (
	// SeesAll: LivePerson itself is asked, so that what is not found is not there.
	SeesAll Sight = iota
	// SeesTold: what LivePerson tells of by webhook. What is not found may be there all the same, and may yet be told.
	SeesTold
	// SeesOwn: nothing but what this gateway's own calls were confirmed to have done. Waiting for more is in vain.
	SeesOwn
)
