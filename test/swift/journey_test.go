package swift

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/internal/share"
	gateway "github.com/lpfileshare/lpfileshare/internal/swift"
	"github.com/lpfileshare/lpfileshare/test/harness"
)

// repeatedPUT is in the server's log if a PUT was repeated.
const repeatedPUT = `msg="an attempt failed and is repeated" operation=PUT`

func TestUpload_EveryType(t *testing.T) {
	for _, digest := range []string{"sha1", "sha256"} {
		t.Run(digest, func(t *testing.T) {
			w := newWorld(t, sandbox.Options{SwiftDigest: digest}, "--documents")
			c := w.consumer()
			files := map[string][]byte{
				"largest.jpg":     photo(t, 3_000_000),
				"one block.jpg":   photo(t, 64<<10),
				"a byte more.jpg": photo(t, 64<<10+1),
				"tiny.png":        []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x00\x00\x00\x00:~\x9bU\x00\x00\x00\nIDATx\x9cc`\x00\x00\x00\x02\x00\x01H\xaf\xa4q\x00\x00\x00\x00IEND\xaeB`\x82"),
				"dot.gif":         []byte("GIF89a\x01\x00\x01\x00\x80\x00\x00\xff\xff\xff\x00\x00\x00!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"),
				"paper.pdf":       []byte("%PDF-1.7\nnothing much\n"),
				"note.txt":        []byte("déjà vu\n"),
				"letter.docx":     harness.OfficeDocument("word"),
				"sheet.xlsx":      harness.OfficeDocument("xl"),
				"talk.pptx":       harness.OfficeDocument("ppt"),
			}
			for name, data := range files {
				file := w.upload(c, name, data)
				if file.GetStoredSizeBytes() != int64(len(data)) || file.GetEtag() != md5Hex(data) {
					t.Errorf("%s: the answer is %v", name, file)
				}
				w.same(c, file, data)
			}
			// Of one whose size is not known beforehand the server takes all, before it begins to PUT.
			data := photo(t, 700_000)
			resp, err := c.once(t.Context(), "unsized.jpg", unsized{bytes.NewReader(data)})
			if err != nil {
				t.Fatal(err)
			}
			w.same(c, resp.GetFile(), data)

			files["unsized.jpg"] = data
			a := w.audit()
			for name, data := range files {
				if a.published[name] != 1 || a.stored[name] != sum(data) {
					t.Errorf("%s: published %d times; what is in Swift is what was sent: %v", name, a.published[name], a.stored[name] == sum(data))
				}
			}
			if len(a.orphans) > 0 {
				t.Errorf("%d objects without a message", len(a.orphans))
			}
		})
	}
}

func TestDownload_Ranges(t *testing.T) {
	w := newWorld(t, sandbox.Options{})
	c := w.consumer()
	data := photo(t, 1_000_000)
	file := w.upload(c, "a.jpg", data)
	for _, part := range []struct {
		offset, limit int64
		want          []byte
	}{
		{0, 10, data[:10]}, {500_000, 0, data[500_000:]}, {500_000, 65_537, data[500_000:565_537]},
		{-100, 0, data[999_900:]}, {999_999, 0, data[999_999:]}, {999_990, 100, data[999_990:]},
	} {
		var got bytes.Buffer
		_, err := c.Download(t.Context(), lpfileshare.DownloadOptions{Name: file.GetName(), Offset: part.offset, Limit: part.limit, RetryFor: -1}, &got)
		if err != nil || !bytes.Equal(got.Bytes(), part.want) {
			t.Errorf("%d bytes from %d: %v, %d bytes, want %d", part.limit, part.offset, err, got.Len(), len(part.want))
		}
	}
	_, err := c.Download(t.Context(), lpfileshare.DownloadOptions{Name: file.GetName(), Offset: 1_000_000, RetryFor: -1}, io.Discard)
	w.reason(err, pb.ErrorReason_ERROR_REASON_RANGE_NOT_SATISFIABLE)
	_, err = c.Download(t.Context(), lpfileshare.DownloadOptions{Name: file.GetName(), IfMatchETag: md5Hex("other"), RetryFor: -1}, io.Discard)
	w.reason(err, pb.ErrorReason_ERROR_REASON_FILE_CHANGED)
	if _, err = c.Download(t.Context(), lpfileshare.DownloadOptions{Name: file.GetName(), IfMatchETag: file.GetEtag(), RetryFor: -1}, io.Discard); err != nil {
		t.Errorf("with the file's own ETag: %v", err)
	}
}

