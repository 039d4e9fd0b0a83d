package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/sandbox"
)

// A worldFunc starts a sandbox and a server. The server's account uses the messaging socket, or the Connector API.
type worldFunc func(t *testing.T, opts sandbox.Options, args ...string) *world

// overBoth runs a test over the messaging socket and over the Connector API, where consumers have external ids.
func overBoth(t *testing.T, test func(t *testing.T, newWorld worldFunc)) {
	t.Helper()
	t.Parallel()
	t.Run("messaging", func(t *testing.T) {
		t.Parallel()
		test(t, newWorld)
	})
	t.Run("connector", func(t *testing.T) {
		t.Parallel()
		test(t, func(t *testing.T, opts sandbox.Options, args ...string) *world {
			return newConnectorWorld(t, opts, true, args...)
		})
	})
}

// externalID returns LivePerson's id of a consumer with an external id, as the sandbox makes it.
func externalID(external string) string {
	sum := sha256.Sum256([]byte(account + "\x00consumer\x00" + external))
	return hex.EncodeToString(sum[:])
}

// connectorArgs are the flags of a server whose account uses the sandbox's app install.
func (w *world) connectorArgs(webhooks bool) []string {
	w.t.Helper()
	dir := w.t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			w.t.Fatal(err)
		}
		return path
	}
	write("secret", sandbox.DefaultAppSecret+"\n")
	file := write("accounts.yaml", fmt.Sprintf("accounts:\n  %q:\n    messenger: connector\n    app: {id: %s, secret_file: secret, webhooks: %t}\n", account, sandbox.DefaultAppID, webhooks))
	// What is known of conversations is in the ledger's files: a server that is started again has to have them.
	args := []string{"--accounts=" + file, "--ledger=embedded", "--data-dir=" + filepath.Join(dir, "data")}
	if webhooks {
		args = append(args, "--webhook-listen=127.0.0.1:0")
	}
	return args
}

// hook registers the server's webhooks in the app install, if the server receives any.
func (w *world) hook() {
	w.t.Helper()
	if w.server.Webhooks == "" {
		return
	}
	w.webhooks = "http://" + w.server.Webhooks + "/webhooks"
	hooks := sandbox.Webhooks{Endpoints: sandbox.AllEvents(w.webhooks), Retention: 10 * time.Minute, Signature: "sha256"}
	if err := w.sb.SetWebhooks("", "", hooks); err != nil {
		w.t.Fatal(err)
	}
}
