package service

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/conversations"
	"github.com/lpfileshare/lpfileshare/internal/policy"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

const everywhere = "accounts/" + account + "/conversations/-"

// watch starts a watch, waits for its first heartbeat, and returns the token of that.
func (h *harness) watch(ctx context.Context, where, resume string) (pb.FileSharingService_WatchFilesClient, string) {
	h.t.Helper()
	watch, err := h.files.WatchFiles(ctx, &pb.WatchFilesRequest{Parent: where, ResumeToken: resume})
	if err != nil {
		h.t.Fatal(err)
	}
	m, err := watch.Recv()
	if err != nil || m.GetHeartbeat().GetTime() == nil || m.GetResumeToken() == "" {
		h.t.Fatalf("the watch begins with %v, %v, want a heartbeat with a token", m, err)
	}
	return watch, m.GetResumeToken()
}

// end reads a watch to its end.
func end(watch pb.FileSharingService_WatchFilesClient) error {
	for {
		if _, err := watch.Recv(); err != nil {
			return err
		}
	}
}

// A listing and the watch after it return each file once, in order, whatever arrives meanwhile.
func TestListFiles_ThenWatchFilesHasNoGapAndNoRepeat(t *testing.T) {
	for _, where := range []string{parent, everywhere} {
		for size := 1; size <= 4; size++ {
			t.Run(fmt.Sprintf("%s by %d", where, size), inBubble(func(t *testing.T) {
				h := newHarness(t)
				n := 0
				arrive := func(conversation string) {
					h.lp.send(conversation, path(fmt.Sprint(n)), "bob")
					n++
				}
				for range 4 {
					arrive(conversation)
				}
				var got []string
				req := &pb.ListFilesRequest{Parent: where, PageSize: int32(size)}
				var token string
				for pages := 1; ; pages++ {
					page, err := h.files.ListFiles(h.alice(), req)
					if err != nil || pages > 10 {
						t.Fatalf("page %d: %v", pages, err)
					}
					if len(page.GetFiles()) > size {
						t.Fatalf("%d files on a page of %d", len(page.GetFiles()), size)
					}
					for _, f := range page.GetFiles() {
						got = append(got, f.GetStoragePath())
					}
					arrive(conversation)
					if token != "" && page.GetWatchToken() != token {
						t.Error("the pages have different watch tokens")
					}
					token = page.GetWatchToken()
					if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
						break
					}
				}
				if len(got) != 4 {
					t.Errorf("the listing has %d files, want the 4 that existed when it began", len(got))
				}
				if where == everywhere { // a conversation that begins later
					h.lp.addConversation("later", true, "alice")
					arrive("later")
				}
				// The watch ends, and is resumed at its last token.
				for len(got) < n+1 {
					ctx, cancel := context.WithCancel(h.alice())
					var watch pb.FileSharingService_WatchFilesClient
					watch, token = h.watch(ctx, where, token)
					if len(got) == n {
						arrive(conversation)
					}
					for range 2 {
						if len(got) == n {
							break
						}
						m, err := watch.Recv()
						if err != nil {
							t.Fatal(err)
						}
						got, token = append(got, m.GetFile().GetStoragePath()), m.GetResumeToken()
					}
					cancel()
					if len(got) == n {
						break
					}
				}
				var want []string
				for i := range n {
					want = append(want, path(fmt.Sprint(i)))
				}
				if where == everywhere {
					slices.Sort(got)
					slices.Sort(want)
				}
				if !slices.Equal(got, want) {
					t.Errorf("got %v, want %v", got, want)
				}
			}))
		}
	}
}

func TestWatchFiles_WithoutTokenStartsNow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.lp.send(conversation, path("old"), "bob")
		watch, token := h.watch(h.alice(), parent, "")
		h.lp.send(conversation, path("new"), "bob")
		again, _ := h.watch(h.alice(), parent, token) // as if the first one had ended before the file arrived
		for _, w := range []pb.FileSharingService_WatchFilesClient{watch, again} {
			m, err := w.Recv()
			if err != nil || m.GetFile().GetStoragePath() != path("new") {
				t.Errorf("got %v, %v", m, err)
			}
		}
	})
}

func TestWatchFiles_OutdatedTokenIsReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		old := token{Cursor: share.Cursor{conversation: 3, "an-unknown-dialog": 7}}.write(placeOfWatch, parent)
		watch, err := h.files.WatchFiles(h.alice(), &pb.WatchFilesRequest{Parent: parent, ResumeToken: old})
		if err != nil {
			t.Fatal(err)
		}
		_, err = watch.Recv()
		wantError(t, err, share.WatchReset)
	})
}

