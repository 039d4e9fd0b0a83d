package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"

	"github.com/santhosh-tekuri/jsonschema/v6"
)

// A Frame is one text frame of a socket. It converts from and to the sandbox's Frame.
type Frame struct {
	// FromClient reports whether the client sent the frame.
	FromClient bool
	// Dialect is "consumer" or "brand".
	Dialect string
	// Data is the frame's text.
	Data []byte
}

const (
	// maxKept is the number of failures whose messages a Checker keeps. Further failures are only counted.
	maxKept = 20
	// foreign and unknown are the kinds of frames without a schema: those of other clients, and invalid ones.
	foreign = "foreign request"
	unknown = "unknown"
)

// A Checker checks frames and counts them. It is safe for concurrent use.
//
// It matches an answer to its request by dialect and reqId. Frames do not identify their connection, so if two connections use the
// same id at the same time, an answer may belong to either.
type Checker struct {
	schemas map[string]*jsonschema.Schema

	mu       sync.Mutex
	pending  map[requestID]*due
	counts   map[string]*count
	failures []string
	failed   int
}

// A requestID identifies a request as far as frames allow.
type requestID struct{ dialect, id string }

// due has the unanswered requests with one id.
type due struct {
	open  int
	types map[string]bool
}

type count struct{ seen, failed int }

// New returns a Checker.
func New() (*Checker, error) {
	schemas, err := compile()
	if err != nil {
		return nil, err
	}
	return newChecker(schemas), nil
}

func newChecker(schemas map[string]*jsonschema.Schema) *Checker {
	return &Checker{schemas: schemas, pending: map[requestID]*due{}, counts: map[string]*count{}}
}

// Check checks a frame between the server and the sandbox. Frames of one connection must be passed in the order in which they were
// sent. Err reports the error as well.
func (c *Checker) Check(f Frame) error { return c.check(f, false) }

// CheckForeign is Check for a sandbox with another client, whose own frames are not checked.
func (c *Checker) CheckForeign(f Frame) error { return c.check(f, true) }

func (c *Checker) check(f Frame, foreignClient bool) error {
	kind, err := c.validate(f, foreignClient)
	return c.count(f.Dialect, kind, err)
}

