// Package scan tests scanning for malware with Debian's clamd: what it reports is never stored, whatever happens to clamd, and what is
// clean is stored unchanged. `make test-scan` prints the time that scanning adds.
package scan

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/harness"
	"github.com/lpfileshare/lpfileshare/test/wire"
)

var (
	// program is the server, without the race detector.
	program harness.Program
	// frames are those of all sandboxes here.
	frames = wire.NewSuite("scan")
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m, frames, &program)) }

// A world is a sandbox, a server in front of it and a consumer.
type world struct {
	*testing.T
	sb     *sandbox.Sandbox
	server *harness.Server
	caller harness.Consumer
}

// newWorld starts a server that scans at an address, "": that does not scan.
func newWorld(t *testing.T, scanner string, args ...string) *world {
	t.Helper()
	w := &world{T: t, sb: harness.Sandbox(t, frames, sandbox.Options{})}
	args = append(slices.Concat(harness.Before(w.sb), []string{"--ledger=memory", "--documents", "--debug-listen=127.0.0.1:0"}), args...)
	if scanner != "" {
		args = append(args, "--scan="+scanner)
	}
	var err error
	if w.server, err = harness.Start(program, args...); err != nil {
		t.Fatal(err)
	}
	w.server.Stopped(t)
	if w.caller, err = harness.SignUpAndTalk(t.Context(), w.server.Dial(t), harness.Account); err != nil {
		t.Fatal(err)
	}
	return w
}

// options are those of one attempt to upload a file.
func (w *world) options(t pb.FileType) lpfileshare.UploadOptions {
	return lpfileshare.UploadOptions{
		Conversation: w.caller.Conversation, FileType: t, DisplayName: "file", RequestID: uuid.NewString(), RetryFor: -1,
	}
}

// upload makes one attempt.
func (w *world) upload(o lpfileshare.UploadOptions, data []byte) error {
	_, err := w.caller.Upload(w.Context(), o, bytes.NewReader(data))
	return err
}

// wantStored wants so many objects and messages in all.
func (w *world) wantStored(n int) {
	w.Helper()
	if j := w.sb.Journal(); len(j.Stored) != n || len(j.Published) != n {
		w.Errorf("%d objects, %d messages, want %d of each", len(j.Stored), len(j.Published), n)
	}
}

// wantRefused wants a reason with metadata, and nothing stored.
func (w *world) wantRefused(err error, reason pb.ErrorReason, metadata ...string) {
	w.Helper()
	w.wantReason(err, reason, metadata...)
	w.wantStored(0)
}

func (w *world) wantReason(err error, reason pb.ErrorReason, metadata ...string) {
	w.Helper()
	if got := lpfileshare.ErrorReason(err); got != reason {
		w.Errorf("got %v (%v), want %v", got, err, reason)
	}
	var info *errdetails.ErrorInfo
	for _, d := range status.Convert(err).Details() {
		if i, ok := d.(*errdetails.ErrorInfo); ok {
			info = i
		}
	}
	for i := 0; i < len(metadata); i += 2 {
		if got := info.GetMetadata()[metadata[i]]; got != metadata[i+1] {
			w.Errorf("%s is %q, want %q", metadata[i], got, metadata[i+1])
		}
	}
	_, retry := lpfileshare.RetryDelay(err)
	if want := reason == unavailable; retry != want {
		w.Errorf("RetryInfo: %v, want %v", retry, want)
	}
}

// scans returns the server's count of scans with a result.
func (w *world) scans(result string) int {
	w.Helper()
	resp, err := http.Get("http://" + w.server.Debug + "/debug/vars")
	if err != nil {
		w.Fatal(err)
	}
	defer resp.Body.Close()
	var vars struct{ Scans map[string]int }
	if err := json.NewDecoder(resp.Body).Decode(&vars); err != nil {
		w.Fatal(err)
	}
	return vars.Scans[result]
}

const (
	rejected    = pb.ErrorReason_ERROR_REASON_FILE_REJECTED_BY_SCANNER
	unavailable = pb.ErrorReason_ERROR_REASON_SCANNER_UNAVAILABLE

	jpegType = pb.FileType_FILE_TYPE_JPEG
	textType = pb.FileType_FILE_TYPE_TXT
	docxType = pb.FileType_FILE_TYPE_DOCX
)

