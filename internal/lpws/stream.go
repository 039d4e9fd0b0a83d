package lpws

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
)

const (
	// wholeFrame is the size up to which a frame is read as a whole, in bytes. Larger ones are decoded as they arrive: LivePerson
	// sends all messages of a dialog, or all conversations, in one frame.
	wholeFrame = 256 << 10
	// maxStream is the maximum size of a frame, in bytes. A larger one ends the connection.
	maxStream = 1 << 30
	// frameTime bounds the time in which a frame arrives.
	frameTime = 2 * time.Minute
	// maxChanges is the maximum number of conversations in one frame.
	maxChanges = 5000
)

// errElement is the error for one message, or any other part of a large frame, over Config.MaxFrame.
var errElement = errors.New("a part of a frame exceeded the size limit")

// receiver is the owner of a transport. Its methods are called by one goroutine at a time, and must not block.
type receiver interface {
	// notification is called for each notification, except for what has been passed to event.
	notification(f *frame)
	// event is called for each message in a frame larger than wholeFrame, whether it is an answer or a notification. If it returns
	// false, the rest is not read, and the transport ends.
	event(e *lpwire.Event) (more bool)
	// discarded is called if the rest of a large frame is not read, because one of its parts was too large. dialog is the one of the
	// messages before that part; empty if there was none. The result ends the transport, unless it is nil.
	discarded(dialog string) *closeReason
}

// streamReader is the rest of a large frame. It limits what is read of one part.
type streamReader struct {
	r     io.Reader
	limit int64
	n     int64 // bytes since the last part
}

func (s *streamReader) Read(p []byte) (int, error) {
	if s.n > s.limit {
		return 0, errElement
	}
	n, err := s.r.Read(p)
	s.n += int64(n)
	return n, err
}

// discard reads the rest of the frame.
func (s *streamReader) discard() error {
	s.n, s.limit = 0, maxStream
	_, err := io.Copy(io.Discard, s)
	return err
}

// streamFrame decodes a large frame of which head has arrived. Memory is bounded by its largest part.
func (t *transport) streamFrame(head []byte, rest io.Reader, to receiver) *closeReason {
	s := &streamReader{r: bufio.NewReaderSize(io.MultiReader(bytes.NewReader(head), rest), 32<<10), limit: t.maxPart}
	t.streams.Add(1)
	defer t.streams.Add(-1)
	d := &streamDecoder{Decoder: json.NewDecoder(s), s: s, to: to}
	f, err := d.frame()
	if err == nil {
		err = s.discard() // what follows the object
	}
	if errors.Is(err, errElement) {
		if reason := to.discarded(d.dialog); reason != nil {
			return reason
		}
		if err = s.discard(); err == nil {
			return nil
		}
	}
	var syntax *json.SyntaxError
	switch {
	case err == nil:
	case errors.Is(err, errEnough):
		return &closeReason{kind: closedLocally, cause: err}
	case errors.Is(err, errTooManyChanges):
		return &closeReason{kind: closedTooLarge, cause: err}
	case errors.As(err, &syntax), errors.Is(err, errFrame), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return &closeReason{kind: closedUnreadable, cause: errFrame}
	default:
		return t.reasonOf(err)
	}
	f.connection = t.id
	t.dispatch(&f, to)
	return nil
}

// streamDecoder decodes one large frame. The members of the frame and of its body may have any order.
type streamDecoder struct {
	*json.Decoder
	s       *streamReader
	to      receiver
	dialog  string // of the last message
	changes lpwire.List[lpwire.ConversationChange]
}

// open reads the beginning of an object or array.
func (d *streamDecoder) open(want json.Delim) error {
	token, err := d.Token()
	if err == nil && token != want {
		err = errFrame
	}
	return err
}

// member reads the next name of an object.
func (d *streamDecoder) member() (string, error) {
	token, err := d.Token()
	name, ok := token.(string)
	if err == nil && !ok {
		err = errFrame
	}
	return name, err
}

// part decodes one value into v. Values of the wrong shape are ignored, as in other frames.
func (d *streamDecoder) part(v any) error {
	d.s.n = 0
	err := d.Decode(v)
	if _, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return nil
	}
	return err
}

func (d *streamDecoder) frame() (f frame, err error) {
	if err = d.open('{'); err != nil {
		return f, err
	}
	for d.More() {
		name, err := d.member()
		if err != nil {
			return f, err
		}
		switch name {
		case "kind":
			err = d.part(&f.Kind)
		case "reqId":
			err = d.part(&f.ReqID)
		case "code":
			err = d.part(&f.Code)
		case "type":
			err = d.part(&f.Type)
		case "body":
			err = d.body(&f)
		default:
			err = d.part(&json.RawMessage{})
		}
		if err != nil {
			return f, err
		}
	}
	_, err = d.Token()
	return f, err
}

// body decodes the body: a list of messages, or an object with a list of messages or conversations.
func (d *streamDecoder) body(f *frame) error {
	token, err := d.Token()
	if err != nil {
		return err
	}
	switch token {
	case json.Delim('['):
		f.Body = json.RawMessage("[]")
		return d.list()
	case json.Delim('{'):
	default:
		return nil // a long text
	}
	members := make(map[string]json.RawMessage)
	for size := int64(0); d.More(); {
		name, err := d.member()
		if err != nil {
			return err
		}
		if name == "changes" {
			err = d.changesOf()
		} else {
			var value json.RawMessage
			err = d.part(&value)
			members[name] = value
			if size += int64(len(name) + len(value)); size > d.s.limit {
				err = errElement
			}
		}
		if err != nil {
			return err
		}
	}
	if _, err = d.Token(); err != nil {
		return err
	}
	if len(d.changes) > 0 {
		var id lpwire.Text
		_ = json.Unmarshal(members["subscriptionId"], &id)
		f.conversations = &lpwire.ConversationChanges{SubscriptionID: id, Changes: d.changes}
		return nil
	}
	f.Body, err = json.Marshal(members)
	return err
}

// changesOf decodes the member "changes": a list, or one bare element.
func (d *streamDecoder) changesOf() error {
	token, err := d.Token()
	switch {
	case err != nil:
		return err
	case token == json.Delim('['):
		return d.list()
	case token != json.Delim('{'):
		return nil
	}
	return errElement // one element that is larger than a whole frame
}

func (d *streamDecoder) list() error {
	for d.More() {
		var e struct {
			lpwire.Event
			lpwire.ConversationChange
		}
		if err := d.part(&e); err != nil {
			return err
		}
		if e.Result.V.ConvID == "" {
			d.dialog = string(e.DialogID)
			if !d.to.event(&e.Event) {
				return errEnough
			}
			continue
		}
		if len(d.changes) == maxChanges {
			return errTooManyChanges
		}
		e.Result.V.LastContent.V.Event.V.Message = nil // only its sequence is needed
		d.changes = append(d.changes, e.ConversationChange)
	}
	_, err := d.Token()
	return err
}

// errTooManyChanges is the error for a frame with more than maxChanges conversations.
var errTooManyChanges = errors.New("a frame lists too many conversations")
