package recvlimit

import (
	"bytes"
	"encoding/binary"
	"io"
	"slices"
	"testing"

	"golang.org/x/net/http2"
)

// A script writes what a client sends.
type script struct {
	bytes.Buffer
	*http2.Framer
}

func newScript() *script {
	s := &script{}
	s.WriteString(http2.ClientPreface)
	s.Framer = http2.NewFramer(&s.Buffer, nil)
	s.AllowIllegalWrites = true
	return s
}

// open opens streams.
func (s *script) open(ids ...uint32) *script {
	for _, id := range ids {
		_ = s.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: []byte{0x82}, EndHeaders: true})
	}
	return s
}

// data sends a DATA frame with the parts.
func (s *script) data(id uint32, parts ...[]byte) *script {
	_ = s.WriteData(id, false, slices.Concat(parts...))
	return s
}

// prefix is the prefix of a gRPC message of n bytes.
func prefix(n uint32) []byte { return binary.BigEndian.AppendUint32([]byte{0}, n) }

func zeros(n int) []byte { return make([]byte, n) }

func TestAccount(t *testing.T) {
	for _, test := range []struct {
		name string
		sent *script
		held int64
		open int // streams
	}{
		{"nothing", newScript(), 0, 0},
		{"an open stream", newScript().open(1), 0, 1},
		{"part of a prefix", newScript().open(1).data(1, zeros(3)), frameCost(3), 1},
		{"a prefix in two frames", newScript().open(1).data(1, prefix(100)[:2]).data(1, prefix(100)[2:]), frameCost(2) + frameCost(3), 1},
		{"a prefix in two frames and the message", newScript().open(1).data(1, prefix(100)[:2]).data(1, prefix(100)[2:], zeros(100)), 0, 1},
		{"an unfinished message", newScript().open(1).data(1, prefix(100_000), zeros(10_000)).data(1, zeros(16384)), 2 * frameCost(16384), 1},
		{"a finished message", newScript().open(1).data(1, prefix(12_000), zeros(10_000)).data(1, zeros(2_000)), 0, 1},
		{"the rest of a frame", newScript().open(1).data(1, prefix(10), zeros(10), prefix(2000), zeros(1500)), frameCost(1520), 1},
		{"an empty message", newScript().open(1).data(1, prefix(0)), 0, 1},
		{"many messages in a frame", newScript().open(1).data(1, bytes.Repeat(prefix(0), 100)), 0, 1},
		{"an empty frame", newScript().open(1).data(1), 0, 1},
		{"two streams", newScript().open(1, 3).data(1, prefix(1000), zeros(10)).data(3, prefix(1000), zeros(20)), frameCost(15) + frameCost(25), 2},
		{"no such stream", newScript().open(1).data(3, prefix(1000)), 0, 1},
		{"a reset stream", func() *script {
			s := newScript().open(1, 3).data(1, prefix(1000)).data(3, prefix(1000))
			_ = s.WriteRSTStream(1, http2.ErrCodeCancel)
			return s.data(1, zeros(10))
		}(), frameCost(5), 1},
		{"a stream that ends within a message", func() *script {
			s := newScript().open(1)
			_ = s.WriteData(1, true, prefix(1000))
			return s
		}(), 0, 0},
		{"a stream that ends with its headers", func() *script {
			s := newScript()
			_ = s.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}, EndHeaders: true, EndStream: true})
			return s
		}(), 0, 0},
		{"padding", func() *script {
			s := newScript().open(1)
			_ = s.WriteDataPadded(1, false, prefix(1000), zeros(200))
			return s
		}(), frameCost(206), 1},
		{"padding alone", func() *script {
			s := newScript().open(1)
			_ = s.WriteDataPadded(1, false, nil, zeros(200))
			return s
		}(), 0, 1},
		{"a message before padding", func() *script {
			s := newScript().open(1)
			_ = s.WriteDataPadded(1, false, slices.Concat(prefix(3), zeros(3)), zeros(200))
			return s
		}(), 0, 1},
		{"headers with CONTINUATION", func() *script {
			s := newScript()
			_ = s.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x82}})
			_ = s.WriteContinuation(1, true, []byte{0x84})
			return s.data(1, prefix(7))
		}(), frameCost(5), 1},
		{"frames of other types", func() *script {
			s := newScript()
			_ = s.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
			_ = s.WritePing(false, [8]byte{})
			_ = s.WriteWindowUpdate(0, 1)
			_ = s.WriteGoAway(0, http2.ErrCodeNo, []byte("debug"))
			_ = s.WriteRawFrame(0x77, 0xff, 1, zeros(100))
			return s.open(1).data(1, prefix(7))
		}(), frameCost(5), 1},
		{"a frame over the limit", newScript().open(1).data(1, prefix(1<<20), zeros(100_000)), frameCost(16384), 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			sent := test.sent.Bytes()
			for _, step := range []int{1, 7, len(sent)} {
				a := newAccount()
				for part := range slices.Chunk(sent, step) {
					a.read(part, 0)
				}
				if a.held != test.held || len(a.streams) != test.open || !a.betweenFrames() {
					t.Errorf("read by %d bytes: held %d, %d streams, between frames %t; want %d, %d, true", step, a.held, len(a.streams), a.betweenFrames(), test.held, test.open)
				}
			}
		})
	}
}

