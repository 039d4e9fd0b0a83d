package lpws

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

func TestSession_SharesAFile(t *testing.T) {
	t.Parallel()
	h := newHarness(t, sandbox.Options{})
	s := h.session(h.consumer())
	if p := s.Principal(); p.Account != account || p.ID == "" || p.Role != share.RoleConsumer || p.Expires.IsZero() {
		t.Errorf("principal is %+v", p)
	}
	c := h.begin(s)
	if !c.Open || len(c.Dialogs) != 1 || len(c.Participants) != 1 || c.Participants[0].ID != s.Principal().ID {
		t.Errorf("conversation is %+v", c)
	}
	path, seq := h.send(s, c.ID, "a caption")
	ctx := ctxOf(t)
	for _, dialog := range []string{"", c.ID} {
		e, err := s.FindFile(ctx, c.ID, dialog, path)
		if err != nil {
			t.Fatal(err)
		}
		if e.Sequence != seq || e.Dialog != c.ID || e.Conversation != c.ID || e.SenderID != s.Principal().ID ||
			e.SenderRole != share.RoleConsumer || e.Time.IsZero() || e.File.Caption != "a caption" || e.File.FileType != "PNG" {
			t.Errorf("found %+v", e)
		}
	}
	u, err := s.DownloadURL(ctx, path)
	if err != nil || u.Path != path || u.ExpireTime.IsZero() {
		t.Errorf("download URL %v %v", u, err)
	}
	if err := s.MarkAccessed(ctx, c.ID, "", seq); err != nil {
		t.Error(err)
	}
	files, cursor, err := listFiles(s, ctx, c.ID)
	if err != nil || len(files) != 1 || cursor[c.ID] != seq+1 {
		t.Errorf("listed %v %v %v", files, cursor, err)
	}
	_, err = s.FindFile(ctx, c.ID, "", strings.Replace(path, ".PNG", "x.PNG", 1))
	want(t, err, share.FileNotFound)

	all, err := s.ListConversations(ctx)
	if err != nil || len(all) != 1 || all[0].ID != c.ID {
		t.Errorf("conversations: %v %v", all, err)
	}
	if c, err = s.CloseConversation(ctx, c.ID); err != nil || c.Open || c.End.IsZero() {
		t.Errorf("closed: %+v %v", c, err)
	}
	if c, err = s.CloseConversation(ctx, c.ID); err != nil || c.Open {
		t.Errorf("closed again: %+v %v", c, err)
	}
	_, err = s.PublishFile(ctx, c.ID, "", hosted(path, ""))
	want(t, err, share.ConversationClosed)
	_, err = s.Conversation(ctx, "b3d3a1f0-0000-4000-8000-000000000000")
	want(t, err, share.ConversationNotFound)
}

func TestCreateConversation_SendsOptions(t *testing.T) {
	t.Parallel()
	h := newHarness(t, sandbox.Options{})
	s := h.session(h.consumer())
	c, err := s.CreateConversation(ctxOf(t), share.NewConversation{
		SkillID: "42", CampaignID: "7", EngagementID: "8", Context: &share.ConversationContext{Language: "en-US", VisitorID: "v", SessionID: "s"},
	})
	if err != nil || c.SkillID != "42" {
		t.Errorf("%+v %v", c, err)
	}
	h.sb.Inject(sandbox.Fault{On: "cm.ConsumerRequestConversation", Count: 1, Status: 400, ErrorCode: 40002})
	_, err = s.CreateConversation(ctxOf(t), share.NewConversation{})
	if e := want(t, err, share.InvalidField); e.Metadata["lpErrorCode"] != "40002" {
		t.Errorf("metadata %v", e.Metadata)
	}
}

