package lpws

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

func TestWatch_DeliversFilesBehindTheCursor(t *testing.T) {
	t.Parallel()
	h := newHarness(t, sandbox.Options{})
	s := h.session(h.consumer())
	c := h.begin(s)
	ctx := ctxOf(t)
	for i := range 3 {
		h.sendText(s, c.ID, "words")
		h.send(s, c.ID, fmt.Sprint("old ", i))
	}
	h.sendText(s, c.ID, "more words")
	files, cursor, err := listFiles(s, ctx, c.ID)
	if err != nil || len(files) != 3 || cursor[c.ID] != 6 {
		t.Fatalf("listed %v %v %v", files, cursor, err)
	}

	whole, err := s.WatchFiles(ctx, c.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer whole.Close()
	part, err := s.WatchFiles(ctx, c.ID, share.Cursor{c.ID: files[1].Sequence})
	if err != nil {
		t.Fatal(err)
	}
	defer part.Close()
	all, err := s.WatchFiles(ctx, "", cursor)
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	for i := range 3 {
		if e := next(t, whole); e.File.Caption != fmt.Sprint("old ", i) || e.Sequence != files[i].Sequence {
			t.Errorf("%d is %+v", i, e)
		}
	}
	eventually(t, "the cursor counts the text behind the last file", func() bool { return whole.Cursor()[c.ID] == 6 })
	if e := next(t, part); e.File.Caption != "old 2" {
		t.Errorf("behind a cursor: %+v", e)
	}
	nothing(t, all)
	h.sendText(s, c.ID, "and more")
	_, seq := h.send(s, c.ID, "new")
	for _, w := range []*Watch{whole, part, all} {
		if e := next(t, w); e.File.Caption != "new" || e.Sequence != seq {
			t.Errorf("live: %+v", e)
		}
		nothing(t, w)
		if got := w.Cursor()[c.ID]; got != seq {
			t.Errorf("cursor is %d, not %d", got, seq)
		}
	}

	d := h.begin(s)
	h.send(s, d.ID, "elsewhere")
	if e := next(t, all); e.Conversation != d.ID || e.Sequence != 0 {
		t.Errorf("another conversation: %+v", e)
	}
	nothing(t, whole)
	if _, known := whole.Cursor()[d.ID]; known {
		t.Error("the cursor of one conversation has another")
	}
	e := h.begin(s)
	eventually(t, "the cursor of an empty dialog is -1", func() bool { at, ok := all.Cursor()[e.ID]; return ok && at == -1 })

	if _, err := s.CloseConversation(ctx, c.ID); err != nil {
		t.Fatal(err)
	}
	late, err := s.WatchFiles(ctx, c.ID, share.Cursor{c.ID: files[2].Sequence})
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	if e := next(t, late); e.File.Caption != "new" {
		t.Errorf("after the close: %+v", e)
	}
	late.Close()
	_, err = late.Next(ctx)
	want(t, err, share.Internal)
	short, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	if _, err := whole.Next(short); err != context.DeadlineExceeded {
		t.Errorf("Next ended with %v", err)
	}
}

// TestWatch_LosesNothingOverLostConnections cuts the connection once, before each frame of a watch in turn. Then it cuts it repeatedly,
// before or after every n-th frame.
func TestWatch_LosesNothingOverLostConnections(t *testing.T) {
	t.Parallel()
	const files = 5
	h := newHarness(t, sandbox.Options{})
	open := func(t *testing.T, cred share.Credential) *Session {
		s, err := h.pool.Session(ctxOf(t), cred)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(s.Release)
		return s
	}

	// run watches a new conversation over a proxy, as a new consumer or agent, while the consumer publishes files. It returns the
	// numbers of frames and cuts.
	run := func(t *testing.T, scheme share.Scheme, cutAt func(int) (bool, bool)) (frames, cuts int) {
		cred := h.consumer()
		publisher := open(t, cred)
		path := h.store(publisher)
		c := h.begin(publisher)
		if scheme == share.AgentToken {
			cred = h.agent(t.Name())
			h.join(open(t, cred), c.ID, "MANAGER")
		}
		post := func(i int) {
			h.sendText(publisher, c.ID, "words")
			if _, err := publisher.PublishFile(ctxOf(t), c.ID, "", hosted(path, fmt.Sprint(i))); err != nil {
				t.Error(err)
			}
		}
		for i := range 2 {
			post(i)
		}
		p := newProxy(t, h.sb.URL(), cutAt)
		pool := h.newPool(func(c *Config) {
			c.SocketURL, c.BackoffMin, c.BackoffMax = p.socketURL, 2*time.Millisecond, 10*time.Millisecond
		})
		defer pool.Close()
		var s *Session
		for s == nil { // the opening may be cut, too
			var err error
			if s, err = pool.Session(ctxOf(t), cred); err != nil {
				want(t, err, share.LPUnavailable)
			}
		}
		defer s.Release()
		w, err := s.WatchFiles(ctxOf(t), c.ID, nil)
		for err != nil {
			want(t, err, share.LPUnavailable)
			w, err = s.WatchFiles(ctxOf(t), c.ID, nil)
		}
		defer w.Close()
		var posting sync.WaitGroup
		defer posting.Wait()
		for i := range files {
			if e := next(t, w); e.File.Caption != fmt.Sprint(i) || e.Sequence != int64(2*i+1) {
				t.Errorf("%d is %q, %d", i, e.File.Caption, e.Sequence)
			}
			if i > 0 {
				continue
			}
			posting.Go(func() { // the history was read, so each message is a frame
				for i := 2; i < files; i++ {
					post(i)
				}
			})
		}
		posting.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 15*time.Millisecond)
		defer cancel()
		if e, err := w.Next(ctx); err == nil {
			t.Errorf("delivered twice: %+v", e)
		}
		if got := w.Cursor(); !maps.Equal(got, share.Cursor{c.ID: 2*files - 1}) {
			t.Errorf("cursor is %v", got)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.frames, p.cuts
	}

	for _, scheme := range []share.Scheme{share.ConsumerToken, share.AgentToken} {
		frames, _ := run(t, scheme, func(int) (bool, bool) { return false, false })
		t.Logf("%s: a watch of %d files takes %d frames; the connection is cut at each of them", scheme, files, frames)
		for k := 1; k <= frames; k++ {
			t.Run(fmt.Sprintf("%s/cut once at %d", scheme, k), func(t *testing.T) {
				t.Parallel()
				run(t, scheme, func(n int) (bool, bool) { return n == k, false })
			})
		}
		for _, every := range []int{10, 11, 13} { // opening and reading take eight frames
			t.Run(fmt.Sprintf("%s/cut at every %d", scheme, every), func(t *testing.T) {
				t.Parallel()
				_, cuts := run(t, scheme, func(n int) (bool, bool) { return n%every == 0, n%2 == 0 })
				if cuts == 0 {
					t.Error("the connection was not cut")
				}
			})
		}
	}
}

func TestWatch_EndsASlowReader(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		p := newPeer(t)
		s := p.session()
		k := p.socket() // later ones are for reading only
		published := 0
		publish := func(n int) {
			var events []string
			for range n {
				events = append(events, fileEvent("c", published, "x"))
				published++
			}
			p.add("c", events...)
			k.push(events...)
			synctest.Wait()
		}
		publish(watchQueue + 20)
		watch := func(after share.Cursor) *Watch {
			w, err := s.WatchFiles(ctxOf(t), "c", after)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(w.Close)
			synctest.Wait()
			return w
		}
		slow := watch(nil)
		next(t, slow) // the history has arrived, and does not count
		publish(watchQueue)
		fast := watch(share.Cursor{"c": 0})
		for range 10 {
			next(t, slow) // it reads, but is behind
		}
		publish(1)
		at := slow.Cursor()
		_, err := slow.Next(ctxOf(t))
		want(t, err, share.WatchTooSlow)
		if got := slow.Cursor(); !maps.Equal(got, at) || got["c"] != 10 {
			t.Errorf("cursor is %v", got)
		}
		if e := next(t, watch(slow.Cursor())); e.Sequence != 11 {
			t.Errorf("resumed at %d", e.Sequence)
		}
		for want := 1; want < published; want++ {
			if e := next(t, fast); e.Sequence != int64(want) {
				t.Fatalf("%d instead of %d", e.Sequence, want)
			}
		}
	})
}

