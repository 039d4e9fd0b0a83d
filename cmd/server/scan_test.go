package main

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
)

// --scan has files scanned; test/scan does it with Debian's clamd. What this clamd finds is not stored, and when it has gone nothing is.
func TestScan_RejectsFiles(t *testing.T) {
	t.Parallel()
	socket, stopClamd := startClamdUntil(t, "stream: Test FOUND\x00")
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
	if j := w.sb.Journal(); len(j.Stored) != 0 || len(j.Published) != 0 {
		t.Errorf("%d objects, %d messages", len(j.Stored), len(j.Published))
	}
	_, metrics := w.admin("/metrics")
	for _, want := range []string{`lpfs_scans_total{result="rejected"} 1`, `lpfs_scans_total{result="failed"} 1`, `lpfs_waiting{for="scans"} 0`} {
		if !strings.Contains(metrics, "\n"+want+"\n") {
			t.Errorf("the metrics have no %s", want)
		}
	}
	if w.logs.Count("clamd does not answer") != 0 {
		t.Error("clamd answered, and the log says that it did not")
	}
}

// startClamd starts a clamd that gives every file one reply, and returns its socket. It ends with the test.
func startClamd(t *testing.T, reply string) string {
	t.Helper()
	socket, stop := startClamdUntil(t, reply)
	t.Cleanup(stop)
	return socket
}

// startClamdUntil is startClamd until stop, which must be called.
func startClamdUntil(t *testing.T, reply string) (socket string, stop func()) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "s")
	clamd, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := clamd.Accept()
			if err != nil {
				return
			}
			end := []byte{0, 0, 0, 0}
			var got []byte
			for chunk := make([]byte, 4096); !bytes.HasSuffix(got, end) && !bytes.HasSuffix(got, []byte("zPING\x00")); {
				n, err := conn.Read(chunk)
				if got = append(got, chunk[:n]...); err != nil {
					break
				}
			}
			answer := reply
			if bytes.HasPrefix(got, []byte("zPING")) {
				answer = "PONG\x00"
			}
			_, _ = io.WriteString(conn, answer)
			conn.Close()
		}
	}()
	return socket, func() {
		clamd.Close()
		<-served
	}
}
