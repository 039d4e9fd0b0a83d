package load

import (
	"bytes"
	"errors"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// split returns a message in buffers of n bytes.
func split(message []byte, n int) *received {
	m := &received{}
	for len(message) > 0 {
		size := min(n, len(message))
		m.data = append(m.data, mem.SliceBuffer(message[:size]))
		message = message[size:]
	}
	return m
}

func TestCompareChunk(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789"), 30)
	chunk, err := proto.Marshal(&pb.DownloadResponse{Payload: &pb.DownloadResponse_Chunk{Chunk: &pb.DataChunk{Offset: 1 << 40, Data: data, Crc32C: proto.Uint32(1)}}})
	if err != nil {
		t.Fatal(err)
	}
	header, err := proto.Marshal(&pb.DownloadResponse{Payload: &pb.DownloadResponse_Header{Header: &pb.DownloadHeader{File: &pb.File{Name: "a"}}}})
	if err != nil {
		t.Fatal(err)
	}
	// The same chunk as another encoder may write it: the sum first, and an unknown field.
	var other []byte
	other = protowire.AppendFixed32(protowire.AppendTag(other, 3, protowire.Fixed32Type), 1)
	other = protowire.AppendBytes(protowire.AppendTag(other, 99, protowire.BytesType), []byte("unknown"))
	other = protowire.AppendBytes(protowire.AppendTag(other, 2, protowire.BytesType), data)
	other = protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), other)

	changed := bytes.Clone(data)
	changed[len(changed)-1]++
	for _, c := range []struct {
		name    string
		message []byte
		want    []byte // what the download must continue with
		n       int
		err     error
	}{
		{"chunk", chunk, append(bytes.Clone(data), "more"...), len(data), nil},
		{"other order", other, data, len(data), nil},
		{"header", header, data, 0, nil},
		{"other bytes", chunk, changed, len(data), errDiffers},
		{"more than was stored", chunk, data[:len(data)-1], len(data), errDiffers},
	} {
		for _, size := range []int{1, 7, 1 << 20} {
			n, err := split(c.message, size).compareChunk(c.want, make([]byte, 16))
			if n != c.n || !errors.Is(err, c.err) {
				t.Errorf("%s in buffers of %d: %d, %v, want %d, %v", c.name, size, n, err, c.n, c.err)
			}
		}
	}
}
