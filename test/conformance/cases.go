package main

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

//go:embed cases.json
var casesText []byte

// A Case is one row of the matrix. Its name is GROUP/WHAT.
type Case struct {
	Name string `json:"name"`
	// Flags are those of the server, in addition to the common ones. Own: a server that serves nothing else, because it is stopped or has
	// faults. "$tmp" in a flag is a folder of the case.
	Flags []string `json:"flags"`
	Own   bool     `json:"own"`
	// Faults are armed in the sandbox before the first step. They imply Own.
	Faults []json.RawMessage `json:"faults"`
	// Link has the rules of the proxy between the driver and the server.
	Link []Rule `json:"link"`
	// Fake is a scripted server instead of a real one.
	Fake *Fake `json:"fake"`
	// TLS is how the server is served: "" (plaintext), "server", "mutual" or "wrongName".
	TLS string `json:"tls"`
	// Environment gives the case a driver process of its own, with these variables.
	Environment map[string]string `json:"environment"`
	// Fixture is a conversation that is prepared once: "many" has 1,001 files. Default: a new conversation.
	Fixture string `json:"fixture"`
	// Closed: the runner does not open the client "main"; the steps do.
	Closed bool   `json:"closed"`
	Steps  []Step `json:"steps"`
	// Stored and Published are how many objects were stored, and files published, by the case's consumer.
	Stored    *int `json:"stored"`
	Published *int `json:"published"`
	// Calls are the expected numbers of calls of the fake, by method: a matcher.
	Calls map[string]any `json:"calls"`
	// At is for the two cases that are about the driver process as a whole: "exit" and "stderr".
	At string `json:"at"`
	// Long cases are started first.
	Long bool `json:"long"`
}

// Group is the part of the name before the slash.
func (c *Case) Group() string { return strings.SplitN(c.Name, "/", 2)[0] }

// A Step is a command for the driver, or an action of the runner.
type Step struct {
	Do string
	// ID names the step in later ones: "$ID.file.name" is a part of its result.
	ID string
	// Async: the next step begins at once. A step "wait" has what is wanted.
	Async bool
	// Times is how often the step is run, Parallel how many at a time. 0: once.
	Times, Parallel int
	// Want is what the answer must match: see match.
	Want any
	// Events are matched, in order, by events of the command; others may be in between.
	Events []any
	// NoEvents are matched by no event of the command.
	NoEvents []any
	// MinMs and MaxMs bound the time that it takes.
	MinMs, MaxMs int
	// Args are all other members.
	Args map[string]any
}

// UnmarshalJSON sorts the members.
func (s *Step) UnmarshalJSON(text []byte) error {
	var all map[string]json.RawMessage
	if err := json.Unmarshal(text, &all); err != nil {
		return err
	}
	known := map[string]any{
		"do": &s.Do, "id": &s.ID, "async": &s.Async, "times": &s.Times, "parallel": &s.Parallel, "want": &s.Want,
		"events": &s.Events, "noEvents": &s.NoEvents, "minMs": &s.MinMs, "maxMs": &s.MaxMs,
	}
	s.Args = map[string]any{}
	for name, raw := range all {
		into, ok := known[name]
		if !ok {
			var v any
			into = &v
			if err := json.Unmarshal(raw, into); err != nil {
				return err
			}
			s.Args[name] = v
			continue
		}
		if err := json.Unmarshal(raw, into); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if s.Do == "" {
		return fmt.Errorf("a step without do: %s", text)
	}
	return nil
}

// parseCases reads the cases. Unknown members are errors.
func parseCases(text []byte) ([]*Case, error) {
	var cases []*Case
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&cases); err != nil {
		return nil, fmt.Errorf("cases.json: %w", err)
	}
	seen := map[string]bool{}
	for _, c := range cases {
		switch {
		case !strings.Contains(c.Name, "/"):
			return nil, fmt.Errorf("cases.json: %q has no group", c.Name)
		case seen[c.Name]:
			return nil, fmt.Errorf("cases.json: %q is there twice", c.Name)
		case len(c.Steps) == 0 && c.At == "":
			return nil, fmt.Errorf("cases.json: %q has no steps", c.Name)
		}
		seen[c.Name] = true
		if len(c.Faults) > 0 {
			c.Own = true
		}
	}
	return cases, nil
}

// groups returns the groups in the order of the file.
func groups(cases []*Case) (names []string) {
	for _, c := range cases {
		if !slices.Contains(names, c.Group()) {
			names = append(names, c.Group())
		}
	}
	return names
}
