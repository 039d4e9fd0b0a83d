package service

import (
	"bytes"
	"slices"
	"strings"
	"unicode/utf8"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// fileTypes pairs the contract's types with LivePerson's spelling, in the contract's order.
var fileTypes = []struct {
	proto lpfilesharev1.FileType
	lp    share.FileType
}{
	{lpfilesharev1.FileType_FILE_TYPE_JPEG, share.JPEG},
	{lpfilesharev1.FileType_FILE_TYPE_PNG, share.PNG},
	{lpfilesharev1.FileType_FILE_TYPE_GIF, share.GIF},
	{lpfilesharev1.FileType_FILE_TYPE_PDF, share.PDF},
	{lpfilesharev1.FileType_FILE_TYPE_TXT, share.TXT},
	{lpfilesharev1.FileType_FILE_TYPE_DOCX, share.DOCX},
	{lpfilesharev1.FileType_FILE_TYPE_XLSX, share.XLSX},
	{lpfilesharev1.FileType_FILE_TYPE_PPTX, share.PPTX},
}

func fileTypeFromProto(t lpfilesharev1.FileType) (share.FileType, bool) {
	for _, f := range fileTypes {
		if f.proto == t {
			return f.lp, true
		}
	}
	return "", false
}

// fileTypeToProto reads what stands in a message: any letter case, and JPEG beside JPG.
func fileTypeToProto(lp string) lpfilesharev1.FileType {
	lp = strings.ToUpper(lp)
	if lp == "JPEG" {
		lp = string(share.JPEG)
	}
	for _, f := range fileTypes {
		if string(f.lp) == lp {
			return f.proto
		}
	}
	return lpfilesharev1.FileType_FILE_TYPE_UNSPECIFIED
}

// allowedTypes are those that may be uploaded.
func allowedTypes(documents []share.FileType) []lpfilesharev1.FileType {
	var ts []lpfilesharev1.FileType
	for _, f := range fileTypes {
		if f.lp.IsImage() || slices.Contains(documents, f.lp) {
			ts = append(ts, f.proto)
		}
	}
	return ts
}

// sniffBytes is how many of a file's first bytes detect wants to see.
const sniffBytes = 512

// detect tells a file's type by its first bytes: one of the contract's types, "ZIP" for what any Office document looks like, or
// "" for anything else. Text is what is valid UTF-8 without control characters; cut tells that head stops before the end.
func detect(head []byte, cut bool) share.FileType {
	switch {
	case bytes.HasPrefix(head, []byte("\xFF\xD8\xFF")):
		return share.JPEG
	case bytes.HasPrefix(head, []byte("\x89PNG\r\n\x1A\n")):
		return share.PNG
	case bytes.HasPrefix(head, []byte("GIF87a")), bytes.HasPrefix(head, []byte("GIF89a")):
		return share.GIF
	case bytes.HasPrefix(head, []byte("%PDF-")):
		return share.PDF
	case bytes.HasPrefix(head, []byte("PK\x03\x04")):
		return zipType
	case isText(head, cut):
		return share.TXT
	}
	return ""
}

const zipType share.FileType = "ZIP"

// agrees reports whether a file that looks like found may be declared as t. The three Office types are ZIP archives that their
// first bytes do not tell apart.
func agrees(t, found share.FileType) bool {
	if t == share.DOCX || t == share.XLSX || t == share.PPTX {
		return found == zipType
	}
	return t == found
}

func isText(head []byte, cut bool) bool {
	if cut { // the last character may be cut in two
		for i := 0; i < utf8.UTFMax-1 && len(head) > 0 && !utf8.RuneStart(head[len(head)-1]); i++ {
			head = head[:len(head)-1]
		}
		if len(head) > 0 && !utf8.FullRune(head[len(head)-1:]) {
			head = head[:len(head)-1]
		}
	}
	for _, c := range head {
		if c < ' ' && c != '\t' && c != '\n' && c != '\r' && c != '\f' {
			return false
		}
	}
	return utf8.Valid(head)
}
