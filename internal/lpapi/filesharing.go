package lpapi

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

const (
	// fileSharingProperty is the site property that switches file sharing on (file-sharing-for-web-messaging, step 1).
	fileSharingProperty = "messaging.file.sharing.enabled"
	// defaultPropertyType is sent where the property does not exist yet. LivePerson documents no number for booleans, so that
	// otherwise the property's own is sent back.
	defaultPropertyType = "4"
)

// A property is a site property as LivePerson answers it.
type property struct {
	ID            string          `json:"id"`
	Type          json.RawMessage `json:"type"`
	PropertyValue struct {
		Value text `json:"value"`
	} `json:"propertyValue"`
	Deleted text `json:"deleted"`
}

// FileSharing reads the site property messaging.file.sharing.enabled with the agent's bearer (LivePerson: account configuration). An account
// without the property has it off. TokenInvalid for a bearer that LivePerson does not take, or no longer; NotAllowed for a user
// who may not read settings; else as BaseURL.
func (c *Client) FileSharing(ctx context.Context, agent share.AgentGrant) (bool, error) {
	p, err := c.readSwitch(ctx, agent)
	if err != nil || p == nil || p.Deleted == "true" {
		return false, err
	}
	on, err := strconv.ParseBool(string(p.PropertyValue.Value))
	if err != nil {
		return false, unreadable(serviceConfig)
	}
	return on, nil
}

// SetFileSharing writes the property (LivePerson: account configuration): whatever its revision, and with the type that it has. Errors as
// FileSharing, with NotAllowed for users who are no administrators.
func (c *Client) SetFileSharing(ctx context.Context, agent share.AgentGrant, enabled bool) error {
	p, err := c.readSwitch(ctx, agent)
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
	k := switchCall(agent, http.MethodPut, "write the file-sharing switch")
	k.header.Set("If-Match", "-1")
	k.body = struct {
		ID            string          `json:"id"`
		Type          json.RawMessage `json:"type"`
		PropertyValue value           `json:"propertyValue"`
		Deleted       string          `json:"deleted"`
	}{fileSharingProperty, kind, value{strconv.FormatBool(enabled)}, "false"}
	k.refused[http.StatusForbidden] = share.Errorf(share.NotAllowed,
		"LivePerson lets administrators alone switch file sharing on and off; sign in as one", nil)
	_, err = c.ask(ctx, agent.Account, serviceConfig, switchPath, k)
	return err
}

// errNoProperty says that the account does not have the property.
var errNoProperty = share.Errorf(share.LPProtocolError, "the account has no such property", nil)

const switchPath = "/configuration/setting/properties/" + fileSharingProperty

// readSwitch returns the property, or nil where the account has none.
func (c *Client) readSwitch(ctx context.Context, agent share.AgentGrant) (*property, error) {
	if err := c.checkGrant(agent); err != nil {
		return nil, err
	}
	k := switchCall(agent, http.MethodGet, "read the file-sharing switch")
	k.refused[http.StatusNotFound] = errNoProperty
	data, err := c.ask(ctx, agent.Account, serviceConfig, switchPath, k)
	if errors.Is(err, errNoProperty) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var list []property // what all properties are answered as
	if json.Unmarshal(data, &list) != nil {
		list = make([]property, 1)
		if json.Unmarshal(data, &list[0]) != nil || list[0].PropertyValue.Value == "" {
			return nil, unreadable(serviceConfig)
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

// checkGrant refuses grants that cannot be sent. Whether the bearer is true is for LivePerson to say.
func (c *Client) checkGrant(agent share.AgentGrant) error {
	if err := checkAccount(agent.Account); err != nil {
		return err
	}
	if !isToken(agent.Bearer) {
		return share.Errorf(share.TokenInvalid, "lp-agent-token is not one that SignInAgent gave out", nil)
	}
	// Of a login that can be refreshed, only LivePerson knows when it ends.
	if agent.CSRF == "" && agent.Expires != 0 && !c.cfg.Now().Before(time.Unix(agent.Expires, 0)) {
		return share.Errorf(share.TokenInvalid, "the agent's login has ended; sign in again", nil)
	}
	return nil
}

func switchCall(agent share.AgentGrant, method, name string) call {
	refused := refusedAs(share.TokenInvalid, "LivePerson does not take the agent's login any more; sign in again", 401)
	refused[http.StatusForbidden] = share.Errorf(share.NotAllowed,
		"LivePerson does not let this user read the account's settings; sign in as an administrator", nil)
	return call{
		name: name, method: method, query: url.Values{"v": {"3.0"}},
		header: http.Header{"Authorization": {"Bearer " + agent.Bearer}}, refused: refused,
	}
}
