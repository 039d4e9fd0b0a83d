package service

import (
	"encoding/base64"
	"strings"

	"github.com/google/uuid"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// Resource names: accounts/{account}, accounts/{account}/conversations/{conversation},
// accounts/{account}/conversations/{conversation}/files/{file}, accounts/{account}/uploads/{request_id}.

// anyConversation stands for all conversations of the caller, where that is allowed.
const anyConversation = "-"

func accountName(account string) string { return "accounts/" + account }

func conversationName(account, conversation string) string {
	return accountName(account) + "/conversations/" + conversation
}

// fileName names a file so that any server resolves it without a table: {file} is dialog and storage path, in base64url. The
// dialog is left out where it is the main one, whose id the conversation's is.
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
	parts := strings.Split(name, "/")
	if len(parts) != 4 || parts[0] != "accounts" || parts[2] != "conversations" || !share.ValidAccountID(parts[1]) || !validID(parts[3]) {
		return "", "", false
	}
	return parts[1], parts[3], true
}

// A fileRef is where a file is: what its name, or a StorageRef, says. An empty dialog means any.
type fileRef struct {
	account, conversation, dialog, storagePath string
}

// parseFileName reads a file's name. {file} is input like any path: it is checked like one, and must be spelled as fileName
// spells it, so that one file has one name. v is what else is wrong with the request.
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
	// Decoding lets line breaks and loose bits pass, so that alone does not make the spelling the one.
	if err != nil || !cut || !validID(dialog) || fileName(account, conversation, dialog, path) != name {
		return fileRef{}, refuse(share.StoragePathInvalid, "the {file} of the name is not one that this service gave out")
	}
	if err := share.CheckStoragePath(account, path); err != nil {
		return fileRef{}, err
	}
	return fileRef{account, conversation, dialog, path}, nil
}

// validID: conversation and dialog ids have 1 to 64 characters, of a UUID or of base64url (LivePerson's schemas).
func validID(s string) bool {
	return len(s) >= 1 && len(s) <= 64 && strings.Trim(s, alphanumeric+"-_.~") == "" && s != "." && s != ".."
}

const alphanumeric = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// accountOf is the account in a resource name, checked or not: limits are looked up by it before the name is checked.
func accountOf(name string) string {
	parts := strings.SplitN(name, "/", 3)
	if len(parts) < 2 {
		return ""
	}
	return parts[1]
}