func TestWatchFiles_SendsHeartbeats(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, func(c *Config) { c.Heartbeat = 20 * time.Millisecond })
		watch, token := h.watch(h.alice(), parent, "")
		for range 2 {
			m, err := watch.Recv()
			if err != nil || m.GetHeartbeat().GetTime() == nil || m.GetResumeToken() == "" {
				t.Fatalf("got %v, %v", m, err)
			}
			token = m.GetResumeToken()
		}
		h.lp.send(conversation, path("a"), "bob")
		again, _ := h.watch(h.alice(), parent, token)
		if m, err := again.Recv(); err != nil || m.GetFile().GetStoragePath() != path("a") {
			t.Errorf("from a heartbeat's token: %v, %v", m, err)
		}
	})
}

// A watch ends soon after the rules no longer permit it, idle or busy. What it has not sent by then is not sent.
func TestWatchFiles_EndsWhenNoLongerPermitted(t *testing.T) {
	for name, pause := range map[string]time.Duration{"idle": time.Hour, "busy": time.Second / 3} {
		t.Run(name, inBubble(func(t *testing.T) {
			var denied atomic.Bool
			h := newHarness(t, func(c *Config) {
				c.Heartbeat = time.Second
				c.Permit = func(policy.Request) error {
					if denied.Load() {
						return share.Reject(share.CallerNotPermitted, "denied by a rule")
					}
					return nil
				}
			})
			watch, _ := h.watch(h.alice(), parent, "")
			files := time.NewTicker(pause)
			defer files.Stop()
			ended := make(chan struct{})
			var sending sync.WaitGroup
			sending.Go(func() {
				for {
					select {
					case <-files.C:
						h.lp.send(conversation, path("a"), "bob")
					case <-ended:
						return
					}
				}
			})
			time.AfterFunc(10*h.server.Heartbeat, func() { denied.Store(true) })
			var err error
			for err == nil {
				_, err = watch.Recv()
			}
			close(ended)
			sending.Wait()
			wantError(t, err, share.CallerNotPermitted)
		}))
	}
}

func TestWatchFiles_EndsIfClientReadsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, set(func(s *Settings) { s.AcceptReceipts = true }), func(c *Config) { c.ReadStall = 100 * time.Millisecond })
		watch, token := h.watch(h.alice(), parent, "")
		for i := range 200 {
			h.lp.sendFile(conversation, "bob", share.HostedFile{StoragePath: path(fmt.Sprint(i)), Preview: strings.Repeat("x", 30_000)})
		}
		h.eventually("the watch has ended", func() bool { return h.lp.sessions() == 0 })
		n := 0
		for {
			m, err := watch.Recv()
			if err != nil {
				wantError(t, err, share.WatchTooSlow)
				break
			}
			n, token = n+1, m.GetResumeToken()
		}
		again, _ := h.watch(h.alice(), parent, token)
		if m, err := again.Recv(); err != nil || m.GetFile().GetStoragePath() != path(fmt.Sprint(n)) {
			t.Errorf("after %d files the watch returned %v, %v", n, m.GetFile().GetStoragePath(), err)
		}
	})
}

