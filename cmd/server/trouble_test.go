package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"
	"time"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
)

// The server recovers from these faults by itself: the call succeeds although the caller does not repeat it.
func TestUpload_TransientFaultsAreHidden(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		fault sandbox.Fault
	}{
		{"PUT refused as expired", sandbox.Fault{On: "store:PUT", Expire: true, Count: 2}},
		{"PUT 503", sandbox.Fault{On: "store:PUT", Status: 503, Count: 2}},
		{"PUT 408", sandbox.Fault{On: "store:PUT", Status: 408, Count: 1}},
		{"PUT 499", sandbox.Fault{On: "store:PUT", Status: 499, Count: 1}},
		{"PUT 429", sandbox.Fault{On: "store:PUT", Status: 429, RetryAfter: 1, Count: 1}},
		{"PUT reset at once", sandbox.Fault{On: "store:PUT", Drop: true, Count: 2}},
		{"PUT reset in mid-body", sandbox.Fault{On: "store:PUT", CutAfter: 100_000, Count: 2}},
		{"PUT stored, answer lost", sandbox.Fault{On: "store:PUT", DropAfter: true, Count: 1}},
		{"PUT stored wrongly", sandbox.Fault{On: "store:PUT", Corrupt: true, Count: 1}},
		{"PUT answered with a wrong ETag", sandbox.Fault{On: "store:PUT", WrongETag: true, Count: 1}},
		{"URL request 500", sandbox.Fault{On: "ms.GenerateURLForUploadFile", Status: 500, Count: 1}},
		{"URL request 429", sandbox.Fault{On: "ms.GenerateURLForUploadFile", Status: 429, Count: 1}},
		{"socket cut at the URL request", sandbox.Fault{On: "ms.GenerateURLForUploadFile", Drop: true, Count: 1}},
		{"publish lost before it is handled", sandbox.Fault{On: "ms.PublishEvent", Drop: true, Count: 1}},
		{"publish handled, answer lost with the socket", sandbox.Fault{On: "ms.PublishEvent", DropAfter: true, Count: 1}},
		{"publish handled, answer never comes", sandbox.Fault{On: "ms.PublishEvent", Mute: true, Count: 1}},
		{"publish handled, answer too late", sandbox.Fault{On: "ms.PublishEvent", AnswerDelay: 6 * time.Second, Count: 1}},
		{"publish handled, answered 503", sandbox.Fault{On: "ms.PublishEvent", StatusAfter: 503, Count: 1}},
		{"GET refused as expired", sandbox.Fault{On: "store:GET", Expire: true, Count: 2}},
		{"GET 404 just after it was published", sandbox.Fault{On: "store:GET", Status: 404, Count: 1}},
		{"GET 503", sandbox.Fault{On: "store:GET", Status: 503, Count: 2}},
		{"GET cut twice in mid-body", sandbox.Fault{On: "store:GET", CutAfter: 50_000, Count: 2}},
		{"GET cut at the first byte", sandbox.Fault{On: "store:GET", CutAfter: -1, Count: 2}},
		{"GET reset", sandbox.Fault{On: "store:GET", Drop: true, Count: 2}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, sandbox.Options{}, "--lp-timeout=4s", "--settle=1s", "--store-stall=2s")
			c := w.consumer()
			conv := w.conversation(c.Client)
			w.sb.Inject(test.fault)
			data := photo(t, 300_000)
			resp, err := c.Upload(t.Context(), lpfileshare.UploadOptions{Conversation: conv, DisplayName: "a.jpg", RetryFor: -1}, bytes.NewReader(data))
			if w.connector && test.fault.On == "ms.PublishEvent" && test.fault.Drop {
				// The message may have been published, so it is never sent again.
				wantReason(t, err, pb.ErrorReason_ERROR_REASON_LP_PUBLISH_UNCONFIRMED)
				if n := len(w.sb.Journal().Published); n != 0 {
					t.Errorf("%d messages were published", n)
				}
				return
			}
			if err != nil {
				t.Fatalf("the caller noticed: %v\n%s", err, w.logs.String())
			}
			var got bytes.Buffer
			if _, err := c.Download(t.Context(), lpfileshare.DownloadOptions{Name: resp.GetFile().GetName(), RetryFor: -1}, &got); err != nil {
				t.Fatalf("the caller noticed: %v\n%s", err, w.logs.String())
			}
			if sha(got.Bytes()) != sha(data) {
				t.Error("the downloaded bytes differ from the uploaded ones")
			}
			if n := len(w.sb.Journal().Published); n != 1 {
				t.Errorf("%d messages, want 1", n)
			}
		})
	}
}

