package lpfileshare

import (
	"bytes"
	"path"
	"strings"
	"unicode/utf8"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// sniffBytes is how many first bytes DetectFileType makes use of.
const sniffBytes = 512

var typeByExtension = map[string]pb.FileType{
	".jpg": pb.FileType_FILE_TYPE_JPEG, ".jpeg": pb.FileType_FILE_TYPE_JPEG, ".jpe": pb.FileType_FILE_TYPE_JPEG,
	".png": pb.FileType_FILE_TYPE_PNG, ".gif": pb.FileType_FILE_TYPE_GIF,
	".pdf": pb.FileType_FILE_TYPE_PDF, ".txt": pb.FileType_FILE_TYPE_TXT,
	".docx": pb.FileType_FILE_TYPE_DOCX, ".xlsx": pb.FileType_FILE_TYPE_XLSX, ".pptx": pb.FileType_FILE_TYPE_PPTX,
}

// DetectFileType tells a file's type by its first bytes (512 are enough) and, where those leave it open, by the extension of
// its name. The bytes win: the server refuses a name that they belie. Unspecified: it is none of the types in FileType.
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

// isText says whether the first bytes of a file are UTF-8 without control characters that no text has.
func isText(head []byte) bool {
	for len(head) > 0 {
		r, n := utf8.DecodeRune(head)
		if r == utf8.RuneError && n == 1 {
			return !utf8.FullRune(head) // cut off in mid-character is fine
		}
		if r < ' ' && !strings.ContainsRune("\t\n\r\f", r) || r == 0x7f {
			return false
		}
		head = head[n:]
	}
	return true
}
