package accounts

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestReadCases(t *testing.T) {
	t.Parallel()
	read := func(text string) ([]Case, error) {
		file := filepath.Join(t.TempDir(), "cases.yaml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return ReadCases(file)
	}
	cases, err := read(`# a comment
cases:
- callers: [uri:spiffe://mesh/a, dns:b]
  accounts: ["1", "2"]
  methods: [Upload, SignInAgent]
  tokens: [consumer, agent]
  consumers: c
  want: permitted
- {callers: cn:c, accounts: "1", tokens: agent, want: denied}
`)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for q := range cases[0].Requests {
		got = append(got, fmt.Sprint(q.Caller.Name, " ", q.Account, " ", q.Method, " ", q.Scheme, q.Consumer))
	}
	var want []string
	for _, start := range []string{"uri:spiffe://mesh/a 1", "uri:spiffe://mesh/a 2", "dns:b 1", "dns:b 2"} {
		for _, end := range []string{"Upload lp-consumer-token", "Upload lp-agent-token", "Upload lp-external-consumer-idc", "SignInAgent lp-agent-token"} {
			want = append(want, start+" "+end)
		}
	}
	if !slices.Equal(got, want) || cases[0].Line != 3 || !cases[0].Permitted {
		t.Errorf("line %d, permitted %v:\n%s", cases[0].Line, cases[0].Permitted, strings.Join(got, "\n"))
	}
	// Without methods, all, except sign-ins of consumers.
	if n := len(slices.Collect(cases[1].Requests)); len(cases) != 2 || n != 17 || cases[1].Line != 9 || cases[1].Permitted {
		t.Errorf("%d cases, the second in line %d with %d requests, permitted %v", len(cases), cases[1].Line, n, cases[1].Permitted)
	}

	for _, test := range []struct{ text, want string }{
		{"", "cases.yaml: is empty; it needs cases, a list"},
		{"cases: []\n", "cases.yaml: has no cases"},
		{"cases: {callers: cn:a}\n", "cases.yaml:1: cases must be a list"},
		{"case:\n- {}\n", `cases.yaml:1: the file has no key "case"; did you mean cases?`},
		{"cases:\n- {accounts: '1', tokens: agent, want: denied}\n", "cases.yaml:2: case 1 needs callers"},
		{"cases:\n- {callers: cn:a, tokens: agent, want: denied}\n", "cases.yaml:2: case 1 needs accounts"},
		{"cases:\n- {callers: cn:a, accounts: '1', want: denied}\n", "cases.yaml:2: case 1 needs tokens or consumers"},
		{"cases:\n- {callers: cn:a, accounts: '1', tokens: agent}\n", "cases.yaml:2: case 1 needs want"},
		{"cases:\n- {callers: cn:a, accounts: '1', tokens: agent, want: yes}\n", "cases.yaml:2: case 1: want must be permitted or denied"},
		{"cases:\n- {callers: any, accounts: '1', tokens: agent, want: denied}\n", `"any" stands for several names`},
		{"cases:\n- {callers: 'dns:*.a', accounts: '1', tokens: agent, want: denied}\n", `"dns:*.a" stands for several names`},
		{"cases:\n- {callers: cn:a, accounts: all/1, tokens: agent, want: denied}\n", `"all/1" is not an account id`},
		{"cases:\n- {callers: cn:a, accounts: '1', methods: upload, tokens: agent, want: denied}\n", `there is no method or group "upload"`},
		{"cases:\n- {callers: cn:a, accounts: '1', methods: RenewConsumer, tokens: agent, want: denied}\n", "case 1 asks nothing"},
		{"cases:\n- {callers: cn:a, accounts: '1', consumers: 'a b', want: denied}\n", "must be a consumer's id"},
	} {
		if cases, err := read(test.text); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: %+v, %v; want %q", test.text, cases, err, test.want)
		}
	}
}

// Rules can be tested where the secrets are not.
func TestRead_NoSecrets(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "accounts.yaml")
	const text = "accounts:\n  \"1\":\n    identity: {issuer: {name: a, key_file: missing.pem}}\n  \"2\":\n    messenger: connector\n    app: {id: a, secret_env: MISSING}\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var read []string
	rules := Rules{
		Flags: Account{Messenger: Messaging}, CheckDomain: func(string) error { return nil }, CheckSuffix: func(string) error { return nil },
		Reads: func(path string) { read = append(read, filepath.Base(path)) },
	}
	if s, err := Read(file, rules); err == nil {
		t.Errorf("missing secrets are accepted: %+v", s)
	}
	if want := []string{"accounts.yaml", "missing.pem"}; !slices.Equal(read, want) {
		t.Errorf("read %q, want %q", read, want)
	}
	rules.NoSecrets = true
	if s, err := Read(file, rules); err != nil || len(s.Named) != 2 {
		t.Errorf("%v, %v", s, err)
	}
}
