package liveperson

import (
	"encoding/json"
	"slices"
	"time"
)

// A ConversationSummary is a conversation in the list of all.
type ConversationSummary struct {
	Account string `json:"account"`
	ID      string `json:"id"`
	State   string `json:"state"`
	// Consumer is the consumer's id.
	Consumer string    `json:"consumer"`
	Started  time.Time `json:"started"`
	// Files is the number of file messages.
	Files int `json:"files"`
}

// A ConversationRecord is a conversation with its latest messages, as an observer sees them who may see everything.
type ConversationRecord struct {
	ConversationSummary
	Participants []ParticipantRecord `json:"participants"`
	// Messages are the latest, oldest first, and Earlier is the number of those before them. Receipts count as no message.
	Messages []MessageRecord `json:"messages"`
	Earlier  int             `json:"earlier"`
}

// A ParticipantRecord is a participant of a conversation.
type ParticipantRecord struct {
	ID   string `json:"id"`
	Role string `json:"role"`
	// Name is an agent's user name.
	Name string `json:"name,omitempty"`
}

// A MessageRecord is a message of a conversation.
type MessageRecord struct {
	Sequence int       `json:"sequence"`
	At       time.Time `json:"at"`
	// From is the sender's id, Role its role when it sent the message.
	From string `json:"from"`
	Role string `json:"role"`
	// AgentsOnly says that the consumer does not see the message.
	AgentsOnly bool `json:"agentsOnly,omitempty"`
	// Kind is "file", "text" or "rich".
	Kind string      `json:"kind"`
	Text string      `json:"text,omitempty"`
	File *FileRecord `json:"file,omitempty"`
	// Receipts are the ids of those who sent a receipt for the message, by its status, such as "ACCEPT".
	Receipts map[string][]string `json:"receipts,omitempty"`
}

// A FileRecord is the file of a message.
type FileRecord struct {
	Path    string `json:"path"`
	Type    string `json:"type"`
	Caption string `json:"caption,omitempty"`
	// Preview is the length of the preview in bytes; 0: there is none.
	Preview int `json:"preview,omitempty"`
}

// Conversations returns all conversations of all accounts, the newest first.
func (s *Service) Conversations() []ConversationSummary {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := []ConversationSummary{}
	for _, acct := range s.accounts {
		for _, conv := range acct.ordered {
			all = append(all, conv.summary())
		}
	}
	slices.SortStableFunc(all, func(a, b ConversationSummary) int { return b.Started.Compare(a.Started) })
	return all
}

// Conversation returns a conversation with its latest messages, limit at most, and false if there is none with that id.
func (s *Service) Conversation(id string, limit int) (ConversationRecord, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, acct := range s.accounts {
		if conv := acct.conversations[id]; conv != nil {
			return conv.record(limit), true
		}
	}
	return ConversationRecord{}, false
}

// summary describes conv. Service.mu is locked, here and in the functions below.
func (conv *conversation) summary() ConversationSummary {
	sum := ConversationSummary{
		Account: conv.account.id, ID: conv.id, State: conv.state, Consumer: conv.consumer.id, Started: time.UnixMilli(conv.started),
	}
	for _, e := range conv.main.events {
		if e.file() != nil {
			sum.Files++
		}
	}
	return sum
}

// record describes conv with its latest messages.
func (conv *conversation) record(limit int) ConversationRecord {
	r := ConversationRecord{ConversationSummary: conv.summary(), Messages: []MessageRecord{}}
	for _, p := range conv.participants {
		r.Participants = append(r.Participants, ParticipantRecord{p.who.id, p.role, p.who.name})
	}
	at := map[int]int{} // index in Messages by sequence
	for _, e := range conv.main.events {
		var c eventContent
		if json.Unmarshal(e.content, &c) != nil {
			continue
		}
		if c.Type != "AcceptStatusEvent" {
			at[e.sequence] = len(r.Messages)
			r.Messages = append(r.Messages, e.message(&c))
			continue
		}
		for _, sequence := range c.Sequences {
			if i, ok := at[sequence]; ok {
				r.Messages[i].receipt(c.Status, e.from.id)
			}
		}
	}
	if r.Earlier = max(0, len(r.Messages)-limit); r.Earlier > 0 {
		r.Messages = r.Messages[r.Earlier:]
	}
	return r
}

// message describes an event that is no receipt.
func (e *event) message(c *eventContent) MessageRecord {
	m := MessageRecord{
		Sequence: e.sequence, At: time.UnixMilli(e.at), From: e.from.id, Role: e.role, AgentsOnly: !e.public(), Kind: "text",
	}
	switch f := e.file(); {
	case f != nil:
		m.Kind, m.File = "file", f
	case c.Type != "ContentEvent":
		m.Kind = "rich"
	default:
		_ = json.Unmarshal(c.Message, &m.Text) // a string, or it would not have been accepted
	}
	return m
}

// file returns the file of a file message, or nil.
func (e *event) file() *FileRecord {
	var c struct {
		ContentType string `json:"contentType"`
		Message     struct {
			Path    string          `json:"relativePath"`
			Type    string          `json:"fileType"`
			Caption string          `json:"caption"`
			Preview json.RawMessage `json:"preview"`
		} `json:"message"`
	}
	if json.Unmarshal(e.content, &c) != nil || c.ContentType != "hosted/file" {
		return nil
	}
	return &FileRecord{Path: c.Message.Path, Type: c.Message.Type, Caption: c.Message.Caption, Preview: len(c.Message.Preview)}
}

// receipt adds a receipt, once for each sender.
func (m *MessageRecord) receipt(status, from string) {
	if m.Receipts == nil {
		m.Receipts = map[string][]string{}
	}
	if !slices.Contains(m.Receipts[status], from) {
		m.Receipts[status] = append(m.Receipts[status], from)
	}
}
