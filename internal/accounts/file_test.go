package accounts

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lpfileshare/lpfileshare/internal/policy"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// theSecret must not appear outside of an App.
const theSecret = "hunter2-hunter2"

// A folder contains an accounts file and secrets of every kind.
type folder struct {
	t   *testing.T
	dir string
}

// keyPEM generates a key once, since that takes long.
var keyPEM = sync.OnceValue(func() []byte {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
})

func newFolder(t *testing.T) folder {
	f := folder{t, t.TempDir()}
	f.write("secret", theSecret+"\n", 0o600)
	f.write("empty", "", 0o600)
	f.write("two-words", "two words", 0o600)
	f.write("open", theSecret, 0o604)
	f.write("key.pem", string(keyPEM()), 0o400)
	f.write("damaged.pem", strings.Replace(string(keyPEM()), "M", "A", 1), 0o600)
	f.write("encrypted.pem", string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")})), 0o600)
	block, _ := pem.Decode(keyPEM())
	key, err := x509.ParsePKCS1PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	f.write("public.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})), 0o600)
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := x509.MarshalPKCS8PrivateKey(curve)
	if err != nil {
		t.Fatal(err)
	}
	f.write("ec.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: ec})), 0o600)
	short, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	f.write("short.pem", string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(short)})), 0o600)
	return f
}

func (f folder) write(name, text string, mode os.FileMode) string {
	f.t.Helper()
	path := filepath.Join(f.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		f.t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		f.t.Fatal(err)
	}
	return path
}

func (f folder) read(text string) (*Set, error) {
	return Read(f.write("accounts.yaml", text, 0o644), testRules())
}

func testRules() Rules {
	return Rules{
		Flags: Account{
			Messenger: Messaging, Domains: map[string]string{"idp": "idp.example.com"}, DomainSuffixes: []string{".liveperson.net"},
			Settings: share.Settings{MaxFileBytes: 3_000_000, MaxImagePixels: 50_000_000, CheckETag: true, AcceptReceipts: true, AccessReceipts: true},
		},
		Services: []string{"agentVep", "idp", "swift"},
		CheckDomain: func(s string) error {
			if strings.Contains(s, "/") {
				return errors.New("not a host name")
			}
			return nil
		},
		CheckSuffix: func(s string) error {
			if s == "*" {
				return errors.New("neither a suffix nor a host")
			}
			return nil
		},
		MaxBytes: 100_000_000,
		LookupEnv: func(name string) (string, bool) {
			v, ok := map[string]string{"APP_SECRET": theSecret, "ISSUER_KEY": string(keyPEM()), "EMPTY": ""}[name]
			return v, ok
		},
	}
}

func TestRead(t *testing.T) {
	f := newFolder(t)
	s, err := f.read(`
accounts:
  "12345678":
    messenger: connector
    domains: {swift: objects.example.com}
    app: {id: install-1, secret_file: secret, webhooks: true}
    limits: {max_file_bytes: 5MB, documents: [PDF, DOCX]}
    images: {fit: true, strip_metadata: true}
  le87654321:
    domain_suffixes: [.example.com, other.example.net]
    identity:
      issuer:
        name: https://brand.example.com
        key_id: k1
        key_env: ISSUER_KEY
        lifetime: 10m
    check_etag: true
    access_receipts: false
    images: {fit: true, max_input_bytes: 10MiB}
  0099:
defaults: # in any place
  check_etag: false
  domains: {agentVep: login.example.com}
  limits: {max_file_bytes: 4000000, max_image_pixels: 20000000}
`)
	if err != nil {
		t.Fatal(err)
	}
	if s.Others != nil {
		t.Error("other accounts are handled by default")
	}
	base := testRules().Flags
	base.CheckETag, base.MaxFileBytes, base.MaxImagePixels = false, 4_000_000, 20_000_000
	base.Domains = map[string]string{"idp": "idp.example.com", "agentVep": "login.example.com"}

	first, second, third := base, base, base
	first.ID, first.Messenger, first.Domains = "12345678", Connector, map[string]string{"idp": "idp.example.com", "agentVep": "login.example.com", "swift": "objects.example.com"}
	first.App = &App{ID: "install-1", Secret: theSecret, Webhooks: true}
	first.MaxFileBytes, first.Documents, first.FitImages, first.MaxImageInputBytes, first.StripImages = 5_000_000, []share.FileType{share.PDF, share.DOCX}, true, 25_000_000, true
	second.ID, second.DomainSuffixes = "le87654321", []string{".example.com", "other.example.net"}
	second.CheckETag, second.AccessReceipts, second.FitImages, second.MaxImageInputBytes = true, false, true, 10<<20
	third.ID = "0099"

	issuer := s.Named["le87654321"].Issuer
	if issuer == nil || issuer.Name != "https://brand.example.com" || issuer.KeyID != "k1" || issuer.Lifetime != 10*time.Minute || issuer.Key == nil {
		t.Errorf("the issuer is %+v", issuer)
	}
	got := map[string]Account{}
	for id, a := range s.Named {
		a.Issuer = nil
		got[id] = a
	}
	if diff := cmp.Diff(map[string]Account{"12345678": first, "le87654321": second, "0099": third}, got); diff != "" {
		t.Error(diff)
	}
	if flags := testRules().Flags; flags.Domains["agentVep"] != "" {
		t.Error("the flags were changed")
	}
}

