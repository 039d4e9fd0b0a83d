package liveperson

import (
	"encoding/json"
	"slices"

	"github.com/lpfileshare/lpfileshare/internal/sandbox/feed"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/journal"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/jsonhttp"
)

const (
	audienceAll    = "ALL"
	audienceAgents = "AGENTS_AND_MANAGERS"
)

// A dialog is a stream of events. Service.mu guards it.
type dialog struct {
	id     string
	conv   *conversation
	events []*event // those with a sequence, by sequence
}

// An event is one published event. It is immutable.
type event struct {
	dialog     *dialog
	numbered   bool // whether it has a sequence; chat states have none
	sequence   int
	from       *person
	role       string
	properties json.RawMessage // client properties of the originator
	at         int64
	content    json.RawMessage
	audience   string
	metadata   json.RawMessage
	encoded    map[dialect][]byte // views that were sent in a backlog
}

// public reports whether consumers may see the event.
func (e *event) public() bool { return e.audience == audienceAll }

// A publication is the body of ms.PublishEvent.
type publication struct {
	Dialog       jsonText        `json:"dialogId"`
	Conversation jsonText        `json:"conversationId"`
	Audience     string          `json:"messageAudience"`
	Event        json.RawMessage `json:"event"`
}

// eventContent is an event of any type.
type eventContent struct {
	Type        string          `json:"type"`
	ContentType string          `json:"contentType"`
	Message     json.RawMessage `json:"message"`
	Content     json.RawMessage `json:"content"`
	Status      string          `json:"status"`
	Sequences   List[int]       `json:"sequenceList"`
	ChatState   string          `json:"chatState"`
}

var (
	acceptStatuses = []string{"ACCEPT", "READ", "ACCESS", "NACK", "ACTION"}
	chatStates     = []string{"ACTIVE", "INACTIVE", "GONE", "COMPOSING", "PAUSE"}
)

// publishEvent answers ms.PublishEvent.
func (k *caller) publishEvent(c *call) Reply {
	var body publication
	if err := c.decode(&body); err != nil {
		return Refuse(CodeInvalid, "the body has the wrong shape")
	}
	d, refusal := k.openDialog(string(body.Dialog), string(body.Conversation))
	if refusal != nil {
		return *refusal
	}
	switch {
	case body.Audience == "":
		body.Audience = audienceAll
	case body.Audience != audienceAll && (body.Audience != audienceAgents || !k.who.agent):
		return Refuse(CodeInvalid, "messageAudience is not a value that you may use")
	}
	var content eventContent
	if given(body.Event) == nil {
		return Refuse(CodeMissing, "event is missing")
	}
	if json.Unmarshal(body.Event, &content) != nil {
		return Refuse(CodeInvalid, "event has the wrong shape")
	}
	var f *file
	if content.Type == "ContentEvent" && content.ContentType == "hosted/file" {
		if f, refusal = k.checkFile(c, content.Message); refusal != nil {
			return *refusal
		}
		body.Event = withoutNulls(body.Event, content.Message)
	} else if why := content.invalid(); why != "" {
		return Refuse(CodeInvalid, "%s", why)
	}

	e := k.record(d, &content, body)
	if e.metadata = c.metadata; isObject(c.metadata) {
		e.metadata = jsonhttp.Encode([]json.RawMessage{c.metadata})
	}
	k.s.distribute(&c.b, e)
	if f != nil {
		k.account.files[f.path] = append(k.account.files[f.path], e)
		k.s.opts.Journal.Published(journal.PublishedFile{
			Account: k.account.id, Conversation: d.conv.id, Dialog: d.id, Sequence: e.sequence,
			Originator: k.who.id, Role: e.role, Path: f.path, FileType: f.Type, Caption: f.Caption, Preview: f.preview,
		})
	}
	if e.numbered {
		k.s.opts.Feed.Add("message", feed.Message{
			Account: k.account.id, Conversation: d.conv.id, Sequence: e.sequence, Role: e.role, Type: content.Type, Status: content.Status,
		})
	}
	if e.numbered && content.Type != "AcceptStatusEvent" {
		d.conv.last = e
		k.s.conversationChanged(&c.b, d.conv, true)
	}
	return Reply{Code: 200, Type: typePublish, Body: map[string]int{"sequence": e.sequence}}
}

