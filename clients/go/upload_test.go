package lpfileshare_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/google/uuid"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

const conversation = "accounts/12345678/conversations/c1"

var jpeg = lpfileshare.UploadOptions{Conversation: conversation, DisplayName: "cat.jpg", FileType: pb.FileType_FILE_TYPE_JPEG}

// keep accepts every upload and stores the last one.
func keep(into *received) func(int, uploadStream) error {
	return func(_ int, s uploadStream) error {
		r, err := receiveAll(s)
		if err != nil {
			return err
		}
		*into = *r
		return r.answer(s)
	}
}

func TestUpload(t *testing.T) {
	for _, size := range []int{1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 3_000_000} {
		for _, kind := range []string{"bytes.Reader", "file", "buffer", "ReaderAt", "pipe", "one byte at a time"} {
			if size > 100_000 && kind == "one byte at a time" {
				continue
			}
			t.Run(fmt.Sprint(kind, " ", size), func(t *testing.T) {
				var got received
				c := start(t, &fake{upload: keep(&got)})
				data := picture(size)
				twice := kind != "pipe" && kind != "one byte at a time"
				var last, total int64
				o := jpeg
				o.OnProgress = func(s, n int64) { last, total = s, n }
				resp, err := c.Upload(testContext(t), o, sourceOf(t, kind, data))
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got.data, data) {
					t.Errorf("%d bytes arrived of %d, or others", len(got.data), size)
				}
				if _, err := uuid.Parse(resp.GetRequestId()); err != nil {
					t.Errorf("request id %q: %v", resp.GetRequestId(), err)
				}
				sum := sha256.Sum256(data)
				if twice && (got.spec.GetSizeBytes() != int64(size) || !bytes.Equal(got.spec.GetChecksums().GetSha256(), sum[:]) || got.spec.GetChecksums().Crc32C == nil) {
					t.Errorf("the spec has size %d and sums %v", got.spec.GetSizeBytes(), got.spec.GetChecksums())
				}
				if !twice && (got.spec.SizeBytes != nil || got.spec.Checksums != nil || !bytes.Equal(got.finish.GetChecksums().GetSha256(), sum[:])) {
					t.Errorf("spec %v, finish %v: a source that is read once has its sums in finish", got.spec, got.finish)
				}
				if want := map[bool]int64{true: int64(size), false: -1}[twice]; last != int64(size) || total != want {
					t.Errorf("progress ended at %d of %d, want %d of %d", last, total, size, want)
				}
			})
		}
	}
}

