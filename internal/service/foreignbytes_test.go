package service

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/admission"
)

// shortReads reads fewer bytes at a time than are asked for.
type shortReads struct {
	io.Reader
	random *rand.Rand
}

func (r *shortReads) Read(p []byte) (int, error) {
	if len(p) > 1 && r.random.IntN(4) > 0 {
		p = p[:1+r.random.IntN(len(p)-1)]
	}
	return r.Reader.Read(p)
}

// TestDownload_SendsNoForeignByte downloads different files, parts of them, in chunks of every kind, over sockets, at once, while the store reads
// short and breaks off, and other clients cancel. Every byte is compared.
func TestDownload_SendsNoForeignByte(t *testing.T) {
	h := newHarness(t, func(c *Config) {
		c.MaxStreamsPerCaller, c.QueueLength = 1000, 1000
		c.DownloadMemory = 20 * admission.MinDownloadBytes
	})
	var seed uint64
	h.store.body = func(r io.Reader) io.Reader { // the store's lock is held
		seed++
		return &shortReads{r, rand.New(rand.NewPCG(seed, 1))}
	}
	h.overTCP(t)
	random := rand.New(rand.NewPCG(1, 2))
	files, names := make([][]byte, 8), make([]string, 8)
	for i := range files {
		files[i] = make([]byte, 1+random.IntN(300_000))
		for j := range files[i] {
			files[i][j] = byte(random.IntN(0xDB)) // not what poisoningPool writes
		}
		names[i] = h.addFile(path(fmt.Sprint(i)), files[i])
	}
	for range 8 { // each costs a pause
		h.store.breaks = append(h.store.breaks, -1, 1+random.IntN(100_000), -1, -1)
	}
	var downloads sync.WaitGroup
	for range 8 {
		random := rand.New(rand.NewPCG(random.Uint64(), 3))
		downloads.Go(func() {
			for range 8 {
				i := random.IntN(len(files))
				want := files[i]
				req := byName(names[i])
				req.MaxChunkBytes = []int32{0, 1, 5000, 65_536, 100_000, 1 << 20}[random.IntN(6)]
				req.ReadOffset = int64(random.IntN(len(want)))
				req.ReadLimit = int64(1 + random.IntN(len(want)))
				want = want[req.ReadOffset:min(int64(len(want)), req.ReadOffset+req.ReadLimit)]
				if random.IntN(4) == 0 {
					h.cancelMidway(req)
					continue
				}
				got, _, trailer, err := h.download(h.alice(), req)
				if err != nil {
					t.Errorf("file %d from %d: %v", i, req.ReadOffset, err)
				} else if !bytes.Equal(got, want) || !proto.Equal(trailer.GetSentChecksums(), sumsOf(want)) {
					t.Errorf("file %d from %d, chunks of %d: the %d bytes differ from the file's %d", i, req.ReadOffset, req.MaxChunkBytes, len(got), len(want))
				}
			}
		})
	}
	downloads.Wait()
}

// cancelMidway begins a download and cancels it after its header.
func (h *harness) cancelMidway(req *pb.DownloadRequest) {
	ctx, cancel := context.WithCancel(h.alice())
	defer cancel()
	if stream, err := h.files.Download(ctx, req); err == nil {
		_, _ = stream.Recv()
	}
}

// overTCP serves the service over a socket too, and makes h.files use it.
func (h *harness) overTCP(t *testing.T) {
	t.Helper()
	server := grpc.NewServer(h.serverOptions(h.server.Config)...)
	h.server.Register(server)
	listener, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener)
	}()
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithStaticStreamWindowSize(64<<10), grpc.WithStaticConnWindowSize(1<<20))
	if err != nil {
		t.Fatal(err)
	}
	h.files = pb.NewFileSharingServiceClient(conn)
	t.Cleanup(func() {
		conn.Close()
		server.Stop()
		<-served
	})
}
