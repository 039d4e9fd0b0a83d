package share

import (
	"bytes"
	"slices"
	"strings"
	"unicode/utf8"
)

// A FileType is a file's type in the spelling that LivePerson's requests and messages use ("fileType": upper case, no dot).
type FileType string

// The types that code refers to by name. The table below lists every type.
const (
	JPEG FileType = "JPG" // the one spelling of JPEG that every LivePerson schema lists
	PNG  FileType = "PNG"
	GIF  FileType = "GIF"
	PDF  FileType = "PDF"
	TXT  FileType = "TXT"
	DOCX FileType = "DOCX"
	XLSX FileType = "XLSX"
	PPTX FileType = "PPTX"
)

// FileTypeInfo is everything that the server and the clients know about a file type.
type FileTypeInfo struct {
	// Type is the spelling sent to LivePerson.
	Type FileType
	// Name is the name of the value in lpfileshare.v1.FileType, without its prefix.
	Name string
	// Aliases are other spellings that messages may contain. Letter case is ignored.
	Aliases []string
	// Extensions are the file name extensions, with the dot, in lower case. The first is used to make a name.
	Extensions []string
	// MediaType is the MIME type, for the store's Content-Type and for data URIs.
	MediaType string
	// Signatures are the possible first bytes; "?" stands for any byte. A type without signatures is plain text: UTF-8 without
	// control characters.
	Signatures []string
	// Within is the number of first bytes that the signature may be in, behind others; 0: it comes first.
	Within int
	// Folder is a folder that every file of this type contains, which is a ZIP (Office Open XML).
	Folder string
	// Format is what Signatures identify, where several types have the same ones: "ZIP". Empty means Type.
	Format string
	// Image marks an image: allowed for every account, decoded to be checked, previewed and fitted by package images. Other types
	// are documents, which an account must allow.
	Image bool
}

const (
	zipSignature = "PK\x03\x04"
	openXML      = "application/vnd.openxmlformats-officedocument."
)

// fileTypes is the one table of file types, in the contract's order. A new document type is a value of the contract's enum and
// a row here; a new image type also needs a decoder in package images.
var fileTypes = []FileTypeInfo{
	{Type: JPEG, Name: "JPEG", Aliases: []string{"JPEG"}, Extensions: []string{".jpg", ".jpeg", ".jpe"}, MediaType: "image/jpeg",
		Signatures: []string{"\xff\xd8\xff"}, Image: true},
	{Type: PNG, Name: "PNG", Extensions: []string{".png"}, MediaType: "image/png", Signatures: []string{"\x89PNG\r\n\x1a\n"}, Image: true},
	{Type: GIF, Name: "GIF", Extensions: []string{".gif"}, MediaType: "image/gif", Signatures: []string{"GIF87a", "GIF89a"}, Image: true},
	{Type: PDF, Name: "PDF", Extensions: []string{".pdf"}, MediaType: "application/pdf", Signatures: []string{"%PDF-"}, Within: 1024},
	{Type: TXT, Name: "TXT", Extensions: []string{".txt"}, MediaType: "text/plain; charset=utf-8"},
	{Type: DOCX, Name: "DOCX", Extensions: []string{".docx"}, MediaType: openXML + "wordprocessingml.document",
		Signatures: []string{zipSignature}, Format: "ZIP", Folder: "word/"},
	{Type: XLSX, Name: "XLSX", Extensions: []string{".xlsx"}, MediaType: openXML + "spreadsheetml.sheet",
		Signatures: []string{zipSignature}, Format: "ZIP", Folder: "xl/"},
	{Type: PPTX, Name: "PPTX", Extensions: []string{".pptx"}, MediaType: openXML + "presentationml.presentation",
		Signatures: []string{zipSignature}, Format: "ZIP", Folder: "ppt/"},
}

// FileTypes returns the table of file types, in the contract's order. Callers must not modify the rows' slices.
func FileTypes() []FileTypeInfo { return slices.Clone(fileTypes) }

// Documents returns the types that are not images.
func Documents() []FileType {
	var types []FileType
	for _, row := range fileTypes {
		if !row.Image {
			types = append(types, row.Type)
		}
	}
	return types
}

// ContractName returns the name of the type's value in lpfileshare.v1.FileType: "FILE_TYPE_JPEG".
func (i FileTypeInfo) ContractName() string { return "FILE_TYPE_" + i.Name }

// LowerName returns the type's name for people: "jpeg".
func (i FileTypeInfo) LowerName() string { return strings.ToLower(i.Name) }

// Info returns the row of t; ok is false for a type that is not in the table.
func (t FileType) Info() (info FileTypeInfo, ok bool) {
	return findFileType(func(row *FileTypeInfo) bool { return row.Type == t })
}

// IsImage reports whether t is an image type.
func (t FileType) IsImage() bool {
	row, _ := t.Info()
	return row.Image
}

