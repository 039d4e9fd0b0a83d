package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/lpfileshare/lpfileshare/test/wire"
)

func TestRun(t *testing.T) {
	good := wire.Frame{FromClient: true, Dialect: "consumer", Data: []byte(`{"kind":"req","id":"1","type":"GetClock"}`)}
	answer := wire.Frame{Dialect: "consumer", Data: []byte(`{"kind":"resp","reqId":"1","code":200,"type":".GetClock$Response","body":{"currentTime":1513813587308}}`)}
	odd := wire.Frame{FromClient: true, Dialect: "consumer", Data: []byte(`{"kind":"req","id":1,"type":"GetClock"}`)}
	for _, c := range []struct {
		name     string
		frames   []wire.Frame
		foreign  []string
		ok       bool
		recorded int
	}{
		{"none", nil, nil, false, 0},
		{"good", []wire.Frame{good, answer}, nil, true, 2},
		{"a wrong one", []wire.Frame{good, answer, odd}, nil, false, 3},
		{"wrong in another's way", []wire.Frame{odd, answer}, []string{"consumer"}, true, 1},
		{"wrong in the way of nobody here", []wire.Frame{odd, answer}, []string{"brand"}, false, 2},
		{"a wrong answer to another", []wire.Frame{odd, answer, answer}, []string{"consumer"}, false, 2},
		{"others' only", []wire.Frame{odd}, []string{"consumer", "brand"}, false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			in, out := t.TempDir(), t.TempDir()
			t.Setenv(wire.RecordEnv, out)
			r, err := wire.Record(in)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range c.frames {
				r.Add(f)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			if err := run("some", c.foreign, in); (err == nil) != c.ok {
				t.Errorf("error %v, want none: %v", err, c.ok)
			}
			n := 0
			for _, err := range wire.Recorded(filepath.Join(out, "some")) {
				if err != nil {
					t.Fatal(err)
				}
				n++
			}
			if n != c.recorded {
				t.Errorf("%d frames were recorded, want %d", n, c.recorded)
			}
		})
	}
	if run("some", nil, filepath.Join(t.TempDir(), "missing")) == nil {
		t.Error("no error without a folder")
	}
	broken := t.TempDir()
	if err := os.WriteFile(filepath.Join(broken, "frames-1.jsonl"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if run("some", nil, broken) == nil {
		t.Error("no error for half a line")
	}
}
