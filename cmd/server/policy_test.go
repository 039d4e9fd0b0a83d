package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/lpfileshare/lpfileshare/internal/policy"
)

func TestPolicyTest(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	rules := write("accounts.yaml", `callers:
- certificates: ["uri:spiffe://mesh/chat/*"]
  accounts: ["1"]
  methods: [read, Upload]
  tokens: consumer
- certificates: dns:pay
  accounts: all
  consumers: "pay-*"
accounts:
  "1": {identity: {issuer: {name: a, key_file: not-here.pem}}}
  "2":
`)
	none := write("none.yaml", "others: allow\n")
	broken := write("broken.yaml", "others: allow\ncallers: [{certificates: any}]\n")
	right := write("right.yaml", `cases:
- {callers: uri:spiffe://mesh/chat/a, accounts: "1", methods: read, tokens: consumer, want: permitted}
- {callers: uri:spiffe://mesh/chat/a, accounts: ["1", "2"], methods: [PublishUpload, sign-in, account-settings], tokens: [consumer, agent], want: denied}
- {callers: cn:pay, accounts: "1", consumers: pay-1, want: denied}
`)
	wrong := write("wrong.yaml", `cases:
- {callers: uri:spiffe://mesh/chat/a, accounts: "1", methods: [Upload, PublishUpload], tokens: consumer, want: permitted}
- {callers: dns:pay, accounts: "2", methods: Upload, consumers: [pay-1, chat-1], want: denied}
`)
	chat, pay := "--caller=uri:spiffe://mesh/chat/a", "--caller=dns:pay"
	for _, test := range []struct {
		args []string
		code int
		out  []string // what the output contains
	}{
		{[]string{rules, chat, "--account=1", "--method=Upload", "--token=consumer"}, 0, []string{"permitted: by the rule at " + rules + ":2\n"}},
		{[]string{rules, chat, "--account=1", "--method=PublishUpload", "--token=consumer"}, 1, []string{"denied: the caller", "may not call PublishUpload for account 1"}},
		{[]string{rules, chat, "--account=2", "--method=Upload", "--token=consumer"}, 1, []string{"may not call for account 2"}},
		{[]string{rules, chat, "--account=3", "--method=Upload", "--token=consumer"}, 1, []string{"has no account 3"}},
		{[]string{rules, "--caller=cn:pay", "--account=1", "--method=Upload", "--token=consumer"}, 1, []string{"is named by no rule"}},
		{[]string{rules, pay, "--account=2", "--method=Download", "--consumer=pay-1"}, 0, []string{rules + ":6\n"}},
		{[]string{rules, pay, "--account=2", "--method=Download", "--consumer=chat-1"}, 1, []string{"may not call Download for this consumer of account 2"}},
		{[]string{rules, pay, "--account=3", "--method=Download", "--consumer=pay-1"}, 1, []string{"has no account 3"}},
		// Tables.
		{[]string{rules, chat, "--account=1"}, 0, []string{
			"ACCOUNT  METHOD ", "1        Upload              consumer token  permitted by " + rules + ":2\n", "1        Upload              agent token     denied\n",
			"1        RenewConsumer       consumer token  denied\n", "1        SignInAgent         agent token     denied\n",
		}},
		{[]string{rules, chat, "--method=Upload", "--token=agent"}, 1, []string{"1        Upload  agent token  denied\n2        Upload  agent token  denied\n"}},
		{[]string{rules, pay, "--method=write", "--consumer=pay-1"}, 0, []string{"2        CloseConversation   consumer pay-1  permitted by " + rules + ":6\n"}},
		// Cases.
		{[]string{rules, "--cases=" + right}, 0, []string{"46 of 46 answers are as expected\n"}},
		{[]string{rules, "--cases=" + wrong}, 1, []string{
			wrong + ":2: uri:spiffe://mesh/chat/a, account 1, PublishUpload, consumer token: the caller",
			wrong + ":3: dns:pay, account 2, Upload, consumer pay-1: want denied, but it is permitted by " + rules + ":6\n", "2 of 4 answers are as expected\n",
		}},
		// Errors.
		{[]string{none, chat}, 2, []string{"has no rules"}},
		{[]string{broken, chat}, 2, []string{broken + ":2: callers, rule 1 needs accounts"}},
		{[]string{rules + ".missing", chat}, 2, []string{"cannot be read"}},
		{[]string{rules}, 2, []string{"add --caller NAME"}},
		{[]string{rules, chat, "--token=manager"}, 2, []string{"--token must be one of"}},
		{[]string{rules, chat, "--token=agent", "--consumer=c"}, 2, []string{"exclude each other"}},
		{[]string{rules, chat, "--cases=" + right}, 2, []string{"leave out --caller"}},
		{[]string{rules, "--caller=any"}, 2, []string{"stands for several names"}},
		{[]string{rules, chat, "--account=a/b"}, 2, []string{"is not an account id"}},
		{[]string{rules, chat, "--method=upload"}, 2, []string{`no method or group "upload"`}},
		{[]string{rules, chat, "--method=SignInAgent", "--consumer=c"}, 2, []string{"returns no such identity"}},
		{[]string{rules, "--cases=" + rules}, 2, []string{`accounts.yaml:1: the file has no key "callers"`}},
		{[]string{rules, chat, "--listen=127.0.0.1:0"}, 2, []string{"unknown flag --listen"}},
	} {
		var out, errs bytes.Buffer
		code := run(t.Context(), append([]string{"policy", "test", "--accounts"}, test.args...), &out, &errs)
		text := out.String() + errs.String()
		if code != test.code || (code == 2) != (out.Len() == 0) || (code == 2) != (errs.Len() > 0) {
			t.Errorf("%q: code %d, want %d: %s", test.args, code, test.code, text)
		}
		for _, want := range test.out {
			if !strings.Contains(text, want) {
				t.Errorf("%q: no %q in\n%s", test.args, want, text)
			}
		}
	}
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"policy", "test", "--help"}, &out, &errs); code != 0 || !strings.Contains(out.String(), "--cases=FILE") || errs.Len() > 0 {
		t.Errorf("--help: code %d, %s%s", code, out.String(), errs.String())
	}
}

// The examples and the table of groups in docs/accounts.md are true.
func TestPolicyTest_Documentation(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../../docs/accounts.md")
	if err != nil {
		t.Fatal(err)
	}
	var args []string
	for i, example := range regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(doc, 2) {
		file := filepath.Join(t.TempDir(), fmt.Sprintf("%d.yaml", i))
		if err := os.WriteFile(file, example[1], 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, file)
	}
	var out, errs bytes.Buffer
	if code := run(t.Context(), []string{"policy", "test", "--accounts", args[0], "--cases", args[1]}, &out, &errs); code != 0 {
		t.Errorf("code %d: %s%s", code, out.String(), errs.String())
	}
	for _, group := range policy.Groups() {
		row := "| `" + string(group) + "` |"
		for i, m := range group.Methods() {
			row += strings.Repeat(",", min(i, 1)) + " `" + string(m) + "`"
		}
		if !bytes.Contains(doc, []byte("\n"+row+" |\n")) {
			t.Errorf("docs/accounts.md has no row %s", row)
		}
	}
}
