package share

import "io"

// ImageInfo is the size of an image, in pixels, according to its header.
type ImageInfo struct {
	Width, Height int
}

// An ImageJob is a request to change an image before it is stored.
type ImageJob struct {
	Type FileType
	// Size is the size of the image, in bytes.
	Size int64
	// Open returns a reader of the image. It is called more than once.
	Open func() io.Reader
	// Create returns a writer for the result, which replaces what an earlier writer of the job received. It receives at most MaxBytes.
	Create func() io.Writer
	// MaxBytes is the maximum size of the result.
	MaxBytes int64
	// Fit allows encoding the image again. Strip removes metadata and trailing bytes.
	Fit, Strip bool
	// PreviewChars limits the length of the preview, in characters; 0 means no preview.
	PreviewChars int
}

// A FittedImage is the result of an ImageJob that changed the image.
type FittedImage struct {
	// Type is the type of the result.
	Type FileType
	// Preview is a data URI if one was requested and the image was decoded for another reason; otherwise empty.
	Preview string
	Change  ImageChange
}

// An ImageChange describes how an image was changed before it was stored.
type ImageChange struct {
	// InputSize, InputChecksums and InputType describe the uploaded file.
	InputSize      int64
	InputChecksums Checksums
	InputType      FileType
	// Input and Stored are the sizes before and after, as the pixels lie in the file.
	Input, Stored ImageInfo
	// Recoded: the image was decoded and encoded again. Rotated: turned upright. Scaled: reduced to fewer pixels.
	Recoded bool `json:",omitempty"`
	Rotated bool `json:",omitempty"`
	Scaled  bool `json:",omitempty"`
	// JPEGQuality is 1 to 100 for a recoded JPEG, otherwise 0.
	JPEGQuality int             `json:",omitempty"`
	Removed     []ImageMetadata `json:",omitempty"`
	// TrailingBytes is the number of bytes removed after the image's end.
	TrailingBytes int64 `json:",omitempty"`
}

// ImageMetadata is a kind of data in an image other than its pixels: a value of lpfileshare.v1.ImageMetadata without its prefix.
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
