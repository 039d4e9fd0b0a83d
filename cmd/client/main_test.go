package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
)

// TestMain lets the test binary be the server that the demo starts.
func TestMain(m *testing.M) {
	if how := os.Getenv("LPFILESHARE_TEST_SERVER"); how != "" {
		os.Exit(serveForDemo(how))
	}
	os.Exit(m.Run())
}

func picture(size int) []byte {
	return append([]byte("\xff\xd8\xff\xe0"), bytes.Repeat([]byte("picture."), size/8+1)...)[:size]
}

func write(t *testing.T, name string, data []byte) string {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func checkDir(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("the directory contains %q, want %q", got, want)
	}
}

// Every command's --json output is one JSON object to a line.
func TestJSON(t *testing.T) {
	g := startGateway(t, &gateway{})
	s := newShell(t, g)
	write(t, "a.jpg", picture(10))
	t.Setenv("LPFILESHARE_PASSWORD", "sandbox")
	name := ""
	for _, tc := range []struct{ args, key string }{
		{"sign-in --address " + g.address, "expireTime"}, {"sign-in agent --user admin", "id"},
		{"conversation create", "name"}, {"conversation list", "state"}, {"conversation get", "name"},
		{"upload a.jpg", "requestId"}, {"ls", "storagePath"}, {"stat NAME", "etag"}, {"download NAME -o b.jpg", "sha256"},
		{"watch --existing --count 1", "name"}, {"capabilities", "maxFileBytes"}, {"health", "status"},
		{"get-upload 6f8f57e0-79b8-4a4b-8a4c-5bd1a9d6e1c7", "state"}, {"publish 6f8f57e0-79b8-4a4b-8a4c-5bd1a9d6e1c7", "file"}, {"account file-sharing enable", "enabled"},
		{"account file-sharing get", "enabled"}, {"agent send a.jpg", "file"}, {"agent watch --existing --count 1", "name"},
		{"conversation close", "state"}, {"version", "version"}, {"sign-out", "signedOut"},
	} {
		out := s.ok(strings.Fields("--json " + strings.ReplaceAll(tc.args, "NAME", name))...)
		var object map[string]any
		if err := json.Unmarshal([]byte(out), &object); err != nil || object[tc.key] == nil || strings.Contains(out, "\n") {
			t.Errorf("%s: %v in %s", tc.args, err, out)
		}
		if strings.Contains(out, "-token") || strings.Contains(out, "secret") {
			t.Errorf("%s prints a secret: %s", tc.args, out)
		}
		if file, ok := object["file"].(map[string]any); ok {
			name, _ = file["name"].(string)
		}
	}
}