func TestWatchFiles_DrainEndsIt(t *testing.T) {
	for what, c := range map[string]struct {
		method string
		drain  func(h *harness)
	}{
		"waiting":     {"Next", func(h *harness) { synctest.Wait(); h.server.Drain() }},
		"opening":     {"Session", func(h *harness) { synctest.Wait(); h.server.Drain() }},
		"begun later": {"", func(h *harness) { h.server.Drain() }},
	} {
		t.Run(what, inBubble(func(t *testing.T) {
			h := newHarness(t)
			h.lp.on(c.method, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
			if c.method == "" {
				c.drain(h)
			}
			watch, err := h.files.WatchFiles(h.alice(), &pb.WatchFilesRequest{Parent: parent})
			if err != nil {
				t.Fatal(err)
			}
			if c.method != "" {
				h.eventually("the watch calls "+c.method, func() bool { return h.lp.count(c.method) > 0 })
				c.drain(h)
			}
			wantError(t, end(watch), share.ServerDraining)
		}))
	}
}

func TestPageToken_BelongsToOneRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		for i := range 3 {
			h.lp.send(conversation, path(fmt.Sprint(i)), "bob")
		}
		h.lp.addConversation("conv-2", true, "alice")
		page, err := h.files.ListFiles(h.alice(), &pb.ListFilesRequest{Parent: parent, PageSize: 1})
		if err != nil {
			t.Fatal(err)
		}
		last, err := h.files.ListFiles(h.alice(), &pb.ListFilesRequest{Parent: parent})
		if err != nil {
			t.Fatal(err)
		}
		convs, err := h.convs.ListConversations(h.alice(), &pb.ListConversationsRequest{Account: accountName(account), PageSize: 1})
		if err != nil || convs.GetNextPageToken() == "" {
			t.Fatal(convs, err)
		}
		files := func(parent, tok string) error {
			_, err := h.files.ListFiles(h.alice(), &pb.ListFilesRequest{Parent: parent, PageToken: tok})
			return err
		}
		watch := func(parent, tok string) error {
			w, err := h.files.WatchFiles(h.alice(), &pb.WatchFilesRequest{Parent: parent, ResumeToken: tok})
			if err == nil {
				_, err = w.Recv()
			}
			return err
		}
		list := func(state pb.ConversationState, tok string) error {
			_, err := h.convs.ListConversations(h.alice(), &pb.ListConversationsRequest{Account: accountName(account), State: state, PageToken: tok})
			return err
		}
		f, w, c := page.GetNextPageToken(), last.GetWatchToken(), convs.GetNextPageToken()
		if err := files(parent, f); err != nil {
			t.Error(err)
		}
		for what, err := range map[string]error{
			"a page of another conversation":   files(conversationName(account, "conv-2"), f),
			"a page of all":                    files(everywhere, f),
			"a watch token as a page":          files(parent, w),
			"a page of conversations as files": files(parent, c),
			"a page as a watch token":          watch(parent, f),
			"a watch of another conversation":  watch(conversationName(account, "conv-2"), w),
			"a page of files as conversations": list(0, f),
			"another state":                    list(pb.ConversationState_CONVERSATION_STATE_OPEN, c),
			"no base64":                        files(parent, "~~~"),
			"no JSON":                          files(parent, "AAAA"),
			"of an unknown item":               files(parent, token{Conversation: "x", Dialog: "x", Cursor: share.Cursor{}}.write(pageOfFiles, parent)),
			"of an unknown conversation":       list(0, token{Conversation: "x"}.write(pageOfConversations, accountName(account)+"?CONVERSATION_STATE_UNSPECIFIED")),
			"a cursor with an invalid number":  watch(parent, token{Cursor: share.Cursor{"d": -2}}.write(placeOfWatch, parent)),
			"a cursor with an invalid dialog":  watch(parent, token{Cursor: share.Cursor{"a/b": 1}}.write(placeOfWatch, parent)),
			"too long":                         watch(parent, strings.Repeat("A", maxTokenBytes+1)),
		} {
			t.Log(what)
			wantError(t, err, share.PageTokenInvalid)
		}
	})
}

func TestListFiles_ReportsAllInvalidFields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		_, err := h.files.ListFiles(h.alice(), &pb.ListFilesRequest{Parent: "x", PageSize: -1})
		wantError(t, err, share.InvalidField)
		if got := fields(err); !slices.Equal(got, []string{"parent", "page_size"}) {
			t.Errorf("the violations name %v", got)
		}
		_, err = h.convs.ListConversations(h.alice(), &pb.ListConversationsRequest{Account: "x", PageSize: -1, State: 9})
		wantError(t, err, share.InvalidField)
		if got := fields(err); !slices.Equal(got, []string{"account", "state", "page_size"}) {
			t.Errorf("the violations name %v", got)
		}
	})
}

// Previews make files large, and most clients accept messages of up to 4 MiB.
func TestListFiles_PageFitsInAMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		for i := range 200 {
			h.lp.sendFile(conversation, "bob", share.HostedFile{StoragePath: path(fmt.Sprint(i)), Preview: strings.Repeat("x", 30_000)})
		}
		n := 0
		req := &pb.ListFilesRequest{Parent: parent, PageSize: 1000}
		for {
			page, err := h.files.ListFiles(h.alice(), req)
			if err != nil {
				t.Fatal(err)
			}
			n += len(page.GetFiles())
			if size := proto.Size(page); size > 2<<20 {
				t.Errorf("a page has %d bytes", size)
			}
			if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
				break
			}
		}
		if n != 200 {
			t.Errorf("the pages have %d files, want 200", n)
		}
	})
}