func sourceOf(t *testing.T, kind string, data []byte) io.Reader {
	switch kind {
	case "file":
		path := filepath.Join(t.TempDir(), "f")
		if err := os.WriteFile(path, append([]byte("skipped"), data...), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		f.Seek(int64(len("skipped")), io.SeekStart) // an upload begins at the current position
		return f
	case "buffer":
		return bytes.NewBuffer(data)
	case "ReaderAt":
		return struct {
			io.Reader
			io.ReaderAt
		}{nil, bytes.NewReader(data)}
	case "pipe":
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		go func() { w.Write(data); w.Close() }() // ends when the upload has read everything
		t.Cleanup(func() { r.Close() })
		return r
	case "one byte at a time":
		return iotest.OneByteReader(bytes.NewReader(data))
	default:
		return bytes.NewReader(data)
	}
}

func TestUpload_RejectedSpecReadsNothing(t *testing.T) {
	c := start(t, &fake{upload: func(_ int, s uploadStream) error {
		s.Recv()
		return failure(codes.InvalidArgument, pb.ErrorReason_ERROR_REASON_FILE_TOO_LARGE)
	}})
	_, err := c.Upload(testContext(t), jpeg, once{iotest.ErrReader(errors.New("the source was read"))})
	if lpfileshare.ErrorReason(err) != pb.ErrorReason_ERROR_REASON_FILE_TOO_LARGE {
		t.Fatalf("got %v", err)
	}
	var e *lpfileshare.Error
	if !errors.As(err, &e) || e.RequestID == "" || e.Attempts != 1 || status.Code(err) != codes.InvalidArgument {
		t.Errorf("got %#v", e)
	}
}

func TestUpload_RejectedInFileReportsReason(t *testing.T) {
	c := start(t, &fake{upload: func(_ int, s uploadStream) error {
		r, err := receiveSpec(s)
		if err != nil {
			return err
		}
		if err := r.next(s); err != nil {
			return err
		}
		return failure(codes.InvalidArgument, pb.ErrorReason_ERROR_REASON_FILE_TYPE_MISMATCH)
	}})
	for range 5 {
		_, err := c.Upload(testContext(t), jpeg, bytes.NewReader(picture(3_000_000)))
		if lpfileshare.ErrorReason(err) != pb.ErrorReason_ERROR_REASON_FILE_TYPE_MISMATCH || errors.Is(err, io.EOF) {
			t.Fatalf("got %v", err)
		}
	}
}

func TestUpload_EarlyResponse(t *testing.T) {
	for _, chunks := range []int{0, 1} {
		c := start(t, &fake{upload: func(_ int, s uploadStream) error {
			r, err := receiveSpec(s)
			for range chunks {
				if err == nil {
					err = r.next(s)
				}
			}
			if err != nil {
				return err
			}
			return s.SendAndClose(&pb.UploadResponse{RequestId: r.spec.GetRequestId(), Replayed: true})
		}})
		for range 5 {
			resp, err := c.Upload(testContext(t), jpeg, bytes.NewReader(picture(3_000_000)))
			if err != nil || !resp.GetReplayed() {
				t.Fatalf("after %d chunks: got %v, %v", chunks, resp, err)
			}
		}
	}
}

func TestUpload_RepeatsUnderOneRequestID(t *testing.T) {
	const asked = 300 * time.Millisecond
	cases := []struct {
		name    string
		err     error
		repeats bool
	}{
		{"unavailable", failure(codes.Unavailable, pb.ErrorReason_ERROR_REASON_STORAGE_UNAVAILABLE, retryAfter(asked)), true},
		{"unavailable, without RetryInfo", failure(codes.Unavailable, pb.ErrorReason_ERROR_REASON_STORAGE_UNAVAILABLE), false},
		{"lost connection", status.Error(codes.Unavailable, "lost"), true},
		{"damaged chunk", failure(codes.Aborted, pb.ErrorReason_ERROR_REASON_CHUNK_CHECKSUM_MISMATCH, retryAfter(0)), true},
		{"taken over", failure(codes.Aborted, pb.ErrorReason_ERROR_REASON_UPLOAD_TAKEN_OVER), false},
		{"too many uploads", failure(codes.ResourceExhausted, pb.ErrorReason_ERROR_REASON_TOO_MANY_UPLOADS, retryAfter(asked)), true},
		{"store full", failure(codes.ResourceExhausted, pb.ErrorReason_ERROR_REASON_STORAGE_FULL), false},
		{"internal", failure(codes.Internal, pb.ErrorReason_ERROR_REASON_INTERNAL), false},
		{"reset by a proxy", status.Error(codes.Internal, "stream terminated by RST_STREAM with error code: NO_ERROR"), true},
	}
	for _, tc := range cases {
		for _, stage := range []string{"at the spec", "in the file", "after finish"} {
			simulated(t, tc.name+" "+stage, func(t *testing.T) {
				var ids []string
				var got received
				f := &fake{}
				f.upload = func(n int, s uploadStream) error {
					if n > 1 {
						err := keep(&got)(n, s)
						ids = append(ids, got.spec.GetRequestId())
						return err
					}
					return failAt(s, stage, func(r *received) { ids = append(ids, r.spec.GetRequestId()) }, tc.err)
				}
				c := start(t, f)
				data := picture(200_000)
				began := time.Now()
				resp, err := c.Upload(testContext(t), jpeg, bytes.NewReader(data))
				if !tc.repeats {
					if err == nil || f.count("Upload") != 1 {
						t.Fatalf("%d attempts, error %v", f.count("Upload"), err)
					}
					return
				}
				if err != nil || f.count("Upload") != 2 || ids[0] != ids[1] || resp.GetRequestId() != ids[0] || !bytes.Equal(got.data, data) {
					t.Fatalf("%d attempts with ids %q, answer %v, error %v", f.count("Upload"), ids, resp, err)
				}
				if d, _ := lpfileshare.RetryDelay(tc.err); time.Since(began) < d {
					t.Errorf("repeated after %v, although the server asked for %v", time.Since(began), d)
				}
			})
		}
	}
}

func failAt(s uploadStream, stage string, saw func(*received), fail error) error {
	var r *received
	var err error
	switch stage {
	case "at the spec":
		m, err := s.Recv()
		if err != nil {
			return err
		}
		saw(&received{spec: m.GetSpec()})
		return fail
	case "in the file":
		if r, err = receiveSpec(s); err == nil {
			err = r.next(s)
		}
	default:
		r, err = receiveAll(s)
	}
	if err != nil {
		return err
	}
	saw(r)
	return fail
}

func TestUpload_LostConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got received
		f := &fake{}
		f.upload = func(n int, s uploadStream) error {
			if n > 2 {
				return keep(&got)(n, s)
			}
			r, err := receiveSpec(s)
			if err == nil && n == 2 {
				err = r.next(s)
			}
			if err != nil {
				return err
			}
			f.cut()
			<-s.Context().Done()
			return s.Context().Err()
		}
		c := start(t, f)
		data := picture(1_000_000)
		if _, err := c.Upload(testContext(t), jpeg, bytes.NewReader(data)); err != nil {
			t.Fatal(err)
		}
		if f.count("Upload") != 3 || !bytes.Equal(got.data, data) {
			t.Errorf("%d attempts, %d bytes", f.count("Upload"), len(got.data))
		}
	})
}

