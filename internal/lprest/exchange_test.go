package lprest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/netrules"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/test/lpfake"
)

func TestCallService_Status(t *testing.T) {
	for _, x := range []struct {
		status     int
		retryAfter string
		kind       share.Kind
		wait       time.Duration // at a login
		waitIDP    time.Duration
	}{
		{400, "", share.LPCredentialsRejected, 0, 0},
		{401, "", share.LPCredentialsRejected, 0, 0},
		{403, "", share.LPCredentialsRejected, 0, 0},
		{404, "", share.LPCredentialsRejected, 0, 0},
		{451, "", share.LPCredentialsRejected, 0, 0},
		{429, "", share.LPRateLimited, 5 * time.Second, time.Second},
		{429, "20", share.LPRateLimited, 20 * time.Second, 20 * time.Second},
		{429, "999999999", share.LPRateLimited, netrules.MaxRetryAfter, netrules.MaxRetryAfter},
		{429, "-1", share.LPRateLimited, 5 * time.Second, time.Second},
		{408, "", share.LPUnavailable, 5 * time.Second, 5 * time.Second},
		{500, "", share.LPUnavailable, 5 * time.Second, 5 * time.Second},
		{503, "30", share.LPUnavailable, 30 * time.Second, 30 * time.Second},
		{302, "", share.LPProtocolError, 0, 0},
		{304, "", share.LPProtocolError, 0, 0},
		{405, "", share.LPProtocolError, 0, 0},
		{418, "", share.LPProtocolError, 0, 0},
	} {
		f := lpfake.New(t)
		answer := func(w http.ResponseWriter, r *http.Request) {
			if x.retryAfter != "" {
				w.Header().Set("Retry-After", x.retryAfter)
			}
			w.Header().Set("Location", f.URL+"/api/account/"+lpfake.Account+"/elsewhere?secret=1")
			w.WriteHeader(x.status)
			_, _ = w.Write([]byte("\n\n peer text"))
		}
		f.On("/login", answer)
		f.On("/signup", answer)
		c := clientOf(t, f)
		_, errLogin := c.SignInAgent(t.Context(), lpfake.Account, "bob", "pass")
		_, errSignUp := c.SignUp(t.Context(), lpfake.Account)
		for i, err := range []error{errLogin, errSignUp} {
			e, ok := errors.AsType[*share.Error](err)
			if !ok || e.Kind != x.kind || e.RetryAfter != [...]time.Duration{x.wait, x.waitIDP}[i] {
				t.Errorf("%d %q: %v, retry after %v", x.status, x.retryAfter, err, e.RetryAfter)
			}
			if strings.Contains(fmt.Sprintf("%v", err), "peer text") {
				t.Errorf("%d: the error shows the peer's text: %v", x.status, err)
			}
		}
		if n := len(f.Requests()); n != 2 {
			t.Errorf("%d: %d requests, want 2", x.status, n)
		}
	}
}

func TestCallService_BrokenConnection(t *testing.T) {
	reset := func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }
	stall := func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	half := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = w.Write([]byte(`{"jwt":`))
	}
	slowBody := func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte(`{"jwt":`))
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	garbage := func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_, _ = conn.Write([]byte("220 mail.example ESMTP hunter2\r\n\r\n"))
			_ = conn.Close()
		}
	}
	for name, x := range map[string]struct {
		answer http.HandlerFunc
		kind   share.Kind
	}{
		"reset": {reset, share.LPUnavailable}, "no answer": {stall, share.LPTimeout}, "half an answer": {half, share.LPUnavailable},
		"an answer that stops": {slowBody, share.LPTimeout}, "another protocol": {garbage, share.LPUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			f := lpfake.New(t)
			f.On("/signup", x.answer)
			c := newClient(t, Config{DomainAPI: f.URL, PlainHTTP: true, Timeout: 100 * time.Millisecond})
			_, err := c.SignUp(t.Context(), lpfake.Account)
			e, ok := errors.AsType[*share.Error](err)
			if !ok || e.Kind != x.kind || e.RetryAfter != 5*time.Second {
				t.Fatalf("err = %v", err)
			}
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "/signup") {
				t.Errorf("the error shows too much: %v", err)
			}
			// The caller's own deadline is not LivePerson's failure.
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
			defer cancel()
			if _, err := c.SignUp(ctx, lpfake.Account); x.kind == share.LPTimeout && (!errors.Is(err, context.DeadlineExceeded) || share.KindOf(err) != "") {
				t.Errorf("with a deadline of the caller: %v", err)
			}
		})
	}
	for name, where := range map[string]string{"refused": "127.0.0.1:1", "no such name": "name-that-is-not-there.invalid"} {
		c := newClient(t, Config{Overrides: map[string]string{"idp": where}, Timeout: 5 * time.Second})
		if _, err := c.SignUp(t.Context(), lpfake.Account); !share.Is(err, share.LPUnavailable, share.LPTimeout) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCallService_Certificate(t *testing.T) {
	f := lpfake.NewTLS(t)
	f.Config.ErrorLog = log.New(io.Discard, "", 0)
	f.On("/signup", lpfake.Says(200, `{"jwt":"`+lpfake.JWT(map[string]any{"sub": "s"})+`"}`))

	c := newClient(t, Config{DomainAPI: f.URL, Suffixes: []string{"127.0.0.1"}})
	if _, err := c.SignUp(t.Context(), lpfake.Account); !share.Is(err, share.LPUnavailable) || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown CA: %v", err)
	}
	c = newClient(t, Config{DomainAPI: f.URL, Suffixes: []string{"127.0.0.1"}, TLS: f.Client().Transport.(*http.Transport).TLSClientConfig})
	if _, err := c.SignUp(t.Context(), lpfake.Account); err != nil {
		t.Errorf("a CA that is trusted: %v", err)
	}
	if ws, err := c.SocketURL(t.Context(), lpfake.Account, share.ConsumerToken); err != nil || ws != "wss://"+f.Host() {
		t.Errorf("%q, %v", ws, err)
	}
}

