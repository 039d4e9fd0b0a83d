package service

import (
	"bytes"
	"context"
	"crypto/md5"
	"math"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

func TestDownload_Ranges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(10_000)
		name := h.addFile(path("a"), b)
		for _, c := range []struct{ offset, limit, start, end int64 }{
			{0, 0, 0, 10_000},
			{0, 1, 0, 1},
			{1, 0, 1, 10_000},
			{9_999, 0, 9_999, 10_000},
			{5_000, 2_500, 5_000, 7_500},
			{5_000, 5_001, 5_000, 10_000},
			{5_000, math.MaxInt64, 5_000, 10_000},
			{-1, 0, 9_999, 10_000},
			{-100, 10, 9_900, 9_910},
			{-10_000, 0, 0, 10_000},
			{-20_000, 0, 0, 10_000},
		} {
			req := byName(name)
			req.ReadOffset, req.ReadLimit, req.MaxChunkBytes = c.offset, c.limit, 1 // coerced to 1 KiB
			got, header, trailer, err := h.download(h.alice(), req)
			if err != nil {
				t.Errorf("%v: %v", c, err)
				continue
			}
			want := b[c.start:c.end]
			if !bytes.Equal(got, want) {
				t.Errorf("%v: got %d bytes, want %d", c, len(got), len(want))
			}
			r := header.GetContentRange()
			if r.GetStartBytes() != c.start || r.GetEndBytes() != c.end || r.GetTotalBytes() != 10_000 {
				t.Errorf("%v: the header has %v", c, r)
			}
			if trailer.GetSentBytes() != int64(len(want)) || !proto.Equal(trailer.GetSentChecksums(), sumsOf(want)) {
				t.Errorf("%v: the trailer has %v", c, trailer)
			}
			if f := header.GetFile(); f.GetName() != name || f.GetEtag() != string(describe(b).ETag) || f.GetStoredSizeBytes() != 10_000 {
				t.Errorf("%v: the file is %v", c, f)
			}
		}
		for _, c := range []struct {
			offset, limit int64
			kind          share.Kind
		}{
			{10_000, 0, share.RangeNotSatisfiable},
			{math.MaxInt64, math.MaxInt64, share.RangeNotSatisfiable},
			{0, -1, share.InvalidField},
		} {
			req := byName(name)
			req.ReadOffset, req.ReadLimit = c.offset, c.limit
			_, _, _, err := h.download(h.alice(), req)
			wantError(t, err, c.kind)
		}
	})
}

func TestDownload_EmptyFileHasHeaderAndTrailer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		got, header, trailer, err := h.download(h.alice(), byName(h.addFile(path("a"), nil)))
		if err != nil || len(got) != 0 || header == nil || !proto.Equal(trailer.GetSentChecksums(), sumsOf(nil)) {
			t.Errorf("got %v, %v, %v", header, trailer, err)
		}
	})
}

func TestDownload_StatesMD5(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		data := picture(100)
		sum := md5.Sum(data)
		for _, c := range []struct {
			etag  string // "": that of the bytes
			large bool
			want  []byte
		}{
			{"", false, sum[:]},
			{"", true, nil},
			{"0123456789abcdef0123456789abcdef-2", false, nil},
			{"other", false, nil},
		} {
			name := h.addFile(path("a"), data)
			h.store.described = func(o *share.StoredObject) {
				o.Large = c.large
				if c.etag != "" {
					o.ETag = share.ETag(c.etag)
				}
			}
			_, header, _, err := h.download(h.alice(), byName(name))
			if err != nil || !bytes.Equal(header.GetStoredMd5(), c.want) {
				t.Errorf("ETag %q, large %t: %x, %v; want %x", c.etag, c.large, header.GetStoredMd5(), err, c.want)
			}
		}
	})
}

func TestDownload_IfMatchETag(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(100)
		req := byName(h.addFile(path("a"), b))
		etag := string(describe(b).ETag)
		for _, req.IfMatchEtag = range []string{`"` + etag + `"`, `W/"` + etag + `"`, etag} {
			if got, _, _, err := h.download(h.alice(), req); err != nil || !bytes.Equal(got, b) {
				t.Errorf("%s: got %d bytes, %v", req.IfMatchEtag, len(got), err)
			}
		}
		h.store.keep(path("a"), picture(101))
		_, _, _, err := h.download(h.alice(), req)
		wantError(t, err, share.FileChanged)
		req.IfMatchEtag, req.ReadLimit, req.MaxChunkBytes = "a\"b", -1, -1
		_, _, _, err = h.download(h.alice(), req)
		wantError(t, err, share.InvalidField)
		if got := fields(err); !slices.Equal(got, []string{"read_limit", "max_chunk_bytes", "if_match_etag"}) {
			t.Errorf("the violations name %v", got)
		}
	})
}

func TestDownload_ResumesWhereTheStoreStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(5000)
		name := h.addFile(path("a"), b)
		h.store.breaks = []int{1000, 0, 1, -1}
		h.store.fail("Get", nil, kindError(share.StorageURLRejected), nil)
		req := byName(name)
		req.ReadOffset, req.ReadLimit = 100, 4000
		got, _, trailer, err := h.download(h.alice(), req)
		if err != nil {
			t.Fatal(err)
		}
		if want := b[100:4100]; !bytes.Equal(got, want) || !proto.Equal(trailer.GetSentChecksums(), sumsOf(want)) {
			t.Errorf("the %d bytes differ from the file's", len(got))
		}
		etag := string(describe(b).ETag)
		want := []string{"100+4000 if ", "1100+3000 if " + etag, "1100+3000 if " + etag, "1101+2999 if " + etag}
		if !slices.Equal(h.store.gets, want) {
			t.Errorf("the GETs were %v, want %v", h.store.gets, want)
		}
		if gets, urls := h.store.count("Get"), h.lp.count("DownloadURL"); urls != gets {
			t.Errorf("%d URLs for %d GETs, want one for each", urls, gets)
		}
	})
}

func TestDownload_FileChangedDuringTransfer(t *testing.T) {
	for what, now := range map[string][]byte{"other bytes": picture(6000), "shorter": picture(10), "deleted": nil} {
		t.Run(what, inBubble(func(t *testing.T) {
			h := newHarness(t)
			req := byName(h.addFile(path("a"), picture(5000)))
			h.store.breaks = []int{1000, -1}
			h.lp.on("DownloadURL", func(context.Context) error {
				if h.lp.count("DownloadURL") == 2 {
					h.store.state.Lock()
					defer h.store.state.Unlock()
					if h.store.objects[path("a")] = now; now == nil {
						delete(h.store.objects, path("a"))
					}
				}
				return nil
			})
			_, _, trailer, err := h.download(h.alice(), req)
			want := share.FileChanged
			if now == nil {
				want = share.FileNotFound
			}
			wantError(t, err, want)
			if trailer != nil {
				t.Error("there is a trailer")
			}
		}))
	}
}

// The error reports the bytes that were sent, not those that were read from the store: the client resumes there.
func TestDownload_TruncatedReportsSentBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(5000)
		req := byName(h.addFile(path("a"), b))
		req.ReadOffset, req.MaxChunkBytes = 100, 1024
		h.store.breaks = []int{1500, 0, 0, 0, 0, 0, 0}
		got, _, trailer, err := h.download(h.alice(), req)
		info := wantError(t, err, share.StorageTruncated)
		if sent := info.GetMetadata()["sentBytes"]; sent != share.Itoa(int64(len(got))) || trailer != nil {
			t.Errorf("sentBytes is %s, but %d bytes arrived", sent, len(got))
		}
		h.store.breaks = nil
		req.ReadOffset += int64(len(got))
		rest, _, _, err := h.download(h.alice(), req)
		if err != nil || !bytes.Equal(append(got, rest...), b[100:]) {
			t.Errorf("the two parts together differ from the file: %v", err)
		}
	})
}

// passingErrors are faults before the first byte that the server retries.
var passingErrors = map[string]func(h *harness){
	"store": func(h *harness) {
		h.store.fail("Get", kindError(share.StorageUnavailable))
		h.store.fail("Head", kindError(share.StorageUnavailable))
	},
	"URL rejected twice": func(h *harness) {
		h.store.fail("Get", kindError(share.StorageURLRejected), kindError(share.StorageURLRejected))
		h.store.fail("Head", kindError(share.StorageURLRejected), kindError(share.StorageURLRejected))
	},
	"URL request times out": func(h *harness) { h.lp.fail("DownloadURL", kindError(share.LPTimeout)) },
	"just published": func(h *harness) {
		h.store.fail("Get", kindError(share.FileNotFound))
		h.store.fail("Head", kindError(share.FileNotFound))
	},
}

func TestDownload_RetriesPassingErrors(t *testing.T) {
	for what, prepare := range passingErrors {
		t.Run(what, inBubble(func(t *testing.T) {
			h := newHarness(t)
			b := picture(100)
			name := h.addFile(path("a"), b)
			prepare(h)
			if got, _, _, err := h.download(h.alice(), byName(name)); err != nil || !bytes.Equal(got, b) {
				t.Errorf("got %d bytes, %v", len(got), err)
			}
		}))
	}
}