// infectedPhoto returns a JPEG of about n bytes with the EICAR test file in a comment.
func infectedPhoto(t *testing.T, n int) []byte {
	t.Helper()
	photo := harness.Photo(t, 1, n)
	comment := append([]byte{0xFF, 0xFE, 0, byte(2 + len(eicar()))}, eicar()...)
	end := len(photo) - 2
	return slices.Concat(photo[:end], comment, photo[end:])
}

// infectedDocument returns a Word document with the EICAR test file in it, compressed.
func infectedDocument(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	for _, name := range []string{"[Content_Types].xml", "_rels/.rels", "word/main.xml"} {
		w, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(append(bytes.Repeat([]byte("<a>"), 1000), eicar()...)); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(b.Bytes(), eicar()) {
		t.Fatal("the document is not compressed")
	}
	return b.Bytes()
}

func TestScan_RefusesMalware(t *testing.T) {
	w := newWorld(t, startClamd(t).url(), "--max-file-bytes=5MB")
	for _, f := range []struct {
		name string
		typ  pb.FileType
		data []byte
	}{
		{"the EICAR test file", textType, eicar()},
		{"in 3 MB of text", textType, append(harness.Text(1, 3_000_000-100), eicar()...)},
		{"in a comment of a JPEG", jpegType, infectedPhoto(t, 200_000)},
		{"compressed in a document", docxType, infectedDocument(t)},
	} {
		t.Run(f.name, func(t *testing.T) {
			w := &world{T: t, sb: w.sb, server: w.server, caller: w.caller}
			o := w.options(f.typ)
			for range 2 { // a repeat gets the same answer
				w.wantRefused(w.upload(o, f.data), rejected, "why", "malware", "signature", signature, "part", "file")
			}
			_, err := w.caller.Raw().Files.UploadSmallFile(t.Context(), &pb.UploadSmallFileRequest{
				Spec: &pb.UploadSpec{Conversation: w.caller.Conversation, FileType: f.typ, DisplayName: "file"}, Data: f.data,
			})
			w.wantRefused(err, rejected, "signature", signature)
		})
	}
	t.Run("in the preview", func(t *testing.T) {
		w := &world{T: t, sb: w.sb, server: w.server, caller: w.caller}
		o := w.options(jpegType)
		o.Preview = harness.Preview(string(eicar()), 1000)
		w.wantRefused(w.upload(o, harness.Photo(t, 1, 5_000)), rejected, "why", "malware", "part", "preview")
	})
	t.Run("more than StreamMaxLength", func(t *testing.T) {
		w := &world{T: t, sb: w.sb, server: w.server, caller: w.caller}
		w.wantRefused(w.upload(w.options(textType), harness.Text(1, maxStream+100_000)), rejected, "why", "size")
	})
}

// What is scanned is what is stored.
func TestScan_StrippedPhotoIsClean(t *testing.T) {
	w := newWorld(t, startClamd(t).url())
	o := w.options(jpegType)
	o.Image = &pb.ImageOptions{StripMetadata: true}
	if err := w.upload(o, infectedPhoto(t, 200_000)); err != nil {
		t.Error(err)
	}
	w.wantStored(1)
}

// What another program has stored is not sent if clamd rejects it, or gives no verdict; what is clean is sent unchanged.
func TestScan_Downloads(t *testing.T) {
	w := newWorld(t, "") // stores without a scan, as other programs do
	store := func(data []byte) (name string) {
		resp, err := w.caller.Upload(t.Context(), w.options(jpegType), bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetFile().GetName()
	}
	photo := harness.Photo(t, 1, 2_900_000)
	clean, infected := store(photo), store(infectedPhoto(t, 200_000))
	clamd := startClamd(t)
	scanning, err := harness.Start(program, append(harness.Before(w.sb), "--ledger=memory", "--scan="+clamd.url(), "--scan-downloads")...)
	if err != nil {
		t.Fatal(err)
	}
	scanning.Stopped(t)
	caller := scanning.Dial(t).As(w.caller.Credential())
	download := func(name string, offset int64) ([]byte, error) {
		var got bytes.Buffer
		_, err := caller.Download(t.Context(), lpfileshare.DownloadOptions{Name: name, Offset: offset, RetryFor: -1}, &got)
		return got.Bytes(), err
	}
	for _, offset := range []int64{0, 100_000} {
		if got, err := download(clean, offset); err != nil || !bytes.Equal(got, photo[offset:]) {
			t.Errorf("the clean file from %d: %d bytes, %v", offset, len(got), err)
		}
		got, err := download(infected, offset)
		w.wantReason(err, rejected, "why", "malware", "signature", signature, "part", "file")
		if len(got) > 0 {
			t.Errorf("%d bytes of the infected file were sent", len(got))
		}
	}
	clamd.kill()
	got, err := download(clean, 0)
	w.wantReason(err, unavailable, "why", "unreachable")
	if len(got) > 0 {
		t.Errorf("%d bytes were sent without a verdict", len(got))
	}
}

func TestScan_CleanFilesAreUnchanged(t *testing.T) {
	w := newWorld(t, startClamd(t).url())
	for i, f := range []struct {
		typ  pb.FileType
		data []byte
	}{
		{jpegType, harness.Photo(t, 1, 3_000_000)}, {jpegType, harness.Photo(t, 1, 64<<10)}, {textType, harness.Text(1, 1)},
		{docxType, harness.OfficeDocument("word")}, {pb.FileType_FILE_TYPE_GIF, harness.TinyGIF()},
	} {
		resp, err := w.caller.Upload(t.Context(), w.options(f.typ), bytes.NewReader(f.data))
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if _, err := w.caller.Download(t.Context(), lpfileshare.DownloadOptions{Name: resp.GetFile().GetName()}, &got); err != nil || !bytes.Equal(got.Bytes(), f.data) {
			t.Errorf("file %d: %v, or other bytes", i, err)
		}
	}
	w.wantStored(5)
	if n := w.scans("clean"); n != 5 {
		t.Errorf("%d clean scans, want 5", n)
	}
}

// begin sends the first part of a file whose size is declared, and returns when the store and clamd have got some of it.
func (w *world) begin(data []byte, part int) pb.FileSharingService_UploadClient {
	w.Helper()
	stream, err := w.caller.Raw().Files.Upload(w.Context())
	if err != nil {
		w.Fatal(err)
	}
	spec := &pb.UploadSpec{Conversation: w.caller.Conversation, FileType: textType, DisplayName: "file", SizeBytes: proto.Int64(int64(len(data))), RequestId: uuid.NewString()}
	if err := stream.Send(&pb.UploadRequest{FirstMessage: &pb.UploadRequest_Spec{Spec: spec}}); err != nil {
		w.Fatal(err)
	}
	w.send(stream, data, 0, part)
	if _, err := stream.Header(); err != nil {
		w.Fatal(err)
	}
	return stream
}

// send sends the bytes of a file from one offset to another. An error of the call is that of its end.
func (w *world) send(stream pb.FileSharingService_UploadClient, data []byte, from, to int) {
	for off := from; off < to; off += 64 << 10 {
		chunk := &pb.DataChunk{Offset: int64(off), Data: data[off:min(off+64<<10, to)]}
		if stream.Send(&pb.UploadRequest{Chunk: chunk}) != nil {
			return
		}
	}
}

func (w *world) finish(stream pb.FileSharingService_UploadClient) error {
	_ = stream.Send(&pb.UploadRequest{Finish: &pb.UploadFinish{}})
	_, err := stream.CloseAndRecv()
	return err
}

// clamd ends in mid-upload, and is not there for the next one either.
func TestScan_ClamdEnds(t *testing.T) {
	for _, content := range []string{"malware", "clean"} {
		t.Run(content, func(t *testing.T) {
			c := startClamd(t)
			p := startProxy(t, c, 0) // which shows when clamd gets the bytes
			w := newWorld(t, p.url())
			before := p.scans()
			data := harness.Text(1, 2_000_000)
			if content == "malware" {
				copy(data, eicar())
			}
			stream := w.begin(data, 1_000_000)
			harness.Eventually(t, "the scan has begun", func() bool { return p.scans() > before })
			c.kill()
			w.send(stream, data, 1_000_000, len(data))
			w.wantRefused(w.finish(stream), unavailable, "why", "failed")
			p.listener.Close()
			w.wantRefused(w.upload(w.options(textType), data), unavailable, "why", "unreachable")
		})
	}
}

// A clamd that stops answers nobody. When it continues the same request id succeeds, or is refused for what it is.
func TestScan_ClamdIsSlow(t *testing.T) {
	c := startClamd(t)
	w := newWorld(t, c.url(), "--scan-timeout=5s")
	clean, dirty := w.options(textType), w.options(textType)
	c.signal(syscall.SIGSTOP)
	w.wantRefused(w.upload(clean, harness.Text(1, 1_000_000)), unavailable, "why", "timeout")
	w.wantRefused(w.upload(dirty, eicar()), unavailable, "why", "timeout")
	c.signal(syscall.SIGCONT)
	retry := func(o lpfileshare.UploadOptions, data []byte) error {
		o.RetryFor = time.Minute
		return w.upload(o, data)
	}
	w.wantRefused(retry(dirty, eicar()), rejected, "signature", signature)
	if err := retry(clean, harness.Text(1, 1_000_000)); err != nil {
		t.Error(err)
	}
	w.wantStored(1)
}

// A slow connection to clamd slows down neither the client nor the store, and a connection that breaks once is made again.
func TestScan_SlowAndCutConnections(t *testing.T) {
	c := startClamd(t)
	for name, cuts := range map[string][]int{"slow": nil, "cut": {500_000}} {
		t.Run(name, func(t *testing.T) {
			p := startProxy(t, c, 2*time.Millisecond, cuts...)
			w := newWorld(t, p.url())
			w.wantRefused(w.upload(w.options(textType), append(harness.Text(1, 1_000_000), eicar()...)), rejected, "signature", signature)
			if want := 1 + len(cuts); p.scans() != want {
				t.Errorf("%d scans, want %d", p.scans(), want)
			}
			if err := w.upload(w.options(textType), harness.Text(2, 1_000_000)); err != nil {
				t.Error(err)
			}
			w.wantStored(1)
			p.listener.Close()
		})
	}
}

// With --scan-fail-open a clamd that is not there stops no file, which is logged and counted. What clamd reports is rejected.
func TestScan_FailOpen(t *testing.T) {
	c := startClamd(t)
	w := newWorld(t, c.url(), "--scan-fail-open")
	w.wantRefused(w.upload(w.options(textType), eicar()), rejected)
	c.kill()
	if err := w.upload(w.options(textType), harness.Text(1, 1000)); err != nil {
		t.Error(err)
	}
	w.wantStored(1)
	if err := w.server.Logs.Wait(t.Context(), 1, "accepted without a scan"); err != nil {
		t.Error(err)
	}
	if n := w.scans("unscanned"); n != 1 {
		t.Errorf("%d unscanned files are counted, want 1", n)
	}
}

// TestAddedTime prints how much longer uploads of 3 MB take with a scan, and how long clamd takes for such files without a server, in
// turns.
func TestAddedTime(t *testing.T) {
	const rounds = 15
	c := startClamd(t)
	with, without := newWorld(t, c.url()), newWorld(t, "")
	uploaded := func(w *world, typ pb.FileType, data []byte) func() error {
		return func() error { return w.upload(w.options(typ), data) }
	}
	for _, content := range []struct {
		name string
		typ  pb.FileType
		data func(seed uint64) []byte
	}{
		{"JPEG", jpegType, func(seed uint64) []byte { return harness.Photo(t, seed, 3_000_000) }},
		{"text", textType, func(seed uint64) []byte { return harness.Text(seed, 3_000_000) }},
	} {
		var times [3][]time.Duration
		for i := range uint64(rounds + 1) {
			data, other := content.data(i), content.data(i+rounds+1) // clamd remembers what it has found clean
			for way, send := range []func() error{
				uploaded(with, content.typ, data), uploaded(without, content.typ, data), func() error { return c.stream(other) },
			} {
				begun := time.Now()
				if err := send(); err != nil {
					t.Fatal(err)
				}
				if i > 0 { // the first ones open connections
					times[way] = append(times[way], time.Since(begun))
				}
			}
		}
		median := func(way int) time.Duration {
			slices.Sort(times[way])
			return times[way][rounds/2].Round(100 * time.Microsecond)
		}
		t.Logf("%s, 3,000,000 bytes, median of %d: upload with a scan %v, without %v, added %v; clamd alone %v", content.name, rounds, median(0), median(1),
			median(0)-median(1), median(2))
	}
}