func TestSession_HidesConversationsFromOthers(t *testing.T) {
	t.Parallel()
	h := newHarness(t, sandbox.Options{SignAnyPath: true})
	one, other := h.session(h.consumer()), h.session(h.consumer())
	c := h.begin(one)
	path, _ := h.send(one, c.ID, "")
	ctx := ctxOf(t)
	_, err := other.Conversation(ctx, c.ID)
	want(t, err, share.ConversationNotFound)
	_, err = other.FindFile(ctx, c.ID, "", path)
	want(t, err, share.ConversationNotFound)
	_, _, err = listFiles(other, ctx, c.ID)
	want(t, err, share.ConversationNotFound)
	_, err = other.WatchFiles(ctx, c.ID, nil)
	want(t, err, share.ConversationNotFound)
	files, _, err := listFiles(other, ctx, "")
	if err != nil || len(files) != 0 {
		t.Errorf("listed %v %v", files, err)
	}
	w, err := other.WatchFiles(ctx, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	h.send(one, c.ID, "")
	nothing(t, w)
	mine := h.begin(other)
	_, err = other.FindFile(ctx, mine.ID, c.ID, path)
	want(t, err, share.ConversationNotFound)
	_, err = other.FindFile(ctx, mine.ID, "", path)
	want(t, err, share.FileNotFound)
}

func TestConversation_FindsThoseOfAnotherServer(t *testing.T) {
	t.Parallel()
	h := newHarness(t, sandbox.Options{})
	cred := h.consumer()
	s := h.session(cred)
	other := h.newPool() // as another replica
	o, err := other.Session(ctxOf(t), cred)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Release()
	c := h.begin(s)
	if _, err := o.Conversation(ctxOf(t), c.ID); err != nil {
		t.Error(err)
	}
	// If it is unknown, the list is requested again.
	o.s.book.mu.Lock()
	clear(o.s.book.conversations.byID)
	o.s.book.mu.Unlock()
	if _, err := o.Conversation(ctxOf(t), c.ID); err != nil {
		t.Error(err)
	}
	eventually(t, "the earlier subscription is ended", func() bool { return h.sent("UnsubscribeExConversations") >= 1 })
}

func TestPoolSession_SharesOneSocket(t *testing.T) {
	t.Parallel()
	h := newHarness(t, sandbox.Options{})
	h.sb.Inject(sandbox.Fault{On: "ws:upgrade", Delay: 50 * time.Millisecond})
	cred := h.consumer()
	var callers sync.WaitGroup
	for range 50 {
		callers.Go(func() {
			s, err := h.pool.Session(ctxOf(t), cred)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := s.UploadURL(ctxOf(t), 1, share.JPEG); err != nil {
				t.Error(err)
			}
			s.Release()
			s.Release()
		})
	}
	callers.Wait()
	if h.sb.Sockets() != 1 || h.pool.Len() != 1 || h.sent("SubscribeExConversations") != 1 {
		t.Errorf("%d sockets, %d sessions", h.sb.Sockets(), h.pool.Len())
	}
	h.pool.mu.Lock()
	for _, s := range h.pool.sessions {
		if s.refs != 0 {
			t.Errorf("%d uses are left", s.refs)
		}
	}
	h.pool.mu.Unlock()
}

// forge returns the token with another signature.
func forge(c share.Credential) share.Credential {
	i := strings.LastIndexByte(c.Secret, '.')
	c.Secret = c.Secret[:i+1] + strings.Repeat("A", len(c.Secret)-i-1)
	return c
}

func TestPoolSession_RejectsBadTokens(t *testing.T) {
	t.Parallel()
	now := clock{}
	h := newHarness(t, sandbox.Options{TokenLifetime: time.Hour, Now: now.now}, func(c *Config) { c.Now = now.now })
	cred := h.consumer()
	s := h.session(cred)
	_, err := h.pool.Session(ctxOf(t), forge(cred))
	want(t, err, share.TokenInvalid)

	for _, secret := range []string{"", "x", "a.b.c", "with space", "line\nbreak", strings.Repeat("x", share.MaxToken+1)} {
		_, err := h.pool.Session(ctxOf(t), share.Credential{Scheme: share.ConsumerToken, Account: account, Secret: secret})
		want(t, err, share.TokenInvalid)
	}
	elsewhere := cred
	elsewhere.Account = "87654321"
	_, err = h.pool.Session(ctxOf(t), elsewhere)
	want(t, err, share.NotAllowed)
	_, err = h.pool.Session(ctxOf(t), share.Credential{Scheme: share.ExternalConsumerID, Account: account, Secret: "x"})
	want(t, err, share.MethodNotImplemented)

	w, err := s.WatchFiles(ctxOf(t), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	now.add(2 * time.Hour)
	_, err = h.pool.Session(ctxOf(t), cred)
	want(t, err, share.TokenInvalid)
	_, err = s.UploadURL(ctxOf(t), 1, share.PNG)
	want(t, err, share.LPIdentityExpired)
	_, err = w.Next(ctxOf(t))
	want(t, err, share.LPIdentityExpired)
	eventually(t, "the socket is closed", func() bool { return h.sb.Sockets() == 0 })
	if h.pool.Len() != 0 {
		t.Error("the session is still in the pool")
	}
}

// clock is a clock that tests can move.
type clock struct {
	mu  sync.Mutex
	off time.Duration
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.off)
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.off += d
}

func TestPoolSession_UpgradeErrors(t *testing.T) {
	t.Parallel()
	h := newHarness(t, sandbox.Options{})
	cred := h.consumer()
	for status, kind := range map[int]share.Kind{
		401: share.TokenInvalid, 403: share.TokenInvalid, 404: share.NotAllowed, 429: share.LPRateLimited, 500: share.LPUnavailable,
		502: share.LPUnavailable, 418: share.LPProtocolError, 301: share.LPProtocolError, 400: share.LPProtocolError,
	} {
		h.sb.ClearFaults()
		h.sb.Inject(sandbox.Fault{On: "ws:upgrade", Status: status})
		_, err := h.pool.Session(ctxOf(t), cred)
		if e := want(t, err, kind); kind == share.LPRateLimited && e.RetryAfter < time.Second {
			t.Errorf("retry after %v", e.RetryAfter)
		}
	}
	h.sb.ClearFaults()
	h.sb.Inject(sandbox.Fault{On: "ws:upgrade", Garbage: true})
	_, err := h.pool.Session(ctxOf(t), cred)
	want(t, err, share.LPProtocolError)
	h.sb.ClearFaults()
	h.sb.Inject(sandbox.Fault{On: "ws:upgrade", Drop: true})
	_, err = h.pool.Session(ctxOf(t), cred)
	want(t, err, share.LPUnavailable)

	p := h.newPool(func(c *Config) {
		c.SocketURL = func(context.Context, string, share.Scheme) (string, error) { return "ws://127.0.0.1:1", nil }
	})
	_, err = p.Session(ctxOf(t), cred)
	if e := want(t, err, share.LPUnavailable); e.RetryAfter != 5*time.Second {
		t.Errorf("retry after %v", e.RetryAfter)
	}
	p = h.newPool(func(c *Config) {
		c.SocketURL = func(context.Context, string, share.Scheme) (string, error) { return "ws://no.such.host.invalid", nil }
	})
	_, err = p.Session(ctxOf(t), cred)
	want(t, err, share.LPUnavailable)
	p = h.newPool(func(c *Config) { c.OpenTimeout = 50 * time.Millisecond })
	h.sb.ClearFaults()
	h.sb.Inject(sandbox.Fault{On: "ws:upgrade", Mute: true})
	_, err = p.Session(ctxOf(t), cred)
	want(t, err, share.LPUnavailable)
}

func TestSession_CloseCodes(t *testing.T) {
	t.Parallel()
	h := newHarness(t, sandbox.Options{})
	consumer, agent := h.consumer(), h.agent("ann")
	for _, row := range []struct {
		cred    share.Credential
		code    int
		opening share.Kind // if the code arrives while the session is opened
		call    share.Kind // if it arrives during a call; "": another connection answers the call
	}{
		{consumer, 4401, share.TokenInvalid, share.LPIdentityExpired},
		{consumer, 4407, share.TokenInvalid, share.LPIdentityExpired},
		{consumer, 1011, share.LPUnavailable, ""},
		{consumer, 1001, share.LPUnavailable, ""},
		{consumer, 1000, share.LPUnavailable, ""},
		{consumer, 1008, share.LPUnavailable, ""},
		{consumer, 4000, share.LPUnavailable, ""},
		{agent, 4401, share.TokenInvalid, share.LPIdentityExpired},
		{agent, 1011, share.TokenInvalid, share.LPIdentityExpired},
		{agent, 1001, share.LPUnavailable, ""},
	} {
		name := "cqm.SubscribeExConversations"
		if row.cred.Scheme == share.AgentToken {
			name = "aam.SubscribeExConversations"
		}
		for _, on := range []string{"ws:upgrade", name} {
			h.sb.ClearFaults()
			h.sb.Inject(sandbox.Fault{On: on, CloseCode: row.code, Count: 1})
			_, err := h.pool.Session(ctxOf(t), row.cred)
			want(t, err, row.opening)
		}
		h.sb.ClearFaults()
		s, err := h.pool.Session(ctxOf(t), row.cred)
		if err != nil {
			t.Fatal(err)
		}
		h.sb.Inject(sandbox.Fault{On: "ms.GenerateURLForUploadFile", CloseCode: row.code, Count: 1})
		if _, err = s.UploadURL(ctxOf(t), 1, share.PNG); row.call != "" {
			want(t, err, row.call)
			if h.pool.Len() != 0 {
				t.Errorf("%d: the session is still in the pool", row.code)
			}
		} else if err != nil {
			t.Errorf("%d: %v", row.code, err)
		}
		s.Release()
		h.sb.DropSockets(0) // the session is idle, so it leaves the pool
		eventually(t, "the pool is empty", func() bool { return h.pool.Len() == 0 })
	}
}

func TestSession_ErrorAnswers(t *testing.T) {
	t.Parallel()
	h := newHarness(t, sandbox.Options{})
	ctx := ctxOf(t)
	cred := h.consumer()
	first := h.session(cred)
	c := h.begin(first)
	path := h.store(first)
	upload := func(s *Session) error { _, err := s.UploadURL(ctx, 1, share.PNG); return err }
	download := func(s *Session) error { _, err := s.DownloadURL(ctx, path); return err }
	publish := func(s *Session) error { _, err := s.PublishFile(ctx, c.ID, "", hosted(path, "")); return err }
	receipt := func(s *Session) error { return s.MarkAccepted(ctx, c.ID, "", 0) }
	create := func(s *Session) error { _, err := s.CreateConversation(ctx, share.NewConversation{}); return err }
	closing := func(s *Session) error { _, err := s.CloseConversation(ctx, c.ID); return err }
	list := func(s *Session) error { _, _, err := listFiles(s, ctx, c.ID); return err }
	const (
		up, down = "ms.GenerateURLForUploadFile", "ms.GenerateURLForDownloadFile"
		pub, sub = "ms.PublishEvent", "ms.SubscribeMessagingEvents"
	)
	for _, row := range []struct {
		on     string
		status int
		call   func(*Session) error
		kind   share.Kind
		step   string
		after  time.Duration
	}{
		{up, 403, upload, share.FileSharingDisabled, "", 0},
		{down, 403, download, share.LPForbidden, "", 0},
		{pub, 403, publish, share.LPForbidden, "", 0},
		{sub, 403, list, share.LPForbidden, "", 0},
		{down, 404, download, share.FileNotFound, "", 0},
		{pub, 404, publish, share.ConversationNotFound, "", 0},
		{sub, 404, list, share.ConversationNotFound, "", 0},
		{up, 400, upload, share.LPRejectedFile, "upload_url", 0},
		{up, 413, upload, share.LPRejectedFile, "upload_url", 0},
		{pub, 400, publish, share.LPRejectedFile, "publish", 0},
		{pub, 413, publish, share.LPRejectedFile, "publish", 0},
		{pub, 400, receipt, share.LPProtocolError, "receipt", 0},
		{up, 429, upload, share.LPRateLimited, "", time.Second},
		{pub, 429, publish, share.LPPublishUnconfirmed, "", 5 * time.Second},
		{up, 500, upload, share.LPUnavailable, "", 5 * time.Second},
		{pub, 503, publish, share.LPPublishUnconfirmed, "", 5 * time.Second},
		{pub, 504, publish, share.LPPublishUnconfirmed, "", 5 * time.Second},
		{pub, 500, receipt, share.LPUnavailable, "", 5 * time.Second},
		{"cm.ConsumerRequestConversation", 500, create, share.LPPublishUnconfirmed, "", 5 * time.Second},
		{"cm.UpdateConversationField", 403, closing, share.LPForbidden, "", 0},
		{sub, 418, list, share.LPProtocolError, "subscribe", 0},
		{up, 401, upload, share.LPIdentityExpired, "", 0},
		{pub, 401, publish, share.LPIdentityExpired, "", 0},
		{sub, 401, list, share.LPIdentityExpired, "", 0},
	} {
		s, err := h.pool.Session(ctx, cred)
		if err != nil {
			t.Fatal(err)
		}
		h.sb.Inject(sandbox.Fault{On: row.on, Status: row.status})
		e := want(t, row.call(s), row.kind)
		if e.RetryAfter != row.after || e.Metadata["step"] != row.step || (row.step != "") != (e.Metadata["lpErrorCode"] != "") {
			t.Errorf("%s %d: retry after %v, metadata %v", row.on, row.status, e.RetryAfter, e.Metadata)
		}
		if strings.Contains(e.Message, "made on demand") {
			t.Errorf("LivePerson's own text: %q", e.Message)
		}
		if row.kind == share.FileSharingDisabled && !strings.Contains(e.Message, "messaging.file.sharing.enabled") {
			t.Errorf("the site property is not named: %q", e.Message)
		}
		h.sb.ClearFaults()
		s.Release()
	}
	for on, call := range map[string]func(*Session) error{
		up: upload, down: download, pub: publish, sub: list, "cm.ConsumerRequestConversation": create, "cm.UpdateConversationField": closing,
	} {
		s, err := h.pool.Session(ctx, cred)
		if err != nil {
			t.Fatal(err)
		}
		h.sb.Inject(sandbox.Fault{On: on, Text: "Agent not allowed", Count: 1})
		if e := want(t, call(s), share.LPForbidden); strings.Contains(e.Error(), "Agent not allowed") {
			t.Errorf("%s: LivePerson's own text: %v", on, e)
		}
		s.Release()
	}
	for _, call := range []func(*Session) error{upload, list} {
		h.sb.Inject(sandbox.Fault{On: up, Garbage: true, Count: 1})
		h.sb.Inject(sandbox.Fault{On: sub, Garbage: true, Count: 1})
		s, err := h.pool.Session(ctx, cred)
		if err != nil {
			t.Fatal(err)
		}
		want(t, call(s), share.LPProtocolError)
		h.sb.ClearFaults()
		s.Release()
	}
}

func TestPublishFile_ReportsAClosedConversation(t *testing.T) {
	t.Parallel()
	h := newHarness(t, sandbox.Options{})
	s := h.session(h.consumer())
	c := h.begin(s)
	path := h.store(s)
	if _, err := s.CloseConversation(ctxOf(t), c.ID); err != nil {
		t.Fatal(err)
	}
	s.s.book.mu.Lock() // as if LivePerson had not reported the close yet
	known := s.s.book.conversations.byID[c.ID]
	known.Open, known.Dialogs[0].Open = true, true
	s.s.book.mu.Unlock()
	_, err := s.PublishFile(ctxOf(t), c.ID, "", hosted(path, ""))
	want(t, err, share.ConversationClosed)
}

func TestCall_LeavesNoPendingCall(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPeer(t)
		var mute atomic.Bool
		var drops atomic.Int64 // of connections, each at the next request
		p.answer = func(k *peerSocket, typ, _ string, _ map[string]any) bool {
			if typ == reqUploadURL && drops.Add(-1) >= 0 {
				_ = k.conn.Close()
				return true
			}
			return typ == reqUploadURL && mute.Load()
		}
		s := p.session()
		upload := func(ctx context.Context, what string) error {
			t.Helper()
			_, err := s.UploadURL(ctx, 1, share.PNG)
			c, acquired := s.s.acquire(ctxOf(t))
			if acquired != nil {
				t.Fatal(acquired)
			}
			if n := c.calls(); n != 0 {
				t.Errorf("%d pending calls after %s", n, what)
			}
			return err
		}

		mute.Store(true)
		want(t, upload(ctxOf(t), "the timeout"), share.LPTimeout)
		why := errors.New("the caller's reason")
		ctx, cancel := context.WithCancelCause(ctxOf(t))
		time.AfterFunc(time.Second, func() { cancel(why) })
		for _, what := range []string{"the cancellation", "a call with an ended context"} {
			if err := upload(ctx, what); !errors.Is(err, why) {
				t.Errorf("%s: %v", what, err)
			}
		}
		mute.Store(false)

		// A call is repeated on the next connection.
		drops.Store(1)
		if err := upload(ctxOf(t), "a drop"); err != nil {
			t.Errorf("after one drop: %v", err)
		}
		drops.Store(2)
		want(t, upload(ctxOf(t), "two drops"), share.LPUnavailable)
	})
}

