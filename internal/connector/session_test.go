package connector

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/lprest"
	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/test/lpfake"
)

func TestSession(t *testing.T) {
	for name, webhooks := range map[string]bool{"webhooks": true, "without": false} {
		t.Run(name, func(t *testing.T) {
			h := newEnv(t, sandbox.Options{}, webhooks)
			s := h.session("anna")
			who := s.Principal()
			if who.ID == "" || who.ID == "anna" || who.Role != share.RoleConsumer || who.Caller != "shop" || who.Account != lpfake.Account {
				t.Errorf("the principal is %+v", who)
			}
			if again := h.session("anna").Principal(); again != who {
				t.Errorf("the second time the principal is %+v", again)
			}
			conv, err := s.CreateConversation(t.Context(), share.NewConversation{SkillID: "7"})
			if err != nil || !conv.Open || conv.ID == "" {
				t.Fatalf("%+v %v", conv, err)
			}
			path := h.store(s)
			if _, err := s.FindFile(t.Context(), conv.ID, "", path); !share.Is(err, share.FileNotFound) {
				t.Errorf("before it is published: %v", err)
			}
			seq, err := s.PublishFile(t.Context(), conv.ID, "", share.HostedFile{StoragePath: path, FileType: "PNG", Caption: "c", Preview: "data:image/png;base64,AAAA"})
			if err != nil {
				t.Fatal(err)
			}
			e, err := s.FindFile(t.Context(), conv.ID, "", path)
			if err != nil || e.Sequence != seq || e.SenderID != who.ID || e.File.Caption != "c" || e.File.Preview == "" {
				t.Errorf("%+v %v", e, err)
			}
			files, after, err := listFiles(t, s, conv.ID)
			if err != nil || len(files) != 1 || files[0].File.StoragePath != path || after[conv.ID] < seq {
				t.Errorf("%+v %v %v", files, after, err)
			}
			if u, err := s.DownloadURL(t.Context(), path); err != nil || u.Path != path {
				t.Errorf("%v %v", u, err)
			}
			if err := s.MarkAccepted(t.Context(), conv.ID, "", seq); err != nil {
				t.Error(err)
			}
			other := h.session("bert")
			if _, err := other.Conversation(t.Context(), conv.ID); !share.Is(err, share.ConversationNotFound) {
				t.Errorf("bert sees anna's conversation: %v", err)
			}
			if _, err := other.FindFile(t.Context(), conv.ID, "", path); !share.Is(err, share.ConversationNotFound) {
				t.Errorf("bert sees anna's file: %v", err)
			}
			if all, err := other.ListConversations(t.Context()); err != nil || len(all) != 0 {
				t.Errorf("bert sees %+v, %v", all, err)
			}
			closed, err := s.CloseConversation(t.Context(), conv.ID)
			if err != nil || closed.Open || closed.End.IsZero() {
				t.Errorf("%+v %v", closed, err)
			}
			if closed, err := s.CloseConversation(t.Context(), conv.ID); err != nil || closed.Open {
				t.Errorf("again: %+v %v", closed, err)
			}
			if _, err := s.PublishFile(t.Context(), conv.ID, "", share.HostedFile{StoragePath: path, FileType: "PNG"}); !share.Is(err, share.ConversationClosed) {
				t.Errorf("into a closed conversation: %v", err)
			}
			if all, err := s.ListConversations(t.Context()); err != nil || len(all) != 1 || all[0].Open {
				t.Errorf("%+v %v", all, err)
			}
		})
	}
}

