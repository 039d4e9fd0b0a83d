package ledger

import (
	"encoding/base64"
	"encoding/json"
	"strconv"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// appendRecord appends what package json makes of a record, without its reflection and the objects that it makes for each time. Each
// upload writes its record three times. A test compares the two for records with each field.
func appendRecord(b []byte, r *share.Record) ([]byte, error) {
	o := object{b: append(b, '{')}
	o.text("Attempt", r.Attempt)
	o.time("AttemptTime", r.AttemptTime)
	o.always("Expires")
	o.b = appendTime(o.b, r.Expires)
	o.bytes("Fingerprint", r.Fingerprint)
	if r.DeclaredSize != nil {
		o.always("DeclaredSize")
		o.b = strconv.AppendInt(o.b, *r.DeclaredSize, 10)
	}
	if r.Declared.CRC32C != nil || r.Declared.SHA256 != nil {
		o.checksums("Declared", r.Declared)
	}
	o.text("State", string(r.State))
	if r.File != nil {
		o.file("File", r.File)
	}
	o.text("UploadKey", r.UploadKey)
	o.time("PublishDeadline", r.PublishDeadline)
	o.text("Failure", string(r.Failure))
	o.text("FailureMessage", r.FailureMessage)
	return append(o.b, '}'), o.err
}

// An object is a JSON object to which fields are appended.
type object struct {
	b   []byte
	err error // of package json
}

// always begins a field. Its value must follow.
func (o *object) always(name string) {
	if o.b[len(o.b)-1] != '{' {
		o.b = append(o.b, ',')
	}
	o.b = append(append(append(o.b, '"'), name...), '"', ':')
}

// text appends a field unless it is empty.
func (o *object) text(name, value string) {
	if value != "" {
		o.always(name)
		o.string(value)
	}
}

// time appends a field unless it is zero.
func (o *object) time(name string, t time.Time) {
	if !t.IsZero() {
		o.always(name)
		o.b = appendTime(o.b, t)
	}
}

// bytes appends a field unless it is empty.
func (o *object) bytes(name string, value []byte) {
	if len(value) > 0 {
		o.always(name)
		o.b = append(base64.StdEncoding.AppendEncode(append(o.b, '"'), value), '"')
	}
}

func (o *object) int(name string, value int) {
	if value != 0 {
		o.always(name)
		o.b = strconv.AppendInt(o.b, int64(value), 10)
	}
}

// string appends a value. Package json encodes those that need more than quotes.
func (o *object) string(value string) {
	for i := range len(value) {
		switch c := value[i]; {
		case c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&':
			o.json(value)
			return
		}
	}
	o.b = append(append(append(o.b, '"'), value...), '"')
}

// json appends a value as package json encodes it.
func (o *object) json(value any) {
	text, err := json.Marshal(value)
	if err != nil && o.err == nil {
		o.err = err
	}
	o.b = append(o.b, text...)
}

func (o *object) checksums(name string, c share.Checksums) {
	o.always(name)
	o.b = append(o.b, '{')
	if c.CRC32C != nil {
		o.always("CRC32C")
		o.b = strconv.AppendUint(o.b, uint64(*c.CRC32C), 10)
	}
	o.bytes("SHA256", c.SHA256)
	o.b = append(o.b, '}')
}

func (o *object) file(name string, f *share.StoredFile) {
	o.always(name)
	o.b = append(o.b, '{')
	o.always("Conversation")
	o.string(f.Conversation)
	o.always("Dialog")
	o.string(f.Dialog)
	o.always("DisplayName")
	o.string(f.DisplayName)
	o.always("File")
	o.b = append(o.b, '{')
	o.always("StoragePath")
	o.string(f.File.StoragePath)
	o.always("FileType")
	o.string(f.File.FileType)
	o.text("Caption", f.File.Caption)
	o.text("Preview", f.File.Preview)
	o.b = append(o.b, '}')
	o.always("Size")
	o.b = strconv.AppendInt(o.b, f.Size, 10)
	o.always("ETag")
	o.string(f.ETag)
	o.checksums("Checksums", f.Checksums)
	if f.Sequence != nil {
		o.always("Sequence")
		o.b = strconv.AppendInt(o.b, *f.Sequence, 10)
	}
	o.always("Time")
	o.b = appendTime(o.b, f.Time)
	o.always("SenderID")
	o.string(f.SenderID)
	o.always("SenderRole")
	o.string(string(f.SenderRole))
	if f.PreviewOmitted {
		o.always("PreviewOmitted")
		o.b = append(o.b, "true"...)
	}
	o.int("Width", f.Width)
	o.int("Height", f.Height)
	if f.Image != nil { // few records have one
		o.always("Image")
		o.json(f.Image)
	}
	o.b = append(o.b, '}')
}

// appendTime appends a time as package json does; its years have four digits.
func appendTime(b []byte, t time.Time) []byte {
	return append(t.AppendFormat(append(b, '"'), time.RFC3339Nano), '"')
}