func TestPublishFile_SendsAtMostOnce(t *testing.T) {
	t.Parallel()
	for name, fault := range map[string]sandbox.Fault{
		"the answer is lost with the connection": {DropAfter: true},
		"the caller cancels":                     {Mute: true},
		"the answer cannot be read":              {Garbage: true},
		"the message is lost":                    {Drop: true},
		"the identity ends":                      {CloseCode: 4401},
		"the socket is closed":                   {CloseCode: 1001},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHarness(t, sandbox.Options{})
			cred := h.consumer()
			s := h.session(cred)
			c := h.begin(s)
			path := h.store(s)
			fault.On = "ms.PublishEvent"
			h.sb.Inject(fault)
			ctx, cancel := context.WithCancel(ctxOf(t))
			done := make(chan error, 1)
			go func() {
				_, err := s.PublishFile(ctx, c.ID, "", hosted(path, ""))
				done <- err
			}()
			if fault.Mute {
				eventually(t, "the message is sent", func() bool { return h.sent("ms.PublishEvent") == 1 })
				cancel()
			}
			err := <-done
			cancel()
			want(t, err, share.LPPublishUnconfirmed)
			if cause := errors.Unwrap(err); share.KindOf(cause) != "" {
				t.Errorf("the cause has a kind: %v", cause)
			}
			h.pool.Close() // nothing is sent after it
			eventually(t, "the sandbox has read all frames", func() bool { return h.sb.Sockets() == 0 })
			if n := h.sent("ms.PublishEvent"); n != 1 {
				t.Errorf("%d frames", n)
			}
			h.sb.ClearFaults()
			h.pool = h.newPool()
			s = h.session(cred)
			published := len(h.sb.Journal().Published) == 1
			if published != (fault.DropAfter || fault.Mute || fault.Garbage) {
				t.Fatal("the fault had another effect")
			}
			if _, err := s.FindFile(ctxOf(t), c.ID, "", path); published && err != nil {
				t.Errorf("the message is not found: %v", err)
			} else if !published {
				want(t, err, share.FileNotFound)
			}
		})
	}
	t.Run("the caller has canceled before", func(t *testing.T) {
		t.Parallel()
		h := newHarness(t, sandbox.Options{})
		s := h.session(h.consumer())
		c := h.begin(s)
		path := h.store(s)
		ctx, cancel := context.WithCancel(ctxOf(t))
		cancel()
		_, err := s.PublishFile(ctx, c.ID, "", hosted(path, ""))
		if !errors.Is(err, context.Canceled) || h.sent("ms.PublishEvent") != 0 {
			t.Errorf("%v, %d frames", err, h.sent("ms.PublishEvent"))
		}
	})
}

