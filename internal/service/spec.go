package service

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// Bounds of an upload's texts.
const (
	maxDisplayName  = 255
	maxCaption      = 5000
	maxPreviewChars = 30 * 1024 // of the whole data URI; "under 30 KB"
)

// An uploadSpec is an UploadSpec that was checked.
type uploadSpec struct {
	account, conversation, dialog string
	displayName, caption          string
	fileType                      share.FileType
	size                          int64 // -1: not declared
	declared                      share.Checksums
	preview                       string
	makePreview                   bool
	publish                       bool
	requestID                     string
	validateOnly                  bool
	fit, strip                    bool  // what may be done to an image
	limit                         int64 // the most bytes that may come: of the file, or of an image that is made to fit
	wantSHA256                    bool  // declared or requested
	fingerprint                   []byte
	maxPixels                     int64
}

// changes reports whether the file may be changed before it is stored, and hence is received whole first.
func (u uploadSpec) changes(settings Settings) bool {
	return u.strip || u.fit && (u.size < 0 || u.size > settings.MaxFileBytes)
}

// room is how much memory the upload needs: for the file, and for what is made of it.
func (u uploadSpec) room(settings Settings) int64 {
	n := u.size
	if n < 0 {
		n = u.limit
	}
	if u.changes(settings) {
		n = wholeBlocks(n) + settings.MaxFileBytes
	}
	return n
}

// checkSpec checks everything that a spec says by itself, all fields at once.
func checkSpec(spec *lpfilesharev1.UploadSpec, settings Settings) (uploadSpec, error) {
	var v violations
	u := uploadSpec{
		displayName:  spec.GetDisplayName(),
		caption:      spec.GetCaption(),
		size:         -1,
		declared:     checksumsFromProto(spec.GetChecksums()),
		publish:      spec.GetPublishMode() != lpfilesharev1.PublishMode_PUBLISH_MODE_STORE_ONLY,
		validateOnly: spec.GetValidateOnly(),
		limit:        settings.MaxFileBytes,
	}
	var ok bool
	if u.account, u.conversation, ok = parseConversationName(spec.GetConversation()); !ok || u.conversation == anyConversation {
		v.add("spec.conversation", "must be accounts/{account}/conversations/{conversation}")
	}
	u.dialog = u.conversation
	if d := spec.GetDialogId(); d != "" {
		if u.dialog = d; !validID(d) {
			v.add("spec.dialog_id", "must have 1 to 64 letters, digits, '-' or '_'")
		}
	}
	if utf8.RuneCountInString(u.displayName) > maxDisplayName || strings.ContainsFunc(u.displayName, unicode.IsControl) {
		v.add("spec.display_name", "must have at most %d characters, none of them a control character", maxDisplayName)
	}
	if utf8.RuneCountInString(u.caption) > maxCaption {
		v.add("spec.caption", "must have at most %d characters", maxCaption)
	}
	known := true
	if u.fileType, known = fileTypeFromProto(spec.GetFileType()); !known {
		v.add("spec.file_type", "must be one of the FileType values, not %d", spec.GetFileType())
	}
	if spec.SizeBytes != nil {
		if u.size = spec.GetSizeBytes(); u.size < 0 {
			v.add("spec.size_bytes", "must not be negative")
		}
	}
	checkChecksums(&v, "spec.checksums", spec.GetChecksums())
	switch p := spec.GetPreview().GetSource().(type) {
	case *lpfilesharev1.Preview_DataUri:
		u.preview = p.DataUri
		if len(u.preview) < maxPreviewChars && !validDataURI(u.preview) {
			v.add("spec.preview.data_uri", "must be data:image/jpeg;base64,... (or png, gif)")
		}
	case *lpfilesharev1.Preview_Generate:
		if u.makePreview = p.Generate; p.Generate && known && !u.fileType.IsImage() {
			v.add("spec.preview.generate", "only images have a preview that can be made")
		}
	}
	fit, strip := spec.GetImage().GetFit(), spec.GetImage().GetStripMetadata()
	if known && !u.fileType.IsImage() && (fit || strip) {
		v.add("spec.image", "is for images; leave it out for a %s file", u.fileType)
	}
	if u.fileType.IsImage() {
		u.strip = strip || settings.StripImages
		if fit && settings.MaxImageInputBytes > settings.MaxFileBytes {
			u.fit, u.limit = true, settings.MaxImageInputBytes
		}
	}
	if _, known := lpfilesharev1.PublishMode_name[int32(spec.GetPublishMode())]; !known {
		v.add("spec.publish_mode", "must be one of the PublishMode values, not %d", spec.GetPublishMode())
	}
	u.wantSHA256 = checkChecksumKinds(&v, "spec.want_checksums", spec.GetWantChecksums()) || len(u.declared.SHA256) > 0
	u.requestID = checkRequestID(&v, "spec.request_id", spec.GetRequestId())
	if err := v.err(); err != nil {
		return uploadSpec{}, err
	}

	if len(u.preview) >= maxPreviewChars {
		return uploadSpec{}, with(refuse(share.PreviewTooLarge, "the preview must have fewer than %d characters as a data URI, not %d", maxPreviewChars, len(u.preview)),
			"maxBytes", itoa(maxPreviewChars-1), "actualBytes", itoa(int64(len(u.preview))))
	}
	if !u.fileType.IsImage() && !slices.Contains(settings.Documents, u.fileType) {
		var allowed []string
		for _, t := range allowedTypes(settings.Documents) {
			allowed = append(allowed, strings.TrimPrefix(t.String(), "FILE_TYPE_"))
		}
		return uploadSpec{}, with(refuse(share.UnsupportedFileType, "account %s takes %s, not %s", u.account, strings.Join(allowed, ", "), u.fileType),
			"allowedTypes", strings.Join(allowed, ","))
	}
	if u.size == 0 {
		return uploadSpec{}, refuse(share.FileEmpty, "the file has no bytes")
	}
	if u.size > u.limit {
		return uploadSpec{}, tooLarge(u.limit, u.size)
	}
	u.fingerprint = fingerprint(spec)
	u.maxPixels = settings.MaxImagePixels
	return u, nil
}

