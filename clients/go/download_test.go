package lpfileshare_test

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

var (
	byName = lpfileshare.DownloadOptions{Name: conversation + "/files/f"}
	broken = failure(codes.Unavailable, pb.ErrorReason_ERROR_REASON_STORAGE_TRUNCATED, retryAfter(0))
)

// giving is a fake whose first download has the faults of first, and whose later ones have none.
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

func TestDownload(t *testing.T) {
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
		for name, first := range map[string]sending{"in one call": {}, "in two calls": {breakAt: 1, failure: broken, chunk: 7}} {
			simulated(t, tc.name+" "+name, func(t *testing.T) {
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

// After each interruption the client requests exactly the missing bytes of the same object.
func TestDownload_ContinuesAfterInterruption(t *testing.T) {
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
		{"damaged", sending{change: func(m *pb.DownloadResponse) {
			if c := chunkOf(m, 4000); c != nil {
				c.Data[17] ^= 1
			}
		}}, 4000},
		{"only the trailer is missing", sending{skip: func(m *pb.DownloadResponse) bool { return m.GetTrailer() != nil }}, 9999},
		{"error after the trailer", sending{breakAt: -1, failure: broken}, 9999},
	} {
		simulated(t, tc.name, func(t *testing.T) {
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
				t.Errorf("continued with %v, want offset %d", r, tc.offset)
			}
		})
	}
}

func TestDownload_LostConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data := picture(2_000_000)
		var f *fake
		f = giving(data, sending{chunk: 50_000, before: func(at int64) {
			if at == 1_000_000 {
				synctest.Wait() // until the client has received what was sent
				f.cut()
			}
		}}, nil)
		c := start(t, f)
		var got bytes.Buffer
		result, err := c.Download(t.Context(), byName, &got)
		if err != nil || !bytes.Equal(got.Bytes(), data) || result.Attempts != 2 {
			t.Errorf("%d bytes, result %v, error %v", got.Len(), result, err)
		}
	})
}

// Bytes that fail a check are never written.
func TestDownload_RejectsInvalidResponse(t *testing.T) {
	data := picture(5000)
	for _, tc := range []struct {
		name, want string
		how        sending
	}{
		{"wrong offset", "instead of byte", sending{change: func(m *pb.DownloadResponse) {
			if c := m.GetChunk(); c.GetOffset() == 2000 {
				c.Offset = 3000
			}
		}}},
		{"no checksum", "without a checksum", sending{change: func(m *pb.DownloadResponse) {
			if c := m.GetChunk(); c != nil {
				c.Crc32C = nil
			}
		}}},
		{"more than announced", "more bytes than the", sending{change: func(m *pb.DownloadResponse) {
			if h := m.GetHeader(); h != nil {
				h.ContentRange.EndBytes = 4500
			}
		}}},
		{"no header", "before the header", sending{skip: func(m *pb.DownloadResponse) bool { return m.GetHeader() != nil }}},
		{"impossible range", "impossible range", sending{change: func(m *pb.DownloadResponse) {
			if h := m.GetHeader(); h != nil {
				h.ContentRange.TotalBytes = 1
			}
		}}},
		{"wrong checksum", "checksums", sending{change: func(m *pb.DownloadResponse) {
			if x := m.GetTrailer(); x != nil {
				x.SentChecksums.Crc32C = new(uint32(1))
			}
		}}},
		{"no checksums", "without a checksum", sending{change: func(m *pb.DownloadResponse) {
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
			if _, ok := errors.AsType[*lpfileshare.Error](err); !ok || status.Code(err) != codes.DataLoss {
				t.Errorf("%v is no Error of the code DATA_LOSS", err)
			}
			if !bytes.HasPrefix(data, got.Bytes()) {
				t.Errorf("%d wrong bytes were written", got.Len())
			}
		})
	}
}

// TestDownload_StoredMD5 compares a whole file with what the store states, and nothing else.
func TestDownload_StoredMD5(t *testing.T) {
	data := picture(5000)
	right, wrong := md5.Sum(data), md5.Sum(nil)
	part := byName
	part.Offset = 1
	for name, tc := range map[string]struct {
		options lpfileshare.DownloadOptions
		stated  []byte
		damaged bool
	}{
		"right":                {byName, right[:], false},
		"wrong":                {byName, wrong[:], true},
		"none":                 {byName, nil, false},
		"wrong, of a part":     {part, wrong[:], false},
		"right, in two pieces": {byName, right[:], false},
		"wrong, in two pieces": {byName, wrong[:], true},
	} {
		t.Run(name, func(t *testing.T) {
			first := sending{change: func(m *pb.DownloadResponse) {
				if h := m.GetHeader(); h != nil {
					h.StoredMd5 = tc.stated
				}
			}}
			if strings.HasSuffix(name, "pieces") {
				first.breakAt, first.failure = 2000, status.Error(codes.Unavailable, "broken")
			}
			c := start(t, giving(data, first, nil))
			var got bytes.Buffer
			_, err := c.Download(testContext(t), tc.options, &got)
			if damaged := status.Code(err) == codes.DataLoss; damaged != tc.damaged || !damaged && err != nil {
				t.Errorf("%d bytes, %v; want damage: %t", got.Len(), err, tc.damaged)
			}
		})
	}
}

func TestDownload_FileChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
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
	})
}

