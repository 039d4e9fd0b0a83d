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
	// File is the file that the event shows. It is nil for any other event, of which only the sequence is kept.
	File *FileEvent `json:",omitempty"`
	// Position is the event's position in the log, which numbers events in the order of their arrival. The log sets it.
	Position uint64 `json:"-"`
	// Added is when the event was added. The log sets it.
	Added time.Time `json:"-"`
}

// A LoggedConversation is a conversation as an event log keeps it.
type LoggedConversation struct {
	Conversation
	// Updated is LivePerson's metaDataLastUpdateTs, in milliseconds; older updates are dropped. 0 means that LivePerson has not
	// reported the conversation since it was created.
	Updated int64
}

// LogPosition is the key of a Cursor that has the position in the event log, for messengers with one. No dialog has this id.
const LogPosition = "~log"

// ErrWatchReset is returned by a watch that cannot continue: a file arrived after later files of its dialog were returned, or the
// cursor is too old. The caller must list the files again.
var ErrWatchReset = errors.New("the watch cannot continue in order")

// A Sight says which of a conversation's messages a session can find.
type Sight int

const (
	// SeesAll: LivePerson is queried, so a message that is not found does not exist.
	SeesAll Sight = iota
	// SeesReported: those that LivePerson reported by webhook. A message that is not found may exist and be reported later.
	SeesReported
	// SeesOwn: only those that this server's own calls are confirmed to have sent. Others never appear.
	SeesOwn
)
