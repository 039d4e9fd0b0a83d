package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

const (
	callTimeout = time.Minute
	fileTimeout = 10 * time.Minute

	maxSecretBytes = 64 << 10
)

// An app is the state of one command line.
type app struct {
	*globals
	stdin    io.Reader
	stdout   io.Writer
	stderr   io.Writer
	getenv   func(string) string
	terminal func(any) bool

	command          string      // the command that runs, in kong's words
	conn             *connection // nil: not known yet
	givenCredentials bool        // sign-in has credentials from the user
}

// isTerminal reports whether a stream is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// limit sets the time limit of a command: --timeout, or else usual. 0: no limit.
func (a *app) limit(ctx context.Context, usual time.Duration) (context.Context, context.CancelFunc) {
	if a.Timeout > 0 {
		usual = time.Duration(a.Timeout)
	}
	if usual == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, usual, fmt.Errorf("not finished within %v: %w", usual, context.DeadlineExceeded))
}

// secret reads a secret from a file, or from standard input for "-".
func (a *app) secret(path string) (string, error) {
	r := a.stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return "", err
		}
		defer f.Close()
		r = f
	}
	b, err := io.ReadAll(io.LimitReader(r, maxSecretBytes+1))
	if err != nil {
		return "", err
	}
	s := strings.TrimSpace(string(b))
	if len(b) > maxSecretBytes || s == "" {
		return "", fmt.Errorf("%s does not contain a secret: it is empty or larger than %d bytes", path, maxSecretBytes)
	}
	return s, nil
}