func TestListFiles_ReportsWhatCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.lp.addConversation("conv-2", true, "alice")
		h.lp.addConversation("conv-3", true, "alice")
		for i := range 2 {
			for _, c := range []string{conversation, "conv-2", "conv-3"} {
				h.lp.send(c, path(c+fmt.Sprint(i)), "bob")
			}
		}
		h.lp.unreadable = map[string]*share.Error{"conv-2": share.Errorf(share.ConversationTooLarge, "too many files", nil)}
		for _, newest := range []bool{false, true} {
			var got []string
			req := &pb.ListFilesRequest{Parent: everywhere, PageSize: 1, NewestFirst: newest}
			for {
				page, err := h.files.ListFiles(h.alice(), req)
				if err != nil {
					t.Fatal(err)
				}
				want := &pb.UnreadableConversation{
					Name: conversationName(account, "conv-2"), DialogId: "conv-2", Reason: pb.ErrorReason_ERROR_REASON_CONVERSATION_TOO_LARGE, Message: "too many files",
				}
				if u := page.GetUnreadableConversations(); len(u) != 1 || !proto.Equal(u[0], want) {
					t.Errorf("reported %v, want %v", u, want)
				}
				for _, f := range page.GetFiles() {
					got = append(got, f.GetStoragePath())
				}
				if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
					break
				}
			}
			slices.Sort(got)
			if want := []string{path("conv-30"), path("conv-31"), path(conversation + "0"), path(conversation + "1")}; !slices.Equal(got, slices.Sorted(slices.Values(want))) {
				t.Errorf("listed %v, want %v", got, want)
			}
		}

		// A page whose predecessor cannot be read any more fails with the reason.
		page, err := h.files.ListFiles(h.alice(), &pb.ListFilesRequest{Parent: everywhere, PageSize: 1})
		if err != nil {
			t.Fatal(err)
		}
		h.lp.unreadable = map[string]*share.Error{conversation: share.Errorf(share.LPTimeout, "late", nil)}
		_, err = h.files.ListFiles(h.alice(), &pb.ListFilesRequest{Parent: everywhere, PageSize: 1, PageToken: page.GetNextPageToken()})
		wantError(t, err, share.LPTimeout)
	})
}

func TestWatchFiles_ReportsWhatCannotBeRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.lp.fail("Next", &share.UnreadableDialog{Conversation: conversation, Dialog: "survey", Err: share.Errorf(share.LPForbidden, "denied", nil)})
		watch, _ := h.watch(h.alice(), everywhere, "")
		m, err := watch.Recv()
		if u := m.GetUnreadableConversation(); err != nil || u.GetName() != parent || u.GetDialogId() != "survey" ||
			u.GetReason() != pb.ErrorReason_ERROR_REASON_LP_FORBIDDEN || m.GetResumeToken() == "" {
			t.Errorf("got %v, %v", m, err)
		}
		h.lp.send(conversation, path("new"), "bob")
		if m, err = watch.Recv(); err != nil || m.GetFile().GetStoragePath() != path("new") {
			t.Errorf("got %v, %v", m, err)
		}
	})
}

// The preview costs a request to LivePerson, so only responses that promise it have it.
func TestStatFile_HasPreviewAndDownloadDoesNotAskForIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		file := h.put(picture(10), func(s *pb.UploadSpec) {
			s.Preview = &pb.Preview{Source: &pb.Preview_DataUri{DataUri: "data:image/png;base64,AAAA"}}
		}).GetFile().GetName()
		if f, err := h.files.StatFile(h.alice(), &pb.StatFileRequest{Source: &pb.StatFileRequest_Name{Name: file}}); err != nil || f.GetFile().GetPreviewDataUri() == "" {
			t.Errorf("stat: %v, %v", f, err)
		}
		before := h.lp.count("Complete")
		if _, _, _, err := h.download(h.alice(), byName(file)); err != nil {
			t.Fatal(err)
		}
		if n := h.lp.count("Complete") - before; n != 0 {
			t.Errorf("a download asked for the preview %d times", n)
		}
	})
}

func TestPageSize_IsCoerced(t *testing.T) {
	for asked, want := range map[int32]int{0: defaultPage, 1: 1, maxPage: maxPage, maxPage + 1: maxPage} {
		var v violations
		if got := pageSize(&v, asked); got != want || v.err() != nil {
			t.Errorf("%d gives %d, want %d", asked, got, want)
		}
	}
}

