package abuse

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/harness"
	"github.com/lpfileshare/lpfileshare/test/process"
)

const (
	// promised is how soon health is true (docs/ledger.md).
	promised = 10 * time.Second
	// slack is what a busy machine may add.
	slack = 5 * time.Second
)

// A fault of what an upload needs.
type fault struct {
	name string
	// open prepares it, and returns the server's flags.
	open func(t *testing.T, f *fault) []string
	// connector says that the account uses the Connector API.
	connector bool
	// breaks and repairs are set by open.
	breaks, repairs func(t *testing.T)
}

// service is the name of readiness in the health service.
var service = pb.FileSharingService_ServiceDesc.ServiceName

func (f *fault) run(t *testing.T) {
	picked(t, f.name)
	flags := f.open(t, f)
	sb := harness.Sandbox(t, frames, sandbox.Options{})
	started, err := harness.Start(program, append(append(harness.Before(sb), "--drain-notice=0s", "--drain-time=1s", "--documents"), flags...)...)
	if err != nil {
		t.Fatal(err)
	}
	started.Stopped(t)
	s := &server{started, t, sb}
	var c harness.Consumer
	if f.connector {
		c = s.external("consumer")
	} else {
		c = s.Consumer(t)
	}
	s.becomes(healthpb.HealthCheckResponse_SERVING)
	if err := upload(t.Context(), c, text(3000)); err != nil {
		t.Fatal(err)
	}
	f.breaks(t)
	fell := s.becomes(healthpb.HealthCheckResponse_NOT_SERVING)
	f.repairs(t)
	rose := s.becomes(healthpb.HealthCheckResponse_SERVING)
	if f.connector { // what the event log knew of conversations is lost with it
		c = s.external("consumer")
	}
	if err := upload(t.Context(), c, text(3000)); err != nil {
		t.Errorf("after the repair: %v", err)
	}
	verdict := "ok"
	if t.Failed() {
		verdict = "FAILED"
		t.Log(s.Logs.Tail())
	}
	tableRow("health: "+f.name, "", "NOT_SERVING after "+fell.Round(100*time.Millisecond).String(), "SERVING after "+rose.Round(100*time.Millisecond).String(), "-", "-", verdict)
}

// becomes waits until readiness has a value, and returns how long that took.
func (s *server) becomes(want healthpb.HealthCheckResponse_ServingStatus) time.Duration {
	s.t.Helper()
	c, begun := s.connect(), time.Now()
	for {
		ctx, cancel := context.WithTimeout(s.t.Context(), promised+slack)
		got, err := c.Health(ctx, service)
		cancel()
		took := time.Since(begun)
		if err == nil && got == want {
			return took
		}
		if took > promised+slack {
			s.t.Errorf("readiness is %v, %v, want %v within %v", got, err, want, promised)
			return took
		}
		wait(s.t.Context(), 50*time.Millisecond)
	}
}

// tmpfs mounts a small file system.
func tmpfs(t *testing.T, row, size string) string {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+size+",mode=0700"); err != nil {
		cannot(t, row, "a small file system cannot be mounted here (requires root): %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func fullDisk(t *testing.T, f *fault) []string {
	dir := tmpfs(t, "health: "+f.name, "8m")
	filler := filepath.Join(dir, "filler")
	f.breaks = func(t *testing.T) {
		w, err := os.Create(filler)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		block := make([]byte, 64<<10)
		for len(block) > 0 {
			if _, err := w.Write(block); err != nil {
				block = block[:len(block)/2]
			}
		}
	}
	f.repairs = func(t *testing.T) {
		if err := os.Remove(filler); err != nil {
			t.Fatal(err)
		}
	}
	return []string{"--data-dir=" + dir, "--ledger-bytes=2MiB"}
}

// readOnlyDisk has the kernel take a file system for damaged, which makes it read-only. The repair is what an operator does: unmount,
// check, mount.
func readOnlyDisk(t *testing.T, f *fault) []string {
	dir := t.TempDir()
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, 64*mib); err != nil {
		t.Fatal(err)
	}
	command := func(name string, args ...string) (string, error) {
		out, err := exec.Command(name, args...).CombinedOutput()
		return strings.TrimSpace(string(out)), err
	}
	if out, err := command("mkfs.ext4", "-q", image); err != nil {
		cannot(t, "health: "+f.name, "no file system can be made here: %v %s", err, out)
	}
	device, err := command("losetup", "--find", "--show", image)
	if err != nil {
		cannot(t, "health: "+f.name, "an image cannot be mounted here (requires root): %v %s", err, device)
	}
	t.Cleanup(func() { _, _ = command("losetup", "--detach", device) })
	mount := func(t *testing.T) {
		if out, err := command("mount", "-o", "errors=remount-ro", device, dir); err != nil {
			cannot(t, "health: "+f.name, "an image cannot be mounted here (requires root): %v %s", err, out)
		}
	}
	mount(t)
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	trigger := filepath.Join("/sys/fs/ext4", filepath.Base(device), "trigger_fs_error")
	if _, err := os.Stat(trigger); err != nil {
		cannot(t, "health: "+f.name, "the kernel cannot be made to find an error here: %v", err)
	}
	f.breaks = func(t *testing.T) {
		syscall.Sync() // after the error the kernel discards what it has not written yet, and the ledger would rightly miss it
		if err := os.WriteFile(trigger, []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
	}
	f.repairs = func(t *testing.T) {
		harness.Eventually(t, "the server has closed its files", func() bool { return syscall.Unmount(dir, 0) == nil })
		_, _ = command("e2fsck", "-fy", image) // its exit status says what it corrected
		mount(t)
	}
	return []string{"--data-dir=" + filepath.Join(dir, "ledger"), "--ledger-bytes=2MiB"}
}

// nats starts a NATS server or a cluster. stop and start are of one node.
type natsServers struct {
	urls  []string
	start []func(t *testing.T)
	stop  []func(t *testing.T)
	conf  []string // configuration files
}

var natsBinary = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "lpfileshare-abuse-nats")
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "nats-server")
	return file, process.Build(file, "github.com/nats-io/nats-server/v2")
})

