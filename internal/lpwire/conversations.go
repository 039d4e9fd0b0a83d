package lpwire

import (
	"cmp"
	"encoding/json"
	"slices"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// ConversationChanges is the body of an ExConversationChangeNotification.
type ConversationChanges struct {
	SubscriptionID Text                     `json:"subscriptionId"`
	Changes        List[ConversationChange] `json:"changes"`
}

// A ConversationChange tells that a conversation is there as it says (UPSERT), or no longer the reader's (DELETE).
type ConversationChange struct {
	Type   Text                 `json:"type"`
	Result Object[Conversation] `json:"result"`
}

// A Conversation is a conversation as LivePerson tells it.
type Conversation struct {
	ConvID         Text            `json:"convId"`
	LastUpdateTime Number          `json:"lastUpdateTime"`
	Details        Object[Details] `json:"conversationDetails"`
	LastContent    Object[Event]   `json:"lastContentEventNotification"`
}

// Details are what is told of a conversation.
type Details struct {
	SkillID         Text         `json:"skillId"`
	BrandID         Text         `json:"brandId"`
	State           Text         `json:"state"`
	StartTs         Number       `json:"startTs"`
	EndTs           Number       `json:"endTs"`
	MetaDataTs      Number       `json:"metaDataLastUpdateTs"`
	Participants    Participants `json:"participants"`
	ParticipantsPID Participants `json:"participantsPId"`
	Dialogs         List[Dialog] `json:"dialogs"`
}

// A Dialog is a part of a conversation.
type Dialog struct {
	DialogID     Text              `json:"dialogId"`
	DialogType   Text              `json:"dialogType"`
	State        Text              `json:"state"`
	Participants List[Participant] `json:"participantsDetails"`
}

// A Participant is somebody who takes part, or did.
type Participant struct {
	ID    Text `json:"id"`
	Role  Text `json:"role"`
	State Text `json:"state"`
}

// Participants come as a list of ids with roles, or as an object with a list of ids for each role.
type Participants []share.Participant

// UnmarshalJSON takes both forms and never fails.
func (p *Participants) UnmarshalJSON(data []byte) error {
	*p = nil
	var byRole map[string]List[Text]
	if json.Unmarshal(data, &byRole) == nil && byRole != nil && len(byRole["id"]) == 0 {
		for role, ids := range byRole {
			for _, id := range ids {
				*p = append(*p, share.Participant{ID: string(id), Role: share.Role(role)})
			}
		}
		return nil
	}
	var entries List[Participant]
	_ = entries.UnmarshalJSON(data)
	for _, e := range entries {
		if e.ID != "" {
			*p = append(*p, share.Participant{ID: string(e.ID), Role: share.Role(e.Role)})
		}
	}
	return nil
}

// Read is the conversation in our words. members is every id of every participant: agents have two.
func (w *Conversation) Read() (c share.Conversation, members []string) {
	details := &w.Details.V
	c = share.Conversation{
		ID: string(w.ConvID), Open: details.State != "CLOSE", SkillID: string(details.SkillID),
		Start: details.StartTs.Time(), End: details.EndTs.Time(), Participants: details.ParticipantsPID,
	}
	if len(c.Participants) == 0 {
		c.Participants = details.Participants
	}
	for _, p := range slices.Concat(details.Participants, details.ParticipantsPID) {
		members = append(members, p.ID)
	}
	for _, d := range details.Dialogs {
		if d.DialogID == "" {
			continue
		}
		c.Dialogs = append(c.Dialogs, share.Dialog{ID: string(d.DialogID), Type: string(d.DialogType), Open: d.State != "CLOSE"})
		if len(details.Participants)+len(details.ParticipantsPID) > 0 {
			continue
		}
		for _, p := range d.Participants { // the third form
			if p.ID != "" && (p.State == "" || p.State == "ACTIVE") && !slices.Contains(members, string(p.ID)) {
				members = append(members, string(p.ID))
				c.Participants = append(c.Participants, share.Participant{ID: string(p.ID), Role: share.Role(p.Role)})
			}
		}
	}
	slices.SortStableFunc(c.Participants, func(a, b share.Participant) int {
		return cmp.Or(cmp.Compare(a.Role, b.Role), cmp.Compare(a.ID, b.ID))
	})
	return c, members
}
