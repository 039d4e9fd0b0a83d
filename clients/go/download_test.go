package lpfileshare_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

var (
	byName = lpfileshare.DownloadOptions{Name: conversation + "/files/f"}
	broken = failure(codes.Unavailable, pb.ErrorReason_ERROR_REASON_STORAGE_TRUNCATED)
)

// giving is a fake whose first download is as first says, and whose later ones are faultless.
func giving(data []byte, first sending, requests *[]*pb.DownloadRequest) *fake {
	return &fake{download: func(n int, r *pb.DownloadRequest, s downloadStream) error {
		if requests != nil {
			*requests = append(*requests, r)
		}
		d := sending{}
		if n == 1 {
			d = first
		}
		d.data, d.etag = data, "e1"
		return d.send(r, s)
	}}
}

func TestDownloadGivesWhatIsStored(t *testing.T) {
	data := picture(5000)
	for _, tc := range []struct {
		name          string
		offset, limit int64
		want          []byte
	}{
		{"whole", 0, 0, data},
		{"from the middle", 2500, 0, data[2500:]},
		{"a part", 100, 50, data[100:150]},
		{"the end", -10, 0, data[4990:]},
		{"more than there is", 4000, 9000, data[4000:]},
	} {
		for name, first := range map[string]sending{"at once": {}, "in two": {breakAt: 1, failure: broken, chunk: 7}} {
			t.Run(tc.name+" "+name, func(t *testing.T) {
				c := start(t, giving(data, first, nil))
				o := byName
				o.Offset, o.Limit = tc.offset, tc.limit
				var header *pb.DownloadHeader
				o.OnHeader = func(h *pb.DownloadHeader) error { header = h; return nil }
				var received, total int64
				o.OnProgress = func(r, n int64) { received, total = r, n }
				var got bytes.Buffer
				result, err := c.Download(testContext(t), o, &got)
				if err != nil {
					t.Fatal(err)
				}
				sum := sha256.Sum256(tc.want)
				if !bytes.Equal(got.Bytes(), tc.want) || !bytes.Equal(result.Checksums.GetSha256(), sum[:]) || result.Bytes != int64(len(tc.want)) {
					t.Errorf("got %d bytes, result %v, want %d", got.Len(), result, len(tc.want))
				}
				if header.GetFile().GetName() != byName.Name || received != total || total != int64(len(tc.want)) {
					t.Errorf("header %v, progress %d of %d", header, received, total)
				}
			})
		}
	}
}

// Each break is followed by a call for exactly what is missing, of the same object.
func TestDownloadGoesOnWhereItBroke(t *testing.T) {
	data := picture(10_000)
	chunkOf := func(m *pb.DownloadResponse, offset int64) *pb.DataChunk {
		if c := m.GetChunk(); c != nil && c.GetOffset() == offset {
			return c
		}
		return nil
	}
	for _, tc := range []struct {
		name   string
		first  sending
		offset int64 // that the second call asks for
	}{
		{"unavailable", sending{breakAt: 3000, failure: broken}, 3000},
		{"before the first byte", sending{failure: broken, breakAt: 1, chunk: 1}, 1},
		{"reset by a proxy", sending{breakAt: 3000, failure: status.Error(codes.Internal, "RST_STREAM")}, 3000},
		{"ended as if complete", sending{skip: func(m *pb.DownloadResponse) bool {
			return m.GetTrailer() != nil || m.GetChunk().GetOffset() >= 3000
		}}, 3000},
		{"trailer too early", sending{skip: func(m *pb.DownloadResponse) bool { return m.GetChunk().GetOffset() >= 3000 }}, 3000},
		{"damaged", sending{mend: func(m *pb.DownloadResponse) {
			if c := chunkOf(m, 4000); c != nil {
				c.Data[17] ^= 1
			}
		}}, 4000},
		{"only the trailer is missing", sending{skip: func(m *pb.DownloadResponse) bool { return m.GetTrailer() != nil }}, 9999},
		{"refused after the trailer", sending{breakAt: -1, failure: broken}, 9999},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var requests []*pb.DownloadRequest
			c := start(t, giving(data, tc.first, &requests))
			var got bytes.Buffer
			result, err := c.Download(testContext(t), byName, &got)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), data) || result.Attempts != 2 || len(requests) != 2 {
				t.Fatalf("%d bytes after %d attempts", got.Len(), result.Attempts)
			}
			if r := requests[1]; r.GetReadOffset() != tc.offset || r.GetReadLimit() != 10_000-tc.offset || r.GetIfMatchEtag() != "e1" {
				t.Errorf("went on with %v, want offset %d", r, tc.offset)
			}
		})
	}
}