func TestUpload_SourceThatIsReadOnce(t *testing.T) {
	unavailable := failure(codes.Unavailable, pb.ErrorReason_ERROR_REASON_STORAGE_UNAVAILABLE, retryAfter(0))
	simulated(t, "repeats if nothing was read", func(t *testing.T) {
		var got received
		c := start(t, &fake{upload: func(n int, s uploadStream) error {
			if n == 1 {
				return failAt(s, "at the spec", func(*received) {}, unavailable)
			}
			return keep(&got)(n, s)
		}})
		data := picture(100_000)
		o := jpeg
		o.FileType = 0 // the first bytes are used for detection, and still sent
		if _, err := c.Upload(testContext(t), o, once{bytes.NewReader(data)}); err != nil || !bytes.Equal(got.data, data) {
			t.Fatalf("error %v, %d bytes", err, len(got.data))
		}
	})
	simulated(t, "does not repeat if something was read", func(t *testing.T) {
		f := &fake{upload: func(_ int, s uploadStream) error {
			return failAt(s, "in the file", func(*received) {}, unavailable)
		}}
		c := start(t, f)
		_, err := c.Upload(testContext(t), jpeg, once{bytes.NewReader(picture(100_000))})
		var e *lpfileshare.Error
		if !errors.As(err, &e) || f.count("Upload") != 1 || !strings.Contains(e.NotRepeated, "read only once") || e.RequestID == "" ||
			e.Reason != pb.ErrorReason_ERROR_REASON_STORAGE_UNAVAILABLE {
			t.Fatalf("%d attempts, error %v", f.count("Upload"), err)
		}
	})
	simulated(t, "asks for the result if the response was lost", func(t *testing.T) {
		var id string
		var asked *pb.UploadSpec
		f := &fake{
			upload: func(_ int, s uploadStream) error {
				return failAt(s, "after finish", func(r *received) { id, asked = r.spec.GetRequestId(), r.spec }, unavailable)
			},
			getUpload: func(r *pb.GetUploadRequest) (*pb.GetUploadResponse, error) {
				if r.GetName() != "accounts/12345678/uploads/"+id {
					return nil, failure(codes.NotFound, pb.ErrorReason_ERROR_REASON_UPLOAD_NOT_FOUND)
				}
				return &pb.GetUploadResponse{Upload: &pb.Upload{State: pb.UploadState_UPLOAD_STATE_PUBLISHED, File: &pb.File{Name: "n"}, Image: &pb.ImageChange{Scaled: true}}}, nil
			},
		}
		c := start(t, f)
		o := jpeg
		o.Image = &pb.ImageOptions{Fit: true}
		resp, err := c.Upload(testContext(t), o, once{bytes.NewReader(picture(100_000))})
		if err != nil || resp.GetFile().GetName() != "n" || !resp.GetReplayed() || !resp.GetImage().GetScaled() || !asked.GetImage().GetFit() {
			t.Fatalf("got %v, %v", resp, err)
		}
	})
}

