// Command lpfileshare-server serves lpfileshare.v1: files in LivePerson conversations, over gRPC.
//
// It is wiring only: flags.go has the settings, build.go constructs the parts, run.go runs and stops them.
package main

import (
	"context"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"

	"google.golang.org/grpc/experimental"

	"github.com/lpfileshare/lpfileshare/internal/bufpool"
)

// messageBuffers are the buffers of all messages and frames of the gRPC server.
var messageBuffers bufpool.Pool

func main() {
	experimental.SetDefaultBufferPool(&messageBuffers) // gRPC's codec has no other option
	// net/http prints unexpected data from a peer through the standard logger, and that data can contain secrets.
	log.SetOutput(io.Discard)
	// A write to a stdout or stderr without a reader must fail, not end the process.
	signal.Ignore(syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