// Every call, successful and failing, and every secret in all errors and debug logs.
func TestClient_Secrets(t *testing.T) {
	secrets := []string{"PASSWORDxyz", "AUTHCODExyz", "EXTxyz", "BEARERxyz", "APPKEYxyz", "BOTSECRETxyz", "PEERTEXTxyz", "COOKIExyz", "CSRFxyz", "v=3.0", "v=1.3"}
	jwt := lpfake.JWT(map[string]any{"sub": "s"})
	secrets = append(secrets, jwt)
	agent := share.AgentGrant{Account: lpfake.Account, UserID: "1", UserPID: "2", Bearer: "BEARERxyz", Cookie: "COOKIExyz", CSRF: "CSRFxyz"}
	secret := renewal{lpfake.Account, "conn", "EXTxyz"}.secret()
	secrets = append(secrets, secret, agent.Token())

	good := map[string]string{
		"/signup": `{"jwt":"` + jwt + `"}`, "/authenticate": `{"jwt":"` + jwt + `"}`, "/anonymous/authorize": `{"token":"EXTxyz"}`,
		"/app/conn/authenticate": `{"token":"` + jwt + `"}`,
		"/login":                 `{"bearer":"BEARERxyz","config":{"userId":"1","userPid":"2"}}`,
		"/logout":                `{}`,
		propertyPath:             `{"propertyValue":{"value":"true"}}`,
	}
	echo := func(status int) http.HandlerFunc { // a peer that repeats what it received
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "https://evil.com/?"+r.Header.Get("Authorization"))
			w.WriteHeader(status)
			fmt.Fprintf(w, "PEERTEXTxyz %s %s", r.Header.Get("Authorization"), strings.Join(secrets, " "))
		}
	}
	tamper := func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_, _ = fmt.Fprintf(conn, "HTTP/1.1 200PEERTEXTxyz %s\r\nBEARERxyz\r\n\r\n", r.Header.Get("Authorization"))
			_ = conn.Close()
		}
	}
	answers := map[string]http.HandlerFunc{"tampered": tamper, "good": nil}
	for _, status := range []int{200, 302, 400, 401, 403, 404, 429, 451, 500} {
		answers[fmt.Sprint(status)] = echo(status)
	}
	for name, answer := range answers {
		f, book := lpfake.New(t), &logBuffer{}
		c := newClient(t, Config{DomainAPI: f.URL, PlainHTTP: true, Logger: book.logger()})
		for path, body := range good {
			if answer == nil {
				f.On(path, lpfake.Says(200, body))
			} else {
				f.On(path, answer)
			}
		}
		ctx := t.Context()
		var errs []error
		keep := func(_ any, err error) { errs = append(errs, err) }
		keep(c.SignUp(ctx, lpfake.Account))
		keep(c.SignInAnonymous(ctx, lpfake.Account, "conn"))
		keep(c.Authenticate(ctx, lpfake.Account, "AUTHCODExyz"))
		keep(c.Renew(ctx, lpfake.Account, secret))
		keep(c.SignInAgent(ctx, lpfake.Account, "bob", "PASSWORDxyz"))
		keep(c.SignInBot(ctx, lpfake.Account, share.BotKeys{Username: "b", AppKey: "APPKEYxyz", Secret: "BOTSECRETxyz", AccessToken: "BEARERxyz", AccessTokenSecret: "EXTxyz"}))
		keep(c.FileSharing(ctx, agent))
		keep(nil, c.SetFileSharing(ctx, agent, true))
		keep(nil, c.SignOutAgent(ctx, agent))
		keep(c.Renew(ctx, lpfake.Account, secret+"!"))
		text := book.text()
		if !strings.Contains(text, "LivePerson request") {
			t.Fatalf("%s: nothing was logged", name)
		}
		for i, err := range errs {
			signedOut := i == 8 && (name == "200" || name == "401") // of a logout the status alone counts
			if (name == "good" && i < 9) != (err == nil) && name != "404" && !signedOut {
				t.Errorf("%s: call %d: %v", name, i, err)
			}
			for e := err; e != nil; e = errors.Unwrap(e) {
				text += fmt.Sprintf("%v %+v %#v\n", e, e, e)
			}
		}
		for _, s := range secrets {
			if strings.Contains(text, s) {
				t.Errorf("%s: %q shows in:\n%s", name, s, text)
			}
		}
	}
}
