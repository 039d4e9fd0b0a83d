package service

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// TestDownload_EveryChunkSize downloads with every size that the memory or the client can choose. The pool does not clear blocks, so
// other downloads leave their bytes in them.
func TestDownload_EveryChunkSize(t *testing.T) {
	for _, memory := range []int64{4, 5, 6, 8, 12, 20, 40} {
		for _, most := range []int32{0, 1, 4096, 40_000, 65_535, 65_536, 65_537, 100_000, 200_000, 1 << 20} {
			t.Run(fmt.Sprintf("memory for %d downloads, chunks of %d", memory, most), inBubble(func(t *testing.T) {
				h := newHarness(t, func(c *Config) { c.DownloadMemory = memory * admission.MinDownloadBytes })
				large := 700_001
				if most > 0 && most < 40_000 { // many small chunks are slow
					large = 140_001
				}
				var sizes []int
				for i, n := range []int{large, 65_536, 1, 131_072, 70_000} {
					b := picture(n)
					name := h.addFile(path(fmt.Sprint(i)), b)
					req := byName(name)
					req.MaxChunkBytes = most
					got, header, trailer, err := h.download(h.alice(), req)
					if err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(got, b) || header.GetContentRange().GetEndBytes() != int64(n) || !proto.Equal(trailer.GetSentChecksums(), sumsOf(b)) {
						t.Errorf("the %d bytes differ from the %d of the file", len(got), n)
					}
					sizes = append(sizes, len(got))
				}
				synctest.Wait()
				if u := h.server.downloads.Usage(); u.FreeBytes != memory*admission.MinDownloadBytes || u.Callers != 0 {
					t.Errorf("after %v bytes %+v is left over", sizes, u)
				}
			}))
		}
	}
}

// TestDownload_FailuresReturnBlocks ends downloads in the middle of a chunk, and of a block that is divided into chunks.
func TestDownload_FailuresReturnBlocks(t *testing.T) {
	for _, most := range []int32{0, 1024} {
		for what, end := range map[string]func(h *harness, req *pb.DownloadRequest) error{
			"the store fails": func(h *harness, req *pb.DownloadRequest) error {
				h.store.breaks = []int{100_000, 0, 0, 0, 0, 0, 0}
				_, _, _, err := h.download(h.alice(), req)
				return err
			},
			"the client cancels": func(h *harness, req *pb.DownloadRequest) error {
				ctx, cancel := context.WithCancel(h.alice())
				defer cancel()
				stream, err := h.files.Download(ctx, req)
				if err != nil {
					return err
				}
				synctest.Wait() // its window is full
				cancel()
				for err == nil {
					_, err = stream.Recv()
				}
				return err
			},
			"the client reads nothing": func(h *harness, req *pb.DownloadRequest) error {
				stream, err := h.files.Download(h.alice(), req)
				if err != nil {
					return err
				}
				time.Sleep(2 * h.server.ReadStall)
				for err == nil {
					_, err = stream.Recv()
				}
				return err
			},
		} {
			t.Run(fmt.Sprintf("%s, chunks of %d", what, most), inBubble(func(t *testing.T) {
				h := newHarness(t)
				req := byName(h.addFile(path("a"), picture(1_000_000)))
				req.MaxChunkBytes = most
				if err := end(h, req); err == nil || err == io.EOF {
					t.Fatal("the download succeeded")
				}
				synctest.Wait()
				if u := h.server.downloads.Usage(); u.FreeBytes != h.server.DownloadMemory || u.Callers != 0 {
					t.Errorf("%+v is left over of %d", u, h.server.DownloadMemory)
				}
			}))
		}
	}
}

func TestDownload_WithoutMemoryIsRejectedBeforeTheStoreIsAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t, func(c *Config) { c.DownloadMemory, c.QueueLength = 4*admission.MinDownloadBytes, 1 })
		req := byName(h.addFile(path("a"), picture(1_000_000)))
		ctx, cancel := context.WithCancel(h.alice())
		for range 2 { // together they have half of the memory, or one has it and the other is queued; their clients read nothing
			if _, err := h.files.Download(ctx, req); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		before := h.store.count("Get")
		_, _, _, err := h.download(h.alice(), req)
		if limit := wantError(t, err, share.TooManyStreams).GetMetadata()["limit"]; limit != "memory" {
			t.Errorf("the limit is %q", limit)
		}
		if n := h.store.count("Get"); n != before {
			t.Errorf("%d GETs, want %d", n, before)
		}
		cancel()
		synctest.Wait() // their memory is returned
		if _, _, _, err := h.download(h.alice(), req); err != nil {
			t.Error(err)
		}
	})
}
