package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
)

// TestFlags_SecretsOfOthers starts the server with secrets that every user of the machine can read, each named by another flag.
func TestFlags_SecretsOfOthers(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows does not have these permissions")
	}
	ours := newAuthority(t, "ours")
	pair := ours.server("server")
	cert, key := strings.TrimPrefix(pair[0], "--tls-cert="), strings.TrimPrefix(pair[1], "--tls-key=")
	word := filepath.Join(t.TempDir(), "word")
	if err := os.WriteFile(word, []byte(strings.Repeat("5f", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	for flag, args := range map[string][]string{
		"--tls-key":              {"--tls-cert=" + cert, "--tls-key=" + key},
		"--webhook-key":          {"--webhook-listen=127.0.0.1:0", "--webhook-cert=" + cert, "--webhook-key=" + key},
		"--agent-token-key":      {"--agent-token-key=" + word},
		"--ledger-key":           {"--ledger=tls://127.0.0.1:1", "--ledger-cert=" + cert, "--ledger-key=" + key},
		"--ledger-password-file": {"--ledger=tls://127.0.0.1:1", "--ledger-user=u", "--ledger-password-file=" + word},
		"--ledger-creds":         {"--ledger=tls://127.0.0.1:1", "--ledger-creds=" + word},
	} {
		for mode, refused := range map[os.FileMode]bool{0o644: true, 0o440: false} {
			if err := os.Chmod(key, mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(word, mode); err != nil {
				t.Fatal(err)
			}
			f, _, done := parse(append([]string{"--listen=127.0.0.1:0", "--sandbox"}, args...), os.Stdout, os.Stderr)
			if done {
				t.Fatalf("%v are rejected", args)
			}
			err := readSecrets(f)
			if got := err != nil && strings.Contains(err.Error(), flag+" ") && strings.Contains(err.Error(), "chmod o-rwx"); got != refused {
				t.Errorf("%s with mode %04o: %v", flag, mode, err)
			}
		}
	}
}

// readSecrets reads the files that flags name, as build does.
func readSecrets(f *flags) error {
	if _, err := newServerTLS(&f.Server.TLS, "", &reloader{}, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	if _, err := f.Behaviour.agentTokenKey(); err != nil {
		return err
	}
	if _, err := newWebhookServer(&f.Connector, nil); err != nil {
		return err
	}
	_, err := f.ledgerConfig(slog.New(slog.DiscardHandler))
	return err
}

func TestFlags_UnknownEnvironment(t *testing.T) {
	t.Parallel()
	f, _, done := parse(nil, os.Stdout, os.Stderr)
	if done {
		t.Fatal("no flags are rejected")
	}
	var out bytes.Buffer
	warnUnknown([]string{
		"LPFILESHARE_LISTEN=x", "LPFILESHARE_TOKEN=Hunter2", "HOME=/", "LPFILESHARE_LEDGER_BYTE=Hunter2", "LPFILESHARE_MAX_FILE_SIZE=Hunter2", "LPFILESHARED=1",
	}, f.envs, slog.New(slog.NewTextHandler(&out, nil)))
	for _, want := range []string{"variable=LPFILESHARE_LEDGER_BYTE nearest=LPFILESHARE_LEDGER_BYTES", "variable=LPFILESHARE_MAX_FILE_SIZE nearest=LPFILESHARE_MAX_FILE_BYTES"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in the log:\n%s", want, out.String())
		}
	}
	if strings.Count(out.String(), "\n") != 2 || strings.Contains(out.String(), "Hunter2") {
		t.Errorf("two lines without values are expected:\n%s", out.String())
	}
}

// TestFlags_ClientEnvironment compares clientEnvs with the source of the client.
func TestFlags_ClientEnvironment(t *testing.T) {
	t.Parallel()
	var found []string
	for _, dir := range []string{"../client", "../../clients/go"} {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if strings.HasSuffix(file, "_test.go") {
				continue
			}
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`"(LPFILESHARE_[A-Z_]+)"`).FindAllSubmatch(text, -1) {
				found = append(found, string(m[1]))
			}
		}
	}
	slices.Sort(found)
	if found = slices.Compact(found); !slices.Equal(found, clientEnvs) {
		t.Errorf("the client reads %q, clientEnvs has %q", found, clientEnvs)
	}
}