func TestStatFile_RetriesPassingErrors(t *testing.T) {
	for what, prepare := range passingErrors {
		t.Run(what, inBubble(func(t *testing.T) {
			h := newHarness(t)
			b := picture(100)
			name := h.addFile(path("a"), b)
			prepare(h)
			r, err := h.files.StatFile(h.alice(), &pb.StatFileRequest{Source: &pb.StatFileRequest_Name{Name: name}})
			if err != nil || r.GetFile().GetEtag() != string(describe(b).ETag) || r.GetFile().GetStoredSizeBytes() != 100 || r.GetFile().GetName() != name {
				t.Errorf("got %v, %v", r, err)
			}
		}))
	}
}

// readers returns the two methods that read a file, by name or by storage path.
func (h *harness) readers(name string, ref *pb.StorageRef) map[string]func(context.Context) error {
	get, stat := byName(name), &pb.StatFileRequest{Source: &pb.StatFileRequest_Name{Name: name}}
	if ref != nil {
		get.Source, stat.Source = &pb.DownloadRequest_Storage{Storage: ref}, &pb.StatFileRequest_Storage{Storage: ref}
	}
	return map[string]func(context.Context) error{
		"Download": func(ctx context.Context) error { _, _, _, err := h.download(ctx, get); return err },
		"StatFile": func(ctx context.Context) error { _, err := h.files.StatFile(ctx, stat); return err },
	}
}

func TestDownload_OnlyFilesInConversationsOfTheCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.store.keep(path("loose"), picture(10)) // LivePerson would sign its URL, and the store has it
		h.store.keep(path("bobs"), picture(10))
		h.lp.send("conv-bob", path("bobs"), "bob")
		h.addFile(path("ours"), picture(10))
		for what, f := range map[string]struct{ conversation, dialog, path string }{
			"in no message":                              {conversation, conversation, path("loose")},
			"in a conversation of another caller":        {"conv-bob", "conv-bob", path("bobs")},
			"of another conversation, named in this one": {conversation, conversation, path("bobs")},
			"in an unknown conversation":                 {"no-such", "no-such", path("ours")},
			"in another dialog":                          {conversation, "survey", path("ours")},
		} {
			for _, ref := range []*pb.StorageRef{nil, {Conversation: conversationName(account, f.conversation), DialogId: f.dialog, StoragePath: f.path}} {
				for method, read := range h.readers(fileName(account, f.conversation, f.dialog, f.path), ref) {
					t.Log(what, method)
					wantError(t, read(h.alice()), share.FileNotFound)
				}
			}
		}
		if n := h.lp.count("DownloadURL") + h.store.count("Get", "Head"); n != 0 {
			t.Errorf("%d calls were made for files that the caller may not read", n)
		}
		for _, dialog := range []string{"", conversation} {
			for _, read := range h.readers("", &pb.StorageRef{Conversation: parent, DialogId: dialog, StoragePath: path("ours")}) {
				if err := read(h.alice()); err != nil {
					t.Error(err)
				}
			}
		}
	})
}

func TestDownload_UnpublishedFileOnlyByItsUploader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		b := picture(100)
		f := h.put(b, storeOnly, func(s *pb.UploadSpec) { s.DisplayName = "mine.jpg" }).GetFile()
		if len(h.lp.messages()) != 0 || f.MessageSequence != nil {
			t.Error("the file was published")
		}
		for _, token := range []string{aliceToken, renewedToken} {
			got, header, _, err := h.download(h.as(token), byName(f.GetName()))
			if err != nil || !bytes.Equal(got, b) || header.GetFile().GetDisplayName() != "mine.jpg" {
				t.Errorf("got %v, %v", header, err)
			}
		}
		urls := h.lp.count("DownloadURL")
		for _, read := range h.readers(f.GetName(), nil) {
			wantError(t, read(h.as(bobToken)), share.FileNotFound)
		}
		elsewhere := fileName(account, "conv-closed", "conv-closed", f.GetStoragePath())
		for _, read := range h.readers(elsewhere, nil) { // the record belongs to one conversation
			wantError(t, read(h.alice()), share.FileNotFound)
		}
		if h.lp.count("DownloadURL") != urls {
			t.Error("a URL was requested")
		}
	})
}

