package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// connector is the dialect of the Connector API, which has exchanges instead of frames.
const connector = "connector"

// An Exchange is one HTTP request of the Connector API and its answer, or one webhook. It converts from the sandbox's Exchange.
type Exchange struct {
	// Endpoint is "token" (AppJWT), "consumer" (ConsumerJWS), "conversation" (the batch that creates a conversation), "send", or
	// "webhook", which is sent by the sandbox.
	Endpoint string
	// Request is the request's body.
	Request []byte
	// Status and Answer are the answer; Status is 0 if there was none.
	Status int
	Answer []byte
}

// sends has the answer to each type of request that the endpoint "send" accepts.
var sends = map[string]string{
	"userprofile.SetUserProfile":    "string",
	"cm.UpdateConversationField":    "string",
	"ms.PublishEvent":               "published",
	"ms.GenerateURLForUploadFile":   "url",
	"ms.GenerateURLForDownloadFile": "url",
}

// CheckExchange checks an exchange between the server and the sandbox. The answer to a webhook is not checked. It counts each body
// and keeps errors as Check does.
func (c *Checker) CheckExchange(x Exchange) error { return c.checkExchange(x, false) }

// CheckForeignExchange is CheckExchange for a sandbox with another client, whose own requests are not checked.
func (c *Checker) CheckForeignExchange(x Exchange) error { return c.checkExchange(x, true) }

func (c *Checker) checkExchange(x Exchange, foreignClient bool) error {
	var errs []error
	switch {
	case x.Endpoint == "token": // its request is a form, not JSON
	case x.Endpoint != "webhook" && foreignClient:
		errs = append(errs, c.count(connector, foreign, nil))
	default:
		kind, err := c.request(x)
		errs = append(errs, c.count(connector, kind, err))
	}
	if x.Endpoint != "webhook" && x.Status != 0 {
		kind, err := c.exchangeAnswer(x)
		errs = append(errs, c.count(connector, kind, err))
	}
	return errors.Join(errs...)
}

// request validates the request of an exchange.
func (c *Checker) request(x Exchange) (kind string, err error) {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(x.Request))
	if err != nil {
		return unknown, fmt.Errorf("not JSON: %w", err)
	}
	switch x.Endpoint {
	case "consumer", "conversation":
		return c.apply(connector+".request."+x.Endpoint, v)
	case "send":
		if sends[text(v, "type")] == "" {
			return unknown, fmt.Errorf("%q cannot be sent", text(v, "type"))
		}
		return c.apply(connector+".request."+requestKind(v), v)
	case "webhook":
		return c.apply(connector+".notification."+text(v, "type"), v)
	default:
		return unknown, fmt.Errorf("unknown endpoint %q", x.Endpoint)
	}
}

// exchangeAnswer validates the answer of an exchange.
func (c *Checker) exchangeAnswer(x Exchange) (kind string, err error) {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(x.Answer))
	if err != nil {
		return unknown, fmt.Errorf("not JSON: %w", err)
	}
	prefix := connector + ".response."
	if x.Status >= http.StatusBadRequest {
		if (x.Endpoint == "token" || x.Endpoint == "consumer") && member(v, "error") != nil {
			return c.apply(prefix+"failure", v)
		}
		if code, _ := member(v, "code").(json.Number); code.String() != fmt.Sprint(x.Status) {
			return prefix + "error", fmt.Errorf("code %s in an answer with status %d", code, x.Status)
		}
		return c.apply(prefix+"error", v)
	}
	asked, _ := jsonschema.UnmarshalJSON(bytes.NewReader(x.Request)) // nil if it is not JSON
	if x.Endpoint == "send" {
		kind = prefix + sends[text(asked, "type")]
	} else {
		kind = prefix + x.Endpoint
	}
	if refusesByText(v) {
		kind = prefix + "refusal"
	}
	success := http.StatusOK
	if x.Endpoint == "consumer" {
		success = http.StatusCreated
	}
	if x.Status != success {
		return kind, fmt.Errorf("status %d, want %d", x.Status, success)
	}
	if kind, err = c.apply(kind, v); err != nil {
		return kind, err
	}
	switch x.Endpoint {
	case "send":
		return kind, sameID(asked, v)
	case "conversation":
		requests, _ := asked.([]any)
		for i, answer := range v.([]any) { // an array, by its schema
			if i >= len(requests) {
				return kind, errors.New("more answers than requests")
			}
			if err := sameID(requests[i], answer); err != nil {
				return kind, err
			}
		}
	}
	return kind, nil
}

// sameID returns an error unless an answer has the id of its request.
func sameID(request, answer any) error {
	if got, want := text(answer, "reqId"), idText(request); got != want {
		return fmt.Errorf("answer to %q, want %q", got, want)
	}
	return nil
}

// Frames returns the requests, answers and webhooks of an exchange as frames of the dialect "connector", for a Recorder. Exchanges
// of tokens have no frames.
func (x Exchange) Frames() []Frame {
	var frames []Frame
	add := func(fromClient bool, data []byte) {
		var batch []json.RawMessage
		if x.Endpoint != "conversation" || json.Unmarshal(data, &batch) != nil {
			batch = []json.RawMessage{data}
		}
		for _, one := range batch {
			frames = append(frames, Frame{FromClient: fromClient, Dialect: connector, Data: one})
		}
	}
	switch x.Endpoint {
	case "conversation", "send":
		add(true, x.Request)
		if x.Status != 0 {
			add(false, x.Answer)
		}
	case "webhook":
		add(false, x.Request)
	}
	return frames
}