// startNATS starts n nodes with JetStream. extra is added to their configurations.
func startNATS(t *testing.T, n int, extra string) *natsServers {
	t.Helper()
	binary, err := natsBinary()
	if err != nil {
		t.Fatal(err)
	}
	ports, err := process.FreePorts(2 * n)
	if err != nil {
		t.Fatal(err)
	}
	s := &natsServers{}
	var routes []string
	for i := range n {
		routes = append(routes, fmt.Sprintf("nats://127.0.0.1:%d", ports[n+i]))
	}
	dir := t.TempDir()
	running := make([]*process.Process, n)
	for i := range n {
		s.urls = append(s.urls, fmt.Sprintf("nats://127.0.0.1:%d", ports[i]))
		conf := fmt.Sprintf("server_name: n%d\nlisten: 127.0.0.1:%d\njetstream { store_dir: %q }\n%s\n", i, ports[i], filepath.Join(dir, fmt.Sprint(i)), extra)
		if n > 1 {
			conf += fmt.Sprintf("cluster { name: abuse, listen: %q, no_advertise: true, routes: [%s] }\n", strings.TrimPrefix(routes[i], "nats://"), strings.Join(routes, ", "))
		}
		file := filepath.Join(dir, fmt.Sprintf("%d.conf", i))
		if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
			t.Fatal(err)
		}
		s.conf = append(s.conf, file)
		s.start = append(s.start, func(t *testing.T) {
			p, _, err := process.Start(regexp.MustCompile("Server is ready"), binary, "-c", file)
			if err != nil {
				t.Fatal(err)
			}
			running[i] = p
		})
		s.stop = append(s.stop, func(*testing.T) {
			if running[i] != nil {
				running[i].Kill()
				running[i] = nil
			}
		})
	}
	t.Cleanup(func() {
		for _, stop := range s.stop {
			stop(t)
		}
	})
	var starts sync.WaitGroup
	for _, start := range s.start {
		starts.Go(func() { start(t) })
	}
	starts.Wait()
	return s
}

// streams waits until JetStream answers, and returns it.
func (s *natsServers) streams(t *testing.T, options ...nats.Option) jetstream.JetStream {
	t.Helper()
	conn, err := nats.Connect(strings.Join(s.urls, ","), append(options, nats.MaxReconnects(-1), nats.ReconnectWait(50*time.Millisecond))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	harness.Eventually(t, "JetStream answers", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := js.AccountInfo(ctx)
		return err == nil
	})
	return js
}

func (s *natsServers) flag() string { return "--ledger=" + strings.Join(s.urls, ",") }

func oneOfThree(t *testing.T, f *fault) []string {
	s := startNATS(t, 3, "")
	s.streams(t)
	f.breaks = func(t *testing.T) { s.stop[0](t); s.stop[1](t) }
	f.repairs = func(t *testing.T) { s.start[0](t); s.start[1](t) }
	return []string{s.flag(), "--ledger-bytes=8MiB"}
}

// removed removes a stream that the server uses. Repaired is what docs/ledger.md tells an operator to do.
func bucketRemoved(t *testing.T, f *fault) []string {
	s := startNATS(t, 1, "")
	js := s.streams(t)
	var kept *jetstream.StreamConfig
	f.breaks = func(t *testing.T) {
		stream, err := js.Stream(t.Context(), "KV_lpfileshare")
		if err != nil {
			t.Fatal(err)
		}
		kept = &stream.CachedInfo().Config
		if err := js.DeleteStream(t.Context(), "KV_lpfileshare"); err != nil {
			t.Fatal(err)
		}
	}
	f.repairs = func(t *testing.T) {
		// The operator accepts the loss: an empty bucket that begins above all earlier revisions.
		kept.FirstSeq = uint64(time.Now().UnixMilli())
		if _, err := js.CreateStream(t.Context(), *kept); err != nil {
			t.Fatal(err)
		}
	}
	return []string{s.flag(), "--ledger-bytes=8MiB"}
}

