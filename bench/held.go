package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/lpfileshare/lpfileshare/bench/load"
	"github.com/lpfileshare/lpfileshare/bench/proc"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

const mib = 1 << 20

// A memory is what a server holds after a garbage collection, in MiB.
type memory struct{ resident, heap, stacks float64 }

func holds(job *load.Job) (m memory, err error) {
	resp, err := http.Get("http://" + job.Debug + "/debug/gc")
	if err != nil {
		return m, err
	}
	_, _ = io.Copy(io.Discard, resp.Body)
	_ = resp.Body.Close()
	h, err := proc.ReadHeap(job.Debug)
	if err != nil {
		return m, err
	}
	resident, err := proc.Memory(job.PIDs, "VmRSS")
	return memory{float64(resident) / mib, float64(h.HeapAlloc) / mib, float64(h.StackInuse) / mib}, err
}

// sessions opens sessions, which stay idle, and measures the server's memory on the way.
func (g *grower) sessions(ctx context.Context) error {
	const most = 10_000
	s := g.sweep("LivePerson sessions", "sessions", "session", "MiB", "")
	job := &load.Job{}
	stop, err := server(ours, "", "", false, fmt.Sprintf("--max-sessions=%d", most+100), "--session-idle=1h").start(g.rig, job)
	if err != nil {
		return err
	}
	defer stop()
	conn, err := grpc.NewClient("passthrough:///"+job.Addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	resident, heap := line{name: "resident"}, line{name: "heap and stacks"}
	open := 0
	for _, n := range []int{1, 1000, 2500, 5000, most} {
		var group errgroup.Group
		group.SetLimit(8)
		for ; open < n; open++ {
			group.Go(func() error { return openSession(ctx, conn, job.LivePerson) })
		}
		if err := group.Wait(); err != nil {
			return err
		}
		m, err := holds(job)
		if err != nil {
			return err
		}
		resident.points = append(resident.points, [2]float64{float64(n), m.resident})
		heap.points = append(heap.points, [2]float64{float64(n), m.heap + m.stacks})
	}
	s.lines = []line{resident, heap}
	_, each, _ := fit(resident.points)
	g.fact("LivePerson sessions per GB of memory", fmt.Sprintf("%.0f", 1e9/(each*mib)), fmt.Sprintf("%.1f KiB resident each, idle", each*1024))
	return nil
}

// openSession signs a consumer up and makes the server open its session.
func openSession(ctx context.Context, conn *grpc.ClientConn, liveperson string) error {
	token, err := load.SignUp(liveperson)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(ctx, "lp-consumer-token", token), time.Minute)
	defer cancel()
	_, err = pb.NewFileSharingServiceClient(conn).GetCapabilities(ctx, &pb.GetCapabilitiesRequest{Account: "accounts/12345678"})
	return err
}

// ledger uploads many small files of few consumers and measures what each leaves in the server's memory: its record, because the lists
// of files are limited to 1 MiB here.
func (g *grower) ledger(ctx context.Context) error {
	s := g.sweep("Uploads since the start, `--ledger=memory`", "uploads", "upload", "MiB of heap after a collection", "")
	p := server(ours, "", "", false, "--list-memory=1MiB")
	job := &load.Job{
		Up: true, Size: 1000, Chunk: uploadChunk, Streams: 64, Conns: connections, Window: 5 * time.Second,
		Beside: []int{g.rig.liveperson.PID(), g.rig.sink.PID()},
	}
	stop, err := p.start(g.rig, job)
	if err != nil {
		return err
	}
	defer stop()
	job.Consumers = 8
	heap, done := line{name: "heap"}, 0
	for range 5 {
		r, err := generate(ctx, g.rig, job)
		if err != nil {
			return err
		}
		done += r.Files + r.Warmed
		m, err := holds(job)
		if err != nil {
			return err
		}
		heap.points = append(heap.points, [2]float64{float64(done), m.heap})
	}
	s.lines = []line{heap}
	_, each, _ := fit(heap.points)
	g.fact("uploads that a GB of memory remembers", fmt.Sprintf("%.0f", 1e9/(each*mib)), fmt.Sprintf("%.0f bytes of heap each, the record in the ledger and what else remains; `--ledger=memory`", each*mib))
	return nil
}
