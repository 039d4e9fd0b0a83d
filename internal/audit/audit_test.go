package audit

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/lpfileshare/lpfileshare/internal/policy"
	"github.com/lpfileshare/lpfileshare/internal/service"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// An output is what a Log writes to. It fails or waits as a test says.
type output struct {
	mu      sync.Mutex
	written bytes.Buffer
	space   int // bytes that it still accepts; negative: any number
	stalled chan struct{}
}

var errFull = errors.New("no space left on device")

func (o *output) Write(p []byte) (int, error) {
	if o.stalled != nil {
		<-o.stalled
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.space < 0 || o.space >= len(p) {
		o.space -= min(len(p), max(o.space, 0))
		return o.written.Write(p)
	}
	n, _ := o.written.Write(p[:o.space])
	o.space = 0
	return n, errFull
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.written.String()
}

func (o *output) free() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.space = -1
}

func open(t testing.TB, c Config) *Log {
	t.Helper()
	c.Server, c.Version = "server-1", "v0.0.0"
	if c.Caller == nil {
		c.Caller = func(context.Context) policy.Caller { return policy.Caller{} }
	}
	c.Log = slog.New(slog.DiscardHandler)
	l, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(time.Second) })
	return l
}

// lines decodes lines, of which all must be whole, and returns those of an event.
func lines(t *testing.T, text, event string) (found []map[string]any) {
	t.Helper()
	for line := range strings.Lines(text) {
		var fields map[string]any
		if err := json.Unmarshal([]byte(line), &fields); err != nil || !strings.HasSuffix(line, "\n") {
			t.Fatalf("the line %q is not whole: %v", line, err)
		}
		if fields["event"] == event {
			found = append(found, fields)
		}
	}
	return found
}

var upload = service.EndedCall{
	Method: "FileSharingService/Upload", Code: codes.ResourceExhausted, Reason: "TOO_MANY_UPLOADS", Bytes: 1234,
	Begun: time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC), Took: 1500 * time.Millisecond, Peer: "[2001:db8::1]:4711",
	Facts: service.Facts{
		Account: "12345678", RequestID: "5f0c6a3e-1f6b-4f5e-9d6b-1c2d3e4f5a6b", Decision: service.Permitted, Conversation: "conv-1",
		Principal:   share.Principal{Account: "12345678", ID: `the "consumer"`, Role: share.RoleConsumer},
		StoragePath: "/v1/AUTH_x/a.jpg", FileType: "JPEG", SHA256: bytes.Repeat([]byte{0xab}, 32), Replayed: true, TookOver: true,
	},
}

func TestLog_Call(t *testing.T) {
	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("grpc-previous-rpc-attempts", "2",
		"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
	byName := func(context.Context) policy.Caller {
		return policy.Caller{Name: policy.Name{Kind: policy.URI, Value: "spiffe://example.com/chat"}, Via: policy.ViaXFCC, Proxy: policy.Name{Kind: policy.DNS, Value: "edge"}}
	}
	file := sha256.Sum256([]byte("/v1/AUTH_x/a.jpg"))
	const head = `{"ts":"2026-11-30T12:00:01.500Z","event":"call","method":"FileSharingService/Upload","code":"ResourceExhausted","reason":"TOO_MANY_UPLOADS",` +
		`"duration_ms":1500,"peer_ip":"2001:db8::1","caller":"uri:spiffe://example.com/chat","caller_via":"xfcc","proxy":"dns:edge","account":"12345678",`
	const tail = `,"type":"JPEG","bytes":1234,"sha256":"abababababababab","request_id":"5f0c6a3e-1f6b-4f5e-9d6b-1c2d3e4f5a6b","replayed":true,` +
		`"takeover":true,"attempts":3,"trace_id":"0af7651916cd43dd8448eb211c80319c","server":"server-1","version":"v0.0.0"}` + "\n"
	key := []byte("a key of the deployment")
	digest := func(text string) string {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(text))
		return hex.EncodeToString(mac.Sum(nil)[:digestBytes])
	}
	for name, c := range map[string]struct {
		key  []byte
		want string
	}{
		"plain": {nil, head + `"consumer":"the \"consumer\"","role":"CONSUMER","decision":"permitted","conversation":"conv-1","file":"` +
			hex.EncodeToString(file[:digestBytes]) + `"` + tail},
		"with a key": {key, head + `"consumer":"` + digest(`the "consumer"`) + `","role":"CONSUMER","decision":"permitted","conversation":"` + digest("conv-1") +
			`","file":"` + digest("/v1/AUTH_x/a.jpg") + `"` + tail},
	} {
		t.Run(name, func(t *testing.T) {
			out := &output{space: -1}
			l := open(t, Config{Out: out, Key: c.key, Caller: byName})
			l.Ended(ctx, &upload)
			l.Close(time.Minute)
			if text := out.String(); !strings.Contains(text, c.want) {
				t.Errorf("got\n%swant\n%s", text, c.want)
			}
			if text := out.String(); len(lines(t, text, "start")) != 1 || len(lines(t, text, "stop")) != 1 {
				t.Errorf("the stream is\n%s", text)
			}
		})
	}
}

