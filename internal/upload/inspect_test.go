package upload

import (
	"strings"
	"testing"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

func TestTypeInspector_SaysWhatTheBytesAre(t *testing.T) {
	for head, want := range map[string][2]string{
		"GIF89a":                       {"those of type GIF", "GIF"},
		"\x00\x00\x00\x24ftypheic\x00": {"those of a HEIC image, which LivePerson does not accept; save it as JPEG", "HEIC"},
		"\x00\x01":                     {"not those of any accepted type", "unknown"},
	} {
		err := (&typeInspector{declared: share.JPEG}).Inspect([]byte(head), false)
		e, _ := err.(*share.Error)
		if e == nil || !strings.Contains(e.Error(), want[0]) || e.Metadata["detectedType"] != want[1] {
			t.Errorf("%q: %v, want %s", head, err, want)
		}
	}
}
