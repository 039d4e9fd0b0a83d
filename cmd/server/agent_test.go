package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/harness"
)

// A clock is LivePerson's time. It changes only when the test sets it.
type clock struct {
	begin time.Time
	after atomic.Int64
}

func (c *clock) now() time.Time          { return c.begin.Add(time.Duration(c.after.Load())) }
func (c *clock) set(after time.Duration) { c.after.Store(int64(after)) }

// The server refreshes a login by its own clock, and ends one that is rejected when its lifetime has passed. LivePerson's clock decides
// when a login ends.
func TestAgentLogin_IsRefreshedWhileItsSessionIsOpen(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name     string
		lifetime time.Duration
		fault    sandbox.Fault
		want     pb.ErrorReason
	}{
		{"refreshed", time.Hour, sandbox.Fault{On: "http:refresh", Status: 503, Count: 1}, pb.ErrorReason_ERROR_REASON_UNSPECIFIED},
		{"LivePerson rejects one refresh", time.Hour, sandbox.Fault{On: "http:refresh", Status: 401, Count: 1}, pb.ErrorReason_ERROR_REASON_UNSPECIFIED},
		{"LivePerson rejects every refresh", 3 * time.Second, sandbox.Fault{On: "http:refresh", Status: 401}, pb.ErrorReason_ERROR_REASON_TOKEN_INVALID},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			lifetime := test.lifetime
			c := &clock{begin: time.Now()}
			w := newWorld(t, sandbox.Options{BearerLifetime: lifetime, Now: c.now}, "--agent-refresh=1s")
			w.sb.Inject(test.fault)
			agent := w.agent("ann")
			ask := func() error {
				_, err := agent.Raw().Files.GetCapabilities(t.Context(), &pb.GetCapabilitiesRequest{Account: accountPath})
				return err
			}
			if err := ask(); err != nil {
				t.Fatal(err)
			}
			struck := func(n int) {
				harness.Eventually(t, "refreshes", func() bool { return w.sb.FaultsStruck() >= n })
			}
			struck(1)
			if test.want != 0 {
				c.set(lifetime + time.Second)
				harness.Eventually(t, "the login has ended", func() bool { return ask() != nil })
				wantReason(t, ask(), test.want)
				return
			}
			c.set(lifetime - time.Second)
			w.sb.Inject(sandbox.Fault{On: "http:refresh", AnswerDelay: time.Nanosecond, Count: 2}) // counts refreshes
			struck(3)                                                                              // the one before is done
			c.set(lifetime + time.Second)
			if err := ask(); err != nil {
				t.Errorf("after the login's first lifetime: %v", err)
			}
			if _, err := agent.Raw().Accounts.GetFileSharing(t.Context(), &pb.GetFileSharingRequest{Account: accountPath}); err != nil {
				t.Errorf("AccountService after the login's first lifetime: %v", err)
			}
		})
	}
}

