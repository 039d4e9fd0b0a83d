package service

import (
	"encoding/base64"
	"strings"

	"github.com/google/uuid"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// Resource names: accounts/{account}, accounts/{account}/conversations/{conversation},
// accounts/{account}/conversations/{conversation}/files/{file}, accounts/{account}/uploads/{request_id}.

// anyConversation means all conversations of the caller, if the request allows it.
const anyConversation = "-"

// dialogIDRule describes a valid dialog id.
const dialogIDRule = "must have 1 to 64 letters, digits, '-' or '_'"

func accountName(account string) string { return "accounts/" + account }

func conversationName(account, conversation string) string {
	return accountName(account) + "/conversations/" + conversation
}

// fileName returns a name that any server can resolve without a table: {file} is the dialog and the storage path in base64url. The
// main dialog, whose id equals the conversation's, is left out.
func fileName(account, conversation, dialog, storagePath string) string {
	if dialog == conversation {
		dialog = ""
	}
	return conversationName(account, conversation) + "/files/" +
		base64.RawURLEncoding.EncodeToString([]byte(dialog+"\n"+storagePath))
}

func parseAccountName(name string) (account string, ok bool) {
	parts := strings.Split(name, "/")
	return parts[len(parts)-1], len(parts) == 2 && parts[0] == "accounts" && share.ValidAccountID(parts[1])
}

func uploadName(account, requestID string) string {
	return accountName(account) + "/uploads/" + requestID
}

// checkUploadName reads the name of an upload. The request id is returned in its canonical spelling.
func checkUploadName(v *violations, name string) (account, requestID string) {
	parent, id, ok := strings.Cut(name, "/uploads/")
	account, valid := parseAccountName(parent)
	parsed, err := uuid.Parse(id)
	if !ok || !valid || err != nil || len(id) != uuidLength {
		v.add("name", "must be accounts/{account}/uploads/{request_id}, with a UUID as {request_id}")
	}
	return account, parsed.String()
}

func parseConversationName(name string) (account, conversation string, ok bool) {
	rest, ok := strings.CutPrefix(name, "accounts/")
	account, conversation, found := strings.Cut(rest, "/conversations/")
	if !ok || !found || !share.ValidAccountID(account) || !validID(conversation) {
		return "", "", false
	}
	return account, conversation, true
}

// A fileRef is the place of a file, from its name or a StorageRef. An empty dialog means any.
type fileRef struct {
	account, conversation, dialog, storagePath string
}

// parseFileName reads a file's name. {file} is untrusted input: its path is checked, and it must be written as fileName writes it, so
// that a file has only one name. v has the request's other invalid fields.
func parseFileName(v violations, name string) (fileRef, error) {
	parts := strings.Split(name, "/")
	file := parts[len(parts)-1]
	conv, found := strings.CutSuffix(name, "/files/"+file)
	account, conversation, ok := parseConversationName(conv)
	if !found || !ok || conversation == anyConversation {
		v.add("name", "must be accounts/{account}/conversations/{conversation}/files/{file}")
	}
	if err := v.err(); err != nil {
		return fileRef{}, err
	}
	b, err := base64.RawURLEncoding.DecodeString(file)
	dialog, path, cut := strings.Cut(string(b), "\n")
	if dialog == "" {
		dialog = conversation
	}
	// Decoding accepts line breaks and trailing bits, so a name that decodes can still be written differently.
	if err != nil || !cut || !validID(dialog) || fileName(account, conversation, dialog, path) != name {
		return fileRef{}, share.Reject(share.StoragePathInvalid, "{file} in the name was not issued by this service")
	}
	if err := share.CheckStoragePath(account, path); err != nil {
		return fileRef{}, err
	}
	return fileRef{account, conversation, dialog, path}, nil
}

// validID reports whether s can be a conversation or dialog id: 1 to 64 characters of a UUID or of base64url (LivePerson's schemas).
func validID(s string) bool {
	return len(s) >= 1 && len(s) <= 64 && strings.Trim(s, alphanumeric+"-_.~") == "" && s != "." && s != ".."
}

const alphanumeric = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// accountOf returns the account in a resource name, valid or not: limits are looked up before the name is validated.
func accountOf(name string) string {
	_, rest, _ := strings.Cut(name, "/")
	account, _, _ := strings.Cut(rest, "/")
	return account
}
