package sandbox

import (
	"encoding/json"
	"errors"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// A call is one request while it is processed.
type call struct {
	request
	fault Fault
	b     batch // what the request brings about, for whomever
	after func()
	// stored tells whether the file that is to be published exists, where another Swift had to be asked.
	stored    bool
	storedErr error
}

// arrive takes one frame: refuses it, processes it, or has it processed later. LivePerson's slowness is a delay and not a
// queue, so a delayed request holds up no other, but for what follows an InitConnection and for publishes among themselves,
// whose sequences are given out in the order in which they came.
func (k *socket) arrive(data []byte) {
	req, err := parseRequest(data)
	if err != nil {
		k.send(refuse(errInvalid, "%v", err).encode(req.id))
		return
	}
	if !k.pace.admit(k.s.opts.MaxRequestsPerSecond) {
		k.send(refuse(errThrottled, "too many requests: wait a second").encode(req.id))
		return
	}
	c := &call{request: req}
	c.fault, _ = k.s.faults.take(req.typ)

	o := &k.order
	o.mu.Lock()
	now := time.Now()
	due := latest(now.Add(c.fault.Delay), o.floor)
	held := due.After(now) || o.waiting > 0
	switch req.typ {
	case "InitConnection":
		o.floor = due
		if held {
			o.waiting++
			c.after = func() { o.waiting-- }
		}
	case "ms.PublishEvent":
		due = latest(due, o.publishes)
		o.publishes = due
		// Asking another Swift takes time, and the reader must not wait for it.
		if held = held || due.After(now) || o.publishing > 0 || k.s.swift != nil; held {
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

// perform processes a call and has it answered, both as its fault says.
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
		k.answer(c, refuseWith(f.Status, onDemandCode(f), "made on demand"))
		return
	}
	if f.DropAfter {
		k.gagged.Store(true) // before processing, or a notification could still tell of it
	}
	k.askStore(c)

	k.s.mu.Lock()
	a := k.dispatch(c)
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

// onDemandCode is the error code of the answer that a fault with a status gives.
func onDemandCode(f Fault) int {
	if f.ErrorCode != 0 {
		return f.ErrorCode
	}
	return f.Status * 100
}

// answer sends a now or, if the fault delays answers, later.
func (k *socket) answer(c *call, a reply) {
	if c.fault.Mute {
		return
	}
	frames := append([][]byte{a.encode(c.id)}, a.then...)
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

// dispatch processes a call. Sandbox.mu is held.
func (k *socket) dispatch(c *call) reply {
	if c.typ == "InitConnection" {
		return k.initConnection(c)
	}
	if k.who == nil {
		return refuse(errNoIdentity, "InitConnection must come first")
	}
	if k.dialect == brandDialect {
		return k.brandRequest(c)
	}
	return k.consumerRequest(c)
}

// initConnection gives a socket the identity that its opening did not.
func (k *socket) initConnection(c *call) reply {
	var headers list[json.RawMessage]
	if c.headers == nil || json.Unmarshal(c.headers, &headers) != nil {
		return refuse(errMissing, "headers are missing")
	}
	var token string
	for _, raw := range headers {
		var header struct {
			Type string `json:"type"`
			JWT  string `json:"jwt"`
		}
		if json.Unmarshal(raw, &header) != nil {
			return refuse(errInvalid, "a header is not an object")
		}
		switch header.Type {
		case ".ams.headers.ConsumerAuthentication":
			token = header.JWT
		case ".ams.headers.ClientProperties":
			k.properties = asClientProperties(raw)
		}
	}
	if k.who != nil {
		return say(200, "OK Connection initialized")
	}
	if token == "" || len(token) > 2048 {
		return refuse(errMissing, "the ConsumerAuthentication header with a jwt is missing")
	}
	claims, err := k.s.consumerOf(k.account, token)
	if err != nil {
		code := closeAuthenticate
		if errors.Is(err, jwt.ErrTokenExpired) && claims.Kind == anonymousKind {
			code = closeExtend
		}
		refusal := refuse(errToken, "the token is wrong or expired")
		refusal.shut = code
		return refusal
	}
	k.identify(claims)
	return say(200, "OK Connection initialized")
}

// commonRequest processes what both dialects have under the same name; ok is false for anything else.
func (k *socket) commonRequest(c *call) (a reply, ok bool) {
	switch c.typ {
	case "GetClock":
		return reply{code: 200, typ: typeClock, body: map[string]int64{"currentTime": k.s.now().UnixMilli()}}, true
	case "KeepAlive":
		return say(200, "OK"), true
	case "cm.UpdateConversationField":
		return k.updateConversation(c), true
	case "ms.PublishEvent":
		return k.publishEvent(c), true
	case "ms.SubscribeMessagingEvents":
		return k.subscribeMessaging(c), true
	case "ms.QueryMessages":
		return k.queryMessages(c), true
	case "ms.GenerateURLForUploadFile":
		return k.uploadURL(c), true
	case "ms.GenerateURLForDownloadFile":
		return k.downloadURL(c), true
	case "userprofile.SetUserProfile":
		return k.setProfile(c), true
	}
	return reply{}, false
}

// setProfile keeps what a person says of itself.
func (k *caller) setProfile(c *call) reply {
	var profile map[string]json.RawMessage
	if err := c.decode(&profile); err != nil {
		return refuse(errInvalid, "the body is not an object")
	}
	if profile == nil {
		profile = map[string]json.RawMessage{}
	}
	k.account.profiles[k.who.id] = frame(profile)
	return say(200, "OK User Profile set successfully")
}
