package service

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// storedFileToProto converts a file for its uploader. It has no preview: the uploader sent it, or can get it with StatFile.
func storedFileToProto(account string, f *share.StoredFile) *lpfilesharev1.File {
	return &lpfilesharev1.File{
		Name:              fileName(account, f.Conversation, f.Dialog, f.File.StoragePath),
		StoragePath:       f.File.StoragePath,
		DisplayName:       f.DisplayName,
		FileType:          fileTypeToProto(f.File.FileType),
		LpFileType:        f.File.FileType,
		StoredSizeBytes:   &f.Size,
		Etag:              f.ETag,
		UploadedChecksums: checksumsToProto(f.Checksums),
		Caption:           f.File.Caption,
		MessageSequence:   f.Sequence,
		SenderId:          f.SenderID,
		SenderRole:        roleToProto(f.SenderRole),
		CreateTime:        timeToProto(f.Time),
		DialogId:          f.Dialog,
		ContentType:       contentType(f.File.FileType),
		ImageWidth:        int32(f.Width),
		ImageHeight:       int32(f.Height),
	}
}

// eventToProto converts a file of a conversation.
func eventToProto(account string, e share.FileEvent) *lpfilesharev1.File {
	return &lpfilesharev1.File{
		Name:            fileName(account, e.Conversation, e.Dialog, e.File.StoragePath),
		StoragePath:     e.File.StoragePath,
		FileType:        fileTypeToProto(e.File.FileType),
		LpFileType:      e.File.FileType,
		Caption:         e.File.Caption,
		PreviewDataUri:  e.File.Preview,
		MessageSequence: &e.Sequence,
		SenderId:        e.SenderID,
		SenderRole:      roleToProto(e.SenderRole),
		CreateTime:      timeToProto(e.Time),
		DialogId:        e.Dialog,
		ContentType:     contentType(e.File.FileType),
	}
}

// unreadableToProto converts a dialog that could not be read.
func unreadableToProto(account string, u *share.UnreadableDialog) *lpfilesharev1.UnreadableConversation {
	return &lpfilesharev1.UnreadableConversation{
		Name: conversationName(account, u.Conversation), DialogId: u.Dialog, Reason: errorReason(u.Err.Kind), Message: share.Clip(u.Err.Message, maxMessage),
	}
}

func timeToProto(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func roleToProto(r share.Role) lpfilesharev1.ParticipantRole {
	return lpfilesharev1.ParticipantRole(lpfilesharev1.ParticipantRole_value["PARTICIPANT_ROLE_"+string(r)])
}

func checksumsFromProto(c *lpfilesharev1.Checksums) share.Checksums {
	if c == nil {
		return share.Checksums{}
	}
	return share.Checksums{CRC32C: c.Crc32C, SHA256: c.GetSha256()}
}

func checksumsToProto(c share.Checksums) *lpfilesharev1.Checksums {
	if c.CRC32C == nil && len(c.SHA256) == 0 {
		return nil
	}
	return &lpfilesharev1.Checksums{Crc32C: c.CRC32C, Sha256: c.SHA256}
}

// imageChangeToProto reports what was done to a file's image; nil: nothing.
func imageChangeToProto(f *share.StoredFile) *lpfilesharev1.ImageChange {
	c := f.Image
	if c == nil {
		return nil
	}
	p := &lpfilesharev1.ImageChange{
		InputSizeBytes: c.InputSize, InputChecksums: checksumsToProto(c.InputChecksums),
		InputWidth: int32(c.Input.Width), InputHeight: int32(c.Input.Height),
		Width: int32(c.Stored.Width), Height: int32(c.Stored.Height),
		Recoded: c.Recoded, Rotated: c.Rotated, Scaled: c.Scaled, JpegQuality: int32(c.JPEGQuality),
		TrailingBytesRemoved: c.TrailingBytes,
	}
	if string(c.InputType) != f.File.FileType {
		p.InputFileType = fileTypeToProto(string(c.InputType))
	}
	for _, kind := range c.Removed {
		p.RemovedMetadata = append(p.RemovedMetadata, lpfilesharev1.ImageMetadata(lpfilesharev1.ImageMetadata_value["IMAGE_METADATA_"+string(kind)]))
	}
	return p
}
