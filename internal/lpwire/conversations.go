package lpwire

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// ConversationChanges is the body of an ExConversationChangeNotification.
type ConversationChanges struct {
	SubscriptionID Text                     `json:"subscriptionId"`
	Changes        List[ConversationChange] `json:"changes"`
}

// ConversationChange is the new state of a conversation (type UPSERT), or its removal from the reader's list (DELETE).
type ConversationChange struct {
	Type   Text                 `json:"type"`
	Result Object[Conversation] `json:"result"`
}

// Conversation is LivePerson's form of a conversation.
type Conversation struct {
	ConvID         Text            `json:"convId"`
	LastUpdateTime Number          `json:"lastUpdateTime"`
	Details        Object[Details] `json:"conversationDetails"`
	LastContent    Object[Event]   `json:"lastContentEventNotification"`
}

// Details are the conversationDetails of a Conversation.
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

// Dialog is a part of a conversation with its own sequence numbers.
type Dialog struct {
	DialogID     Text              `json:"dialogId"`
	DialogType   Text              `json:"dialogType"`
	State        Text              `json:"state"`
	Participants List[Participant] `json:"participantsDetails"`
}

// Participant is a current or former participant.
type Participant struct {
	ID    Text `json:"id"`
	Role  Text `json:"role"`
	State Text `json:"state"`
}

// Participants is a list of ids with roles. LivePerson sends it as such a list, or as an object with a list of ids for each role.
type Participants []share.Participant

// UnmarshalJSON accepts both forms and never fails.
func (p *Participants) UnmarshalJSON(data []byte) error {
	*p = nil
	var byRole map[string]List[Text]
	if json.Unmarshal(data, &byRole) == nil && byRole != nil && len(byRole["id"]) == 0 {
		for _, role := range slices.Sorted(maps.Keys(byRole)) {
			for _, id := range byRole[role] {
				*p = append(*p, share.Participant{ID: string(id), Role: share.Role(role)})
			}
		}
		return nil
	}
	var entries List[Participant]
	_ = entries.UnmarshalJSON(data)
	p.add(entries)
	return nil
}

func (p *Participants) add(entries List[Participant]) {
	for _, e := range entries {
		if e.ID != "" {
			*p = append(*p, share.Participant{ID: string(e.ID), Role: share.Role(e.Role)})
		}
	}
}

// Read converts the conversation. members has every id of every participant: agents have two.
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
		for _, p := range d.Participants { // the third form of participants
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
