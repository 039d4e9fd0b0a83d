package share

import (
	"slices"
	"strings"
	"testing"
)

func TestFileTypes_Table(t *testing.T) {
	seen := map[string]string{}
	once := func(row FileTypeInfo, key string) {
		if other := seen[key]; other != "" {
			t.Errorf("%s is in the rows of %s and %s", key, other, row.Name)
		}
		seen[key] = row.Name
	}
	for _, row := range FileTypes() {
		if row.Type == "" || string(row.Type) != strings.ToUpper(string(row.Type)) || row.Name != strings.ToUpper(row.Name) {
			t.Errorf("%+v: type and name must be in upper case", row)
		}
		if len(row.Extensions) == 0 || !strings.Contains(row.MediaType, "/") || row.Image != strings.HasPrefix(row.MediaType, "image/") {
			t.Errorf("%s: extensions %q, media type %q, image %t", row.Name, row.Extensions, row.MediaType, row.Image)
		}
		if len(row.Signatures) == 0 && row.Type != TXT || row.Format == "" && slices.Contains(row.Signatures, zipSignature) {
			t.Errorf("%s: signatures %q, format %q", row.Name, row.Signatures, row.Format)
		}
		once(row, "media type "+row.MediaType)
		once(row, "name "+row.Name)
		for _, spelling := range append([]string{string(row.Type)}, row.Aliases...) {
			once(row, "spelling "+spelling)
			for _, s := range []string{spelling, strings.ToLower(spelling)} {
				if got, ok := FileTypeBySpelling(s); !ok || got.Type != row.Type {
					t.Errorf("the spelling %q gave %s", s, got.Type)
				}
			}
		}
		for _, extension := range row.Extensions {
			once(row, "extension "+extension)
			if got, ok := FileTypeByExtension(strings.ToUpper(extension)); !ok || got.Type != row.Type || extension[0] != '.' {
				t.Errorf("the extension %q gave %s", extension, got.Type)
			}
		}
		if got, ok := FileTypeByContractName("FILE_TYPE_" + row.Name); !ok || got.Type != row.Type {
			t.Errorf("the name FILE_TYPE_%s gave %s", row.Name, got.Type)
		}
		if got, ok := row.Type.Info(); !ok || got.Name != row.Name || row.Type.IsImage() != row.Image || row.Type.MediaType() != row.MediaType {
			t.Errorf("the row of %s is %+v", row.Type, got)
		}
		if slices.Contains(Documents(), row.Type) == row.Image {
			t.Errorf("%s is an image and a document, or neither", row.Name)
		}
	}
	if pdf, ok := FileTypeByFormat("PDF"); !ok || pdf.Type != PDF {
		t.Errorf("the format PDF is of type %q", pdf.Type)
	}
	if several, ok := FileTypeByFormat("ZIP"); ok {
		t.Errorf("the format ZIP is of type %q alone", several.Type)
	}
	for _, none := range []string{"", "IMG", "EXE", "FILE_TYPE_UNSPECIFIED"} {
		_, spelled := FileTypeBySpelling(none)
		_, named := FileTypeByContractName(none)
		_, byExtension := FileTypeByExtension(none)
		if spelled || named || byExtension || FileType(none).IsImage() || FileType(none).MediaType() != "application/octet-stream" {
			t.Errorf("%q is a type", none)
		}
	}
}

func TestSniffFormat(t *testing.T) {
	for head, want := range map[string]string{
		"\xff\xd8\xff\xe0":         "JPG",
		"\x89PNG\r\n\x1a\n\x00":    "PNG",
		"GIF87a\x00":               "GIF",
		"GIF89a\x00":               "GIF",
		"%PDF-1.7\n%\xe2\xe3":      "PDF",
		"PK\x03\x04\x14\x00":       "ZIP",
		"\xef\xbb\xbf%PDF-1.4\n":   "PDF",
		" \r\n\x00%PDF-1.4\n":      "PDF",
		"see %PDF-1.4\n":           "TXT",
		"hello\n":                  "TXT",
		"h\u00e9llo\r\n\t\f":       "TXT",
		"\x89PNG\r\n":              "", // cut before the end of the signature
		"MZ\x90\x00":               "",
		"hello\x00":                "",
		"latin-1 \xe9 in the text": "",
	} {
		if got := SniffFormat([]byte(head), false); got != want {
			t.Errorf("%q: %q, want %q", head, got, want)
		}
	}
	for _, half := range []string{"h\xc3", "h\xe2\x82", "h\xf0\x9f\x98", "\u00e9"} {
		if got := SniffFormat([]byte(half), true); got != "TXT" {
			t.Errorf("%q, of a longer file: %q", half, got)
		}
		if got := SniffFormat([]byte(half), false); got != "TXT" && half == "\u00e9" || got != "" && half != "\u00e9" {
			t.Errorf("%q, of a whole file: %q", half, got)
		}
	}
	if !hasSignature([]byte("RIFF\x01\x02\x03\x04WEBPVP8 "), "RIFF????WEBP") || hasSignature([]byte("RIFF\x01\x02\x03\x04WAVE"), "RIFF????WEBP") {
		t.Error("? must stand for any one byte")
	}
}

func TestFileTypeInfo_Shown(t *testing.T) {
	far := strings.Repeat("x", 1000)
	for _, c := range []struct {
		declared FileType
		head     string
		format   string
		ok       bool
	}{
		{PDF, "%PDF-1.7", "PDF", true},
		{PDF, "\xef\xbb\xbf%PDF-1.4", "PDF", true},
		{PDF, "\n%PDF-1.4", "PDF", true},
		{PDF, "HTTP/1.1 200 OK\r\n\r\n%PDF-1.4", "PDF", true},
		{PDF, "\x00\x01\x02%PDF-1.4", "PDF", true},
		{PDF, far + "%PDF-1.4", "PDF", true},
		{PDF, far + strings.Repeat("x", 20) + "%PDF-1.4", "TXT", false}, // not within 1,024 bytes
		{PDF, "\xff\xd8\xff\xe0 %PDF-1.4", "JPG", false},
		{PDF, "PK\x03\x04 %PDF-1.4", "ZIP", false},
		{PDF, "hello", "TXT", false},
		{TXT, "see %PDF-1.4", "TXT", true},
		{JPEG, "x\xff\xd8\xff\xe0", "", false},
	} {
		info, _ := c.declared.Info()
		if format, ok := info.Shown([]byte(c.head), true); format != c.format || ok != c.ok {
			t.Errorf("%s, %.30q: %q %t, want %q %t", c.declared, c.head, format, ok, c.format, c.ok)
		}
	}
}
