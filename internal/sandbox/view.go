package sandbox

import "encoding/json"

// A conversationView is what one dialect says of a conversation.
type conversationView struct {
	ConvID         string              `json:"convId"`
	EffectiveTTR   int64               `json:"effectiveTTR"`
	LastUpdateTime int64               `json:"lastUpdateTime"`
	Details        conversationDetails `json:"conversationDetails"`
	LastContent    any                 `json:"lastContentEventNotification,omitempty"`
}

type conversationDetails struct {
	ConvID            string              `json:"convId,omitempty"` // agents only
	SkillID           string              `json:"skillId"`
	BrandID           string              `json:"brandId"`
	State             string              `json:"state"`
	Stage             string              `json:"stage"`
	CloseReason       string              `json:"closeReason,omitempty"`
	StartTs           int64               `json:"startTs"`
	EndTs             int64               `json:"endTs,omitempty"`
	MetaDataUpdateTs  int64               `json:"metaDataLastUpdateTs"`
	FirstConversation bool                `json:"firstConversation"`
	TTR               ttr                 `json:"ttr"`
	CSAT              json.RawMessage     `json:"csat,omitempty"`
	Campaign          json.RawMessage     `json:"campaignInfo,omitempty"`
	Participants      any                 `json:"participants"` // consumers: list of entries; agents: role to old ids
	ParticipantsPID   map[string][]string `json:"participantsPId,omitempty"`
	Dialogs           []dialogView        `json:"dialogs"`
	Context           json.RawMessage     `json:"context,omitempty"`
}

type dialogView struct {
	DialogID         string            `json:"dialogId"`
	DialogType       string            `json:"dialogType"`
	ChannelType      string            `json:"channelType"`
	State            string            `json:"state"`
	CreationTs       int64             `json:"creationTs"`
	EndTs            int64             `json:"endTs,omitempty"`
	MetaDataUpdateTs int64             `json:"metaDataLastUpdateTs"`
	ClosedBy         string            `json:"closedBy,omitempty"`
	ClosedCause      string            `json:"closedCause,omitempty"`
	Participants     []participantView `json:"participantsDetails"`
}

type participantView struct {
	ID    string `json:"id"`
	Role  string `json:"role"`
	State string `json:"state,omitempty"`
}

// conversationView tells of a conversation in the caller's dialect.
func (k *caller) conversationView(conv *conversation) conversationView {
	brand := k.dialect == brandDialect
	var entries []participantView // consumers'
	details := []participantView{}
	oldIDs, ids := map[string][]string{}, map[string][]string{}
	for _, p := range conv.participants {
		id := p.who.id
		if brand {
			id = p.who.oldID
		}
		if p.state == active || k.version != "2" { // suggestions came with version 2.1
			details = append(details, participantView{id, p.role, p.state})
		}
		if p.state == active {
			entries = append(entries, participantView{ID: id, Role: p.role})
			oldIDs[p.role] = append(oldIDs[p.role], p.who.oldID)
			ids[p.role] = append(ids[p.role], p.who.id)
		}
	}
	v := conversationView{
		ConvID:         conv.id,
		EffectiveTTR:   conv.started + 1000*conv.ttr.Value,
		LastUpdateTime: conv.changed,
		Details: conversationDetails{
			SkillID: conv.skill, BrandID: conv.account.id, State: conv.state, Stage: conv.state, CloseReason: conv.closedBy,
			StartTs: conv.started, EndTs: conv.ended, MetaDataUpdateTs: conv.changed, FirstConversation: conv.first,
			TTR: conv.ttr, CSAT: conv.csat, Campaign: conv.campaign, Participants: entries, Context: conv.context,
			Dialogs: []dialogView{{
				DialogID: conv.main.id, DialogType: "MAIN", ChannelType: "MESSAGING", State: conv.state,
				CreationTs: conv.started, EndTs: conv.ended, MetaDataUpdateTs: conv.changed,
				ClosedBy: conv.closedBy, ClosedCause: conv.closedCause, Participants: details,
			}},
		},
	}
	if brand {
		v.Details.ConvID, v.Details.Participants, v.Details.ParticipantsPID = conv.id, oldIDs, ids
	}
	if conv.last != nil && (k.who.agent || conv.last.public()) {
		v.LastContent = k.eventView(conv.last)
	}
	return v
}

// An eventView is what one dialect says of an event. In agents' the originator's old id stands where consumers see the new one.
type eventView struct {
	Sequence       *int            `json:"sequence,omitempty"`
	OriginatorID   string          `json:"originatorId"`
	OriginatorPID  string          `json:"originatorPId,omitempty"` // agents only
	Originator     originatorView  `json:"originatorMetadata"`
	Timestamp      int64           `json:"serverTimestamp,omitempty"`
	Event          json.RawMessage `json:"event"`
	ConversationID string          `json:"conversationId"`
	DialogID       string          `json:"dialogId"`
	Audience       string          `json:"messageAudience"`
	Metadata       json.RawMessage `json:"metadata"`
}

type originatorView struct {
	ID         string          `json:"id"`
	Role       string          `json:"role"`
	Properties json.RawMessage `json:"clientProperties,omitempty"`
}

// eventView tells of an event in the caller's dialect. One that has no sequence has no time either.
func (k *caller) eventView(e *event) eventView {
	v := eventView{
		OriginatorID: e.from.id, Originator: originatorView{e.from.id, e.role, e.properties},
		Event: e.content, ConversationID: e.dialog.conv.id, DialogID: e.dialog.id, Audience: e.audience, Metadata: e.metadata,
	}
	if e.numbered {
		v.Sequence, v.Timestamp = &e.sequence, e.at
	}
	if k.dialect == brandDialect {
		v.OriginatorID, v.OriginatorPID = e.from.oldID, e.from.id
	}
	return v
}