// A sign-out ends the login on this server and on a second one: the open session, the watch on it, and the token.
func TestAgentLogin_EndsWithSignOut(t *testing.T) {
	t.Parallel()
	key := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(key, []byte(strings.Repeat("5f", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, sandbox.Options{AutoAssign: true}, "--agent-token-key="+key)
	second := &world{t: t, sb: w.sb}
	second.start("--agent-token-key=" + key)
	token := w.signInAgent("ann")
	identity := lpfileshare.AgentToken(lpfileshare.StaticToken(token))
	agent, there := w.dial().As(identity), second.dial().As(identity)
	other := w.agent("ann") // another login of the same agent
	seen := make(chan *pb.File, 1)
	ended := make(chan error, 1)
	begun := make(chan struct{})
	begin := sync.OnceFunc(func() { close(begun) })
	go func() { // ends with the agent's login
		o := lpfileshare.WatchOptions{Parent: accountPath + "/conversations/-", OnConnection: func(error) { begin() }, RetryFor: -1}
		ended <- watchInto(agent.Watch(t.Context(), o), seen)
	}()
	<-begun
	ask := func(c *lpfileshare.Client) error {
		_, err := c.Raw().Files.GetCapabilities(t.Context(), &pb.GetCapabilitiesRequest{Account: accountPath})
		return err
	}
	for _, c := range []*lpfileshare.Client{agent, there, other} {
		if err := ask(c); err != nil {
			t.Fatal(err)
		}
	}

	w.sb.Inject(sandbox.Fault{On: "http:logout", Count: 1, Status: 403})
	wantReason(t, agent.SignOutAgent(t.Context(), account), pb.ErrorReason_ERROR_REASON_LP_CREDENTIALS_REJECTED)
	w.sb.Inject(sandbox.Fault{On: "http:logout", Count: 1, Status: 503}) // the client repeats it
	for range 2 {
		if err := agent.SignOutAgent(t.Context(), account); err != nil {
			t.Fatal(err)
		}
	}
	err := harness.Next(t, ended)
	if r := lpfileshare.ErrorReason(err); r != pb.ErrorReason_ERROR_REASON_LP_IDENTITY_EXPIRED && r != pb.ErrorReason_ERROR_REASON_TOKEN_INVALID {
		t.Errorf("the watch ended with %v", err)
	}
	for what, c := range map[string]*lpfileshare.Client{"here": agent, "on the other server": there} {
		harness.Eventually(t, "the token is refused "+what, func() bool { return ask(c) != nil })
		wantReason(t, ask(c), pb.ErrorReason_ERROR_REASON_TOKEN_INVALID)
		_, err := c.Raw().Accounts.GetFileSharing(t.Context(), &pb.GetFileSharingRequest{Account: accountPath})
		wantReason(t, err, pb.ErrorReason_ERROR_REASON_TOKEN_INVALID)
	}
	if err := ask(other); err != nil {
		t.Errorf("the other login: %v", err)
	}
	c := w.consumer()
	wantReason(t, c.SignOutAgent(t.Context(), account), pb.ErrorReason_ERROR_REASON_NOT_ALLOWED)
	if err := ask(c.Client); err != nil {
		t.Errorf("the consumer, after that: %v", err)
	}
	for _, logs := range []string{w.logs.String(), second.logs.String()} {
		if strings.Contains(logs, token) {
			t.Error("the log contains a token")
		}
	}
}

// TestAgentLogin_ReportsLivePersonErrors is what of LivePerson's answers to a login reaches the caller.
func TestAgentLogin_ReportsLivePersonErrors(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{})
	signIn := func(ctx context.Context, password string) error {
		_, err := w.dial().Raw().Identity.SignInAgent(ctx, &pb.SignInAgentRequest{
			Account:     accountPath,
			Credentials: &pb.SignInAgentRequest_Password{Password: &pb.PasswordCredentials{Username: "ann", Password: password}},
		})
		return err
	}
	for status, want := range map[int]pb.ErrorReason{
		400: pb.ErrorReason_ERROR_REASON_LP_CREDENTIALS_REJECTED,
		429: pb.ErrorReason_ERROR_REASON_LP_RATE_LIMITED,
		451: pb.ErrorReason_ERROR_REASON_LP_CREDENTIALS_REJECTED,
		500: pb.ErrorReason_ERROR_REASON_LP_UNAVAILABLE,
	} {
		w.sb.Inject(sandbox.Fault{On: "http:login", Count: 1, Status: status})
		err := signIn(t.Context(), "sandbox")
		wantReason(t, err, want)
		wait, _ := lpfileshare.RetryDelay(err)
		if status == 429 && wait != 5*time.Second {
			t.Errorf("after a 429 RetryInfo says %v, and LivePerson wants 5 s", wait)
		}
		if status == 451 && !strings.Contains(err.Error(), "blocked") {
			t.Errorf("451 does not say what it is: %v", err)
		}
	}
	wantReason(t, signIn(t.Context(), "wrong"), pb.ErrorReason_ERROR_REASON_LP_CREDENTIALS_REJECTED)
	if err := signIn(t.Context(), "sandbox"); err != nil {
		t.Error(err)
	}
}
