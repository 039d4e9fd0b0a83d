package lprest

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

const (
	// fileSharingProperty is the site property that enables file sharing (file-sharing-for-web-messaging, step 1).
	fileSharingProperty = "messaging.file.sharing.enabled"
	propertyPath        = "/configuration/setting/properties/" + fileSharingProperty
	// defaultPropertyType is sent if the property does not exist yet. LivePerson does not document the number for booleans, so an
	// existing property keeps its own.
	defaultPropertyType = "4"
)

// A property is a site property in LivePerson's responses.
type property struct {
	ID            string          `json:"id"`
	Type          json.RawMessage `json:"type"`
	PropertyValue struct {
		Value text `json:"value"`
	} `json:"propertyValue"`
	Deleted text `json:"deleted"`
}

// FileSharing reads the site property messaging.file.sharing.enabled with the agent's bearer (LivePerson: account configuration).
// An account without the property has file sharing disabled. It fails with TokenInvalid for a bearer that LivePerson does not
// accept, NotAllowed for a user who may not read settings, otherwise as BaseURL.
func (c *Client) FileSharing(ctx context.Context, agent share.AgentGrant) (bool, error) {
	p, err := c.readProperty(ctx, agent)
	if err != nil || p == nil || p.Deleted == "true" {
		return false, err
	}
	on, err := strconv.ParseBool(string(p.PropertyValue.Value))
	if err != nil {
		return false, Unreadable(ServiceConfig)
	}
	return on, nil
}

// SetFileSharing writes the property (LivePerson: account configuration), whatever its revision is, and keeps its type. It fails as
// FileSharing, with NotAllowed for users who are not administrators.
func (c *Client) SetFileSharing(ctx context.Context, agent share.AgentGrant, enabled bool) error {
	p, err := c.readProperty(ctx, agent)
	if err != nil {
		return err
	}
	kind := json.RawMessage(defaultPropertyType)
	if p != nil && len(p.Type) > 0 && string(p.Type) != "null" {
		kind = p.Type
	}
	type value struct {
		Value string `json:"value"`
	}
	k := propertyCall(agent, http.MethodPut, "write the file-sharing property")
	k.Header.Set("If-Match", "-1")
	k.JSON = struct {
		ID            string          `json:"id"`
		Type          json.RawMessage `json:"type"`
		PropertyValue value           `json:"propertyValue"`
		Deleted       string          `json:"deleted"`
	}{fileSharingProperty, kind, value{strconv.FormatBool(enabled)}, "false"}
	k.Rejected[http.StatusForbidden] = share.Errorf(share.NotAllowed,
		"LivePerson allows only administrators to enable or disable file sharing; sign in as one", nil)
	_, err = c.CallService(ctx, agent.Account, ServiceConfig, AccountPath(agent.Account, propertyPath), k)
	return err
}

// errNoProperty says that the account does not have the property.
var errNoProperty = share.Errorf(share.LPProtocolError, "the account has no such property", nil)

// readProperty returns the property, or nil if the account does not have it.
func (c *Client) readProperty(ctx context.Context, agent share.AgentGrant) (*property, error) {
	if err := c.checkGrant(agent); err != nil {
		return nil, err
	}
	k := propertyCall(agent, http.MethodGet, "read the file-sharing property")
	k.Rejected[http.StatusNotFound] = errNoProperty
	resp, err := c.CallService(ctx, agent.Account, ServiceConfig, AccountPath(agent.Account, propertyPath), k)
	if errors.Is(err, errNoProperty) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []property // the form of a response with all properties
	if json.Unmarshal(resp.Body, &list) != nil {
		list = make([]property, 1)
		if json.Unmarshal(resp.Body, &list[0]) != nil || list[0].PropertyValue.Value == "" {
			return nil, Unreadable(ServiceConfig)
		}
		if list[0].ID == "" {
			list[0].ID = fileSharingProperty
		}
	}
	for i := range list {
		if list[i].ID == fileSharingProperty {
			return &list[i], nil
		}
	}
	return nil, nil
}

// checkGrant rejects grants that cannot be sent or have expired. LivePerson checks the bearer itself.
func (c *Client) checkGrant(agent share.AgentGrant) error {
	if err := CheckAccount(agent.Account); err != nil {
		return err
	}
	if !share.ValidToken(agent.Bearer) {
		return share.Errorf(share.TokenInvalid, "lp-agent-token was not issued by SignInAgent", nil)
	}
	// A login with a csrf may have been refreshed, so only LivePerson knows when it ends.
	if agent.CSRF == "" && agent.Expires != 0 && lpwire.Expired(time.Unix(agent.Expires, 0), c.cfg.Now()) {
		return share.Errorf(share.TokenInvalid, "the agent's login has expired; sign in again", nil)
	}
	return nil
}

func propertyCall(agent share.AgentGrant, method, name string) Call {
	rejected := RejectedAs(share.TokenInvalid, "LivePerson no longer accepts the agent's login; sign in again", 401)
	rejected[http.StatusForbidden] = share.Errorf(share.NotAllowed,
		"LivePerson does not allow this user to read the account's settings; sign in as an administrator", nil)
	return Call{
		Request: Request{
			Name: name, Method: method, Query: url.Values{"v": {"3.0"}}, Header: http.Header{"Authorization": {"Bearer " + agent.Bearer}},
		},
		Rejected: rejected,
	}
}
