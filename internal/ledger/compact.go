package ledger

import (
	"encoding/json"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// compactRecord is share.Record as version 2 stores it: with short names, times as numbers, and without what is empty or can be
// derived. Version 1 was the JSON of share.Record, with more than twice the size.
type compactRecord struct {
	State           share.UploadState `json:"state,omitempty"`
	Fingerprint     []byte            `json:"print,omitempty"`
	Attempt         string            `json:"attempt,omitempty"`
	AttemptTime     instant           `json:"began,omitempty"`
	Expires         instant           `json:"ends,omitempty"`
	DeclaredSize    *int64            `json:"size,omitempty"`
	Declared        compactSums       `json:"sums,omitzero"`
	File            *compactFile      `json:"file,omitempty"`
	UploadKey       string            `json:"of,omitempty"`
	PublishDeadline instant           `json:"deadline,omitempty"`
	Failure         share.Kind        `json:"failure,omitempty"`
	FailureMessage  string            `json:"message,omitempty"`
}

// compactFile is share.StoredFile.
type compactFile struct {
	Conversation string `json:"conv,omitempty"`
	// Dialog is left out if it equals Conversation, as the main dialog's id does.
	Dialog         *string            `json:"dialog,omitempty"`
	DisplayName    string             `json:"name,omitempty"`
	StoragePath    string             `json:"path,omitempty"`
	FileType       string             `json:"type,omitempty"`
	Caption        string             `json:"caption,omitempty"`
	Preview        string             `json:"preview,omitempty"`
	Size           int64              `json:"size,omitempty"`
	ETag           string             `json:"etag,omitempty"`
	Checksums      compactSums        `json:"sums,omitzero"`
	Sequence       *int64             `json:"seq,omitempty"`
	Time           instant            `json:"time,omitempty"`
	SenderID       string             `json:"by,omitempty"`
	SenderRole     share.Role         `json:"role,omitempty"`
	PreviewOmitted bool               `json:"omitted,omitempty"`
	Width          int                `json:"w,omitempty"`
	Height         int                `json:"h,omitempty"`
	Image          *share.ImageChange `json:"image,omitempty"`
}

// compactSums is share.Checksums.
type compactSums struct {
	CRC32C *uint32 `json:"crc,omitempty"`
	SHA256 []byte  `json:"sha,omitempty"`
}

// An instant is a time in nanoseconds since 1970, until 2262; 0 is the zero time. No precision may be lost: other servers compare
// PublishDeadline with their clocks.
type instant int64

func instantOf(t time.Time) instant {
	if t.IsZero() {
		return 0
	}
	return instant(t.UnixNano())
}

func (i instant) time() time.Time {
	if i == 0 {
		return time.Time{}
	}
	return time.Unix(0, int64(i)).UTC()
}

func marshalRecord(r share.Record) ([]byte, error) {
	c := compactRecord{
		State: r.State, Fingerprint: r.Fingerprint, Attempt: r.Attempt, AttemptTime: instantOf(r.AttemptTime), Expires: instantOf(r.Expires),
		DeclaredSize: r.DeclaredSize, Declared: compactSums(r.Declared), UploadKey: r.UploadKey, PublishDeadline: instantOf(r.PublishDeadline),
		Failure: r.Failure, FailureMessage: r.FailureMessage,
	}
	if f := r.File; f != nil {
		c.File = &compactFile{
			Conversation: f.Conversation, DisplayName: f.DisplayName,
			StoragePath: f.File.StoragePath, FileType: f.File.FileType, Caption: f.File.Caption, Preview: f.File.Preview,
			Size: f.Size, ETag: f.ETag, Checksums: compactSums(f.Checksums),
			Sequence: f.Sequence, Time: instantOf(f.Time), SenderID: f.SenderID, SenderRole: f.SenderRole,
			PreviewOmitted: f.PreviewOmitted, Width: f.Width, Height: f.Height, Image: f.Image,
		}
		if f.Dialog != f.Conversation {
			c.File.Dialog = &f.Dialog
		}
	}
	return json.Marshal(c)
}

func unmarshalRecord(version int, data []byte) (share.Record, error) {
	if version == 1 {
		var r share.Record
		err := json.Unmarshal(data, &r)
		return r, err
	}
	var c compactRecord
	if err := json.Unmarshal(data, &c); err != nil {
		return share.Record{}, err
	}
	r := share.Record{
		State: c.State, Fingerprint: c.Fingerprint, Attempt: c.Attempt, AttemptTime: c.AttemptTime.time(), Expires: c.Expires.time(),
		DeclaredSize: c.DeclaredSize, Declared: share.Checksums(c.Declared), UploadKey: c.UploadKey, PublishDeadline: c.PublishDeadline.time(),
		Failure: c.Failure, FailureMessage: c.FailureMessage,
	}
	if f := c.File; f != nil {
		r.File = &share.StoredFile{
			Conversation: f.Conversation, Dialog: f.Conversation, DisplayName: f.DisplayName,
			File: share.HostedFile{StoragePath: f.StoragePath, FileType: f.FileType, Caption: f.Caption, Preview: f.Preview},
			Size: f.Size, ETag: f.ETag, Checksums: share.Checksums(f.Checksums),
			Sequence: f.Sequence, Time: f.Time.time(), SenderID: f.SenderID, SenderRole: f.SenderRole,
			PreviewOmitted: f.PreviewOmitted, Width: f.Width, Height: f.Height, Image: f.Image,
		}
		if f.Dialog != nil {
			r.File.Dialog = *f.Dialog
		}
	}
	return r, nil
}
