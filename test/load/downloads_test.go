package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// BenchmarkDownloads has one consumer download files of 3 MB, so many at once, over 8 connections, at default flags. It reports the
// CPU time that the server needs for a GB, the throughput and the peak of its memory.
func BenchmarkDownloads(b *testing.B) {
	const total = 1_500 * 1_000_000
	for _, atOnce := range []int{8, 64, 128, 250} {
		b.Run(fmt.Sprint(atOnce), func(b *testing.B) {
			s := startServer(b, "--documents")
			clients, conversation := s.Clients(b, 8)
			name := storedFile(b, clients[0], conversation)
			measureTransfers(b, s, func(times int) { downloadTimes(b, clients, name, atOnce, times) }, atOnce, total)
		})
	}
}

// BenchmarkUploads has one consumer upload files of 3 MB, so many at once, as BenchmarkDownloads does.
func BenchmarkUploads(b *testing.B) {
	const total = 600 * 1_000_000
	for _, atOnce := range []int{1, 8, 40} {
		b.Run(fmt.Sprint(atOnce), func(b *testing.B) {
			s := startServer(b, "--documents")
			clients, conversation := s.Clients(b, 8)
			data := text(fileBytes)
			measureTransfers(b, s, func(times int) {
				var group errgroup.Group
				group.SetLimit(atOnce)
				for i := range times {
					group.Go(func() error { return upload(b.Context(), clients[i%len(clients)], conversation, data) })
				}
				if err := group.Wait(); err != nil {
					b.Fatal(err)
				}
			}, atOnce, total)
		})
	}
}

// measureTransfers measures transfers of files of 3 MB, total bytes in all.
func measureTransfers(b *testing.B, s *server, transfer func(times int), atOnce, total int) {
	for b.Loop() {
		transfer(atOnce) // connections and pools
		begun, cpu, collections := time.Now(), cpuTime(b, s), s.collections()
		transfer(total / fileBytes)
		gb := float64(total) / 1e9
		b.ReportMetric(float64(s.collections()-collections), "GCs")
		b.ReportMetric((cpuTime(b, s)-cpu).Seconds()/gb, "CPU-s/GB")
		b.ReportMetric(gb*1000/time.Since(begun).Seconds(), "MB/s")
	}
	b.ReportMetric(float64(s.Memory(b, "VmHWM"))/mib, "peak-MiB")
}

// TestDownloads_StalledStayWithinTheBudget has 4 consumers open 256 downloads each, with chunks of up to 1 MiB, whose clients stop
// reading: at once, or when their window is full. The server's memory stays within its formula (docs/limits.md), the downloads of
// another consumer succeed, and all memory is free again after --read-stall, or when the connections have ended.
func TestDownloads_StalledStayWithinTheBudget(t *testing.T) {
	const consumers, each, stall = 4, 256, 10 * time.Second
	const downloadMemory, uploads, previews, receive, rest = 96 * mib, 16 * mib, 16 * mib, 20 * mib, 48 * mib
	for _, window := range []uint32{0, 1000, mib} {
		t.Run(fmt.Sprintf("window of %d", window), func(t *testing.T) {
			s := startServer(t, "--documents", "--read-stall="+stall.String(), "--max-sessions=100",
				fmt.Sprintf("--memory-budget=%d", uploads), fmt.Sprintf("--preview-memory=%d", previews), fmt.Sprintf("--receive-memory=%d", receive))
			honest, conversation := s.Clients(t, 1)
			name := storedFile(t, honest[0], conversation)
			before := s.Memory(t, "VmRSS")
			var conns []*rawConn
			for range consumers {
				consumer := s.Consumer(t)
				file := storedFile(t, consumer.Client, consumer.Conversation)
				request := message(t, &pb.DownloadRequest{Source: &pb.DownloadRequest_Name{Name: file}, MaxChunkBytes: mib})
				for range 2 {
					c := dialRaw(t, s.Addr, window)
					conns = append(conns, c)
					c.write.Lock()
					err := c.framer.WriteWindowUpdate(0, 1<<30)
					c.write.Unlock()
					for range each / 2 {
						var stream uint32
						if err == nil {
							stream, err = c.headers(pb.FileSharingService_Download_FullMethodName, false, "lp-consumer-token", consumer.Token)
						}
						if err == nil {
							err = c.data(stream, true, request)
						}
					}
					if err != nil {
						t.Fatal(err)
					}
				}
			}
			eventually(t, "those that got no memory were rejected", func() bool { return ended(conns...) > 0 })
			var slowest time.Duration
			for range 5 {
				begun := time.Now()
				if n, err := downloadRaw(t.Context(), honest[0], name); err != nil || n != fileBytes {
					t.Errorf("a download beside them: %d bytes, %v", n, err)
				}
				slowest = max(slowest, time.Since(begun))
			}
			rejected := ended(conns...)
			eventually(t, "the server ended the downloads", func() bool { return s.inUse().goroutines < 200 })
			kept := s.inUse()
			for _, c := range conns {
				c.Close()
				<-c.gone
			}
			after := s.settled(t, 1)
			peak, bound := s.Memory(t, "VmHWM"), int64(downloadMemory+uploads+previews+receive+rest)
			fmt.Printf("%s: %d downloads, %d rejected; resident before %d MiB, peak %d, bound %d; heap and stacks after --read-stall %.1f MiB, after the connections %.1f MiB; "+
				"5 downloads of another consumer, the slowest %s\n", t.Name(), consumers*each, rejected, before/mib, peak/mib, bound/mib, kept.mib(), after.mib(), slowest.Round(time.Millisecond))
			if peak > bound {
				t.Errorf("the server had %d MiB resident, want at most %d", peak/mib, bound/mib)
			}
			downloadTimes(t, honest, name, 64, 64) // the budget is free
		})
	}
}

