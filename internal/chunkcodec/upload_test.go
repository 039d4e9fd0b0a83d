package chunkcodec

import (
	"bytes"
	"slices"
	"testing"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// message encodes a message. Its fields are in the order of their numbers.
func message(t testing.TB, m *pb.UploadRequest) []byte {
	t.Helper()
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func field(number protowire.Number, value []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, number, protowire.BytesType), value)
}

// encodings are encodings of UploadRequests, valid and not.
func encodings(t testing.TB) map[string][]byte {
	data := bytes.Repeat([]byte("0123456789abcdef"), 40)
	chunk := &pb.DataChunk{Offset: 1 << 40, Data: data, Crc32C: new(uint32(7))}
	spec := &pb.UploadSpec{Conversation: "accounts/1/conversations/2", SizeBytes: new(int64(5))}
	finish := &pb.UploadFinish{Checksums: &pb.Checksums{Crc32C: new(uint32(9))}}
	plain := message(t, &pb.UploadRequest{Chunk: chunk})
	offset, bytesOf, crc := []byte{1 << 3, 5}, field(2, data), []byte{3<<3 | 5, 1, 2, 3, 4}
	of := func(parts ...[]byte) []byte { return field(3, slices.Concat(parts...)) }
	specOnly := message(t, &pb.UploadRequest{FirstMessage: &pb.UploadRequest_Spec{Spec: spec}})
	group := []byte{9<<3 | 3, 1 << 3, 1, 9<<3 | 4}
	return map[string][]byte{
		"empty":                   {},
		"chunk":                   plain,
		"chunk without data":      message(t, &pb.UploadRequest{Chunk: &pb.DataChunk{Offset: -1}}),
		"empty chunk":             of(),
		"negative offset":         message(t, &pb.UploadRequest{Chunk: &pb.DataChunk{Offset: -1, Data: data}}),
		"empty data":              of(field(2, nil)),
		"data last":               of(offset, crc, bytesOf),
		"data first":              of(bytesOf, crc, offset),
		"data twice":              of(bytesOf, offset, field(2, data[:7])),
		"offset twice":            of(offset, bytesOf, []byte{1 << 3, 6}),
		"chunk twice":             slices.Concat(plain, of(offset)),
		"chunk in two":            slices.Concat(of(offset, bytesOf), of(crc)),
		"everything":              message(t, &pb.UploadRequest{FirstMessage: &pb.UploadRequest_Spec{Spec: spec}, Chunk: chunk, Finish: finish}),
		"finish before chunk":     slices.Concat(field(4, nil), plain),
		"spec":                    specOnly,
		"spec in two":             slices.Concat(specOnly, plain, field(1, field(2, []byte("d")))),
		"finish in two":           slices.Concat(field(4, field(1, crc)), plain, field(4, nil)),
		"spec not UTF-8":          field(1, field(1, []byte{0xff})),
		"spec truncated":          field(1, []byte{1<<3 | 2, 9}),
		"unknown field":           slices.Concat(field(77, data), plain),
		"unknown field of chunk":  of(offset, field(77, []byte("x")), bytesOf),
		"reserved field 2":        slices.Concat(field(2, data), plain),
		"group":                   slices.Concat(plain, group),
		"group in chunk":          of(bytesOf, group),
		"group without end":       of(bytesOf, group[:3]),
		"end of no group":         of(bytesOf, group[3:]),
		"chunk is a varint":       {3 << 3, 1},
		"data is a varint":        of([]byte{2 << 3, 1}),
		"offset is bytes":         of(field(1, []byte{1})),
		"CRC-32C is a varint":     of([]byte{3 << 3, 1}),
		"tag in two bytes":        of([]byte{2<<3 | 2 | 0x80, 0, 1, 'x'}),
		"length in three bytes":   of([]byte{2<<3 | 2, 0x81, 0x80, 0, 'x'}),
		"offset in ten bytes":     of([]byte{1 << 3, 0x85, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0}),
		"offset of 65 bits":       of([]byte{1 << 3, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2}),
		"offset in eleven bytes":  of([]byte{1 << 3, 0x85, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0}),
		"data longer than chunk":  slices.Concat([]byte{3<<3 | 2, 3, 2<<3 | 2, 5, 'x'}, data),
		"data longer than all":    of([]byte{2<<3 | 2, 5, 'x'}),
		"length of 64 bits":       of([]byte{2<<3 | 2, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}),
		"truncated in data":       plain[:len(plain)/2],
		"truncated in CRC-32C":    plain[:len(plain)-1],
		"truncated before data":   plain[:9],
		"truncated in CRC of all": of(crc[:4]),
		"field number 0":          slices.Concat(plain, []byte{2, 0}),
	}
}