// A line of a call costs no more than reading the caller and the metadata does.
func TestLog_Allocations(t *testing.T) {
	l := open(t, Config{Out: io.Discard, Key: []byte("key")})
	ctx := metadata.NewIncomingContext(t.Context(), metadata.Pairs("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
	call := upload
	call.Principal.ID = "consumer-1"
	if n := testing.AllocsPerRun(1000, func() { l.Ended(ctx, &call) }); n > 5 {
		t.Errorf("a line costs %v allocations, want at most 5", n)
	} else {
		t.Logf("a line costs %v allocations", n)
	}
}

// A disk that is full has calls refused or not, as the operator chose. Lines that the buffer has are written once it has space again.
func TestLog_FullDisk(t *testing.T) {
	for name, refuse := range map[string]bool{"refuse": true, "continue": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				out := &output{space: 450} // the line of the start, and a part of that of a call
				l := open(t, Config{Out: out, Refuse: refuse})
				changes := make(chan struct{}, 10)
				l.Watch(func() { changes <- struct{}{} })
				call := upload
				l.Ended(t.Context(), &call)
				<-changes
				if l.Usable() {
					t.Error("the stream is usable")
				}
				err := l.Accept()
				if share.Is(err, share.ServerDraining) != refuse {
					t.Errorf("a new call: %v", err)
				}
				if refuse {
					refused := upload
					refused.Refused = true
					l.Ended(t.Context(), &refused)
				}
				l.Ended(t.Context(), &call) // it ran already
				out.free()
				<-changes
				if err := l.Accept(); err != nil || !l.Usable() {
					t.Errorf("a call after that: %v", err)
				}
				synctest.Wait()
				l.Close(time.Minute)
				text := out.String()
				if n := len(lines(t, text, "call")); n != 2 || l.Lost() != 0 {
					t.Errorf("%d lines of calls, %d lost, want 2 and 0:\n%s", n, l.Lost(), text)
				}
				if gaps := lines(t, text, "gap"); refuse && (len(gaps) != 1 || gaps[0]["refused"] != 1.0 || gaps[0]["lost"] != 0.0) || !refuse && len(gaps) != 0 {
					t.Errorf("the gaps are %v", gaps)
				}
			})
		})
	}
}

// An output that stalls blocks no call. What does not fit in the buffer is counted, and Close ends.
func TestLog_StalledOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &output{space: -1, stalled: make(chan struct{})}
		l := open(t, Config{Out: out, Refuse: true})
		l.stream.max = 100 << 10
		call := upload
		call.Reason = strings.Repeat("x", 2<<10)
		accepted, n := 0, 0
		for ; l.Lost() == 0; n++ {
			if l.Accept() == nil {
				accepted++
			}
			l.Ended(t.Context(), &call)
		}
		if most := l.stream.max/2/len(call.Reason) + 1; accepted > most || n < 2*accepted-2 {
			t.Errorf("%d of %d calls were accepted, want at most %d: half of the buffer is for those that run", accepted, n, most)
		}
		go func() {
			time.Sleep(time.Minute)
			close(out.stalled)
		}()
		begun := time.Now()
		l.Close(time.Second)
		if took := time.Since(begun); took > time.Second {
			t.Errorf("Close took %v", took)
		}
		time.Sleep(2 * time.Minute)
		if gaps := lines(t, out.String(), "gap"); len(gaps) != 1 || gaps[0]["lost"].(float64) < 1 {
			t.Errorf("the gaps are %v", gaps)
		}
	})
}

