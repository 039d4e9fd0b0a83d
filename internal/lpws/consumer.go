package lpws

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A dialect is how LivePerson is spoken to with one kind of credential.
type dialect interface {
	// socket is where the socket is, below the account's base, and what is sent along when it opens. With inFrame nothing of the
	// credential is in the headers.
	socket(inFrame bool) (path string, header http.Header)
	// initHeaders are the headers of an InitConnection, for a dialect that has it.
	initHeaders() (headers []any, has bool)
	// name is a request's name on the wire, given its name in the consumers' dialect.
	name(request string) string
	// subscription asks for the caller's conversations: the open ones only, or all.
	subscription(openOnly bool) subscribeConversations
	// principal reads who the credential is of. Call it only once LivePerson has accepted the credential.
	principal() (share.Principal, error)
	// refused is the reason for a credential that LivePerson did not accept.
	refused() error
	// isSelf reports whether an id of a participant is the caller's.
	isSelf(id string, p share.Principal) bool
	// endsIdentity reports whether a close code says that the credential is no good any more.
	endsIdentity(code int) bool
	// backlog asks for the events of a dialog from a sequence on. What it returns, and what the socket has brought by then, is all
	// there is, if settled; otherwise more may be on its way.
	backlog(ctx context.Context, c *conn, conversation, dialog string, from int64) (events []lpwire.Event, settled bool, err error)
}

// newDialect reads a credential as far as it must be read before LivePerson has seen it.
func newDialect(cred share.Credential) (dialect, error) {
	if err := checkToken(cred.Secret); err != nil {
		return nil, err
	}
	if cred.Account == "" {
		return nil, share.Errorf(share.InvalidField, "no account was named", nil)
	}
	switch cred.Scheme {
	case share.ExternalConsumerID:
		return newHeld(cred), nil
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

// A consumer speaks version 3, with the token in a header or in an InitConnection.
type consumer struct{ account, token string }

func (d consumer) socket(inFrame bool) (string, http.Header) {
	h := http.Header{}
	if !inFrame {
		h.Set("Authorization", "jwt "+d.token)
		props, _ := json.Marshal(lpwire.NewClientProperties(".ClientProperties")) // strings: cannot fail
		h.Set("Client-Properties", string(props))
	}
	return "/ws_api/account/" + url.PathEscape(d.account) + "/messaging/consumer?v=3", h
}

func (d consumer) initHeaders() ([]any, bool) {
	return []any{
		lpwire.NewClientProperties(".ams.headers.ClientProperties"),
		consumerAuthentication{".ams.headers.ConsumerAuthentication", d.token},
	}, true
}

func (consumer) name(request string) string { return request }

func (consumer) subscription(openOnly bool) subscribeConversations {
	return subscribeConversations{ConvState: states(openOnly)}
}

func states(openOnly bool) []string {
	if openOnly {
		return []string{"OPEN"}
	}
	return []string{"OPEN", "CLOSE"}
}

func (d consumer) principal() (share.Principal, error) {
	c, ok := readClaims(d.token)
	if !ok || c.Subject == "" {
		return share.Principal{}, share.Errorf(share.TokenInvalid, "the token is no consumer's token of LivePerson", nil)
	}
	if !c.of(d.account) {
		return share.Principal{}, errOtherAccount()
	}
	return share.Principal{Account: d.account, ID: c.Subject, Role: share.RoleConsumer, Expires: c.Expires}, nil
}

// refused tells a token of another account apart, since LivePerson refuses that like any other. Nothing is gained by lying
// there: it chooses the words of a refusal.
func (d consumer) refused() error {
	c, ok := readClaims(d.token)
	if ok && len(c.Audience) > 0 && !c.of(d.account) {
		return errOtherAccount()
	}
	return share.Errorf(share.TokenInvalid, "LivePerson does not accept the token; renew it or sign in again", nil)
}

func (consumer) isSelf(id string, p share.Principal) bool { return id == p.ID }

func (consumer) endsIdentity(code int) bool { return code == closeAuthenticate || code == closeExtend }

// backlog subscribes to the dialog, which has the backlog sent as one notification after the answer, or none if there is none.
// A request behind it tells when the notification must have come, on a LivePerson that works through a socket in order.
func (d consumer) backlog(ctx context.Context, c *conn, conversation, dialog string, from int64) ([]lpwire.Event, bool, error) {
	sub, err := c.send(ctx, request{Type: reqSubscribeEvents, Body: subscribeEvents{dialog, conversation, from}})
	if err != nil {
		return nil, false, err
	}
	defer sub.forget()
	clock, err := c.send(ctx, request{Type: reqClock})
	if err != nil {
		return nil, false, err
	}
	defer clock.forget()
	answer, err := sub.wait(ctx)
	if err == nil && answer.failed() {
		err = answerError(lpwire.StepSubscribe, &answer)
	}
	if err != nil {
		return nil, false, err
	}
	_, err = clock.wait(ctx) // whatever it says, it says it after what came before
	return nil, false, err
}

// The close codes that are LivePerson's own.
const (
	closeAuthenticate = 4401 // a fresh token is wanted
	closeExtend       = 4407 // an anonymous identity must be extended
)
