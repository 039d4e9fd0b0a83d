package ledger

import (
	"crypto/rand"
	"encoding/json"
	"fmt"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// codecVersion is the version of what is written. A reader refuses any other: what it does not understand it must not act on.
const codecVersion = 1

// maxValue bounds a record. The largest that the contract allows has a caption of 5,000 characters, each escaped, and a preview
// of 30 KB; most have about 1 KB.
const maxValue = 128 << 10

// envelope is what is stored.
type envelope struct {
	Version int `json:"version"`
	// Write names this one write, so that it is known again when its answer was lost.
	Write  string       `json:"write"`
	Record share.Record `json:"record"`
}

// written is a record as it was found; rev 0: there is none.
type written struct {
	record share.Record
	name   string // of the write
	rev    uint64
}

func encode(r share.Record) (value []byte, name string, err error) {
	name = rand.Text()
	value, err = json.Marshal(envelope{Version: codecVersion, Write: name, Record: r})
	if err == nil && len(value) > maxValue {
		err = fmt.Errorf("%d bytes, and %d are allowed", len(value), maxValue)
	}
	if err != nil {
		return nil, "", share.Errorf(share.LedgerUnavailable, "the record of this request id cannot be written", err)
	}
	return value, name, nil
}

// decode reads a record. Its errors name where, and nothing of what stood there.
func decode(value []byte, key string, rev uint64) (written, error) {
	var e envelope
	why := ""
	switch err := json.Unmarshal(value, &e); {
	case err != nil:
		why = "is damaged"
	case e.Version != codecVersion:
		why = fmt.Sprintf("has version %d, and this server reads version %d", e.Version, codecVersion)
	case e.Write == "" || e.Record.Expires.IsZero():
		why = "is not complete"
	default:
		return written{record: e.Record, name: e.Write, rev: rev}, nil
	}
	return written{}, share.Errorf(share.LedgerUnavailable, "the record of this request id cannot be read; use a new one",
		fmt.Errorf("the record under %.8s… at revision %d %s", key, rev, why))
}
