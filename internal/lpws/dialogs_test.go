package lpws

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/lpfileshare/lpfileshare/internal/filecache"
	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// bigDialogs is a sandbox with long dialogs, whose frames are counted and not kept. Reader is a pool whose traffic is counted.
type bigDialogs struct {
	*harness
	cache  *filecache.Cache
	reader *Pool

	connections, received atomic.Int64 // of reader
	mu                    sync.Mutex
	asked                 map[string]int // requests by type, of both pools
}

func newBigDialogs(t *testing.T, changes ...func(*Config)) *bigDialogs {
	t.Helper()
	b := &bigDialogs{harness: &harness{t: t, logs: &logBuffer{}}, cache: filecache.New(64 << 20), asked: make(map[string]int)}
	sb, err := sandbox.Start(sandbox.Options{OnFrame: b.count})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = sb.Close() })
	b.sb = sb
	b.pool = b.newPool()
	b.reader = b.newPool(append([]func(*Config){func(c *Config) {
		c.Cache = b.cache
		c.dial = b.dial
	}}, changes...)...)
	return b
}

func (b *bigDialogs) count(f sandbox.Frame) {
	if !f.FromClient {
		return
	}
	var r struct{ Type string }
	_ = json.Unmarshal(f.Data, &r)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked[r.Type[strings.LastIndexByte(r.Type, '.')+1:]]++
}

func (b *bigDialogs) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	nc, err := (&net.Dialer{}).DialContext(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	b.connections.Add(1)
	return countedConn{nc, &b.received}, nil
}

type countedConn struct {
	net.Conn
	received *atomic.Int64
}

func (c countedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.received.Add(int64(n))
	return n, err
}

// fill publishes n files with previews of that size, and returns the storage path of the last one. The others share one path.
func (b *bigDialogs) fill(s *Session, conversation string, n, preview int) (last string) {
	b.t.Helper()
	shared, last := b.store(s), b.store(s)
	publish := func(i int, path string) {
		file := share.HostedFile{StoragePath: path, FileType: "PNG", Caption: fmt.Sprint(i), Preview: previewOf(fmt.Sprint(i), preview)}
		if _, err := s.PublishFile(ctxOf(b.t), conversation, "", file); err != nil {
			b.t.Error(err)
		}
	}
	var publishers sync.WaitGroup
	var next atomic.Int64
	for range min(8, n) {
		publishers.Go(func() {
			for i := next.Add(1); i < int64(n); i = next.Add(1) {
				publish(int(i), shared)
			}
		})
	}
	publishers.Wait()
	publish(n, last)
	return last
}

// previewOf returns the preview of the file with a caption.
func previewOf(caption string, size int) string {
	p := "data:image/png;base64," + caption + "/"
	return p + strings.Repeat("A", size-len(p))
}

// read opens a session of the reader.
func (b *bigDialogs) read(cred share.Credential) *Session {
	b.t.Helper()
	s, err := b.reader.Session(ctxOf(b.t), cred)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(s.Release)
	return s
}

// cost is what an operation costs.
type cost struct {
	requests    string // by type
	connections int64
	received    int64 // bytes
}

// of returns the cost of an operation of the reader.
func (b *bigDialogs) of(operation func()) cost {
	b.mu.Lock()
	clear(b.asked)
	b.mu.Unlock()
	connections, received := b.connections.Load(), b.received.Load()
	operation()
	b.mu.Lock()
	defer b.mu.Unlock()
	var requests []string
	for typ, n := range b.asked {
		if typ != reqClock {
			requests = append(requests, fmt.Sprintf("%d %s", n, typ))
		}
	}
	slices.Sort(requests)
	return cost{strings.Join(requests, ", "), b.connections.Load() - connections, b.received.Load() - received}
}

