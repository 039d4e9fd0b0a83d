package lpws

import (
	"cmp"
	"encoding/json"
	"slices"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// conversation is the latest known state of a conversation.
type conversation struct {
	share.Conversation
	members       []string // every id of every participant
	meta, updated int64    // metaDataLastUpdateTs and lastUpdateTime; 0 if unknown
	local         bool     // created by this server, and not reported by LivePerson yet
}

// clone returns a copy that a caller may keep.
func (c *conversation) clone() share.Conversation {
	out := c.Conversation
	out.Dialogs = slices.Clone(c.Dialogs)
	out.Participants = slices.Clone(c.Participants)
	return out
}

// dialogIDs returns the ids of a conversation's dialogs: the main one first, then the others in order.
func dialogIDs(c share.Conversation) []string {
	ids := []string{c.ID}
	for _, d := range c.Dialogs {
		if d.ID != c.ID {
			ids = append(ids, d.ID)
		}
	}
	slices.Sort(ids[1:])
	return ids
}

// conversations is the part of a book about conversations. Most sessions need few of the maps, so they are created on first use.
type conversations struct {
	principal share.Principal // set once the session is open
	ids       []string        // all ids of the principal

	byID    map[string]*conversation
	parents map[string]string // conversation ids, by ids of dialogs other than main dialogs
	last    map[string]int64  // the highest known sequence, by dialog
}

// participates reports whether the principal takes part in c. LivePerson reports no other conversations to consumers.
func (cs *conversations) participates(c *conversation) bool {
	if len(c.members) == 0 {
		return cs.principal.Role == share.RoleConsumer
	}
	return slices.ContainsFunc(c.members, func(id string) bool { return slices.Contains(cs.ids, id) })
}

// own returns a conversation in which the principal takes part.
func (cs *conversations) own(id string) (*conversation, bool) {
	c := cs.byID[id]
	if c == nil || !cs.participates(c) {
		return nil, false
	}
	return c, true
}

// list returns all conversations in which the principal takes part, oldest first.
func (cs *conversations) list() []share.Conversation {
	all := []share.Conversation{}
	for _, c := range cs.byID {
		if cs.participates(c) {
			all = append(all, c.clone())
		}
	}
	slices.SortFunc(all, func(a, b share.Conversation) int {
		return cmp.Or(a.Start.Compare(b.Start), cmp.Compare(a.ID, b.ID))
	})
	return all
}

// closed reports whether a dialog is known to be closed.
func (cs *conversations) closed(conversation, dialog string) bool {
	c := cs.byID[conversation]
	if c == nil {
		return false
	}
	d, ok := c.Dialog(dialog)
	return ok && !d.Open || !c.Open && dialog == c.ID
}

// update applies a change and returns the new state; nil if the change is older than the known state.
func (cs *conversations) update(w *lpwire.Conversation) *conversation {
	id, details := string(w.ConvID), &w.Details.V
	old := cs.byID[id]
	c := &conversation{meta: details.MetaDataTs.N, updated: w.LastUpdateTime.N}
	if old != nil && !old.local {
		switch { // notifications may arrive out of order
		case c.meta != 0 && old.meta != 0:
			if c.meta < old.meta {
				return nil
			}
		case c.updated != 0 && old.updated != 0 && c.updated < old.updated:
			return nil
		}
	}
	c.Conversation, c.members = w.Read()
	if old != nil {
		for _, d := range old.Dialogs { // LivePerson may leave out dialogs that still exist
			if _, listed := c.Dialog(d.ID); !listed {
				d.Open = d.Open && c.Open
				c.Dialogs = append(c.Dialogs, d)
			}
		}
		if c.Start.IsZero() {
			c.Start = old.Start
		}
	}
	cs.put(c)
	if e := &w.LastContent.V; e.Sequence.OK {
		cs.exists(cmp.Or(string(e.DialogID), id), e.Sequence.N)
	}
	return c
}

// put stores a conversation.
func (cs *conversations) put(c *conversation) {
	if cs.byID == nil {
		cs.byID = make(map[string]*conversation)
	}
	cs.byID[c.ID] = c
	for _, d := range c.Dialogs {
		if d.ID != c.ID {
			if cs.parents == nil {
				cs.parents = make(map[string]string)
			}
			cs.parents[d.ID] = c.ID
		}
	}
}

// exists notes that a dialog has an event with that sequence.
func (cs *conversations) exists(dialog string, sequence int64) {
	if cs.last == nil {
		cs.last = make(map[string]int64)
	}
	if last, known := cs.last[dialog]; !known || sequence > last {
		cs.last[dialog] = sequence
	}
}

// parent returns the id of the conversation of an event.
func (cs *conversations) parent(e *lpwire.Event) string {
	dialog := string(e.DialogID)
	if id, known := cs.parents[dialog]; known {
		return id
	}
	if cs.byID[dialog] != nil {
		return dialog
	}
	return string(e.ConversationID)
}

// remove removes a conversation.
func (cs *conversations) remove(c *conversation) {
	for _, d := range dialogIDs(c.Conversation) {
		delete(cs.parents, d)
		delete(cs.last, d)
	}
	delete(cs.byID, c.ID)
}

// surplus returns the conversations to remove so that no more than limit remain: closed ones first, then the oldest.
func (cs *conversations) surplus(limit int) []*conversation {
	over := len(cs.byID) - limit
	if over <= 0 {
		return nil
	}
	all := make([]*conversation, 0, len(cs.byID))
	for _, c := range cs.byID {
		all = append(all, c)
	}
	slices.SortFunc(all, func(x, y *conversation) int {
		if x.Open != y.Open {
			if x.Open {
				return 1
			}
			return -1
		}
		return x.Start.Compare(y.Start)
	})
	return all[:over]
}

// role returns the role of an event's sender: from the event, or else from the conversation.
func (cs *conversations) role(conversation string, e *lpwire.Event) share.Role {
	if role := e.Originator.V.Role; role != "" {
		return share.Role(role)
	}
	id := e.SenderID()
	if c := cs.byID[conversation]; c != nil {
		for _, p := range c.Participants {
			if p.ID == id {
				return p.Role
			}
		}
	}
	if slices.Contains(cs.ids, id) {
		return cs.principal.Role
	}
	return ""
}

// subscriptionID returns the id in the answer to a subscription; empty if there is none.
func subscriptionID(answer *frame) string {
	var body struct {
		ID lpwire.Text `json:"subscriptionId"`
	}
	_ = json.Unmarshal(answer.Body, &body)
	return string(body.ID)
}