func TestDownloadSurvivesACutConnection(t *testing.T) {
	data := picture(2_000_000)
	var f *fake
	f = giving(data, sending{chunk: 50_000, before: func(at int64) {
		if at == 1_000_000 {
			time.Sleep(50 * time.Millisecond) // what was sent before gets there
			f.cut()
		}
	}}, nil)
	c := start(t, f)
	var got bytes.Buffer
	result, err := c.Download(testContext(t), byName, &got)
	if err != nil || !bytes.Equal(got.Bytes(), data) || result.Attempts != 2 {
		t.Errorf("%d bytes, result %v, error %v", got.Len(), result, err)
	}
}

// What contradicts itself is refused, and is never written.
func TestDownloadRefusesWhatIsWrong(t *testing.T) {
	data := picture(5000)
	for _, tc := range []struct {
		name, want string
		how        sending
	}{
		{"wrong offset", "where byte", sending{mend: func(m *pb.DownloadResponse) {
			if c := m.GetChunk(); c.GetOffset() == 2000 {
				c.Offset = 3000
			}
		}}},
		{"no checksum", "without a checksum", sending{mend: func(m *pb.DownloadResponse) {
			if c := m.GetChunk(); c != nil {
				c.Crc32C = nil
			}
		}}},
		{"more than announced", "more than the", sending{mend: func(m *pb.DownloadResponse) {
			if h := m.GetHeader(); h != nil {
				h.ContentRange.EndBytes = 4500
			}
		}}},
		{"no header", "before the header", sending{skip: func(m *pb.DownloadResponse) bool { return m.GetHeader() != nil }}},
		{"impossible range", "impossible range", sending{mend: func(m *pb.DownloadResponse) {
			if h := m.GetHeader(); h != nil {
				h.ContentRange.TotalBytes = 1
			}
		}}},
		{"other sums", "checksums", sending{mend: func(m *pb.DownloadResponse) {
			if x := m.GetTrailer(); x != nil {
				x.SentChecksums.Sha256[0] ^= 1
			}
		}}},
		{"no sums", "without checksums", sending{mend: func(m *pb.DownloadResponse) {
			if x := m.GetTrailer(); x != nil {
				x.SentChecksums = nil
			}
		}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := start(t, giving(data, tc.how, nil))
			var got bytes.Buffer
			_, err := c.Download(testContext(t), byName, &got)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
			if !bytes.HasPrefix(data, got.Bytes()) {
				t.Errorf("%d wrong bytes were written", got.Len())
			}
		})
	}
}

func TestDownloadReturnsThatTheFileChanged(t *testing.T) {
	c := start(t, &fake{download: func(n int, r *pb.DownloadRequest, s downloadStream) error {
		if n == 1 {
			return sending{data: picture(5000), etag: "e1", breakAt: 2000, failure: broken}.send(r, s)
		}
		return sending{data: picture(5000), etag: "e2"}.send(r, s)
	}})
	var got bytes.Buffer
	_, err := c.Download(testContext(t), byName, &got)
	if lpfileshare.ErrorReason(err) != pb.ErrorReason_ERROR_REASON_FILE_CHANGED || got.Len() != 2000 {
		t.Errorf("%d bytes, %v", got.Len(), err)
	}
}

func TestDownloadWithoutETagDoesNotGoOn(t *testing.T) {
	f := &fake{download: func(_ int, r *pb.DownloadRequest, s downloadStream) error {
		return sending{data: picture(5000), breakAt: 2000, failure: broken}.send(r, s)
	}}
	c := start(t, f)
	_, err := c.Download(testContext(t), byName, &bytes.Buffer{})
	if err == nil || !strings.Contains(err.Error(), "no ETag") || f.count("Download") != 1 {
		t.Errorf("%d attempts, %v", f.count("Download"), err)
	}
}