// A file that is rotated while lines are written gets each of them once, all whole.
func TestLog_Reopen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "audit.log")
	l := open(t, Config{Path: path, Refuse: true})
	const calls, rotations = 200, 20 // fewer bytes than the buffer has
	var running sync.WaitGroup
	for range 4 {
		running.Go(func() {
			for i := range calls {
				call := upload
				call.Bytes = int64(i) + 1
				l.Ended(t.Context(), &call)
			}
		})
	}
	for i := range rotations {
		if err := os.Rename(path, fmt.Sprintf("%s.%d", path, i)); err != nil {
			t.Fatal(err)
		}
		if err := l.Reopen(); err != nil {
			t.Fatal(err)
		}
	}
	running.Wait()
	l.Close(time.Minute)
	files, err := filepath.Glob(path + "*")
	if err != nil || len(files) != rotations+1 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	found, times := 0, map[any]int{}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range lines(t, string(text), "call") {
			found++
			times[line["bytes"]]++
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 && runtime.GOOS != "windows" {
			t.Errorf("%v, %v", info.Mode(), err)
		}
	}
	if found != 4*calls || len(times) != calls || l.Lost() != 0 {
		t.Errorf("%d lines, %d lost, want %d", found, l.Lost(), 4*calls)
	}
}

// A line of which a full disk took only the begin is written whole to the next file.
func TestStream_ReplacesAFullFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		full, next := &output{space: 12}, &output{space: -1}
		s := newStream(notClosed{full}, func(to []byte, _, _ int64) []byte { return to }, slog.New(slog.DiscardHandler))
		for _, line := range []string{"first\n", "second line\n", "third\n"} {
			s.add([]byte(line))
			synctest.Wait()
		}
		s.replace(notClosed{next})
		synctest.Wait()
		if full.String() != "first\nsecond" || next.String() != "second line\nthird\n" || !s.isUsable() {
			t.Errorf("the full file has %q, the next one %q", full, next)
		}
		s.close(time.Minute)
	})
}

// A file that cannot be opened again leaves the previous one in use.
func TestLog_ReopenFails(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "folder", "audit.log")
	if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	l := open(t, Config{Path: path})
	kept := filepath.Join(dir, "kept")
	if err := os.Rename(filepath.Dir(path), kept); err != nil {
		t.Fatal(err)
	}
	if l.Reopen() == nil {
		t.Error("a file in a folder that does not exist was opened")
	}
	call := upload
	l.Ended(t.Context(), &call)
	l.Close(time.Minute)
	text, err := os.ReadFile(filepath.Join(kept, "audit.log"))
	if err != nil || len(lines(t, string(text), "call")) != 1 {
		t.Errorf("%v: %s", err, text)
	}
}

// A line without an end, which a full disk or a killed process leaves, does not damage the next one.
func TestOpen_UnfinishedLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	if err := os.WriteFile(path, []byte(`{"ts":"20`), 0o600); err != nil {
		t.Fatal(err)
	}
	l := open(t, Config{Path: path})
	l.Close(time.Minute)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	begin, rest, _ := strings.Cut(string(text), "\n")
	if begin != `{"ts":"20` || len(lines(t, rest, "start")) != 1 {
		t.Errorf("the file is\n%s", text)
	}
}

func TestOpen_NotAFile(t *testing.T) {
	if _, err := Open(Config{Path: t.TempDir()}); err == nil {
		t.Error("a folder was opened")
	}
}

