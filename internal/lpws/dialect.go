package lpws

import (
	"context"
	"net/http"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// The close codes that LivePerson defines.
const (
	closeAuthenticate = 4401 // the token must be replaced
	closeExtend       = 4407 // an anonymous identity must be extended
)

// dialect is the form of LivePerson's protocol for one kind of credential.
type dialect interface {
	// endpoint returns the path of the socket below the account's base URL, and the headers of the upgrade. With inFrame, the headers
	// have no part of the credential. Path and headers are secret.
	endpoint(inFrame bool) (path string, header http.Header)
	// initHeaders returns the headers of an InitConnection request, and reports whether the dialect has that request.
	initHeaders() (headers []any, ok bool)
	// requestType converts the type of a request from the consumer dialect.
	requestType(name string) string
	// subscription returns the request for the caller's conversations: the open ones only, or all.
	subscription(openOnly bool) subscribeConversations
	// check rejects a credential that LivePerson would not accept, as far as the credential itself says so. No socket is opened for it.
	check(now time.Time) error
	// principal reads the identity from the credential. It must be called only after LivePerson has accepted the credential.
	principal() (share.Principal, error)
	// rejected returns the error for a credential that LivePerson did not accept.
	rejected() error
	// ids returns all ids under which p takes part in conversations.
	ids(p share.Principal) []string
	// endsIdentity reports whether a close code means that LivePerson no longer accepts the credential.
	endsIdentity(code int) bool
	// events requests the events of a dialog, beginning with sequence from. If complete is true, the returned events and those that
	// the transport has delivered are all; otherwise more may follow as notifications.
	events(ctx context.Context, t *transport, conversation, dialog string, from int64) (events []lpwire.Event, complete bool, err error)
}

// newDialect returns the dialect of a credential. It reads no more of the credential than the dialect needs.
func newDialect(cred share.Credential) (dialect, error) {
	if err := checkToken(cred.Secret); err != nil {
		return nil, err
	}
	if cred.Account == "" {
		return nil, share.Errorf(share.InvalidField, "the account id is empty", nil)
	}
	switch cred.Scheme {
	case share.ExternalConsumerID:
		return newIssuedConsumer(cred), nil
	case share.ConsumerToken:
		return consumer{cred.Account, cred.Secret}, nil
	case share.AgentToken:
		grant, err := share.ParseAgentToken(cred.Secret)
		if err == nil {
			err = checkToken(grant.Bearer)
		}
		if err != nil {
			return nil, err
		}
		if grant.Account != cred.Account {
			return nil, errOtherAccount()
		}
		return agent{grant}, nil
	}
	return nil, share.Errorf(share.MethodNotImplemented, "identities of this kind have no messaging session", nil)
}

// checkPrincipal rejects an identity that cannot be read or has expired.
func checkPrincipal(p share.Principal, err error, now time.Time) error {
	if err == nil && lpwire.Expired(p.Expires, now) {
		return errExpired()
	}
	return err
}