func TestUpload_ReportsRejectionsByReason(t *testing.T) {
	t.Parallel()
	const forever = 0
	for _, test := range []struct {
		name  string
		fault sandbox.Fault
		want  pb.ErrorReason
	}{
		{"switch off", sandbox.Fault{On: "ms.GenerateURLForUploadFile", Status: 403, ErrorCode: 40301}, pb.ErrorReason_ERROR_REASON_FILE_SHARING_DISABLED},
		{"URL request refused", sandbox.Fault{On: "ms.GenerateURLForUploadFile", Status: 400}, pb.ErrorReason_ERROR_REASON_LP_REJECTED_FILE},
		{"URL request refused by a text", sandbox.Fault{On: "ms.GenerateURLForUploadFile", Text: "Agent not allowed"}, pb.ErrorReason_ERROR_REASON_LP_FORBIDDEN},
		{"publish refused by a text", sandbox.Fault{On: "ms.PublishEvent", Text: "Agent not allowed"}, pb.ErrorReason_ERROR_REASON_LP_FORBIDDEN},
		{"URL request too large", sandbox.Fault{On: "ms.GenerateURLForUploadFile", Status: 413}, pb.ErrorReason_ERROR_REASON_LP_REJECTED_FILE},
		{"URL request throttled", sandbox.Fault{On: "ms.GenerateURLForUploadFile", Status: 429}, pb.ErrorReason_ERROR_REASON_LP_RATE_LIMITED},
		{"URL request 500", sandbox.Fault{On: "ms.GenerateURLForUploadFile", Status: 500}, pb.ErrorReason_ERROR_REASON_LP_UNAVAILABLE},
		{"URL request unanswered", sandbox.Fault{On: "ms.GenerateURLForUploadFile", Mute: true}, pb.ErrorReason_ERROR_REASON_LP_TIMEOUT},
		{"identity ended", sandbox.Fault{On: "ms.GenerateURLForUploadFile", CloseCode: 4401}, pb.ErrorReason_ERROR_REASON_LP_IDENTITY_EXPIRED},
		{"identity to be renewed", sandbox.Fault{On: "ms.GenerateURLForUploadFile", CloseCode: 4407}, pb.ErrorReason_ERROR_REASON_LP_IDENTITY_EXPIRED},
		{"publish refused", sandbox.Fault{On: "ms.PublishEvent", Status: 400}, pb.ErrorReason_ERROR_REASON_LP_REJECTED_FILE},
		{"publish forbidden", sandbox.Fault{On: "ms.PublishEvent", Status: 403}, pb.ErrorReason_ERROR_REASON_LP_FORBIDDEN},
		{"publish unconfirmed", sandbox.Fault{On: "ms.PublishEvent", Drop: true}, pb.ErrorReason_ERROR_REASON_LP_PUBLISH_UNCONFIRMED},
		{"PUT refused for ever", sandbox.Fault{On: "store:PUT", Expire: true}, pb.ErrorReason_ERROR_REASON_STORAGE_URL_REJECTED},
		{"PUT forbidden", sandbox.Fault{On: "store:PUT", Status: 403}, pb.ErrorReason_ERROR_REASON_STORAGE_DENIED},
		{"PUT 503 for ever", sandbox.Fault{On: "store:PUT", Status: 503}, pb.ErrorReason_ERROR_REASON_STORAGE_UNAVAILABLE},
		{"PUT too large", sandbox.Fault{On: "store:PUT", Status: 413}, pb.ErrorReason_ERROR_REASON_FILE_TOO_LARGE},
		{"PUT throttled for ever", sandbox.Fault{On: "store:PUT", Status: 429}, pb.ErrorReason_ERROR_REASON_STORAGE_RATE_LIMITED},
		{"store full", sandbox.Fault{On: "store:PUT", Status: 507}, pb.ErrorReason_ERROR_REASON_STORAGE_FULL},
		{"store wants a length", sandbox.Fault{On: "store:PUT", Status: 411}, pb.ErrorReason_ERROR_REASON_STORAGE_PROTOCOL_ERROR},
		{"stored wrongly each time", sandbox.Fault{On: "store:PUT", WrongETag: true}, pb.ErrorReason_ERROR_REASON_STORAGE_CORRUPTED},
		{"store says 422", sandbox.Fault{On: "store:PUT", Status: 422}, pb.ErrorReason_ERROR_REASON_STORAGE_CORRUPTED},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, sandbox.Options{}, "--lp-timeout=4s", "--settle=500ms", "--store-stall=2s")
			c := w.consumer()
			conv := w.conversation(c.Client)
			if w.connector && test.fault.CloseCode != 0 { // what is over is the server's own identity, which is no caller's to renew
				test.fault.CloseCode, test.fault.Status, test.want = 0, 401, pb.ErrorReason_ERROR_REASON_LP_CREDENTIALS_REJECTED
			}
			test.fault.Count = forever
			w.sb.Inject(test.fault)
			ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
			defer cancel()
			_, err := c.Upload(ctx, lpfileshare.UploadOptions{Conversation: conv, DisplayName: "a.jpg", RetryFor: -1}, bytes.NewReader(photo(t, 50_000)))
			wantReason(t, err, test.want)
			if n := len(w.sb.Journal().Published); n != 0 {
				t.Errorf("%d messages were published", n)
			}
			if t.Failed() {
				fmt.Println(w.logs.String())
			}
		})
	}
}

