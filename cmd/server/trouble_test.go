package main

import (
	"bytes"
	"io"
	"testing"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
)

// The server recovers from these faults by itself: the call succeeds although the caller does not repeat it. test/faults has faults of
// every kind, in every state.
func TestUpload_TransientFaultsAreHidden(t *testing.T) {
	overBoth(t, testUpload_TransientFaultsAreHidden)
}

func testUpload_TransientFaultsAreHidden(t *testing.T, newWorld worldFunc) {
	w := newWorld(t, sandbox.Options{}, "--settle=500ms")
	c := w.consumer()
	conv := w.conversation(c.Client)
	data := photo(t, 150_000)
	for _, test := range []struct {
		name  string
		fault sandbox.Fault
	}{
		{"PUT refused as expired", sandbox.Fault{On: "store:PUT", Expire: true}},
		{"PUT 503", sandbox.Fault{On: "store:PUT", Status: 503}},
		{"PUT reset in mid-body", sandbox.Fault{On: "store:PUT", CutAfter: 100_000}},
		{"PUT stored, answer lost", sandbox.Fault{On: "store:PUT", DropAfter: true}},
		{"PUT stored wrongly", sandbox.Fault{On: "store:PUT", Corrupt: true}},
		{"PUT answered with a wrong ETag", sandbox.Fault{On: "store:PUT", WrongETag: true}},
		{"URL request 429", sandbox.Fault{On: "ms.GenerateURLForUploadFile", Status: 429}},
		{"connection reset at the URL request", sandbox.Fault{On: "ms.GenerateURLForUploadFile", Drop: true}},
		{"publish handled, answer lost with the connection", sandbox.Fault{On: "ms.PublishEvent", DropAfter: true}},
		{"publish handled, answered 503", sandbox.Fault{On: "ms.PublishEvent", StatusAfter: 503}},
		{"GET refused as expired", sandbox.Fault{On: "store:GET", Expire: true}},
		{"GET 404 just after it was published", sandbox.Fault{On: "store:GET", Status: 404}},
		{"GET cut in mid-body", sandbox.Fault{On: "store:GET", CutAfter: 50_000}},
	} {
		t.Run(test.name, func(t *testing.T) {
			published, struck := len(w.sb.Journal().Published), w.sb.FaultsStruck()
			test.fault.Count = 1
			w.sb.Inject(test.fault)
			resp, err := c.Upload(t.Context(), lpfileshare.UploadOptions{Conversation: conv, DisplayName: "a.jpg", RetryFor: -1}, bytes.NewReader(data))
			if err != nil {
				t.Fatalf("the upload failed: %v\n%s", err, w.logs.Tail())
			}
			var got bytes.Buffer
			if _, err := c.Download(t.Context(), lpfileshare.DownloadOptions{Name: resp.GetFile().GetName(), RetryFor: -1}, &got); err != nil {
				t.Fatalf("the download failed: %v\n%s", err, w.logs.Tail())
			}
			if sha(got.Bytes()) != sha(data) {
				t.Error("the downloaded bytes differ from the uploaded ones")
			}
			if n := len(w.sb.Journal().Published) - published; n != 1 {
				t.Errorf("%d messages, want 1", n)
			}
			if n := w.sb.FaultsStruck() - struck; n != 1 {
				t.Errorf("the fault struck %d times, want once", n)
			}
		})
	}
	// A message that LivePerson has not seen is sent again over the messaging socket, where the server can read the messages. Over the
	// Connector API it cannot, and reports that.
	w.sb.Inject(sandbox.Fault{On: "ms.PublishEvent", Drop: true, Count: 1})
	published := len(w.sb.Journal().Published)
	_, err := c.Upload(t.Context(), lpfileshare.UploadOptions{Conversation: conv, DisplayName: "a.jpg", RetryFor: -1}, bytes.NewReader(data))
	want := 1
	if w.connector {
		want = 0
		wantReason(t, err, pb.ErrorReason_ERROR_REASON_LP_PUBLISH_UNCONFIRMED)
	} else if err != nil {
		t.Error(err)
	}
	if n := len(w.sb.Journal().Published) - published; n != want {
		t.Errorf("%d messages, want %d", n, want)
	}
}

