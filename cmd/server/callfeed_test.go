package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/test/harness"
)

// TestSandboxEvents_TellAnUpload compares the event stream of a server with its own sandbox with one upload.
func TestSandboxEvents_TellAnUpload(t *testing.T) {
	t.Parallel()
	s, err := harness.Start(harness.Func(run), "--sandbox", "--listen=127.0.0.1:0", "--drain-time=0s", "--sandbox-fault", `{"on":"ms.PublishEvent","dropAfter":true,"count":1}`)
	if err != nil {
		t.Fatal(err)
	}
	s.Stopped(t)
	base := regexp.MustCompile(`sandbox=(http://\S+)`).FindStringSubmatch(s.Logs.String())[1]
	c, err := lpfileshare.Dial(s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	talk, err := harness.SignUpAndTalk(t.Context(), c, account)
	if err != nil {
		t.Fatal(err)
	}
	o := lpfileshare.UploadOptions{Conversation: talk.Conversation, FileType: pb.FileType_FILE_TYPE_PNG, Caption: "seen"}
	res, err := talk.Client.Upload(t.Context(), o, bytes.NewReader(tinyPNG(t)))
	if err != nil {
		t.Fatal(err)
	}

	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, base+"/_sandbox/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var all strings.Builder
	var kinds []string
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		all.WriteString(lines.Text() + "\n")
		var e struct {
			Kind string
			Data struct{ Phase, Method, RequestID, Conversation, Name, Path, Code, Change, On string }
		}
		data, isData := strings.CutPrefix(lines.Text(), "data: ")
		if !isData {
			continue
		}
		if err := json.Unmarshal([]byte(data), &e); err != nil {
			t.Fatalf("%v: %s", err, data)
		}
		parts := []string{e.Kind, e.Data.Method, e.Data.Phase, e.Data.Change, e.Data.Code}
		kinds = append(kinds, strings.Join(slices.DeleteFunc(parts, func(s string) bool { return s == "" }), " "))
		if e.Kind == "call" && e.Data.Method == "FileSharingService/Upload" && e.Data.Phase == "end" {
			if e.Data.RequestID != res.GetRequestId() {
				t.Errorf("the call has the request id %q, want %q", e.Data.RequestID, res.GetRequestId())
			}
			if e.Data.Conversation != talk.Conversation || e.Data.Path != res.GetFile().GetStoragePath() {
				t.Errorf("%s: not what was uploaded where: %s", data, res)
			}
			break
		}
	}
	for _, want := range []string{
		"call FileSharingService/Upload begin", "call FileSharingService/Upload spec", "signed PUT", "call FileSharingService/Upload header", "store PUT begin", "stored", "store PUT end", "published", "fault struck",
		"call FileSharingService/Upload end OK",
	} {
		if !slices.Contains(kinds, want) {
			t.Errorf("no event %q among %q", want, kinds)
		}
	}
	for _, secret := range []string{talk.Token, "temp_url_sig=", `jwt\":\"ey`} {
		if strings.Contains(all.String(), secret) {
			t.Errorf("the events have %q in them", secret)
		}
	}
	if !strings.Contains(all.String(), "[masked]") {
		t.Error("no secret was masked, so this test checks nothing")
	}
}
