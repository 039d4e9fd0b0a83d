package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestTheSandboxsConnectorAPIIsOpenToWhoReadsTheReadyLine has the server play LivePerson, and post webhooks to another process.
func TestTheSandboxsConnectorAPIIsOpenToWhoReadsTheReadyLine(t *testing.T) {
	webhooks := make(chan *http.Request, 10)
	gateway := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { webhooks <- r }))
	defer gateway.Close()
	ctx, quit := context.WithCancel(t.Context())
	logs, code := &journal{}, make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"--listen=127.0.0.1:0", "--sandbox", "--sandbox-webhook=" + gateway.URL + "/hook"}, logs, logs)
	}()
	defer func() {
		quit()
		if c := <-code; c != 0 {
			t.Errorf("the server ended with %d:\n%s", c, logs)
		}
	}()
	var line []string
	for deadline := time.Now().Add(20 * time.Second); line == nil; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the server did not get ready:\n%s", logs)
		}
		line = regexp.MustCompile(`msg=ready .* sandbox=(\S+) .*sandbox_app=(\S+) sandbox_app_secret=(\S+)`).FindStringSubmatch(logs.String())
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
	select {
	case r := <-webhooks:
		if r.URL.Path != "/hook" || r.Header.Get("X-Liveperson-Client-Id") != app || r.Header.Get("X-Liveperson-Account-Id") != "12345678" {
			t.Errorf("webhook: %s %v", r.URL, r.Header)
		}
	case <-time.After(10 * time.Second):
		t.Error("no webhook came")
	}
}