func tooLarge(limit, actual int64) error {
	return with(refuse(share.FileTooLarge, "the file has %d bytes, and %d are allowed; resize or compress it", actual, limit),
		"maxBytes", itoa(limit), "actualBytes", itoa(actual))
}

func checkChecksums(v *violations, field string, c *lpfilesharev1.Checksums) {
	if n := len(c.GetSha256()); n != 0 && n != sha256.Size {
		v.add(field+".sha256", "must have 32 bytes, not %d", n)
	}
}

// uuidLength is the length of a UUID in its usual spelling, which is the only one accepted.
const uuidLength = len("00000000-0000-0000-0000-000000000000")

// checkChecksumKinds checks the requested kinds of checksums and reports whether SHA-256 is one of them.
func checkChecksumKinds(v *violations, field string, kinds []lpfilesharev1.ChecksumKind) (sha256 bool) {
	for i, k := range kinds {
		if _, known := lpfilesharev1.ChecksumKind_name[int32(k)]; !known || k == lpfilesharev1.ChecksumKind_CHECKSUM_KIND_UNSPECIFIED {
			v.add(fmt.Sprintf("%s[%d]", field, i), "must be one of the ChecksumKind values, not %d", k)
		}
	}
	return slices.Contains(kinds, lpfilesharev1.ChecksumKind_CHECKSUM_KIND_SHA256)
}

// checkRequestID gives the id in its usual spelling, a new one for none.
func checkRequestID(v *violations, field, id string) string {
	if id == "" {
		return uuid.NewString()
	}
	parsed, err := uuid.Parse(id)
	if err != nil || len(id) != uuidLength {
		v.add(field, "must be a UUID such as 6f0c3a52-7d9e-4b1c-9d0a-3c1d2e4f5a6b, or empty")
		return ""
	}
	return parsed.String()
}

func validDataURI(uri string) bool {
	_, _, ok := splitDataURI(uri)
	return ok
}

// splitDataURI gives the type and the bytes of an image's data URI.
func splitDataURI(uri string) (share.FileType, []byte, bool) {
	for _, t := range []share.FileType{share.JPEG, share.PNG, share.GIF} {
		if text, ok := strings.CutPrefix(uri, "data:"+t.MediaType()+";base64,"); ok {
			data, err := base64.StdEncoding.DecodeString(text)
			return t, data, err == nil && len(data) > 0 && !strings.ContainsAny(text, "\r\n") // which decoding lets pass
		}
	}
	return "", nil, false
}

// fingerprint identifies what a request id stands for: the spec without the id, without validate_only and the requested kinds of
// checksums, and without size and checksums, which a retry may know better and which are compared by themselves.
func fingerprint(spec *lpfilesharev1.UploadSpec) []byte {
	s := proto.CloneOf(spec)
	s.RequestId, s.ValidateOnly, s.SizeBytes, s.Checksums, s.WantChecksums = "", false, nil, nil, nil
	// Two spellings of one thing are one thing.
	if s.PublishMode == lpfilesharev1.PublishMode_PUBLISH_MODE_UNSPECIFIED {
		s.PublishMode = lpfilesharev1.PublishMode_PUBLISH_MODE_PUBLISH
	}
	if _, conversation, ok := parseConversationName(s.GetConversation()); ok && s.GetDialogId() == conversation {
		s.DialogId = ""
	}
	if !s.GetImage().GetFit() && !s.GetImage().GetStripMetadata() {
		s.Image = nil
	}
	return fingerprintOf(s)
}

func fingerprintOf(m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil { // only invalid UTF-8 could do that, and gRPC has refused it
		panic(err)
	}
	sum := sha256.Sum256(b)
	return sum[:]
}
