package main

import (
	"bytes"
	"net/http"
	"strings"
	"testing"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/harness"
)

// --scan has files scanned; test/scan does it with Debian's clamd. What this clamd finds is not stored, and when it has gone nothing is.
func TestScan_RejectsFiles(t *testing.T) {
	t.Parallel()
	socket, stopClamd := harness.Clamd(t, "stream: Test FOUND")
	w := newWorld(t, sandbox.Options{}, "--scan=clamd://"+socket, "--admin-listen=127.0.0.1:0")
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	c := w.consumer()
	conv := w.conversation(c.Client)
	upload := func() error {
		_, err := c.Upload(t.Context(), lpfileshare.UploadOptions{Conversation: conv, DisplayName: "a.png", RetryFor: -1}, bytes.NewReader(tinyPNG(t)))
		return err
	}
	wantReason(t, upload(), pb.ErrorReason_ERROR_REASON_FILE_REJECTED_BY_SCANNER)
	stopClamd()
	wantReason(t, upload(), pb.ErrorReason_ERROR_REASON_SCANNER_UNAVAILABLE)
	w.watchHealth(scannerHealth).becomes(notServing)
	w.wantHealth(map[string]healthpb.HealthCheckResponse_ServingStatus{"": serving, readyHealth: serving})
	if status, text := w.admin("/readyz?verbose"); status != http.StatusOK || !strings.HasSuffix(text, "[+] audit\n[-] scanner\n") {
		t.Errorf("/readyz: %d %s", status, text)
	}
	if j := w.sb.Journal(); len(j.Stored) != 0 || len(j.Published) != 0 {
		t.Errorf("%d objects, %d messages", len(j.Stored), len(j.Published))
	}
	_, metrics := w.admin("/metrics")
	for _, want := range []string{`lpfs_scans_total{result="rejected"} 1`, `lpfs_scans_total{result="failed"} 1`, `lpfs_waiting{for="scans"} 0`, `lpfs_scanner_up 0`} {
		if !strings.Contains(metrics, "\n"+want+"\n") {
			t.Errorf("the metrics have no %s", want)
		}
	}
}
