package share

import (
	"io"
	"log/slog"
	"strings"
	"time"
)

// A TempURL is a signed, short-lived leave to do one thing with one object: LivePerson's answer to a URL request. It has no
// host; package swift knows that. It never prints its signature.
type TempURL struct {
	// Path is LivePerson's relativePath, with its leading slash.
	Path string
	// Sig is temp_url_sig: a secret.
	Sig string
	// Expires is temp_url_expires, in epoch seconds as text: part of what was signed, hence kept to the letter.
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

// A StoredObject is what the store says of an object.
type StoredObject struct {
	// Size is the whole object's, in bytes; -1 where the answer does not say.
	Size int64
	// ETag is without quotes; MD5 in hex for a plain object. May be empty.
	ETag string
	// ModTime is Last-Modified; zero where it was not said.
	ModTime time.Time
	// Large tells a segmented object (X-Static-Large-Object), whose ETag is no MD5 of its bytes.
	Large bool
	// Superseded tells that the store has a newer write under the name and kept nothing of this one (202). Size is -1 and ETag empty
	// then: a HEAD tells what is there.
	Superseded bool
}

// An ObjectReader is an object, or a part of one, being read.
type ObjectReader struct {
	StoredObject
	// Start is the first byte that Body gives, End one past the last; half-open.
	Start, End int64
	// Body gives bytes [Start, End), or fails with StorageTruncated or StorageUnavailable. Whoever asked for it closes it.
	Body io.ReadCloser
}

// CheckStoragePath refuses, with StoragePathInvalid, what is not a plain path of an object in account's container. Such a path
// may come from a caller: without the check the gateway would fetch anybody's objects.
func CheckStoragePath(account, path string) error {
	bad := func(why string) error {
		return Errorf(StoragePathInvalid, "the storage path "+why+"; give LivePerson's relativePath, whole and unchanged", nil)
	}
	if len(path) > 1024 {
		return bad("is longer than 1,024 bytes")
	}
	rest, ok := strings.CutPrefix(path, "/v1/AUTH_")
	if !ok {
		return bad("does not begin with /v1/AUTH_")
	}
	for _, c := range []byte(path) {
		if c <= ' ' || c >= 0x7f || strings.IndexByte(`%?#\:@;`, c) >= 0 {
			return bad("has a character that storage paths do not have")
		}
	}
	parts := strings.Split(rest, "/")
	if len(parts) < 3 {
		return bad("names no object")
	}
	for _, p := range parts {
		if p == "" || p == "." || p == ".." {
			return bad("has an empty or relative part")
		}
	}
	if parts[1] != account {
		return bad("is of another account")
	}
	return nil
}