func TestRead_Others(t *testing.T) {
	f := newFolder(t)
	s, err := f.read("others: allow\ndefaults: {limits: {documents: true}}\n")
	if err != nil {
		t.Fatal(err)
	}
	a, ok := NewRegistry(s).Account("1")
	if !ok || a.ID != "1" || len(a.Documents) != len(share.Documents()) {
		t.Errorf("another account is %+v, %v", a, ok)
	}
	if s, err = f.read("others: refuse\naccounts: {12345678: }\n"); err != nil {
		t.Fatal(err)
	}
	if _, ok := NewRegistry(s).Account("1"); ok {
		t.Error("others: refuse, but another account is handled")
	}
}

func TestRead_Callers(t *testing.T) {
	f := newFolder(t)
	const text = `
callers: # in any place
- certificates: [uri:spiffe://mesh/*, "cn:chat"]
  accounts: [12345678, "99"]
  tokens: [consumer, agent]
- {certificates: any, accounts: all, consumers: "*"}
- certificates: "dns:reader"
  accounts: "99"
  methods: [read, SignInConsumer]
  tokens: consumer
- subjects: ["jwt:chat", "jwt:bank/*"]
  accounts: ["99"]
  tokens: consumer
accounts: {12345678: , "99": }
`
	s, err := f.read(text)
	if err != nil {
		t.Fatal(err)
	}
	permitted := func(s *Set, kind policy.Kind, name, account string, scheme share.Scheme) bool {
		return s.Callers.Check(policy.Request{Caller: policy.Caller{Name: policy.Name{Kind: kind, Value: name}}, Account: account, Scheme: scheme}) == nil
	}
	for _, account := range []string{"12345678", "99"} {
		for _, scheme := range []share.Scheme{share.ConsumerToken, share.AgentToken} {
			if !permitted(s, policy.URI, "spiffe://mesh/a", account, scheme) || !permitted(s, policy.CN, "chat", account, scheme) {
				t.Errorf("%s of %s is denied", scheme, account)
			}
		}
	}
	if permitted(s, policy.DNS, "chat", "99", share.ConsumerToken) || !permitted(s, policy.DNS, "chat", "99", share.ExternalConsumerID) {
		t.Error("a rule permits more or less than it says")
	}
	for method, line := range map[policy.Method]int{"Download": 7, "ListFiles": 7, "SignInConsumer": 7, "Upload": 0, "SignInAgent": 0} {
		rule, err := s.Callers.Decide(policy.Request{
			Caller: policy.Caller{Name: policy.Name{Kind: policy.DNS, Value: "reader"}}, Account: "99", Method: method, Scheme: share.ConsumerToken,
		})
		if (err == nil) != (line > 0) || err == nil && rule.Line != line {
			t.Errorf("%s: %+v, %v", method, rule, err)
		}
	}
	if !permitted(s, policy.JWT, "chat", "99", share.ConsumerToken) || !permitted(s, policy.JWT, "bank/pay", "99", share.ConsumerToken) ||
		permitted(s, policy.JWT, "chat", "99", share.ExternalConsumerID) || permitted(s, policy.JWT, "other", "99", share.ConsumerToken) {
		t.Error("a rule for tokens permits more or less than it says")
	}
	again, err := f.read("# a line more\n" + text)
	if err != nil {
		t.Fatal(err)
	}
	if c := again.Since(s); !cmp.Equal(c, Change{}) {
		t.Errorf("the same file changes %+v", c)
	}
	other, err := f.read(strings.Replace(text, "consumers", "tokens: agent, consumers", 1))
	if err != nil {
		t.Fatal(err)
	}
	if c := other.Since(s); !cmp.Equal(c, Change{Callers: true}) {
		t.Errorf("another rule changes %+v", c)
	}
	without, err := f.read("accounts: {1: }\n")
	if err != nil || without.Callers != nil || permitted(without, policy.CN, "chat", "1", share.ConsumerToken) {
		t.Errorf("a file without rules permits calls; %v", err)
	}
}

