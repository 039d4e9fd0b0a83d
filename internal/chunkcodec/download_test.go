package chunkcodec

import (
	"bytes"
	"testing"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/proto"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// FuzzDownloadChunk decodes with gRPC's codec what Codec makes of a chunk whose data lies in parts.
func FuzzDownloadChunk(f *testing.F) {
	for _, offset := range []int64{0, 1, 1 << 40, -1} {
		for _, size := range []int{1, 127, 128, 65_536, 131_077} {
			f.Add(offset, uint32(size)*0x9E3779B9, bytes.Repeat([]byte{7}, size), uint32(65_536))
		}
	}
	f.Add(int64(3), uint32(0), []byte("abc"), uint32(1))
	f.Fuzz(func(t *testing.T, offset int64, sum uint32, data []byte, part uint32) {
		if len(data) == 0 {
			return
		}
		chunk := &DownloadChunk{Offset: offset, CRC32C: sum}
		for rest := data; len(rest) > 0; {
			n := min(len(rest), max(int(part%100_000), len(data)/100+1))
			chunk.Data = append(chunk.Data, mem.SliceBuffer(rest[:n]))
			rest = rest[n:]
		}
		encoded, err := New().Marshal(chunk)
		if err != nil {
			t.Fatal(err)
		}
		var got pb.DownloadResponse
		if err := encoding.GetCodecV2("proto").Unmarshal(encoded, &got); err != nil {
			t.Fatal(err)
		}
		want := &pb.DownloadResponse{Payload: &pb.DownloadResponse_Chunk{Chunk: &pb.DataChunk{Offset: offset, Data: data, Crc32C: &sum}}}
		if !proto.Equal(&got, want) {
			t.Errorf("offset %d, %d bytes in %d parts: the message differs", offset, len(data), len(chunk.Data))
		}
	})
}

func TestTracked_ReportsWhenItIsFreed(t *testing.T) {
	for _, size := range []int{0, 10, 3000, 40_000} {
		written := make(chan struct{}, 1)
		want := &pb.DownloadResponse{Payload: &pb.DownloadResponse_Chunk{Chunk: &pb.DataChunk{Data: bytes.Repeat([]byte{7}, size)}}}
		encoded, err := New().Marshal(&Tracked{Message: want, Written: written})
		if err != nil {
			t.Fatal(err)
		}
		var got pb.DownloadResponse
		if err := proto.Unmarshal(encoded.Materialize(), &got); err != nil || !proto.Equal(&got, want) {
			t.Errorf("%d bytes: the message differs: %v", size, err)
		}
		if len(written) != 0 {
			t.Errorf("%d bytes: reported before it was freed", size)
		}
		encoded.Free()
		if len(written) != 1 {
			t.Errorf("%d bytes: not reported", size)
		}
	}
}