func TestDownload_WithoutETagDoesNotContinue(t *testing.T) {
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

func TestDownload_CallersErrors(t *testing.T) {
	f := giving(picture(5000), sending{}, nil)
	c := start(t, f)
	if _, err := c.Download(testContext(t), byName, &limitedWriter{2500}); !errors.Is(err, errFull) {
		t.Errorf("writer: %v", err)
	}
	o, no := byName, errors.New("not wanted")
	o.OnHeader = func(*pb.DownloadHeader) error { return no }
	if _, err := c.Download(testContext(t), o, &limitedWriter{}); !errors.Is(err, no) {
		t.Errorf("OnHeader: %v", err)
	}
	if f.count("Download") != 2 {
		t.Errorf("%d calls", f.count("Download"))
	}
	for _, o := range []lpfileshare.DownloadOptions{{}, {Name: "n", StoragePath: "p"}, {StoragePath: "p"}, {Conversation: "c"}} {
		if _, err := c.Download(testContext(t), o, &limitedWriter{}); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}

func TestDownloadFile_CompleteOrNothing(t *testing.T) {
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
		{"cancelled", sending{waitAt: 2000, before: func(at int64) {
			if at == 2000 {
				cancel()
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

func TestDownloadFile_CreatedMeanwhile(t *testing.T) {
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
		t.Errorf("the directory contains %q, want %q", got, want)
	}
}

func TestDownload_WantChecksums(t *testing.T) {
	data := picture(5000)
	for name, tc := range map[string]struct {
		change func(*pb.Checksums)
		want   string
	}{
		"right": {nil, ""},
		"wrong": {func(c *pb.Checksums) { c.Sha256[0] ^= 1 }, "checksums"},
		"none":  {func(c *pb.Checksums) { c.Sha256 = nil }, "without the requested SHA-256"},
	} {
		t.Run(name, func(t *testing.T) {
			c := start(t, giving(data, sending{change: func(m *pb.DownloadResponse) {
				if trailer := m.GetTrailer(); trailer != nil && tc.change != nil {
					tc.change(trailer.SentChecksums)
				}
			}}, nil))
			o := byName
			o.WantChecksums = []pb.ChecksumKind{pb.ChecksumKind_CHECKSUM_KIND_SHA256}
			result, err := c.Download(testContext(t), o, io.Discard)
			if tc.want == "" && (err != nil || len(result.Trailer.GetSentChecksums().GetSha256()) != sha256.Size) ||
				tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
				t.Errorf("%v, %v", result, err)
			}
		})
	}
}

func TestOpenDownload(t *testing.T) {
	simulated(t, "reads what is stored", func(t *testing.T) {
		data := picture(10_000)
		c := start(t, giving(data, sending{breakAt: 3000, failure: broken}, nil))
		o := byName
		var received, total int64
		o.OnProgress = func(r, n int64) { received, total = r, n }
		r, err := c.OpenDownload(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if got := r.Header().GetContentRange().GetTotalBytes(); got != 10_000 || r.Result() != nil {
			t.Errorf("header %v, result %v", r.Header(), r.Result())
		}
		if err := iotest.TestReader(r, data); err != nil {
			t.Error(err)
		}
		if result := r.Result(); result.Attempts != 2 || result.Bytes != 10_000 || received != 10_000 || total != 10_000 {
			t.Errorf("result %v, progress %d of %d", result, received, total)
		}
	})
	t.Run("empty file", func(t *testing.T) {
		r, err := start(t, giving(nil, sending{}, nil)).OpenDownload(testContext(t), byName)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if data, err := io.ReadAll(r); len(data) != 0 || err != nil || r.Result().Bytes != 0 {
			t.Errorf("%d bytes, %v", len(data), err)
		}
	})
	t.Run("not found", func(t *testing.T) {
		c := start(t, &fake{download: func(int, *pb.DownloadRequest, downloadStream) error {
			return failure(codes.NotFound, pb.ErrorReason_ERROR_REASON_FILE_NOT_FOUND)
		}})
		if r, err := c.OpenDownload(testContext(t), byName); r != nil || lpfileshare.ErrorReason(err) != pb.ErrorReason_ERROR_REASON_FILE_NOT_FOUND {
			t.Errorf("got %v, %v", r, err)
		}
	})
	t.Run("failed check comes before io.EOF", func(t *testing.T) {
		data := picture(5000)
		c := start(t, giving(data, sending{change: func(m *pb.DownloadResponse) {
			if trailer := m.GetTrailer(); trailer != nil {
				trailer.SentChecksums.Crc32C = new(uint32(1))
			}
		}}, nil))
		r, err := c.OpenDownload(testContext(t), byName)
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		got, err := io.ReadAll(r)
		if err == nil || !strings.Contains(err.Error(), "checksums") || !bytes.Equal(got, data) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		if _, again := r.Read(make([]byte, 1)); again != err || r.Result() != nil {
			t.Errorf("read again: %v, result %v", again, r.Result())
		}
	})
	t.Run("close ends the call", func(t *testing.T) {
		ended := make(chan struct{})
		c := start(t, &fake{download: func(_ int, r *pb.DownloadRequest, s downloadStream) error {
			defer close(ended)
			return sending{data: picture(5000), etag: "e", waitAt: 2000}.send(r, s)
		}})
		r, err := c.OpenDownload(testContext(t), byName)
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		<-ended
		if _, err := io.ReadAll(r); !errors.Is(err, context.Canceled) {
			t.Errorf("read after close: %v", err)
		}
	})
}
