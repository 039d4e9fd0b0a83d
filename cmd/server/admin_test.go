package main

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
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
		"lpfs_scans_total", "lpfs_scanner_up", // with --scan
		"lpfs_audit_lost_total", "lpfs_audit_usable") // with --audit
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
	want("/readyz?verbose", 200, "[+] server\n[+] ledger\n[+] events\n[+] callers\n[+] uploads\n[+] audit\n[+] scanner\n")
	if status, body := w.admin("/version"); status != 200 || !strings.Contains(body, `"version":"`+buildinfo.Version()+`"`) {
		t.Errorf("/version: %d %s", status, body)
	}

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
	want("/readyz?verbose", 503, "[-] server\n[-] ledger\n[-] events\n[-] callers\n[-] uploads\n[-] audit\n[-] scanner\n")
	want("/livez", 200, "ok\n")
	for err == nil {
		_, err = download.Recv()
	}
	if err != io.EOF {
		t.Errorf("the download ended with %v", err)
	}
	w.stop()
}

// guardedContent has the paths of pages that can contain secrets or change something, with a part of their content.
var guardedContent = map[string]string{
	"/statusz":               "<h2>Ledger</h2>",
	"/config":                `"max-file-bytes":"3000000"`,
	"/log-level":             "debug\n",
	"/channelz":              `"sockets":[{`,
	"/debug/pprof/":          "goroutine",
	"/debug/pprof/goroutine": "",
	"/debug/vars":            `"rejections"`,
	"/debug/webhooks":        `"Kept"`,
	"/debug/gc":              "",
}

var openContent = map[string]string{"/livez": "ok\n", "/readyz": "ok\n", "/metrics": "lpfs_sessions", "/version": `"go":"go`}

// get requests a page, and returns its status and text.
func get(t *testing.T, c *http.Client, url string) (status int, text string) {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// An address that other machines reach serves the open pages only. The loopback address of --debug-listen serves all.
func TestAdmin_GuardsPages(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{}, "--admin-listen=:0", "--debug-listen=127.0.0.1:0")
	w.consumer() // so that there is a connection
	_, port, err := net.SplitHostPort(w.server.Admin)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{}
	t.Cleanup(client.CloseIdleConnections)
	for path, want := range openContent {
		for _, address := range []string{"127.0.0.1:" + port, w.server.Debug} {
			if status, text := get(t, client, "http://"+address+path); status != 200 || !strings.Contains(text, want) {
				t.Errorf("%s%s: %d %s", address, path, status, text)
			}
		}
	}
	for path, want := range guardedContent {
		if status, text := get(t, client, "http://127.0.0.1:"+port+path); status != 403 || strings.Contains(text, "goroutine") {
			t.Errorf("%s of an address that others reach: %d %s", path, status, text)
		}
		if status, text := get(t, client, "http://"+w.server.Debug+path); status != 200 || !strings.Contains(text, want) {
			t.Errorf("%s on loopback: %d %s", path, status, text)
		}
	}
}

func TestAdmin_OpensNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{}, "--admin-listen=:0", "--admin-open=none")
	_, port, err := net.SplitHostPort(w.server.Admin)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{}
	t.Cleanup(client.CloseIdleConnections)
	for path := range openContent {
		if status, text := get(t, client, "http://127.0.0.1:"+port+path); status != 403 {
			t.Errorf("%s: %d %s", path, status, text)
		}
	}
}

