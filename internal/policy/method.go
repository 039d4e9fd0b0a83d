package policy

import (
	"fmt"
	"slices"
	"strings"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A Method is the name of a method of the contract, without that of its service.
type Method string

// A Group is the name of methods that rules permit together.
type Group string

// The groups. Each method of the contract belongs to one.
const (
	// Read is for methods that change nothing.
	Read Group = "read"
	// Write is for methods that upload, publish, and open or close conversations.
	Write Group = "write"
	// SignIn is for methods that get, renew or end a token.
	SignIn Group = "sign-in"
	// AccountSettings is for methods about the settings of an account.
	AccountSettings Group = "account-settings"
)

// Groups returns the groups in the order of documentation.
func Groups() []Group { return []Group{Read, Write, SignIn, AccountSettings} }

// Methods returns the methods of the group.
func (g Group) Methods() []Method {
	switch g {
	case Read:
		return []Method{"Download", "GetCapabilities", "GetConversation", "GetUpload", "ListConversations", "ListFiles", "StatFile", "WatchFiles"}
	case Write:
		return []Method{"Upload", "UploadSmallFile", "PublishUpload", "CreateConversation", "CloseConversation"}
	case SignIn:
		return []Method{"SignInConsumer", "RenewConsumer", "SignInAgent", "SignOutAgent"}
	case AccountSettings:
		return []Method{"GetFileSharing", "SetFileSharing"}
	}
	return nil
}

// Methods returns all methods of the contract, by group.
func Methods() (all []Method) {
	for _, g := range Groups() {
		all = append(all, g.Methods()...)
	}
	return all
}

// ParseMethods returns the methods of a group, or the one method of the name.
func ParseMethods(text string) ([]Method, error) {
	if methods := Group(text).Methods(); methods != nil {
		return methods, nil
	}
	if m := Method(text); slices.Contains(Methods(), m) {
		return []Method{m}, nil
	}
	return nil, fmt.Errorf("there is no method or group %.64q; the groups are %s, the methods %s", text, join(Groups()), join(Methods()))
}

func join[T ~string](names []T) string {
	texts := make([]string, len(names))
	for i, n := range names {
		texts[i] = string(n)
	}
	return strings.Join(texts, ", ")
}

// SignsIn returns the scheme of the token that the method returns; empty if it returns none. Such calls carry no identity, so the
// Request has this scheme.
func (m Method) SignsIn() share.Scheme {
	switch m {
	case "SignInConsumer", "RenewConsumer":
		return share.ConsumerToken
	case "SignInAgent":
		return share.AgentToken
	}
	return ""
}