func TestPoolSession_InitConnection(t *testing.T) {
	t.Parallel()
	h := newHarness(t, sandbox.Options{}, func(c *Config) { c.InitConnection = true })
	cred := h.consumer()
	s := h.session(cred)
	h.send(s, h.begin(s).ID, "")
	if n := h.sent("InitConnection"); n != 1 {
		t.Errorf("%d InitConnections", n)
	}
	h.sb.DropSockets(0)
	if _, err := s.UploadURL(ctxOf(t), 1, share.PNG); err != nil || h.sent("InitConnection") != 2 {
		t.Errorf("reopened: %v, %d InitConnections", err, h.sent("InitConnection"))
	}
	_, err := h.pool.Session(ctxOf(t), forge(cred))
	want(t, err, share.TokenInvalid)

	for _, status := range []int{400, 431} { // a proxy rejects the header
		h := newHarness(t, sandbox.Options{})
		h.sb.Inject(sandbox.Fault{On: "ws:upgrade", Status: status, Count: 1})
		h.session(h.consumer())
		if n := h.sent("InitConnection"); n != 1 {
			t.Errorf("%d: %d InitConnections", status, n)
		}
	}
}

func TestPool_OpensANewSessionForNewSettings(t *testing.T) {
	t.Parallel()
	var settings atomic.Value
	settings.Store("first")
	h := newHarness(t, sandbox.Options{}, func(c *Config) { c.SettingsKey = func(string) string { return settings.Load().(string) } })
	cred := h.consumer()
	first, same := h.session(cred), h.session(cred)
	if h.sb.Sockets() != 1 || first.s != same.s {
		t.Errorf("%d sockets for one token", h.sb.Sockets())
	}
	settings.Store("second")
	other := h.session(cred)
	if h.sb.Sockets() != 2 || other.s == first.s {
		t.Errorf("%d sockets after the settings changed, want a second", h.sb.Sockets())
	}
	if _, err := first.ListConversations(ctxOf(t)); err != nil {
		t.Errorf("a caller of the earlier session: %v", err)
	}
	first.Release()
	same.Release()
	eventually(t, "the idle session with earlier settings is closed", func() bool { return h.sb.Sockets() == 1 && h.pool.Len() == 1 })
}

