package callers

import (
	"strings"
	"testing"

	"github.com/lpfileshare/lpfileshare/internal/policy"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

func edge(t testing.TB) *Identifier {
	p, err := policy.ParsePattern("uri:spiffe://bank/edge/*")
	if err != nil {
		t.Fatal(err)
	}
	return &Identifier{Proxies: []policy.Pattern{p}}
}

func TestXFCC(t *testing.T) {
	const by = "By=spiffe://bank/edge/1;Hash=0a;"
	for _, test := range []struct {
		header, name, fault string
	}{
		{header: by + `Subject="CN=client,O=\"Bank, Ltd\"";URI=spiffe://bank/billing;DNS=billing`, name: "uri:spiffe://bank/billing"},
		{header: by + `Subject="CN=client";URI=;DNS=Billing.example;DNS=other`, name: "dns:billing.example"},
		{header: `hash=0a;uri="https://bank/a=b"`, name: "uri:https://bank/a=b"},
		{header: by + "URI=spiffe://bank/first," + by + "URI=spiffe://bank/last", name: "uri:spiffe://bank/last"},
		{header: "By=spiffe://other/proxy;URI=spiffe://bank/first, " + by + "URI=spiffe://bank/last", name: "uri:spiffe://bank/last"},
		{header: "By=spiffe://other/proxy;By=spiffe://bank/edge/1;URI=spiffe://bank/a", name: "uri:spiffe://bank/a"},

		{header: by + `Subject="CN=spiffe://bank/billing"`, fault: "neither a URI nor a DNS name"},
		{header: by + `Subject="CN=x;URI=spiffe://bank/billing"`, fault: "neither a URI nor a DNS name"},
		{header: by + `Subject="CN=x\";URI=spiffe://bank/billing"`, fault: "neither a URI nor a DNS name"},
		{header: "By=spiffe://bank/other;URI=spiffe://bank/billing", fault: "a proxy that is not trusted"},
		{header: by + "URI=spiffe://bank/last,By=spiffe://other/proxy;URI=spiffe://bank/admin", fault: "a proxy that is not trusted"},
		{header: by + "URI=https://bank/a;URI=spiffe://bank/admin", fault: "a SPIFFE id beside other URIs"},
		{header: by + "URI=billing", fault: "a URI that is none"},
		{header: by + "URI=spiffe://bank/a b", fault: "a value needs quotes"},
		{header: by + "URI=spiffe://bank/a=b", fault: "a value needs quotes"},
		{header: by + "URI=\"spiffe://bank/a\nb\"", fault: "a character that is not allowed"},
		{header: by + "URI=\"spiffe://bank/ä\"", fault: "a character that is not allowed"},
		{header: by + `Subject="CN=x`, fault: "a quote is not closed"},
		{header: by + `Subject="CN=x\`, fault: "a quote is not closed"},
		{header: by + `Subject="CN=x"y`, fault: "text follows a quoted value"},
		{header: by + "Name=spiffe://bank/a", fault: "an unknown key"},
		{header: by, fault: "a pair has no key"},
		{header: "", fault: "a pair has no key"},
		{header: "=x", fault: "a pair has no key"},
		{header: by + "URI=spiffe://bank/a,", fault: "a pair has no key"},
		{header: by + "URI=spiffe://bank/a,,URI=spiffe://bank/b", fault: "a pair has no key"},
		{header: "not a header," + by + "URI=spiffe://bank/a", fault: "a pair has no key"},
		{header: by + "Cert=" + strings.Repeat("a", maxXFCC), fault: "the limit is"},
	} {
		name, err := edge(t).forwardedName([]string{test.header})
		switch {
		case test.fault == "" && (err != nil || name.String() != test.name):
			t.Errorf("%s: %s, %v; want %s", test.header, name, err, test.name)
		case test.fault != "" && (!share.Is(err, share.CallerNotAuthenticated) || !strings.Contains(err.Error(), test.fault)):
			t.Errorf("%s: %s, %v; want an error with %q", test.header, name, err, test.fault)
		}
	}
	for _, values := range [][]string{nil, {by + "URI=spiffe://bank/a", by + "URI=spiffe://bank/b"}} {
		if name, err := edge(t).forwardedName(values); !share.Is(err, share.CallerNotAuthenticated) {
			t.Errorf("%q: %s, %v", values, name, err)
		}
	}
}

// Whatever a proxy forwards, the name is one that a certificate can have, in the last element, and no text of the header is in an
// error.
func FuzzXFCC(f *testing.F) {
	for _, seed := range []string{
		`By=spiffe://bank/edge/1;Hash=0a;Subject="CN=a,O=\"b\"";URI=spiffe://bank/billing;DNS=billing`, "URI=a:b,DNS=c", `Subject="`, `a="\`, ",", ";", "=",
	} {
		f.Add(seed)
	}
	id := edge(f)
	f.Fuzz(func(t *testing.T, header string) {
		name, err := id.forwardedName([]string{header})
		if err != nil {
			if !share.Is(err, share.CallerNotAuthenticated) || name != (policy.Name{}) {
				t.Errorf("%s, %v", name, err)
			}
			return
		}
		if name.Kind != policy.URI && name.Kind != policy.DNS || name.Value == "" || strings.ContainsAny(name.Value, " \x00\n\x7f") {
			t.Errorf("the name is %q", name)
		}
		// An element that the proxy appends decides, whatever was before it.
		const last = "By=spiffe://bank/edge/1;URI=spiffe://bank/last"
		if name, err := id.forwardedName([]string{header + "," + last}); len(header) < maxXFCC-len(last) && (err != nil || name.Value != "spiffe://bank/last") {
			t.Errorf("with another element: %s, %v", name, err)
		}
	})
}
