package main

import (
	"fmt"
	"strings"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// imageChange describes in one line what was done to an image. Empty: nothing.
func imageChange(resp *pb.UploadResponse) string {
	c := resp.GetImage()
	if c == nil {
		return ""
	}
	var did []string
	say := func(format string, args ...any) { did = append(did, fmt.Sprintf(format, args...)) }
	if t := c.GetInputFileType(); t != pb.FileType_FILE_TYPE_UNSPECIFIED {
		say("%s became %s", typeName(&pb.File{FileType: t}), typeName(resp.GetFile()))
	}
	if c.GetRotated() {
		say("rotated upright")
	}
	if c.GetScaled() {
		say("scaled from %d x %d to %d x %d pixels", c.GetInputWidth(), c.GetInputHeight(), c.GetWidth(), c.GetHeight())
	}
	if q := c.GetJpegQuality(); q > 0 {
		say("quality %d", q)
	}
	var kinds []string
	for _, m := range c.GetRemovedMetadata() {
		kinds = append(kinds, metadataName(m))
	}
	if len(kinds) > 0 {
		say("without %s", strings.Join(kinds, ", "))
	}
	if n := c.GetTrailingBytesRemoved(); n > 0 {
		say("without %d trailing bytes", n)
	}
	return fmt.Sprintf("%d bytes became %d: %s", c.GetInputSizeBytes(), resp.GetFile().GetStoredSizeBytes(), strings.Join(did, "; "))
}

// metadataName is the name of a kind of metadata. A kind that this program does not know has the name of the contract.
func metadataName(m pb.ImageMetadata) string {
	switch m {
	case pb.ImageMetadata_IMAGE_METADATA_COMMENT:
		return "comments"
	case pb.ImageMetadata_IMAGE_METADATA_COLOR_PROFILE:
		return "colour profile"
	case pb.ImageMetadata_IMAGE_METADATA_OTHER:
		return "other data"
	}
	return strings.TrimPrefix(m.String(), "IMAGE_METADATA_") // EXIF, XMP, IPTC
}