func TestListConversations_NewestFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		for i := range 5 {
			h.lp.addConversation(fmt.Sprintf("c%d", i), i%2 == 0, "alice")
		}
		for state, want := range map[pb.ConversationState][]string{
			pb.ConversationState_CONVERSATION_STATE_UNSPECIFIED: {"c4", "c3", "c2", "c1", "c0", "conv-closed", "conv-1"},
			pb.ConversationState_CONVERSATION_STATE_OPEN:        {"c4", "c2", "c0", "conv-1"},
			pb.ConversationState_CONVERSATION_STATE_CLOSED:      {"c3", "c1", "conv-closed"},
		} {
			for size := int32(1); size < 8; size++ {
				var got []string
				req := &pb.ListConversationsRequest{Account: accountName(account), PageSize: size, State: state}
				for {
					page, err := h.convs.ListConversations(h.alice(), req)
					if err != nil {
						t.Fatal(err)
					}
					for _, c := range page.GetConversations() {
						got = append(got, strings.TrimPrefix(c.GetName(), accountName(account)+"/conversations/"))
					}
					if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
						break
					}
					if len(page.GetConversations()) != int(size) {
						t.Errorf("a page of %d that is not the last has %d", size, len(page.GetConversations()))
					}
				}
				if !slices.Equal(got, want) {
					t.Errorf("%s by %d: %v, want %v", state, size, got, want)
				}
			}
		}
	})
}

func TestCreateConversation_OncePerRequestID(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		req := &pb.CreateConversationRequest{Account: accountName(account), RequestId: uuid.NewString(), SkillId: "12"}
		was, err := h.convs.CreateConversation(h.alice(), req)
		if err != nil || was.GetReplayed() {
			t.Fatal(was, err)
		}
		for _, tok := range []string{aliceToken, renewedToken} {
			r, err := h.convs.CreateConversation(h.as(tok), req)
			if err != nil || !r.GetReplayed() || !proto.Equal(r.GetConversation(), was.GetConversation()) {
				t.Errorf("got %v, %v", r, err)
			}
		}
		if r, err := h.convs.CreateConversation(h.as(bobToken), req); err != nil || r.GetReplayed() {
			t.Errorf("bob got %v, %v", r, err)
		}
		other := proto.CloneOf(req)
		other.SkillId = "13"
		_, err = h.convs.CreateConversation(h.alice(), other)
		wantError(t, err, share.RequestIDConflict)
		if n := h.lp.count("CreateConversation"); n != 2 {
			t.Errorf("%d were created", n)
		}
		for range 2 { // without a request id each call creates one
			if _, err := h.convs.CreateConversation(h.alice(), &pb.CreateConversationRequest{Account: accountName(account)}); err != nil {
				t.Error(err)
			}
		}
		if n := h.lp.count("CreateConversation"); n != 4 {
			t.Errorf("%d were created", n)
		}
	})
}

func TestCreateConversation_ConcurrentCallsCreateOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		var n atomic.Int32
		h.lp.on("CreateConversation", func(context.Context) error { n.Add(1); time.Sleep(100 * time.Millisecond); return nil })
		req := &pb.CreateConversationRequest{Account: accountName(account), RequestId: uuid.NewString()}
		names := make(chan string, 2)
		for range 2 {
			go func() {
				r, err := h.convs.CreateConversation(h.alice(), req)
				if err != nil {
					t.Error(err)
				}
				names <- r.GetConversation().GetName()
			}()
		}
		if a, b := <-names, <-names; a != b || n.Load() != 1 {
			t.Errorf("%s and %s, by %d calls", a, b, n.Load())
		}
	})
}

// A call whose answer is lost looks for the conversation until it can no longer appear. A retry must not create another one before.
func TestCreateConversation_RetryWaitsUntilTheFirstCannotAppear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, func(c *Config) { c.Settle = time.Second })
		req := &pb.CreateConversationRequest{Account: accountName(account), RequestId: uuid.NewString()}
		bare := proto.CloneOf(req)
		bare.RequestId = ""
		over := time.Now()
		_, err := h.ledger.Memory.SaveCreation(t.Context(), conversations.Key(h.lp.tokens[aliceToken], req.GetRequestId()), share.CreationRecord{
			Fingerprint: fingerprintOf(bare), Expires: over.Add(time.Hour), Deadline: over,
		}, 0)
		if err != nil {
			t.Fatal(err)
		}
		var created time.Time
		h.lp.on("CreateConversation", func(context.Context) error { created = time.Now(); return nil })
		if _, err := h.convs.CreateConversation(h.alice(), req); err != nil {
			t.Fatal(err)
		}
		if waited := created.Sub(over); waited < time.Second {
			t.Errorf("the conversation was created again %v after the first attempt, which could still succeed", waited)
		}
	})
}