// The bytes before an error of the source are not the file.
func TestUpload_BrokenSourceStoresNothing(t *testing.T) {
	for _, broken := range []error{errors.New("disk error"), io.ErrUnexpectedEOF} {
		ended := make(chan error, 1)
		c := start(t, &fake{upload: func(_ int, s uploadStream) error {
			_, err := receiveAll(s)
			ended <- err
			return err
		}})
		r := once{io.MultiReader(bytes.NewReader(picture(100_000)), iotest.ErrReader(broken))}
		if _, err := c.Upload(testContext(t), jpeg, r); !errors.Is(err, broken) || !strings.Contains(err.Error(), "read source") {
			t.Errorf("%v: got %v", broken, err)
		}
		if err := <-ended; err == nil || status.Code(err) != codes.Canceled {
			t.Errorf("%v: the server received %v, want a cancelled call", broken, err)
		}
	}
}

// shrinking is a source that is longer when it is measured than when it is sent.
type shrinking struct {
	*bytes.Reader
}

func (s *shrinking) Seek(offset int64, whence int) (int64, error) {
	if whence == io.SeekStart {
		s.Reset(picture(1000))
	}
	return s.Reader.Seek(offset, whence)
}

func TestUpload_ChangedSource(t *testing.T) {
	var got received
	c := start(t, &fake{upload: keep(&got)})
	_, err := c.Upload(testContext(t), jpeg, &shrinking{Reader: bytes.NewReader(picture(2000))})
	if err == nil || !strings.Contains(err.Error(), "2000 bytes first and 1000 now") || got.spec != nil {
		t.Errorf("got %v", err)
	}
}

func TestUpload_ContextEnds(t *testing.T) {
	for _, stage := range []string{"before the header", "in the file", "between attempts"} {
		simulated(t, stage, func(t *testing.T) {
			ctx, cancel := context.WithCancel(testContext(t))
			c := start(t, &fake{upload: func(_ int, s uploadStream) error {
				switch stage {
				case "between attempts":
					time.AfterFunc(50*time.Millisecond, cancel)
					return failure(codes.Unavailable, pb.ErrorReason_ERROR_REASON_SERVER_DRAINING, retryAfter(10*time.Second))
				case "in the file":
					receiveSpec(s)
				}
				cancel()
				<-s.Context().Done()
				return s.Context().Err()
			}})
			began := time.Now()
			_, err := c.Upload(ctx, jpeg, bytes.NewReader(picture(3_000_000)))
			if !errors.Is(err, context.Canceled) || time.Since(began) > 5*time.Second {
				t.Errorf("after %v: %v", time.Since(began), err)
			}
			if stage == "between attempts" && lpfileshare.ErrorReason(err) != pb.ErrorReason_ERROR_REASON_SERVER_DRAINING {
				t.Errorf("the error before the wait is lost: %v", err)
			}
		})
	}
}

func TestUpload_RetryFor(t *testing.T) {
	f := &fake{upload: func(int, uploadStream) error {
		return failure(codes.Unavailable, pb.ErrorReason_ERROR_REASON_SERVER_DRAINING, retryAfter(time.Minute))
	}}
	c := start(t, f)
	for _, limit := range []time.Duration{time.Second, -1} {
		o := jpeg
		o.RetryFor = limit
		_, err := c.Upload(testContext(t), o, bytes.NewReader(picture(10)))
		var e *lpfileshare.Error
		if !errors.As(err, &e) || e.NotRepeated == "" || e.RetryAfter != time.Minute {
			t.Errorf("RetryFor %v: %v", limit, err)
		}
	}
	if f.count("Upload") != 2 {
		t.Errorf("%d attempts", f.count("Upload"))
	}
}