// storedFile uploads a file of 3 MB and returns its name.
func storedFile(tb testing.TB, c *lpfileshare.Client, conversation string) string {
	tb.Helper()
	if err := upload(tb.Context(), c, conversation, text(fileBytes)); err != nil {
		tb.Fatal(err)
	}
	files, err := c.Files(tb.Context(), lpfileshare.FilesOptions{Parent: conversation}).Collect()
	if err != nil || len(files) != 1 {
		tb.Fatal(files, err)
	}
	return files[0].GetName()
}

// downloadTimes downloads a file so many times in all.
func downloadTimes(tb testing.TB, clients []*lpfileshare.Client, name string, atOnce, times int) {
	tb.Helper()
	var left atomic.Int64
	left.Store(int64(times))
	var group errgroup.Group
	for i := range atOnce {
		group.Go(func() error {
			for left.Add(-1) >= 0 {
				if n, err := downloadRaw(tb.Context(), clients[i%len(clients)], name); err != nil || n != fileBytes {
					return fmt.Errorf("%d bytes, %w", n, err)
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		tb.Fatal(err)
	}
}

// downloadRaw downloads a file, and drops its bytes.
func downloadRaw(ctx context.Context, c *lpfileshare.Client, name string) (n int, err error) {
	stream, err := c.Raw().Files.Download(ctx, &pb.DownloadRequest{Source: &pb.DownloadRequest_Name{Name: name}})
	for err == nil {
		var m *pb.DownloadResponse
		m, err = stream.Recv()
		n += len(m.GetChunk().GetData())
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

// collections returns how often the server has collected garbage.
func (s *server) collections() int64 {
	var vars struct{ MemStats struct{ NumGC int64 } }
	if err := json.Unmarshal(s.get("/debug/vars"), &vars); err != nil {
		s.tb.Fatal(err)
	}
	return vars.MemStats.NumGC
}

// cpuTime returns the CPU time that the server has used.
func cpuTime(tb testing.TB, s *server) time.Duration {
	tb.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", s.PID()))
	if err != nil {
		tb.Fatal(err)
	}
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100
}

// TestWatches_StalledEnd opens watches whose client grants no window: each holds one message, and all end after --read-stall, although
// their first message is small.
func TestWatches_StalledEnd(t *testing.T) {
	const watches, stall = 250, 5 * time.Second
	s := startServer(t, "--documents", "--read-stall="+stall.String())
	consumer := s.Consumer(t)
	c := dialRaw(t, s.Addr, 0)
	before := s.settled(t, 1)
	request := message(t, &pb.WatchFilesRequest{Parent: consumer.Conversation})
	begun := time.Now()
	for range watches {
		stream, err := c.headers(pb.FileSharingService_WatchFiles_FullMethodName, false, "lp-consumer-token", consumer.Token)
		if err == nil {
			err = c.data(stream, true, request)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the watches have begun", func() bool { return s.inUse().goroutines >= before.goroutines+watches })
	during := s.inUse()
	eventually(t, "the server ended the watches", func() bool { return s.inUse().goroutines <= before.goroutines+5 })
	fmt.Printf("%s: %d watches ended within %.1f s; heap and stacks %.1f, %.1f MiB; before, during: %.1f KiB each\n", t.Name(), watches,
		time.Since(begun).Seconds(), before.mib(), during.mib(), (during.mib()-before.mib())*1024/watches)
	c.Close()
	<-c.gone
	checkBack(t, before, s.settled(t, 1))
}
