package service

import (
	"context"
	"maps"
	"regexp"
	"strings"
	"testing"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// finished returns the lines of finished calls of a method.
func (h *harness) finished(method string) (lines []string) {
	for line := range strings.Lines(h.log.String()) {
		if strings.Contains(line, `msg="finished call"`) && strings.Contains(line, "method="+method+" ") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

func TestCalls_LogOneLinePerCall(t *testing.T) {
	h := newHarness(t)
	const id = "5f0c6a3e-1f6b-4f5e-9d6b-1c2d3e4f5a6b"
	calls := []struct {
		method string
		call   func() error
		want   string
	}{
		{"FileSharingService/ListFiles", func() error {
			_, err := h.files.ListFiles(h.alice(), &pb.ListFilesRequest{Parent: parent})
			return err
		}, `level=INFO msg="finished call" method=FileSharingService/ListFiles code=OK peer=\S+ ms=\d+ account=\w+ caller=[0-9a-f]{16}`},
		{"FileSharingService/GetUpload", func() error {
			_, err := h.files.GetUpload(h.alice(), &pb.GetUploadRequest{Name: uploadName(account, id)})
			return err
		}, `level=INFO msg="finished call" method=FileSharingService/GetUpload code=NotFound reason=UPLOAD_NOT_FOUND peer=\S+ ms=\d+ account=\w+ caller=[0-9a-f]{16} request_id=` +
			id + ` error="UPLOAD_NOT_FOUND: .*"`},
		{"ConversationService/GetConversation", func() error {
			h.lp.on("Conversation", func(context.Context) error { return kindError(share.LPProtocolError) })
			_, err := h.convs.GetConversation(h.alice(), &pb.GetConversationRequest{Name: parent})
			return err
		}, `level=ERROR msg="finished call" method=ConversationService/GetConversation code=Internal reason=LP_PROTOCOL_ERROR .* error=.*`},
		{"FileSharingService/Download", func() error {
			stream, err := h.files.Download(t.Context(), &pb.DownloadRequest{})
			if err == nil {
				_, err = stream.Recv()
			}
			return err
		}, `level=INFO msg="finished call" method=FileSharingService/Download code=InvalidArgument reason=INVALID_FIELD peer=\S+ ms=\d+ error=.*`},
	}
	for _, c := range calls {
		_ = c.call()
		h.eventually("the call is logged", func() bool { return len(h.finished(c.method)) > 0 })
		if lines := h.finished(c.method); len(lines) != 1 || !regexp.MustCompile("^time=\\S+ "+c.want+"$").MatchString(lines[0]) {
			t.Errorf("%s is logged as\n%s\nwant\n%s", c.method, strings.Join(lines, "\n"), c.want)
		}
	}
}

func TestCalls_LogTheBytesOfFiles(t *testing.T) {
	h := newHarness(t)
	b := picture(100_000)
	name := h.put(b).GetFile().GetName()
	if _, err := h.small(h.alice(), spec(b[:50_000]), b[:50_000]); err != nil {
		t.Fatal(err)
	}
	if _, _, _, err := h.download(h.alice(), &pb.DownloadRequest{Source: &pb.DownloadRequest_Name{Name: name}, ReadLimit: 70_000}); err != nil {
		t.Fatal(err)
	}
	_, _ = h.upload(h.alice(), first(spec(b)), chunk(0, b[:1000])) // ends without finish
	for method, want := range map[string][]string{
		"Upload": {"code=OK .* bytes=100000$", "code=InvalidArgument reason=UPLOAD_INCOMPLETE .* bytes=1000 error="}, "UploadSmallFile": {"bytes=50000$"}, "Download": {"bytes=70000$"},
	} {
		h.eventually("the calls are logged", func() bool { return len(h.finished("FileSharingService/"+method)) == len(want) })
		lines := strings.Join(h.finished("FileSharingService/"+method), "\n")
		for _, w := range want {
			if !regexp.MustCompile("(?m)" + w).MatchString(lines) {
				t.Errorf("%s is not in\n%s", w, lines)
			}
		}
	}
}

func TestCalls_CountRejectionsByLimit(t *testing.T) {
	h := newHarness(t, func(c *Config) { c.QueueLength, c.MaxStreamsPerCaller = 0, 0 })
	reserved := h.reserveAll()
	defer reserved.Release()
	for range 3 {
		if _, err := h.upload(h.alice(), first(spec(picture(10)))); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("an upload without free memory: %v", err)
		}
	}
	stream, err := h.files.WatchFiles(h.alice(), &pb.WatchFilesRequest{Parent: parent})
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a watch beyond the limit: %v", err)
	}
	h.lp.on("ListFiles", func(context.Context) error { return kindError(share.LPRateLimited) }) // not a limit of the server
	if _, err := h.files.ListFiles(h.alice(), &pb.ListFilesRequest{Parent: parent}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a list that LivePerson rejects: %v", err)
	}
	want := map[string]int64{"TOO_MANY_UPLOADS/queue": 3, "TOO_MANY_STREAMS": 1}
	if got := h.server.Rejections.Counts(); !maps.Equal(got, want) {
		t.Errorf("counted %v, want %v", got, want)
	}
	if n := strings.Count(h.log.String(), `msg="rejected by a limit" limit=TOO_MANY_UPLOADS/queue count=1 account=`+account); n != 1 {
		t.Errorf("%d log lines about the queue, want 1:\n%s", n, h.log)
	}
}

func TestReceipts_CountsThoseDropped(t *testing.T) {
	h := newHarness(t)
	for range maxReceipts {
		h.server.receipts.inFlight <- struct{}{}
	}
	h.server.receipts.send(t.Context(), account, nil)
	if got := h.server.Rejections.Counts()["RECEIPTS"]; got != 1 {
		t.Errorf("%d dropped receipts are counted, want 1", got)
	}
}