// A lateClock is LivePerson's, and can be set back, so that what it signs is over.
type lateClock struct{ behind atomic.Int64 }

func (l *lateClock) now() time.Time { return time.Now().Add(-time.Duration(l.behind.Load())) }

func TestUpload_ExpiredURLs(t *testing.T) {
	t.Run("one that is over is replaced, and the caller does not notice", func(t *testing.T) {
		var clock lateClock
		w := newWorld(t, sandbox.Options{Now: clock.now})
		c := w.consumer()
		data := photo(t, 300_000)
		// The first URL is of two minutes ago.
		first := func(act func()) {
			before := len(w.sb.Journal().Signed)
			clock.behind.Store(int64(2 * time.Minute))
			done := make(chan struct{})
			go func() { defer close(done); act() }()
			harness.Eventually(t, "a URL is asked for", func() bool { return len(w.sb.Journal().Signed) > before })
			clock.behind.Store(0)
			<-done
			if n := len(w.sb.Journal().Signed) - before; n < 2 {
				t.Errorf("%d URLs were asked for, so none was over", n)
			}
		}
		var file *pb.File
		first(func() {
			resp, err := c.once(t.Context(), "a.jpg", bytes.NewReader(data))
			if err != nil {
				t.Error(err)
			}
			file = resp.GetFile()
		})
		first(func() { w.same(c, file, data) })
	})
	t.Run("all of them", func(t *testing.T) {
		var clock lateClock
		w := newWorld(t, sandbox.Options{Now: clock.now})
		c := w.consumer()
		file := w.upload(c, "good.jpg", photo(t, 10_000))
		clock.behind.Store(int64(2 * time.Minute))
		_, err := c.once(t.Context(), "a.jpg", bytes.NewReader(photo(t, 300_000)))
		w.reason(err, pb.ErrorReason_ERROR_REASON_STORAGE_URL_REJECTED)
		_, err = c.Download(t.Context(), lpfileshare.DownloadOptions{Name: file.GetName(), RetryFor: -1}, io.Discard)
		w.reason(err, pb.ErrorReason_ERROR_REASON_STORAGE_URL_REJECTED)
		clock.behind.Store(0)
		if a := w.audit(); a.published["a.jpg"] != 0 || len(a.orphans) > 0 {
			t.Errorf("published %d times, stored %d files", a.published["a.jpg"], len(a.orphans))
		}
	})
	t.Run("one that ends while the file comes", func(t *testing.T) {
		w := newWorld(t, sandbox.Options{URLLifetime: time.Second})
		c := w.consumer()
		data := photo(t, 300_000)
		resp, err := c.once(t.Context(), "a.jpg", halfway(data, func() { time.Sleep(2 * time.Second) }))
		if err != nil {
			t.Fatal(err)
		}
		if n := len(w.sb.Journal().Signed); n != 1 {
			t.Errorf("%d URLs were asked for, want one: Swift looks at the time only as the PUT begins", n)
		}
		w.same(c, resp.GetFile(), data)
	})
}

func TestUpload_SwiftRejections(t *testing.T) {
	t.Run("413", func(t *testing.T) {
		w := newWorld(t, sandbox.Options{}, "--max-file-bytes=5000000")
		c := w.consumer()
		tooLarge := photo(t, int(w.swift.maxFileSize)+1)
		_, err := c.once(t.Context(), "large.jpg", bytes.NewReader(tooLarge))
		w.reason(err, pb.ErrorReason_ERROR_REASON_FILE_TOO_LARGE)
		_, err = c.once(t.Context(), "large.jpg", unsized{bytes.NewReader(tooLarge)})
		w.reason(err, pb.ErrorReason_ERROR_REASON_FILE_TOO_LARGE)
		w.nothing()
		data := photo(t, int(w.swift.maxFileSize))
		w.same(c, w.upload(c, "largest.jpg", data), data)
	})
	t.Run("no container", func(t *testing.T) {
		w := newWorld(t, sandbox.Options{Accounts: []string{"87654321"}})
		c := w.consumerOf("87654321")
		_, err := c.once(t.Context(), "a.jpg", bytes.NewReader(photo(t, 300_000)))
		w.reason(err, pb.ErrorReason_ERROR_REASON_STORAGE_DENIED)
		if n := len(w.sb.Journal().Published); n > 0 {
			t.Errorf("%d messages", n)
		}
	})
	t.Run("another key", func(t *testing.T) {
		w := newWorld(t, sandbox.Options{})
		w.sb = harness.Sandbox(t, frames, sandbox.Options{SwiftURL: w.swift.endpoint, SwiftKey: "another"})
		w.start()
		_, err := w.consumer().once(t.Context(), "a.jpg", bytes.NewReader(photo(t, 300_000)))
		w.reason(err, pb.ErrorReason_ERROR_REASON_STORAGE_URL_REJECTED)
		w.nothing()
	})
}