func passwordRotated(t *testing.T, f *fault) []string {
	const conf = "authorization { user: lpfileshare, password: %q }"
	s := startNATS(t, 1, fmt.Sprintf(conf, "old-password"))
	s.streams(t, nats.UserInfo("lpfileshare", "old-password"))
	password := filepath.Join(t.TempDir(), "password")
	write := func(text string) {
		if err := os.WriteFile(password, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("old-password")
	f.breaks = func(t *testing.T) {
		text, err := os.ReadFile(s.conf[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(s.conf[0], []byte(strings.Replace(string(text), "old-password", "new-password", 1)), 0o600); err != nil {
			t.Fatal(err)
		}
		s.stop[0](t)
		s.start[0](t)
	}
	f.repairs = func(*testing.T) { write("new-password") }
	return []string{s.flag(), "--ledger-bytes=8MiB", "--ledger-user=lpfileshare", "--ledger-password-file=" + password}
}

// eventsRemoved removes the streams of the event log. The server makes them anew by itself.
func eventsRemoved(t *testing.T, f *fault) []string {
	s := startNATS(t, 1, "")
	js := s.streams(t)
	f.breaks = func(t *testing.T) {
		for _, name := range []string{"lpfileshare_events", "lpfileshare_conversations"} {
			if err := js.DeleteStream(t.Context(), name); err != nil {
				t.Fatal(err)
			}
		}
	}
	f.repairs = func(*testing.T) {}
	return append(connectorAccount(t, nil), s.flag(), "--ledger-bytes=8MiB", "--event-bytes=8MiB")
}

var faults = []fault{
	{name: "full disk", open: fullDisk},
	{name: "read-only disk", open: readOnlyDisk},
	{name: "NATS, one of three nodes left", open: oneOfThree},
	{name: "NATS, bucket removed", open: bucketRemoved},
	{name: "NATS, password rotated", open: passwordRotated},
	{name: "NATS, streams of the event log removed", open: eventsRemoved, connector: true},
}

func TestHealth(t *testing.T) {
	for _, f := range faults {
		t.Run(f.name, func(t *testing.T) { f.run(t) })
	}
}

// TestLedger_LostRecords damages the files of a stopped embedded ledger. The server then does not start, and says what to do: a forgotten
// request id could be published again. With the operator's consent it starts.
func TestLedger_LostRecords(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, stream string){
		"ledger: the head of a file is damaged": func(t *testing.T, stream string) {
			files, err := filepath.Glob(filepath.Join(stream, "msgs", "*.blk"))
			if err != nil || len(files) == 0 {
				t.Fatalf("there are no files, %v", err)
			}
			data, err := os.ReadFile(files[0])
			if err != nil {
				t.Fatal(err)
			}
			for i := range min(64, len(data)) {
				data[i] ^= 0xff
			}
			if err := os.WriteFile(files[0], data, 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"ledger: its files are removed": func(t *testing.T, stream string) {
			if err := os.RemoveAll(stream); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			picked(t, name)
			dir := t.TempDir()
			sb := harness.Sandbox(t, frames, sandbox.Options{})
			args := append(harness.Before(sb), "--data-dir="+dir, "--drain-notice=0s", "--drain-time=1s", "--documents")
			s, err := harness.Start(program, args...)
			if err != nil {
				t.Fatal(err)
			}
			if err := upload(t.Context(), s.Consumer(t), text(3000)); err != nil {
				t.Fatal(err)
			}
			if err := s.Stop(); err != nil {
				t.Fatal(err)
			}
			stream := ""
			if err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
				if filepath.Base(path) == "KV_lpfileshare" {
					stream = path
				}
				return err
			}); err != nil || stream == "" {
				t.Fatalf("the files of the ledger are not found: %v", err)
			}
			damage(t, stream)
			if s, err := harness.Start(program, args...); err == nil {
				t.Error("the server starts without the records")
				_ = s.Stop()
			} else if !strings.Contains(err.Error(), "--ledger-accept-loss") {
				t.Errorf("the server does not say what to do: %v", err)
			}
			if s, err := harness.Start(program, append(args, "--ledger-accept-loss")...); err != nil {
				t.Errorf("with the operator's consent: %v", err)
			} else if err := s.Stop(); err != nil {
				t.Error(err)
			}
			verdict := "ok"
			if t.Failed() {
				verdict = "FAILED"
			}
			tableRow(name, "", "the server refuses to start", "starts with --ledger-accept-loss", "-", "-", verdict)
		})
	}
}
