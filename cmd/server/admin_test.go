package main

import (
	"bytes"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/buildinfo"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/harness"
)

// admin requests a path of the admin server.
func (w *world) admin(path string) (status int, body string) {
	w.t.Helper()
	resp, err := http.Get("http://" + w.server.Admin + path)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

func TestAdmin_Metrics(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{}, "--admin-listen=127.0.0.1:0")
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	c := w.consumer()
	o := lpfileshare.UploadOptions{Conversation: w.conversation(c.Client), DisplayName: "secret-name.jpg", Caption: "secret-caption"}
	file := w.upload(c.Client, o, photo(t, 20_000))
	w.download(c.Client, file.GetName())
	w.sb.Inject(sandbox.Fault{On: "store:PUT", Status: 503, Count: 1})
	w.upload(c.Client, o, photo(t, 20_000))
	w.sb.Inject(sandbox.Fault{On: "ms.PublishEvent", Status: 403, Count: 1})
	if _, err := c.Upload(t.Context(), o, bytes.NewReader(photo(t, 20_000))); err == nil {
		t.Fatal("an upload succeeded that LivePerson refused to publish")
	}
	w.sb.Inject(sandbox.Fault{On: "http:signup", Status: 503, Count: 1})
	if _, err := harness.SignUp(t.Context(), w.dial(), account); err == nil {
		t.Fatal("a sign-up succeeded that LivePerson refused")
	}
	_, err := c.Raw().Files.StatFile(t.Context(), &pb.StatFileRequest{Source: &pb.StatFileRequest_Name{Name: file.GetName() + "0"}})
	if err == nil {
		t.Fatal("a file that does not exist was found")
	}

	status, text := w.admin("/metrics")
	if status != http.StatusOK {
		t.Fatalf("/metrics: %d", status)
	}
	for _, want := range []string{
		`grpc_server_handled_total{grpc_code="OK",grpc_method="Upload",grpc_service="lpfileshare.v1.FileSharingService",grpc_type="client_stream"} 2`,
		`grpc_server_handled_total{grpc_code="OK",grpc_method="ListFiles",grpc_service="lpfileshare.v1.FileSharingService",grpc_type="unary"} 0`,
		`lpfs_upload_bytes_total 60000`, `lpfs_download_bytes_total 20000`, `lpfs_upload_size_bytes_count 2`,
		`lpfs_step_errors_total{kind="STORAGE_UNAVAILABLE",step="PUT",system="store"} 1`,
		`lpfs_step_duration_seconds_count{step="PUT",system="store"} 4`,
		`lpfs_step_duration_seconds_count{step="publish",system="liveperson"} 3`,
		`lpfs_step_errors_total{kind="LP_FORBIDDEN",step="publish",system="liveperson"} 1`,
		`lpfs_step_errors_total{kind="LP_UNAVAILABLE",step="sign up",system="liveperson"} 1`,
		`lpfs_step_duration_seconds_count{step="open",system="liveperson"} 1`,
		`lpfs_step_duration_seconds_count{step="save",system="ledger"}`,
		`lpfs_calls_failed_total{method="FileSharingService/StatFile",reason="`,
		`lpfs_sessions 1`, `lpfs_serving{name=""} 1`, `lpfs_memory_bytes{use="uploads"} 0`, `lpfs_build_info{goversion="go`,
	} {
		if !strings.Contains(text, "\n"+want) {
			t.Errorf("the metrics have no %s", want)
		}
	}
	for _, secret := range []string{"secret-", account, "temp_url", "Bearer"} {
		if strings.Contains(text, secret) {
			t.Errorf("the metrics contain %q", secret)
		}
	}

	documented, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	var inDocs, inServer []string
	for _, m := range regexp.MustCompile("(?m)^\\| `((?:lpfs|grpc_server)_[a-z_]+)`").FindAllStringSubmatch(string(documented), -1) {
		inDocs = append(inDocs, m[1])
	}
	for _, m := range regexp.MustCompile(`(?m)^# TYPE ((?:lpfs|grpc_server)_[a-z_]+) `).FindAllStringSubmatch(text, -1) {
		inServer = append(inServer, m[1])
	}
	inServer = append(inServer, "lpfs_config_last_reload_success", "lpfs_config_last_reload_success_timestamp_seconds", // after a reload
		"lpfs_certificate_not_after_timestamp_seconds", // with --tls-cert
		"lpfs_scans_total") // with --scan
	slices.Sort(inDocs)
	slices.Sort(inServer)
	if !slices.Equal(inDocs, inServer) {
		t.Errorf("docs/metrics.md lists\n%s\nthe server has\n%s", strings.Join(inDocs, "\n"), strings.Join(inServer, "\n"))
	}
}

func TestAdmin_Probes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{}, "--admin-listen=127.0.0.1:0", "--drain-time=10m", "--drain-notice=0s")
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	want := func(path string, status int, body string) {
		t.Helper()
		if got, text := w.admin(path); got != status || text != body {
			t.Errorf("%s: %d %q, want %d %q", path, got, text, status, body)
		}
	}
	want("/livez", 200, "ok\n")
	want("/readyz", 200, "ok\n")
	want("/readyz?verbose", 200, "[+] server\n[+] ledger\n[+] events\n[+] uploads\n")
	if status, body := w.admin("/version"); status != 200 || !strings.Contains(body, `"version":"`+buildinfo.Version()+`"`) {
		t.Errorf("/version: %d %s", status, body)
	}
	want("/debug/vars", 404, "404 page not found\n")

	// A download that nobody reads keeps the server draining.
	c := w.consumer()
	file := w.upload(c.Client, lpfileshare.UploadOptions{Conversation: w.conversation(c.Client), DisplayName: "a.jpg"}, photo(t, 2_900_000))
	download, err := c.Raw().Files.Download(t.Context(), &pb.DownloadRequest{Source: &pb.DownloadRequest_Name{Name: file.GetName()}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := download.Recv(); err != nil {
		t.Fatal(err)
	}
	w.server.Quit()
	harness.Eventually(t, "the server is not ready", func() bool { status, _ := w.admin("/readyz"); return status == 503 })
	want("/readyz?verbose", 503, "[-] server\n[-] ledger\n[-] events\n[-] uploads\n")
	want("/livez", 200, "ok\n")
	for err == nil {
		_, err = download.Recv()
	}
	if err != io.EOF {
		t.Errorf("the download ended with %v", err)
	}
	w.stop()
}