// TestUpload_DamagedBytesAreDetected puts something before Swift that spoils what passes: Swift stores that, and its ETag differs.
func TestUpload_DamagedBytesAreDetected(t *testing.T) {
	for _, test := range []struct {
		name  string
		times int64
	}{{"once", 1}, {"each time", 1000}} {
		t.Run(test.name, func(t *testing.T) {
			var left atomic.Int64
			left.Store(test.times)
			front := passing(t, realSwift(t), func(r *http.Request) {
				if r.Method == http.MethodPut && left.Add(-1) >= 0 {
					r.Body = &spoiled{ReadCloser: r.Body, at: 100_000}
				}
			})
			w := newWorld(t, sandbox.Options{SwiftURL: front})
			c := w.consumer()
			data := photo(t, 300_000)
			resp, err := c.once(t.Context(), "a.jpg", bytes.NewReader(data))
			if test.times == 1 {
				if err != nil {
					t.Fatal(err)
				}
				w.same(c, resp.GetFile(), data)
				if a := w.audit(); a.published["a.jpg"] != 1 || a.stored["a.jpg"] != sum(data) || len(a.orphans) > 0 {
					t.Errorf("%+v", a)
				}
				return
			}
			w.reason(err, pb.ErrorReason_ERROR_REASON_STORAGE_CORRUPTED)
			if n := len(w.sb.Journal().Published); n > 0 {
				t.Errorf("%d messages", n)
			}
		})
	}
}

// passing serves what goes on to Swift, as change leaves it, and returns where.
func passing(t *testing.T, c *cluster, change func(*http.Request)) string {
	t.Helper()
	to, err := url.Parse(c.endpoint)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
		p.Out.URL.Scheme, p.Out.URL.Host = to.Scheme, to.Host
		change(p.Out)
	}, Transport: &http.Transport{DisableCompression: true}}
	front := httptest.NewServer(proxy)
	t.Cleanup(front.Close)
	return front.URL
}

// spoiled flips a bit of a body.
type spoiled struct {
	io.ReadCloser
	at int
}

func (s *spoiled) Read(p []byte) (int, error) {
	n, err := s.ReadCloser.Read(p)
	if s.at >= 0 && s.at < n {
		p[s.at] ^= 1
	}
	s.at -= n
	return n, err
}

func TestUpload_AbortedLeavesNothing(t *testing.T) {
	w := newWorld(t, sandbox.Options{})
	c := w.consumer()
	data := photo(t, 3_000_000)
	begun := func(n int) func() bool { return func() bool { return len(w.sb.Journal().Signed) >= n } }

	// The caller gives up, in the middle.
	ctx, cancel := context.WithCancel(t.Context())
	_, err := c.once(ctx, "a.jpg", halfway(data, func() {
		harness.Eventually(t, "a URL is asked for", begun(1))
		time.Sleep(200 * time.Millisecond) // Swift has the first half by now, or most of it
		cancel()
	}))
	if err == nil {
		t.Error("a cancelled upload succeeded")
	}
	// The file itself cannot be read to its end.
	broken := errors.New("the disk is broken")
	_, err = c.once(t.Context(), "a.jpg", io.MultiReader(bytes.NewReader(data[:1_000_000]), failing{broken}))
	if !errors.Is(err, broken) {
		t.Errorf("an upload whose source broke: %v", err)
	}
	// The server is killed, in the middle.
	_, err = c.once(t.Context(), "a.jpg", halfway(data, func() {
		harness.Eventually(t, "a URL is asked for", begun(2))
		time.Sleep(200 * time.Millisecond)
		w.server.Kill()
	}))
	if err == nil {
		t.Error("an upload to a dead server succeeded")
	}
	harness.Eventually(t, "Swift has noticed that two PUTs ended early", func() bool { return w.swift.sawDisconnect(t, w.sb.Journal().Signed) == 2 })
	w.nothing()

	// The next server completes an upload, and the aborted ones leave no trace.
	w.start()
	again := c
	again.Client = w.server.Dial(t).As(c.Credential())
	w.same(again, w.upload(again, "b.jpg", data), data)
	if a := w.audit(); a.published["b.jpg"] != 1 || len(a.published) != 1 || len(a.orphans) > 0 {
		t.Errorf("%v and %d objects without a message", a.published, len(a.orphans))
	}
}