func TestCreateConversation_FailedCanBeRetriedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.lp.fail("CreateConversation", kindError(share.LPRateLimited))
		req := &pb.CreateConversationRequest{Account: accountName(account), RequestId: uuid.NewString()}
		_, err := h.convs.CreateConversation(h.alice(), req)
		wantError(t, err, share.LPRateLimited)
		if r, err := h.convs.CreateConversation(h.alice(), req); err != nil || r.GetReplayed() {
			t.Errorf("got %v, %v", r, err)
		}
	})
}

// A conversation that LivePerson created is returned although the result of the call cannot be recorded. If it cannot even be recorded
// that the conversation is this request's, the call ends unconfirmed, because another request could get it too. The retry returns it.
func TestCreateConversation_CannotBeRecorded(t *testing.T) {
	for failing, unconfirmed := range map[int]bool{1: true, 2: false} {
		t.Run(fmt.Sprintf("step %d", failing), inBubble(func(t *testing.T) {
			h := newHarness(t)
			saves := 0
			h.ledger.on("Save ", func(context.Context) error {
				if saves++; saves == failing {
					return context.DeadlineExceeded
				}
				return nil
			})
			req := &pb.CreateConversationRequest{Account: accountName(account), RequestId: uuid.NewString()}
			r, err := h.convs.CreateConversation(h.alice(), req)
			if unconfirmed {
				wantError(t, err, share.LPPublishUnconfirmed)
				r, err = h.convs.CreateConversation(h.alice(), req)
			}
			if err != nil || r.GetConversation() == nil {
				t.Errorf("got %v, %v", r, err)
			}
			h.ledger.failAlways("Save PUBLISHING", context.DeadlineExceeded)
			_, err = h.convs.CreateConversation(h.alice(), &pb.CreateConversationRequest{Account: accountName(account), RequestId: uuid.NewString()})
			wantError(t, err, share.LedgerUnavailable)
			if n := h.lp.count("CreateConversation"); n != 1 {
				t.Errorf("%d were created", n)
			}
		}))
	}
}

func TestCreateConversation_ReportsAllInvalidFields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		_, err := h.convs.CreateConversation(h.alice(), &pb.CreateConversationRequest{
			Account: "x", RequestId: "x", SkillId: "12345678901", Campaign: &pb.Campaign{CampaignId: "1"}, Context: &pb.ConversationContext{Language: strings.Repeat("x", 65), SessionId: strings.Repeat("x", 65)},
		})
		wantError(t, err, share.InvalidField)
		if got, want := fields(err), []string{"account", "request_id", "skill_id", "campaign.engagement_id", "context.language", "context.session_id"}; !slices.Equal(got, want) {
			t.Errorf("the violations name %v, want %v", got, want)
		}
		h.lp.tokens["agent-"+secret] = share.Principal{Account: account, ID: "agent", Role: share.RoleAgent}
		_, err = h.convs.CreateConversation(h.as("agent-"+secret), &pb.CreateConversationRequest{Account: accountName(account)})
		wantError(t, err, share.NotAllowed)
	})
}

func TestCloseConversation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		c, err := h.convs.GetConversation(h.alice(), &pb.GetConversationRequest{Name: parent})
		if err != nil || c.GetConversation().GetState() != pb.ConversationState_CONVERSATION_STATE_OPEN || len(c.GetConversation().GetDialogs()) != 1 {
			t.Fatal(c, err)
		}
		for range 2 { // closing a closed conversation is not an error
			r, err := h.convs.CloseConversation(h.alice(), &pb.CloseConversationRequest{Name: parent})
			if err != nil || r.GetConversation().GetState() != pb.ConversationState_CONVERSATION_STATE_CLOSED || r.GetConversation().GetCloseTime() == nil {
				t.Fatal(r, err)
			}
		}
		_, err = h.upload(h.alice(), first(spec(picture(10))))
		wantError(t, err, share.ConversationClosed)
		_, err = h.convs.GetConversation(h.alice(), &pb.GetConversationRequest{Name: conversationName(account, "conv-bob")})
		wantError(t, err, share.ConversationNotFound)
		_, err = h.convs.CloseConversation(h.alice(), &pb.CloseConversationRequest{Name: everywhere})
		wantError(t, err, share.InvalidField)
	})
}