func TestPoolEnd_EndsSessionsOfAllSettings(t *testing.T) {
	t.Parallel()
	var settings atomic.Value
	settings.Store("first")
	h := newHarness(t, sandbox.Options{}, func(c *Config) { c.SettingsKey = func(string) string { return settings.Load().(string) } })
	cred := h.agent("ann")
	before, other := h.session(cred), h.session(h.agent("ann"))
	settings.Store("second")
	since := h.session(cred)
	h.pool.End(cred)
	for when, s := range map[string]*Session{"before": before, "since": since} {
		_, err := s.ListConversations(ctxOf(t))
		if !share.Is(err, share.LPIdentityExpired) {
			t.Errorf("a session opened %s the settings changed: %v, want that its identity has ended", when, err)
		}
	}
	if _, err := other.ListConversations(ctxOf(t)); err != nil {
		t.Errorf("the other login: %v", err)
	}
}

func TestPoolSession_TLS(t *testing.T) {
	t.Parallel()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	h := newHarness(t, sandbox.Options{TLSListen: "127.0.0.1:0", CAFile: ca})
	pem, err := os.ReadFile(ca)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	secure := func(c *Config) {
		c.SocketURL = func(context.Context, string, share.Scheme) (string, error) {
			return "wss" + strings.TrimPrefix(h.sb.TLSURL(), "https"), nil
		}
	}
	_, err = h.newPool(secure).Session(ctxOf(t), h.consumer())
	if e := want(t, err, share.LPUnavailable); e.Cause == nil || !strings.Contains(e.Cause.Error(), "unknown authority") {
		t.Errorf("the cause is %v", e.Cause)
	}
	s, err := h.newPool(secure, func(c *Config) { c.TLS = &tls.Config{RootCAs: roots} }).Session(ctxOf(t), h.agent("ann"))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Release()
	if _, err := s.UploadURL(ctxOf(t), 1, share.PNG); err != nil {
		t.Error(err)
	}
}

