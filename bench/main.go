// Command bench measures the server beside its peers: stand-ins, peers and load generators are processes that it starts by itself on
// loopback. docs/performance.md has the results, and says how to read and repeat them.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/lpfileshare/lpfileshare/bench/load"
	"github.com/lpfileshare/lpfileshare/bench/naive"
	"github.com/lpfileshare/lpfileshare/bench/standin"
)

// roles are the programs of the processes that bench starts: itself with one of these names as its first argument.
var roles = map[string]func(args []string) error{
	"generator":  load.Run,
	"sink":       standin.Sink,
	"liveperson": standin.LivePerson,
	"proxy":      standin.Proxy,
	"delay":      standin.Delay,
	"naive":      naive.Run,
}

// commands are what bench does besides comparing the peers.
var commands = map[string]func(ctx context.Context, args []string) error{
	"check":  check,
	"growth": growth,
}

func main() {
	if err := run(os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run runs a role or a command. Ctrl-C ends a command, which then removes its files.
func run(args []string) error {
	if len(args) > 0 && roles[args[0]] != nil {
		return roles[args[0]](args[1:])
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The processes that are started are killed, and leave files behind.
	dir, err := os.MkdirTemp("", "lpfileshare-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := os.Setenv("TMPDIR", dir); err != nil {
		return err
	}
	command := compare
	if len(args) > 0 && commands[args[0]] != nil {
		command, args = commands[args[0]], args[1:]
	}
	return command(ctx, args)
}
