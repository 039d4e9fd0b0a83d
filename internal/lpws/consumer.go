package lpws

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// consumer implements the dialect of consumers, version 3. The token is sent in a header or in an InitConnection request.
type consumer struct{ account, token string }

func (d consumer) endpoint(inFrame bool) (string, http.Header) {
	h := http.Header{}
	if !inFrame {
		h.Set("Authorization", "jwt "+d.token)
		props, _ := json.Marshal(lpwire.NewClientProperties(".ClientProperties")) // strings only: cannot fail
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

func (consumer) requestType(name string) string { return name }

func (consumer) subscription(openOnly bool) subscribeConversations {
	return subscribeConversations{ConvState: states(openOnly)}
}

func states(openOnly bool) []string {
	if openOnly {
		return []string{"OPEN"}
	}
	return []string{"OPEN", "CLOSE"}
}

func (d consumer) check(now time.Time) error {
	p, err := d.principal()
	if c, unread := lpwire.ReadClaims(d.token); err == nil && unread == nil && c.Early(now) {
		return share.Errorf(share.TokenInvalid, "the token is not valid yet; check the clocks of this server and of the token's issuer", nil)
	}
	return checkPrincipal(p, err, now)
}

func (d consumer) principal() (share.Principal, error) {
	c, err := lpwire.ReadClaims(d.token)
	if err != nil || c.Subject == "" {
		return share.Principal{}, share.Errorf(share.TokenInvalid, "this is not a LivePerson consumer token", nil)
	}
	if !c.For(d.account) {
		return share.Principal{}, errOtherAccount()
	}
	return share.Principal{Account: d.account, ID: c.Subject, Role: share.RoleConsumer, Expires: c.Expires}, nil
}

// rejected names a token of another account as such, since LivePerson rejects it like any other. The token is not trusted here: it
// only selects the error text.
func (d consumer) rejected() error {
	c, err := lpwire.ReadClaims(d.token)
	if err == nil && len(c.Audience) > 0 && !c.For(d.account) {
		return errOtherAccount()
	}
	return share.Errorf(share.TokenInvalid, "LivePerson does not accept the token; renew it or sign in again", nil)
}

func (consumer) ids(p share.Principal) []string { return []string{p.ID} }

func (consumer) endsIdentity(code int) bool { return code == closeAuthenticate || code == closeExtend }

// events subscribes to the dialog. LivePerson answers, and then sends the events as one notification, or none if there are none.
// The answer to a second request behind the first one arrives after that notification, if LivePerson handles requests in order.
func (d consumer) events(ctx context.Context, t *transport, conversation, dialog string, from int64) ([]lpwire.Event, bool, error) {
	sub, _, err := t.send(ctx, request{Type: reqSubscribeEvents, Body: subscribeEvents{dialog, conversation, from}})
	if err != nil {
		return nil, false, err
	}
	defer sub.forget()
	clock, _, err := t.send(ctx, request{Type: reqClock})
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
	_, err = clock.wait(ctx) // its content does not matter, only its order
	return nil, false, err
}
