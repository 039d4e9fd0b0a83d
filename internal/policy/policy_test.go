package policy

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
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
		{"any", Name{CN, "x"}, true},
		{"any", Name{URI, "spiffe://mesh/a"}, true},
		{"any", Name{}, false},
	} {
		p, err := ParsePattern(test.pattern)
		if err != nil {
			t.Errorf("%s: %v", test.pattern, err)
			continue
		}
		if got := p.matches(test.name); got != test.want {
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
		{Certificates: pattern("uri:spiffe://mesh/chat"), AllAccounts: true, Tokens: []share.Scheme{share.ConsumerToken}},
		{Certificates: pattern("uri:spiffe://mesh/*"), Accounts: []string{"1"}, Consumers: []string{"pay-*", "c-1"}},
		{Certificates: pattern("cn:all"), AllAccounts: true, Consumers: []string{"*"}},
	})
	chat, pay, all := Name{URI, "spiffe://mesh/chat"}, Name{URI, "spiffe://mesh/pay"}, Name{CN, "all"}
	for _, test := range []struct {
		name     Name
		account  string
		scheme   share.Scheme
		consumer string
		denied   string // part of the reason; empty if permitted
	}{
		{chat, "1", share.ConsumerToken, "", ""},
		{chat, "2", share.ConsumerToken, "", ""},
		{chat, "2", share.AgentToken, "", "may not use lp-agent-token for account 2"},
		{chat, "1", share.ExternalConsumerID, "pay-1", ""}, // by the second rule
		{chat, "2", share.ExternalConsumerID, "pay-1", "may not call for this consumer of account 2"},
		{pay, "1", share.ExternalConsumerID, "pay-1", ""},
		{pay, "1", share.ExternalConsumerID, "pay-", ""},
		{pay, "1", share.ExternalConsumerID, "c-1", ""},
		{pay, "1", share.ExternalConsumerID, "c-10", "may not call for this consumer of account 1"},
		{pay, "1", share.ExternalConsumerID, "Pay-1", "may not call for this consumer of account 1"},
		{pay, "1", share.ConsumerToken, "", "may not use lp-consumer-token for account 1"},
		{pay, "2", share.ExternalConsumerID, "pay-1", `the caller "uri:spiffe://mesh/pay" may not call for account 2`},
		{all, "3", share.ExternalConsumerID, "anyone", ""},
		{all, "3", share.ConsumerToken, "", "may not use"},
		{Name{CN, "spiffe://mesh/chat"}, "1", share.ConsumerToken, "", `the caller "cn:spiffe://mesh/chat" is named by no rule`},
		{Name{URI, "all"}, "1", share.ExternalConsumerID, "c-1", "is named by no rule"},
		{Name{}, "1", share.ConsumerToken, "", "has no URI, DNS name or common name"},
	} {
		err := p.Check(Request{Caller{Name: test.name}, test.account, test.scheme, test.consumer})
		switch {
		case test.denied == "" && err != nil:
			t.Errorf("%+v: %v", test, err)
		case test.denied != "" && (!share.Is(err, share.CallerNotPermitted) || !strings.Contains(err.Error(), test.denied)):
			t.Errorf("%+v: %v", test, err)
		}
	}
	var none *Policy
	if err := none.Check(Request{Caller: Caller{Name: chat}, Account: "1", Scheme: share.ConsumerToken}); !share.Is(err, share.CallerNotPermitted) {
		t.Errorf("without rules: %v", err)
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