// TestUpload_BadFileIsNeverStored sends another file than was announced. The server streams it to Swift as it comes, all but its end.
func TestUpload_BadFileIsNeverStored(t *testing.T) {
	w := newWorld(t, sandbox.Options{})
	c := w.consumer()
	data := photo(t, 3_000_000)
	_, err := c.once(t.Context(), "a.jpg", halfway(data, func() { data[len(data)-1] ^= 1 }))
	w.reason(err, pb.ErrorReason_ERROR_REASON_FILE_CHECKSUM_MISMATCH)
	harness.Eventually(t, "Swift has noticed that the PUT ended early", func() bool { return w.swift.sawDisconnect(t, w.sb.Journal().Signed) == 1 })
	w.nothing()
}

type failing struct{ error }

func (f failing) Read([]byte) (int, error) { return 0, f.error }

// TestUpload_SlowerThanSwiftTimeout stops in the middle for longer than Swift's client_timeout. Swift gives that PUT up; the server
// repeats it from its memory.
func TestUpload_SlowerThanSwiftTimeout(t *testing.T) {
	w := newWorld(t, sandbox.Options{})
	c := w.consumer()
	if w.swift.clientTimeout > 10*time.Second {
		t.Skipf("Swift's client_timeout is %v, too long to wait for", w.swift.clientTimeout)
	}
	data := photo(t, 600_000)
	resp, err := c.once(t.Context(), "a.jpg", halfway(data, func() { time.Sleep(w.swift.clientTimeout + 1500*time.Millisecond) }))
	if err != nil {
		t.Fatal(err)
	}
	w.same(c, resp.GetFile(), data)
	if !strings.Contains(w.server.Logs.String(), repeatedPUT) {
		t.Error("no PUT was repeated, so Swift has waited")
	}
	// Connections that were kept for later are closed by Swift after the same time.
	time.Sleep(w.swift.clientTimeout + 500*time.Millisecond)
	w.same(c, w.upload(c, "b.jpg", data), data)
	if a := w.audit(); a.published["a.jpg"] != 1 || a.published["b.jpg"] != 1 || len(a.orphans) > 0 {
		t.Errorf("%v and %d objects without a message", a.published, len(a.orphans))
	}
}

func TestObjectServer_StopsAnswering(t *testing.T) {
	for _, length := range []time.Duration{time.Second, 4500 * time.Millisecond} {
		t.Run(length.String(), func(t *testing.T) {
			w := newWorld(t, sandbox.Options{})
			c := w.consumer()
			data := photo(t, 1_000_000)
			var timer *time.Timer
			resp, err := c.once(t.Context(), "a.jpg", halfway(data, func() {
				timer = time.AfterFunc(length, w.swift.pause(t))
			}))
			if err != nil {
				t.Fatal(err)
			}
			file := resp.GetFile()
			if timer.Stop() {
				t.Error("the upload did not wait for the object server")
			}
			goOn := w.swift.pause(t)
			time.AfterFunc(length, goOn)
			w.same(c, file, data)
			goOn()
			if a := w.audit(); a.published["a.jpg"] != 1 || a.stored["a.jpg"] != sum(data) || len(a.orphans) > 0 {
				t.Errorf("%v and %d objects without a message", a.published, len(a.orphans))
			}
		})
	}
}