// TestSandbox_TLSAddress uploads and downloads through the address of a sandbox that domain answers name if it has TLS.
func TestSandbox_TLSAddress(t *testing.T) {
	w := newWorld(t, sandbox.Options{TLSListen: "127.0.0.1:0"})
	c := w.consumer()
	data := photo(t, 50_000)
	resp, err := c.Upload(t.Context(), lpfileshare.UploadOptions{Conversation: w.conversation(c.Client), DisplayName: "a.jpg"}, bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if _, err := c.Download(t.Context(), lpfileshare.DownloadOptions{Name: resp.GetFile().GetName()}, &got); err != nil || sha(got.Bytes()) != sha(data) {
		t.Errorf("%d other bytes, %v", got.Len(), err)
	}
}

func TestSetFileSharing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{FileSharingOff: true})
	admin, ann := w.agent("admin"), w.agent("ann")
	c := w.consumer()
	conv := w.conversation(c.Client)
	up := func() error {
		_, err := c.Upload(t.Context(), lpfileshare.UploadOptions{Conversation: conv, DisplayName: "a.jpg", RetryFor: -1}, bytes.NewReader(photo(t, 5_000)))
		return err
	}
	wantReason(t, up(), pb.ErrorReason_ERROR_REASON_FILE_SHARING_DISABLED)
	get, err := admin.Raw().Accounts.GetFileSharing(t.Context(), &pb.GetFileSharingRequest{Account: accountPath})
	if err != nil || get.GetEnabled() {
		t.Errorf("the switch is %v, %v", get, err)
	}
	on := &pb.SetFileSharingRequest{Account: accountPath, Enabled: new(true)}
	_, err = ann.Raw().Accounts.SetFileSharing(t.Context(), on)
	wantReason(t, err, pb.ErrorReason_ERROR_REASON_NOT_ALLOWED)
	_, err = c.Raw().Accounts.SetFileSharing(t.Context(), on)
	wantReason(t, err, pb.ErrorReason_ERROR_REASON_NOT_ALLOWED)
	if set, err := admin.Raw().Accounts.SetFileSharing(t.Context(), on); err != nil || !set.GetEnabled() {
		t.Fatalf("switching it on: %v, %v", set, err)
	}
	if err := up(); err != nil {
		t.Errorf("it is on, and %v", err)
	}
}