// Only a consumer whose tokens are not cached needs an opening.
func TestSession_OpeningsAreLimited(t *testing.T) {
	h := newEnv(t, sandbox.Options{}, false)
	var ended []bool
	limit := error(nil)
	h.m.cfg.Begin = func(context.Context, share.Credential) (func(bool), error) {
		return func(accepted bool) { ended = append(ended, accepted) }, limit
	}
	anna := share.Credential{Scheme: share.ExternalConsumerID, Account: lpfake.Account, Secret: "anna"}
	if h.m.Opened(anna) {
		t.Error("it is open before its first call")
	}
	h.session("anna")
	h.session("anna")
	if !h.m.Opened(anna) || len(ended) != 1 || !ended[0] {
		t.Errorf("open %t, openings %v", h.m.Opened(anna), ended)
	}
	h.sb.Inject(sandbox.Fault{On: "http:consumer", Count: 1, Status: 403})
	bert := share.Credential{Scheme: share.ExternalConsumerID, Account: lpfake.Account, Secret: "bert"}
	if _, err := h.m.Session(t.Context(), bert); err == nil || len(ended) != 2 || ended[1] {
		t.Errorf("%v, openings %v", err, ended)
	}
	limit = share.Reject(share.SessionLimit, "too many")
	_, err := h.m.Session(t.Context(), bert)
	wantKind(t, "at the limit", err, share.SessionLimit)
	h.session("anna")
}