// record creates the event and, unless it is a chat state, assigns the dialog's next sequence.
func (k *caller) record(d *dialog, content *eventContent, body publication) *event {
	e := &event{
		dialog: d, from: k.who, role: d.conv.participant(k.who).role, properties: k.properties,
		at: k.s.now().UnixMilli(), content: body.Event, audience: body.Audience,
	}
	if content.Type != "ChatStateEvent" {
		e.numbered, e.sequence = true, len(d.events)
		d.events = append(d.events, e)
	}
	if content.Type == "AcceptStatusEvent" { // sequenceList may have been a bare number, and must be passed on as a list
		var members map[string]json.RawMessage
		_ = json.Unmarshal(body.Event, &members) // an object, or it would have no type
		members["sequenceList"] = jsonhttp.Encode(content.Sequences)
		e.content = jsonhttp.Encode(members)
	}
	return e
}

// invalid returns the reason why an event that is not a file is invalid, or "".
func (ev *eventContent) invalid() string {
	switch ev.Type {
	case "ContentEvent":
		var text string
		switch {
		case ev.ContentType == "":
			return "contentType is missing"
		case ev.ContentType != "text/plain":
			return "contentType must be text/plain or hosted/file"
		case given(ev.Message) == nil || json.Unmarshal(ev.Message, &text) != nil:
			return "message must be a string"
		}
	case "AcceptStatusEvent":
		if !slices.Contains(acceptStatuses, ev.Status) {
			return "status is not a known value"
		}
		if len(ev.Sequences) == 0 || slices.ContainsFunc(ev.Sequences, func(n int) bool { return n < 0 }) {
			return "sequenceList must list sequences"
		}
	case "ChatStateEvent":
		if !slices.Contains(chatStates, ev.ChatState) {
			return "chatState is not a known value"
		}
	case "RichContentEvent":
		if !isObject(ev.Content) && !isObject(ev.Message) {
			return "content must be an object"
		}
	default:
		return "the event's type is not a known value"
	}
	return ""
}

// distribute sends an event to every open socket of the participants, once each, and of agents who have subscribed to the dialog.
// LivePerson's documentation is inconsistent about whether a consumer must subscribe first; this is the harder case for clients.
func (s *Service) distribute(b *batch, e *event) {
	conv := e.dialog.conv
	var forConsumers, forAgents []byte // the same for every socket of a dialect
	push := func(k *socket) {
		if k.dialect == brandDialect {
			if forAgents == nil {
				forAgents = notification(".ams.ms.OnlineEventDistribution", k.eventView(e))
			}
			b.add(k, forAgents)
			return
		}
		if forConsumers == nil {
			forConsumers = notification("ms.MessagingEventNotification", map[string]any{"changes": []eventView{k.eventView(e)}})
		}
		b.add(k, forConsumers)
	}
	if e.public() {
		for k := range conv.account.present[conv.consumer.id] {
			push(k)
		}
	}
	e.notifyListener()
	for k := range conv.account.agentSockets {
		if conv.hasParticipant(k.who) || k.dialogSubs[e.dialog] {
			push(k)
		}
	}
}

// notifyListener reports the event to the conversation's listener, as a consumer's socket would get it.
func (e *event) notifyListener() {
	conv := e.dialog.conv
	if conv.listener == nil || !e.public() {
		return
	}
	var content struct {
		Type string `json:"type"`
	}
	_ = json.Unmarshal(e.content, &content) // an object, or it would not be an event
	var sequence *int
	if e.numbered {
		sequence = &e.sequence
	}
	conv.listener.Notify(conv.id, "ms.MessagingEventNotification."+content.Type, sequence, func() []byte {
		return notification("ms.MessagingEventNotification", map[string]any{"changes": []eventView{conv.asConsumer().eventView(e)}})
	})
}

// consumerPresence notifies the agents in a consumer's open conversations that the consumer has disconnected or returned.
func (s *Service) consumerPresence(b *batch, acct *account, consumer *person, state string) {
	for _, conv := range acct.of[consumer.id] {
		if conv.state != stateOpen {
			continue
		}
		e := &event{
			dialog: conv.main, from: consumer, role: roleConsumer, audience: audienceAgents,
			content: jsonhttp.Encode(map[string]string{"type": "ChatStateEvent", "chatState": state}),
		}
		s.distribute(b, e)
	}
}

