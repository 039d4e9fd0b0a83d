package service

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/internal/upload"
)

// Limits of an upload's texts, in characters.
const (
	maxDisplayName = 255
	maxCaption     = 5000
)

// checkSpec validates everything that a spec says by itself, and reports all invalid fields at once. An image that is to be stripped may
// have maxStripInput bytes.
func checkSpec(spec *lpfilesharev1.UploadSpec, settings Settings, maxStripInput int64) (upload.Spec, error) {
	var v violations
	u := upload.Spec{
		DisplayName:  spec.GetDisplayName(),
		Caption:      spec.GetCaption(),
		Size:         -1,
		Declared:     checksumsFromProto(spec.GetChecksums()),
		Publish:      spec.GetPublishMode() != lpfilesharev1.PublishMode_PUBLISH_MODE_STORE_ONLY,
		ValidateOnly: spec.GetValidateOnly(),
		Limits: upload.Limits{
			MaxInputBytes: settings.MaxFileBytes, MaxFileBytes: settings.MaxFileBytes,
			MaxImagePixels: settings.MaxImagePixels, CheckETag: settings.CheckETag,
		},
	}
	checkPlace(&v, spec, &u)
	checkTexts(&v, spec)
	known := true
	if u.FileType, known = fileTypeFromProto(spec.GetFileType()); !known {
		v.add("spec.file_type", "must be one of the FileType values, not %d", spec.GetFileType())
	}
	if spec.SizeBytes != nil {
		if u.Size = spec.GetSizeBytes(); u.Size < 0 {
			v.add("spec.size_bytes", "must not be negative")
		}
	}
	checkChecksums(&v, "spec.checksums", spec.GetChecksums())
	u.WantSHA256 = checkChecksumKinds(&v, "spec.want_checksums", spec.GetWantChecksums()) || len(u.Declared.SHA256) > 0
	checkPreview(&v, spec, &u, known)
	checkImage(&v, spec, &u, known, settings, maxStripInput)
	if _, known := lpfilesharev1.PublishMode_name[int32(spec.GetPublishMode())]; !known {
		v.add("spec.publish_mode", "must be one of the PublishMode values, not %d", spec.GetPublishMode())
	}
	u.RequestID, u.CreatedID = checkRequestID(&v, "spec.request_id", spec.GetRequestId()), spec.GetRequestId() == ""
	if err := v.err(); err != nil {
		return upload.Spec{}, err
	}
	if err := checkLimits(&u, settings); err != nil {
		return upload.Spec{}, err
	}
	u.Fingerprint = fingerprint(spec)
	return u, nil
}

// checkPlace validates where the file goes.
func checkPlace(v *violations, spec *lpfilesharev1.UploadSpec, u *upload.Spec) {
	var ok bool
	if u.Account, u.Conversation, ok = parseConversationName(spec.GetConversation()); !ok || u.Conversation == anyConversation {
		v.add("spec.conversation", "must be accounts/{account}/conversations/{conversation}")
	}
	u.Dialog = u.Conversation
	if d := spec.GetDialogId(); d != "" {
		if u.Dialog = d; !validID(d) {
			v.add("spec.dialog_id", dialogIDRule)
		}
	}
}

func checkTexts(v *violations, spec *lpfilesharev1.UploadSpec) {
	if name := spec.GetDisplayName(); utf8.RuneCountInString(name) > maxDisplayName || strings.ContainsFunc(name, unicode.IsControl) {
		v.add("spec.display_name", "must have at most %d characters, none of them a control character", maxDisplayName)
	}
	if utf8.RuneCountInString(spec.GetCaption()) > maxCaption {
		v.add("spec.caption", "must have at most %d characters", maxCaption)
	}
}