func TestUpload_RejectsClosedConversation(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{})
	c := w.consumer()
	conv := w.conversation(c.Client)
	file := w.upload(c.Client, lpfileshare.UploadOptions{Conversation: conv, DisplayName: "a.jpg"}, photo(t, 5_000))
	closed, err := c.CloseConversation(t.Context(), conv)
	if err != nil || closed.GetState() != pb.ConversationState_CONVERSATION_STATE_CLOSED {
		t.Fatalf("closing: %v, %v", closed, err)
	}
	if _, err := c.CloseConversation(t.Context(), conv); err != nil {
		t.Errorf("closing it again: %v", err)
	}
	_, err = c.Upload(t.Context(), lpfileshare.UploadOptions{Conversation: conv, DisplayName: "b.jpg"}, bytes.NewReader(photo(t, 6_000)))
	wantReason(t, err, pb.ErrorReason_ERROR_REASON_CONVERSATION_CLOSED)
	if got := w.download(c.Client, file.GetName()); len(got) != 5_000 {
		t.Errorf("a file of a closed conversation has %d bytes", len(got))
	}
	if n := len(w.sb.Journal().Stored); n != 1 {
		t.Errorf("%d objects were stored", n)
	}
}

func TestDrain_RunningUploadsEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{}, "--drain-time=10s")
	c := w.consumer()
	conv := w.conversation(c.Client)
	data := photo(t, 300_000)
	half, rest := make(chan struct{}), make(chan struct{})
	result := make(chan error, 1)
	go func() {
		_, err := c.Upload(t.Context(), lpfileshare.UploadOptions{
			Conversation: conv, DisplayName: "a.jpg", FileType: pb.FileType_FILE_TYPE_JPEG, RetryFor: -1,
		}, &gated{data: data, at: len(data) / 2, half: half, rest: rest})
		result <- err
	}()
	<-half
	w.server.Quit()
	w.logged("msg=draining")
	close(rest)
	if err := <-result; err != nil {
		t.Errorf("an upload that was running when the drain began: %v", err)
	}
	w.stop()
	if n := len(w.sb.Journal().Published); n != 1 {
		t.Errorf("%d messages, want 1", n)
	}
}

func TestDrain_CutUploadsSucceedElsewhere(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{}, "--drain-time=200ms")
	c := w.consumer()
	conv := w.conversation(c.Client)
	data := photo(t, 300_000)
	half, rest := make(chan struct{}), make(chan struct{})
	result := make(chan error, 1)
	go func() {
		_, err := c.Upload(t.Context(), lpfileshare.UploadOptions{
			Conversation: conv, DisplayName: "a.jpg", FileType: pb.FileType_FILE_TYPE_JPEG, RequestID: replayedID, RetryFor: -1,
		}, &gated{data: data, at: len(data) / 2, half: half, rest: rest})
		result <- err
	}()
	<-half
	w.stop()
	close(rest)
	wantReason(t, <-result, pb.ErrorReason_ERROR_REASON_SERVER_DRAINING)
	w.start()
	other := w.again(c)
	resp, err := other.Upload(t.Context(), lpfileshare.UploadOptions{Conversation: conv, DisplayName: "a.jpg", RequestID: replayedID}, bytes.NewReader(data))
	if err != nil || resp.GetReplayed() {
		t.Errorf("on another server: %v, %v", resp, err)
	}
	if j := w.sb.Journal(); len(j.Published) != 1 || len(j.Stored) != 1 {
		t.Errorf("%d messages and %d objects, want one of each", len(j.Published), len(j.Stored))
	}
}

// gated gives data, stopping once at at until rest is closed.
type gated struct {
	data       []byte
	off, at    int
	half, rest chan struct{}
}

func (g *gated) Read(p []byte) (int, error) {
	if g.off == len(g.data) {
		return 0, io.EOF
	}
	upTo := len(g.data)
	if g.off < g.at {
		upTo = g.at
	}
	if g.off == g.at && g.half != nil {
		close(g.half)
		g.half = nil
		<-g.rest
	}
	n := copy(p, g.data[g.off:upTo])
	g.off += n
	return n, nil
}
