package upload

import (
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/experimental"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/bufpool"
	"github.com/lpfileshare/lpfileshare/internal/chunkcodec"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A countingPool is a bufpool.Pool that counts what is taken.
type countingPool struct {
	bufpool.Pool
	mu    sync.Mutex
	taken map[*byte]int // capacities, by the address of the first byte
}

func (p *countingPool) Get(n int) *[]byte {
	b := p.Pool.Get(n)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken[&(*b)[:1][0]] = cap(*b)
	return b
}

func (p *countingPool) Put(b *[]byte) {
	p.mu.Lock()
	delete(p.taken, &(*b)[:1][0])
	p.mu.Unlock()
	p.Pool.Put(b)
}

func (p *countingPool) occupied() (n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.taken {
		n += int64(c)
	}
	return n
}

// TestSpool_CollectedFrames has gRPC collect tiny frames, and the large one after them, in buffers. The spool must not keep the end of such
// a buffer as if it were a whole one. The sizes in bufpool make sure of that; they depend on thresholds in gRPC.
func TestSpool_CollectedFrames(t *testing.T) {
	pool := &countingPool{taken: map[*byte]int{}}
	received, result := make(chan struct{}), make(chan [2]int64, 1)
	server := grpc.NewServer(grpc.ForceServerCodecV2(chunkcodec.New()), experimental.BufferPool(pool),
		grpc.StaticStreamWindowSize(1<<20), grpc.StaticConnWindowSize(4<<20),
		grpc.UnknownServiceHandler(func(_ any, stream grpc.ServerStream) error {
			<-received
			s := newSpool(testMemory(), -1)
			var m chunkcodec.UploadRequest
			for stream.RecvMsg(&m) == nil {
				var c Chunk
				for _, b := range m.Data {
					c.Data = append(c.Data, b)
				}
				s.add(c)
			}
			result <- [2]int64{s.n, pool.occupied() + int64(len(s.pages))*admission.PageBytes}
			return nil
		}))
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	defer serving.Wait()
	defer server.Stop()
	serving.Go(func() { _ = server.Serve(listener) })
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sendFrames(t, conn)
	close(received)
	if r := <-result; r[0] == 0 || r[1] > wholeBlocks(r[0]) {
		t.Errorf("%d bytes of a file occupy %d, and %d are reserved for them", r[0], r[1], wholeBlocks(r[0]))
	}
}

// sendFrames sends an upload whose chunks of one byte, with much around it, arrive in frames of 24 bytes, and whose large chunks begin where
// their frames begin. It returns when the server has received all frames.
func sendFrames(t *testing.T, conn net.Conn) {
	_, _ = io.WriteString(conn, http2.ClientPreface)
	f := http2.NewFramer(conn, conn)
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(f.WriteSettings())
	check(f.WriteSettingsAck())
	var headers headerBlock
	e := hpack.NewEncoder(&headers)
	for _, h := range [][2]string{{":method", "POST"}, {":scheme", "http"}, {":path", "/a/b"}, {":authority", "x"}, {"content-type", "application/grpc"}, {"te", "trailers"}} {
		check(e.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]}))
	}
	check(f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: headers, EndHeaders: true}))
	prefixed := func(message []byte) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	}
	chunk := func(fields []byte) []byte {
		return protowire.AppendBytes(protowire.AppendTag(nil, 3, protowire.BytesType), fields)
	}
	for range 30 {
		data := make([]byte, 16<<10)
		large := prefixed(chunk(protowire.AppendBytes(protowire.AppendTag([]byte{8, 0x80, 0x80, 0x40}, 2, protowire.BytesType), data)))
		head := large[:len(large)-len(data)]
		one := chunk([]byte{0x12, 1, 'x'})
		unknown := protowire.AppendBytes(protowire.AppendTag(nil, 77, protowire.BytesType), make([]byte, 16<<10-len(head)-5-len(one)-4))
		tiny := append(prefixed(append(unknown, one...)), head...) // 16 KiB
		for len(tiny) > 0 {
			n := min(24, len(tiny))
			check(f.WriteData(1, false, tiny[:n]))
			tiny = tiny[n:]
		}
		check(f.WriteData(1, false, data))
	}
	check(f.WriteData(1, true, nil))
	check(f.WritePing(false, [8]byte{1})) // the server answers it when it has handled the frames before it
	for {
		frame, err := f.ReadFrame()
		check(err)
		if p, ok := frame.(*http2.PingFrame); ok && p.IsAck() {
			return
		}
	}
}

type headerBlock []byte

func (b *headerBlock) Write(p []byte) (int, error) { *b = append(*b, p...); return len(p), nil }

// TestReader_ChunkThatWaitsIsCopied has a chunk in small frames, whose buffers are four times as large as its bytes, wait for memory.
func TestReader_ChunkThatWaitsIsCopied(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pool := new(poisoning)
		var c Chunk
		for data := pattern(1 << 20); len(data) > 0; {
			n := min(1025, len(data))
			c.Data = append(c.Data, pool.buffer(4<<10, 0, data[:n]))
			data = data[n:]
		}
		memory := admission.NewMemory(admission.Limits{Budget: 8 << 20, UploadsPerCaller: 64, QueueLength: 10, QueueTimeout: time.Second, Now: time.Now})
		reserve := func(id string, first, most int64) *admission.Reservation {
			r, err := memory.Reserve(t.Context(), admission.HolderOf(share.Principal{Account: id, ID: id}), first, most, true)
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		reserve("b", 4<<20, 4<<20)
		other, own := reserve("c", 1, 3_000_000), reserve("a", 1, 3_000_000)
		if err := other.Grow(t.Context(), 2<<20, time.Second, func() { t.Error("the other upload waits") }); err != nil {
			t.Fatal(err)
		}
		reserve("d", 512<<10, 512<<10)
		e := New(Config{Memory: memory, Processors: admission.NewProcessors(2), Now: time.Now, IdleTimeout: 30 * time.Second})
		tr := &transfer{Engine: e, memory: own, source: &oneChunk{c: c}, session: anyone{}}
		r := &reader{transfer: tr, spool: newSpool(memory, -1), declared: -1, limit: 3_000_000, ended: make(chan error, 1), begun: time.Now()}
		done := make(chan error, 1)
		go func() { done <- r.run(t.Context()) }()
		synctest.Wait()
		if !r.waiting.Load() || pool.occupied != 0 {
			t.Errorf("waiting: %t, and gRPC's buffers occupy %d bytes; want none", r.waiting.Load(), pool.occupied)
		}
		if err := <-done; err == nil {
			t.Error("the chunk got memory, although there was none")
		}
	})
}

// oneChunk is a source of one chunk.
type oneChunk struct {
	Source
	c Chunk
}

func (o *oneChunk) Next() (Chunk, error) {
	c := o.c
	if o.c.Data = nil; c.Data == nil {
		return Chunk{}, io.EOF
	}
	return c, nil
}

type anyone struct{ Session }

func (anyone) Principal() share.Principal { return share.Principal{Account: "1", ID: "a"} }
