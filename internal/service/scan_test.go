package service

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/uuid"
	"google.golang.org/protobuf/proto"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A fakeScanner is a Scanner that passes everything, unless judge says otherwise.
type fakeScanner struct {
	// judge is called with what was read so far of a part, and whether that is all. An error is the verdict.
	judge func(part string, read []byte, all bool) error

	mu  sync.Mutex
	got map[string][]byte // by part, of the scans that have read everything
}

func (s *fakeScanner) Scan(ctx context.Context, job share.ScanJob) error {
	body := job.Open(ctx)
	defer body.Close()
	var read []byte
	for {
		parts, err := body.ReadBuffers(10_000)
		for _, p := range parts {
			read = append(read, p...)
		}
		if err != nil && err != io.EOF {
			return err
		}
		if s.judge != nil {
			if verdict := s.judge(job.Part, read, err == io.EOF); verdict != nil {
				return verdict
			}
		}
		if err == io.EOF {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.got == nil {
				s.got = make(map[string][]byte)
			}
			s.got[job.Part] = read
			return job.Arrived(ctx)
		}
	}
}

func (s *fakeScanner) scanned(part string) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got[part]
}

func newScannedHarness(t *testing.T, s *fakeScanner, change ...func(*Config)) *harness {
	t.Helper()
	h := newHarness(t, change...)
	h.server.uploads.Scanner = s
	return h
}

// malware is the verdict on content that contains it.
func malware(_ string, read []byte, all bool) error {
	if all && bytes.Contains(read, []byte("malware")) {
		return share.Reject(share.FileRejectedByScanner, "the malware scanner found Test; nothing was stored").With("why", "malware", "signature", "Test")
	}
	return nil
}

// infected returns n bytes of a JPEG with malware from off on.
func infected(n, off int) []byte {
	b := picture(n)
	copy(b[off:], "malware")
	return b
}

// A rejected file is not stored. The record of its request id ends as with any other rejection of content: a repeat is scanned again.
func TestScan_RejectsTheFile(t *testing.T) {
	for name, change := range map[string]func(*pb.UploadSpec){
		"declared": func(*pb.UploadSpec) {}, "undeclared": undeclared, "store only": storeOnly,
	} {
		t.Run(name, inBubble(func(t *testing.T) {
			s := &fakeScanner{judge: malware}
			h := newScannedHarness(t, s)
			b, id := infected(200_000, 200_000-7), uuid.NewString()
			for range 2 {
				_, err := h.upload(h.alice(), whole(spec(b, change, withID(id)), b, 64<<10)...)
				if info := wantError(t, err, share.FileRejectedByScanner); info.GetMetadata()["signature"] != "Test" {
					t.Errorf("the metadata is %v", info.GetMetadata())
				}
				h.wantNothingStored(len(b))
				up, err := h.files.GetUpload(h.alice(), &pb.GetUploadRequest{Name: uploadName(account, id)})
				if err != nil || up.GetUpload().GetState() != pb.UploadState_UPLOAD_STATE_FAILED ||
					up.GetUpload().GetFailure().GetReason() != pb.ErrorReason_ERROR_REASON_FILE_REJECTED_BY_SCANNER {
					t.Errorf("GetUpload returned %v, %v", up, err)
				}
			}
			s.judge = nil // such as after a false alarm was corrected
			if _, err := h.upload(h.alice(), whole(spec(b, change, withID(id)), b, 64<<10)...); err != nil || h.store.stored() != 1 {
				t.Errorf("%v, %s", err, h.storedAndPublished())
			}
		}))
	}
}

func TestScan_RejectsASmallFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newScannedHarness(t, &fakeScanner{judge: malware})
		b := infected(1000, 500)
		_, err := h.files.UploadSmallFile(h.alice(), &pb.UploadSmallFileRequest{Spec: spec(b), Data: b})
		wantError(t, err, share.FileRejectedByScanner)
		h.wantNothingStored(len(b))
	})
}

// The store gets everything but the last byte while the scanner takes its time.
func TestScan_HoldsTheLastByteBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		verdict := make(chan struct{})
		s := &fakeScanner{judge: func(_ string, _ []byte, all bool) error {
			if all {
				<-verdict
			}
			return nil
		}}
		h := newScannedHarness(t, s)
		b := picture(200_000)
		result := make(chan error, 1)
		go func() {
			_, err := h.upload(h.alice(), whole(spec(b), b, 64<<10)...)
			result <- err
		}()
		synctest.Wait()
		h.wantLastByteHeldBack(len(b))
		if got := h.storedAndPublished(); got != "0 objects, 0 messages" {
			t.Errorf("there are %s before the verdict", got)
		}
		if p := h.store.recordedPuts(); len(p) != 1 || len(p[0].got) != len(b)-1 {
			t.Errorf("%d PUTs", len(p))
		}
		close(verdict)
		if err := <-result; err != nil {
			t.Fatal(err)
		}
		h.wantPublished(b)
		if !bytes.Equal(s.scanned("file"), b) {
			t.Error("other bytes were scanned")
		}
	})
}

