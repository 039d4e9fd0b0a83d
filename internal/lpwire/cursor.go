package lpwire

import (
	"bytes"
	"encoding/json"
)

// A cursor reads JSON that has been validated, in one pass. Package json would validate each value again at each level of nesting, and
// copy it: LivePerson's frames have eight levels, and previews of 30 KB at the bottom. On JSON that is not valid it stops.
type cursor struct {
	data []byte
	pos  int
}

// members is a type whose members are read with a cursor. member reads exactly one value.
type members interface {
	member(name []byte, c *cursor)
}

// peek returns the first byte of the next value or delimiter; 0: there is none.
func (c *cursor) peek() byte {
	for ; c.pos < len(c.data); c.pos++ {
		switch b := c.data[c.pos]; b {
		case ' ', '\t', '\n', '\r':
		default:
			return b
		}
	}
	return 0
}

// next consumes a delimiter, if it is the next one.
func (c *cursor) next(delimiter byte) bool {
	if c.peek() != delimiter {
		return false
	}
	c.pos++
	return true
}

// stop ends reading.
func (c *cursor) stop() { c.pos = len(c.data) }

// value returns the next value. It is a part of the data.
func (c *cursor) value() []byte {
	first := c.peek()
	begin := c.pos
	switch first {
	case '"':
		c.text()
	case '{', '[':
		c.nested()
	default: // a number or a literal
		for c.pos < len(c.data) && bytes.IndexByte([]byte(" \t\r\n,:]}"), c.data[c.pos]) < 0 {
			c.pos++
		}
		if c.pos == begin {
			c.stop()
		}
	}
	return c.data[begin:c.pos]
}

// text skips a string.
func (c *cursor) text() {
	for c.pos++; c.pos < len(c.data); c.pos++ {
		n := bytes.IndexByte(c.data[c.pos:], '"')
		if n < 0 {
			c.stop()
			return
		}
		escapes := 0 // backslashes before the quotation mark
		for escapes < n && c.data[c.pos+n-1-escapes] == '\\' {
			escapes++
		}
		if c.pos += n; escapes%2 == 0 {
			c.pos++
			return
		}
	}
}