// TestAccount_Progress has a message of which less than progressBytes arrive, and then more.
func TestAccount_Progress(t *testing.T) {
	a := newAccount()
	a.read(newScript().open(1).data(1, prefix(1<<20), zeros(1000)).Bytes(), 10)
	a.read(newScript().data(1, zeros(progressBytes-2000)).Bytes()[prefaceLen:], 20)
	if s := a.streams[1]; s.begun != 10 || s.moved != 10 {
		t.Errorf("begun %d and moved %d, want 10 and 10", s.begun, s.moved)
	}
	a.read(newScript().data(1, zeros(1000)).Bytes()[prefaceLen:], 30)
	if s := a.streams[1]; s.begun != 10 || s.moved != 30 {
		t.Errorf("begun %d and moved %d, want 10 and 30", s.begun, s.moved)
	}
}

func TestAccount_Boundary(t *testing.T) {
	s := newScript().open(1).data(1, prefix(1000), zeros(500))
	_ = s.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: []byte{0x82}}) // its block goes on
	sent := s.Bytes()
	a := newAccount()
	for len(sent) > 0 {
		n := a.toBoundary()
		if n <= 0 || n > len(sent) {
			t.Fatalf("%d bytes to the boundary, and %d are left", n, len(sent))
		}
		a.read(sent[:n], 0)
		sent = sent[n:]
	}
	if a.betweenFrames() {
		t.Error("a frame could be inserted into a header block")
	}
}

// FuzzAccount holds an account against what http2.Framer reads of the same bytes.
func FuzzAccount(f *testing.F) {
	f.Add(newScript().open(1).data(1, prefix(100), zeros(50)).data(1, zeros(50), prefix(3)).Bytes()[prefaceLen:], uint8(3))
	padded := newScript().open(1, 3)
	_ = padded.WriteDataPadded(1, false, prefix(9), zeros(9))
	_ = padded.WriteDataPadded(3, true, prefix(9), zeros(9))
	_ = padded.WriteRSTStream(1, 0)
	f.Add(padded.Bytes()[prefaceLen:], uint8(200))
	f.Add([]byte("\x00\x00\x05\x00\x08\x00\x00\x00\x01\xff"), uint8(1))
	f.Fuzz(func(t *testing.T, sent []byte, step uint8) {
		a := newAccount()
		a.read([]byte(http2.ClientPreface), 0)
		for part := range slices.Chunk(sent, int(step)+1) {
			a.read(part, 0)
			var sum int64
			for _, s := range a.streams {
				sum += s.held
			}
			if a.held < 0 || a.held != sum {
				t.Fatalf("held %d, and the streams %d", a.held, sum)
			}
			if n := a.toBoundary(); n <= 0 {
				t.Fatalf("%d bytes to the boundary", n)
			}
		}
		want, whole := reference(sent)
		if !whole || a.have > 0 || a.left > 0 {
			return // the Framer found an error, with which grpc-go closes the connection, or the last frame is cut
		}
		if len(a.streams) != len(want) {
			t.Fatalf("%d streams, want %d", len(a.streams), len(want))
		}
		for id, w := range want {
			if s := a.streams[id]; s == nil || s.held != w.held || s.left != w.left {
				t.Errorf("stream %d: %+v, want %+v", id, s, w)
			}
		}
	})
}