// A verdict before the last byte has arrived ends the upload.
func TestScan_RejectsEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeScanner{judge: func(_ string, read []byte, _ bool) error {
			if len(read) >= 10_000 {
				return share.Reject(share.ScannerUnavailable, "the malware scanner gave no verdict").With("why", "unreachable")
			}
			return nil
		}}
		h := newScannedHarness(t, s)
		b := picture(200_000)
		stream := h.begin(h.alice(), spec(b))
		if err := stream.Send(chunk(0, b[:20_000])); err != nil {
			t.Fatal(err)
		}
		err := stream.RecvMsg(new(pb.UploadResponse)) // the client has not finished
		wantError(t, err, share.ScannerUnavailable)
		h.wantNothingStored(len(b))
		if h.server.Rejections.Counts()["SCANNER_UNAVAILABLE"] != 1 {
			t.Errorf("the counts are %v", h.server.Rejections.Counts())
		}
	})
}

// What is scanned is what is stored: a file that is changed is scanned after that.
func TestScan_ScansWhatIsStored(t *testing.T) {
	t.Run("clean as stored", inBubble(func(t *testing.T) {
		s := &fakeScanner{judge: malware}
		h := newScannedHarness(t, s, fitting)
		b := infected(500_000, 400_000) // fakeImages stores the first half
		h.put(b, fit)
		h.wantPublished(b[:250_000])
		if !bytes.Equal(s.scanned("file"), b[:250_000]) {
			t.Errorf("%d bytes were scanned, which are not those that were stored", len(s.scanned("file")))
		}
	}))
	for name, change := range map[string]func(*pb.UploadSpec){"fit": fit, "strip": strip} {
		t.Run("malware as stored, "+name, inBubble(func(t *testing.T) {
			h := newScannedHarness(t, &fakeScanner{judge: malware}, fitting)
			b := infected(500_000, 100_000)
			_, err := h.upload(h.alice(), whole(spec(b, change), b, 64<<10)...)
			wantError(t, err, share.FileRejectedByScanner)
			h.wantNothingStored(250_000)
		}))
	}
}

// givenPreview gives an upload a preview.
func givenPreview(content string) func(*pb.UploadSpec) {
	return func(s *pb.UploadSpec) {
		uri := "data:image/png;base64," + base64.StdEncoding.EncodeToString([]byte(content))
		s.Preview = &pb.Preview{Source: &pb.Preview_DataUri{DataUri: uri}}
	}
}

// The preview that the client sends is published as it is, so it is scanned. One that the server generates is not.
func TestScan_ScansTheClientsPreview(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeScanner{judge: malware}
		h := newScannedHarness(t, s)
		b := picture(1000)
		_, err := h.upload(h.alice(), whole(spec(b, givenPreview("a malware preview")), b, 64<<10)...)
		wantError(t, err, share.FileRejectedByScanner)
		h.wantNothingStored(len(b))
		_, err = h.upload(h.alice(), whole(spec(b, strip, givenPreview("malware that is half of it")), b, 64<<10)...)
		wantError(t, err, share.FileRejectedByScanner)
		h.wantNothingStored(len(b))
		h.put(b, strip, givenPreview("stripped: malware")) // fakeImages removes the second half
		if got := s.scanned("preview"); string(got) != "stripped" {
			t.Errorf("%q was scanned", got)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s := &fakeScanner{}
		h := newScannedHarness(t, s)
		h.put(picture(1000), func(s *pb.UploadSpec) { s.Preview = &pb.Preview{Source: &pb.Preview_Generate{Generate: true}} })
		if s.scanned("preview") != nil || s.scanned("file") == nil {
			t.Error("not only the file was scanned")
		}
	})
}

