package lpfileshare

import (
	"bytes"
	"path"
	"strings"
	"unicode/utf8"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// sniffBytes is the number of first bytes that DetectFileType uses.
const sniffBytes = 512

var typeByExtension = map[string]pb.FileType{
	".jpg": pb.FileType_FILE_TYPE_JPEG, ".jpeg": pb.FileType_FILE_TYPE_JPEG, ".jpe": pb.FileType_FILE_TYPE_JPEG,
	".png": pb.FileType_FILE_TYPE_PNG, ".gif": pb.FileType_FILE_TYPE_GIF,
	".pdf": pb.FileType_FILE_TYPE_PDF, ".txt": pb.FileType_FILE_TYPE_TXT,
	".docx": pb.FileType_FILE_TYPE_DOCX, ".xlsx": pb.FileType_FILE_TYPE_XLSX, ".pptx": pb.FileType_FILE_TYPE_PPTX,
}

// DetectFileType returns the type of a file by its first bytes (512 are enough) or, if they do not decide it, by the extension of
// its name. The bytes win, because the server checks them. Unspecified: the file is of no known type.
func DetectFileType(name string, head []byte) pb.FileType {
	byName := typeByExtension[strings.ToLower(path.Ext(name))]
	for magic, t := range map[string]pb.FileType{
		"\xff\xd8\xff": pb.FileType_FILE_TYPE_JPEG, "\x89PNG\r\n\x1a\n": pb.FileType_FILE_TYPE_PNG,
		"GIF87a": pb.FileType_FILE_TYPE_GIF, "GIF89a": pb.FileType_FILE_TYPE_GIF, "%PDF-": pb.FileType_FILE_TYPE_PDF,
	} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return t
		}
	}
	if byName == pb.FileType_FILE_TYPE_UNSPECIFIED && len(head) > 0 && isText(head) {
		return pb.FileType_FILE_TYPE_TXT
	}
	return byName
}

// isText reports whether the first bytes of a file are UTF-8 without control characters other than white space.
func isText(head []byte) bool {
	for len(head) > 0 {
		r, n := utf8.DecodeRune(head)
		if r == utf8.RuneError && n == 1 {
			return !utf8.FullRune(head) // the character may continue after head
		}
		if r < ' ' && !strings.ContainsRune("\t\n\r\f", r) || r == 0x7f {
			return false
		}
		head = head[n:]
	}
	return true
}