type limitedWriter struct{ left int }

var errFull = errors.New("disk full")

func (w *limitedWriter) Write(p []byte) (int, error) {
	if w.left -= len(p); w.left < 0 {
		return 0, errFull
	}
	return len(p), nil
}

func TestDownloadEndsWithTheCallersErrors(t *testing.T) {
	f := giving(picture(5000), sending{}, nil)
	c := start(t, f)
	if _, err := c.Download(testContext(t), byName, &limitedWriter{2500}); !errors.Is(err, errFull) {
		t.Errorf("writer: %v", err)
	}
	o, no := byName, errors.New("no thanks")
	o.OnHeader = func(*pb.DownloadHeader) error { return no }
	if _, err := c.Download(testContext(t), o, &limitedWriter{}); !errors.Is(err, no) {
		t.Errorf("OnHeader: %v", err)
	}
	if f.count("Download") != 2 {
		t.Errorf("%d calls", f.count("Download"))
	}
	for _, o := range []lpfileshare.DownloadOptions{{}, {Name: "n", StoragePath: "p"}, {StoragePath: "p"}, {Conversation: "c"}} {
		if _, err := c.Download(testContext(t), o, &limitedWriter{}); err == nil {
			t.Errorf("%+v was taken", o)
		}
	}
}

func TestDownloadFileIsWholeOrNotThere(t *testing.T) {
	data := picture(5000)
	ctx, cancel := context.WithCancel(testContext(t))
	for _, tc := range []struct {
		name      string
		how       sending
		exists    bool
		noReplace bool
		ctx       context.Context
		ok        bool
	}{
		{"new", sending{}, false, false, testContext(t), true},
		{"new, nothing to replace", sending{}, false, true, testContext(t), true},
		{"replaced", sending{}, true, false, testContext(t), true},
		{"not replaced", sending{}, true, true, testContext(t), false},
		{"failed", sending{breakAt: 2000, failure: failure(codes.DataLoss, pb.ErrorReason_ERROR_REASON_STORAGE_CORRUPTED)}, true, false, testContext(t), false},
		{"cancelled", sending{before: func(at int64) {
			if at == 2000 {
				cancel()
				time.Sleep(20 * time.Millisecond)
			}
		}}, false, false, ctx, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := start(t, giving(data, tc.how, nil))
			dir := t.TempDir()
			path := filepath.Join(dir, "f.jpg")
			if tc.exists {
				if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			_, err := c.DownloadFile(tc.ctx, byName, path, tc.noReplace)
			if (err == nil) != tc.ok {
				t.Fatalf("got %v", err)
			}
			if tc.name == "not replaced" && !errors.Is(err, fs.ErrExist) {
				t.Errorf("got %v", err)
			}
			var want []string
			content := data
			if tc.exists || tc.ok {
				want = []string{"f.jpg"}
			}
			if !tc.ok {
				content = []byte("old")
			}
			checkDir(t, dir, want)
			if got, err := os.ReadFile(path); len(want) == 1 && (err != nil || !bytes.Equal(got, content)) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
		})
	}
	c := start(t, &fake{})
	if _, err := c.DownloadFile(testContext(t), byName, t.TempDir(), false); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("onto a directory: %v", err)
	}
}

func TestDownloadFileDoesNotReplaceWhatComesUpMeanwhile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f.jpg")
	c := start(t, giving(picture(5000), sending{before: func(at int64) {
		if at == 2000 {
			os.WriteFile(path, []byte("new"), 0o600)
		}
	}}, nil))
	_, err := c.DownloadFile(testContext(t), byName, path, true)
	if got, _ := os.ReadFile(path); !errors.Is(err, fs.ErrExist) || string(got) != "new" {
		t.Errorf("%q, %v", got, err)
	}
	checkDir(t, filepath.Dir(path), []string{"f.jpg"})
}

func checkDir(t *testing.T, dir string, want []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("the directory holds %q, want %q", got, want)
	}
}
