package wire

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// A Suite is the tests of one package, or of one script, whose sandboxes' frames are checked. A test binary has one; each sandbox
// gets a Tap of it. It is safe for concurrent use.
type Suite struct {
	name string

	mu              sync.Mutex
	checked, exempt int
	recorder        *Recorder
}

// NewSuite makes the Suite of that name. If RecordEnv names a folder, what is checked is recorded there, in a folder of the
// suite's name.
func NewSuite(name string) *Suite { return &Suite{name: name} }

// schemas is compiled once for all Taps; nothing changes it afterwards.
var schemas = sync.OnceValues(compile)

// A Tap checks the frames of one sandbox. Its methods Check, CheckForeign and Exempt are for OnFrame; one frame goes to one of
// them. It is safe for concurrent use.
type Tap struct {
	suite    *Suite
	checker  *Checker
	recorder *Recorder

	mu     sync.Mutex
	exempt int
}

// Tap makes a Tap. The caller closes it, after the sandbox.
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

// Check checks and records a frame between our gateway and the sandbox.
func (t *Tap) Check(f Frame) {
	if Spoiled(f) {
		t.Exempt(f)
		return
	}
	t.recorder.Add(f)
	_ = t.checker.Check(f) // the checker remembers what is wrong
}

// CheckForeign is Check where the client is not our gateway, so that its own frames are neither checked nor recorded.
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

// CheckExchange checks and records an exchange of the Connector API between our gateway and the sandbox. It is for OnExchange.
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

// CheckForeignExchange is CheckExchange where the client is not our gateway.
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

// Exempt counts a frame that a test spoils on purpose, and does no more with it.
func (t *Tap) Exempt(Frame) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.exempt++
}

// Checked is how many frames were checked so far.
func (t *Tap) Checked() int { return t.checker.Checked() }

// Close adds what was seen to the suite's count. The error tells of frames that no schema allows; none at all is no error here,
// since a test may well open no socket.
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

// TB is what Watch wants of a *testing.T or *testing.B.
type TB interface {
	Helper()
	Cleanup(func())
	Fatal(...any)
	Error(...any)
}

// Watch makes a Tap that lasts as long as the test. It is closed behind all that the test cleans up from now on: call it before
// the sandbox's Close is handed to Cleanup.
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

// End closes the recording and says how many frames were checked. None is an error.
func (s *Suite) End() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.recorder.Close()
	s.recorder = nil
	fmt.Printf("frames checked against test/wire: %d, spoiled on purpose: %d (%s)\n", s.checked, s.exempt, s.name)
	if s.checked == 0 {
		err = errors.Join(err, fmt.Errorf("wire: %s: no frame was checked", s.name))
	}
	return err
}

// Exit is End for a TestMain: it takes and gives the exit code. Only where some of the tests were left out by a flag is it no
// failure that no frame was checked.
func (s *Suite) Exit(code int) int {
	err := s.End()
	if err != nil && code == 0 && !partial() {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// partial reports whether the testing package was told not to run all tests.
func partial() bool {
	for _, name := range []string{"test.run", "test.skip", "test.list", "test.fuzz"} {
		if f := flag.Lookup(name); f != nil && f.Value.String() != "" {
			return true
		}
	}
	worker := flag.Lookup("test.fuzzworker")
	return worker != nil && worker.Value.String() == "true"
}

// What the sandbox's fault garbage sends: as a frame, and as the answer to an HTTP request.
const (
	garbage       = `{"kind":`
	garbageAnswer = `{"baseURIs":[{"`
)

// Spoiled reports whether a frame is one that a sandbox sends only on demand, to see what becomes of it.
func Spoiled(f Frame) bool { return !f.FromClient && string(f.Data) == garbage }