func TestObjectServer_DiesDuringTransfer(t *testing.T) {
	t.Run("and comes back", func(t *testing.T) {
		w := newWorld(t, sandbox.Options{})
		c := w.consumer()
		data := photo(t, 3_000_000)
		resp, err := c.once(t.Context(), "a.jpg", halfway(data, func() {
			w.swift.kill(t)
			w.swift.repair(t)
		}))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(w.server.Logs.String(), repeatedPUT) {
			t.Error("no PUT was repeated, so none was under way as the object server died")
		}
		// Half of it has been taken by the caller when the object server is killed.
		var got bytes.Buffer
		_, err = c.Download(t.Context(), lpfileshare.DownloadOptions{Name: resp.GetFile().GetName(), RetryFor: -1}, &halfwayWriter{&got, len(data) / 2, func() {
			w.swift.kill(t)
			w.swift.repair(t)
		}})
		if err != nil || sum(got.Bytes()) != sum(data) {
			t.Errorf("the download: %v, %d bytes", err, got.Len())
		}
		if a := w.audit(); a.published["a.jpg"] != 1 || a.stored["a.jpg"] != sum(data) || len(a.orphans) > 0 {
			t.Errorf("%v and %d objects without a message", a.published, len(a.orphans))
		}
	})
	t.Run("and stays away", func(t *testing.T) {
		w := newWorld(t, sandbox.Options{})
		c := w.consumer()
		there := w.upload(c, "there.jpg", photo(t, 10_000))
		data, id := photo(t, 3_000_000), uuid.NewString()
		t.Cleanup(func() { w.swift.repair(t) })
		_, err := c.attempt(t.Context(), "a.jpg", id, halfway(data, func() { w.swift.kill(t) }))
		w.reason(err, pb.ErrorReason_ERROR_REASON_STORAGE_UNAVAILABLE)
		if _, ok := lpfileshare.RetryDelay(err); !ok {
			t.Error("nothing says when to come back")
		}
		_, err = c.Download(t.Context(), lpfileshare.DownloadOptions{Name: there.GetName(), RetryFor: -1}, io.Discard)
		w.reason(err, pb.ErrorReason_ERROR_REASON_STORAGE_UNAVAILABLE)
		w.swift.repair(t)
		if a := w.audit(); a.published["a.jpg"] != 0 || len(a.orphans) > 0 {
			t.Errorf("refused, but %v and %d objects without a message", a.published, len(a.orphans))
		}
		resp, err := c.attempt(t.Context(), "a.jpg", id, bytes.NewReader(data))
		if err != nil || resp.GetReplayed() {
			t.Fatalf("the repeat: %v, %v", resp, err)
		}
		w.same(c, resp.GetFile(), data)
		again, err := c.attempt(t.Context(), "a.jpg", id, bytes.NewReader(data))
		if err != nil || !again.GetReplayed() || again.GetFile().GetName() != resp.GetFile().GetName() {
			t.Errorf("the repeat of the repeat: %v, %v", again, err)
		}
		if a := w.audit(); a.published["a.jpg"] != 1 || a.stored["a.jpg"] != sum(data) || len(a.orphans) > 0 {
			t.Errorf("%v and %d objects without a message", a.published, len(a.orphans))
		}
	})
}

// halfwayWriter calls meanwhile once at bytes have come.
type halfwayWriter struct {
	io.Writer
	at        int
	meanwhile func()
}

func (h *halfwayWriter) Write(p []byte) (int, error) {
	if h.at -= len(p); h.at <= 0 && h.meanwhile != nil {
		h.meanwhile()
		h.meanwhile = nil
	}
	return h.Writer.Write(p)
}

// TestObjectServer_RestartsUnderLoad lets callers upload while the object server is killed and restarted, again and again.
// Rejected callers repeat later under the same request id.
func TestObjectServer_RestartsUnderLoad(t *testing.T) {
	w := newWorld(t, sandbox.Options{})
	c := w.consumer()
	type file struct {
		name, id    string
		data        []byte
		refused     bool
		unconfirmed bool
	}
	var files []*file
	for i := range 36 {
		size := 200_000
		if i%6 == 0 {
			size = 3_000_000
		}
		files = append(files, &file{name: "file " + strconv.Itoa(i) + ".jpg", id: uuid.NewString(), data: photo(t, size)})
	}
	stop, weather := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(weather)
		for {
			w.swift.kill(t)
			time.Sleep(1700 * time.Millisecond) // longer than the server tries by itself
			w.swift.repair(t)
			select {
			case <-stop:
				return
			case <-time.After(700 * time.Millisecond):
			}
		}
	}()
	todo := make(chan *file)
	var callers sync.WaitGroup
	var refused atomic.Int64
	for range 6 {
		callers.Go(func() {
			for f := range todo {
				_, err := c.attempt(t.Context(), f.name, f.id, bytes.NewReader(f.data))
				if err == nil {
					continue
				}
				f.refused = true
				refused.Add(1)
				switch r := lpfileshare.ErrorReason(err); r {
				case pb.ErrorReason_ERROR_REASON_STORAGE_UNAVAILABLE:
				case pb.ErrorReason_ERROR_REASON_LP_UNAVAILABLE, pb.ErrorReason_ERROR_REASON_LP_PUBLISH_UNCONFIRMED:
					// LivePerson itself found the file's storage away as it was to publish it.
					f.unconfirmed = r == pb.ErrorReason_ERROR_REASON_LP_PUBLISH_UNCONFIRMED
				default:
					t.Errorf("%s: %v", f.name, err)
				}
				if _, ok := lpfileshare.RetryDelay(err); !ok {
					t.Errorf("%s: nothing says when to come back: %v", f.name, err)
				}
			}
		})
	}
	for _, f := range files {
		todo <- f
	}
	close(todo)
	callers.Wait()
	close(stop)
	<-weather

	before := w.audit()
	for _, f := range files {
		if f.refused {
			if n := before.published[f.name]; n > 0 && !f.unconfirmed {
				t.Errorf("%s was refused, and published %d times", f.name, n)
			}
			if _, err := c.attempt(t.Context(), f.name, f.id, bytes.NewReader(f.data)); err != nil {
				t.Errorf("%s: the repeat: %v", f.name, err)
			}
		}
	}
	a := w.audit()
	for _, f := range files {
		if a.published[f.name] != 1 || a.stored[f.name] != sum(f.data) {
			t.Errorf("%s: published %d times; what is in Swift is what was sent: %v", f.name, a.published[f.name], a.stored[f.name] == sum(f.data))
		}
	}
	// What was stored in an attempt that was refused for LivePerson's sake, or whose 201 got lost, has no message.
	if len(a.orphans) > int(refused.Load()) {
		t.Errorf("%d objects without a message, and %d attempts were refused", len(a.orphans), refused.Load())
	}
	t.Logf("%d uploads, %d refused and repeated, %d objects without a message", len(files), refused.Load(), len(a.orphans))
}

