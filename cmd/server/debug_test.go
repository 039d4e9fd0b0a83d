package main

import (
	"encoding/json"
	"net/http"
	"regexp"
	"testing"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
)

func TestDebug_ShowsCounters(t *testing.T) {
	w := newWorld(t, sandbox.Options{}, "--debug-listen=127.0.0.1:0", "--max-streams-per-caller=1")
	c := w.consumer()
	conv := w.conversation(c.Client)
	first, err := c.Raw().Files.WatchFiles(t.Context(), &pb.WatchFilesRequest{Parent: conv})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := first.Recv(); err != nil {
		t.Fatal(err)
	}
	second, err := c.Raw().Files.WatchFiles(t.Context(), &pb.WatchFilesRequest{Parent: conv})
	if err == nil {
		_, err = second.Recv()
	}
	if got := lpfileshare.ErrorReason(err); got != pb.ErrorReason_ERROR_REASON_TOO_MANY_STREAMS {
		t.Fatalf("a second watch: %v", err)
	}
	resp, err := http.Get("http://" + regexp.MustCompile(`debug=(\S+)`).FindStringSubmatch(w.logs.String())[1] + "/debug/vars")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	var vars struct {
		Rejections map[string]int64
		Webhooks   struct{ Rejected *int64 }
		Lines      map[string]int64 `json:"log_lines"`
		Memstats   struct{ Alloc int64 }
	}
	if err := json.NewDecoder(resp.Body).Decode(&vars); err != nil {
		t.Fatal(err)
	}
	_, counted := vars.Rejections["RECEIVE_MEMORY"]
	if vars.Rejections["TOO_MANY_STREAMS"] != 1 || !counted || vars.Webhooks.Rejected == nil || len(vars.Lines) != 2 || vars.Memstats.Alloc == 0 {
		t.Errorf("the counters are %+v", vars)
	}
}
