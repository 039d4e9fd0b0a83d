// Command lpfileshare shares files in LivePerson conversations by way of an lpfileshare server.
//
// Sign in once; the session file then holds the address and the token, and the next command just works:
//
//	lpfileshare sign-in
//	lpfileshare conversation create
//	lpfileshare upload cat.jpg
//	lpfileshare watch
//
// It exits with 0 when all was done (a watch that Ctrl-C ends is done), 1 when something failed and 2 when it was called wrongly.
// Results go to standard output, everything else to standard error.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"unicode"

	"github.com/alecthomas/kong"
	"google.golang.org/grpc/codes"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the program at once
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// cli is the command line.
type cli struct {
	globals `embed:"" group:"Global flags:"`

	Demo         demoCmd         `cmd:"" help:"Send a picture through a server and back, step by step."`
	SignIn       signInCmd       `cmd:"" help:"Sign in as a consumer or an agent, and keep the token in the session file."`
	SignOut      signOutCmd      `cmd:"" help:"End the agent's login, and forget the tokens in the session file."`
	Conversation conversationCmd `cmd:"" help:"Create, list, show and close conversations."`
	Upload       uploadCmd       `cmd:"" help:"Send files into a conversation."`
	Download     downloadCmd     `cmd:"" help:"Get a file of a conversation."`
	Ls           lsCmd           `cmd:"" help:"List the files of a conversation."`
	Stat         statCmd         `cmd:"" help:"Show what is known of a file."`
	Watch        watchCmd        `cmd:"" help:"Print files as they are published, until Ctrl-C ends it."`
	GetUpload    getUploadCmd    `cmd:"" help:"Show what became of an upload."`
	Capabilities capabilitiesCmd `cmd:"" help:"Show limits, types and times of the account."`
	Health       healthCmd       `cmd:"" help:"Ask whether the server is well."`
	Account      accountCmd      `cmd:"" help:"Read and set what the account allows (as an agent)."`
	Agent        agentCmd        `cmd:"" help:"Play the agent of a conversation."`
	Version      versionCmd      `cmd:"" help:"Show the version of this program."`
}

// globals are the flags of every command.
type globals struct {
	Address            string      `env:"LPFILESHARE_ADDRESS" placeholder:"HOST:PORT" help:"Server, or several that share a ledger: HOST:PORT,HOST:PORT. Default: the session file's, else 127.0.0.1:50051."`
	Account            string      `env:"LPFILESHARE_ACCOUNT" placeholder:"ID" help:"LivePerson account. Default: the session file's, else 12345678."`
	As                 asWhom      `placeholder:"WHO" help:"Whose stored token to use: consumer or agent. Default: consumer, unless only an agent is signed in."`
	TokenFile          string      `placeholder:"FILE" help:"Use the token in this file instead of a stored one. Environment: LPFILESHARE_TOKEN, the token itself."`
	ExternalConsumerID string      `env:"LPFILESHARE_EXTERNAL_CONSUMER_ID" placeholder:"ID" help:"Be this consumer, by the id that the brand knows: for accounts that the server holds credentials of, by TLS with a client certificate or over loopback."`
	TLSCA              string      `name:"tls-ca" env:"LPFILESHARE_TLS_CA" placeholder:"FILE" help:"Connect by TLS, and trust the authorities in this PEM file only."`
	TLSCert            string      `name:"tls-cert" env:"LPFILESHARE_CLIENT_CERT" placeholder:"FILE" help:"Connect by TLS, and show the server the client certificate in this PEM file."`
	TLSKey             string      `name:"tls-key" env:"LPFILESHARE_CLIENT_KEY" placeholder:"FILE" help:"The key of --tls-cert, in PEM."`
	Plaintext          bool        `help:"Connect without TLS to other machines too. Anybody on the way can then read tokens and files."`
	Timeout            duration    `placeholder:"DURATION" help:"Give up after this long. Default: 1m, with files 10m, watching never."`
	JSON               bool        `name:"json" help:"Print results as JSON, one object to a line."`
	ShowVersion        showVersion `name:"version" help:"Show the version of this program."`
	SessionFile        string      `env:"LPFILESHARE_SESSION" placeholder:"FILE" help:"Session file. Default: lpfileshare/session.json in the user's configuration folder."`
}

// run runs one command line and returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	var line cli
	a := &app{globals: &line.globals, stdin: stdin, stdout: stdout, stderr: stderr, getenv: os.Getenv, terminal: isTerminal}
	return runWith(ctx, a, &line, args)
}

// exitPanic is how kong's --help gets out of the parser, which expects its exit function not to return.
type exitPanic int

