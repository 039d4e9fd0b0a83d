package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"

	"google.golang.org/grpc/codes"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
)

// The exit codes. exitCodes says what they mean.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitTemporary   = 75 // EX_TEMPFAIL of sysexits.h
	exitInterrupted = 130
)

// exitCodes are the exit codes with their meanings, for the command and the man page.
var exitCodes = []struct {
	code    int
	meaning string
}{
	{exitOK, "Success, also of a watch that Ctrl-C ends."},
	{exitFailed, "Permanent failure: the same command fails again until something is corrected."},
	{exitUsage, "Wrong usage: nothing was done."},
	{exitTemporary, "Temporary failure: repeat the command later. If an upload prints a request id, repeat it with that."},
	{exitInterrupted, "Interrupted by Ctrl-C or SIGTERM."},
}

type exitCodesCmd struct{}

func (exitCodesCmd) Run(a *app) error {
	table := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	for _, e := range exitCodes {
		fmt.Fprintf(table, "%d\t%s\n", e.code, e.meaning)
	}
	return table.Flush()
}

// A usageError is an invalid command line that the parser accepts.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

// An adviceError is an error with advice for the user.
type adviceError struct {
	err    error
	advice string
}

func (e *adviceError) Error() string { return e.err.Error() }
func (e *adviceError) Unwrap() error { return e.err }

// A temporaryError is an error of this program after which the same command may succeed.
type temporaryError struct{ error }

func (e temporaryError) Unwrap() error { return e.error }

// A reportedError is a failure that was already printed.
type reportedError struct{ code int }

func (reportedError) Error() string { return "failed" }

// report prints an error and what to do about it. It returns the exit code.
func (a *app) report(ctx context.Context, err error) int {
	if err == nil {
		return exitOK
	}
	if usage, ok := errors.AsType[*usageError](err); ok {
		fmt.Fprintf(a.stderr, "lpfileshare: %s\nSee lpfileshare --help.\n", plain(usage.text))
		return exitUsage
	}
	if _, reported := errors.AsType[reportedError](err); !reported {
		a.printError(ctx, err)
	}
	return exitCodeOf(ctx, err)
}

// exitCodeOf returns the exit code for an error.
func exitCodeOf(ctx context.Context, err error) int {
	switch reported, ok := errors.AsType[reportedError](err); {
	case ctx.Err() != nil:
		return exitInterrupted
	case ok:
		return reported.code
	case temporary(err):
		return exitTemporary
	default:
		return exitFailed
	}
}

// temporary reports whether the same command may succeed later, by the retry rule of the contract: a status of the server must carry
// RetryInfo, and one of gRPC itself be about the connection or the time.
func temporary(err error) bool {
	if _, ok := errors.AsType[temporaryError](err); ok {
		return true
	}
	e, ok := errors.AsType[*lpfileshare.Error](err)
	if !ok {
		return false
	}
	if _, asked := lpfileshare.RetryDelay(e); asked {
		return true
	}
	return lpfileshare.ErrorReason(e) == 0 && (e.Code == codes.Unavailable || e.Code == codes.DeadlineExceeded)
}