func TestDownload_RejectsInvalidNamesAndPaths(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		for _, p := range []string{
			"/v1/AUTH_async/" + account + "/../x", "/v1/AUTH_async/" + account + "/./x", "/v1/AUTH_async/" + account + "/%2e%2e/x", "/v1/AUTH_async/" + account + "//x",
			"/v1/AUTH_async/" + account + "/x?temp_url_sig=1", "/v1/AUTH_async/" + account + "/x#y", "/v1/AUTH_async/" + account + "/a\\b", "/v1/AUTH_async/" + account + "/a b",
			"//evil.example/v1/AUTH_async/" + account + "/x", "https://evil.example/v1/AUTH_async/" + account + "/x", "/v1/AUTH_async/87654321/x",
			"/v1/AUTH_async/" + account, "/v1/AUTH_async/" + account + "/", "/v1/AUTH_@evil.example/" + account + "/x", "", "x",
		} {
			for _, read := range h.readers(fileName(account, conversation, conversation, p), nil) {
				wantError(t, read(h.alice()), share.StoragePathInvalid)
			}
			for _, read := range h.readers("", &pb.StorageRef{Conversation: parent, StoragePath: p}) {
				if err := read(h.alice()); status.Code(err) != codes.InvalidArgument {
					t.Errorf("%q: %v", p, err)
				}
			}
		}
		for _, name := range []string{"", parent, parent + "/files", "accounts/a/conversations/-/files/x", parent + "/files/a/b", "x" + parent + "/files/QQ"} {
			for _, read := range h.readers(name, nil) {
				wantError(t, read(h.alice()), share.InvalidField)
			}
		}
		good := fileName(account, conversation, conversation, path("a"))
		for _, name := range []string{good + "\n", good + "=", good[:len(good)-1] + "\r" + good[len(good)-1:], good + "!"} {
			for _, read := range h.readers(name, nil) {
				wantError(t, read(h.alice()), share.StoragePathInvalid)
			}
		}
		if h.lp.count("Session") != 0 {
			t.Error("a session was opened")
		}
	})
}

func TestDownload_EndsIfClientReadsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, func(c *Config) { c.ReadStall = 100 * time.Millisecond })
		stream, err := h.files.Download(h.alice(), byName(h.addFile(path("a"), picture(4<<20))))
		if err != nil {
			t.Fatal(err)
		}
		h.eventually("the download has ended", func() bool { return h.store.count("Get") == 1 && h.lp.sessions() == 0 })
		for err == nil {
			_, err = stream.Recv()
		}
		wantError(t, err, share.WatchTooSlow)
	})
}

func TestDownload_StopEndsItWithServerDraining(t *testing.T) {
	for what, hold := range map[string]func(h *harness, name string) error{
		"the client is slow": func(h *harness, name string) error {
			stream, err := h.files.Download(h.alice(), byName(name))
			if err != nil {
				return err
			}
			h.eventually("the transfer has begun", func() bool { return h.store.count("Get") == 1 })
			synctest.Wait()
			h.server.Stop()
			for err == nil {
				_, err = stream.Recv()
			}
			return err
		},
		"the store is slow": func(h *harness, name string) error {
			h.store.on("Get", func(ctx context.Context) error { h.server.Stop(); <-ctx.Done(); return context.Cause(ctx) })
			_, _, _, err := h.download(h.alice(), byName(name))
			return err
		},
	} {
		t.Run(what, inBubble(func(t *testing.T) {
			h := newHarness(t)
			wantError(t, hold(h, h.addFile(path("a"), picture(4<<20))), share.ServerDraining)
		}))
	}
}

func TestReceipts_OnlyForFilesOfOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, on := range []bool{true, false} {
			h := newHarness(t, set(func(s *Settings) { s.AccessReceipts, s.AcceptReceipts = on, on }))
			name := h.addFile(path("a"), picture(10)) // bob's
			own := h.put(picture(10)).GetFile().GetName()
			for _, n := range []string{name, own} {
				if _, _, _, err := h.download(h.alice(), byName(n)); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait()
			watch, _ := h.watch(h.alice(), parent, token{}.write(placeOfWatch, parent))
			for range 2 {
				if _, err := watch.Recv(); err != nil {
					t.Fatal(err)
				}
			}
			synctest.Wait() // receipts are sent in the background
			want := []string(nil)
			if on {
				want = []string{"accessed " + conversation + " 0", "accepted " + conversation + " 0"}
			}
			h.lp.state.Lock()
			got := slices.Clone(h.lp.marked)
			h.lp.state.Unlock()
			if !slices.Equal(got, want) {
				t.Errorf("receipts %t: %v, want %v", on, got, want)
			}
		}
	})
}