// TestSession_BigDialogsCostTheSame measures requests and bytes, not time: a page with its previews, and a download, cost the same in
// a dialog of 10, 1,000 and 10,000 files.
func TestSession_BigDialogsCostTheSame(t *testing.T) {
	t.Parallel()
	const preview, page = 1000, 10
	sizes := []int{10, 1000, 10_000}
	if testing.Short() || raced {
		t.Log("not with 1,000 and 10,000 files, which take minutes with the race detector; make test runs this without it too")
		sizes = []int{10, 300}
	}
	b := newBigDialogs(t)
	for _, n := range sizes {
		consumer, agent := b.consumer(), b.agent("ann")
		author := b.session(consumer)
		c := b.begin(author)
		last := b.fill(author, c.ID, n, preview)
		b.join(b.session(agent), c.ID, "ASSIGNED_AGENT")
		for role, cred := range map[string]share.Credential{"consumer": consumer, "agent": agent} {
			t.Run(fmt.Sprintf("%s, %d files", role, n), func(t *testing.T) { b.wantFlat(t, b.read(cred), c.ID, last, n, page, preview) })
		}
	}
	b.reader.Close()
	if used := b.cache.Used(); used != 0 {
		t.Errorf("%d bytes are still counted", used)
	}
}

// wantFlat checks the costs of operations in one dialog.
func (b *bigDialogs) wantFlat(t *testing.T, s *Session, conversation, last string, n, page, preview int) {
	t.Helper()
	ctx := ctxOf(t)
	var list share.FileList
	fetch := func(upTo share.Cursor) {
		var err error
		if list, err = s.ListFiles(ctx, conversation, upTo); err != nil || len(list.Dialogs) != 1 || len(list.Dialogs[0].Files) != n {
			t.Fatalf("listed %d dialogs, %v", len(list.Dialogs), err)
		}
	}
	complete := func(from int) {
		files := slices.Clone(list.Dialogs[0].Files[from:min(from+page, n)])
		if unreadable, err := s.Complete(ctx, files); err != nil || len(unreadable) != 0 {
			t.Fatal(unreadable, err)
		}
		for i, e := range files {
			if e.File.Preview != previewOf(e.File.Caption, preview) || e.Omitted != 0 {
				t.Fatalf("file %d has the preview of another or none: %.40s", from+i, e.File.Preview)
			}
		}
	}
	before := b.cache.Used()
	first := b.of(func() { fetch(nil) })
	if used, limit := b.cache.Used()-before, int64(n)*512+4096; used > limit {
		t.Errorf("%d files are kept in %d bytes, want at most %d", n, used, limit)
	}
	t.Logf("first list: %v", first)
	pageBytes := int64(page*(preview+2000) + 128<<10) // what arrives before the connection is closed is more than the page
	for _, c := range []struct {
		name     string
		requests int
		bytes    int64
		do       func()
	}{
		{"next page", 1, pageBytes, func() { fetch(list.Cursor); complete(0) }},
		{"last page", 1, pageBytes, func() { fetch(list.Cursor); complete(max(0, n-page)) }},
		{"list again", 1, 16 << 10, func() { fetch(nil) }},
		{"download", 1, 16 << 10, func() {
			e, err := s.FindFile(ctx, conversation, "", last)
			if err != nil || e.Sequence != int64(n-1) {
				t.Fatal(e, err)
			}
			if _, err := s.DownloadURL(ctx, last); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		got := b.of(c.do)
		t.Logf("%s: %v", c.name, got)
		if strings.Count(got.requests, ",")+1 != c.requests || !strings.HasPrefix(got.requests, "1 ") || got.received > c.bytes || got.connections > 1 {
			t.Errorf("%d files: %s cost %+v, want %d request and at most %d bytes", n, c.name, got, c.requests, c.bytes)
		}
	}
}

// TestSession_LargeBacklogDisturbsNobody has a dialog whose messages exceed Config.MaxFrame, which once closed the connection.
func TestSession_LargeBacklogDisturbsNobody(t *testing.T) {
	t.Parallel()
	const many = 12
	for _, role := range []string{"consumer", "agent"} {
		t.Run(role, func(t *testing.T) {
			b := newBigDialogs(t, func(c *Config) { c.MaxFrame = 300_000 })
			cred := b.consumer()
			author := b.session(cred)
			c := b.begin(author)
			last := b.fill(author, c.ID, many, 30_000)
			if role == "agent" {
				cred = b.agent("ann")
				b.join(b.session(cred), c.ID, "ASSIGNED_AGENT")
			}
			s := b.read(cred)
			connection := func() uint64 {
				tr, err := s.s.acquire(ctxOf(t))
				if err != nil {
					t.Fatal(err)
				}
				return tr.id
			}
			before := connection()
			w, err := s.WatchFiles(ctxOf(t), "", share.Cursor{})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			files, _, err := listFiles(s, ctxOf(t), "")
			if err != nil || len(files) != many || files[many-1].File.StoragePath != last {
				t.Fatalf("%d files, %v", len(files), err)
			}
			for _, e := range files {
				if got := next(t, w); got.Sequence != e.Sequence || got.File != e.File || e.File.Preview != previewOf(e.File.Caption, 30_000) {
					t.Fatalf("the watch sent file %d (%.40s), want %d with its preview", got.Sequence, got.File.Preview, e.Sequence)
				}
			}
			if _, _, err := s.publishAndFind(t, c.ID, b.store(s)); err != nil {
				t.Error(err)
			}
			if after := connection(); after != before {
				t.Error("the connection was replaced")
			}
		})
	}
}

// publishAndFind publishes a file and finds its message.
func (s *Session) publishAndFind(t *testing.T, conversation, path string) (int64, share.FileEvent, error) {
	seq, err := s.PublishFile(ctxOf(t), conversation, "", hosted(path, ""))
	if err != nil {
		return 0, share.FileEvent{}, err
	}
	e, err := s.FindFile(ctxOf(t), conversation, "", path)
	if err == nil && e.Sequence != seq {
		t.Errorf("found message %d, published %d", e.Sequence, seq)
	}
	return seq, e, err
}

func TestSession_UnreadableDialogIsLeftOut(t *testing.T) {
	t.Parallel()
	// One dialog exceeds a quarter of the cache.
	b := newBigDialogs(t, func(c *Config) { c.Cache = filecache.New(256 << 10) })
	ann := b.agent("ann")
	joined := b.session(ann)
	var large string
	for i := range 5 {
		author := b.session(b.consumer())
		c := b.begin(author)
		n := 3
		if i == 2 {
			n, large = 250, c.ID
		}
		b.fill(author, c.ID, n, 100)
		b.join(joined, c.ID, "ASSIGNED_AGENT")
	}
	s := b.read(ann)
	list, err := s.ListFiles(ctxOf(t), "", nil)
	if err != nil || len(list.Dialogs) != 4 || len(list.Cursor) != 4 {
		t.Fatalf("%d dialogs, %v", len(list.Dialogs), err)
	}
	if len(list.Unreadable) != 1 || list.Unreadable[0].Conversation != large || list.Unreadable[0].Err.Kind != share.ConversationTooLarge || list.Unreadable[0].Last < 249 {
		t.Errorf("unreadable: %+v", list.Unreadable)
	}
	_, err = s.ListFiles(ctxOf(t), large, nil)
	want(t, err, share.ConversationTooLarge)

	w, err := s.WatchFiles(ctxOf(t), "", list.Cursor)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	_, err = w.Next(ctxOf(t))
	if u, ok := err.(*share.UnreadableDialog); !ok || u.Conversation != large {
		t.Fatalf("the watch reports %v", err)
	}
	// The watch continues, and does not read the dialog again at each of its messages.
	asked := b.of(func() {
		for _, c := range []string{large, list.Dialogs[0].Conversation} {
			if _, err := s.PublishFile(ctxOf(t), c, "", hosted(b.store(s), "new")); err != nil {
				t.Fatal(err)
			}
		}
		if e := next(t, w); e.Conversation != list.Dialogs[0].Conversation || e.File.Caption != "new" {
			t.Errorf("the watch sent %+v", e)
		}
	})
	if strings.Contains(asked.requests, "QueryMessages") {
		t.Errorf("the dialog was read again: %v", asked)
	}
	// A watch from the end of the large dialog needs nothing that came before.
	end := list.Unreadable[0].Last
	tail, err := s.WatchFiles(ctxOf(t), large, share.Cursor{large: end})
	if err != nil {
		t.Fatal(err)
	}
	defer tail.Close()
	if e := next(t, tail); e.File.Caption != "new" || e.Sequence <= end {
		t.Errorf("the watch sent %+v", e)
	}
	if !strings.Contains(b.logs.String(), "a dialog cannot be read") {
		t.Error("nothing was logged")
	}
}

// TestSession_FailedRequestLeavesOneDialogOut has LivePerson refuse one of several requests for messages.
func TestSession_FailedRequestLeavesOneDialogOut(t *testing.T) {
	for name, c := range map[string]struct {
		code int // of the answer; 0: there is none
		kind share.Kind
	}{
		"refused":   {403, share.LPForbidden},
		"malformed": {400, share.LPProtocolError},
		"silent":    {0, share.LPTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				p := newPeer(t)
				p.details = `,"dialogs":[{"dialogId":"d1","state":"OPEN"},{"dialogId":"d2","state":"OPEN"},{"dialogId":"d3","state":"OPEN"}]` // and "c"
				var failed atomic.Bool
				p.answer = func(k *peerSocket, typ, id string, body map[string]any) bool {
					if typ != reqSubscribeEvents || body["dialogId"] != "d2" || failed.Swap(true) {
						return false
					}
					if c.code != 0 {
						k.send(`{"kind":"resp","reqId":%q,"code":%d,"body":"refused"}`, id, c.code)
					}
					return true
				}
				s := p.session()
				list, err := s.ListFiles(ctxOf(t), "", nil)
				if err != nil || len(list.Dialogs) != 3 || len(list.Unreadable) != 1 || list.Unreadable[0].Err.Kind != c.kind {
					t.Fatalf("%d dialogs, unreadable %+v, %v", len(list.Dialogs), list.Unreadable, err)
				}
				if list, err = s.ListFiles(ctxOf(t), "", nil); err != nil || len(list.Dialogs) != 4 || len(list.Unreadable) != 0 {
					t.Errorf("%d dialogs once it is readable again, unreadable %+v, %v", len(list.Dialogs), list.Unreadable, err)
				}
			})
		})
	}
}