// MediaType returns the MIME type of t, or "application/octet-stream" for a type that is not in the table.
func (t FileType) MediaType() string {
	if row, ok := t.Info(); ok {
		return row.MediaType
	}
	return "application/octet-stream"
}

// FileTypeByContractName finds a type by the name of its value in lpfileshare.v1.FileType: "FILE_TYPE_JPEG".
func FileTypeByContractName(name string) (FileTypeInfo, bool) {
	return findFileType(func(row *FileTypeInfo) bool { return row.ContractName() == name })
}

// FileTypeBySpelling finds a type by the spelling in a LivePerson message, in any letter case.
func FileTypeBySpelling(spelling string) (FileTypeInfo, bool) {
	return findFileType(func(row *FileTypeInfo) bool {
		return strings.EqualFold(spelling, string(row.Type)) ||
			slices.ContainsFunc(row.Aliases, func(alias string) bool { return strings.EqualFold(spelling, alias) })
	})
}

// FileTypeByExtension finds a type by a file name extension with its dot, in any letter case.
func FileTypeByExtension(extension string) (FileTypeInfo, bool) {
	return findFileType(func(row *FileTypeInfo) bool { return slices.Contains(row.Extensions, strings.ToLower(extension)) })
}

// FileTypeByFormat finds the type whose files show a format; false if there is none, or more than one.
func FileTypeByFormat(format string) (found FileTypeInfo, ok bool) {
	for _, row := range fileTypes {
		if row.DetectedFormat() == format {
			if ok {
				return FileTypeInfo{}, false
			}
			found, ok = row, true
		}
	}
	return found, ok
}

func findFileType(match func(*FileTypeInfo) bool) (FileTypeInfo, bool) {
	if i := slices.IndexFunc(fileTypes, func(row FileTypeInfo) bool { return match(&row) }); i >= 0 {
		return fileTypes[i], true
	}
	return FileTypeInfo{}, false
}

// SniffBytes is the number of a file's first bytes that SniffFormat uses.
const SniffBytes = 512

// SniffFormat returns the format that a file's first bytes show: a FileTypeInfo's DetectedFormat, or "" if there is none. cut
// reports that the file continues after head. The first bytes do not distinguish types with the same format.
func SniffFormat(head []byte, cut bool) string {
	// A byte order mark or white space may precede a signature that need not come first.
	behind := bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\xef\xbb\xbf")), " \t\r\n\f\x00")
	for _, row := range fileTypes {
		if row.signed(head) || row.Within > 0 && row.signed(behind) {
			return row.DetectedFormat()
		}
	}
	for _, row := range fileTypes {
		if len(row.Signatures) == 0 && isText(head, cut) {
			return row.DetectedFormat()
		}
	}
	return ""
}

// ShownBytes is the number of a file's first bytes that Shown uses.
func (i FileTypeInfo) ShownBytes() int { return max(SniffBytes, i.Within) }

// Shown reports whether a file's first bytes are those of a file of this type, and the format that they show otherwise, as
// SniffFormat returns it.
func (i FileTypeInfo) Shown(head []byte, cut bool) (format string, ok bool) {
	format = SniffFormat(head, cut)
	if format == i.DetectedFormat() {
		return format, true
	}
	signed := slices.ContainsFunc(fileTypes, func(row FileTypeInfo) bool { return row.DetectedFormat() == format && len(row.Signatures) > 0 })
	if !signed { // what comes first is of no other type
		for at := range min(i.Within, len(head)) {
			if i.signed(head[at:min(i.Within, len(head))]) {
				return i.DetectedFormat(), true
			}
		}
	}
	return format, false
}

func (i FileTypeInfo) signed(head []byte) bool {
	return slices.ContainsFunc(i.Signatures, func(signature string) bool { return hasSignature(head, signature) })
}

// DetectedFormat returns what SniffFormat returns for a file of this type.
func (i FileTypeInfo) DetectedFormat() string {
	if i.Format != "" {
		return i.Format
	}
	return string(i.Type)
}

func hasSignature(head []byte, signature string) bool {
	if len(head) < len(signature) {
		return false
	}
	for i := range len(signature) {
		if signature[i] != '?' && signature[i] != head[i] {
			return false
		}
	}
	return true
}

// isText reports whether head is UTF-8 without the control characters that text does not contain. If the file is cut after
// head, its last character may be incomplete.
func isText(head []byte, cut bool) bool {
	if cut {
		for i := 0; i < utf8.UTFMax-1 && len(head) > 0 && !utf8.RuneStart(head[len(head)-1]); i++ {
			head = head[:len(head)-1]
		}
		if len(head) > 0 && !utf8.FullRune(head[len(head)-1:]) {
			head = head[:len(head)-1]
		}
	}
	return isPlain(head) && utf8.Valid(head)
}

// isPlain reports whether head has none of the control characters that text does not contain.
func isPlain(head []byte) bool {
	return !slices.ContainsFunc(head, func(c byte) bool { return c < ' ' && c != '\t' && c != '\n' && c != '\r' && c != '\f' })
}
