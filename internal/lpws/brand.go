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

// An agent speaks version 2.1, with the bearer in the socket's path.
type agent struct{ grant share.AgentGrant }

// oldID is the agent's id as requests want it.
func (d agent) oldID() string { return d.grant.Account + "." + d.grant.UserID }

// expires is when the grant ends. Of a login that can be refreshed only LivePerson knows.
func (d agent) expires() time.Time {
	if d.grant.Expires <= 0 || d.grant.CSRF != "" {
		return time.Time{}
	}
	return time.Unix(d.grant.Expires, 0)
}

// socket has the bearer in its path: it must never be printed.
func (d agent) socket(bool) (string, http.Header) {
	return "/ws_api/account/" + url.PathEscape(d.grant.Account) + "/messaging/brand/" + url.PathEscape(d.grant.Bearer) + "?v=2.1", http.Header{}
}

func (agent) initHeaders() ([]any, bool) { return nil, false }

func (agent) name(request string) string {
	switch request {
	case reqSubscribeConvs:
		return ".ams.aam.SubscribeExConversations"
	case reqUnsubscribe:
		return ".ams.aam.UnsubscribeExConversations"
	}
	return ".ams." + request
}

func (d agent) subscription(openOnly bool) subscribeConversations {
	return subscribeConversations{ConvState: states(openOnly), AgentIDs: []string{d.oldID()}}
}

func (d agent) principal() (share.Principal, error) {
	return share.Principal{Account: d.grant.Account, ID: d.grant.UserPID, Role: share.RoleAgent, Expires: d.expires()}, nil
}

func (agent) refused() error {
	return share.Errorf(share.TokenInvalid, "LivePerson does not accept the agent's login; sign in again", nil)
}

func (d agent) isSelf(id string, p share.Principal) bool { return id == p.ID || id == d.oldID() }

// endsIdentity: on an agent's socket 1011 too is trouble with the login.
func (agent) endsIdentity(code int) bool {
	return code == closeAuthenticate || code == closeExtend || code == websocket.CloseInternalServerErr
}

// backlog has the events in its answer. LivePerson's own client writes the sequence to begin with into newerThanSequence, whose
// name says that it is the one before; sending the one before gives at most one event too many, and those are dropped.
func (d agent) backlog(ctx context.Context, c *conn, _, dialog string, from int64) ([]lpwire.Event, bool, error) {
	answer, _, err := c.do(ctx, request{Type: d.name(reqQueryMessages), Body: queryMessages{dialog, max(0, from-1), from}})
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