func TestPool_ManyConversationsWithLargeMessages(t *testing.T) {
	t.Parallel()
	// The list of conversations has the last message of each, with its preview: more than Config.MaxFrame.
	const many = 12
	b := newBigDialogs(t, func(c *Config) { c.MaxFrame = 300_000 })
	ann := b.agent("ann")
	joined := b.session(ann)
	author := b.session(b.consumer())
	for range many {
		c := b.begin(author)
		b.fill(author, c.ID, 1, 30_000)
		b.join(joined, c.ID, "ASSIGNED_AGENT")
	}
	s := b.read(ann)
	all, err := s.ListConversations(ctxOf(t))
	if err != nil || len(all) != many {
		t.Fatalf("%d conversations, %v", len(all), err)
	}
	files, _, err := listFiles(s, ctxOf(t), "")
	if err != nil || len(files) != many || files[0].File.Preview == "" {
		t.Fatalf("%d files, %v", len(files), err)
	}
	if s.s.opener.openOnly.Load() {
		t.Error("only the open conversations are known")
	}
}

// recorder is a receiver that keeps what it gets.
type recorder struct {
	frames  []frame
	events  []int64
	dialogs []string
}

func (r *recorder) notification(f *frame) { r.frames = append(r.frames, *f) }
func (r *recorder) event(e *lpwire.Event) bool {
	r.events = append(r.events, e.Sequence.N)
	return true
}
func (r *recorder) discarded(d string) *closeReason {
	r.dialogs = append(r.dialogs, d)
	return nil
}

