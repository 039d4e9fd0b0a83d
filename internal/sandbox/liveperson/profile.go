package liveperson

import (
	"encoding/json"
	"net/http"
	"slices"

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
	raw, known := k.account.profiles[person]
	if known {
		_ = json.Unmarshal(raw, &profile) // setProfile has validated it
	} else if agent == nil && len(k.account.of[person]) == 0 && k.account.present[person] == nil {
		return Refuse(CodeNoPerson, "no such person")
	}
	if !k.who.agent && person != k.who.id && !k.talksTo(person) {
		return Refuse(CodeNoPerson, "no such person") // the same answer as for one that does not exist
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

// talksTo reports whether a person takes part in a conversation of the calling consumer.
func (k *caller) talksTo(id string) bool {
	return slices.ContainsFunc(k.account.of[k.who.id], func(conv *conversation) bool { return conv.participant(&person{id: id}) != nil })
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

// publicProfile answers GET .../le-users/users/{agent} with what a window shows of an agent. It needs no token.
func (s *Service) publicProfile(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	acct := s.account(r.PathValue("account"))
	var agent *person
	if acct != nil {
		agent = acct.agentsByID[r.PathValue("agent")]
	}
	if agent == nil {
		jsonhttp.Fail(w, http.StatusNotFound, "no such agent")
		return
	}
	respondScriptable(w, r, map[string]string{
		"pictureUrl": "", "employeeId": agent.userID, "nickname": agent.name, "fullName": agent.name,
	})
}