func TestWatch_Sandbox(t *testing.T) {
	h := newEnv(t, sandbox.Options{AutoAssign: true}, true)
	s := h.session("anna")
	all, err := s.WatchFiles(t.Context(), "", share.Cursor{})
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	conv := h.conversation(s)
	w, err := s.WatchFiles(t.Context(), conv, share.Cursor{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	path := h.store(s)
	if _, err := s.PublishFile(t.Context(), conv, "", share.HostedFile{StoragePath: path, FileType: "PNG"}); err != nil {
		t.Fatal(err)
	}
	for name, w := range map[string]*Watch{"the conversation's": w, "of all": all} {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		e, err := w.Next(ctx)
		cancel()
		if err != nil || e.File.StoragePath != path {
			t.Errorf("%s: %+v %v", name, e, err)
		}
	}
	h.mu.Lock()
	h.app.Webhooks = false
	h.mu.Unlock()
	if _, err := h.session("anna").WatchFiles(t.Context(), conv, nil); !share.Is(err, share.WebhookNotConfigured) {
		t.Errorf("without webhooks: %v", err)
	}
}

func TestSession_Tokens(t *testing.T) {
	var calls sync.Map // by endpoint
	count := func(endpoint string) int64 {
		n, _ := calls.LoadOrStore(endpoint, new(atomic.Int64))
		return n.(*atomic.Int64).Load()
	}
	opts := sandbox.Options{OnExchange: func(x sandbox.Exchange) {
		n, _ := calls.LoadOrStore(x.Endpoint, new(atomic.Int64))
		n.(*atomic.Int64).Add(1)
	}}
	clk := &clock{now: time.Now()}
	opts.Now = clk.Now
	h := newEnv(t, opts, false)

	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			if _, err := h.m.Session(t.Context(), external(fmt.Sprint("c", i%2))); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if count("token") != 1 || count("consumer") != 2 {
		t.Errorf("40 sessions of 2 consumers requested %d AppJWTs and %d ConsumerJWSs", count("token"), count("consumer"))
	}
	s := h.session("c0")
	conv := h.conversation(s)
	clk.pass(54 * time.Minute)
	h.store(s)
	if count("token") != 1 {
		t.Errorf("after 54 minutes there were %d AppJWTs", count("token"))
	}
	clk.pass(90 * time.Second)
	h.store(s)
	if count("token") != 2 {
		t.Errorf("after more than 55 minutes there were %d AppJWTs", count("token"))
	}
	// LivePerson says which token it rejects.
	for _, x := range []struct {
		code            int
		token, consumer int64
	}{{40102, 1, 0}, {40105, 1, 0}, {40103, 0, 1}, {40104, 0, 1}, {40199, 1, 1}} {
		t.Run(fmt.Sprint(x.code), func(t *testing.T) {
			before := [...]int64{count("token"), count("consumer"), count("send")}
			h.sb.Inject(sandbox.Fault{On: "http:send", Status: 401, ErrorCode: x.code, Count: 1})
			path := h.store(s)
			seq, err := s.PublishFile(t.Context(), conv, "", share.HostedFile{StoragePath: path, FileType: "PNG"})
			if err != nil {
				t.Fatal(seq, err)
			}
			if got := [...]int64{count("token") - before[0], count("consumer") - before[1], count("send") - before[2]}; got != [...]int64{x.token, x.consumer, 3} {
				t.Errorf("tokens, consumers and requests: %v", got)
			}
			h.sb.Inject(sandbox.Fault{On: "http:send", Status: 401, ErrorCode: x.code, Count: 2})
			_, err = s.DownloadURL(t.Context(), path)
			wantKind(t, "refused again", err, share.LPCredentialsRejected)
		})
	}
	published := len(h.sb.Journal().Published)
	if published != 5 {
		t.Errorf("%d messages were published", published)
	}
	// Another secret means another install.
	h.mu.Lock()
	h.app.Secret = "wrong"
	h.mu.Unlock()
	_, err := h.m.Session(t.Context(), external("c0"))
	wantKind(t, "a wrong secret", err, share.LPCredentialsRejected)
	if err != nil && strings.Contains(err.Error(), "wrong") {
		t.Errorf("the error shows the secret: %v", err)
	}
	for name, cred := range map[string]share.Credential{
		"another account": {Scheme: share.ExternalConsumerID, Account: "99", Secret: "x"},
		"a token":         {Scheme: share.ConsumerToken, Account: lpfake.Account, Secret: "x"},
	} {
		_, err := h.m.Session(t.Context(), cred)
		wantKind(t, name, err, share.NotAllowed)
	}
}

func TestSession_Errors(t *testing.T) {
	h := newEnv(t, sandbox.Options{}, false)
	s := h.session("anna")
	conv := h.conversation(s)
	upload := func() error { _, err := s.UploadURL(t.Context(), 4, share.PNG); return err }
	download := func() error { _, err := s.DownloadURL(t.Context(), "/v1/AUTH_x/"+lpfake.Account+"/a"); return err }
	published := func() error {
		_, err := s.PublishFile(t.Context(), conv, "", share.HostedFile{StoragePath: h.store(s), FileType: "PNG"})
		return err
	}
	create := func() error {
		_, err := s.CreateConversation(t.Context(), share.NewConversation{})
		return err
	}
	for _, x := range []struct {
		name, on string
		fault    sandbox.Fault
		do       func() error
		want     share.Kind
	}{
		{"file sharing is off", "ms.GenerateURLForUploadFile", sandbox.Fault{Status: 403}, upload, share.FileSharingDisabled},
		{"upload: refused by a text", "ms.GenerateURLForUploadFile", sandbox.Fault{Text: "Agent not allowed"}, upload, share.LPForbidden},
		{"download: refused by a text", "ms.GenerateURLForDownloadFile", sandbox.Fault{Text: "Agent not allowed"}, download, share.LPForbidden},
		{"publish: refused by a text", "ms.PublishEvent", sandbox.Fault{Text: "Not permitted"}, published, share.LPForbidden},
		{"no such file", "ms.GenerateURLForDownloadFile", sandbox.Fault{Status: 404}, download, share.FileNotFound},
		{"too many", "ms.GenerateURLForUploadFile", sandbox.Fault{Status: 429}, upload, share.LPRateLimited},
		{"trouble", "ms.GenerateURLForUploadFile", sandbox.Fault{Status: 500}, upload, share.LPUnavailable},
		{"no answer", "ms.GenerateURLForUploadFile", sandbox.Fault{Drop: true}, upload, share.LPUnavailable},
		{"garbage", "ms.GenerateURLForUploadFile", sandbox.Fault{Garbage: true}, upload, share.LPProtocolError},
		{"publish: too many", "ms.PublishEvent", sandbox.Fault{Status: 429}, published, share.LPRateLimited},
		{"publish: refused", "ms.PublishEvent", sandbox.Fault{Status: 400}, published, share.LPRejectedFile},
		{"publish: forbidden", "ms.PublishEvent", sandbox.Fault{Status: 403}, published, share.LPForbidden},
		{"publish: not now", "ms.PublishEvent", sandbox.Fault{Status: 503}, published, share.LPPublishUnconfirmed},
		{"publish: trouble", "ms.PublishEvent", sandbox.Fault{Status: 500}, published, share.LPPublishUnconfirmed},
		{"publish: trouble behind", "ms.PublishEvent", sandbox.Fault{Status: 502}, published, share.LPPublishUnconfirmed},
		{"publish: no answer", "ms.PublishEvent", sandbox.Fault{Drop: true}, published, share.LPPublishUnconfirmed},
		{"publish: answer lost", "ms.PublishEvent", sandbox.Fault{DropAfter: true}, published, share.LPPublishUnconfirmed},
		{"publish: garbage", "ms.PublishEvent", sandbox.Fault{Garbage: true}, published, share.LPPublishUnconfirmed},
		{"create: refused", "http:conversation", sandbox.Fault{Status: 400}, create, share.InvalidField},
		{"create: trouble", "http:conversation", sandbox.Fault{Status: 500}, create, share.LPPublishUnconfirmed},
		{"create: answer lost", "http:conversation", sandbox.Fault{DropAfter: true}, create, share.LPPublishUnconfirmed},
		{"create: not now", "http:conversation", sandbox.Fault{Status: 503}, create, share.LPPublishUnconfirmed},
	} {
		t.Run(x.name, func(t *testing.T) {
			x.fault.On, x.fault.Count = x.on, 1
			h.sb.Inject(x.fault)
			wantKind(t, x.name, x.do(), x.want)
		})
	}
}

// The number in an answer does not change what its status proves.
func TestPosted_MissingParameter(t *testing.T) {
	for _, step := range []lpwire.Step{lpwire.StepPublish, lpwire.StepCreate} {
		for status, want := range map[int]share.Kind{400: share.LPProtocolError, 500: share.LPPublishUnconfirmed, 503: share.LPPublishUnconfirmed} {
			p := &posted{status: status, code: errorMissing, readable: true}
			if e := p.failure(step); e.Kind != want || e.Denied != (status == 400) {
				t.Errorf("%s, status %d: %v, denied %t", step, status, e, e.Denied)
			}
		}
	}
	if e := (&posted{status: 400, code: errorMissing, readable: true}).failure(lpwire.StepClose); e.Denied {
		t.Errorf("a request without an effect is denied: %v", e)
	}
}

// A request whose answer is lost is not sent again.
func TestPublishFile_Unconfirmed(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"connection closed": func(w http.ResponseWriter, _ *http.Request) { hijack(w, "") },
		"half a head":       func(w http.ResponseWriter, _ *http.Request) { hijack(w, "HTTP/1.1 200 O") },
		"half a body": func(w http.ResponseWriter, _ *http.Request) {
			hijack(w, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"code\":\"OK\"")
		},
		"no JSON":              lpfake.Says(200, "<html>"),
		"an empty answer":      lpfake.Says(200, ""),
		"no sequence":          lpfake.Says(200, `{"code":"OK","reqId":"1","body":{}}`),
		"a proxy's 502":        lpfake.Says(502, "bad gateway"),
		"a proxy's 503":        lpfake.Says(503, "upstream connect error"),
		"a proxy's 503, JSON":  lpfake.Says(503, `{"message":"no healthy upstream"}`),
		"a proxy's 504":        lpfake.Says(504, ""),
		"an OK of a proxy's":   lpfake.Says(200, `{"sequence":1,"conversationId":"x"}`),
		"LivePerson's timeout": lpfake.Says(408, ""),
		"too late":             nil,
	} {
		t.Run(name, func(t *testing.T) {
			f := lpfake.New(t)
			var sent atomic.Int64
			// on returns a context that ends when a request to path has arrived that gets no answer.
			on := func(path string) context.Context {
				ctx, end := context.WithCancelCause(t.Context())
				f.On(path, func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					sent.Add(1)
					if answer != nil {
						answer(w, r)
						return
					}
					end(context.DeadlineExceeded)
					<-r.Context().Done()
				})
				return ctx
			}
			publishing, creating := on("/messaging/consumer/conversation/send"), on("/messaging/consumer/conversation")
			s := fakeSession(t, f)
			_, err := s.PublishFile(publishing, "c", "", share.HostedFile{StoragePath: "/v1/AUTH_x/" + lpfake.Account + "/a", FileType: "PNG"})
			if !share.Is(err, share.LPPublishUnconfirmed) {
				t.Errorf("publish: %v", err)
			}
			if sent.Load() != 1 {
				t.Errorf("%d messages were sent", sent.Load())
			}
			if _, err = s.CreateConversation(creating, share.NewConversation{}); !share.Is(err, share.LPPublishUnconfirmed) {
				t.Errorf("create: %v", err)
			}
			if sent.Load() != 2 {
				t.Errorf("%d requests were made", sent.Load())
			}
		})
	}
	t.Run("not sent", func(t *testing.T) {
		f := lpfake.New(t)
		s := fakeSession(t, f)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := s.PublishFile(ctx, "c", "", share.HostedFile{})
		if !share.Is(err, share.LPTimeout) || !errors.Is(err, context.Canceled) {
			t.Errorf("after the end: %v", err)
		}
		s.m.client.Close() // closes idle connections: a request on one could have arrived
		f.Close()
		_, err = s.PublishFile(t.Context(), "c", "", share.HostedFile{})
		wantKind(t, "nothing listens", err, share.LPUnavailable)
	})
}

