package sandbox

import (
	"encoding/json"
	"slices"
)

const (
	audienceAll    = "ALL"
	audienceAgents = "AGENTS_AND_MANAGERS"
)

// A dialog is where events are published. Sandbox.mu guards it.
type dialog struct {
	id     string
	conv   *conversation
	events []*event // those with a sequence, which is their index
}

// An event is something published. It never changes.
type event struct {
	dialog     *dialog
	numbered   bool // chat states have no sequence
	sequence   int
	from       *person
	role       string
	properties json.RawMessage // the client properties of the originator's socket
	at         int64
	content    json.RawMessage
	audience   string
	metadata   json.RawMessage
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
	Sequences   list[int]       `json:"sequenceList"`
	ChatState   string          `json:"chatState"`
}

var (
	acceptStatuses = []string{"ACCEPT", "READ", "ACCESS", "NACK", "ACTION"}
	chatStates     = []string{"ACTIVE", "INACTIVE", "GONE", "COMPOSING", "PAUSE"}
)

// publishEvent answers ms.PublishEvent.
func (k *caller) publishEvent(c *call) reply {
	var body publication
	if err := c.decode(&body); err != nil {
		return refuse(errInvalid, "the body has the wrong shape")
	}
	d, refusal := k.openDialog(string(body.Dialog), string(body.Conversation))
	if refusal != nil {
		return *refusal
	}
	switch {
	case body.Audience == "":
		body.Audience = audienceAll
	case body.Audience != audienceAll && (body.Audience != audienceAgents || !k.who.agent):
		return refuse(errInvalid, "messageAudience is none that there is for you")
	}
	var content eventContent
	if given(body.Event) == nil {
		return refuse(errMissing, "event is missing")
	}
	if json.Unmarshal(body.Event, &content) != nil {
		return refuse(errInvalid, "event has the wrong shape")
	}
	var f *file
	if content.Type == "ContentEvent" && content.ContentType == "hosted/file" {
		if f, refusal = k.checkFile(c, content.Message); refusal != nil {
			return *refusal
		}
		body.Event = withoutNulls(body.Event, content.Message)
	} else if why := content.fault(); why != "" {
		return refuse(errInvalid, "%s", why)
	}

	e := k.record(d, &content, body)
	if e.metadata = c.metadata; isObject(c.metadata) {
		e.metadata = frame([]json.RawMessage{c.metadata})
	}
	k.s.distribute(&c.b, e)
	if f != nil {
		k.account.files[f.path] = append(k.account.files[f.path], e)
		k.s.journal.published(k.account.id, d.conv.id, d.id, e.sequence, k.who.id, f.path, f.Type, f.Caption, f.preview)
	}
	if e.numbered && content.Type != "AcceptStatusEvent" {
		d.conv.last = e
		k.s.conversationChanged(&c.b, d.conv, true)
	}
	return reply{code: 200, typ: typePublish, body: map[string]int{"sequence": e.sequence}}
}

// record makes the event, and gives it the dialog's next sequence unless it is a chat state.
func (k *caller) record(d *dialog, content *eventContent, body publication) *event {
	e := &event{
		dialog: d, from: k.who, role: d.conv.participant(k.who).role, properties: k.properties,
		at: k.s.now().UnixMilli(), content: body.Event, audience: body.Audience,
	}
	if content.Type != "ChatStateEvent" {
		e.numbered, e.sequence = true, len(d.events)
		d.events = append(d.events, e)
	}
	if content.Type == "AcceptStatusEvent" { // a bare number was taken for a list, and must not be passed on as one
		var members map[string]json.RawMessage
		_ = json.Unmarshal(body.Event, &members) // an object, or it had no type
		members["sequenceList"] = frame(content.Sequences)
		e.content = frame(members)
	}
	return e
}

// fault says what is wrong with an event that is no file; nothing if it is "".
func (ev *eventContent) fault() string {
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
			return "status is none that there is"
		}
		if len(ev.Sequences) == 0 || slices.ContainsFunc(ev.Sequences, func(n int) bool { return n < 0 }) {
			return "sequenceList must name the events that it is about"
		}
	case "ChatStateEvent":
		if !slices.Contains(chatStates, ev.ChatState) {
			return "chatState is none that there is"
		}
	case "RichContentEvent":
		if !isObject(ev.Content) && !isObject(ev.Message) {
			return "content must be an object"
		}
	default:
		return "the event's type is none that there is"
	}
	return ""
}

