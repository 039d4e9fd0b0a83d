package policy

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

func TestNameOf(t *testing.T) {
	uri := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	for want, c := range map[string]*x509.Certificate{
		"uri:spiffe://mesh/orders": {
			URIs:     []*url.URL{uri("https://example.com/x"), uri("spiffe://mesh/orders")},
			DNSNames: []string{"orders.example.com"}, Subject: pkix.Name{CommonName: "orders"},
		},
		"uri:https://example.com/x": {URIs: []*url.URL{uri("https://example.com/x")}, DNSNames: []string{"orders.example.com"}},
		"dns:orders.example.com":    {DNSNames: []string{"Orders.example.com", "b.example.com"}, Subject: pkix.Name{CommonName: "orders"}},
		"cn:orders":                 {Subject: pkix.Name{CommonName: "orders"}},
		"cn:spiffe://mesh/orders":   {Subject: pkix.Name{CommonName: "spiffe://mesh/orders"}},
		"cn:uri:spiffe://mesh/a":    {Subject: pkix.Name{CommonName: "uri:spiffe://mesh/a"}},
		"dns:uri:spiffe://mesh/a":   {DNSNames: []string{"uri:spiffe://mesh/a"}},
		"":                          {Subject: pkix.Name{Organization: []string{"orders"}}},
	} {
		if got := NameOf(c).String(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestPattern_Matches(t *testing.T) {
	for _, test := range []struct {
		pattern string
		name    Name
		want    bool
	}{
		{"uri:spiffe://mesh/a", Name{URI, "spiffe://mesh/a"}, true},
		{"uri:spiffe://mesh/a", Name{CN, "spiffe://mesh/a"}, false},
		{"uri:spiffe://mesh/a", Name{DNS, "spiffe://mesh/a"}, false},
		{"uri:spiffe://mesh/a", Name{CN, "uri:spiffe://mesh/a"}, false},
		{"cn:spiffe://mesh/a", Name{URI, "spiffe://mesh/a"}, false},
		{"cn:spiffe://mesh/a", Name{CN, "spiffe://mesh/a"}, true},
		{"uri:spiffe://mesh/a", Name{URI, "spiffe://mesh/a/b"}, false},
		{"uri:spiffe://mesh/a", Name{URI, "spiffe://mesh/ab"}, false},
		{"uri:spiffe://mesh/a", Name{URI, "spiffe://mesh/a/"}, false},
		{"uri:spiffe://mesh/ns/*/sa/chat", Name{URI, "spiffe://mesh/ns/bank/sa/chat"}, true},
		{"uri:spiffe://mesh/ns/*/sa/chat", Name{URI, "spiffe://mesh/ns/bank/sa/other"}, false},
		{"uri:spiffe://mesh/ns/*/sa/chat", Name{URI, "spiffe://mesh/ns/a/b/sa/chat"}, false},
		{"uri:spiffe://mesh/*", Name{URI, "spiffe://mesh/a"}, true},
		{"uri:spiffe://mesh/*", Name{URI, "spiffe://mesh/"}, false},
		{"uri:spiffe://mesh/*", Name{URI, "spiffe://mesh"}, false},
		{"uri:spiffe://mesh/*", Name{URI, "spiffe://mesh/.."}, false},
		{"uri:spiffe://mesh/*", Name{URI, "spiffe://other/a"}, false},
		{"uri:spiffe://mesh/*", Name{CN, "spiffe://mesh/a"}, false},
		{"dns:Chat.Example.com", Name{DNS, "chat.example.com"}, true},
		{"dns:*.example.com", Name{DNS, "chat.example.com"}, true},
		{"dns:*.example.com", Name{DNS, "a.chat.example.com"}, false},
		{"dns:*.example.com", Name{DNS, "example.com"}, false},
		{"dns:*.example.com", Name{CN, "chat.example.com"}, false},
		{"cn:Chat Service", Name{CN, "Chat Service"}, true},
		{"cn:chat", Name{CN, "Chat"}, false},
		{"any", Name{JWT, "chat"}, false}, // of certificates
		{"cn:chat", Name{JWT, "chat"}, false},
		{"jwt:chat", Name{JWT, "chat"}, true},
		{"jwt:chat", Name{CN, "chat"}, false},
		{"jwt:chat", Name{JWT, "Chat"}, false},
		{"jwt:spiffe://mesh/a", Name{URI, "spiffe://mesh/a"}, false},
		{"uri:spiffe://mesh/a", Name{JWT, "spiffe://mesh/a"}, false},
		{"jwt:system:serviceaccount:bank:chat", Name{JWT, "system:serviceaccount:bank:chat"}, true},
		{"jwt:bank/*", Name{JWT, "bank/chat"}, true},
		{"jwt:bank/*", Name{JWT, "bank/chat/a"}, false},
		{"jwt:bank/*", Name{JWT, "bank/"}, false},
		{"jwt:bank/*", Name{JWT, "other/chat"}, false},
		{"any subject", Name{JWT, "chat"}, true},
		{"any subject", Name{CN, "chat"}, false},
		{"any subject", Name{}, false},
		{"any", Name{CN, "x"}, true},
		{"any", Name{URI, "spiffe://mesh/a"}, true},
		{"any", Name{}, false},
	} {
		parse := ParsePattern
		if strings.HasPrefix(test.pattern, "jwt:") || test.pattern == "any subject" {
			parse = ParseSubject
		}
		p, err := parse(strings.TrimSuffix(test.pattern, " subject"))
		if err != nil {
			t.Errorf("%s: %v", test.pattern, err)
			continue
		}
		if got := p.Matches(test.name); got != test.want {
			t.Errorf("%s matches %s: %v", test.pattern, test.name, got)
		}
		// A Policy finds the rule of a name the same way, whether it is indexed or not.
		err = New([]Rule{{Certificates: []Pattern{p}, AllAccounts: true, Tokens: []share.Scheme{share.AgentToken}}}).
			Check(Request{Caller: Caller{Name: test.name}, Account: "1", Scheme: share.AgentToken})
		if (err == nil) != test.want {
			t.Errorf("%s as %s: %v", test.name, test.pattern, err)
		}
	}
}

func TestParsePattern_Rejects(t *testing.T) {
	for _, text := range []string{
		"", "*", "spiffe://mesh/a", "chat.example.com", "uri:", "dns:", "cn:", "URI:spiffe://mesh/a", "ip:10.0.0.1", "any:x",
		"uri:*", "uri:spiffe://*/a", "uri:*://mesh/a", "uri:spiffe:*", "uri:spiffe://mesh/a*", "uri:spiffe://mesh/**", "uri:urn:a:*", "uri:urn:a/*",
		"dns:*", "dns:a*.example.com", "dns:**.example.com", "cn:*", "cn:a*", "cn:a/*", "cn:a\nb", "uri:spiffe://mesh/" + strings.Repeat("a", maxPattern),
	} {
		if p, err := ParsePattern(text); err == nil {
			t.Errorf("%q was accepted: %+v", text, p)
		}
	}
	for _, text := range []string{"", "*", "chat", "jwt:", "jwt:*", "jwt:*/chat", "jwt:a*", "jwt:a/b*", "jwt:a\nb", "cn:chat", "uri:spiffe://mesh/a"} {
		if p, err := ParseSubject(text); err == nil {
			t.Errorf("%q was accepted as a subject: %+v", text, p)
		}
	}
	if p, err := ParsePattern("jwt:chat"); err == nil {
		t.Errorf("a subject was accepted as a name in a certificate: %+v", p)
	}
}

func TestPolicy_Check(t *testing.T) {
	pattern := func(text string) []Pattern {
		p, err := ParsePattern(text)
		if err != nil {
			t.Fatal(err)
		}
		return []Pattern{p}
	}
	p := New([]Rule{
		{Line: 1, Certificates: pattern("uri:spiffe://mesh/chat"), AllAccounts: true, Tokens: []share.Scheme{share.ConsumerToken}},
		{Line: 2, Certificates: pattern("uri:spiffe://mesh/*"), Accounts: []string{"1"}, Consumers: []string{"pay-*", "c-1"}},
		{Line: 3, Certificates: pattern("cn:all"), AllAccounts: true, Consumers: []string{"*"}},
		{Line: 4, Certificates: pattern("dns:reader"), Accounts: []string{"1", "2"}, Methods: Read.Methods(), Tokens: []share.Scheme{share.ConsumerToken}, Consumers: []string{"r-*"}},
		{Line: 5, Certificates: pattern("dns:reader"), Accounts: []string{"2"}, Methods: []Method{"SignInAgent", "Upload"}, Tokens: []share.Scheme{share.AgentToken}},
	})
	chat, pay, all, reader := Name{URI, "spiffe://mesh/chat"}, Name{URI, "spiffe://mesh/pay"}, Name{CN, "all"}, Name{DNS, "reader"}
	for _, test := range []struct {
		name     Name
		account  string
		method   Method
		scheme   share.Scheme
		consumer string
		line     int    // of the rule that permits it
		denied   string // part of the reason; empty if permitted
	}{
		{chat, "1", "Upload", share.ConsumerToken, "", 1, ""},
		{chat, "2", "SetFileSharing", share.ConsumerToken, "", 1, ""},
		{chat, "2", "Upload", share.AgentToken, "", 0, "may not call Upload with lp-agent-token for account 2"},
		{chat, "1", "Upload", share.ExternalConsumerID, "pay-1", 2, ""},
		{chat, "2", "Upload", share.ExternalConsumerID, "pay-1", 0, "may not call Upload for this consumer of account 2"},
		{pay, "1", "Upload", share.ExternalConsumerID, "pay-1", 2, ""},
		{pay, "1", "Upload", share.ExternalConsumerID, "pay-", 2, ""},
		{pay, "1", "Upload", share.ExternalConsumerID, "c-1", 2, ""},
		{pay, "1", "Upload", share.ExternalConsumerID, "c-10", 0, "may not call Upload for this consumer of account 1"},
		{pay, "1", "Upload", share.ExternalConsumerID, "Pay-1", 0, "may not call Upload for this consumer of account 1"},
		{pay, "1", "Upload", share.ConsumerToken, "", 0, "may not call Upload with lp-consumer-token for account 1"},
		{pay, "2", "Upload", share.ExternalConsumerID, "pay-1", 0, `the caller "uri:spiffe://mesh/pay" may not call for account 2`},
		{all, "3", "Upload", share.ExternalConsumerID, "anyone", 3, ""},
		{all, "3", "Upload", share.ConsumerToken, "", 0, "may not call Upload with"},
		{reader, "1", "Download", share.ConsumerToken, "", 4, ""},
		{reader, "2", "WatchFiles", share.ExternalConsumerID, "r-1", 4, ""},
		{reader, "1", "Upload", share.ConsumerToken, "", 0, `the caller "dns:reader" may not call Upload for account 1`},
		{reader, "1", "Upload", share.AgentToken, "", 0, "may not call Upload for account 1"},
		{reader, "2", "Upload", share.AgentToken, "", 5, ""},
		{reader, "2", "Upload", share.ConsumerToken, "", 0, "may not call Upload with lp-consumer-token for account 2"},
		{reader, "2", "SignInAgent", share.AgentToken, "", 5, ""},
		{reader, "1", "SignInAgent", share.AgentToken, "", 0, "may not call SignInAgent for account 1"},
		{reader, "3", "Download", share.ConsumerToken, "", 0, "may not call for account 3"},
		{reader, "2", "download", share.ConsumerToken, "", 0, "may not call download for account 2"},
		{reader, "2", "", share.ConsumerToken, "", 0, "may not call  for account 2"},
		{Name{CN, "spiffe://mesh/chat"}, "1", "Upload", share.ConsumerToken, "", 0, `the caller "cn:spiffe://mesh/chat" is named by no rule`},
		{Name{URI, "all"}, "1", "Upload", share.ExternalConsumerID, "c-1", 0, "is named by no rule"},
		{Name{}, "1", "Upload", share.ConsumerToken, "", 0, "has no URI, DNS name or common name"},
	} {
		rule, err := p.Decide(Request{Caller{Name: test.name}, test.account, test.method, test.scheme, test.consumer})
		switch {
		case test.denied == "" && (err != nil || rule.Line != test.line):
			t.Errorf("%+v: %+v, %v", test, rule, err)
		case test.denied != "" && (rule != nil || !share.Is(err, share.CallerNotPermitted) || !strings.Contains(err.Error(), test.denied)):
			t.Errorf("%+v: %+v, %v", test, rule, err)
		}
	}
	var none *Policy
	if err := none.Check(Request{Caller: Caller{Name: chat}, Account: "1", Scheme: share.ConsumerToken}); !share.Is(err, share.CallerNotPermitted) {
		t.Errorf("without rules: %v", err)
	}
}

func TestParseMethods(t *testing.T) {
	for text, want := range map[string][]Method{
		"Upload": {"Upload"}, "SignOutAgent": {"SignOutAgent"}, "account-settings": {"GetFileSharing", "SetFileSharing"}, "read": Read.Methods(),
	} {
		if got, err := ParseMethods(text); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "*", "all", "upload", "READ", "FileSharingService/Upload", "/lpfileshare.v1.FileSharingService/Upload"} {
		if got, err := ParseMethods(text); err == nil {
			t.Errorf("%q was accepted: %v", text, got)
		}
	}
	all := Methods()
	slices.Sort(all)
	if twice := slices.Compact(slices.Clone(all)); len(twice) != len(all) {
		t.Errorf("a method is in two groups: %v", all)
	}
}

func TestPolicy_Equal(t *testing.T) {
	rules := func(line int, methods ...Method) *Policy {
		return New([]Rule{{Line: line, AllAccounts: true, Methods: methods, Tokens: []share.Scheme{share.ConsumerToken}}})
	}
	var none *Policy
	for _, test := range []struct {
		a, b *Policy
		want bool
	}{
		{rules(1), rules(2), true},
		{rules(1, "Upload"), rules(1, "Upload"), true},
		{rules(1, "Upload"), rules(1, "Download"), false},
		{rules(1), rules(1, "Upload"), false},
		{rules(1), New(nil), false},
		{rules(1), none, false},
		{none, rules(1), false},
		{none, none, true},
	} {
		if got := test.a.Equal(test.b); got != test.want {
			t.Errorf("%+v equals %+v: %v", test.a, test.b, got)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	var rules []Rule
	for range 100 {
		p, _ := ParsePattern("uri:spiffe://mesh/ns/pay/sa/*")
		rules = append(rules, Rule{Certificates: []Pattern{p}, Accounts: []string{"2"}, Tokens: []share.Scheme{share.ConsumerToken}})
	}
	p, _ := ParsePattern("uri:spiffe://mesh/chat")
	policy := New(append(rules, Rule{Certificates: []Pattern{p}, Accounts: []string{"1"}, Tokens: []share.Scheme{share.ConsumerToken}}))
	q := Request{Caller: Caller{Name: Name{URI, "spiffe://mesh/chat"}}, Account: "1", Scheme: share.ConsumerToken}
	b.ReportAllocs()
	for b.Loop() {
		if err := policy.Check(q); err != nil {
			b.Fatal(err)
		}
	}
}
