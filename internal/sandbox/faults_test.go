package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/sandbox/fault"
)

func TestFaults_Socket(t *testing.T) {
	s := start(t, Options{})
	w := consumer(t, s, signUp(t, s))
	conv := w.conversation()
	publish := func(f Fault) { f.On, f.Count = "ms.PublishEvent", 1; s.Inject(f) }

	t.Run("delay", func(t *testing.T) {
		publish(Fault{Delay: 100 * time.Millisecond})
		begun := time.Now()
		first := w.ask("ms.PublishEvent", textEvent(conv, "slow"))
		second := w.ask("ms.PublishEvent", textEvent(conv, "fast"))
		w.answer(first).want(t, "body.sequence", 0)
		w.answer(second).want(t, "body.sequence", 1)
		if d := time.Since(begun); d < 100*time.Millisecond {
			t.Errorf("answered after %v", d)
		}
		w.note(events).want(t, "body.changes.0.event.message", "slow")
		w.note(events)
	})
	t.Run("delay does not hold up other requests", func(t *testing.T) {
		w := consumer(t, s, signUp(t, s))
		s.Inject(Fault{On: "userprofile.SetUserProfile", Count: 1, Delay: time.Hour})
		w.ask("userprofile.SetUserProfile", "")
		w.ok("GetClock", "")
	})
	t.Run("answer delay", func(t *testing.T) {
		publish(Fault{AnswerDelay: time.Hour})
		id := w.ask("ms.PublishEvent", textEvent(conv, "processed before the answer"))
		w.note(events)
		w.unanswered(id)
		publish(Fault{AnswerDelay: 100 * time.Millisecond})
		begun := time.Now()
		w.answer(w.ask("ms.PublishEvent", textEvent(conv, "late"))).want(t, "body.sequence", 3)
		w.note(events)
		if d := time.Since(begun); d < 100*time.Millisecond {
			t.Errorf("answered after %v", d)
		}
	})
	t.Run("status", func(t *testing.T) {
		publish(Fault{Status: 502, ErrorCode: 50201})
		w.refused(50201, "ms.PublishEvent", textEvent(conv, "x"))
		publish(Fault{Status: 503})
		w.refused(50300, "ms.PublishEvent", textEvent(conv, "x"))
		w.quiet(events)
	})
	t.Run("status after", func(t *testing.T) {
		publish(Fault{StatusAfter: 503})
		w.refused(50300, "ms.PublishEvent", textEvent(conv, "published all the same"))
		w.note(events).want(t, "body.changes.0.event.message", "published all the same")
	})
	t.Run("mute", func(t *testing.T) {
		publish(Fault{Mute: true})
		id := w.ask("ms.PublishEvent", textEvent(conv, "never answered"))
		w.note(events).want(t, "body.changes.0.event.message", "never answered")
		w.unanswered(id)
	})
	t.Run("garbage", func(t *testing.T) {
		publish(Fault{Garbage: true})
		w.ask("ms.PublishEvent", textEvent(conv, "x"))
		w.expect("garbage", func(d dict) bool { return d["garbage"] != nil })
	})

	// Faults that end the socket, with whether the message is published nevertheless.
	published := func(text string) bool {
		a := agent(t, s, logIn(t, s, "ann"))
		return strings.Contains(a.ok("ms.QueryMessages", fmt.Sprintf(`{"dialogId":%q}`, conv)).String(), text)
	}
	token := signUp(t, s)
	for name, c := range map[string]struct {
		fault Fault
		code  int
		kept  bool
	}{
		"drop":                {Fault{Drop: true}, 0, false},
		"drop after":          {Fault{DropAfter: true}, 0, true},
		"close":               {Fault{CloseCode: 1011}, 1011, false},
		"drop after a delay":  {Fault{DropAfter: true, AnswerDelay: 50 * time.Millisecond}, 0, true},
		"close after a delay": {Fault{CloseCode: 4401, Delay: 50 * time.Millisecond}, 4401, false},
	} {
		t.Run(name, func(t *testing.T) {
			w := consumer(t, s, token)
			conv = w.conversation()
			publish(c.fault)
			w.ask("ms.PublishEvent", textEvent(conv, name))
			if code := w.closed(); code != c.code {
				t.Errorf("code %d, want %d", code, c.code)
			}
			if n := w.take(func(d dict) bool { return d["type"] == events || d["type"] == "ms.PublishEventResponse" }); n != nil {
				t.Errorf("notified: %s", n)
			}
			if got := published(name); got != c.kept {
				t.Errorf("published: %v, want %v", got, c.kept)
			}
		})
	}
	t.Run("delayed request of a socket that ends", func(t *testing.T) {
		w := consumer(t, s, token)
		conv = w.conversation()
		publish(Fault{Delay: 100 * time.Millisecond})
		w.ask("ms.PublishEvent", textEvent(conv, "lost"))
		w.ok("GetClock", "")
		s.DropSockets(0)
		w.closed()
		eventually(t, "all sockets have ended", func() bool { return s.Sockets() == 0 })
		if published("lost") {
			t.Error("the request was processed")
		}
	})
	t.Run("any frame", func(t *testing.T) {
		for want, f := range map[int]Fault{0: {Drop: true}, 1012: {CloseCode: 1012}} {
			w := consumer(t, s, token)
			w.ok("GetClock", "")
			f.On, f.Count = "ws:idle", 1
			s.Inject(f)
			w.ask("GetClock", "")
			if code := w.closed(); code != want {
				t.Errorf("%d, want %d", code, want)
			}
		}
	})
}

