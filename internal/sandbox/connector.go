package sandbox

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// The Connector ("Send") API: what a consumer's socket does, by single HTTPS requests of a brand's own server. Every request
// names an app install (AppJWT) and the consumer on whose behalf it is made (ConsumerJWS).

// connector wraps one endpoint of the Connector API: its request is read whole, its faults strike, and OnExchange sees both ways.
// Beside the endpoint's own faults, those of the types of its requests strike, as they do on a socket.
func (s *Sandbox) connector(on string, types func(body []byte) []string, serve func(r *http.Request, body []byte) (int, []byte)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxFrame))
		var tooLarge *http.MaxBytesError
		if err != nil && !errors.As(err, &tooLarge) {
			return // the client has gone
		}
		f, hit := s.faults.take(on)
		if types != nil {
			for _, typ := range types(body) {
				if !hit {
					f, hit = s.faults.take(typ)
				}
			}
		}
		answer := s.trouble(f, w, r, func(w http.ResponseWriter, r *http.Request) {
			var status int
			var data []byte
			switch {
			case f.Status != 0:
				status, data = refusal("", refuseWith(f.Status, onDemandCode(f), "made on demand"))
				if f.RetryAfter > 0 {
					w.Header().Set("Retry-After", strconv.Itoa(f.RetryAfter))
				}
			case tooLarge != nil:
				status, data = refusal("", refuse(errBodyTooLarge, "a request may have %d bytes", maxFrame))
			default:
				r.Body = io.NopCloser(bytes.NewReader(body))
				status, data = serve(r, body)
			}
			writeJSON(w, status, data)
		})
		if s.opts.OnExchange != nil {
			x := Exchange{Endpoint: strings.TrimPrefix(on, "http:"), Request: body}
			if answer != nil {
				x.Status, x.Answer = answer.status, answer.body.Bytes()
			}
			s.opts.OnExchange(x)
		}
	}
}

// requestTypes are the types of the requests in a body, as far as there are any.
func requestTypes(body []byte) []string {
	var requests list[json.RawMessage]
	if len(bytes.TrimSpace(body)) == 0 || json.Unmarshal(body, &requests) != nil {
		return nil
	}
	var types []string
	for _, data := range requests {
		if req, err := parseRequest(data); err == nil {
			types = append(types, req.typ)
		}
	}
	return types
}

// createConversation answers POST .../messaging/consumer/conversation: who the consumer is, and then the conversation.
func (s *Sandbox) createConversation(r *http.Request, body []byte) (int, []byte) {
	k, refused := s.onBehalf(r)
	if refused != nil {
		return refusal("", *refused)
	}
	var elements list[json.RawMessage]
	if len(bytes.TrimSpace(body)) == 0 || json.Unmarshal(body, &elements) != nil {
		return refusal("", refuse(errInvalid, "the body is not an array of requests"))
	}
	wanted := []string{"userprofile.SetUserProfile", "cm.ConsumerRequestConversation"}
	if len(elements) != len(wanted) {
		return refusal("", refuse(errInvalid, "two requests are wanted: %s and %s", wanted[0], wanted[1]))
	}
	calls := make([]*call, len(wanted))
	for i, data := range elements {
		req, err := parseRequest(data)
		if err != nil {
			return refusal(req.id, refuse(errInvalid, "%v", err))
		}
		if req.typ != wanted[i] {
			return refusal(req.id, refuse(errInvalid, "request %d must be %s", i+1, wanted[i]))
		}
		calls[i] = &call{request: req}
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	var answers []json.RawMessage
	for _, c := range calls {
		a := k.connectorRequest(c)
		c.b.send()
		if a.code >= http.StatusBadRequest {
			return refusal(c.id, a)
		}
		answers = append(answers, success(c.id, a))
	}
	return http.StatusOK, frame(answers)
}

// sendRequest answers POST .../messaging/consumer/conversation/send.
func (s *Sandbox) sendRequest(r *http.Request, body []byte) (int, []byte) {
	k, refused := s.onBehalf(r)
	if refused != nil {
		return refusal("", *refused)
	}
	req, err := parseRequest(body)
	if err != nil {
		return refusal(req.id, refuse(errInvalid, "%v", err))
	}
	if req.typ == "cm.ConsumerRequestConversation" {
		return refusal(req.id, refuse(errUnknownType, "a conversation is created at .../messaging/consumer/conversation"))
	}
	c := &call{request: req}
	k.askStore(c)
	s.mu.Lock()
	defer s.mu.Unlock()
	a := k.connectorRequest(c)
	c.b.send()
	if a.code >= http.StatusBadRequest {
		return refusal(c.id, a)
	}
	return http.StatusOK, success(c.id, a)
}

// connectorRequest processes one request of the Connector API. Sandbox.mu is held.
func (k *caller) connectorRequest(c *call) reply {
	switch c.typ {
	case "userprofile.SetUserProfile":
		return k.setProfile(c)
	case "cm.ConsumerRequestConversation":
		// On a socket the brand is that of its path. Here it is mandatory all the same.
		var body struct {
			BrandID jsonText `json:"brandId"`
		}
		if c.decode(&body) == nil && body.BrandID == "" {
			return refuseTitled(errMissing, "Missing parameter", "Brand Id is missing")
		}
		return k.consumerRequestConversation(c)
	case "ms.PublishEvent":
		return k.publishEvent(c)
	case "cm.UpdateConversationField":
		return k.updateConversation(c)
	case "ms.GenerateURLForUploadFile":
		return k.uploadURL(c)
	case "ms.GenerateURLForDownloadFile":
		return k.downloadURL(c)
	default:
		return refuse(errUnknownType, "no such request in the Connector API")
	}
}

// success writes the answer to one request: no kind, no type, and a code that is a word.
func success(id string, a reply) []byte {
	body := a.body
	if text, ok := body.(string); ok {
		body = map[string]string{"msg": text}
	}
	return frame(struct {
		Code  string `json:"code"`
		Body  any    `json:"body"`
		ReqID string `json:"reqId"`
	}{"OK", body, id})
}

// refusal writes an error answer, with its status: that of a socket, without reqId where no request was read.
func refusal(id string, a reply) (int, []byte) {
	return a.code, frame(struct {
		Code  int    `json:"code"`
		Body  any    `json:"body"`
		ReqID string `json:"reqId,omitempty"`
		Kind  string `json:"kind"`
		Type  string `json:"type"`
	}{a.code, a.body, id, "resp", a.typ})
}

// refuseTitled is an error answer with the title that LivePerson's pages print.
func refuseTitled(errorCode int, title, details string) reply {
	return reply{code: errorCode / 100, typ: typeError, body: errorBody{Title: title, Details: details, ErrorCode: errorCode}}
}
