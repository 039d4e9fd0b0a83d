package share

import "time"

// A Conversation is a conversation as LivePerson reports it to one of its participants.
type Conversation struct {
	ID string
	// Open reports whether the main dialog is in LivePerson's state OPEN.
	Open         bool
	Start, End   time.Time
	Dialogs      []Dialog
	Participants []Participant
	SkillID      string
}

// A Dialog is a part of a conversation with its own sequences. The main dialog has the ID of the conversation.
type Dialog struct {
	ID, Type string
	Open     bool
}

// A Participant takes part in a conversation.
type Participant struct {
	ID   string
	Role Role
}

// MainDialog returns the id of the dialog that a conversation starts with.
func (c Conversation) MainDialog() string { return c.ID }

// Dialog finds a dialog by id. It finds the main dialog even if LivePerson did not list it.
func (c Conversation) Dialog(id string) (Dialog, bool) {
	for _, d := range c.Dialogs {
		if d.ID == id {
			return d, true
		}
	}
	if id == c.ID {
		return Dialog{ID: id, Type: "MAIN", Open: c.Open}, true
	}
	return Dialog{}, false
}

// A NewConversation is a consumer's request for a conversation. LivePerson chooses the values of empty fields.
type NewConversation struct {
	SkillID, CampaignID, EngagementID string
	Context                           *ConversationContext
}

// A ConversationContext is LivePerson's SharkContext.
type ConversationContext struct {
	Language, VisitorID, SessionID, InteractionContextID string
}
