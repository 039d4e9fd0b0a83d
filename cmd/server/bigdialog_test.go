package main

import (
	"bytes"
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/harness"
)

// uploadPreviews uploads n small pictures with previews of nearly the maximum size.
func (w *world) uploadPreviews(c *lpfileshare.Client, conversation string, n int) {
	w.t.Helper()
	data := tinyPNG(w.t)
	numbers := make(chan int)
	var uploaders sync.WaitGroup
	for range 8 {
		uploaders.Go(func() {
			for i := range numbers {
				preview := fmt.Sprintf("data:image/png;base64,%08d%s", i, strings.Repeat("A", 30_000))
				_, err := c.Upload(w.t.Context(), lpfileshare.UploadOptions{
					Conversation: conversation, DisplayName: "a.png", Caption: fmt.Sprint(i), Preview: &pb.Preview{Source: &pb.Preview_DataUri{DataUri: preview}},
				}, bytes.NewReader(data))
				if err != nil {
					w.t.Error(err)
				}
			}
		})
	}
	for i := range n {
		numbers <- i
	}
	close(numbers)
	uploaders.Wait()
}

// TestListFiles_BigDialogBreaksNothing has a dialog whose messages exceed the limit of a frame.
func TestListFiles_BigDialogBreaksNothing(t *testing.T) {
	const many = 145
	w := newWorld(t, sandbox.Options{AutoAssign: true})
	a, b := w.consumer(), w.consumer()
	big, small := w.conversation(a.Client), w.conversation(b.Client)
	start := watchToken(t, a.Client, big)
	w.uploadPreviews(a.Client, big, many)
	w.uploadPreviews(b.Client, small, 1)
	w.uploadPreviews(a.Client, big, 1)

	check := func(who string, c *lpfileshare.Client, parent string, want int) {
		t.Helper()
		list := c.Files(t.Context(), lpfileshare.FilesOptions{Parent: parent})
		files, err := list.Collect()
		if err != nil || len(files) != want || len(list.Unreadable()) != 0 {
			t.Fatalf("%s: %d files, %v, left out %v", who, len(files), err, list.Unreadable())
		}
		for _, f := range files {
			if !hasPreview(f) {
				t.Fatalf("%s: file %s has the preview %.40s", who, f.GetCaption(), f.GetPreviewDataUri())
			}
		}
		last := files[len(files)-1]
		if f, err := c.Stat(t.Context(), last.GetName()); err != nil || f.GetPreviewDataUri() != last.GetPreviewDataUri() || f.GetStoredSizeBytes() == 0 {
			t.Errorf("%s: stat %v, %v", who, f, err)
		}
		if got := w.download(c, last.GetName()); sha(got) != sha(tinyPNG(t)) {
			t.Errorf("%s: another file was downloaded", who)
		}
		newest, err := c.Raw().Files.ListFiles(t.Context(), &pb.ListFilesRequest{Parent: parent, NewestFirst: true, PageSize: 5})
		if err != nil || len(newest.GetFiles()) != min(5, want) || !hasPreview(newest.GetFiles()[0]) {
			t.Errorf("%s: the newest page: %v", who, err)
		}
	}
	check("the consumer", a.Client, big, many+1)
	check("another consumer", b.Client, small, 1)
	if !w.connector {
		agent := w.agent("ann")
		check("the agent", agent, accountPath+"/conversations/-", many+2)
	}

	// A watch of the whole history has every preview.
	watch := a.Watch(t.Context(), lpfileshare.WatchOptions{Parent: big, Token: start})
	n := 0
	for f, err := range watch.All() {
		if err != nil {
			t.Fatal(err)
		}
		if !hasPreview(f) {
			t.Fatalf("the watch sent file %s with the preview %.40s", f.GetCaption(), f.GetPreviewDataUri())
		}
		if n++; n == many+1 {
			break
		}
	}
}

// hasPreview reports whether a file of uploadPreviews has its own preview.
func hasPreview(f *pb.File) bool {
	return strings.HasPrefix(f.GetPreviewDataUri(), "data:image/png;base64,"+fmt.Sprintf("%08s", f.GetCaption())) && len(f.GetPreviewDataUri()) > 30_000
}

// TestListFiles_ReportsUnreadableConversations has LivePerson refuse the messages of one of several conversations.
func TestListFiles_ReportsUnreadableConversations(t *testing.T) {
	w := newSandboxWorld(t, sandbox.Options{AutoAssign: true})
	w.start()
	c := w.consumer()
	for range 3 {
		w.uploadPreviews(c.Client, w.conversation(c.Client), 2)
	}
	agent := w.agent("ann")
	const everything = accountPath + "/conversations/-"
	w.sb.Inject(sandbox.Fault{On: "ms.QueryMessages", Status: 403, Count: 1})
	list := agent.Files(t.Context(), lpfileshare.FilesOptions{Parent: everything, PageSize: 1})
	files, err := list.Collect()
	if err != nil || len(files) != 4 || len(list.Unreadable()) != 1 {
		t.Fatalf("%d files, left out %v, %v", len(files), list.Unreadable(), err)
	}
	left := list.Unreadable()[0]
	if left.GetReason() != pb.ErrorReason_ERROR_REASON_LP_FORBIDDEN || left.GetMessage() == "" || !strings.HasSuffix(left.GetName(), left.GetDialogId()) {
		t.Errorf("left out %v", left)
	}

	// A watch from there reads the conversation from its start, if it can be read again.
	token := list.WatchToken()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	for f, err := range agent.Watch(ctx, lpfileshare.WatchOptions{Parent: everything, Token: token}).All() {
		if err != nil || !strings.HasPrefix(f.GetName(), left.GetName()+"/") || !hasPreview(f) {
			t.Fatalf("the watch sent %v, %v", f.GetName(), err)
		}
		if n++; n == 2 {
			break
		}
	}

	// Otherwise it reports the conversation, and continues without it.
	w.sb.Inject(sandbox.Fault{On: "ms.QueryMessages", Status: 403, Count: 3})
	reported := make(chan *pb.UnreadableConversation, 1)
	seen := make(chan *pb.File, 1)
	var watching sync.WaitGroup
	watching.Go(func() {
		_ = watchInto(agent.Watch(ctx, lpfileshare.WatchOptions{
			Parent: everything, Token: token, OnUnreadable: func(u *pb.UnreadableConversation) {
				select {
				case reported <- u:
				default:
				}
			},
		}), seen)
	})
	defer watching.Wait()
	defer cancel()
	if u := harness.Next(t, reported); u.GetReason() != pb.ErrorReason_ERROR_REASON_LP_FORBIDDEN {
		t.Errorf("the watch reported %v", u)
	}
	conv := w.conversation(c.Client)
	w.uploadPreviews(c.Client, conv, 1)
	if f := next(t, seen); !strings.HasPrefix(f.GetName(), conv+"/") {
		t.Errorf("the watch sent %s, want a file of %s", f.GetName(), conv)
	}
}
