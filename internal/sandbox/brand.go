package sandbox

import "encoding/json"

// brandRequest processes a request of an agent's socket.
func (k *socket) brandRequest(c *call) reply {
	if a, ok := k.commonRequest(c); ok {
		return a
	}
	switch c.typ {
	case "aam.SubscribeExConversations", "cqm.SubscribeExConversations":
		return k.subscribeConversations(c)
	case "aam.UnsubscribeExConversations", "cqm.UnsubscribeExConversations":
		return k.unsubscribeConversations(c)
	case "cm.AgentRequestConversation":
		return k.agentRequestConversation(c)
	case "userprofile.GetUserProfile":
		return k.getProfile(c)
	case "routing.SubscribeRoutingTasks":
		return k.subscribeRouting(c)
	case "routing.UpdateRingState":
		return k.updateRing(c)
	case "routing.SetAgentState":
		return k.setState(c)
	case "routing.SubscribeAgentsState":
		return k.subscribeStates(c)
	case "routing.UpdateRoutingTaskSubscription":
		return say(200, "OK Subscription updated successfully")
	default:
		return refuse(errUnknownType, "no such request for an agent")
	}
}

// getProfile answers with a person's profile: that of the id that is the body, or its userId, or one's own. node-agent-sdk
// takes apart whatever has this answer's type, so a refusal must have another.
func (k *socket) getProfile(c *call) reply {
	var id jsonText
	if c.decode(&id) != nil {
		var body struct {
			UserID jsonText `json:"userId"`
		}
		if c.decode(&body) != nil {
			return refuse(errInvalid, "the body is neither an id nor an object")
		}
		id = body.UserID
	}
	if id == "" {
		id = jsonText(k.who.id)
	}
	person := string(id)
	agent := k.account.byID[person]
	if agent != nil {
		person = agent.id
	}
	profile := map[string]json.RawMessage{}
	if raw, known := k.account.profiles[person]; known {
		_ = json.Unmarshal(raw, &profile) // an object, as setProfile saw
	} else if agent == nil && len(k.account.of[person]) == 0 && k.account.here[person] == nil {
		return refuse(errNoPerson, "no such person")
	}
	profile["userId"] = frame(person)
	for _, name := range []string{"claims", "authenticatedData"} {
		if profile[name] == nil {
			profile[name] = json.RawMessage(`{"lp_sdes":[]}`)
		}
	}
	if profile["privateData"] == nil {
		profile["privateData"] = json.RawMessage(`{}`)
	}
	return reply{code: 200, typ: typeProfile, body: profile}
}