// checkPreview validates the preview. Its length is checked later, because it is an error of its own. knownType reports that the
// file type is valid.
func checkPreview(v *violations, spec *lpfilesharev1.UploadSpec, u *upload.Spec, knownType bool) {
	switch p := spec.GetPreview().GetSource().(type) {
	case *lpfilesharev1.Preview_DataUri:
		u.Preview = p.DataUri
		if len(u.Preview) < upload.MaxPreviewChars && !validDataURI(u.Preview) {
			v.add("spec.preview.data_uri", "must be data:image/jpeg;base64,... (or png, gif)")
		}
	case *lpfilesharev1.Preview_Generate:
		if u.GeneratePreview = p.Generate; p.Generate && knownType && !u.FileType.IsImage() {
			v.add("spec.preview.generate", "a preview can be generated only for images")
		}
	}
}

// checkImage validates what may be done to an image.
func checkImage(v *violations, spec *lpfilesharev1.UploadSpec, u *upload.Spec, knownType bool, settings Settings, maxStripInput int64) {
	fit, strip := spec.GetImage().GetFit(), spec.GetImage().GetStripMetadata()
	if knownType && !u.FileType.IsImage() && (fit || strip) {
		v.add("spec.image", "is for images; leave it out for a %s file", u.FileType)
	}
	if !u.FileType.IsImage() {
		return
	}
	u.Strip = strip || settings.StripImages
	if fit && settings.MaxImageInputBytes > settings.MaxFileBytes {
		u.Fit, u.Limits.MaxInputBytes = true, settings.MaxImageInputBytes
	} else if u.Strip {
		u.Limits.MaxInputBytes = max(u.Limits.MaxInputBytes, maxStripInput)
	}
}

// maxStripInput returns the maximum size of an image that is to be stripped: stripping may make it small enough. It is in memory twice, as
// received and as stored, so budget must be enough for both.
func maxStripInput(settings Settings, budget, maxBytes int64) int64 {
	n := max(2*settings.MaxFileBytes, settings.MaxImageInputBytes)
	return min(n, maxBytes, budget-settings.MaxFileBytes-2*admission.BlockBytes)
}

// checkLimits holds a valid spec against the account's limits.
func checkLimits(u *upload.Spec, settings Settings) error {
	if len(u.Preview) >= upload.MaxPreviewChars {
		return share.Reject(share.PreviewTooLarge, "the preview is %d characters as a data URI, the limit is %d; send a smaller one", len(u.Preview),
			upload.MaxPreviewChars-1).With("maxBytes", share.Itoa(upload.MaxPreviewChars-1), "actualBytes", share.Itoa(int64(len(u.Preview))))
	}
	if !u.FileType.IsImage() && !slices.Contains(settings.Documents, u.FileType) {
		var allowed []string
		for _, t := range allowedTypes(settings.Documents) {
			allowed = append(allowed, strings.TrimPrefix(t.String(), "FILE_TYPE_"))
		}
		return share.Reject(share.UnsupportedFileType, "account %s allows %s, not %s", u.Account, strings.Join(allowed, ", "), u.FileType).
			With("allowedTypes", strings.Join(allowed, ","))
	}
	if u.Size == 0 {
		return share.Reject(share.FileEmpty, "the file is empty")
	}
	if u.Size > u.Limits.MaxInputBytes {
		return upload.TooLarge(u.Limits.MaxInputBytes, u.Size)
	}
	return nil
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

// checkRequestID returns the id in its canonical spelling, or a new one if there is none.
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
	_, _, ok := share.SplitDataURI(uri)
	return ok
}

// fingerprint identifies what a request id stands for: the spec without the id, without validate_only and the requested kinds of
// checksums, and without size and checksums, which a retry may know better and which are compared by themselves.
func fingerprint(spec *lpfilesharev1.UploadSpec) []byte {
	s := proto.CloneOf(spec)
	s.RequestId, s.ValidateOnly, s.SizeBytes, s.Checksums, s.WantChecksums = "", false, nil, nil, nil
	// Different ways to write the same request have the same fingerprint.
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
	if err != nil { // only invalid UTF-8 causes it, which gRPC has rejected
		panic(err)
	}
	sum := sha256.Sum256(b)
	return sum[:]
}
