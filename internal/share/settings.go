package share

// Settings are the operator's settings for one account that apply to the calls of its clients. To add one, declare it here, add its
// flag in cmd/server, and its key in the accounts file (internal/accounts/file.go).
type Settings struct {
	// MaxFileBytes is the maximum size of a stored file: LivePerson rejects larger ones.
	MaxFileBytes int64
	// MaxImagePixels is the maximum number of pixels of an image. The image processor has a limit for all accounts, which is no
	// smaller.
	MaxImagePixels int64
	// Documents are the types that are allowed in addition to images: some of Documents().
	Documents []FileType
	// MaxImageInputBytes is the maximum size of an image that is reduced to MaxFileBytes if the caller asks for it; 0: none is.
	MaxImageInputBytes int64
	// StripImages removes the metadata of every image, whether the caller asks for it or not.
	StripImages bool
	// CheckETag compares the store's ETag with the MD5 of the stored bytes at each upload, and gives it to clients at each download.
	CheckETag bool
	// AcceptReceipts and AccessReceipts notify senders when a file was delivered to a watcher, and when it was downloaded.
	AcceptReceipts, AccessReceipts bool
}
