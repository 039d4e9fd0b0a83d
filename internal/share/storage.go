package share

import (
	"io"
	"log/slog"
	"math"
	"strings"
	"time"
)

// A TempURL is a signed URL for one operation on one object, valid for a short time: LivePerson's answer to a URL request. It has no
// host, which package swift adds. It never prints its signature.
type TempURL struct {
	// Path is LivePerson's relativePath, with its leading slash.
	Path string
	// Sig is temp_url_sig: a secret.
	Sig string
	// Expires is temp_url_expires, in epoch seconds. It is part of what was signed, so the text is not changed.
	Expires string
	// ExpireTime is Expires as a time.
	ExpireTime time.Time
}

// String hides the signature.
func (u TempURL) String() string { return "signed URL of " + u.Path }

// GoString hides the signature from %#v.
func (u TempURL) GoString() string { return u.String() }

// LogValue hides the signature from slog.
func (u TempURL) LogValue() slog.Value { return slog.StringValue(u.String()) }

// A StoredObject describes an object in the store.
type StoredObject struct {
	// Size is the size of the whole object, in bytes; -1 if unknown.
	Size int64
	// ETag is the MD5 of the bytes for an object that is stored in one piece (ETag.MD5). May be empty.
	ETag ETag
	// ModTime is Last-Modified; zero if unknown.
	ModTime time.Time
	// Large reports whether the object is segmented (X-Static-Large-Object). Its ETag is then not the MD5 of its bytes.
	Large bool
	// Superseded reports that the store has a newer object under the name and discarded this one (202). Size is then -1 and ETag
	// empty; a HEAD request describes the newer object.
	Superseded bool
}

// An ObjectReader reads an object, or a part of one.
type ObjectReader struct {
	StoredObject
	// Body has the bytes from Start up to, but not including, End.
	Start, End int64
	// Body fails with StorageTruncated or StorageUnavailable if it breaks off. The caller must close it.
	Body io.ReadCloser
}

// PartOf returns the part [start, end) of an object of size bytes that begins at offset and has limit bytes (0: to the end). A negative offset
// counts from the end. RangeNotSatisfiable if it is outside of the object.
func PartOf(size, offset, limit int64) (start, end int64, err error) {
	start, end = offset, size
	if offset < 0 {
		start = max(0, size+offset)
	}
	if limit < 0 || offset == math.MinInt64 || start > size || start == size && offset > 0 {
		return 0, 0, Reject(RangeNotSatisfiable, "the requested range is outside the file").With("sizeBytes", Itoa(size))
	}
	if limit > 0 && limit < end-start {
		end = start + limit
	}
	return start, end, nil
}

// CheckStoragePath fails with StoragePathInvalid if path is not the plain path of an object in the account's container. Callers
// supply such paths: without the check the server would fetch objects of other accounts.
func CheckStoragePath(account, path string) error {
	bad := func(why string) error {
		return Errorf(StoragePathInvalid, "the storage path "+why+"; use LivePerson's relativePath, complete and unchanged", nil)
	}
	if len(path) > 1024 {
		return bad("is longer than 1,024 bytes")
	}
	rest, ok := strings.CutPrefix(path, "/v1/AUTH_")
	if !ok {
		return bad("does not start with /v1/AUTH_")
	}
	for _, c := range []byte(path) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`%?#\:@;`, c) >= 0 {
			return bad("has a character that is not allowed")
		}
	}
	_, below, _ := strings.Cut(rest, "/")
	owner, _, ok := strings.Cut(below, "/")
	if !ok {
		return bad("does not name an object")
	}
	for p := range strings.SplitSeq(rest, "/") {
		if p == "" || p == "." || p == ".." {
			return bad("has an empty or relative segment")
		}
	}
	if owner != account {
		return bad("belongs to another account")
	}
	return nil
}
