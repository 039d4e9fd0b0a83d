package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"google.golang.org/grpc/codes"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// mayHaveSucceeded reports whether a failed call may have had an effect, so that it makes sense to repeat it under its request id.
func mayHaveSucceeded(c codes.Code) bool {
	switch c {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Aborted, codes.ResourceExhausted, codes.Internal, codes.Unknown, codes.Canceled:
		return true
	default:
		return false
	}
}

// nothingPublished is printed for an interrupted upload that was not sent to its end.
const nothingPublished = "lpfileshare: interrupted: nothing was published; repeat the command to upload it again"

// printError prints one error, or that the command was interrupted.
func (a *app) printError(ctx context.Context, err error) {
	if ctx.Err() != nil {
		a.interrupted(err)
	} else {
		a.printFailure(err)
	}
}

// printFailure prints one error, and what to do about it.
func (a *app) printFailure(err error) {
	advice, advised := errors.AsType[*adviceError](err)
	e, ok := errors.AsType[*lpfileshare.Error](err)
	switch {
	case advised && advice.err == error(e):
		fmt.Fprintf(a.stderr, "lpfileshare: %s\n  %s\n", plain(what(e)), advice.advice)
	case advised:
		fmt.Fprintf(a.stderr, "lpfileshare: %s\n  %s\n", plain(err.Error()), advice.advice)
	case ok:
		fmt.Fprintf(a.stderr, "lpfileshare: %s\n", plain(what(e)))
		if advice := a.advice(e); advice != "" {
			fmt.Fprintf(a.stderr, "  %s\n", advice)
		}
		if e.RequestID != "" && mayHaveSucceeded(e.Code) {
			fmt.Fprintf(a.stderr, "  To repeat it without publishing it twice: --request-id %s\n", e.RequestID)
		}
	default:
		fmt.Fprintf(a.stderr, "lpfileshare: %s\n", plain(err.Error()))
	}
}

// interrupted prints what is known of the result of an interrupted command.
func (a *app) interrupted(err error) {
	e, ok := errors.AsType[*lpfileshare.Error](err)
	switch {
	case ok && e.RequestID != "" && e.Finished:
		fmt.Fprintln(a.stderr, "lpfileshare: interrupted")
		a.printSent(e.Op, e)
	case strings.HasPrefix(a.command, "upload") || strings.HasPrefix(a.command, "agent send"):
		fmt.Fprintln(a.stderr, nothingPublished)
	case strings.HasPrefix(a.command, "download"):
		fmt.Fprintln(a.stderr, "lpfileshare: interrupted: no file was written; repeat the command to download it again")
	default:
		fmt.Fprintln(a.stderr, "lpfileshare: interrupted")
	}
}

// printSent prints that an upload whose result is not known was sent to its end, and how to repeat it.
func (a *app) printSent(name string, e *lpfileshare.Error) {
	fmt.Fprintf(a.stderr, "lpfileshare: %s was sent and may have been published\n", plain(name))
	fmt.Fprintf(a.stderr, "  Show its state: lpfileshare get-upload %s. Repeat it without publishing it twice: --request-id %s\n", e.RequestID, e.RequestID)
}

// what returns what happened, with the name of an RPC in words: "create conversation" for CreateConversation.
func what(e *lpfileshare.Error) string {
	text := e.What()
	if rest, ok := strings.CutPrefix(text, e.Op); ok && !strings.Contains(e.Op, " ") {
		var words strings.Builder
		for i, r := range e.Op {
			if i > 0 && unicode.IsUpper(r) {
				words.WriteByte(' ')
			}
			words.WriteRune(unicode.ToLower(r))
		}
		return words.String() + rest
	}
	return text
}

// advice returns what to do about an error with this program, or else in general.
func (a *app) advice(e *lpfileshare.Error) string {
	switch e.Reason {
	case pb.ErrorReason_ERROR_REASON_FILE_SHARING_DISABLED:
		return "An administrator of the account must enable it: lpfileshare account file-sharing enable."
	case pb.ErrorReason_ERROR_REASON_CONVERSATION_NOT_FOUND:
		if a.conn != nil && a.conn.usedStored {
			return "The conversation that was created last is not available to this identity. Create one (lpfileshare conversation create), or name one with -c."
		}
	case pb.ErrorReason_ERROR_REASON_LP_CREDENTIALS_REJECTED:
		switch {
		case strings.HasPrefix(a.command, "sign-in agent"):
			return "Check the user name and password, or the bot's keys."
		case a.givenCredentials:
			return "Check the JWT, code or connector id, and that it belongs to this account."
		case strings.HasPrefix(a.command, "sign-in"):
			return "The account may not allow new consumers to sign up. See lpfileshare sign-in --help for other ways."
		}
	case pb.ErrorReason_ERROR_REASON_UNSPECIFIED:
		if e.Code == codes.DeadlineExceeded && !strings.HasPrefix(e.Op, "connect to ") {
			return "Allow more time with --timeout."
		}
	}
	return e.Advice()
}