func hijack(w http.ResponseWriter, text string) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err == nil {
		_, _ = io.WriteString(conn, text)
		_ = conn.Close()
	}
}

// fakeSession returns a session with a LivePerson that issues tokens, and responds to other requests as the test sets it.
func fakeSession(t *testing.T, f *lpfake.Server) *Session {
	t.Helper()
	app, consumer := lpfake.JWT(map[string]any{"aud": lpfake.Account}), lpfake.JWT(map[string]any{"lp_consumer_id": "lp-1", "ext_consumer_id": "anna", "account_id": lpfake.Account})
	f.OnPath("/sentinel/api/account/"+lpfake.Account+"/app/token", lpfake.Says(200, `{"access_token":"`+app+`","token_type":"Bearer"}`))
	f.On("/consumer", lpfake.Says(201, `{"token":"`+consumer+`"}`))
	all := map[string]string{}
	for _, service := range []string{lprest.ServiceSentinel, lprest.ServiceIDP, lprest.ServiceConsumerWS} {
		all[service] = f.URL
	}
	h := &env{t: t, log: newEventLog(t), app: App{ID: "app", Secret: "secret"}}
	h.m = h.messenger(newClient(t, lprest.Config{DomainAPI: f.URL, PlainHTTP: true, Overrides: all, Timeout: time.Minute}))
	s := h.session("anna")
	if s.Principal().ID != "lp-1" {
		t.Errorf("the principal is %+v", s.Principal())
	}
	for _, r := range f.Requests() {
		if strings.HasPrefix(r.Target, "/sentinel") && (r.Body != "client_id=app&client_secret=secret" || !strings.HasSuffix(r.Target, "?grant_type=client_credentials&v=1.0")) {
			t.Errorf("the request for an AppJWT has %s and %q", r.Target, r.Body)
		}
		if strings.Contains(r.Target, "/consumer?") && r.Header.Get("Authorization") != app {
			t.Errorf("the request for a ConsumerJWS has %q", r.Header.Get("Authorization"))
		}
	}
	return s
}

func TestPublishFile_AfterDeadline(t *testing.T) {
	h := newEnv(t, sandbox.Options{}, false)
	s := h.session("anna")
	conv, path := h.conversation(s), h.store(s)
	_, err := s.PublishFile(stopped{t.Context()}, conv, "", share.HostedFile{StoragePath: path, FileType: "PNG"})
	wantKind(t, "late", err, share.LPTimeout)
	if n := len(h.sb.Journal().Published); n != 0 {
		t.Errorf("%d messages were published", n)
	}
}