func TestPoolEnd_EndsCallsAndWatches(t *testing.T) {
	t.Parallel()
	h := newHarness(t, sandbox.Options{})
	cred, other := h.agent("ann"), h.agent("ann")
	s, also := h.session(cred), h.session(other)
	w, err := s.WatchFiles(ctxOf(t), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	h.sb.Inject(sandbox.Fault{On: "ms.PublishEvent", Count: 1, Mute: true})
	c := h.session(h.consumer())
	conv := h.begin(c)
	h.join(s, conv.ID, "MANAGER")
	path := h.store(s)
	published := make(chan error, 1)
	go func() { // ends with the session
		_, err := s.PublishFile(ctxOf(t), conv.ID, "", hosted(path, "late"))
		published <- err
	}()
	eventually(t, "the message is sent", func() bool { return h.sent("ms.PublishEvent") == 1 })

	before := h.pool.Len()
	h.pool.End(cred)
	want(t, <-published, share.LPPublishUnconfirmed)
	for err == nil { // the published message may be delivered first
		_, err = w.Next(ctxOf(t))
	}
	want(t, err, share.LPIdentityExpired)
	_, err = s.ListConversations(ctxOf(t))
	want(t, err, share.LPIdentityExpired)
	if n := h.pool.Len(); n != before-1 {
		t.Errorf("%d sessions are left of %d", n, before)
	}
	h.pool.End(cred) // no effect: there is none
	if _, err := also.ListConversations(ctxOf(t)); err != nil {
		t.Errorf("the other session: %v", err)
	}
	h.session(cred) // LivePerson still accepts the login, which lpws does not end
}
