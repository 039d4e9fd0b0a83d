package sandbox

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestStart_InvalidOptions(t *testing.T) {
	for name, opts := range map[string]Options{
		"every interface":     {Listen: ":0"},
		"another address":     {Listen: "192.0.2.1:0"},
		"a name":              {Listen: "example.com:0"},
		"TLS everywhere":      {TLSListen: "0.0.0.0:0"},
		"an unknown digest":   {SwiftDigest: "md5"},
		"a Swift without key": {SwiftURL: "http://127.0.0.1:1"},
		"a Swift by its host": {SwiftURL: "127.0.0.1:1", SwiftKey: "k"},
		"a path for account":  {Accounts: []string{"a/b"}},
	} {
		t.Run(name, func(t *testing.T) {
			if s, err := Start(opts); err == nil {
				_ = s.Close()
				t.Error("started")
			}
		})
	}
}

func TestDomains(t *testing.T) {
	s := start(t, Options{})
	host := strings.TrimPrefix(s.URL(), "http://")
	base := s.URL() + "/api/account/"

	resp, d := ask(t, "GET", base+acct+"/service/asyncMessagingEnt/baseURI.json?version=1.0&extra=1", "")
	if resp.StatusCode != 200 || d.String() != fmt.Sprintf(`{"account":"12345678","baseURI":%q,"service":"asyncMessagingEnt"}`, host) {
		t.Errorf("one service: %s %s", resp.Status, d)
	}
	_, d = ask(t, "GET", base+acct+"/service/baseURI.json?version=1.0", "")
	got := map[string]string{}
	for _, line := range d.at("baseURIs").([]any) {
		line := dict(line.(map[string]any))
		got[line.text("service")] = line.text("baseURI")
	}
	for _, name := range []string{"agentVep", "asyncMessagingEnt", "facadeMsg", "idp", "sentinel", "swift", "accountConfigReadWrite", "accountConfigReadOnly"} {
		if got[name] != host {
			t.Errorf("%s is at %q", name, got[name])
		}
	}

	for _, query := range []string{"cb", "callback"} {
		resp, data := fetch(t, "GET", base+acct+"/service/idp/baseURI.json?version=1.0&"+query+"=lp.on_1", "")
		if !strings.HasPrefix(string(data), `lp.on_1({"service":"idp",`) || !strings.HasSuffix(string(data), "});") ||
			!strings.HasPrefix(resp.Header.Get("Content-Type"), "application/javascript") {
			t.Errorf("%s: %s", query, data)
		}
	}

	for path, want := range map[string]int{
		acct + "/service/idp/baseURI.json":                           400,
		acct + "/service/idp/baseURI.json?version=2.0":               400,
		acct + "/service/idp/baseURI.json?version=1.0&cb=alert(1)//": 400,
		acct + "/service/idp/baseURI.json?version=1.0&cb=a..b":       400,
		acct + "/service/idp/baseURI.json?version=1.0&cb=a%3Bb":      400,
		acct + "/service/IDP/baseURI.json?version=1.0":               404,
		"1/service/idp/baseURI.json?version=1.0":                     404,
		"1/service/baseURI.json?version=1.0":                         404,
	} {
		if resp, _ := ask(t, "GET", base+path, ""); resp.StatusCode != want {
			t.Errorf("%s: %s, want %d", path, resp.Status, want)
		}
	}
}

// TestDomains_AbsoluteForm sends requests as LivePerson's demo app does: for http://api.liveperson.net, with the sandbox as the proxy.
func TestDomains_AbsoluteForm(t *testing.T) {
	s := start(t, Options{})
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.URL(), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = fmt.Fprintf(conn, "GET http://api.liveperson.net/api/account/%s/service/swift/baseURI.json?version=1.0 HTTP/1.1\r\nHost: api.liveperson.net\r\n\r\n", acct)
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 {
		t.Error(resp.Status)
	}
}

func TestDomains_TLSAndRemoteSwift(t *testing.T) {
	ca := filepath.Join(t.TempDir(), "ca.pem")
	s := start(t, Options{TLSListen: "127.0.0.1:0", CAFile: ca, SwiftURL: "http://127.0.0.1:9", SwiftKey: "k"})
	text, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	defer transport.CloseIdleConnections()
	for service, want := range map[string]string{"idp": strings.TrimPrefix(s.TLSURL(), "https://"), "swift": "127.0.0.1:9"} {
		resp, err := (&http.Client{Transport: transport}).Get(s.TLSURL() + "/api/account/" + acct + "/service/" + service + "/baseURI.json?version=1.0")
		if err != nil {
			t.Fatal(err)
		}
		data := make([]byte, 500)
		n, _ := resp.Body.Read(data)
		_ = resp.Body.Close()
		if !strings.Contains(string(data[:n]), want) {
			t.Errorf("%s: %s", service, data[:n])
		}
	}
}