// A countingPool counts its buffers, and overwrites those that are returned.
type countingPool struct{ out int }

func (p *countingPool) Get(n int) *[]byte {
	p.out++
	b := make([]byte, n, max(n, 2048)) // gRPC does not return smaller ones
	return &b
}

func (p *countingPool) Put(b *[]byte) {
	p.out--
	for i := range *b {
		(*b)[i] = 0xdb
	}
}

// buffers returns wire in buffers of a pool, of at most size bytes, except that the first one has at most first bytes.
func buffers(pool mem.BufferPool, wire []byte, first, size int) mem.BufferSlice {
	var parts mem.BufferSlice
	for n := first; len(wire) > 0; n = size {
		n = min(n, len(wire))
		b := pool.Get(n)
		copy(*b, wire)
		parts = append(parts, mem.NewBuffer(b, pool))
		wire = wire[n:]
	}
	return parts
}

// checkSame decodes wire into m and with gRPC's codec, and compares.
func checkSame(t *testing.T, m *UploadRequest, wire []byte, first, size int) {
	t.Helper()
	codec, pool := New(), new(countingPool)
	want := new(pb.UploadRequest)
	wantErr := codec.CodecV2.Unmarshal(mem.BufferSlice{mem.SliceBuffer(wire)}, want)
	parts := buffers(pool, wire, first, size)
	err := codec.Unmarshal(parts, m)
	parts.Free() // as gRPC does
	switch {
	case (err == nil) != (wantErr == nil) || err != nil && err.Error() != wantErr.Error():
		t.Fatalf("got the error %v, want %v", err, wantErr)
	case err == nil:
		got := proto.Clone(&m.UploadRequest).(*pb.UploadRequest)
		if data := m.Data.Materialize(); len(data) > 0 {
			got.Chunk.Data = data
		}
		if !proto.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	}
	m.Data.Free()
	if pool.out != 0 {
		t.Errorf("%d buffers were not returned", pool.out)
	}
	m.Data = m.Data[:0]
}

func TestUnmarshal_SameAsProto(t *testing.T) {
	var m UploadRequest // for all, as in a stream
	for range 2 {
		for name, wire := range encodings(t) {
			t.Run(name, func(t *testing.T) {
				for _, size := range []int{1, 7, 100, 1 << 20} {
					checkSame(t, &m, wire, size, size)
					checkSame(t, &m, wire, 1, size)
				}
			})
		}
	}
}

func FuzzUnmarshal(f *testing.F) {
	for _, wire := range encodings(f) {
		f.Add(wire, uint8(3), uint8(200))
	}
	f.Fuzz(func(t *testing.T, wire []byte, first, size uint8) {
		var m UploadRequest
		checkSame(t, &m, []byte{3<<3 | 2, 9, 2<<3 | 2, 0, 3<<3 | 5, 1, 2, 3, 4}, 3, 3)
		checkSame(t, &m, wire, int(first)+1, int(size)+1) // overwrites it
	})
}

// TestUnmarshal_InPlace decodes what generated clients send without copying the data, and without allocating.
func TestUnmarshal_InPlace(t *testing.T) {
	all := encodings(t)
	for _, name := range []string{"chunk", "negative offset", "data last", "data first", "everything", "finish before chunk"} {
		t.Run(name, func(t *testing.T) {
			codec, pool := New(), new(countingPool)
			parts := buffers(pool, all[name], 200, 200)
			var m UploadRequest
			if err := codec.Unmarshal(parts, &m); err != nil {
				t.Fatal(err)
			}
			if len(m.Data) < 3 || cap(m.Data[1].ReadOnlyData()) != 2048 {
				t.Errorf("the data was copied into %d buffers", len(m.Data))
			}
			m.Data.Free()
			if name == "everything" || name == "finish before chunk" {
				return
			}
			if n := testing.AllocsPerRun(100, func() {
				_ = codec.Unmarshal(parts, &m)
				m.Data.Free()
			}); n >= 1 {
				t.Errorf("%v allocations", n)
			}
		})
	}
}