func runWith(ctx context.Context, a *app, line *cli, args []string) (code int) {
	defer func() {
		switch v := recover().(type) {
		case nil:
		case exitPanic:
			code = int(v)
		default:
			panic(v)
		}
	}()
	out, helped := a.stdout, exitOK
	if len(args) == 0 { // help, and the news that this is not how it is called
		args, out, helped = []string{"--help"}, a.stderr, exitUsage
	}
	parser, err := kong.New(line,
		kong.Name("lpfileshare"),
		kong.Description("Share files in LivePerson conversations by way of an lpfileshare server."),
		kong.Vars{"file_types": fileTypeNames()},
		kong.Writers(out, a.stderr),
		kong.Exit(func(code int) { panic(exitPanic(max(code, helped))) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.Bind(a),
		kong.BindTo(ctx, (*context.Context)(nil)),
	)
	if err != nil {
		panic(err) // the command line above is malformed
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		fmt.Fprintf(a.stderr, "lpfileshare: %v\nSee lpfileshare --help.\n", err)
		return exitUsage
	}
	a.command = parsed.Command()
	if strings.HasPrefix(parsed.Command(), "agent ") || strings.HasPrefix(parsed.Command(), "account ") {
		a.As = asAgent
	}
	return a.report(ctx, parsed.Run())
}

// A usageError is a command line that was understood and cannot be meant.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

// An adviceError is an error with what to do about it.
type adviceError struct {
	err    error
	advice string
}

func (e *adviceError) Error() string { return e.err.Error() }
func (e *adviceError) Unwrap() error { return e.err }

// errReported is a failure that was already told.
var errReported = errors.New("failed")

// report tells of an error: what happened, then what to do. It returns the exit code.
func (a *app) report(ctx context.Context, err error) int {
	if err == nil {
		return exitOK
	}
	if usage, ok := errors.AsType[*usageError](err); ok {
		fmt.Fprintf(a.stderr, "lpfileshare: %s\nSee lpfileshare --help.\n", usage.text)
		return exitUsage
	}
	if !errors.Is(err, errReported) {
		a.complain(ctx, err)
	}
	return exitFailed
}

// mayHaveWorked says whether a call may have done its work, or may yet, though it failed: else repeating it is of no use.
func mayHaveWorked(c codes.Code) bool {
	switch c {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Aborted, codes.ResourceExhausted, codes.Internal, codes.Unknown, codes.Canceled:
		return true
	default:
		return false
	}
}

// complain tells of one error and goes on.
func (a *app) complain(ctx context.Context, err error) {
	if ctx.Err() != nil {
		a.interrupted(err)
		return
	}
	var advice *adviceError
	e, ok := errors.AsType[*lpfileshare.Error](err)
	switch {
	case errors.As(err, &advice):
		fmt.Fprintf(a.stderr, "lpfileshare: %s\n  %s\n", plain(err.Error()), advice.advice)
	case ok:
		fmt.Fprintf(a.stderr, "lpfileshare: %s\n", plain(what(e)))
		if advice := a.advice(e); advice != "" {
			fmt.Fprintf(a.stderr, "  %s\n", advice)
		}
		if e.RequestID != "" && mayHaveWorked(e.Code) {
			fmt.Fprintf(a.stderr, "  To repeat it without sending it twice: --request-id %s\n", e.RequestID)
		}
	default:
		fmt.Fprintf(a.stderr, "lpfileshare: %s\n", plain(err.Error()))
	}
}

// interrupted tells what became of what was interrupted.
func (a *app) interrupted(err error) {
	e, ok := errors.AsType[*lpfileshare.Error](err)
	switch {
	case ok && e.RequestID != "" && e.Finished:
		fmt.Fprintf(a.stderr, "lpfileshare: interrupted: %s was sent, and may have been published\n", plain(e.Op))
		fmt.Fprintf(a.stderr, "  To find out: lpfileshare get-upload %s. To repeat it without sending it twice: --request-id %s\n", e.RequestID, e.RequestID)
	case a.command == "upload <file>" || a.command == "agent send <file>":
		if a.uploaded > 0 {
			fmt.Fprintf(a.stderr, "lpfileshare: interrupted after %d of the files; repeat the command with the rest of them\n", a.uploaded)
			return
		}
		fmt.Fprintln(a.stderr, "lpfileshare: interrupted: nothing was published; repeat the command to upload it again")
	case strings.HasPrefix(a.command, "download"):
		fmt.Fprintln(a.stderr, "lpfileshare: interrupted: no file was written; repeat the command to download it again")
	default:
		fmt.Fprintln(a.stderr, "lpfileshare: interrupted")
	}
}

// what tells what happened, with the name of an RPC in words: "create conversation" for CreateConversation.
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

// advice tells what to do with this program about an error; where there is nothing of the kind, what there is to do at all.
func (a *app) advice(e *lpfileshare.Error) string {
	switch e.Reason {
	case pb.ErrorReason_ERROR_REASON_FILE_SHARING_DISABLED:
		return "An administrator of the account has to enable it: lpfileshare account file-sharing enable."
	case pb.ErrorReason_ERROR_REASON_CONVERSATION_NOT_FOUND:
		if a.conn != nil && a.conn.usedStored {
			return "The conversation that was created last is not yours any more: lpfileshare conversation create, or name one with -c."
		}
	case pb.ErrorReason_ERROR_REASON_LP_CREDENTIALS_REJECTED:
		switch {
		case strings.HasPrefix(a.command, "sign-in agent"):
			return "Check the user name and password, or the bot's keys."
		case a.givenCredentials:
			return "Check the JWT, code or connector id, and that it is of this account."
		case strings.HasPrefix(a.command, "sign-in"):
			return "This account may not let new consumers sign up: see lpfileshare sign-in --help for other ways."
		}
	case pb.ErrorReason_ERROR_REASON_UNSPECIFIED:
		if e.Code == codes.DeadlineExceeded && !strings.HasPrefix(e.Op, "connect to ") {
			return "Allow more time with --timeout."
		}
	}
	return e.Advice()
}
