package load

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/lpfileshare/lpfileshare/bench/proc"
)

// A worker transfers one file after another.
type worker interface {
	transfer() error
}

// mostWarm bounds the workers that run before the measurement, because a file of each of 512 takes seconds.
const mostWarm = 64

// do runs the job's workers, first to warm up and then measured.
func do(job *Job) (*Result, error) {
	workers, err := newWorkers(job)
	if err != nil {
		return nil, err
	}
	warm := workers[:min(len(workers), mostWarm)]
	warmed := runAll(warm, job.Warm)
	if warmed.err != nil {
		return nil, fmt.Errorf("before the measurement: %w", warmed.err)
	}
	before, err := look(job)
	if err != nil {
		return nil, err
	}
	b := runAll(workers, job.Window)
	if errors.Is(b.err, errDiffers) {
		return nil, b.err
	}
	after, err := look(job)
	if err != nil {
		return nil, err
	}
	r := &Result{
		Files: len(b.took), Failed: b.failed, Warmed: len(warmed.took), Elapsed: b.elapsed, Rate: float64(len(b.took)) * float64(job.Size) / b.elapsed.Seconds(),
		P50: quantile(b.took, 0.5), P99: quantile(b.took, 0.99),
		CPU: after.cpu - before.cpu, Peak: after.peak,
		Mallocs: after.heap.Mallocs - before.heap.Mallocs, Allocated: after.heap.TotalAlloc - before.heap.TotalAlloc,
	}
	if b.err != nil {
		r.Error = b.err.Error()
	}
	r.Others = ((after.machine - before.machine) - (after.known - before.known)).Seconds() / after.at.Sub(before.at).Seconds()
	return r, nil
}

// A batch is what workers did together.
type batch struct {
	took    []time.Duration // of each file, sorted
	failed  int
	err     error         // the first
	elapsed time.Duration // until the last transfer ended
}

// runAll has each worker transfer files until window is over, at least one each.
func runAll(workers []worker, window time.Duration) batch {
	var (
		mu    sync.Mutex
		b     batch
		group sync.WaitGroup
	)
	begun := time.Now()
	for _, w := range workers {
		group.Go(func() {
			var took []time.Duration
			var failed int
			var first error
			for at := time.Now(); ; {
				err := w.transfer()
				now := time.Now()
				if err == nil {
					took = append(took, now.Sub(at))
				} else if failed++; first == nil || errors.Is(err, errDiffers) {
					first = err
				}
				if at = now; now.Sub(begun) >= window || failed > 0 {
					break
				}
			}
			mu.Lock()
			defer mu.Unlock()
			b.took = append(b.took, took...)
			b.failed += failed
			if b.err == nil || errors.Is(first, errDiffers) {
				b.err = first
			}
		})
	}
	group.Wait()
	b.elapsed = time.Since(begun)
	slices.Sort(b.took)
	return b
}

// A sight is what processes had used at one moment.
type sight struct {
	at                  time.Time
	cpu, known, machine time.Duration
	peak                int64
	heap                proc.Heap
}

func look(job *Job) (s sight, err error) {
	if s.heap, err = proc.ReadHeap(job.Debug); err != nil {
		return s, err
	}
	s.at = time.Now()
	if s.cpu, err = proc.CPU(job.PIDs); err != nil {
		return s, err
	}
	// The process that started this one does nothing meanwhile.
	known := append(slices.Clone(job.Beside), os.Getpid())
	if s.known, err = proc.CPU(known); err != nil {
		return s, err
	}
	s.known += s.cpu
	if s.machine, err = proc.Machine(); err != nil {
		return s, err
	}
	s.peak, err = proc.Memory(job.PIDs, "VmHWM")
	return s, err
}

func quantile(sorted []time.Duration, q float64) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}