// nested skips an object or array.
func (c *cursor) nested() {
	for depth := 0; c.pos < len(c.data); {
		switch c.data[c.pos] {
		case '"':
			c.text()
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		if c.pos++; depth == 0 {
			return
		}
	}
}

// object reads the members of an object into to. It reports false, and skips the value, if it is none.
func (c *cursor) object(to members) bool {
	if !c.next('{') {
		c.value()
		return false
	}
	for c.peek() == '"' {
		name := c.value()
		if plain, ok := plainText(name); ok {
			name = plain
		} else {
			var s string
			_ = json.Unmarshal(name, &s)
			name = []byte(s)
		}
		if !c.next(':') {
			break
		}
		to.member(name, c)
		if !c.next(',') {
			break
		}
	}
	if !c.next('}') {
		c.stop()
	}
	return true
}

// read reads a value as UnmarshalJSON does.
func (t *Text) read(c *cursor) { _ = t.UnmarshalJSON(c.value()) }

func (v *Number) read(c *cursor) { _ = v.UnmarshalJSON(c.value()) }

// readObject reads an Object.
func readObject[T any, P interface {
	*T
	members
}](o *Object[T], c *cursor) {
	null := c.peek() == 'n'
	var v T
	if c.object(P(&v)) || null {
		o.V = v
	}
}

// readList reads a List.
func readList[T any, P interface {
	*T
	members
}](l *List[T], c *cursor) {
	*l = nil
	one := func() {
		var v T
		if c.object(P(&v)) {
			*l = append(*l, v)
		}
	}
	if !c.next('[') {
		one()
		return
	}
	for first := true; c.peek() != ']' && (first || c.next(',')) && c.peek() != 0; first = false {
		one()
	}
	if !c.next(']') {
		c.stop()
	}
}

// ReadConversationChanges reads the body of an ExConversationChangeNotification, which must be valid JSON; false: it is no object. The
// result refers to body.
func ReadConversationChanges(body []byte) (changes ConversationChanges, ok bool) {
	ok = readBody(body, &changes)
	return changes, ok
}

// ReadEventChanges reads the body of a MessagingEventNotification, as ReadConversationChanges does.
func ReadEventChanges(body []byte) (changes EventChanges, ok bool) {
	ok = readBody(body, &changes)
	return changes, ok
}

// ReadEvent reads one event, as ReadConversationChanges does.
func ReadEvent(body []byte) (e Event, ok bool) {
	ok = readBody(body, &e)
	return e, ok
}

func readBody(body []byte, to members) bool {
	c := cursor{data: body}
	return c.peek() == 'n' || c.object(to) // null is an empty body
}

func (b *ConversationChanges) member(name []byte, c *cursor) {
	switch string(name) {
	case "subscriptionId":
		b.SubscriptionID.read(c)
	case "changes":
		readList(&b.Changes, c)
	default:
		c.value()
	}
}

func (b *ConversationChange) member(name []byte, c *cursor) {
	switch string(name) {
	case "type":
		b.Type.read(c)
	case "result":
		readObject(&b.Result, c)
	default:
		c.value()
	}
}

func (b *Conversation) member(name []byte, c *cursor) {
	switch string(name) {
	case "convId":
		b.ConvID.read(c)
	case "lastUpdateTime":
		b.LastUpdateTime.read(c)
	case "conversationDetails":
		readObject(&b.Details, c)
	case "lastContentEventNotification":
		readObject(&b.LastContent, c)
	default:
		c.value()
	}
}

func (b *Details) member(name []byte, c *cursor) {
	switch string(name) {
	case "skillId":
		b.SkillID.read(c)
	case "brandId":
		b.BrandID.read(c)
	case "state":
		b.State.read(c)
	case "startTs":
		b.StartTs.read(c)
	case "endTs":
		b.EndTs.read(c)
	case "metaDataLastUpdateTs":
		b.MetaDataTs.read(c)
	case "participants":
		b.Participants.read(c)
	case "participantsPId":
		b.ParticipantsPID.read(c)
	case "dialogs":
		readList(&b.Dialogs, c)
	default:
		c.value()
	}
}

func (b *Dialog) member(name []byte, c *cursor) {
	switch string(name) {
	case "dialogId":
		b.DialogID.read(c)
	case "dialogType":
		b.DialogType.read(c)
	case "state":
		b.State.read(c)
	case "participantsDetails":
		readList(&b.Participants, c)
	default:
		c.value()
	}
}

func (b *Participant) member(name []byte, c *cursor) {
	switch string(name) {
	case "id":
		b.ID.read(c)
	case "role":
		b.Role.read(c)
	case "state":
		b.State.read(c)
	default:
		c.value()
	}
}

// read reads the form that the socket sends, a list of participants. Others are left to UnmarshalJSON.
func (p *Participants) read(c *cursor) {
	if c.peek() != '[' {
		_ = p.UnmarshalJSON(c.value())
		return
	}
	*p = nil
	var entries List[Participant]
	readList(&entries, c)
	p.add(entries)
}

func (b *EventChanges) member(name []byte, c *cursor) {
	if string(name) == "changes" {
		readList(&b.Changes, c)
		return
	}
	c.value()
}

func (b *Event) member(name []byte, c *cursor) {
	switch string(name) {
	case "sequence":
		b.Sequence.read(c)
	case "originatorId":
		b.OriginatorID.read(c)
	case "originatorPId":
		b.OriginatorPID.read(c)
	case "originatorMetadata":
		readObject(&b.Originator, c)
	case "serverTimestamp":
		b.Timestamp.read(c)
	case "conversationId":
		b.ConversationID.read(c)
	case "dialogId":
		b.DialogID.read(c)
	case "messageAudience":
		b.Audience.read(c)
	case "event":
		readObject(&b.Event, c)
	default:
		c.value()
	}
}

func (b *Sender) member(name []byte, c *cursor) {
	switch string(name) {
	case "id":
		b.ID.read(c)
	case "role":
		b.Role.read(c)
	default:
		c.value()
	}
}

func (b *Content) member(name []byte, c *cursor) {
	switch string(name) {
	case "type":
		b.Type.read(c)
	case "contentType":
		b.ContentType.read(c)
	case "message":
		b.Message = c.value()
	default:
		c.value()
	}
}

func (b *hostedFile) member(name []byte, c *cursor) {
	switch string(name) {
	case "caption":
		b.Caption.read(c)
	case "relativePath":
		b.RelativePath.read(c)
	case "fileType":
		b.FileType.read(c)
	case "preview":
		b.Preview.read(c)
	default:
		c.value()
	}
}

// A tempURLAnswer is the body of the answer to a request for a signed URL.
type tempURLAnswer struct {
	path  Text
	query tempURLQuery
}

func (b *tempURLAnswer) member(name []byte, c *cursor) {
	switch string(name) {
	case "relativePath":
		b.path.read(c)
	case "queryParams":
		c.object(&b.query)
	default:
		c.value()
	}
}

type tempURLQuery struct{ sig, expires Text }

func (b *tempURLQuery) member(name []byte, c *cursor) {
	switch string(name) {
	case "temp_url_sig":
		b.sig.read(c)
	case "temp_url_expires":
		b.expires.read(c)
	default:
		c.value()
	}
}

// A publishAnswer is the body of the answer to ms.PublishEvent.
type publishAnswer struct{ sequence Number }

func (b *publishAnswer) member(name []byte, c *cursor) {
	if string(name) == "sequence" {
		b.sequence.read(c)
		return
	}
	c.value()
}

// A Frame is the outermost object of a message on the socket.
type Frame struct {
	Kind, ReqID, Type Text
	Code              Code
	// Body is a part of the data that was read.
	Body json.RawMessage
}

// ReadFrame reads a frame; false: it is not one JSON object.
func ReadFrame(data []byte) (f Frame, ok bool) {
	if !json.Valid(data) {
		return Frame{}, false
	}
	ok = (&cursor{data: data}).object(&f)
	return f, ok
}

func (b *Frame) member(name []byte, c *cursor) {
	switch string(name) {
	case "kind":
		b.Kind.read(c)
	case "reqId":
		b.ReqID.read(c)
	case "code":
		_ = b.Code.UnmarshalJSON(c.value())
	case "type":
		b.Type.read(c)
	case "body":
		b.Body = c.value()
	default:
		c.value()
	}
}
