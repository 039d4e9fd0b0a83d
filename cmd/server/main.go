// Command lpfileshare-server serves lpfileshare.v1: files in LivePerson conversations, over gRPC.
//
// It is wiring only: flags.go says how it can be set, build.go puts the parts together, run.go runs and stops them.
package main

import (
	"context"
	"io"
	"log"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	// net/http prints through the standard logger what a peer sent out of turn, and that could hold anything.
	log.SetOutput(io.Discard)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