func TestUpload_ValidateOnlySendsNoBytes(t *testing.T) {
	var spec *pb.UploadSpec
	c := start(t, &fake{upload: func(_ int, s uploadStream) error {
		m, err := s.Recv()
		if err != nil {
			return err
		}
		spec = m.GetSpec()
		if _, err := s.Recv(); err != io.EOF {
			return errors.New("a message followed the spec")
		}
		return s.SendAndClose(&pb.UploadResponse{RequestId: spec.GetRequestId()})
	}})
	o := jpeg
	o.ValidateOnly = true
	if _, err := c.Upload(testContext(t), o, bytes.NewReader(picture(1000))); err != nil || spec.GetSizeBytes() != 1000 {
		t.Errorf("size %d, error %v", spec.GetSizeBytes(), err)
	}
	if _, err := c.Upload(testContext(t), o, nil); err != nil || spec.SizeBytes != nil {
		t.Errorf("without a source: %v, error %v", spec, err)
	}
}

func TestUpload_RenewsRejectedTokenOnce(t *testing.T) {
	for _, reason := range []pb.ErrorReason{pb.ErrorReason_ERROR_REASON_TOKEN_INVALID, pb.ErrorReason_ERROR_REASON_LP_IDENTITY_EXPIRED} {
		var tokens []string
		var good atomic.Bool
		f := &fake{renew: renewTo("new")}
		f.upload = func(_ int, s uploadStream) error {
			md, _ := metadata.FromIncomingContext(s.Context())
			tokens = append(tokens, md.Get("lp-consumer-token")...)
			if !good.Load() || tokens[len(tokens)-1] != "new" {
				return failure(codes.Unauthenticated, reason)
			}
			r, err := receiveAll(s)
			if err != nil {
				return err
			}
			return r.answer(s)
		}
		c := start(t, f, lpfileshare.WithConsumerToken(session("old", time.Hour)))
		if _, err := c.Upload(testContext(t), jpeg, bytes.NewReader(picture(10))); lpfileshare.ErrorReason(err) != reason {
			t.Errorf("%v: got %v", reason, err)
		}
		if fmt.Sprint(tokens) != "[old new]" || f.count("RenewConsumer") != 1 {
			t.Errorf("%v: tokens %v, %d renewals", reason, tokens, f.count("RenewConsumer"))
		}
		good.Store(true)
		if _, err := c.Upload(testContext(t), jpeg, bytes.NewReader(picture(10))); err != nil {
			t.Errorf("%v: %v", reason, err)
		}
	}
}

func TestDetectFileType(t *testing.T) {
	for _, tc := range []struct {
		name, data string
		want       pb.FileType
	}{
		{"a.png", "\xff\xd8\xff\xe0...", pb.FileType_FILE_TYPE_JPEG},
		{"", "\x89PNG\r\n\x1a\n", pb.FileType_FILE_TYPE_PNG},
		{"", "GIF89a", pb.FileType_FILE_TYPE_GIF},
		{"", "%PDF-1.7", pb.FileType_FILE_TYPE_PDF},
		{"a.DOCX", "PK\x03\x04", pb.FileType_FILE_TYPE_DOCX},
		{"a.xlsx", "PK\x03\x04", pb.FileType_FILE_TYPE_XLSX},
		{"a.pptx", "PK\x03\x04", pb.FileType_FILE_TYPE_PPTX},
		{"notes", "hëllo\n", pb.FileType_FILE_TYPE_TXT},
		{"a.txt", "", pb.FileType_FILE_TYPE_TXT},
		{"a.zip", "PK\x03\x04", 0},
		{"a", "\x00\x01", 0},
		{"", "", 0},
	} {
		if got := lpfileshare.DetectFileType(tc.name, []byte(tc.data)); got != tc.want {
			t.Errorf("%q %q: %v, want %v", tc.name, tc.data, got, tc.want)
		}
	}
	c := start(t, &fake{})
	_, err := c.Upload(testContext(t), lpfileshare.UploadOptions{DisplayName: "a.zip"}, strings.NewReader("PK\x03\x04"))
	if err == nil || !strings.Contains(err.Error(), "set FileType") {
		t.Errorf("got %v", err)
	}
}