func TestRead_Faults(t *testing.T) {
	f := newFolder(t)
	const account = "accounts:\n  \"12345678\":\n" // its keys begin in line 3
	for _, test := range []struct {
		name, text string
		want       []string // "LINE start of the text", all faults in order
	}{
		{"nothing", "", []string{"0 is empty"}},
		{"no account", "others: refuse\n", []string{"0 names no account"}},
		{"no YAML", "accounts: [1,\nsecret: hunter2-hunter2\n", []string{"1 not YAML"}},
		{"two documents", "others: allow\n---\nothers: allow\n", []string{"3 a second document"}},
		{"no mapping", "- 12345678\n", []string{"1 the file must be a mapping"}},
		{"unknown keys", "acounts:\n  \"1\":\nfoo: 1\nothers: allow\n", []string{`1 the file has no key "acounts"; did you mean accounts?`, `3 the file has no key "foo"; the keys are accounts, callers, defaults, others`}},
		{"an id that is none", "accounts:\n  12/34:\n  12345678:\n", []string{`2 accounts: "12/34" is not an account id; use 1 to 32 letters and digits`}},
		{"an id twice", "accounts:\n  12345678:\n  \"12345678\":\n", []string{`3 accounts: "12345678" is a duplicate of line 2`}},
		{"anchors", "defaults: &d\n  check_etag: true\naccounts:\n  1: *d\n", []string{"1 defaults: anchors and aliases", "4 account 1: anchors and aliases"}},
		{"tags", account + "    check_etag: !!bool true\n", []string{"3 account 12345678: check_etag: tags are not supported"}},
		{
			"wrong types", account + "    messenger: mesaging\n    domains: [a]\n    domain_suffixes: {a: b}\n    check_etag: yes\n    limits:\n      max_file_bytes: 1.5MB\n" +
				"      max_image_pixels: many\n      documents: 1\n    images: true\n",
			[]string{
				"3 account 12345678: messenger must be messaging or connector", "4 account 12345678: domains must be a mapping",
				"5 account 12345678: domain_suffixes must be a list", "6 account 12345678: check_etag must be true or false",
				"8 account 12345678: limits.max_file_bytes: \"1.5MB\" is not a size", "9 account 12345678: limits.max_image_pixels must be a whole number",
				"10 account 12345678: limits.documents must be true, false, or a list of types", "11 account 12345678: images must be a mapping",
			},
		},
		{
			"values that cannot be", account + "    domains: {swift: 'http://a/b', Swift: a}\n    domain_suffixes: ['*']\n    limits: {max_file_bytes: 0, max_image_pixels: 50000001, documents: [PDF, JPEG]}\n    images: {max_input_bytes: 1GB}\n",
			[]string{
				"3 account 12345678: domains.swift: not a host name", `3 account 12345678: domains has no key "Swift"; did you mean swift?`,
				"4 account 12345678: domain_suffixes: neither", "5 account 12345678: limits.max_file_bytes must be more than 0",
				"5 account 12345678: limits.max_image_pixels: 50000001 pixels exceed",
				`5 account 12345678: limits.documents: there is no document type "JPEG"; there are PDF, TXT, DOCX, XLSX, PPTX`,
				"6 account 12345678: images.max_input_bytes: 1000000000 bytes exceed the server's --memory-budget",
			},
		},
		{"credentials for all", "defaults:\n  app: {id: a}\n  identity: {}\nothers: allow\n", []string{"2 defaults: identity and app", "3 defaults: identity and app"}},
		{"connector without app", account + "    messenger: connector\n", []string{"2 account 12345678: messenger: connector needs app"}},
		{"app without connector", account + "    app: {id: a, secret_file: secret}\n", []string{"2 account 12345678: app is for the Connector API"}},
		{"connector for all", "defaults: {messenger: connector}\nothers: allow\n", []string{"1 defaults: the Connector API needs an app install for each account"}},
		{
			"an issuer of the Connector API", account + "    messenger: connector\n    app: {id: a, secret_file: secret}\n    identity: {issuer: {name: b, key_file: key.pem}}\n",
			[]string{"2 account 12345678: identity.issuer signs in consumers over the messaging socket"},
		},
		{"nothing in an app", account + "    messenger: connector\n    app:\n", []string{"4 account 12345678: app needs secret_file or secret_env"}},
		{"an app without id", account + "    messenger: connector\n    app: {secret_env: APP_SECRET}\n", []string{"4 account 12345678: app needs id"}},
		{"the secret itself", account + "    messenger: connector\n    app:\n      id: a\n      secret: hunter2-hunter2\n", []string{
			"5 account 12345678: app needs secret_file or secret_env", "6 account 12345678: app: this file must not contain secrets",
		}},
		{"the secret as a variable's name", account + "    messenger: connector\n    app: {id: a, secret_env: hunter2-hunter2}\n", []string{"4 account 12345678: app.secret_env must be the name of"}},
		{"the secret as a file's name", account + "    messenger: connector\n    app: {id: a, secret_file: hunter2-hunter2}\n", []string{"4 account 12345678: app.secret_file cannot be used: no such file"}},
		{"a variable that is empty", account + "    messenger: connector\n    app: {id: a, secret_env: EMPTY}\n", []string{"4 account 12345678: app.secret_env: the server's environment has no such variable"}},
		{"a secret that is empty", account + "    messenger: connector\n    app: {id: a, secret_file: empty}\n", []string{"4 account 12345678: app.secret_file cannot be used: it is empty"}},
		{"a secret of two words", account + "    messenger: connector\n    app: {id: a, secret_file: two-words}\n", []string{"4 account 12345678: app: the secret must be one word"}},
		{"a secret that is a folder", account + "    messenger: connector\n    app: {id: a, secret_file: .}\n", []string{"4 account 12345678: app.secret_file cannot be used: "}},
		{"two secrets", account + "    messenger: connector\n    app: {id: a, secret_file: secret, secret_env: APP_SECRET}\n", []string{"4 account 12345678: app has both secret_file and secret_env"}},
		{"a secret that every user may read", account + "    messenger: connector\n    app: {id: a, secret_file: open}\n", []string{"4 account 12345678: app.secret_file cannot be used: every user of this machine can access it (mode 0604)"}},
		{"no key", account + "    identity: {issuer: {name: b}}\n", []string{"3 account 12345678: identity.issuer needs key_file or key_env"}},
		{"the key itself", account + "    identity:\n      issuer:\n        name: b\n        private_key: hunter2-hunter2\n", []string{
			"5 account 12345678: identity.issuer needs key_file", "6 account 12345678: identity.issuer: this file must not contain secrets",
		}},
		{"an issuer without name", account + "    identity: {issuer: {key_file: key.pem}}\n", []string{"3 account 12345678: identity.issuer needs name"}},
		{"an issuer for too long", account + "    identity: {issuer: {name: b, key_file: key.pem, lifetime: 48h}}\n", []string{"3 account 12345678: identity.issuer.lifetime must be a time from 1m0s to 24h0m0s"}},
		{"a key that is no PEM", account + "    identity: {issuer: {name: b, key_file: secret}}\n", []string{"3 account 12345678: identity.issuer: the key is not PEM"}},
		{"a public key", account + "    identity: {issuer: {name: b, key_file: public.pem}}\n", []string{"3 account 12345678: identity.issuer: the PEM has no private key"}},
		{"a key that is damaged", account + "    identity: {issuer: {name: b, key_file: damaged.pem}}\n", []string{"3 account 12345678: identity.issuer: the private key cannot be read"}},
		{"a key that is not RSA", account + "    identity: {issuer: {name: b, key_file: ec.pem}}\n", []string{"3 account 12345678: identity.issuer: the key must be RSA"}},
		{"a key that is encrypted", account + "    identity: {issuer: {name: b, key_file: encrypted.pem}}\n", []string{"3 account 12345678: identity.issuer: the key is encrypted"}},
		{"a key that is too short", account + "    identity: {issuer: {name: b, key_file: short.pem}}\n", []string{"3 account 12345678: identity.issuer: the key has 1024 bits, the minimum is 2048"}},
		{"rules that are no list", "others: allow\ncallers: {certificates: any}\n", []string{"2 callers must be a list of rules"}},
		{"no rules", "others: allow\ncallers: []\n", []string{"2 callers must be a list of rules"}},
		{"nothing after callers", "others: allow\ncallers:\n", []string{"2 callers must be a list of rules"}},
		{
			"rules that permit nothing", "others: allow\ncallers:\n- {accounts: all, tokens: consumer}\n- {certificates: any, tokens: consumer}\n- {certificates: any, accounts: all}\n-\n",
			[]string{
				"3 callers, rule 1 needs certificates", "4 callers, rule 2 needs accounts", "5 callers, rule 3 permits nothing; add tokens",
				"6 callers, rule 4 needs certificates",
			},
		},
		{
			"rules with methods that cannot be", "others: allow\ncallers:\n- {certificates: any, accounts: all, tokens: consumer, methods: [read, Uplaod]}\n" +
				"- {certificates: any, accounts: all, tokens: consumer, methods: []}\n- {certificates: any, accounts: all, tokens: consumer, methods: }\n",
			[]string{
				`3 callers, rule 1: methods: there is no method or group "Uplaod"; the groups are read, write, sign-in, account-settings, the methods Download, `,
				"4 callers, rule 2: methods is empty", "5 callers, rule 3: methods must be a list",
			},
		},
		{
			"rules with values that cannot be", "callers:\n- certificates: [any, spiffe://mesh/a]\n  accounts: [\"1\", \"2\"]\n  tokens: [consumer, manager]\n  consumers: [a*b]\n" +
				"- certificates: cn:*\n  accounts: All\n  tokens: {consumer: true}\n  method: Upload\naccounts: {1: }\n",
			[]string{
				`2 callers, rule 1: certificates: "spiffe://mesh/a" does not begin with a kind of names; write uri:`,
				`3 callers, rule 1: accounts: this file has no account "2"`, `4 callers, rule 1: tokens: there are no tokens of "manager"`,
				"5 callers, rule 1: consumers: * is allowed only at the end", "6 callers, rule 2: certificates: a cn has no patterns",
				`7 callers, rule 2: accounts: this file has no account "All"`, "8 callers, rule 2: tokens must be a list",
				`9 callers, rule 2 has no key "method"; did you mean methods?`,
			},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			if strings.Contains(test.name, "every user") && runtime.GOOS == "windows" {
				t.Skip("Windows does not have these permissions")
			}
			s, err := f.read(test.text)
			faults, ok := errors.AsType[Faults](err)
			if !ok || s != nil {
				t.Fatalf("it was accepted: %v, %v", s, err)
			}
			var got []string
			for _, fault := range faults {
				got = append(got, fmt.Sprintf("%d %s", fault.Line, fault.Text))
			}
			if !slices.EqualFunc(got, test.want, strings.HasPrefix) {
				t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(test.want, "\n\t"))
			}
			if strings.Contains(err.Error(), theSecret) || strings.Contains(faults.OneLine(), theSecret) {
				t.Errorf("the secret is shown: %v", err)
			}
			if strings.Contains(faults.OneLine(), "\n") {
				t.Errorf("more than one line: %s", faults.OneLine())
			}
			for _, line := range strings.Split(err.Error(), "\n") {
				if !strings.HasPrefix(line, filepath.Join(f.dir, "accounts.yaml")+":") {
					t.Errorf("%q does not begin with the file", line)
				}
			}
		})
	}
	if _, err := Read(filepath.Join(f.dir, "nowhere"), testRules()); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("no file: %v", err)
	}
}