// The preview and the file are scanned at once, and the time limits of both begin with the last byte of the file. The first that is rejected
// ends the scan of the other.
func TestScan_PreviewAndFileAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began, arrived, rejected := make(chan string, 2), make(chan string, 2), make(chan struct{})
		h := newHarness(t)
		h.server.uploads.Scanner = scannerFunc(func(ctx context.Context, job share.ScanJob) error {
			began <- job.Part
			if err := job.Arrived(ctx); err != nil {
				return err
			}
			arrived <- job.Part
			if job.Part == "file" {
				<-ctx.Done()
				return context.Cause(ctx)
			}
			<-rejected
			return share.Reject(share.FileRejectedByScanner, "the malware scanner found Test; nothing was stored")
		})
		b := picture(200_000)
		stream := h.begin(h.alice(), spec(b, givenPreview("a preview")))
		if err := stream.Send(chunk(0, b[:20_000])); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(began) != 2 || len(arrived) != 0 {
			t.Errorf("%d scans began and %d arrived before the last byte", len(began), len(arrived))
		}
		if err := errors.Join(stream.Send(chunk(20_000, b[20_000:])), stream.Send(finish()), stream.CloseSend()); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if len(arrived) != 2 {
			t.Errorf("%d of 2 have arrived", len(arrived))
		}
		close(rejected)
		wantError(t, stream.RecvMsg(new(pb.UploadResponse)), share.FileRejectedByScanner)
		h.wantNothingStored(len(b))
	})
}

// A PUT that fails ends the wait for the verdict.
func TestScan_StoreFailsBeforeTheVerdict(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.server.uploads.Scanner = scannerFunc(func(ctx context.Context, _ share.ScanJob) error {
			<-ctx.Done()
			return context.Cause(ctx)
		})
		b, fail := picture(1000), make(chan struct{})
		h.store.midway = func(int, int) error {
			<-fail
			return share.Reject(share.FileTooLarge, "the store's limit")
		}
		result := make(chan error, 1)
		go func() {
			_, err := h.upload(h.alice(), whole(spec(b), b, 64<<10)...)
			result <- err
		}()
		synctest.Wait() // for the scan
		begun := time.Now()
		close(fail)
		wantError(t, <-result, share.FileTooLarge)
		if d := time.Since(begun); d > 0 {
			t.Errorf("the upload waited %v", d)
		}
	})
}

// A fault of the scanner's code rejects the file.
func TestScan_PanicRejects(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newScannedHarness(t, &fakeScanner{judge: func(string, []byte, bool) error { panic("a fault") }})
		b := picture(1000)
		_, err := h.upload(h.alice(), whole(spec(b), b, 64<<10)...)
		wantError(t, err, share.Internal)
		h.wantNothingStored(len(b))
	})
}

// The end of the call ends the scan, and nothing is stored.
func TestScan_EndsWithTheCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		waiting := make(chan struct{})
		h := newHarness(t)
		h.server.uploads.Scanner = scannerFunc(func(ctx context.Context, _ share.ScanJob) error {
			close(waiting)
			<-ctx.Done()
			return context.Cause(ctx)
		})
		b := picture(1000)
		ctx, cancel := context.WithCancel(h.alice())
		result := make(chan error, 1)
		go func() {
			_, err := h.upload(ctx, whole(spec(b), b, 64<<10)...)
			result <- err
		}()
		<-waiting
		cancel()
		if <-result == nil {
			t.Error("the upload succeeded")
		}
		time.Sleep(time.Second)
		h.wantNothingStored(len(b))
	})
}

type scannerFunc func(context.Context, share.ScanJob) error

func (f scannerFunc) Scan(ctx context.Context, job share.ScanJob) error { return f(ctx, job) }

// newScannedDownloads returns a harness whose downloads are scanned.
func newScannedDownloads(t *testing.T, judge func(part string, read []byte, all bool) error, change ...func(*Config)) (*harness, *fakeScanner) {
	t.Helper()
	s := &fakeScanner{judge: judge}
	h := newHarness(t, append(change, func(c *Config) {
		c.ScanDownloads = true
		c.DownloadMemory = 4 * (c.Settings(account).MaxFileBytes + admission.BlockBytes + admission.MinDownloadBytes)
	})...)
	h.server.ports.Scanner = s
	return h, s
}

