package lpws

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"time"

	"github.com/gorilla/websocket"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// agent implements the dialect of agents and bots, version 2.1. The bearer is part of the socket's path.
type agent struct{ grant share.AgentGrant }

// oldID returns the agent's id as LivePerson expects it in requests.
func (d agent) oldID() string { return d.grant.Account + "." + d.grant.UserID }

// expires returns when the grant ends; zero for a login that can be refreshed, since only LivePerson knows its end.
func (d agent) expires() time.Time {
	if d.grant.Expires <= 0 || d.grant.CSRF != "" {
		return time.Time{}
	}
	return time.Unix(d.grant.Expires, 0)
}

func (d agent) endpoint(bool) (string, http.Header) {
	return "/ws_api/account/" + url.PathEscape(d.grant.Account) + "/messaging/brand/" + url.PathEscape(d.grant.Bearer) + "?v=2.1", http.Header{}
}

func (agent) initHeaders() ([]any, bool) { return nil, false }

func (agent) requestType(name string) string {
	switch name {
	case reqSubscribeConvs:
		return ".ams.aam.SubscribeExConversations"
	case reqUnsubscribe:
		return ".ams.aam.UnsubscribeExConversations"
	}
	return ".ams." + name
}

func (d agent) subscription(openOnly bool) subscribeConversations {
	return subscribeConversations{ConvState: states(openOnly), AgentIDs: []string{d.oldID()}}
}

func (d agent) check(now time.Time) error {
	p, err := d.principal()
	return checkPrincipal(p, err, now)
}

func (d agent) principal() (share.Principal, error) {
	return share.Principal{Account: d.grant.Account, ID: d.grant.UserPID, Role: share.RoleAgent, Expires: d.expires()}, nil
}

func (agent) rejected() error {
	return share.Errorf(share.TokenInvalid, "LivePerson does not accept the agent's login; sign in again", nil)
}

func (d agent) ids(p share.Principal) []string { return []string{p.ID, d.oldID()} }

// endsIdentity includes 1011, with which LivePerson closes an agent's socket if the login is not valid.
func (agent) endsIdentity(code int) bool {
	return code == closeAuthenticate || code == closeExtend || code == websocket.CloseInternalServerErr
}

// events queries the messages, which are in the answer. LivePerson's own client sends the first wanted sequence as
// newerThanSequence, although the name means the sequence before it. Sending the one before returns at most one event too many,
// which the book ignores.
func (d agent) events(ctx context.Context, t *transport, _, dialog string, from int64) ([]lpwire.Event, bool, error) {
	answer, _, err := t.roundTrip(ctx, request{Type: d.requestType(reqQueryMessages), Body: queryMessages{dialog, max(0, from-1), from}})
	if err == nil && answer.failed() {
		err = answerError(lpwire.StepSubscribe, &answer)
	}
	if err != nil {
		return nil, false, err
	}
	var events lpwire.List[lpwire.Event]
	if json.Unmarshal(answer.Body, &events) != nil {
		return nil, false, lpwire.Unreadable("the messages of a dialog")
	}
	return events, true, nil
}
