package service

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/admission"
)

// TestCodec_EncodesChunksAsProtoDoes decodes what the codec makes of a chunk.
func TestCodec_EncodesChunksAsProtoDoes(t *testing.T) {
	for _, offset := range []int64{0, 1, 1 << 40} {
		for _, parts := range [][]int{{1}, {127}, {128}, {admission.BlockBytes}, {admission.BlockBytes, admission.BlockBytes, 5}} {
			chunk := &dataChunk{offset: offset}
			var data []byte
			for i, n := range parts {
				part := bytes.Repeat([]byte{byte(i + 1)}, n)
				data = append(data, part...)
				chunk.data = append(chunk.data, mem.SliceBuffer(part))
			}
			chunk.crc32c = crc32.Checksum(data, castagnoli)
			encoded, err := Codec().Marshal(chunk)
			if err != nil {
				t.Fatal(err)
			}
			var got pb.DownloadResponse
			if err := proto.Unmarshal(encoded.Materialize(), &got); err != nil {
				t.Fatal(err)
			}
			want := &pb.DownloadResponse{Payload: &pb.DownloadResponse_Chunk{Chunk: &pb.DataChunk{Offset: offset, Data: data, Crc32C: &chunk.crc32c}}}
			if !proto.Equal(&got, want) || len(got.ProtoReflect().GetUnknown()) > 0 {
				t.Errorf("offset %d, parts %v: the message differs", offset, parts)
			}
		}
	}
}

// TestDownload_EveryChunkSize downloads with every size that the memory or the client can choose. The pool does not clear blocks, so
// other downloads leave their bytes in them.
func TestDownload_EveryChunkSize(t *testing.T) {
	for _, memory := range []int64{4, 5, 6, 8, 12, 20, 40} {
		for _, most := range []int32{0, 1, 1000, 4096, 40_000, 65_535, 65_536, 65_537, 100_000, 200_000, 1 << 20} {
			t.Run(fmt.Sprintf("memory for %d downloads, chunks of %d", memory, most), inBubble(func(t *testing.T) {
				h := newHarness(t, func(c *Config) { c.DownloadMemory = memory * admission.MinDownloadBytes })
				var sizes []int
				for i, n := range []int{700_001, 65_536, 1, 131_072, 70_000} {
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
