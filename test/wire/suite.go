package wire

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// A Suite counts the frames checked by the tests of one package or script. A test binary has one Suite, and each sandbox a Tap of it.
// It is safe for concurrent use.
type Suite struct {
	name string

	mu              sync.Mutex
	checked, exempt int
	recorder        *Recorder
}

// NewSuite returns a Suite. If RecordEnv is set, its frames are recorded in the folder name within that folder.
func NewSuite(name string) *Suite { return &Suite{name: name} }

// schemas is compiled once for all Taps.
var schemas = sync.OnceValues(compile)

// A Tap checks the frames of one sandbox. OnFrame passes each frame to one of Check, CheckForeign and Exempt. It is safe for
// concurrent use.
type Tap struct {
	suite    *Suite
	checker  *Checker
	recorder *Recorder

	mu     sync.Mutex
	exempt int
}

// Tap returns a Tap. Callers must close it after the sandbox.
func (s *Suite) Tap() (*Tap, error) {
	compiled, err := schemas()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if dir := os.Getenv(RecordEnv); dir != "" && s.recorder == nil {
		if s.recorder, err = Record(filepath.Join(dir, s.name)); err != nil {
			return nil, err
		}
	}
	return &Tap{suite: s, checker: newChecker(compiled), recorder: s.recorder}, nil
}

// Check checks and records a frame between the server and the sandbox.
func (t *Tap) Check(f Frame) {
	if Spoiled(f) {
		t.Exempt(f)
		return
	}
	t.recorder.Add(f)
	_ = t.checker.Check(f) // the checker keeps the error
}

// CheckForeign is Check for another client, whose own frames are neither checked nor recorded.
func (t *Tap) CheckForeign(f Frame) {
	if Spoiled(f) {
		t.Exempt(f)
		return
	}
	if !f.FromClient {
		t.recorder.Add(f)
	}
	_ = t.checker.CheckForeign(f)
}

// CheckExchange checks and records an exchange of the Connector API between the server and the sandbox. OnExchange calls it.
func (t *Tap) CheckExchange(x Exchange) {
	if string(x.Answer) == garbageAnswer {
		t.Exempt(Frame{})
		return
	}
	for _, f := range x.Frames() {
		t.recorder.Add(f)
	}
	_ = t.checker.CheckExchange(x)
}

// CheckForeignExchange is CheckExchange for another client.
func (t *Tap) CheckForeignExchange(x Exchange) {
	if string(x.Answer) == garbageAnswer {
		t.Exempt(Frame{})
		return
	}
	for _, f := range x.Frames() {
		if !f.FromClient {
			t.recorder.Add(f)
		}
	}
	_ = t.checker.CheckForeignExchange(x)
}

// Exempt counts a frame that is invalid on purpose, without checking it.
func (t *Tap) Exempt(Frame) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.exempt++
}

// Checked returns the number of frames checked so far.
func (t *Tap) Checked() int { return t.checker.Checked() }

// Close adds the Tap's counts to those of the suite and returns an error if frames were invalid. It is not an error if no frame was
// checked, because a test may open no socket.
func (t *Tap) Close() error {
	checked := t.checker.Checked()
	t.mu.Lock()
	exempt := t.exempt
	t.mu.Unlock()
	t.suite.mu.Lock()
	t.suite.checked += checked
	t.suite.exempt += exempt
	t.suite.mu.Unlock()
	if checked == 0 {
		return nil
	}
	return t.checker.Err()
}

// TB is the part of *testing.T and *testing.B that Watch uses.
type TB interface {
	Helper()
	Cleanup(func())
	Fatal(...any)
	Error(...any)
}

// Watch returns a Tap that is closed when the test ends, after the cleanups that are registered later. Call it before registering
// the sandbox's Close.
func (s *Suite) Watch(t TB) *Tap {
	t.Helper()
	tap, err := s.Tap()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tap.Close(); err != nil {
			t.Error(err)
		}
	})
	return tap
}

// End closes the recording and prints how many frames were checked. It returns an error if there were none.
func (s *Suite) End() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.recorder.Close()
	s.recorder = nil
	fmt.Printf("frames checked against test/wire: %d, invalid on purpose: %d (%s)\n", s.checked, s.exempt, s.name)
	if s.checked == 0 {
		err = errors.Join(err, fmt.Errorf("wire: %s: no frame was checked", s.name))
	}
	return err
}

// Exit is End for a TestMain: it maps the exit code of the tests to that of the binary. If a flag such as -run selects tests, it is not
// a failure that no frame was checked.
func (s *Suite) Exit(code int) int {
	err := s.End()
	if err != nil && code == 0 && !partial() {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// partial reports whether flags select some of the tests.
func partial() bool {
	for _, name := range []string{"test.run", "test.skip", "test.list", "test.fuzz"} {
		if f := flag.Lookup(name); f != nil && f.Value.String() != "" {
			return true
		}
	}
	worker := flag.Lookup("test.fuzzworker")
	return worker != nil && worker.Value.String() == "true"
}

// What the sandbox's Fault.Garbage sends as a frame and as the answer to an HTTP request.
const (
	garbage       = `{"kind":`
	garbageAnswer = `{"baseURIs":[{"`
)

// Spoiled reports whether a frame is the sandbox's Fault.Garbage.
func Spoiled(f Frame) bool { return !f.FromClient && string(f.Data) == garbage }
