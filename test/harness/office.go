package harness

import (
	"archive/zip"
	"bytes"
	"io"
)

// OfficeDocument returns a ZIP with the names of an Office Open XML document and some bytes: folder is "word", "xl" or "ppt".
func OfficeDocument(folder string) []byte {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, name := range []string{"[Content_Types].xml", "_rels/.rels", folder + "/main.xml"} {
		w, err := z.CreateHeader(&zip.FileHeader{Name: name, Method: zip.Store})
		if err == nil {
			_, err = io.WriteString(w, "<"+name+"/>")
		}
		if err != nil {
			panic(err) // into memory
		}
	}
	if err := z.Close(); err != nil {
		panic(err) // into memory
	}
	return b.Bytes()
}
