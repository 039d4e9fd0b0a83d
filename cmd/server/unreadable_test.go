package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/harness"
)

// uploadPreviews uploads n small pictures with previews.
func (w *world) uploadPreviews(c *lpfileshare.Client, conversation string, n int) {
	w.t.Helper()
	for i := range n {
		w.upload(c, lpfileshare.UploadOptions{
			Conversation: conversation, DisplayName: "a.png", Caption: fmt.Sprint(i), Preview: previewOf(i),
		}, tinyPNG(w.t))
	}
}

func previewOf(i int) *pb.Preview { return harness.Preview(fmt.Sprint(i), 1000) }

// hasPreview reports whether a file of uploadPreviews has its own preview.
func hasPreview(f *pb.File) bool {
	i, err := strconv.Atoi(f.GetCaption())
	return err == nil && f.GetPreviewDataUri() == previewOf(i).GetDataUri()
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
