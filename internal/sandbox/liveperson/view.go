package liveperson

import "encoding/json"

// A conversationView is a conversation as one dialect presents it.
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
	CSAT              *csatView           `json:"csat,omitempty"`
	Campaign          json.RawMessage     `json:"campaignInfo,omitempty"`
	Participants      any                 `json:"participants"` // for consumers a list of entries, for agents old ids by role
	ParticipantsPID   map[string][]string `json:"participantsPId,omitempty"`
	Dialogs           []dialogView        `json:"dialogs"`
	Context           json.RawMessage     `json:"context,omitempty"`
}

type csatView struct {
	Field string `json:"field"`
	csat
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

// conversationView presents a conversation in the caller's dialect.
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
		details = append(details, participantView{id, p.role, "ACTIVE"})
		entries = append(entries, participantView{ID: id, Role: p.role})
		oldIDs[p.role] = append(oldIDs[p.role], p.who.oldID)
		ids[p.role] = append(ids[p.role], p.who.id)
	}
	v := conversationView{
		ConvID:         conv.id,
		EffectiveTTR:   conv.started + 1000*conv.ttr.Value,
		LastUpdateTime: conv.changed,
		Details: conversationDetails{
			SkillID: conv.skill, BrandID: conv.account.id, State: conv.state, Stage: conv.state, CloseReason: conv.closedBy,
			StartTs: conv.started, EndTs: conv.ended, MetaDataUpdateTs: conv.changed, FirstConversation: conv.first,
			TTR: conv.ttr, Campaign: conv.campaign, Participants: entries, Context: conv.context,
			Dialogs: []dialogView{{
				DialogID: conv.main.id, DialogType: "MAIN", ChannelType: "MESSAGING", State: conv.state,
				CreationTs: conv.started, EndTs: conv.ended, MetaDataUpdateTs: conv.changed,
				ClosedBy: conv.closedBy, ClosedCause: conv.closedCause, Participants: details,
			}},
		},
	}
	if conv.csat.complete() {
		v.Details.CSAT = &csatView{"CSATRate", *conv.csat}
	}
	if brand {
		v.Details.ConvID, v.Details.Participants, v.Details.ParticipantsPID = conv.id, oldIDs, ids
	}
	if conv.last != nil && (k.who.agent || conv.last.public()) {
		v.LastContent = k.eventView(conv.last)
	}
	return v
}

// An eventView is an event as one dialect presents it. Agents get the originator's old id where consumers get the new one.
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

// eventView presents an event in the caller's dialect. An event without a sequence has no time either.
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
