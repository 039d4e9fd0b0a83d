package service

import (
	"encoding/base64"
	"encoding/json"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A token is the content of page, watch and resume tokens. Any server can read it. It grants nothing: every call is checked against
// the caller's conversations.
type token struct {
	Kind   string `json:"k"`
	Parent string `json:"p"`
	// The last item of the previous page.
	Conversation string `json:"c,omitempty"`
	Dialog       string `json:"d,omitempty"`
	Sequence     int64  `json:"s,omitempty"`
	// The end of the listing, or what the watch has sent.
	Cursor share.Cursor `json:"u,omitempty"`
}

// Kinds of tokens. One is not accepted in place of another.
const (
	pageOfFiles         = "f"
	pageOfConversations = "c"
	placeOfWatch        = "w"
)

// maxTokenBytes is the maximum length of a token in a request: some 20,000 dialogs, and well below the message limit.
const maxTokenBytes = 2 << 20

func (t token) write(kind, parent string) string {
	t.Kind, t.Parent = kind, parent
	b, _ := json.Marshal(t) // strings and numbers: cannot fail
	return base64.RawURLEncoding.EncodeToString(b)
}

// readToken reads a token of a kind and parent. An empty text is the zero token.
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
		Message:    field + " is malformed or belongs to another request; start again without it",
		Violations: []share.Violation{{Field: field, Description: "is malformed or belongs to another request"}},
	}
}