// A file is scanned whole before its first byte is sent, whichever part is asked for, and sent as without a scanner.
func TestScanDownload_SendsCleanFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s := newScannedDownloads(t, malware)
		b := picture(200_000)
		name := h.addFile(path("a"), b)
		for _, c := range []struct{ offset, limit, start, end int64 }{
			{0, 0, 0, 200_000}, {150_000, 0, 150_000, 200_000}, {65_536, 1000, 65_536, 66_536}, {-10, 0, 199_990, 200_000},
		} {
			s.got = nil
			req := byName(name)
			req.ReadOffset, req.ReadLimit = c.offset, c.limit
			got, header, trailer, err := h.download(h.alice(), req)
			if err != nil || !bytes.Equal(got, b[c.start:c.end]) {
				t.Fatalf("%v: %d bytes, %v", c, len(got), err)
			}
			if r := header.GetContentRange(); r.GetStartBytes() != c.start || r.GetEndBytes() != c.end || r.GetTotalBytes() != 200_000 {
				t.Errorf("%v: the header has %v", c, r)
			}
			if !proto.Equal(trailer.GetSentChecksums(), sumsOf(b[c.start:c.end])) {
				t.Errorf("%v: the trailer has %v", c, trailer)
			}
			if !bytes.Equal(s.scanned("file"), b) {
				t.Errorf("%v: %d bytes were scanned", c, len(s.scanned("file")))
			}
		}
		if _, _, _, err := h.download(h.alice(), byName(h.addFile(path("empty"), nil))); err != nil {
			t.Errorf("an empty file: %v", err)
		}
		req := byName(name)
		req.ReadOffset = 200_000
		_, _, _, err := h.download(h.alice(), req)
		wantError(t, err, share.RangeNotSatisfiable)
	})
}

// No byte and no header of a file is sent that the scanner rejects, that it gives no verdict on, or that is too large to be scanned. Nor of a
// part of it that is clean by itself.
func TestScanDownload_Rejects(t *testing.T) {
	unavailable := func(string, []byte, bool) error {
		return share.Reject(share.ScannerUnavailable, "the malware scanner gave no verdict").With("why", "unreachable")
	}
	for name, c := range map[string]struct {
		judge func(string, []byte, bool) error
		file  []byte
		want  share.Kind
	}{
		"malware":    {malware, infected(200_000, 199_990), share.FileRejectedByScanner},
		"no verdict": {unavailable, picture(1000), share.ScannerUnavailable},
		"too large":  {malware, picture(300_001), share.FileRejectedByScanner},
		"panic":      {func(string, []byte, bool) error { panic("a fault") }, picture(1000), share.Internal},
	} {
		t.Run(name, inBubble(func(t *testing.T) {
			h, s := newScannedDownloads(t, c.judge)
			file := h.addFile(path("a"), c.file)
			for _, offset := range []int64{0, 10} {
				req := byName(file)
				req.ReadOffset, req.ReadLimit = offset, 100
				got, header, _, err := h.download(h.alice(), req)
				if wantError(t, err, c.want); len(got) > 0 || header != nil {
					t.Errorf("from %d: %d bytes, header %v", offset, len(got), header)
				}
			}
			s.judge = nil
			if len(c.file) > 300_000 {
				return
			}
			if _, _, _, err := h.download(h.alice(), byName(file)); err != nil {
				t.Errorf("once the scanner accepts it: %v", err)
			}
		}))
	}
}

// A file in memory counts against the budget of downloads until its download ends.
func TestScanDownload_CountsMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		scanning, verdict := make(chan struct{}, 10), make(chan struct{})
		h, _ := newScannedDownloads(t, func(_ string, _ []byte, all bool) error {
			if all {
				scanning <- struct{}{}
				<-verdict
			}
			return nil
		})
		b := picture(200_000)
		name := h.addFile(path("a"), b)
		results := make(chan error, 3)
		for range 3 {
			go func() {
				_, _, _, err := h.download(h.alice(), byName(name))
				results <- err
			}()
		}
		wantError(t, <-results, share.TooManyStreams) // a caller may have half of the memory
		used := h.server.DownloadMemory - h.server.Usage().Downloads.FreeBytes
		if file := int64(4 * admission.BlockBytes); len(scanning) != 2 || used != 2*(file+admission.MinDownloadBytes) {
			t.Errorf("%d downloads use %d bytes", len(scanning), used)
		}
		close(verdict)
		for range 2 {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		h.eventually("the memory is free", func() bool { return h.server.Usage().Downloads.FreeBytes == h.server.DownloadMemory })
	})
}

// A store that ends the transfer early is read on, and the whole file is scanned.
func TestScanDownload_ResumesBeforeTheScan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, s := newScannedDownloads(t, malware)
		b := picture(200_000)
		name := h.addFile(path("a"), b)
		h.store.breaks = []int{70_000, -1}
		got, _, _, err := h.download(h.alice(), byName(name))
		if err != nil || !bytes.Equal(got, b) || !bytes.Equal(s.scanned("file"), b) {
			t.Errorf("%d bytes, %d scanned, %v", len(got), len(s.scanned("file")), err)
		}
	})
}
