package upload

import (
	"archive/zip"
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// zipOf returns a ZIP with files of these names.
func zipOf(t *testing.T, comment string, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, name := range names {
		if _, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store}); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.SetComment(comment); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestOfficeType(t *testing.T) {
	const contents = "[Content_Types].xml"
	many := []string{contents, "word/document.xml"}
	for i := range 300 {
		many = append(many, fmt.Sprintf("word/media/image%d.png", i))
	}
	docx := zipOf(t, "", contents, "_rels/.rels", "word/document.xml")
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"a document", docx, "DOCX"},
		{"a document with a comment", zipOf(t, strings.Repeat("PK\x05 ", 100), contents, "word/document.xml"), "DOCX"},
		{"the contents last", zipOf(t, "", "word/document.xml", contents), "DOCX"},
		{"other letter case", zipOf(t, "", "[content_types].xml", "Word/document.xml"), "DOCX"},
		{"backslashes", zipOf(t, "", contents, "word\\document.xml"), "DOCX"},
		{"many files", zipOf(t, "", many...), "DOCX"},
		{"a sheet", zipOf(t, "", contents, "xl/workbook.xml"), "XLSX"},
		{"a presentation", zipOf(t, "", contents, "ppt/presentation.xml"), "PPTX"},
		{"a JAR", zipOf(t, "", "META-INF/MANIFEST.MF", "Main.class"), "JAR"},
		{"a JAR without a manifest", zipOf(t, "", "Main.class"), "JAR"},
		{"a JAR that is a document too", zipOf(t, "", contents, "word/document.xml", "META-INF/MANIFEST.MF"), "JAR"},
		{"an OpenDocument", zipOf(t, "", "mimetype", "content.xml", "META-INF/manifest.xml"), "ZIP"},
		{"another package", zipOf(t, "", contents, "visio/document.xml"), "ZIP"},
		{"no contents", zipOf(t, "", "word/document.xml"), "ZIP"},
		{"empty", zipOf(t, ""), "ZIP"},
		{"truncated", docx[:len(docx)-30], "ZIP"},
		{"only a signature", []byte("PK\x03\x04"), "ZIP"},
		{"a directory of negative size", append(append([]byte("PK\x03\x04"), "PK\x05\x06\x00\x00\x00\x00\x01\x00\x01\x00"...), bytes.Repeat([]byte{0xfe}, 10)...), "ZIP"},
	} {
		if got := officeType(bytes.NewReader(c.data), int64(len(c.data))); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func FuzzOfficeType(f *testing.F) {
	f.Add([]byte("PK\x03\x04PK\x01\x02PK\x05\x06"))
	f.Fuzz(func(t *testing.T, data []byte) {
		switch got := officeType(bytes.NewReader(data), int64(len(data))); got {
		case "DOCX", "XLSX", "PPTX", "JAR", "ZIP":
		default:
			t.Errorf("%q", got)
		}
	})
}