// The tests of internal/lpws, internal/connector, internal/swift and internal/service have the rejections that are missing here.
func TestUpload_ReportsRejectionsByReason(t *testing.T) {
	overBoth(t, testUpload_ReportsRejectionsByReason)
}

func testUpload_ReportsRejectionsByReason(t *testing.T, newWorld worldFunc) {
	w := newWorld(t, sandbox.Options{}, "--settle=500ms")
	expired := sandbox.Fault{On: "ms.GenerateURLForUploadFile", CloseCode: 4401}
	wantExpired := pb.ErrorReason_ERROR_REASON_LP_IDENTITY_EXPIRED
	if w.connector { // the server's own identity, which a caller cannot renew
		expired.CloseCode, expired.Status, wantExpired = 0, 401, pb.ErrorReason_ERROR_REASON_LP_CREDENTIALS_REJECTED
	}
	for _, test := range []struct {
		name  string
		fault sandbox.Fault
		want  pb.ErrorReason
	}{
		{"file sharing is off", sandbox.Fault{On: "ms.GenerateURLForUploadFile", Status: 403, ErrorCode: 40301}, pb.ErrorReason_ERROR_REASON_FILE_SHARING_DISABLED},
		{"URL request refused", sandbox.Fault{On: "ms.GenerateURLForUploadFile", Status: 400}, pb.ErrorReason_ERROR_REASON_LP_REJECTED_FILE},
		{"URL request refused by a text", sandbox.Fault{On: "ms.GenerateURLForUploadFile", Text: "Agent not allowed"}, pb.ErrorReason_ERROR_REASON_LP_FORBIDDEN},
		{"publish refused", sandbox.Fault{On: "ms.PublishEvent", Status: 400}, pb.ErrorReason_ERROR_REASON_LP_REJECTED_FILE},
		{"publish refused by a text", sandbox.Fault{On: "ms.PublishEvent", Text: "Agent not allowed"}, pb.ErrorReason_ERROR_REASON_LP_FORBIDDEN},
		{"PUT forbidden", sandbox.Fault{On: "store:PUT", Status: 403}, pb.ErrorReason_ERROR_REASON_STORAGE_DENIED},
		{"PUT too large", sandbox.Fault{On: "store:PUT", Status: 413}, pb.ErrorReason_ERROR_REASON_FILE_TOO_LARGE},
		{"store full", sandbox.Fault{On: "store:PUT", Status: 507}, pb.ErrorReason_ERROR_REASON_STORAGE_FULL},
		{"store requires a length", sandbox.Fault{On: "store:PUT", Status: 411}, pb.ErrorReason_ERROR_REASON_STORAGE_PROTOCOL_ERROR},
		{"identity expired", expired, wantExpired},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := w.consumer()
			conv := w.conversation(c.Client)
			w.sb.Inject(test.fault)
			defer w.sb.ClearFaults()
			_, err := c.Upload(t.Context(), lpfileshare.UploadOptions{Conversation: conv, DisplayName: "a.jpg", RetryFor: -1}, bytes.NewReader(photo(t, 50_000)))
			wantReason(t, err, test.want)
		})
	}
	if n := len(w.sb.Journal().Published); n != 0 {
		t.Errorf("%d messages were published", n)
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

func TestSetFileSharing(t *testing.T) { overBoth(t, testSetFileSharing) }

func testSetFileSharing(t *testing.T, newWorld worldFunc) {
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
	overBoth(t, testUpload_RejectsClosedConversation)
}

func testUpload_RejectsClosedConversation(t *testing.T, newWorld worldFunc) {
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

func TestDrain_RunningUploadsEnd(t *testing.T) { overBoth(t, testDrain_RunningUploadsEnd) }

func testDrain_RunningUploadsEnd(t *testing.T, newWorld worldFunc) {
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
	overBoth(t, testDrain_CutUploadsSucceedElsewhere)
}

func testDrain_CutUploadsSucceedElsewhere(t *testing.T, newWorld worldFunc) {
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
