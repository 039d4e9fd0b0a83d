package main

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/sandbox"
)

// overConnector is the environment variable that makes the tests of this package use the Connector API: every world then has such an
// account, and its consumers have external ids.
const overConnector = "LPFILESHARE_TEST_OVER_CONNECTOR"

// suites are the tests that must pass over both messengers. The others test consumer tokens, sockets, or no messenger at all.
var suites = []struct {
	name  string
	tests []string
}{
	{"journeys", []string{
		"TestUpload_DownloadReturnsTheFile", "TestWatch_AgentSeesAFileAndSendsOne", "TestDownload_RejectsOtherConsumersFiles",
		"TestListFiles_SeparatesConversations", "TestReceipts_AreSentUnlessDisabled", "TestSetFileSharing",
		"TestListFiles_BigDialogBreaksNothing",
	}},
	{"trouble", []string{
		"TestUpload_TransientFaultsAreHidden", "TestUpload_ReportsRejectionsByReason",
		"TestUpload_RejectsClosedConversation", "TestCreateConversation_LostAnswerCreatesOne",
	}},
	{"restarts", []string{
		"TestDrain_RunningUploadsEnd", "TestDrain_CutUploadsSucceedElsewhere",
		"TestLedger_RemembersRequestIDAcrossRestart",
	}},
}

// TestSuitesOverConnector runs them again, in a process of their own, and prints what was run over which messenger. Over the
// messaging socket they run as tests of this package.
func TestSuitesOverConnector(t *testing.T) {
	t.Parallel()
	if os.Getenv(overConnector) != "" {
		return // this is that process
	}
	var all []string
	for _, s := range suites {
		all = append(all, s.tests...)
	}
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary, "-test.run=^("+strings.Join(all, "|")+")$", "-test.v", "-test.parallel=8", "-test.timeout=8m")
	cmd.Env = append(os.Environ(), overConnector+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, failures(out))
	}
	results := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^--- (\w+): (\w+) \(`).FindAllSubmatch(out, -1) {
		results[string(m[2])] = string(m[1])
	}
	var matrix bytes.Buffer
	w := tabwriter.NewWriter(&matrix, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "suite\tmessaging\tconnector")
	for _, s := range suites {
		passed := 0
		for _, name := range s.tests {
			if results[name] == "PASS" {
				passed++
			} else {
				t.Errorf("%s over the Connector API: %s", name, cmp.Or(results[name], "not run"))
			}
		}
		fmt.Fprintf(w, "%s\t%d tests\t%d of %d pass\n", s.name, len(s.tests), passed, len(s.tests))
	}
	_ = w.Flush()
	fmt.Printf("%s", matrix.Bytes())
}

// failures are the lines of a test's output that are not about what passed.
func failures(out []byte) string {
	var b strings.Builder
	for line := range strings.Lines(string(out)) {
		if b.Len() < 20_000 && !strings.HasPrefix(strings.TrimSpace(line), "=== ") && !strings.Contains(line, "--- PASS") {
			b.WriteString(line)
		}
	}
	return b.String()
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

// hook registers the server's webhooks in the app install, if it takes any.
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