// dialog returns a dialog that the caller may read, by its id and, if not empty, the id of its conversation.
func (k *caller) dialog(id, conversation string) (*dialog, *Reply) {
	refused := func(errorCode int, why string) (*dialog, *Reply) {
		a := Refuse(errorCode, "%s", why)
		return nil, &a
	}
	if id == "" {
		return refused(CodeMissing, "dialogId is missing")
	}
	d := k.account.dialogs[id]
	switch {
	case d == nil:
		return refused(CodeNoConversation, "no such dialog")
	case conversation != "" && conversation != d.conv.id:
		return refused(CodeInvalid, "the dialog belongs to another conversation")
	case !k.who.agent && d.conv.consumer.id != k.who.id:
		return refused(CodeForeign, "the conversation belongs to another consumer")
	}
	return d, nil
}

// openDialog returns a dialog that the caller may write to.
func (k *caller) openDialog(id, conversation string) (*dialog, *Reply) {
	d, refusal := k.dialog(id, conversation)
	if refusal != nil {
		return nil, refusal
	}
	if !d.conv.hasParticipant(k.who) {
		a := Refuse(CodeForeign, "you are not a participant of this conversation")
		return nil, &a
	}
	if d.conv.state != stateOpen {
		a := Refuse(CodeClosed, "the conversation is closed")
		return nil, &a
	}
	return d, nil
}

// backlog returns the events of a dialog from a sequence on that the caller may read, as a JSON array, and their number. Agents read
// the backlog of a dialog again and again, so each event is encoded once.
func (k *socket) backlog(d *dialog, from int64) (array encoded, n int) {
	array = encoded("[")
	for _, e := range d.events {
		if int64(e.sequence) < from || !k.who.agent && !e.public() {
			continue
		}
		if e.encoded[k.dialect] == nil {
			if e.encoded == nil {
				e.encoded = make(map[dialect][]byte)
			}
			e.encoded[k.dialect] = jsonhttp.Encode(k.eventView(e))
		}
		if n++; n > 1 {
			array = append(array, ',')
		}
		array = append(array, e.encoded[k.dialect]...)
	}
	return append(array, ']'), n
}

// subscribeMessaging answers ms.SubscribeMessagingEvents. Participants get live events without it, so for them it only requests the
// backlog.
func (k *socket) subscribeMessaging(c *call) Reply {
	d, from, refusal := k.window(c)
	if refusal != nil {
		return *refusal
	}
	k.dialogSubs[d] = true
	a := Reply{Code: 200, Type: typeSubscribe, Body: struct{}{}}
	if k.dialect == brandDialect {
		a.Type = ".ams.GenericSubscribe$Response"
	}
	if backlog, n := k.backlog(d, from); n > 0 {
		a.then = [][]byte{notification("ms.MessagingEventNotification", slices.Concat(encoded(`{"changes":`), backlog, encoded("}")))}
	}
	return a
}

// queryMessages answers ms.QueryMessages.
func (k *socket) queryMessages(c *call) Reply {
	d, from, refusal := k.window(c)
	if refusal != nil {
		return *refusal
	}
	backlog, _ := k.backlog(d, from)
	return Reply{Code: 200, Type: typeQuery, Body: backlog}
}

// window returns a dialog and the first sequence to return. node-agent-sdk copies fromSeq, or 0, to newerThanSequence, so both
// must have the same meaning, or its clients would never get the first message.
func (k *socket) window(c *call) (*dialog, int64, *Reply) {
	var body struct {
		Dialog       jsonText  `json:"dialogId"`
		Conversation jsonText  `json:"conversationId"`
		From         *jsonText `json:"fromSeq"`
		Newer        *jsonText `json:"newerThanSequence"`
	}
	if err := c.decode(&body); err != nil {
		a := Refuse(CodeInvalid, "the body has the wrong shape")
		return nil, 0, &a
	}
	d, refusal := k.dialog(string(body.Dialog), string(body.Conversation))
	if refusal != nil {
		return nil, 0, refusal
	}
	var from int64
	for _, given := range []*jsonText{body.Newer, body.From} {
		if given == nil {
			continue
		}
		n, ok := given.number()
		if !ok {
			a := Refuse(CodeInvalid, "fromSeq is not a number")
			return nil, 0, &a
		}
		from = n
	}
	return d, from, nil
}
