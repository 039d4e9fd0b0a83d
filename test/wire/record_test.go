package wire

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestRecorder_ReadBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made")
	sent := []Frame{
		{FromClient: true, Dialect: "consumer", Data: []byte("{\"kind\":\"req\",\n\"id\":\"ü\"}")},
		{Dialect: "brand", Data: []byte("{\"half")},
		{Dialect: "consumer", Data: []byte("{}")},
	}
	for _, part := range [][]Frame{sent[:2], sent[2:]} { // two Recorders, one file
		r, err := Record(dir)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range part {
			r.Add(f)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("files: %v, %v", entries, err)
	}
	var got []Frame
	for f, err := range Recorded(dir) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, f)
	}
	same := func(a, b Frame) bool {
		return a.FromClient == b.FromClient && a.Dialect == b.Dialect && string(a.Data) == string(b.Data)
	}
	if !slices.EqualFunc(got, sent, same) {
		t.Errorf("read back %v, want %v", got, sent)
	}
}

func TestRecorder_Errors(t *testing.T) {
	dir := t.TempDir()
	r, err := Record(dir)
	if err != nil {
		t.Fatal(err)
	}
	_ = r.file.Close()
	r.Add(Frame{})
	if r.Close() == nil {
		t.Error("Close did not report a lost frame")
	}

	if err := os.WriteFile(filepath.Join(dir, "broken.jsonl"), []byte(`{"fromClient":`), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, where := range []string{dir, filepath.Join(dir, "missing")} {
		failed := false
		for _, err := range Recorded(where) {
			failed = failed || err != nil
		}
		if !failed {
			t.Errorf("reading %s succeeded", where)
		}
	}
}
