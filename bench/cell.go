package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"time"

	"github.com/lpfileshare/lpfileshare/bench/load"
)

// A scenario is one load, the same for all peers.
type scenario struct {
	up      bool
	size    int // of a file, in bytes
	streams int
	chunk   int // in bytes; 0 in a download is the server's default
}

func (s scenario) way() string {
	if s.up {
		return "up"
	}
	return "down"
}

// short names a scenario without the size of its files.
func (s scenario) short() string { return fmt.Sprintf("%s, c=%d", s.way(), s.streams) }

func (s scenario) String() string { return fmt.Sprintf("%s, %s", sizeName(s.size), s.short()) }

func sizeName(bytes int) string {
	if bytes >= 1_000_000 {
		return fmt.Sprintf("%g MB", float64(bytes)/1e6)
	}
	return fmt.Sprintf("%g KB", float64(bytes)/1e3)
}

const (
	// connections is how many connections of gRPC the generator has at most.
	connections = 8
	// uploadChunk is the size of the chunks of an upload, if a scenario does not say it.
	uploadChunk = 128 << 10
	// calm is how much CPU others may use during a measurement, in cores, if a flag does not say it.
	calm = 0.4
)

// pace is how long a measurement takes.
type pace struct {
	warm, window time.Duration
	// calm is how much CPU others may use, in cores. With more a measurement is repeated once.
	calm float64
}

// errWrongBytes ends the whole run.
var errWrongBytes = errors.New("a file did not arrive as it was sent")

// attempts is how often a measurement may fail, for example because a call takes too long on a machine that does other work.
const attempts = 3

// measureAgain is measure, but repeats what fails.
func measureAgain(ctx context.Context, r *rig, p peer, s scenario, pc pace) (result *load.Result, err error) {
	for range attempts {
		result, err = measure(ctx, r, p, s, pc)
		if r.sink.Over() {
			return nil, fmt.Errorf("%w: %s", errWrongBytes, r.sink.Logs.Tail())
		}
		if err == nil || ctx.Err() != nil || errors.Is(err, errMissing) || errors.Is(err, errWrongBytes) {
			break
		}
		fmt.Fprintln(os.Stderr, err)
	}
	return result, err
}

// measure starts a peer, has a generator of its own measure it, and stops it.
func measure(ctx context.Context, r *rig, p peer, s scenario, pc pace) (*load.Result, error) {
	best, err := measureOnce(ctx, r, p, s, pc)
	if err == nil && best.Others > pc.calm {
		var again *load.Result
		if again, err = measureOnce(ctx, r, p, s, pc); err == nil && again.Others < best.Others {
			best = again
		}
	}
	if err != nil {
		return nil, fmt.Errorf("%s, %s: %w", p.name, s, err)
	}
	return best, nil
}

func measureOnce(ctx context.Context, r *rig, p peer, s scenario, pc pace) (*load.Result, error) {
	job := &load.Job{
		Up: s.up, Size: s.size, Chunk: uploadChunk, Streams: s.streams, Conns: connections,
		Warm: pc.warm, Window: pc.window, Beside: []int{r.liveperson.PID()},
	}
	if s.chunk > 0 {
		job.Chunk, job.MaxChunk = s.chunk, s.chunk
	}
	stop, err := p.start(r, job)
	if err != nil {
		return nil, err
	}
	defer stop()
	if r.sink.PID() != job.PIDs[0] {
		job.Beside = append(job.Beside, r.sink.PID())
	}
	return generate(ctx, r, job)
}

// generate runs a generator.
func generate(ctx context.Context, r *rig, job *load.Job) (*load.Result, error) {
	text, err := json.Marshal(job)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, r.self, "generator", string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if cmd.ProcessState != nil && cmd.ProcessState.ExitCode() == load.WrongBytes {
		return nil, errWrongBytes
	}
	if err != nil {
		return nil, fmt.Errorf("the generator: %w", err)
	}
	var result load.Result
	if err := json.Unmarshal(out, &result); err != nil {
		return nil, err
	}
	if result.Failed > 0 {
		return nil, fmt.Errorf("%d of %d transfers failed, the first one because %s", result.Failed, result.Failed+result.Files, result.Error)
	}
	return &result, nil
}