// distribute pushes an event to every open socket of those who take part, once each, and of agents who only follow the dialog.
// LivePerson's pages disagree on whether a consumer must subscribe first; clients have to cope with both, and this is the
// harder one.
func (s *Sandbox) distribute(b *batch, e *event) {
	conv := e.dialog.conv
	var forConsumers, forAgents []byte // what a dialect sees is the same for all
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
		for k := range conv.account.here[conv.consumer.id] {
			push(k)
		}
	}
	s.hookEvent(e)
	for k := range conv.account.team {
		if conv.takesPart(k.who) || k.dialogSubs[e.dialog] {
			push(k)
		}
	}
}

// consumerPresence tells the agents in a consumer's open conversations that the consumer has left or come back.
func (s *Sandbox) consumerPresence(b *batch, acct *account, consumer *person, state string) {
	for _, conv := range acct.of[consumer.id] {
		if conv.state != stateOpen {
			continue
		}
		e := &event{
			dialog: conv.main, from: consumer, role: roleConsumer, audience: audienceAgents,
			content: frame(map[string]string{"type": "ChatStateEvent", "chatState": state}),
		}
		s.distribute(b, e)
	}
}

// dialog returns a dialog that the caller may read, by its id and, if given, its conversation's.
func (k *caller) dialog(id, conversation string) (*dialog, *reply) {
	refused := func(errorCode int, why string) (*dialog, *reply) {
		a := refuse(errorCode, "%s", why)
		return nil, &a
	}
	if id == "" {
		return refused(errMissing, "dialogId is missing")
	}
	d := k.account.dialogs[id]
	switch {
	case d == nil:
		return refused(errNoConv, "no such dialog")
	case conversation != "" && conversation != d.conv.id:
		return refused(errInvalid, "the dialog is not of that conversation")
	case !k.who.agent && d.conv.consumer.id != k.who.id:
		return refused(errForeign, "not your conversation")
	}
	return d, nil
}

// openDialog returns a dialog that the caller may write to.
func (k *caller) openDialog(id, conversation string) (*dialog, *reply) {
	d, refusal := k.dialog(id, conversation)
	if refusal != nil {
		return nil, refusal
	}
	if !d.conv.takesPart(k.who) {
		a := refuse(errForeign, "you take no part in this conversation")
		return nil, &a
	}
	if d.conv.state != stateOpen {
		a := refuse(errClosed, "the conversation is closed")
		return nil, &a
	}
	return d, nil
}

// backlog returns what the caller may see of a dialog from a sequence on.
func (k *socket) backlog(d *dialog, from int64) []eventView {
	views := []eventView{}
	for _, e := range d.events {
		if int64(e.sequence) >= from && (k.who.agent || e.public()) {
			views = append(views, k.eventView(e))
		}
	}
	return views
}

// subscribeMessaging answers ms.SubscribeMessagingEvents. Live events reach those who take part anyhow, so to them this is only
// a way to ask for the backlog.
func (k *socket) subscribeMessaging(c *call) reply {
	d, from, refusal := k.window(c)
	if refusal != nil {
		return *refusal
	}
	k.dialogSubs[d] = true
	a := reply{code: 200, typ: typeSubscribe, body: struct{}{}}
	if k.dialect == brandDialect {
		a.typ = ".ams.GenericSubscribe$Response"
	}
	if backlog := k.backlog(d, from); len(backlog) > 0 {
		a.then = [][]byte{notification("ms.MessagingEventNotification", map[string]any{"changes": backlog})}
	}
	return a
}

// queryMessages answers ms.QueryMessages.
func (k *socket) queryMessages(c *call) reply {
	d, from, refusal := k.window(c)
	if refusal != nil {
		return *refusal
	}
	return reply{code: 200, typ: typeQuery, body: k.backlog(d, from)}
}

// window reads a dialog and the sequence to begin at. node-agent-sdk writes its fromSeq into newerThanSequence as it is, and 0
// if it has none, so the one must mean what the other does, or its clients would never see the first message.
func (k *socket) window(c *call) (*dialog, int64, *reply) {
	var body struct {
		Dialog       jsonText  `json:"dialogId"`
		Conversation jsonText  `json:"conversationId"`
		From         *jsonText `json:"fromSeq"`
		Newer        *jsonText `json:"newerThanSequence"`
	}
	if err := c.decode(&body); err != nil {
		a := refuse(errInvalid, "the body has the wrong shape")
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
			a := refuse(errInvalid, "fromSeq is not a number")
			return nil, 0, &a
		}
		from = n
	}
	return d, from, nil
}
