package liveperson

import (
	"encoding/json"

	"github.com/lpfileshare/lpfileshare/internal/sandbox/jsonhttp"
)

// getProfile answers userprofile.GetUserProfile. The body is a person's id or an object with a userId; the default is the caller.
// node-agent-sdk parses every answer of this type as a profile, so a refusal has another type.
func (k *socket) getProfile(c *call) Reply {
	var id jsonText
	if c.decode(&id) != nil {
		var body struct {
			UserID jsonText `json:"userId"`
		}
		if c.decode(&body) != nil {
			return Refuse(CodeInvalid, "the body is neither an id nor an object")
		}
		id = body.UserID
	}
	if id == "" {
		id = jsonText(k.who.id)
	}
	person := string(id)
	agent := k.account.agentsByID[person]
	if agent != nil {
		person = agent.id
	}
	profile := map[string]json.RawMessage{}
	if raw, known := k.account.profiles[person]; known {
		_ = json.Unmarshal(raw, &profile) // setProfile has validated it
	} else if agent == nil && len(k.account.of[person]) == 0 && k.account.present[person] == nil {
		return Refuse(CodeNoPerson, "no such person")
	}
	profile["userId"] = jsonhttp.Encode(person)
	for _, name := range []string{"claims", "authenticatedData"} {
		if profile[name] == nil {
			profile[name] = json.RawMessage(`{"lp_sdes":[]}`)
		}
	}
	if profile["privateData"] == nil {
		profile["privateData"] = json.RawMessage(`{}`)
	}
	return Reply{Code: 200, Type: typeProfile, Body: profile}
}

// setProfile answers userprofile.SetUserProfile.
func (k *caller) setProfile(c *call) Reply {
	var profile map[string]json.RawMessage
	if err := c.decode(&profile); err != nil {
		return Refuse(CodeInvalid, "the body is not an object")
	}
	if profile == nil {
		profile = map[string]json.RawMessage{}
	}
	k.account.profiles[k.who.id] = jsonhttp.Encode(profile)
	return text(200, "OK User Profile set successfully")
}
