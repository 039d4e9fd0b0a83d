package share

import "time"

// A Conversation as LivePerson tells it to one of its participants.
type Conversation struct {
	ID string
	// Open is LivePerson's state OPEN, of the main dialog.
	Open         bool
	Start, End   time.Time
	Dialogs      []Dialog
	Participants []Participant
	SkillID      string
}

// A Dialog is a part of a conversation with sequences of its own. The main dialog's ID is the conversation's.
type Dialog struct {
	ID, Type string
	Open     bool
}

// A Participant takes part in a conversation.
type Participant struct {
	ID   string
	Role Role
}

// MainDialog is the id of the dialog that a conversation begins with.
func (c Conversation) MainDialog() string { return c.ID }

// Dialog finds a dialog by id; the main dialog is there even if LivePerson did not list it.
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

// A NewConversation is what a consumer asks for. Empty fields are left to LivePerson.
type NewConversation struct {
	SkillID, CampaignID, EngagementID string
	Context                           *ConversationContext
}

// A ConversationContext is LivePerson's SharkContext.
type ConversationContext struct {
	Language, VisitorID, SessionID, InteractionContextID string
}
