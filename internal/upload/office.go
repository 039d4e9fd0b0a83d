package upload

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"strings"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// An officeInspector checks that a document of Office Open XML contains what such a document contains. Its first bytes are those of
// any ZIP, also of a program (JAR).
type officeInspector struct {
	declared share.FileType
}

// Inspect accepts everything.
func (i *officeInspector) Inspect([]byte, bool) error { return nil }

// Verdict rejects a ZIP that is no document of the declared type.
func (i *officeInspector) Verdict(_ context.Context, file *spool) error {
	info, _ := i.declared.Info()
	if info.Folder == "" {
		return nil
	}
	found := officeType(file, file.len())
	if found == string(i.declared) {
		return nil
	}
	return share.Reject(share.FileTypeMismatch, "the file was declared as %s, but its content is that of type %s", i.declared, found).
		With("detectedType", found)
}

// officeType returns the type of a ZIP by the names in its directory: DOCX, XLSX, PPTX, JAR, or ZIP for any other or a damaged one.
func officeType(zip io.ReaderAt, size int64) string {
	contents, java := false, false
	found := ""
	for name := range zipNames(zip, size) {
		name = strings.TrimPrefix(strings.ReplaceAll(strings.ToLower(name), "\\", "/"), "/")
		switch {
		case name == "[content_types].xml":
			contents = true
		case name == "meta-inf/manifest.mf" || strings.HasSuffix(name, ".class"):
			java = true
		case found == "":
			for _, row := range share.FileTypes() {
				if row.Folder != "" && strings.HasPrefix(name, row.Folder) {
					found = string(row.Type)
				}
			}
		}
	}
	switch {
	case java:
		return "JAR"
	case contents && found != "":
		return found
	}
	return "ZIP"
}

// The parts of a ZIP's directory: the size of an entry and of the end record without their variable parts.
const (
	zipEntry   = 46
	zipEnd     = 22
	zipComment = 1<<16 - 1
	zipName    = 256 // bytes of a name that are read
)

// zipNames returns the names in the directory of a ZIP, until it ends or is damaged. Unlike archive/zip it keeps nothing of them: a
// file of 3 MB may have 65,000.
func zipNames(zip io.ReaderAt, size int64) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		at, end, ok := zipDirectory(zip, size)
		var entry [zipEntry + zipName]byte
		for ok && at+zipEntry <= end {
			n, _ := zip.ReadAt(entry[:], at)
			if n < zipEntry || string(entry[:4]) != "PK\x01\x02" {
				return
			}
			length := func(i int) int64 { return int64(binary.LittleEndian.Uint16(entry[i:])) }
			if !yield(string(entry[zipEntry:min(int64(n), zipEntry+length(28))])) {
				return
			}
			at += zipEntry + length(28) + length(30) + length(32)
		}
	}
}

// zipDirectory finds the directory of a ZIP by the record after it.
func zipDirectory(zip io.ReaderAt, size int64) (at, end int64, ok bool) {
	for _, most := range []int64{zipEnd, zipEnd + zipComment} { // without a comment, and with any
		tail := make([]byte, min(most, size))
		if n, _ := zip.ReadAt(tail, size-int64(len(tail))); n < len(tail) {
			return 0, 0, false
		}
		i := bytes.LastIndex(tail, []byte("PK\x05\x06"))
		if i < 0 || len(tail)-i < zipEnd {
			continue
		}
		end := size - int64(len(tail)-i)
		length := int64(binary.LittleEndian.Uint32(tail[i+12:]))
		if length == 1<<32-1 { // the longer record before it has the length
			var long [76]byte
			if n, _ := zip.ReadAt(long[:], end-76); n < 76 || string(long[:4]) != "PK\x06\x06" {
				return 0, 0, false
			}
			end -= 76
			length = int64(binary.LittleEndian.Uint64(long[40:]))
		}
		return end - length, end, length >= 0 && length <= end
	}
	return 0, 0, false
}
