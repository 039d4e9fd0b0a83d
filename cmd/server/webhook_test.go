package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"

	"github.com/lpfileshare/lpfileshare/test/harness"
)

// TestSandboxFlag_ServesConnectorAPI has the server play LivePerson, and post webhooks to another process.
func TestSandboxFlag_ServesConnectorAPI(t *testing.T) {
	t.Parallel()
	webhooks := make(chan *http.Request, 10)
	gateway := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { webhooks <- r }))
	defer gateway.Close()
	w := &world{t: t}
	w.run("--sandbox", "--sandbox-webhook="+gateway.URL+"/hook")
	line := regexp.MustCompile(`msg=ready .* sandbox=(\S+) .*sandbox_app=(\S+) sandbox_app_secret=(\S+)`).FindStringSubmatch(w.logs.String())
	if line == nil {
		t.Fatalf("the ready line lacks the sandbox:\n%s", w.logs)
	}
	base, app, secret := line[1], line[2], line[3]
	post := func(path, body string, header ...string) string {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, base+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode >= 300 {
			t.Fatalf("%s: %s %s %v", path, resp.Status, data, err)
		}
		return string(data)
	}
	var token struct {
		App      string `json:"access_token"`
		Consumer string `json:"token"`
	}
	form := fmt.Sprintf("client_id=%s&client_secret=%s", app, secret)
	answer := post("/sentinel/api/account/12345678/app/token?v=1.0&grant_type=client_credentials", form, "Content-Type", "application/x-www-form-urlencoded")
	if err := json.Unmarshal([]byte(answer), &token); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(post("/api/account/12345678/consumer?v=1.0", `{"ext_consumer_id":"joe"}`, "Authorization", token.App)), &token); err != nil {
		t.Fatal(err)
	}
	post("/api/account/12345678/messaging/consumer/conversation?v=3", `[{"kind":"req","id":"1","type":"userprofile.SetUserProfile","body":{}},
		{"kind":"req","id":"2","type":"cm.ConsumerRequestConversation","body":{"brandId":"12345678"}}]`,
		"Authorization", token.App, "X-LP-ON-BEHALF", token.Consumer)
	r := harness.Next(t, webhooks)
	if r.URL.Path != "/hook" || r.Header.Get("X-Liveperson-Client-Id") != app || r.Header.Get("X-Liveperson-Account-Id") != account {
		t.Errorf("webhook: %s %v", r.URL, r.Header)
	}
}