// count counts one frame of a kind, and returns err with dialect and kind.
func (c *Checker) count(dialect, kind string, err error) error {
	if err != nil {
		err = fmt.Errorf("wire: %s %s: %w", dialect, kind, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.counts[kind]
	if n == nil {
		n = &count{}
		c.counts[kind] = n
	}
	n.seen++
	if err != nil {
		n.failed++
		c.failed++
		if len(c.failures) < maxKept {
			c.failures = append(c.failures, err.Error())
		}
	}
	return err
}

// validate applies the schema for a frame. It returns the kind under which the frame is counted, even with an error.
func (c *Checker) validate(f Frame, foreignClient bool) (kind string, err error) {
	if f.Dialect != "consumer" && f.Dialect != "brand" {
		return unknown, fmt.Errorf("unknown dialect %q", f.Dialect)
	}
	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(f.Data))
	if f.FromClient && foreignClient {
		c.expect(f.Dialect, v) // nil if it is not JSON, which is answered too
		return foreign, nil
	}
	if err != nil {
		return unknown, fmt.Errorf("not JSON: %w", err)
	}
	switch is := text(v, "kind"); {
	case f.FromClient && is == "req":
		c.expect(f.Dialect, v)
		return c.apply(f.Dialect+".request."+requestKind(v), v)
	case !f.FromClient && is == "notification":
		return c.apply(f.Dialect+".notification."+bare(text(v, "type")), v)
	case !f.FromClient && is == "resp":
		return c.answer(f.Dialect, v)
	default:
		return unknown, fmt.Errorf("kind %q is invalid in this direction", is)
	}
}

// apply validates v against the schema called name.
func (c *Checker) apply(name string, v any) (string, error) {
	s := c.schemas[name]
	if rest, ok := strings.CutPrefix(name, connector+"."); ok && s == nil {
		s = c.schemas["consumer."+rest] // shared by sockets and the Connector API
	}
	if s == nil {
		return unknown, fmt.Errorf("no schema %q", name)
	}
	if err := s.Validate(v); err != nil {
		return name, errors.New(brief(err))
	}
	return name, nil
}

// expect records that the request v has no answer yet.
func (c *Checker) expect(dialect string, v any) {
	id := requestID{dialect, idText(v)}
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.pending[id]
	if d == nil {
		d = &due{types: map[string]bool{}}
		c.pending[id] = d
	}
	d.open++
	d.types[bare(text(v, "type"))] = true
}

// fulfil removes one unanswered request and returns the types of the requests to which the answer may belong.
func (c *Checker) fulfil(dialect, reqID string) []string {
	id := requestID{dialect, reqID}
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.pending[id]
	if d == nil {
		return nil
	}
	if d.open--; d.open == 0 {
		delete(c.pending, id)
	}
	return slices.Sorted(maps.Keys(d.types))
}

// answer checks a response.
func (c *Checker) answer(dialect string, v any) (string, error) {
	prefix := dialect + ".response."
	reqID := text(v, "reqId")
	types := c.fulfil(dialect, reqID)
	if len(types) == 0 {
		return unknown, fmt.Errorf("response to %q, which is not an unanswered request", reqID)
	}
	if n, ok := v.(map[string]any)["code"].(json.Number); ok {
		if code, err := n.Int64(); err == nil && code >= 400 {
			return c.apply(prefix+"error", v)
		}
	}
	kind, err := unknown, fmt.Errorf("no known answer to %s", strings.Join(types, ", "))
	for _, t := range types {
		if a, ok := answers[t]; ok {
			if kind, err = c.apply(prefix+a, v); err == nil {
				return kind, nil
			}
			err = fmt.Errorf("as the answer to %s: %w", t, err)
		}
	}
	if refusesByText(v) {
		return c.apply(prefix+"string", v)
	}
	return kind, err
}

// refusesByText reports whether the body of a successful answer is a text that is no confirmation: LivePerson refuses some requests in
// this way.
func refusesByText(v any) bool {
	said := text(v, "body")
	return said != "" && !strings.HasPrefix(said, "OK")
}

// Counts returns the number of frames of each kind, valid or not. A kind is the name of a schema, "foreign request" or "unknown".
func (c *Checker) Counts() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := make(map[string]int, len(c.counts))
	for kind, n := range c.counts {
		m[kind] = n.seen
	}
	return m
}

// Checked returns the number of frames except foreign requests.
func (c *Checker) Checked() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.checked()
}

func (c *Checker) checked() int {
	total := 0
	for kind, n := range c.counts {
		if kind != foreign {
			total += n.seen
		}
	}
	return total
}

// Err returns nil if at least one frame was checked and all were valid.
func (c *Checker) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.failed > 0:
		return fmt.Errorf("%d of %d frames are invalid:\n%s", c.failed, c.checked(), strings.Join(c.failures, "\n"))
	case c.checked() == 0:
		return errors.New("wire: no frame was checked")
	}
	return nil
}

// Report returns a table of the frames by kind, the unused schemas, the failures and, in the last line, the totals.
func (c *Checker) Report() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(w, "FRAMES\tWRONG\tKIND")
	for _, kind := range slices.Sorted(maps.Keys(c.counts)) {
		_, _ = fmt.Fprintf(w, "%d\t%d\t%s\n", c.counts[kind].seen, c.counts[kind].failed, kind)
	}
	_ = w.Flush()
	for _, name := range slices.Sorted(maps.Keys(c.schemas)) {
		if c.counts[name] == nil {
			fmt.Fprintf(&b, "never seen: %s\n", name)
		}
	}
	for _, f := range c.failures {
		b.WriteString(f + "\n")
	}
	if more := c.failed - len(c.failures); more > 0 {
		fmt.Fprintf(&b, "and %d more\n", more)
	}
	fmt.Fprintf(&b, "wire: %d frames checked, %d wrong\n", c.checked(), c.failed)
	return b.String()
}

// brief returns a validation error on one line of limited length.
func brief(err error) string {
	const limit = 600
	lines := strings.Split(err.Error(), "\n")
	for i, l := range lines {
		lines[i] = strings.TrimSpace(l)
	}
	s := strings.Join(lines[min(1, len(lines)-1):], "; ") // the first line has only the schema's address
	if len(s) > limit {
		s = s[:limit] + "…"
	}
	return s
}
