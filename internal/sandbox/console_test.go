package sandbox

import (
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestPage_Files checks that the page has every file that it names, and the headers that keep text from becoming code.
func TestPage_Files(t *testing.T) {
	s := start(t, Options{})
	resp, data := fetch(t, "GET", s.URL()+"/", "")
	if resp.StatusCode != 200 || !strings.HasPrefix(string(data), "<!doctype html>") {
		t.Fatalf("%s %.100s", resp.Status, data)
	}
	names := regexp.MustCompile(`(?:"|from ")(?:/_sandbox/page|\.)/([a-z]+\.[a-z]+)"`)
	seen, queue := map[string]bool{}, []string{string(data)}
	for len(queue) > 0 {
		text := queue[0]
		queue = queue[1:]
		for _, m := range names.FindAllStringSubmatch(text, -1) {
			if seen[m[1]] {
				continue
			}
			seen[m[1]] = true
			resp, data := fetch(t, "GET", s.URL()+"/_sandbox/page/"+m[1], "")
			h := resp.Header
			if resp.StatusCode != 200 || !strings.Contains(h.Get("Content-Security-Policy"), "require-trusted-types-for 'script'") ||
				h.Get("X-Content-Type-Options") != "nosniff" || strings.Contains(h.Get("Content-Security-Policy"), "unsafe") {
				t.Errorf("%s: %s %v", m[1], resp.Status, h)
			}
			queue = append(queue, string(data))
		}
	}
	files, err := filepath.Glob("page/*.*s") // modules and styles
	if err != nil || len(files) != len(seen)-1 {
		t.Errorf("the page names %v, and there are %v", seen, files) // icon.svg aside
	}
	for _, path := range []string{"/_sandbox/page/page.go", "/_sandbox/page/none.js", "/_sandbox/page/..%2fpage.go"} {
		if resp, _ := fetch(t, "GET", s.URL()+path, ""); resp.StatusCode != 404 {
			t.Errorf("%s: %s", path, resp.Status)
		}
	}
}

// TestPage_WritesNoHTML searches the modules for what makes HTML or code of a text.
func TestPage_WritesNoHTML(t *testing.T) {
	forbidden := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|srcdoc|javascript:|localStorage|sessionStorage`)
	err := fs.WalkDir(os.DirFS("page"), ".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".js" && filepath.Ext(path) != ".html" {
			return err
		}
		text, err := os.ReadFile(filepath.Join("page", path))
		if found := forbidden.Find(text); found != nil {
			t.Errorf("%s has %s", path, found)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// TestPage_Guard sends what a browser sends for pages of other origins, to all that only the page needs.
func TestPage_Guard(t *testing.T) {
	s := start(t, Options{})
	get := func(host, path string, header ...string) int {
		req, err := http.NewRequestWithContext(t.Context(), "GET", s.URL()+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if req.Host = host; host == "" {
			req.Host = strings.TrimPrefix(s.URL(), "http://")
		}
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	const call = "/lpfileshare.v1.IdentityService/SignInConsumer"
	if got := get("", call); got != 404 {
		t.Errorf("without a gateway: %d, want 404", got)
	}
	s.SetGateway(Gateway{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) }), Address: "127.0.0.1:1"})
	for _, path := range []string{"/", "/_sandbox/page/app.js", "/_sandbox/info", "/_sandbox/conversations", "/_sandbox/objects/v1/x", call} {
		if got := get("rebound.example", path); got != http.StatusMisdirectedRequest {
			t.Errorf("%s for another host: %d", path, got)
		}
		if path == "/" { // links may lead to it
			if got := get("", path, "Sec-Fetch-Site", "cross-site"); got != 200 {
				t.Errorf("a link to the page: %d", got)
			}
			continue
		}
		if got := get("", path, "Sec-Fetch-Site", "cross-site"); got != 403 {
			t.Errorf("%s from another site: %d", path, got)
		}
		if got := get("", path, "Origin", "http://other.example"); got != 403 {
			t.Errorf("%s from another origin: %d", path, got)
		}
	}
	if got := get("", call, "Origin", s.URL(), "Sec-Fetch-Site", "same-origin"); got != 204 {
		t.Errorf("a call of the page: %d", got)
	}
	_, info := ask(t, "GET", s.URL()+"/_sandbox/info", "")
	info.want(t, "sends", true)
	info.want(t, "grpc", "127.0.0.1:1")
	info.want(t, "accounts.0", acct)
}

func TestConversations_OfAll(t *testing.T) {
	s := start(t, Options{AutoAssign: true})
	a := agent(t, s, logIn(t, s, "admin"))
	a.ok(".ams.aam.SubscribeExConversations", `{"convState":["OPEN"],"agentIds":[]}`)
	w := consumer(t, s, signUp(t, s))
	conv := w.conversation()
	const jwt = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJjb25zdW1lciJ9.c2lnbmF0dXJl"
	w.publishText(conv, "a token "+jwt)
	path := w.upload(s, "JPEG", []byte("bytes of a picture"))
	w.ok("ms.PublishEvent", fileEvent(conv, path, "JPEG"))
	w.ok("ms.PublishEvent", fmt.Sprintf(`{"dialogId":%q,"event":{"type":"AcceptStatusEvent","status":"ACCESS","sequenceList":[1]}}`, conv))

	resp, data := fetch(t, "GET", s.URL()+"/_sandbox/conversations", "")
	if text := string(data); resp.StatusCode != 200 || !strings.Contains(text, `"id":"`+conv+`"`) || !strings.Contains(text, `"files":1`) {
		t.Errorf("%s %s", resp.Status, text)
	}
	_, d := ask(t, "GET", s.URL()+"/_sandbox/conversations/"+conv, "")
	d.want(t, "state", "OPEN")
	d.want(t, "participants.0.role", "CONSUMER")
	d.want(t, "messages.0.kind", "text")
	d.want(t, "messages.0.text", "a token [masked]")
	d.want(t, "messages.1.kind", "file")
	d.want(t, "messages.1.file.path", path)
	d.want(t, "messages.1.role", "CONSUMER")
	if d.at("messages.1.receipts.ACCESS") == nil || d.at("messages.2") != nil {
		t.Errorf("the receipt belongs to message 1, and is no message: %s", d)
	}
	_, d = ask(t, "GET", s.URL()+"/_sandbox/conversations/"+conv+"?limit=1", "")
	d.want(t, "messages.0.sequence", 1)
	d.want(t, "earlier", 1)
	for path, want := range map[string]int{"/none": 404, "/" + conv + "?limit=0": 400, "/" + conv + "?limit=x": 400} {
		if resp, _ := fetch(t, "GET", s.URL()+"/_sandbox/conversations"+path, ""); resp.StatusCode != want {
			t.Errorf("%s: %s, want %d", path, resp.Status, want)
		}
	}

	resp, data = fetch(t, "GET", s.URL()+"/_sandbox/objects"+path, "")
	if string(data) != "bytes of a picture" || resp.Header.Get("Content-Type") != "application/octet-stream" || !strings.Contains(resp.Header.Get("Content-Security-Policy"), "sandbox") {
		t.Errorf("%q %v", data, resp.Header)
	}
	if resp, _ := fetch(t, "GET", s.URL()+"/_sandbox/objects/v1/none", ""); resp.StatusCode != 404 {
		t.Errorf("no object: %s", resp.Status)
	}
	journal := s.Journal()
	if p := journal.Published[0]; p.Role != "CONSUMER" {
		t.Errorf("%+v", p)
	}
	if u := journal.Signed[0]; !u.Expires.After(u.At) {
		t.Errorf("%+v", u)
	}
	_, data = fetch(t, "GET", s.URL()+"/_sandbox/events?follow=0", "")
	if !strings.Contains(string(data), `"kind":"message","data":{"account":"`+acct+`","conversation":"`+conv+`","sequence":2,"role":"CONSUMER","type":"AcceptStatusEvent","status":"ACCESS"}`) {
		t.Errorf("no event of the receipt in %s", data)
	}
}

func TestFaults_Places(t *testing.T) {
	s := start(t, Options{})
	_, d := ask(t, "GET", s.URL()+"/_sandbox/faults/places", "")
	for _, list := range []string{"places", "requests"} {
		all, _ := d.at(list).([]any)
		if len(all) < 10 {
			t.Errorf("%s: %v", list, all)
		}
		for _, on := range all {
			if _, err := ParseFault(fmt.Appendf(nil, `{"on":%q}`, on)); err != nil {
				t.Error(err)
			}
		}
	}
}