func TestWatch_EndsWithTheIdentity(t *testing.T) {
	t.Parallel()
	h := newHarness(t, sandbox.Options{})
	cred := h.consumer()
	s := h.session(cred)
	c := h.begin(s)
	w, err := s.WatchFiles(ctxOf(t), c.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	h.send(s, c.ID, "last")
	eventually(t, "the file has arrived", func() bool {
		w.mu.Lock()
		defer w.mu.Unlock()
		return len(w.queue) == 1
	})
	h.sb.DropSockets(4407)
	eventually(t, "the session has ended", func() bool { return h.pool.Len() == 0 })
	if e := next(t, w); e.File.Caption != "last" {
		t.Errorf("delivered %+v", e)
	}
	_, err = w.Next(ctxOf(t))
	want(t, err, share.LPIdentityExpired)
	_, err = s.WatchFiles(ctxOf(t), "", nil)
	want(t, err, share.LPIdentityExpired)
	_, _, err = listFiles(s, ctxOf(t), "")
	want(t, err, share.LPIdentityExpired)
	_, err = s.Conversation(ctxOf(t), c.ID)
	want(t, err, share.LPIdentityExpired)

	s = h.session(cred) // LivePerson still accepts the token
	w, err = s.WatchFiles(ctxOf(t), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if e := next(t, w); e.File.Caption != "last" {
		t.Errorf("delivered %+v", e)
	}
	h.sb.Inject(sandbox.Fault{On: "ws:upgrade", Status: 401})
	h.sb.DropSockets(0)
	_, err = w.Next(ctxOf(t))
	want(t, err, share.LPIdentityExpired) // noticed when the session is reopened
}

func TestWatch_OutlastsAnOutage(t *testing.T) {
	t.Parallel()
	h := newHarness(t, sandbox.Options{})
	cred := h.consumer()
	s := h.session(cred)
	c := h.begin(s)
	path := h.store(s)
	w, err := s.WatchFiles(ctxOf(t), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	h.sb.Inject(sandbox.Fault{On: "ws:upgrade", Status: 503, Count: 3})
	h.sb.Inject(sandbox.Fault{On: "ms.SubscribeMessagingEvents", Status: 429, Count: 1})
	before, err := s.s.acquire(ctxOf(t))
	if err != nil {
		t.Fatal(err)
	}
	h.sb.DropSockets(1001)
	<-before.done // the loss is noticed
	if _, err := s.PublishFile(ctxOf(t), c.ID, "", hosted(path, "after")); err != nil {
		t.Fatal(err)
	}
	if e := next(t, w); e.File.Caption != "after" {
		t.Errorf("delivered %+v", e)
	}

	h.sb.Inject(sandbox.Fault{On: "ms.SubscribeMessagingEvents", Status: 403})
	one, err := s.WatchFiles(ctxOf(t), c.ID, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	_, err = one.Next(ctxOf(t))
	want(t, err, share.LPForbidden)
}

func TestSession_OfAnAgent(t *testing.T) {
	t.Parallel()
	h := newHarness(t, sandbox.Options{})
	consumer := h.session(h.consumer())
	agent := h.session(h.agent("ann"))
	if p := agent.Principal(); p.Account != account || p.ID == "" || p.Role != share.RoleAgent {
		t.Errorf("principal is %+v", p)
	}
	ctx := ctxOf(t)
	c := h.begin(consumer)
	path, seq := h.send(consumer, c.ID, "from the consumer")
	_, err := agent.Conversation(ctx, c.ID)
	want(t, err, share.ConversationNotFound)
	_, err = agent.FindFile(ctx, c.ID, "", path)
	want(t, err, share.ConversationNotFound)
	_, err = agent.CreateConversation(ctx, share.NewConversation{})
	want(t, err, share.NotAllowed)
	all, err := agent.WatchFiles(ctx, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer all.Close()
	nothing(t, all)

	h.join(agent, c.ID, "ASSIGNED_AGENT")
	if e := next(t, all); e.Sequence != seq || e.File.StoragePath != path || e.SenderID != consumer.Principal().ID || e.SenderRole != share.RoleConsumer {
		t.Errorf("the agent's watch delivered %+v", e)
	}
	conv, err := agent.Conversation(ctx, c.ID)
	if err != nil || len(conv.Participants) != 2 ||
		!slices.Contains(conv.Participants, share.Participant{ID: agent.Principal().ID, Role: share.RoleAssignedAgent}) {
		t.Errorf("%+v %v", conv, err)
	}
	if e, err := agent.FindFile(ctx, c.ID, c.ID, path); err != nil || e.Sequence != seq {
		t.Errorf("found %+v %v", e, err)
	}
	if _, err := agent.DownloadURL(ctx, path); err != nil {
		t.Error(err)
	}
	if err := agent.MarkAccessed(ctx, c.ID, "", seq); err != nil {
		t.Error(err)
	}
	watch, err := consumer.WatchFiles(ctx, c.ID, share.Cursor{c.ID: seq})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close()
	back, _ := h.send(agent, c.ID, "from the agent")
	for _, w := range []*Watch{watch, all} {
		if e := next(t, w); e.File.StoragePath != back || e.SenderID != agent.Principal().ID || e.SenderRole != share.RoleAssignedAgent {
			t.Errorf("delivered %+v", e)
		}
	}
	files, cursor, err := listFiles(agent, ctx, "")
	if err != nil || len(files) != 2 || cursor[c.ID] != files[1].Sequence {
		t.Errorf("listed %v %v %v", files, cursor, err)
	}

	// An agent that has left sees nothing more; after joining again, it misses nothing.
	h.participate(agent, c.ID, "REMOVE", "ASSIGNED_AGENT")
	eventually(t, "the agent has left", func() bool { _, err := agent.Conversation(ctx, c.ID); return share.Is(err, share.ConversationNotFound) })
	h.send(consumer, c.ID, "meanwhile")
	nothing(t, all)
	h.join(agent, c.ID, "ASSIGNED_AGENT")
	if e := next(t, all); e.File.Caption != "meanwhile" {
		t.Errorf("delivered %+v", e)
	}
	if conv, err = agent.CloseConversation(ctx, c.ID); err != nil || conv.Open {
		t.Errorf("%+v %v", conv, err)
	}
	conv, err = consumer.Conversation(ctx, c.ID)
	if err != nil || conv.Open {
		eventually(t, "the close is reported to the consumer", func() bool { conv, _ = consumer.Conversation(ctx, c.ID); return !conv.Open })
	}

	other := h.agent("ann")
	g, err := share.ParseAgentToken(other.Secret)
	if err != nil {
		t.Fatal(err)
	}
	g.Bearer = "0123456789abcdef"
	_, err = h.pool.Session(ctx, share.Credential{Scheme: share.AgentToken, Account: account, Secret: g.Token()})
	want(t, err, share.TokenInvalid)
	other.Account = "87654321"
	_, err = h.pool.Session(ctx, other)
	want(t, err, share.NotAllowed)
}

func TestWatch_DeliversALongHistoryInParts(t *testing.T) {
	const files = 2500
	file := share.HostedFile{StoragePath: strings.Repeat("x", 10_000)}
	after := share.Cursor{}
	seen, parts := int64(0), 0
	for seen < files {
		parts++
		w := newWatch(nil, newTestBook(1), "", after)
		for seq := seen; seq < files && w.err == nil; seq++ {
			w.push("d", seq, &share.FileEvent{Dialog: "d", Sequence: seq, File: file}, false)
		}
		if w.bytes > watchBytes {
			t.Fatalf("the queue has %d bytes", w.bytes)
		}
		for {
			e, err := w.Next(ctxOf(t))
			if err != nil {
				if !share.Is(err, share.WatchTooSlow) {
					t.Fatal(err)
				}
				break
			}
			if e.Sequence != seen {
				t.Fatalf("file %d, want %d", e.Sequence, seen)
			}
			if seen++; seen == files {
				break
			}
		}
		if after = w.Cursor(); after["d"] != seen-1 {
			t.Fatalf("cursor %v after %d files", after, seen)
		}
	}
	if parts < 3 {
		t.Errorf("delivered in %d parts: the limit has no effect", parts)
	}
}