func TestStreamFrame_Forms(t *testing.T) {
	event := func(seq int) string { return fmt.Sprintf(`{"sequence":%d,"dialogId":"d","event":{}}`, seq) }
	huge := `{"sequence":2,"dialogId":"d","event":{"message":"` + strings.Repeat("x", 300<<10) + `"}}`
	for name, c := range map[string]struct {
		data   string
		events []int64
		check  func(t *testing.T, r *recorder, answer *frame, reason *closeReason)
	}{
		"notification": {data: `{"kind":"notification","type":"ms.MessagingEventNotification","body":{"x":1,"changes":[` + event(1) + `,` + event(2) + `],"dialogId":"d"}}`,
			events: []int64{1, 2}},
		"answer, its body first": {data: `{"body":[` + event(1) + `,` + event(2) + `],"code":200,"reqId":"1","kind":"resp"}`, events: []int64{1, 2},
			check: func(t *testing.T, _ *recorder, answer *frame, _ *closeReason) {
				if answer == nil || answer.Code != 200 || string(answer.Body) != "[]" {
					t.Errorf("the answer is %+v", answer)
				}
			}},
		"one event as the body": {data: `{"kind":"notification","type":"OnlineEventDistribution","body":` + event(7) + `}`,
			check: func(t *testing.T, r *recorder, _ *frame, _ *closeReason) {
				if len(r.frames) != 1 || !strings.Contains(string(r.frames[0].Body), `"sequence":7`) {
					t.Errorf("notified of %+v", r.frames)
				}
			}},
		"conversations": {data: `{"kind":"notification","type":"ExConversationChangeNotification","body":{"subscriptionId":"s","changes":[` +
			upsert("OPEN", 1, "", `,"lastContentEventNotification":`+event(9)) + `]}}`,
			check: func(t *testing.T, r *recorder, _ *frame, _ *closeReason) {
				if len(r.frames) != 1 || r.frames[0].conversations == nil || r.frames[0].conversations.SubscriptionID != "s" ||
					r.frames[0].conversations.Changes[0].Result.V.LastContent.V.Sequence.N != 9 {
					t.Errorf("notified of %+v", r.frames)
				}
			}},
		"an event over the limit": {data: `{"kind":"notification","body":{"changes":[` + event(1) + `,` + huge + `,` + event(3) + `]}}`, events: []int64{1},
			check: func(t *testing.T, r *recorder, _ *frame, reason *closeReason) {
				if !slices.Equal(r.dialogs, []string{"d"}) || reason != nil {
					t.Errorf("discarded %q, ended with %v", r.dialogs, reason)
				}
			}},
		"an element of another shape": {data: `{"kind":"notification","body":{"changes":[7,"x",null,` + event(1) + `]}}`, events: []int64{0, 0, 0, 1}},
		"a truncated frame": {data: `{"kind":"notification","body":{"changes":[` + event(1) + `,`, events: []int64{1},
			check: func(t *testing.T, _ *recorder, _ *frame, reason *closeReason) {
				if reason == nil || reason.kind != closedUnreadable {
					t.Errorf("ended with %v", reason)
				}
			}},
		"a text": {data: `"text"`, check: func(t *testing.T, _ *recorder, _ *frame, reason *closeReason) {
			if reason == nil || reason.kind != closedUnreadable {
				t.Errorf("ended with %v", reason)
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			call := &pendingCall{answered: make(chan struct{})}
			tr := &transport{maxPart: 100 << 10, streams: new(atomic.Int64), pending: map[string]*pendingCall{"1": call}}
			r := &recorder{}
			reason := tr.streamFrame(nil, strings.NewReader(c.data), r)
			var answer *frame
			select {
			case <-call.answered:
				answer = &call.answer
			default:
			}
			if !slices.Equal(r.events, c.events) {
				t.Errorf("events %v, want %v", r.events, c.events)
			}
			if c.check != nil {
				c.check(t, r, answer, reason)
			} else if reason != nil {
				t.Errorf("ended with %v", reason)
			}
		})
	}
}
