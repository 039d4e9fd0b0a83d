package liveperson

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/lpfileshare/lpfileshare/internal/sandbox/fault"
)

// A call is a request that is being processed.
type call struct {
	Request
	fault fault.Fault
	b     batch // the notifications that the request causes
	after func()
	// stored reports whether the file to publish exists. Set by checkStored.
	stored    bool
	storedErr error
}

// arrive handles one frame: it refuses it, processes it, or schedules it. A delayed request does not hold up others, with two
// exceptions: requests after an InitConnection wait for it, and publishes keep their order, because they get sequences.
func (k *socket) arrive(data []byte) {
	req, err := ParseRequest(data)
	if err != nil {
		k.send(Refuse(CodeInvalid, "%v", err).encode(req.ID))
		return
	}
	c := &call{Request: req}
	c.fault, _ = k.s.opts.Faults.Take(req.Type)

	o := &k.order
	o.mu.Lock()
	now := time.Now()
	due := latest(now.Add(c.fault.Delay), o.floor)
	held := due.After(now) || o.waiting > 0
	switch req.Type {
	case "InitConnection":
		o.floor = due
		if held {
			o.waiting++
			c.after = func() { o.waiting-- }
		}
	case "ms.PublishEvent":
		due = latest(due, o.publishes)
		o.publishes = due
		// A remote store takes time to answer, and the reader must not wait for it.
		if held = held || due.After(now) || o.publishing > 0 || k.s.opts.RemoteStore; held {
			o.publishing++
			c.after = func() { o.publishing-- }
		}
	}
	o.mu.Unlock()
	if !held {
		k.perform(c)
		return
	}
	k.later.at(due, func() {
		k.perform(c)
		if c.after != nil {
			o.mu.Lock()
			c.after()
			o.mu.Unlock()
		}
	})
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// perform processes a call and answers it, as its fault demands.
func (k *socket) perform(c *call) {
	if k.ended.Load() {
		return
	}
	f := c.fault
	switch {
	case f.Drop:
		k.cut()
		return
	case f.CloseCode != 0:
		k.shut(f.CloseCode, "made on demand")
		return
	case f.Status != 0:
		k.answer(c, RefuseWith(f.Status, ErrorCode(f), MadeUp))
		return
	case f.Text != "":
		k.answer(c, text(200, f.Text))
		return
	}
	if f.DropAfter {
		k.muted.Store(true) // before processing, or a notification could reveal the result
	}
	k.checkStored(c)

	k.s.mu.Lock()
	a := k.dispatch(c)
	if f.StatusAfter != 0 {
		a = RefuseWith(f.StatusAfter, ErrorCode(f), MadeUp)
	}
	if !f.DropAfter && f.AnswerDelay == 0 {
		k.answer(c, a)
	}
	c.b.send()
	k.s.mu.Unlock()

	switch {
	case f.DropAfter && f.AnswerDelay == 0:
		k.cut()
	case f.DropAfter:
		k.later.at(time.Now().Add(f.AnswerDelay), k.cut)
	case f.AnswerDelay > 0:
		k.answer(c, a)
	}
}

// ErrorCode returns the error code of the answer that a fault with a status demands.
func ErrorCode(f fault.Fault) int {
	if f.ErrorCode != 0 {
		return f.ErrorCode
	}
	return max(f.Status, f.StatusAfter) * 100
}

// MadeUp is the text of an answer that a fault demands.
const MadeUp = "made on demand"

// answer sends a, after the fault's AnswerDelay if it has one.
func (k *socket) answer(c *call, a Reply) {
	if c.fault.Mute {
		return
	}
	frames := append([][]byte{a.encode(c.ID)}, a.then...)
	if c.fault.Garbage {
		frames[0] = []byte(garbage)
	}
	send := func() {
		k.send(frames...)
		if a.shut != 0 {
			k.shut(a.shut, "refused")
		}
	}
	if c.fault.AnswerDelay > 0 {
		k.later.at(time.Now().Add(c.fault.AnswerDelay), send)
		return
	}
	send()
}

// dispatch processes a call. Service.mu is held.
func (k *socket) dispatch(c *call) Reply {
	if c.Type == "InitConnection" {
		return k.initConnection(c)
	}
	if k.who == nil {
		return Refuse(CodeNoIdentity, "InitConnection must be the first request")
	}
	if handle := handlers[k.dialect][c.Type]; handle != nil {
		return handle(k, c)
	}
	return Refuse(CodeUnknownType, "no such %s request", k.dialect.role())
}

// initConnection answers InitConnection, which identifies a socket that was opened without a token.
func (k *socket) initConnection(c *call) Reply {
	var headers List[json.RawMessage]
	if c.headers == nil || json.Unmarshal(c.headers, &headers) != nil {
		return Refuse(CodeMissing, "headers are missing")
	}
	var token string
	for _, raw := range headers {
		var header struct {
			Type string `json:"type"`
			JWT  string `json:"jwt"`
		}
		if json.Unmarshal(raw, &header) != nil {
			return Refuse(CodeInvalid, "a header is not an object")
		}
		switch header.Type {
		case ".ams.headers.ConsumerAuthentication":
			token = header.JWT
		case ".ams.headers.ClientProperties":
			k.properties = asClientProperties(raw)
		}
	}
	if k.who != nil {
		return text(200, "OK Connection initialized")
	}
	if token == "" || len(token) > 2048 {
		return Refuse(CodeMissing, "the ConsumerAuthentication header with a jwt is missing")
	}
	claims, err := k.s.consumerOf(k.account, token)
	if err != nil {
		code := closeAuthenticate
		if errors.Is(err, jwt.ErrTokenExpired) && claims.Kind == anonymousKind {
			code = closeExtend
		}
		refusal := Refuse(CodeToken, "the token is wrong or expired")
		refusal.shut = code
		return refusal
	}
	k.identify(claims)
	return text(200, "OK Connection initialized")
}

// handlers are the requests that a socket understands besides InitConnection, by type.
var handlers = map[dialect]map[string]func(*socket, *call) Reply{
	consumerDialect: withCommon(map[string]func(*socket, *call) Reply{
		"cm.ConsumerRequestConversation": func(k *socket, c *call) Reply { return k.consumerRequestConversation(c) },
		"cqm.SubscribeExConversations":   (*socket).subscribeConversations,
		"cqm.UnsubscribeExConversations": (*socket).unsubscribeConversations,
	}),
	brandDialect: withCommon(map[string]func(*socket, *call) Reply{
		"aam.SubscribeExConversations":   (*socket).subscribeConversations,
		"cqm.SubscribeExConversations":   (*socket).subscribeConversations,
		"aam.UnsubscribeExConversations": (*socket).unsubscribeConversations,
		"cqm.UnsubscribeExConversations": (*socket).unsubscribeConversations,
		"cm.AgentRequestConversation":    (*socket).agentRequestConversation,
		"routing.SetAgentState":          (*socket).setState,
		"routing.SubscribeRoutingTasks":  func(k *socket, _ *call) Reply { return k.subscribeRoutingTasks() },
		"routing.UpdateRingState":        (*socket).updateRing,
		"routing.SubscribeAgentsState":   func(k *socket, _ *call) Reply { return k.subscribeStates() },
	}),
}

// RequestTypes returns the types of all requests, sorted.
func RequestTypes() []string {
	types := []string{"InitConnection"}
	for _, own := range handlers {
		types = slices.AppendSeq(types, maps.Keys(own))
	}
	slices.Sort(types)
	return slices.Compact(types)
}

// withCommon adds the requests that both dialects have under the same name.
func withCommon(own map[string]func(*socket, *call) Reply) map[string]func(*socket, *call) Reply {
	own["GetClock"] = func(k *socket, _ *call) Reply {
		return Reply{Code: 200, Type: typeClock, Body: map[string]int64{"currentTime": k.s.now().UnixMilli()}}
	}
	own["KeepAlive"] = func(*socket, *call) Reply { return text(200, "OK") }
	own["userprofile.GetUserProfile"] = (*socket).getProfile
	own["up.GetUserProfile"] = (*socket).getProfile // the name in LivePerson's published schema
	own["ms.SubscribeMessagingEvents"] = (*socket).subscribeMessaging
	own["ms.QueryMessages"] = (*socket).queryMessages
	for typ, handle := range consumerRequests {
		own[typ] = func(k *socket, c *call) Reply { return handle(&k.caller, c) }
	}
	return own
}

// consumerRequests are the requests that exist on sockets and in the Connector API, by type.
var consumerRequests = map[string]func(*caller, *call) Reply{
	"userprofile.SetUserProfile":    (*caller).setProfile,
	"cm.UpdateConversationField":    (*caller).updateConversation,
	"ms.PublishEvent":               (*caller).publishEvent,
	"ms.GenerateURLForUploadFile":   (*caller).uploadURL,
	"ms.GenerateURLForDownloadFile": (*caller).downloadURL,
}

// A Consumer is the consumer for whom the Connector API makes a request.
type Consumer struct {
	// Account must exist.
	Account, ID string
	// ClientProperties is the Client-Properties header.
	ClientProperties string
}

// Process handles one request of the Connector API.
func (s *Service) Process(from Consumer, req Request) Reply {
	k := &caller{
		s: s, account: s.account(from.Account), dialect: consumerDialect,
		who: &person{id: from.ID, oldID: from.ID}, properties: asClientProperties([]byte(from.ClientProperties)),
	}
	c := &call{Request: req}
	k.checkStored(c)
	s.mu.Lock()
	defer s.mu.Unlock()
	a := k.process(c)
	c.b.send()
	return a
}

// process handles a request of the Connector API. Service.mu is held.
func (k *caller) process(c *call) Reply {
	if c.Type == "cm.ConsumerRequestConversation" {
		// On a socket the brand is part of the path. The Connector API requires it in the body as well.
		var body struct {
			BrandID jsonText `json:"brandId"`
		}
		if c.decode(&body) == nil && body.BrandID == "" {
			return RefuseTitled(CodeMissing, "Missing parameter", "Brand Id is missing")
		}
		return k.consumerRequestConversation(c)
	}
	if handle := consumerRequests[c.Type]; handle != nil {
		return handle(k, c)
	}
	return Refuse(CodeUnknownType, "no such request in the Connector API")
}
