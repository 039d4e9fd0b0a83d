package audit

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
)

// Evidence is what LivePerson and the store have noted, each list in the order of events. Its JSON is the sandbox's journal; where
// the files are in a Swift of their own, Stored is filled in from there.
type Evidence struct {
	// Stored has each commit of an object.
	Stored []Object `json:"stored"`
	// Published has each file that entered a conversation.
	Published []Message `json:"published"`
	// Signed has each signed URL that was given out.
	Signed []SignedURL `json:"signed"`
}

// An Object is one commit to the store.
type Object struct {
	Path   string `json:"path"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// A Message is one file in a conversation.
type Message struct {
	Conversation string `json:"conversation"`
	Dialog       string `json:"dialog"`
	Sequence     int64  `json:"sequence"`
	Path         string `json:"path"`
	Caption      string `json:"caption"`
}

// A SignedURL is one that LivePerson returned.
type SignedURL struct {
	Method string `json:"method"`
	Path   string `json:"path"`
	// Owner is who asked for it.
	Owner string `json:"owner"`
}

// maxJournal is the largest journal that is read.
const maxJournal = 256 << 20

// Fetch reads the journal of the sandbox at base, "http://127.0.0.1:PORT".
func Fetch(ctx context.Context, base string) (Evidence, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/_sandbox/journal", nil)
	if err != nil {
		return Evidence{}, fmt.Errorf("journal: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return Evidence{}, fmt.Errorf("journal: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return Evidence{}, fmt.Errorf("journal: answered %s", resp.Status)
	}
	var e Evidence
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxJournal)).Decode(&e); err != nil {
		return Evidence{}, fmt.Errorf("journal: %w", err)
	}
	return e, nil
}
