package accounts

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// FuzzRead: every file gives a Set or Faults, each on an existing line, and nothing panics.
func FuzzRead(f *testing.F) {
	for _, text := range []string{
		"", "accounts: {1: }", "others: allow\ndefaults: {limits: {max_file_bytes: 5MB}}\naccounts:\n  \"1\":\n    domains: {idp: a}\n",
		"accounts:\n  1:\n    messenger: connector\n    app: {id: a, secret_env: APP_SECRET}\n", "accounts: &a [*a]\n", "? [a]\n: !!b c\n", "a: |\n  b\n---\n...\n",
		"accounts: {1: {identity: {issuer: {name: b, key_env: ISSUER_KEY, lifetime: 1h}}}}", "\"\\x\": '", "<<: *a\n", "- - - a\n  b: c\n", "%YAML 1.2\n---\na: b",
		"others: allow\ncallers:\n- {certificates: [any, uri:spiffe://a/*, dns:*.b], accounts: all, tokens: [consumer], consumers: [\"a*\"]}\n- {accounts: [1]}\n",
	} {
		f.Add([]byte(text))
	}
	path := filepath.Join(f.TempDir(), "accounts.yaml")
	rules := testRules()
	f.Fuzz(func(t *testing.T, data []byte) {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := Read(path, rules)
		faults, ok := errors.AsType[Faults](err)
		if (err == nil) != (s != nil) || err != nil && (!ok || len(faults) == 0) {
			t.Fatalf("%v, %v", s, err)
		}
		lines := 1
		for _, b := range data {
			if b == '\n' || b == '\r' {
				lines++
			}
		}
		for _, fault := range faults {
			if fault.Line < 0 || fault.Line > lines+1 {
				t.Errorf("line %d of %d: %s", fault.Line, lines, fault)
			}
		}
	})
}
