package service

import (
	"encoding/base64"
	"encoding/json"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A token is what page, watch and resume tokens hold. It is readable by any server and grants nothing: what it leads to is
// checked against what the caller sees.
type token struct {
	Kind   string `json:"k"`
	Parent string `json:"p"`
	// The last item of the page before.
	Conversation string `json:"c,omitempty"`
	Dialog       string `json:"d,omitempty"`
	Sequence     int64  `json:"s,omitempty"`
	// The place up to which was listed, or seen.
	Cursor share.Cursor `json:"u,omitempty"`
}

// What tokens are for. One kind is not taken for another.
const (
	pageOfFiles         = "f"
	pageOfConversations = "c"
	placeOfWatch        = "w"
)

// maxTokenBytes bounds a token that comes in: some 20,000 dialogs, and room beside it in a message.
const maxTokenBytes = 2 << 20

func (t token) write(kind, parent string) string {
	t.Kind, t.Parent = kind, parent
	b, _ := json.Marshal(t) // strings and numbers: cannot fail
	return base64.RawURLEncoding.EncodeToString(b)
}

// readToken reads a token of that kind and parent; an empty one is the zero token.
func readToken(text, kind, parent string) (token, error) {
	field := "page_token"
	if kind == placeOfWatch {
		field = "resume_token"
	}
	if text == "" {
		return token{}, nil
	}
	var t token
	b, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(text) > maxTokenBytes || json.Unmarshal(b, &t) != nil || t.Kind != kind || t.Parent != parent {
		return token{}, errToken(field)
	}
	for dialog, seq := range t.Cursor {
		if !validID(dialog) || seq < -1 {
			return token{}, errToken(field)
		}
	}
	return t, nil
}

func errToken(field string) error {
	return &share.Error{
		Kind:       share.PageTokenInvalid,
		Message:    field + " is malformed, or of another request; begin again without it",
		Violations: []share.Violation{{Field: field, Description: "is malformed, or of another request"}},
	}
}
