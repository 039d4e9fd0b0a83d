package share

import (
	"bytes"
	"slices"
	"unicode/utf8"
)

// A ForeignFormat is a file format that LivePerson does not accept, but that people try to send.
type ForeignFormat struct {
	// Format is a short name: "HEIC".
	Format string
	// Name is the name in a sentence: "a HEIC image".
	Name string
	// Advice is what to do instead. Empty: nothing helps.
	Advice string
	// signatures are the possible first bytes, as in FileTypeInfo.
	signatures []string
}

const asImage = "save it as JPEG or PNG"

// foreignFormats have signatures that no file of an accepted type begins with. The first match counts.
var foreignFormats = []ForeignFormat{
	{"HEIC", "a HEIC image", asImage + " (on an iPhone: Settings, Camera, Formats, Most Compatible)", []string{
		"????ftypheic", "????ftypheix", "????ftypheim", "????ftypheis", "????ftyphevc", "????ftyphevx", "????ftypmif1", "????ftypmsf1",
	}},
	{"AVIF", "an AVIF image", asImage, []string{"????ftypavif", "????ftypavis"}},
	{"WEBP", "a WebP image", asImage, []string{"RIFF????WEBP"}},
	{"TIFF", "a TIFF image", asImage, []string{"II*\x00", "MM\x00*", "II+\x00", "MM\x00+"}},
	{"BMP", "a BMP image", asImage, []string{"BM????\x00\x00\x00\x00"}},
	{"JPEG2000", "a JPEG 2000 image", asImage, []string{"\x00\x00\x00\x0cjP  "}},
	{"JXL", "a JPEG XL image", asImage, []string{"\x00\x00\x00\x0cJXL ", "\xff\x0a"}},
	{"PSD", "a Photoshop document", asImage, []string{"8BPS"}},
	{"ICO", "an icon", asImage, []string{"\x00\x00\x01\x00"}},
	{"OLE", "a Word, Excel or PowerPoint file in the legacy format (.doc, .xls, .ppt), or one with a password",
		"save it as .docx, .xlsx, .pptx or PDF, without a password", []string{"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"}},
	{"MP4", "an MP4 or QuickTime video", "", []string{"????ftyp"}},
	{"AVI", "an AVI video", "", []string{"RIFF????AVI "}},
	{"WEBM", "a WebM or Matroska video", "", []string{"\x1a\x45\xdf\xa3"}},
	{"WAV", "a WAV recording", "", []string{"RIFF????WAVE"}},
	{"OGG", "an Ogg recording", "", []string{"OggS\x00"}},
	{"MP3", "an MP3 recording", "", []string{"ID3\x02", "ID3\x03", "ID3\x04", "\xff\xfb"}},
	{"GZIP", "a gzip archive", "send the files in it", []string{"\x1f\x8b"}},
	{"7Z", "a 7-Zip archive", "send the files in it", []string{"7z\xbc\xaf\x27\x1c"}},
	{"RAR", "a RAR archive", "send the files in it", []string{"Rar!\x1a\x07"}},
}

// textNotUTF8 is a text in another encoding. It has no signature.
var textNotUTF8 = ForeignFormat{"TEXT_NOT_UTF8", "a text that is not in UTF-8", "save it with the encoding UTF-8", nil}

// FindForeignFormat returns the format that a file's first bytes show, if it is one that LivePerson does not accept.
func FindForeignFormat(head []byte) (ForeignFormat, bool) {
	for _, f := range foreignFormats {
		if slices.ContainsFunc(f.signatures, func(signature string) bool { return hasSignature(head, signature) }) {
			return f, true
		}
	}
	if SniffFormat(head, true) != "" {
		return ForeignFormat{}, false
	}
	if bytes.HasPrefix(head, []byte("\xff\xfe")) || bytes.HasPrefix(head, []byte("\xfe\xff")) || !utf8.Valid(head) && isPlain(head) {
		return textNotUTF8, true
	}
	return ForeignFormat{}, false
}

// String describes the format, with what to do instead.
func (f ForeignFormat) String() string {
	text := f.Name + ", which LivePerson does not accept"
	if f.Advice != "" {
		text += "; " + f.Advice
	}
	return text
}