func TestFaults_Upgrade(t *testing.T) {
	s := start(t, Options{})
	token := signUp(t, s)
	try := func(f Fault) (*wire, *http.Response, error) {
		f.On, f.Count = "ws:upgrade", 1
		s.Inject(f)
		return tryDial(t, s, consumerPath, "Authorization", "jwt "+token)
	}
	if _, resp, err := try(Fault{Status: 503, RetryAfter: 7}); err == nil || resp == nil || resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "7" {
		t.Errorf("status: %v %v", resp, err)
	}
	for name, f := range map[string]Fault{"drop": {Drop: true}, "garbage": {Garbage: true}} {
		if _, _, err := try(f); err == nil {
			t.Errorf("%s: opened", name)
		}
	}
	if w, _, err := try(Fault{CloseCode: 4407}); err != nil || w.closed() != 4407 {
		t.Errorf("close: %v", err)
	}
	begun := time.Now()
	if _, _, err := try(Fault{Delay: 50 * time.Millisecond, AnswerDelay: 50 * time.Millisecond}); err != nil || time.Since(begun) < 100*time.Millisecond {
		t.Errorf("delay: %v after %v", err, time.Since(begun))
	}
}

func TestFaults_HTTP(t *testing.T) {
	s := start(t, Options{})
	url := s.URL() + "/api/account/" + acct + "/signup"
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	try := func(f Fault) (*http.Response, error) {
		f.On, f.Count = "http:signup", 1
		client.Timeout = patience
		if f.Mute {
			client.Timeout = 300 * time.Millisecond
		}
		s.Inject(f)
		resp, err := client.Post(url, "", nil)
		if err == nil {
			_ = resp.Body.Close()
		}
		return resp, err
	}
	for name, f := range map[string]Fault{"drop": {Drop: true}, "drop after": {DropAfter: true}, "mute": {Mute: true}} {
		if _, err := try(f); err == nil {
			t.Errorf("%s: answered", name)
		}
	}
	if resp, err := try(Fault{Status: 500}); err != nil || resp.StatusCode != 500 {
		t.Errorf("status: %v %v", resp, err)
	}
	begun := time.Now()
	if _, err := try(Fault{Delay: 50 * time.Millisecond, AnswerDelay: 50 * time.Millisecond}); err != nil || time.Since(begun) < 100*time.Millisecond {
		t.Errorf("delay: %v after %v", err, time.Since(begun))
	}
	s.Inject(Fault{On: "http:signup", Count: 1, Garbage: true})
	if _, data := fetch(t, "POST", url, ""); json.Valid(data) {
		t.Errorf("garbage: %s", data)
	}
	signUp(t, s)
}

