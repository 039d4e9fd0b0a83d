package lpwire

import (
	"encoding/json"
	"math"
	"strconv"
	"time"
)

// A Text is a string that may also come as a number.
type Text string

// UnmarshalJSON takes strings and numbers; anything else is "".
func (t *Text) UnmarshalJSON(data []byte) error {
	*t = ""
	if len(data) == 0 {
		return nil
	}
	switch c := data[0]; {
	case c == '"':
		var s string
		if json.Unmarshal(data, &s) == nil {
			*t = Text(s)
		}
	case c == '-' || c >= '0' && c <= '9':
		*t = Text(data)
	}
	return nil
}

// A Number is a whole number that may also come as a string.
type Number struct {
	// N is the number; 0 where there is none.
	N int64
	// OK tells that there is one.
	OK bool
}

// UnmarshalJSON takes whole numbers, as such or in a string; anything else is absent.
func (v *Number) UnmarshalJSON(data []byte) error {
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

// Time reads LivePerson's milliseconds; zero if there are none.
func (v Number) Time() time.Time {
	if !v.OK || v.N <= 0 {
		return time.Time{}
	}
	return time.UnixMilli(v.N).UTC()
}

// A Code is an answer's status: a number, the same in a string, or "OK". Absent and unreadable count as success, as they do for
// LivePerson's own client: failure is a number over 399.
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

// A List is an array, or one bare element that stands for an array of one. Elements of the wrong shape are left out.
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

// An Object is a T, or its zero value where what came is none.
type Object[T any] struct {
	// V is what came.
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

// ErrorNumber is the number that the body of an error answer gives for programs: the status, then two digits; else the status.
func ErrorNumber(status int, body json.RawMessage) int {
	var b struct {
		ErrorCode Number `json:"errorCode"`
	}
	if json.Unmarshal(body, &b) == nil && b.ErrorCode.OK && b.ErrorCode.N >= 0 && b.ErrorCode.N < 1e6 {
		return int(b.ErrorCode.N)
	}
	return status
}
