package ledger

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// maxValue is the maximum size of an encoded record in bytes. The largest that the contract permits has a caption of 5,000
// characters, each escaped, and a preview of 30 KB; most have about 300 bytes.
const maxValue = 128 << 10

// A format defines how one type of record is stored.
//
// A server must not act on a record that it does not fully understand: it could publish a file a second time. Therefore decode
// fails for any version and kind but its own, and the call ends with LedgerUnavailable. A field that older servers may ignore,
// and drop when they write the record, needs no new version; any other change does. During an upgrade of a cluster the old servers
// reject the records of the new ones until they are replaced.
type format[R any] struct {
	// version is the version that is written. Versions from oldest on are read, since records outlive an upgrade.
	version, oldest int
	// kind distinguishes types of records. Servers that know version 1 only ignore it, so every format but requests and creations
	// must begin at version 2.
	kind string
	// expires returns when a record expires.
	expires func(R) time.Time
	// marshal and unmarshal convert a record to and from JSON; nil: as package json does.
	marshal   func(R) ([]byte, error)
	unmarshal func(version int, data []byte) (R, error)
}

// requests is the format of share.Record. A ledger has millions of them, so version 2 compresses the JSON of version 1. It has no kind,
// because it had none from the beginning.
var requests = format[share.Record]{
	version: 2, oldest: 1, expires: func(r share.Record) time.Time { return r.Expires }, marshal: deflateRecord, unmarshal: inflateRecord,
}

// creations is the format of share.CreationRecord. It has version 1 and no kind too, because until it had a type of its own it was
// stored as a share.Record: servers before and after that read each other's records. Keys never collide, see upload.Key and
// conversations.Key.
var creations = format[share.CreationRecord]{version: 1, oldest: 1, expires: func(r share.CreationRecord) time.Time { return r.Expires }}

// envelope is the stored form of a record.
type envelope[R any] struct {
	Version int    `json:"version"`
	Kind    string `json:"kind,omitempty"`
	// Write names this write, so that it is recognized if its acknowledgement is lost.
	Write  string `json:"write"`
	Record R      `json:"record"`
}

// nameLength is the length of the name of a write, in characters of 5 bits. It need differ only from the other writes to one key.
const nameLength = 13

// found is a record as read from the bucket. rev 0: there is none.
type found[R any] struct {
	record  R
	expires time.Time
	name    string // of the write
	rev     uint64
}

// encode returns the stored form of r and the name of the write.
func (f format[R]) encode(r R) (value []byte, name string, err error) {
	name = rand.Text()[:nameLength]
	if f.marshal == nil {
		value, err = json.Marshal(envelope[R]{Version: f.version, Kind: f.kind, Write: name, Record: r})
	} else if value, err = f.marshal(r); err == nil {
		value = f.wrap(name, value)
	}
	if err == nil && len(value) > maxValue {
		err = fmt.Errorf("%d bytes, the limit is %d", len(value), maxValue)
	}
	if err != nil {
		return nil, "", share.Errorf(share.LedgerUnavailable, "the record of this request id cannot be written", err)
	}
	return value, name, nil
}

// wrap returns what package json makes of an envelope with a record that is JSON already.
func (f format[R]) wrap(name string, record []byte) []byte {
	value := make([]byte, 0, len(record)+envelopeBytes)
	value = append(value, `{"version":`...)
	value = strconv.AppendInt(value, int64(f.version), 10)
	if f.kind != "" {
		value = strconv.AppendQuote(append(value, `,"kind":`...), f.kind)
	}
	value = append(append(value, `,"write":"`...), name...)
	value = append(append(value, `","record":`...), record...)
	return append(value, '}')
}

// decode parses a stored record. Its errors name the key but quote nothing of the record.
func (f format[R]) decode(value []byte, key string, rev uint64) (found[R], error) {
	fail := func(text, cause string) (found[R], error) {
		return found[R]{}, share.Errorf(share.LedgerUnavailable, text, fmt.Errorf("record %.8s… at revision %d %s", key, rev, cause))
	}
	const unreadable = "the record of this request id cannot be read; use a new request id"
	// The header is parsed first: the record of another version or kind need not have the fields of R.
	var header envelope[json.RawMessage]
	if json.Unmarshal(value, &header) != nil {
		return fail(unreadable, "is damaged")
	}
	if header.Version > f.version {
		return fail("the record of this request id was written by a newer server; upgrade this one, or use a new request id",
			fmt.Sprintf("has version %d, this server reads version %d", header.Version, f.version))
	}
	if header.Version < f.oldest || header.Kind != f.kind {
		return fail(unreadable, fmt.Sprintf("has version %d, or is of another kind; this server reads versions %d to %d of kind %q",
			header.Version, f.oldest, f.version, f.kind))
	}
	var r R
	var err error
	if f.unmarshal == nil {
		err = json.Unmarshal(header.Record, &r)
	} else {
		r, err = f.unmarshal(header.Version, header.Record)
	}
	if err != nil {
		return fail(unreadable, "is damaged")
	}
	expires := f.expires(r)
	if header.Write == "" || expires.IsZero() {
		return fail(unreadable, "is incomplete")
	}
	return found[R]{record: r, expires: expires, name: header.Write, rev: rev}, nil
}
