package lpwire

import (
	"encoding/json"
	"math"
	"strconv"
	"time"
	"unicode/utf8"
)

// Text is a string that LivePerson may also send as a number.
type Text string

// words are texts that nearly all frames have. They are not copied.
var words = map[string]Text{
	"resp": "resp", "notification": "notification",
	"ms.PublishEventResponse": "ms.PublishEventResponse", "ms.BaseGenerateURLResponse": "ms.BaseGenerateURLResponse",
	"ms.MessagingEventNotification": "ms.MessagingEventNotification",
	"ContentEvent":                  "ContentEvent", "hosted/file": "hosted/file", "ALL": "ALL",
	"CONSUMER": "CONSUMER", "ASSIGNED_AGENT": "ASSIGNED_AGENT",
}

// UnmarshalJSON accepts strings and numbers; anything else becomes "". It never fails.
func (t *Text) UnmarshalJSON(data []byte) error {
	*t = ""
	if len(data) == 0 {
		return nil
	}
	switch c := data[0]; {
	case c == '"':
		if s, plain := plainText(data); plain {
			if word, ok := words[string(s)]; ok {
				*t = word
			} else {
				*t = Text(s)
			}
			return nil
		}
		var s string
		if json.Unmarshal(data, &s) == nil {
			*t = Text(s)
		}
	case c == '-' || c >= '0' && c <= '9':
		*t = Text(data)
	}
	return nil
}

// plainText returns a JSON string that needs no decoding.
func plainText(data []byte) ([]byte, bool) {
	if len(data) < 2 || data[len(data)-1] != '"' {
		return nil, false
	}
	s := data[1 : len(data)-1]
	for _, c := range s {
		if c == '"' || c == '\\' || c < ' ' || c >= utf8.RuneSelf {
			return nil, false
		}
	}
	return s, true
}

// Number is an integer that LivePerson may also send as a string.
type Number struct {
	// N is the number; 0 if it is absent.
	N int64
	// OK reports whether the number is present.
	OK bool
}

// UnmarshalJSON accepts integers, also in a string; anything else is absent. It never fails.
func (v *Number) UnmarshalJSON(data []byte) error {
	if n, plain := plainNumber(data); plain {
		*v = Number{n, true}
		return nil
	}
	var t Text
	_ = t.UnmarshalJSON(data)
	n, err := strconv.ParseInt(string(t), 10, 64)
	if err != nil {
		var f float64
		if f, err = strconv.ParseFloat(string(t), 64); err == nil && f == math.Trunc(f) && math.Abs(f) < 1<<53 {
			n = int64(f)
		} else {
			err = strconv.ErrSyntax
		}
	}
	*v = Number{n, err == nil}
	if err != nil {
		v.N = 0
	}
	return nil
}

// plainNumber returns a short number of digits alone.
func plainNumber(data []byte) (n int64, ok bool) {
	if len(data) == 0 || len(data) > 18 {
		return 0, false
	}
	for _, c := range data {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + int64(c-'0')
	}
	return n, true
}

// Time converts milliseconds since the epoch; it returns the zero time if the number is absent.
func (v Number) Time() time.Time {
	if !v.OK || v.N <= 0 {
		return time.Time{}
	}
	return time.UnixMilli(v.N).UTC()
}

// Code is the status of an answer: a number, a number in a string, or "OK". A number over 399 is a failure. Absent and malformed
// statuses are successes, as in LivePerson's own client.
type Code int

// UnmarshalJSON never fails.
func (c *Code) UnmarshalJSON(data []byte) error {
	var n Number
	_ = n.UnmarshalJSON(data)
	*c = 200
	if n.OK && n.N >= 0 && n.N < 100000 {
		*c = Code(n.N)
	}
	return nil
}

// List is an array, or a bare element in place of an array of one. Elements of the wrong shape are left out.
type List[T any] []T

// UnmarshalJSON never fails.
func (l *List[T]) UnmarshalJSON(data []byte) error {
	*l = nil
	var raw []json.RawMessage
	if json.Unmarshal(data, &raw) != nil {
		raw = []json.RawMessage{data}
	}
	for _, r := range raw {
		var one T
		if !isNull(r) && json.Unmarshal(r, &one) == nil {
			*l = append(*l, one)
		}
	}
	return nil
}

func isNull(raw json.RawMessage) bool { return len(raw) == 0 || string(raw) == "null" }

// Object is a T, or its zero value if the JSON has another shape.
type Object[T any] struct {
	// V is the value.
	V T
}

// UnmarshalJSON never fails.
func (o *Object[T]) UnmarshalJSON(data []byte) error {
	var v T
	if json.Unmarshal(data, &v) == nil {
		o.V = v
	}
	return nil
}

// ErrorNumber returns the errorCode in the body of an error answer (the status and two more digits), or else status.
func ErrorNumber(status int, body json.RawMessage) int {
	var b struct {
		ErrorCode Number `json:"errorCode"`
	}
	if json.Unmarshal(body, &b) == nil && b.ErrorCode.OK && b.ErrorCode.N >= 0 && b.ErrorCode.N < 1e6 {
		return int(b.ErrorCode.N)
	}
	return status
}