func TestAdmin_ClientCertificates(t *testing.T) {
	t.Parallel()
	w := newSandboxWorld(t, sandbox.Options{})
	serving, operators := newAuthority(t, "serving"), newAuthority(t, "operators")
	operators.client("anna", "spiffe://example.com/anna")
	serving.client("service", "spiffe://example.com/service")
	w.start(append(serving.server("server"), "--admin-listen=:0", "--admin-client-ca="+operators.ca())...)
	_, port, err := net.SplitHostPort(w.server.Admin)
	if err != nil {
		t.Fatal(err)
	}
	client := func(from *authority, name string) *http.Client {
		config := serving.config("")
		if from != nil {
			pair := &from.config(name).Certificates[0]
			config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return pair, nil } // also if nobody asks for it
		}
		c := &http.Client{Transport: &http.Transport{TLSClientConfig: config}}
		t.Cleanup(c.CloseIdleConnections)
		return c
	}
	base := "https://127.0.0.1:" + port
	anna, nobody := client(operators, "anna"), client(nil, "")
	for path, want := range guardedContent {
		if path == "/channelz" {
			want = `"servers":[{` // there is no call yet
		}
		if status, text := get(t, anna, base+path); status != 200 || !strings.Contains(text, want) {
			t.Errorf("%s with a certificate: %d %s", path, status, text)
		}
		if status, text := get(t, nobody, base+path); status != 403 {
			t.Errorf("%s without a certificate: %d %s", path, status, text)
		}
	}
	if status, _ := get(t, nobody, base+"/readyz"); status != 200 {
		t.Errorf("/readyz without a certificate: %d", status)
	}
	if resp, err := client(serving, "service").Get(base + "/statusz"); err == nil {
		resp.Body.Close()
		t.Errorf("a certificate of another authority: %d", resp.StatusCode)
	}
}

// A level that is set applies to the next line. Reading it changes nothing, and pages of other origins cannot set it.
func TestAdmin_LogLevel(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{}, "--debug-listen=127.0.0.1:0", "--log-level=warn")
	client := &http.Client{}
	t.Cleanup(client.CloseIdleConnections)
	put := func(level, origin string) (status int, text string) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPut, "http://"+w.server.Debug+"/log-level", strings.NewReader(level))
		if err != nil {
			t.Fatal(err)
		}
		if origin != "" {
			r.Header.Set("Origin", origin)
		}
		resp, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, string(body)
	}
	w.consumer()
	if got := w.logs.Count("finished call"); got != 0 {
		t.Errorf("%d calls logged at the level warn", got)
	}
	if status, text := put("info\n", ""); status != 200 || text != "info\n" {
		t.Errorf("setting info: %d %s", status, text)
	}
	w.consumer()
	w.logged("finished call")
	w.logged("log level changed", "from=WARN", "to=INFO")
	for _, level := range []string{"", "loud", strings.Repeat("x", 100)} {
		if status, _ := put(level, ""); status != 400 {
			t.Errorf("setting %q: %d", level, status)
		}
	}
	if status, _ := put("debug", "http://rebound.example"); status != 403 {
		t.Errorf("another origin sets the level: %d", status)
	}
	if _, text := get(t, client, "http://"+w.server.Debug+"/log-level"); text != "info\n" {
		t.Errorf("the level is %s", text)
	}
}

// /config shows no secret, and /statusz what has happened.
func TestAdmin_Contents(t *testing.T) {
	t.Parallel()
	key := filepath.Join(t.TempDir(), "secret-key-file")
	if err := os.WriteFile(key, []byte(strings.Repeat("ab", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, sandbox.Options{}, "--admin-listen=127.0.0.1:0", "--agent-token-key="+key, "--serve-account="+account)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	c := w.consumer()
	_, err := c.Raw().Files.StatFile(t.Context(), &pb.StatFileRequest{Source: &pb.StatFileRequest_Name{Name: "secret-name"}})
	if err == nil {
		t.Fatal("a file without a valid name was found")
	}
	_, config := w.admin("/config")
	for _, want := range []string{`"agent-token-key":"set"`, `"tls-key":"unset"`, `"queue-time":"5s"`, `"ledger":"memory"`} {
		if !strings.Contains(config, want) {
			t.Errorf("the configuration has no %s: %s", want, config)
		}
	}
	_, page := w.admin("/statusz")
	for _, want := range []string{
		"<tr><th>version</th><td>" + buildinfo.Version(), "<tr><th>names</th><td>" + account, "<tr><th>uploads</th><td>0 of 268435456 bytes (0 %)",
		"<tr><th>uploads</th><td>serving", "<tr><th>" + lpfileshare.ErrorReason(err).String()[len("ERROR_REASON_"):] + "</th><td>1", "<tr><th>read at</th><td>20",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the status page has no %s:\n%s", want, page)
		}
	}
	for _, text := range []string{config, page} {
		if strings.Contains(text, "secret") || strings.Contains(text, c.token) {
			t.Errorf("the page contains a secret: %s", text)
		}
	}
}