func TestSince(t *testing.T) {
	f := newFolder(t)
	read := func(text string) *Set {
		s, err := f.read(text)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	const before = `
accounts:
  1: {identity: {issuer: {name: b, key_file: key.pem}}}
  2: {messenger: connector, app: {id: a, secret_file: secret}}
  3: {check_etag: true}
  4:
`
	old := read(before)
	if c := read(before).Since(old); !cmp.Equal(c, Change{}) {
		t.Errorf("the same file changes %+v", c)
	}
	f.write("secret", "another-secret", 0o600) // the file itself is unchanged
	if c := read(before).Since(old); !cmp.Equal(c, Change{Changed: []string{"2"}}) {
		t.Errorf("another secret changes %+v", c)
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	f.write("secret", theSecret, 0o600)
	f.write("other.pem", string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})), 0o600)
	got := read(`
others: allow
accounts:
  1: {identity: {issuer: {name: b, key_file: other.pem}}}
  2: {messenger: connector, app: {id: a, secret_file: secret}}
  3: {check_etag: false}
  5:
`).Since(old)
	if want := (Change{Added: []string{"5"}, Removed: []string{"4"}, Changed: []string{"1", "3"}, Others: true}); !cmp.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestAccount_Secrets(t *testing.T) {
	f := newFolder(t)
	s, err := f.read(`
accounts:
  1: {messenger: connector, app: {id: a, secret_env: APP_SECRET}}
  2: {identity: {issuer: {name: b, key_file: key.pem}}}
`)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&out, nil))
	log.Info("x", "set", s, "account", s.Named["1"], "app", s.Named["1"].App, "issuer", s.Named["2"].Issuer)
	for _, a := range s.Named {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
			fmt.Fprintf(&out, verb+"\n"+verb+"\n"+verb+"\n", a, a.App, a.Issuer)
		}
	}
	// Printed by Go, an RSA key shows its numbers.
	block, _ := pem.Decode(keyPEM())
	key, _ := x509.ParsePKCS1PrivateKey(block.Bytes)
	for _, secret := range []string{theSecret, key.D.String(), key.Primes[0].String()} {
		if strings.Contains(out.String(), secret) {
			t.Errorf("a secret is shown:\n%.2000s", out.String())
		}
	}
}

func TestRegistry_SettingsOfEachAccount(t *testing.T) {
	f := newFolder(t)
	s, err := f.read("accounts: {1: {images: {max_input_bytes: 8MB}}, 2: {images: {fit: true, max_input_bytes: 8MB}, limits: {max_file_bytes: 5MB}}}\n")
	if err != nil {
		t.Fatal(err)
	}
	r := NewRegistry(s)
	if got := r.Settings("1"); got.MaxImageInputBytes != 0 || got.MaxFileBytes != 3_000_000 {
		t.Errorf("without fit: %+v", got)
	}
	if got := r.Settings("2"); got.MaxImageInputBytes != 8_000_000 || got.MaxFileBytes != 5_000_000 {
		t.Errorf("with fit: %+v", got)
	}
	if got := r.Settings("3"); got.MaxFileBytes != 3_000_000 || !got.CheckETag {
		t.Errorf("an account that is not handled: %+v", got)
	}
	if got := r.AccountOrFlags("3"); got.Domains["idp"] != "idp.example.com" {
		t.Errorf("an account that is not handled: %+v", got)
	}
}