// TestLog_RealFullDisk fills a small file system.
func TestLog_RealFullDisk(t *testing.T) {
	if runtime.GOOS != "linux" || os.Getuid() != 0 {
		t.Skip("mounting a small disk requires Linux and root")
	}
	disk := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk).CombinedOutput(); err != nil {
		t.Skipf("a small disk cannot be mounted here: %v %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", disk).CombinedOutput(); err != nil {
			t.Errorf("%v %s", err, out)
		}
	})
	filler := filepath.Join(disk, "filler")
	if err := os.WriteFile(filler, make([]byte, 40<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(disk, "audit.log")
	l := open(t, Config{Path: path, Refuse: true})
	changes := make(chan struct{}, 10)
	l.Watch(func() { changes <- struct{}{} })
	const calls = 90 // more than the disk has space for, and less than it has without the filler
	call := upload
	for range calls {
		l.Ended(t.Context(), &call)
	}
	<-changes
	if err := l.Accept(); !share.Is(err, share.ServerDraining) {
		t.Errorf("a call on a full disk: %v", err)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	<-changes
	if err := l.Accept(); err != nil {
		t.Errorf("a call on a disk with space: %v", err)
	}
	l.Close(time.Minute)
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(lines(t, string(text), "call")); n != calls || l.Lost() != 0 {
		t.Errorf("%d lines of %d calls, %d lost", n, calls, l.Lost())
	}
}

func TestLog_DeniedHandshakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &output{space: -1}
		l := open(t, Config{Out: out})
		for range 2 {
			for range 100 {
				l.HandshakeDenied("192.0.2.1:4711", errors.New("tls: "+strings.Repeat("x", 1000)))
			}
			time.Sleep(2 * time.Second)
		}
		l.HandshakeDenied("192.0.2.1:4711", io.ErrUnexpectedEOF)
		l.Close(time.Minute)
		text := out.String()
		denied, counted := lines(t, text, "handshake_denied"), lines(t, text, "handshakes_denied")
		if len(denied) != 2*maxDenied+1 || denied[0]["peer_ip"] != "192.0.2.1" || len(denied[0]["error"].(string)) > maxText {
			t.Errorf("%d lines, the first is %v", len(denied), denied[0])
		}
		if len(counted) != 2 || counted[0]["count"] != float64(100-maxDenied) {
			t.Errorf("the counts are %v", counted)
		}
	})
}

func TestLog_OtherEvents(t *testing.T) {
	out := &output{space: -1}
	l := open(t, Config{Out: out})
	l.Reloaded("accounts", "signal", nil)
	l.Reloaded("tls-cert", "signal", errors.New("a path"))
	l.Requested("admin", "127.0.0.1:4711", policy.Name{Kind: policy.CN, Value: "ops"}, "GET", "/metrics", 200, time.Second)
	l.Unseen(t.Context(), "FileSharingService/ListFiles", "127.0.0.1:4711", true)
	l.Close(time.Minute)
	for _, want := range []string{
		`"event":"reload","file":"accounts","by":"signal","result":"loaded"`, `"event":"reload","file":"tls-cert","by":"signal","result":"failed","server"`,
		`"event":"admin","listener":"admin","peer_ip":"127.0.0.1","caller":"cn:ops","method":"GET","path":"/metrics","status":200,"duration_ms":1000`,
		`"event":"call","method":"FileSharingService/ListFiles","code":"DeadlineExceeded","reason":"REQUEST_NOT_RECEIVED","peer_ip":"127.0.0.1"`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no line has %s:\n%s", want, out)
		}
	}
}

// The nil Log is that of a server without an audit stream.
func TestLog_Nil(t *testing.T) {
	var l *Log
	l.Reloaded("accounts", "signal", nil)
	l.HandshakeDenied("", nil)
	l.Watch(nil)
	if err := l.Reopen(); err != nil || !l.Usable() || l.Refuses() {
		t.Error("a server without an audit stream refuses calls")
	}
	l.Close(0)
}
