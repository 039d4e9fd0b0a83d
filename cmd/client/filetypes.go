package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// fileType is the name of a file type. Empty: to be detected.
type fileType string

// UnmarshalText parses the name of a type.
func (t *fileType) UnmarshalText(text []byte) error {
	*t = fileType(strings.ToLower(string(text)))
	if slices.ContainsFunc(share.FileTypes(), func(row share.FileTypeInfo) bool { return row.LowerName() == string(*t) }) {
		return nil
	}
	return errors.New("must be one of " + fileTypeNames())
}

// fileTypeNames lists the types that the flag accepts.
func fileTypeNames() string {
	var names []string
	for _, row := range share.FileTypes() {
		names = append(names, row.LowerName())
	}
	return strings.Join(names, ", ")
}

// detectType returns the type of a file by its first bytes and its display name. name is what messages call it.
func detectType(display, name string, head []byte) (pb.FileType, error) {
	t := lpfileshare.DetectFileType(display, head)
	if t != pb.FileType_FILE_TYPE_UNSPECIFIED {
		return t, nil
	}
	if foreign, ok := share.FindForeignFormat(head); ok {
		advice := "The types that an account can allow are " + fileTypeNames() + "; lpfileshare capabilities lists those that it allows."
		return t, &adviceError{fmt.Errorf("upload %s: it is %s", name, foreign), advice}
	}
	return t, &adviceError{fmt.Errorf("upload %s: the file type cannot be detected from the bytes or the name", name),
		"If it is one of " + fileTypeNames() + ", set it with --type, or give a name with an extension with --name."}
}

func isImage(t pb.FileType) bool {
	row, _ := share.FileTypeByContractName(t.String())
	return row.Image
}

// autoPreview requests a preview of a type that the server can generate one of. Nil: none.
func autoPreview(t pb.FileType) *pb.Preview {
	if !isImage(t) {
		return nil
	}
	return &pb.Preview{Source: &pb.Preview_Generate{Generate: true}}
}

// explain adds to the error of an upload what would help on this server. An image that is too large can often be made to fit.
func (b *batch) explain(ctx context.Context, o lpfileshare.UploadOptions, err error) error {
	e, ok := errors.AsType[*lpfileshare.Error](err)
	if !ok || e.Reason != pb.ErrorReason_ERROR_REASON_FILE_TOO_LARGE || !isImage(o.FileType) {
		return err
	}
	caps, capsErr := b.client.Capabilities(ctx, b.conn.account)
	if capsErr != nil {
		return err
	}
	e.Message, _, _ = strings.Cut(e.Message, "; send a smaller file") // the server's advice is for programs
	return &adviceError{e, tooLargeAdvice(o.Image, caps)}
}

// tooLargeAdvice says how an image that is too large can be sent. asked is what the upload asked to be done to it.
func tooLargeAdvice(asked *pb.ImageOptions, caps *pb.GetCapabilitiesResponse) string {
	most := caps.GetMaxImageInputBytes()
	switch {
	case most > 0 && asked.GetFit():
		return fmt.Sprintf("This server makes images of at most %d bytes fit. Send a smaller image.", most)
	case most > 0:
		return "Retry with --fit, which makes the image fit."
	case asked.GetStripMetadata():
		return "This server does not make images fit; its operator can enable that (--fit-images). Send a smaller image."
	default:
		return "This server does not make images fit; its operator can enable that (--fit-images). Retry with --strip, which may be enough, or send a smaller image."
	}
}
