package ledger

import (
	"encoding/json"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// The first record has no field, and each of the next has one more, so that a new field of a record cannot be forgotten.
func TestAppendRecord_IsWhatPackageJSONMakes(t *testing.T) {
	t.Parallel()
	compare := func(r share.Record) {
		t.Helper()
		want, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := appendRecord(nil, &r)
		if err != nil {
			t.Fatal(err)
		}
		if string(got) != string(want) {
			t.Fatalf("got  %s\nwant %s", got, want)
		}
	}
	var r share.Record
	compare(r)
	n := 0
	for _, text := range []string{"plain text", "", "ÄÖ€ 😀", "a\"b\\c", "<b>&</b>", "line\nbreak\x00\x7f", "\u2028", "damaged \xff"} {
		fillEach(reflect.ValueOf(&r).Elem(), text, func() { n++; compare(r) })
	}
	if n < 40 {
		t.Errorf("only %d fields were filled", n)
	}
}

// fillEach sets each field of v in turn, down to those of structures, and calls each after every one.
func fillEach(v reflect.Value, text string, each func()) {
	if v.Type() == reflect.TypeFor[time.Time]() {
		v.Set(reflect.ValueOf(time.Date(2026, 11, 30, 12, 34, 56, 789000000+len(text), time.FixedZone("", 3600*len(text)%7200))))
		each()
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fillEach(v.Field(i), text, each)
		}
		return
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		each()
		fillEach(v.Elem(), text, each)
		return
	case reflect.String:
		v.SetString(text)
	case reflect.Int, reflect.Int64:
		v.SetInt(int64(len(text)))
	case reflect.Uint32:
		v.SetUint(uint64(len(text)))
	case reflect.Bool:
		v.SetBool(text != "")
	case reflect.Slice:
		switch v.Type().Elem().Kind() {
		case reflect.Uint8:
			v.SetBytes([]byte(text))
		case reflect.String:
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			v.Index(0).SetString(text)
		}
	default:
		panic(fmt.Sprint("a field of type ", v.Type(), " is not filled"))
	}
	each()
}