// TestPut_Superseded has the gateway's own store client PUT where Swift has a newer object already: 202.
func TestPut_Superseded(t *testing.T) {
	swift := realSwift(t)
	client := gateway.New(gateway.Config{
		BaseURL: func(context.Context, string) (string, error) { return swift.endpoint, nil },
	})
	t.Cleanup(func() { client.Close() })
	s := swift.store()
	s.T, s.client = t, http.DefaultClient
	leave := func(path string) share.TempURL {
		expires := time.Now().Add(time.Minute)
		_, query, _ := strings.Cut(s.signUntil(http.MethodPut, path, expires.Unix()), "?")
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Error(err)
		}
		return share.TempURL{Path: path, Sig: values.Get("temp_url_sig"), Expires: values.Get("temp_url_expires"), ExpireTime: expires}
	}
	put := func(path string, body []byte) (share.StoredObject, error) {
		return client.Put(t.Context(), account, leave(path), int64(len(body)), "image/jpeg", io.NopCloser(bytes.NewReader(body)))
	}
	data := photo(t, 100_000)

	// A proxy whose clock is ahead has stored it, and the answer was lost: this is the repeat, by way of another proxy.
	path := s.fresh(".JPG")
	swift.storeAt(t, path, data, time.Now().Add(30*time.Second))
	stored, err := put(path, data)
	if err != nil || !stored.Superseded {
		t.Errorf("%+v, %v, want one that is superseded", stored, err)
	}
	s.stored(path, string(data), true)

	// A slow one: the 202 comes before the body's end, which never comes. The URL that is signed for PUT tells what is there.
	u := leave(path)
	slow, never := io.Pipe()
	t.Cleanup(func() { never.Close() })
	go never.Write(data[:1000]) // ends with slow, which Put closes
	stored, err = client.Put(t.Context(), account, u, int64(len(data)), "image/jpeg", slow)
	if err != nil || !stored.Superseded {
		t.Errorf("a slow repeat: %+v, %v, want one that is superseded", stored, err)
	}
	if there, err := client.Head(t.Context(), account, u); err != nil || there.ETag != share.ETag(md5Hex(data)) || there.Size != int64(len(data)) {
		t.Errorf("HEAD: %+v, %v", there, err)
	}

	// Many at once: all are successes, and one whole body stays.
	path = s.fresh(".JPG")
	var superseded atomic.Int64
	var group sync.WaitGroup
	for range 40 {
		group.Go(func() {
			stored, err := put(path, data)
			switch {
			case err != nil:
				t.Errorf("a PUT: %v", err)
			case stored.Superseded:
				superseded.Add(1)
			case stored.ETag != share.ETag(md5Hex(data)):
				t.Errorf("the ETag is %s", stored.ETag)
			}
		})
	}
	group.Wait()
	s.stored(path, string(data), true)
	t.Logf("of 40 PUTs at once %d were answered with 202", superseded.Load())
}
