package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/lpfileshare/lpfileshare/internal/accounts"
)

// TestAccountsFile_DocumentedExampleWorks reads the example in docs/accounts.md unchanged.
func TestAccountsFile_DocumentedExampleWorks(t *testing.T) {
	doc, err := os.ReadFile("../../docs/accounts.md")
	if err != nil {
		t.Fatal(err)
	}
	example := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindSubmatch(doc)
	if example == nil {
		t.Fatal("there is no example")
	}
	file := newAccountsFile(t, string(example[1]))
	secrets := filepath.Join(filepath.Dir(file.path), "secrets")
	if err := os.Mkdir(secrets, 0o700); err != nil {
		t.Fatal(err)
	}
	writeKey(t, filepath.Join(secrets, "23456789.pem"), brandKeys()[0])
	t.Setenv("APP_SECRET_34567890", "a-secret")
	var out, errs bytes.Buffer
	f, _, done := parse([]string{"--accounts=" + file.path}, &out, &errs)
	if done {
		t.Fatal(errs.String())
	}
	s, err := f.accounts()
	if err != nil {
		t.Fatal(err)
	}
	plain, vouched, connector := s.Named["12345678"], s.Named["23456789"], s.Named["34567890"]
	if s.Others != nil || len(plain.Documents) != 5 || plain.HoldsCredentials() || plain.AccessReceipts || !plain.AcceptReceipts || plain.MaxFileBytes != 3_000_000 {
		t.Errorf("%+v", plain)
	}
	if vouched.Issuer == nil || vouched.Issuer.KeyID != "2026-11" {
		t.Errorf("%+v", vouched)
	}
	if connector.Messenger != accounts.Connector || connector.App == nil || connector.MaxFileBytes != 5_000_000 || !connector.FitImages || !connector.StripImages ||
		connector.Domains["swift"] != "objects.example.com" {
		t.Errorf("%+v", connector)
	}

	// Every key that the reader knows is documented. The error for an unknown key lists them.
	known := regexp.MustCompile(`the keys are (.*)`)
	for _, text := range []string{
		"xxxxxxxxxx: 1", "accounts: {1: {xxxxxxxxxx: 1}}", "accounts: {1: {limits: {xxxxxxxxxx: 1}}}", "accounts: {1: {images: {xxxxxxxxxx: 1}}}",
		"accounts: {1: {identity: {xxxxxxxxxx: 1}}}", "accounts: {1: {identity: {issuer: {xxxxxxxxxx: 1}}}}", "accounts: {1: {app: {xxxxxxxxxx: 1}}}", "callers: [{xxxxxxxxxx: 1}]",
	} {
		file.write(text)
		_, err := f.accounts()
		keys := known.FindStringSubmatch(err.Error())
		if keys == nil {
			t.Fatalf("%s: %v", text, err)
		}
		for key := range strings.SplitSeq(keys[1], ", ") {
			if !bytes.Contains(doc, []byte("`"+key+"`")) {
				t.Errorf("%s is not in docs/accounts.md", key)
			}
		}
	}
}

func TestAccountsFile_RejectsLimitsBeyondMemory(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "accounts.yaml")
	text := "accounts:\n  \"1\": {}\n  \"2\": {images: {fit: true}}\n  \"3\": {limits: {max_file_bytes: 15MB}}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, wrong bytes.Buffer
	code := run(t.Context(), []string{"--accounts=" + file, "--check-accounts", "--memory-budget=20MB"}, &out, &wrong)
	want := []string{
		file + ":3: account 2: --memory-budget is 20000000, which is too small for one image of 25000000 bytes and its reduced copy",
		file + ":4: account 3: --memory-budget is 20000000, which is too small for one file of 15000000 bytes and its stripped copy",
	}
	lines := strings.Split(strings.TrimSpace(wrong.String()), "\n")
	if code != 1 || len(lines) != len(want) || !strings.HasPrefix(lines[0], want[0]) || !strings.HasPrefix(lines[1], want[1]) {
		t.Errorf("code %d:\n%s", code, wrong.String())
	}
}
