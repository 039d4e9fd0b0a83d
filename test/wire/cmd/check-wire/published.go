package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/lpfileshare/lpfileshare/test/wire"
)

// base is the address of LivePerson's files for the compiler.
const base = "liveperson:///"

// The schemas for frames. ms/queryMessages.json is in no list of requests.
const (
	consumerRequests      = "ws/consumerRequests.json"
	consumerResponses     = "ws/consumerResponses.json"
	consumerNotifications = "ws/consumerNotifications.json"
	agentRequests         = "ws/agentRequests.json"
	agentResponses        = "ws/agentResponses.json"
	agentNotifications    = "ws/agentNotifications.json"
	queryMessages         = "ms/queryMessages.json"
	anyRequest            = "infra/req.json"
)

// bodies are the schemas of answers' bodies by type of answer. The lists of responses accept nearly any object, so these bodies are
// checked separately.
var bodies = map[string]string{
	"cm.RequestConversationResponse":       "cm/consumerRequestConversationResp.json",
	"cqm.SubscribeExConversationsResponse": "aam/subscribeExConversationsResp.json",
	"ms.BaseGenerateURLResponse":           "ms/GenerateURLRespBody.json",
	"ms.GenerateURLResponse":               "ms/GenerateURLRespBody.json",
	".ReqBody$StringResp":                  "infra/stringRespBody.json",
	"StringResponse":                       "infra/stringRespBody.json",
}

// published has LivePerson's schemas by file.
type published map[string]*jsonschema.Schema

// load compiles the needed schemas in a folder.
func load(folder string) (published, error) {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }()
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft4) // declared by three files, the others declare none
	c.UseLoader(loader{root})
	p := published{}
	names := []string{
		consumerRequests, consumerResponses, consumerNotifications, agentRequests, agentResponses, agentNotifications,
		queryMessages, anyRequest,
	}
	for _, name := range bodies {
		names = append(names, name)
	}
	for _, name := range names {
		if p[name], err = c.Compile(base + name); err != nil {
			return nil, fmt.Errorf("schema %s: %w", name, err)
		}
	}
	return p, nil
}

// A loader reads schemas and repairs, in memory, the faults that prevent their compilation.
type loader struct{ root *os.Root }

// Load reads the file at an address.
func (l loader) Load(url string) (any, error) {
	name, ok := strings.CutPrefix(url, base)
	if !ok {
		return nil, fmt.Errorf("%s is not among the schemas", url)
	}
	f, err := l.root.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	doc, err := jsonschema.UnmarshalJSON(f)
	if err != nil {
		return nil, err
	}
	if repair := repairs[name]; repair != nil {
		visit(doc, repair)
	}
	return doc, nil
}

// repairs correct the known faults of LivePerson's files. Each is applied to every object in them.
var repairs = map[string]func(map[string]any){
	// A type of draft-03.
	"ms/HostedFile.json": func(m map[string]any) {
		if m["type"] == "any" {
			delete(m, "type")
		}
	},
	// A type of Java.
	"aam/subscribeExConversationsNotification.json": func(m map[string]any) {
		if m["type"] == "Long" {
			m["type"] = "integer"
		}
	},
	// An empty list, which draft-04 forbids.
	"ms/PublishEventSuccess.json": func(m map[string]any) {
		if required, ok := m["required"].([]any); ok && len(required) == 0 {
			delete(m, "required")
		}
	},
	// File names in another case than the files have.
	agentRequests: func(m map[string]any) {
		switch m["$ref"] {
		case "../cm/AgentRequestConversation.json":
			m["$ref"] = "../cm/agentRequestConversation.json"
		case "../cm/UpdateConversationFieldBody.json":
			m["$ref"] = "../cm/updateConversationFieldBody.json"
		}
	},
}

// visit calls f for every object in v.
func visit(v any, f func(map[string]any)) {
	switch v := v.(type) {
	case map[string]any:
		f(v)
		for _, child := range v {
			visit(child, f)
		}
	case []any:
		for _, child := range v {
			visit(child, f)
		}
	}
}

// A subject is a frame with its schema.
type subject struct {
	fromClient bool
	dialect    string
	frame      map[string]any
	root       string
}

// newSubject parses a frame and finds its schema.
func newSubject(f wire.Frame) (*subject, error) {
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(f.Data))
	if err != nil {
		return nil, errors.New("not JSON")
	}
	frame, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("not an object")
	}
	s := &subject{fromClient: f.FromClient, dialect: f.Dialect, frame: frame}
	brand := f.Dialect == "brand"
	pick := func(agents, consumers string) string {
		if brand {
			return agents
		}
		return consumers
	}
	switch {
	case f.FromClient && bareType(frame) == "ms.QueryMessages":
		s.root = queryMessages
	case f.FromClient:
		s.root = pick(agentRequests, consumerRequests)
	case frame["kind"] == "resp":
		s.root = pick(agentResponses, consumerResponses)
	default:
		s.root = pick(agentNotifications, consumerNotifications)
	}
	return s, nil
}

// kind returns the name of the frame's kind in the table.
func (s *subject) kind() string {
	direction := "from server"
	if s.fromClient {
		direction = "from client"
	}
	typ, ok := s.frame["type"].(string)
	if !ok {
		typ = "without type"
	}
	return fmt.Sprintf("%s %s %s", s.dialect, direction, typ)
}

// validate checks a subject against its schema, and the body of an answer against its own.
func (p published) validate(s *subject) error {
	if err := p[s.root].Validate(s.frame); err != nil {
		return err
	}
	typ, _ := s.frame["type"].(string)
	if body := bodies[typ]; body != "" && s.frame["kind"] == "resp" {
		return p[body].Validate(s.frame["body"])
	}
	return nil
}

// check returns the verdict on a frame.
func (p published) check(f wire.Frame) verdict {
	v := verdict{kind: f.Dialect + " unreadable", evidence: f.Data}
	s, err := newSubject(f)
	if err != nil {
		v.failure = err
		return v
	}
	v.kind = s.kind()
	if err = p.validate(s); err == nil {
		return v
	}
	if v.reasons = p.explain(f); v.reasons == nil {
		v.failure = errors.New(shorten(err.Error(), 600))
	}
	return v
}

// explain returns a minimal list of the exceptions with which a failing frame passes, or nil if it does not.
func (p published) explain(f wire.Frame) []string {
	all, pass := p.passesWith(f, nil)
	if !pass {
		return nil
	}
	var without []string
	for _, name := range all {
		if _, pass := p.passesWith(f, append(without, name)); pass {
			without = append(without, name)
		}
	}
	needed, _ := p.passesWith(f, without)
	return needed
}

// passesWith applies all exceptions except some. It returns those that changed the frame, and whether the frame passes.
func (p published) passesWith(f wire.Frame, without []string) (applied []string, pass bool) {
	s, err := newSubject(f)
	if err != nil {
		return nil, false
	}
	for _, e := range exceptions {
		if !slices.Contains(without, e.name) && e.change(s) {
			applied = append(applied, e.name)
		}
	}
	return applied, p.validate(s) == nil
}
