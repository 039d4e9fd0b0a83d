package share

import "io"

// ImageInfo is what an image's header says.
type ImageInfo struct {
	Width, Height int
}

// An ImageJob is an image that is to be changed before it is stored.
type ImageJob struct {
	Type FileType
	// Size is how many bytes Open gives.
	Size int64
	// Open reads the image from its first byte on. It is called more than once.
	Open func() io.Reader
	// Create takes what is to be stored; what an earlier writer of the same job took is void. It never gets more than MaxBytes.
	Create func() io.Writer
	// MaxBytes is what it must fit.
	MaxBytes int64
	// Fit allows to encode it anew. Strip removes what does not show.
	Fit, Strip bool
	// PreviewChars is the length that a preview must stay under, in characters; 0: none is wanted.
	PreviewChars int
}

// A FittedImage is what came of an ImageJob that changed something.
type FittedImage struct {
	// Type is that of what is to be stored.
	Type FileType
	// Preview is a data URI, if it was wanted and the image was decoded anyway; else empty.
	Preview string
	Change  ImageChange
}

// An ImageChange is what was done to an image before it was stored.
type ImageChange struct {
	// InputSize, InputChecksums and InputType are of what was sent.
	InputSize      int64
	InputChecksums Checksums
	InputType      FileType
	// Input is as the pixels lay in the file, Stored as they lie now.
	Input, Stored ImageInfo
	// Recoded: it was decoded and encoded anew; turned upright for Rotated, with fewer pixels for Scaled.
	Recoded bool `json:",omitempty"`
	Rotated bool `json:",omitempty"`
	Scaled  bool `json:",omitempty"`
	// JPEGQuality is 1 to 100; 0 for what is no JPEG that was encoded anew.
	JPEGQuality int             `json:",omitempty"`
	Removed     []ImageMetadata `json:",omitempty"`
	// TrailingBytes is how many were removed behind the image's end.
	TrailingBytes int64 `json:",omitempty"`
}

// ImageMetadata is a kind of data in an image that is not the picture: a value of lpfileshare.v1.ImageMetadata without its prefix.
type ImageMetadata string

// The kinds.
const (
	MetadataEXIF         ImageMetadata = "EXIF"
	MetadataXMP          ImageMetadata = "XMP"
	MetadataIPTC         ImageMetadata = "IPTC"
	MetadataComment      ImageMetadata = "COMMENT"
	MetadataColorProfile ImageMetadata = "COLOR_PROFILE"
	MetadataOther        ImageMetadata = "OTHER"
)