func TestAdmin(t *testing.T) {
	s := start(t, Options{})
	admin := s.URL() + "/_sandbox"
	w := consumer(t, s, signUp(t, s))
	w.conversation()

	if resp, _ := fetch(t, "POST", admin+"/faults", `{"on":"GetClock","status":500,"delay":1000000}`); resp.StatusCode != 204 {
		t.Errorf("inject: %s", resp.Status)
	}
	w.refused(50000, "GetClock", "")
	resp, _ := fetch(t, "POST", admin+"/faults", `{"on":"KeepAlive","delay":"1ms","count":3}`)
	_, list := fetch(t, "GET", admin+"/faults", "")
	const want = `[{"id":1,"on":"GetClock","delay":"1ms","status":500,"struck":1,"skipsLeft":0,"left":null},{"id":2,"on":"KeepAlive","count":3,"delay":"1ms","struck":0,"skipsLeft":0,"left":3}]`
	if got := faultList(t, list); got != faultList(t, []byte(want)) {
		t.Errorf("the armed faults are %s, want %s", list, want)
	}
	for _, code := range []int{204, 404} {
		if resp, _ := fetch(t, "DELETE", s.URL()+resp.Header.Get("Location"), ""); resp.StatusCode != code {
			t.Errorf("removal of a fault: %s, want %d", resp.Status, code)
		}
	}
	if resp, _ := fetch(t, "DELETE", admin+"/faults/x", ""); resp.StatusCode != 404 {
		t.Errorf("removal of no fault: %s", resp.Status)
	}
	if resp, _ := fetch(t, "DELETE", admin+"/faults", ""); resp.StatusCode != 204 {
		t.Errorf("clear: %s", resp.Status)
	}
	w.ok("GetClock", "")
	for _, bad := range []string{`{"status":500}`, `{"on":"GetClock","statsu":500}`, `{"on":"ms.Publish"}`, `{"on":"http:logins"}`, `x`} {
		if resp, _ := fetch(t, "POST", admin+"/faults", bad); resp.StatusCode != 400 {
			t.Errorf("%s: %s", bad, resp.Status)
		}
	}
	_, d := ask(t, "GET", admin+"/journal", "")
	d.want(t, "conversations.0.state", "OPEN")
	_, d = ask(t, "GET", admin+"/sockets", "")
	d.want(t, "open", 1)
	if resp, _ := fetch(t, "POST", admin+"/sockets/drop?code=70000", ""); resp.StatusCode != 400 {
		t.Errorf("code: %s", resp.Status)
	}
	_, d = ask(t, "POST", admin+"/sockets/drop?code=4401", "")
	d.want(t, "dropped", 1)
	if code := w.closed(); code != 4401 {
		t.Errorf("closed with %d", code)
	}
}

// faultList returns a list of faults in a comparable form.
func faultList(t *testing.T, text []byte) string {
	t.Helper()
	var list []map[string]any
	if err := json.Unmarshal(text, &list); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return fmt.Sprint(list)
}

// TestClose_EndsEverything closes a sandbox with open sockets and delayed requests.
func TestClose_EndsEverything(t *testing.T) {
	before := runtime.NumGoroutine()
	s, err := Start(Options{TLSListen: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	s.Inject(Fault{On: "GetClock", Delay: time.Hour})
	s.Inject(Fault{On: "KeepAlive", AnswerDelay: time.Hour})
	s.Inject(Fault{On: "http:login", Mute: true})
	sockets := []*wire{consumer(t, s, signUp(t, s)), dial(t, s, consumerPath)}
	sockets[0].ask("GetClock", "")
	sockets[0].ask("KeepAlive", "")
	sockets[0].conversation()
	go func() {
		resp, err := http.Post(s.URL()+"/api/account/"+acct+"/login?v=1.3", "", strings.NewReader(`{}`))
		if err == nil {
			_ = resp.Body.Close()
		}
	}()
	eventually(t, "all three requests have arrived", func() bool { return s.FaultsStruck() == 3 })
	begun := time.Now()
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if d := time.Since(begun); d > patience {
		t.Errorf("took %v", d)
	}
	for _, w := range sockets {
		if code := w.closed(); code != 1001 {
			t.Errorf("closed with %d", code)
		}
	}
	http.DefaultClient.CloseIdleConnections()
	eventually(t, "all goroutines have ended", func() bool { return runtime.NumGoroutine() <= before })
	if _, err := http.Get(s.URL()); err == nil {
		t.Error("the sandbox still answers")
	}
}

// TestDocs_Faults compares docs/sandbox.md with the fields, places and request types of faults.
func TestDocs_Faults(t *testing.T) {
	text, err := os.ReadFile("../../docs/sandbox.md")
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ = bytes.Cut(text, []byte("## Faults"))
	section, _, _ := bytes.Cut(text, []byte("\n## "))
	words := fault.Places()
	for field := range reflect.TypeFor[Fault]().Fields() {
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		words = append(words, name)
	}
	for _, word := range words {
		if !bytes.Contains(section, []byte("`"+word+"`")) {
			t.Errorf("docs/sandbox.md does not describe %s", word)
		}
	}
}