// reference is the account of whole frames. whole reports that sent is made of valid frames only.
func reference(sent []byte) (streams map[uint32]*stream, whole bool) {
	streams = make(map[uint32]*stream)
	framer := http2.NewFramer(io.Discard, bytes.NewReader(sent))
	framer.SetMaxReadFrameSize(1<<24 - 1)
	waiting := make(map[uint32][]byte) // the bytes of each stream's unfinished message
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			return streams, err == io.EOF
		}
		id := frame.Header().StreamID
		end := false
		switch f := frame.(type) {
		case *http2.HeadersFrame:
			if end = f.StreamEnded(); !end && streams[id] == nil {
				streams[id] = &stream{}
			}
		case *http2.DataFrame:
			s := streams[id]
			if s == nil {
				continue
			}
			if len(f.Data()) > 0 {
				s.held += frameCost(int(f.Length))
			}
			b := append(waiting[id], f.Data()...)
			for len(b) >= prefixLen && uint64(len(b)-prefixLen) >= uint64(binary.BigEndian.Uint32(b[1:])) {
				if b = b[prefixLen+binary.BigEndian.Uint32(b[1:]):]; len(b) > 0 {
					s.held = frameCost(int(f.Length))
				} else {
					s.held = 0
				}
			}
			waiting[id] = b
			if s.left = 0; len(b) >= prefixLen {
				s.left = int64(binary.BigEndian.Uint32(b[1:])) - int64(len(b)-prefixLen)
			}
			end = f.StreamEnded()
		case *http2.RSTStreamFrame:
			end = true
		}
		if end {
			delete(streams, id)
			delete(waiting, id)
		}
	}
}

func TestSentReader(t *testing.T) {
	var out bytes.Buffer
	framer := http2.NewFramer(&out, nil)
	_ = framer.WriteSettings()
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x88}, EndHeaders: true})
	_ = framer.WriteData(1, false, zeros(1000))
	_ = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte{0x88}, EndHeaders: true, EndStream: true})
	_ = framer.WriteRSTStream(3, http2.ErrCodeProtocol)
	_ = framer.WriteRSTStream(5, http2.ErrCodeProtocol)
	_ = framer.WriteData(7, true, nil)
	sent := out.Bytes()
	before := bytes.Clone(sent)
	for _, step := range []int{1, 4, 13, len(sent)} {
		var r sentReader
		var ended []uint32
		var got bytes.Buffer
		for part := range slices.Chunk(sent, step) {
			got.Write(r.read(part, func(id uint32, reset bool) bool {
				ended = append(ended, id)
				return reset && id == 5
			}))
		}
		if !slices.Equal(ended, []uint32{1, 3, 5, 7}) {
			t.Errorf("written by %d bytes: %d ended", step, ended)
		}
		if !bytes.Equal(sent, before) {
			t.Fatal("the caller's bytes were changed")
		}
		codes := map[uint32]http2.ErrCode{}
		framer := http2.NewFramer(nil, &got)
		for {
			f, err := framer.ReadFrame()
			if err != nil {
				break
			}
			if r, ok := f.(*http2.RSTStreamFrame); ok {
				codes[r.StreamID] = r.ErrCode
			}
		}
		if codes[3] != http2.ErrCodeProtocol || codes[5] != http2.ErrCodeRefusedStream {
			t.Errorf("written by %d bytes: streams were reset with %v", step, codes)
		}
	}
}

func BenchmarkAccount(b *testing.B) {
	s := newScript().open(1)
	a := newAccount()
	a.read(s.Bytes(), 0)
	s.Reset()
	s.data(1, prefix(1<<31-1), zeros(16384-5))
	first := bytes.Clone(s.Bytes())
	s.Reset()
	s.data(1, zeros(16384))
	a.read(first, 0)
	b.SetBytes(16384)
	b.ReportAllocs()
	for b.Loop() {
		a.read(s.Bytes(), 0)
		a.streams[1].left = 1 << 31
	}
}
