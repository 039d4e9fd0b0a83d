// Package load generates load on one server and measures it, in a process of its own: workers send or fetch whole files without a
// pause, and every byte that arrives is compared with what it must be.
package load

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"
)

// A Job is what one generator does. It is passed as JSON.
type Job struct {
	// Addr is the server's host and port. HTTP says that it is a store or a proxy before one; otherwise it serves lpfileshare.v1.
	Addr string
	HTTP bool
	// CA is a PEM file of the certificate to trust. Empty: no TLS.
	CA string
	// Up uploads; otherwise files are downloaded that were uploaded before.
	Up bool
	// Size is the size of a file, Chunk of the chunks that are sent, and MaxChunk of those that are asked for, in bytes; 0: the
	// server's default. Streams is the number of transfers at once, over
	// Conns connections of gRPC; HTTP has a connection for each stream.
	Size, Chunk, MaxChunk, Streams, Conns int
	// Consumers is how many consumers share the streams, each with a conversation. They are signed up at LivePerson, whose URL is
	// LivePerson. Without it the server asks for no identity.
	Consumers  int
	LivePerson string
	// Head repeats the request of LivePerson's stand-in that asks whether a stored file exists, and Key signs the URLs of a store
	// that checks them. Both are for HTTP.
	Head bool
	Key  string
	// Warm is the time before the measurement, and Window the time in which transfers begin. The measurement ends when the last of
	// them has ended.
	Warm, Window time.Duration
	// PIDs are the processes of the server that is measured, Beside those of its stand-ins, and Debug is the address of the
	// server's /debug/vars, or empty.
	PIDs, Beside []int
	Debug        string
}

// A Result is what a Job measured.
type Result struct {
	// Files were transferred in Elapsed, each of Job.Size bytes. Failed others were not. Warmed were transferred before.
	Files, Failed, Warmed int
	Error                 string // of the first that failed
	Elapsed               time.Duration
	// Rate is the throughput in bytes per second, over Elapsed.
	Rate float64
	// P50 and P99 are the times that transfers took.
	P50, P99 time.Duration
	// CPU is what the server used, Peak the most memory that was resident since its start, in bytes. Mallocs and Allocated are the
	// numbers of its allocations and of their bytes; 0 if the server is not a Go program.
	CPU                time.Duration
	Peak               int64
	Mallocs, Allocated int64
	// Others is the CPU time per second that neither the server nor its stand-ins nor the generator used.
	Others float64
}

// WrongBytes is the exit status of a generator that received other bytes than were stored.
const WrongBytes = 3

// Run is the program of a generator: it does the job in args[0] and writes the Result to standard output.
func Run(args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("want a job, have %d arguments", len(args))
	}
	var job Job
	if err := json.Unmarshal([]byte(args[0]), &job); err != nil {
		return err
	}
	result, err := do(&job)
	if errors.Is(err, errDiffers) {
		fmt.Fprintln(os.Stderr, "generator:", err)
		os.Exit(WrongBytes)
	}
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}