// The client waits for the header lpfs-request-id, the end of the call, or 5 seconds.
func TestUpload_WaitsToBeAccepted(t *testing.T) {
	for _, tc := range []struct {
		name   string
		accept func(s uploadStream) // after the spec
		want   time.Duration        // until the first chunk
	}{
		{"header at once", func(s uploadStream) { s.SendHeader(metadata.Pairs("lpfs-request-id", "x")) }, 0},
		{"delayed header", func(s uploadStream) {
			pause(s.Context(), 2*time.Second)
			s.SendHeader(metadata.Pairs("lpfs-request-id", "x"))
		}, 2 * time.Second},
		{"header held back by a proxy", func(uploadStream) {}, 5 * time.Second},
		{"header without the key", func(s uploadStream) { s.SendHeader(metadata.Pairs("x-proxy", "1")) }, 5 * time.Second},
	} {
		simulated(t, tc.name, func(t *testing.T) {
			var first time.Duration
			f := &fake{upload: func(_ int, s uploadStream) error {
				m, err := s.Recv()
				if err != nil {
					return err
				}
				tc.accept(s)
				r := &received{spec: m.GetSpec()}
				for err == nil && r.finish == nil {
					if err = r.next(s); first == 0 {
						first = time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)) // when a bubble begins
					}
				}
				if err != nil {
					return err
				}
				return r.answer(s)
			}}
			c := start(t, f)
			if _, err := c.Upload(t.Context(), jpeg, bytes.NewReader(picture(200_000))); err != nil {
				t.Fatal(err)
			}
			if first != tc.want || f.count("Upload") != 1 {
				t.Errorf("the first chunk arrived after %v, want %v; %d calls", first, tc.want, f.count("Upload"))
			}
		})
	}
	simulated(t, "rejected after a header without the key", func(t *testing.T) {
		c := start(t, &fake{upload: func(_ int, s uploadStream) error {
			s.Recv()
			s.SendHeader(metadata.Pairs("x-proxy", "1"))
			pause(s.Context(), time.Second)
			return failure(codes.InvalidArgument, pb.ErrorReason_ERROR_REASON_FILE_TOO_LARGE)
		}})
		_, err := c.Upload(t.Context(), jpeg, once{iotest.ErrReader(errors.New("the source was read"))})
		if lpfileshare.ErrorReason(err) != pb.ErrorReason_ERROR_REASON_FILE_TOO_LARGE {
			t.Errorf("got %v", err)
		}
	})
}

// A source can be a call itself. Its error is not the error of the upload.
func TestUpload_SourceThatIsACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{upload: func(_ int, s uploadStream) error { _, err := receiveAll(s); return err }}
		c := start(t, f)
		broken := failure(codes.Unavailable, pb.ErrorReason_ERROR_REASON_STORAGE_UNAVAILABLE, retryAfter(0))
		_, err := c.Upload(testContext(t), jpeg, once{iotest.ErrReader(broken)})
		if _, isCall := errors.AsType[*lpfileshare.Error](err); isCall || !errors.Is(err, broken) || f.count("Upload") != 1 {
			t.Errorf("%d attempts, %v", f.count("Upload"), err)
		}
	})
}

func TestUploadFile(t *testing.T) {
	var got received
	c := start(t, &fake{upload: keep(&got)})
	path := filepath.Join(t.TempDir(), "cat.jpg")
	if err := os.WriteFile(path, picture(1000), 0o600); err != nil {
		t.Fatal(err)
	}
	o := lpfileshare.UploadOptions{Conversation: conversation, WantChecksums: []pb.ChecksumKind{pb.ChecksumKind_CHECKSUM_KIND_SHA256}}
	if _, err := c.UploadFile(testContext(t), o, path); err != nil || got.spec.GetDisplayName() != "cat.jpg" ||
		got.spec.GetFileType() != pb.FileType_FILE_TYPE_JPEG || len(got.spec.GetWantChecksums()) != 1 || len(got.data) != 1000 {
		t.Errorf("spec %v, %d bytes, %v", got.spec, len(got.data), err)
	}
	o.DisplayName = "other.jpg"
	if _, err := c.UploadFile(testContext(t), o, path); err != nil || got.spec.GetDisplayName() != "other.jpg" {
		t.Errorf("spec %v, %v", got.spec, err)
	}
	if _, err := c.UploadFile(testContext(t), o, path+"x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if _, err := c.UploadBytes(testContext(t), o, picture(77)); err != nil || got.spec.GetSizeBytes() != 77 || len(got.data) != 77 {
		t.Errorf("UploadBytes: spec %v, %d bytes, %v", got.spec, len(got.data), err)
	}
}
