package share

import (
	"strings"
	"testing"
)

func TestFindForeignFormat(t *testing.T) {
	for head, want := range map[string]string{
		"\x00\x00\x00\x24ftypheic\x00":         "a HEIC image, which LivePerson does not accept; save it as JPEG",
		"\x00\x00\x00\x1cftypmif1\x00":         "a HEIC image",
		"RIFF\x24\x00\x00\x00WEBPVP8 ":         "a WebP image",
		"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1\x00": "legacy format (.doc, .xls, .ppt), or one with a password, which LivePerson does not accept; save it as .docx",
		"\x00\x00\x00\x20ftypisom\x00":         "an MP4 or QuickTime video, which LivePerson does not accept",
		"BM\x36\x00\x00\x00\x00\x00\x00\x00":   "a BMP image",
		"\x00\x00\x00\x1cftypavif":             "an AVIF image",
		"II+\x00\x08":                          "a TIFF image",
		"caf\xe9 noir":                         "a text that is not in UTF-8, which LivePerson does not accept; save it with the encoding UTF-8",
		"\xff\xfeh\x00i\x00":                   "a text that is not in UTF-8",
	} {
		f, ok := FindForeignFormat([]byte(head))
		if got := f.String(); !ok || !strings.Contains(got, want) {
			t.Errorf("%q: %s, want %s", head, got, want)
		}
	}
	for _, head := range []string{"", "text", "BMW is a car maker", "RIFF", "ID3 is a tag", "\xff\xd8\xff\xe0", "\x89PNG\r\n\x1a\n", "GIF89a", "%PDF-1.7", "PK\x03\x04", "MZ\x90\x00", "BM", "caf\u00e9"} {
		if f, ok := FindForeignFormat([]byte(head)); ok {
			t.Errorf("%q is %s", head, f.Format)
		}
	}
	// A file of an accepted type must not be called foreign.
	for _, row := range FileTypes() {
		for _, signature := range row.Signatures {
			if f, ok := FindForeignFormat([]byte(signature + strings.Repeat("\x00", 16))); ok {
				t.Errorf("a %s file is %s", row.Name, f.Format)
			}
		}
	}
}
