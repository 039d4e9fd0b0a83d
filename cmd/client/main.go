// Command lpfileshare sends files into LivePerson conversations and reads them back, through an lpfileshare server.
//
// Sign in once. The session file then has the address and the token for the next commands:
//
//	lpfileshare sign-in
//	lpfileshare conversation create
//	lpfileshare upload cat.jpg
//	lpfileshare watch
//
// The exit code is 0 for success (also of a watch that Ctrl-C ends), 1 for a failure and 2 for wrong usage. Results are written to
// standard output, everything else to standard error.
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
	context.AfterFunc(ctx, stop) // a second Ctrl-C kills the program
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// cli is the command line.
type cli struct {
	globals `embed:"" group:"Global flags:"`

	Demo         demoCmd         `cmd:"" help:"Send a picture to a server and back, step by step."`
	SignIn       signInCmd       `cmd:"" help:"Sign in as a consumer or an agent, and store the token in the session file."`
	SignOut      signOutCmd      `cmd:"" help:"End the agent's login, and delete the session file."`
	Conversation conversationCmd `cmd:"" help:"Create, list, show and close conversations."`
	Upload       uploadCmd       `cmd:"" help:"Send files into a conversation."`
	Publish      publishCmd      `cmd:"" help:"Publish a file that was only stored."`
	Download     downloadCmd     `cmd:"" help:"Download a file of a conversation."`
	Ls           lsCmd           `cmd:"" help:"List the files of a conversation."`
	Stat         statCmd         `cmd:"" help:"Show the metadata of a file."`
	Watch        watchCmd        `cmd:"" help:"Print files as they are published, until Ctrl-C."`
	GetUpload    getUploadCmd    `cmd:"" help:"Show the state of an upload."`
	Capabilities capabilitiesCmd `cmd:"" help:"Show the limits, file types and times of the account."`
	Health       healthCmd       `cmd:"" help:"Show the health of the server."`
	Account      accountCmd      `cmd:"" help:"Show and change the settings of the account (as an agent)."`
	Agent        agentCmd        `cmd:"" help:"Watch and send files as an agent."`
	Version      versionCmd      `cmd:"" help:"Show the version of this program."`
}

// globals are the flags of every command. The environment variable of a flag is LPFILESHARE_ and the name of the flag. Tokens and
// passwords have no flags, because other users of the machine can read a command line.
type globals struct {
	Address            string      `env:"LPFILESHARE_ADDRESS" placeholder:"HOST:PORT" help:"Server, or several that share a ledger: HOST:PORT,HOST:PORT. Default: the session file's, else 127.0.0.1:50051."`
	Account            string      `env:"LPFILESHARE_ACCOUNT" placeholder:"ID" help:"LivePerson account. Default: the session file's, else 12345678."`
	As                 identityOf  `env:"LPFILESHARE_AS" placeholder:"IDENTITY" help:"Identity to use: consumer or agent. Default: consumer, unless only an agent is signed in."`
	TokenFile          string      `env:"LPFILESHARE_TOKEN_FILE" placeholder:"FILE" help:"Use the token in this file instead of the stored one. Or set LPFILESHARE_TOKEN (consumer) or LPFILESHARE_AGENT_TOKEN to the token."`
	ExternalConsumerID string      `env:"LPFILESHARE_EXTERNAL_CONSUMER_ID" placeholder:"ID" help:"Call as the consumer with this id of the brand. Requires a client certificate or loopback, and an account that the server has credentials of."`
	TLSCA              string      `name:"tls-ca" env:"LPFILESHARE_TLS_CA" placeholder:"FILE" help:"Connect over TLS, and trust only the certificate authorities in this PEM file."`
	ClientCert         string      `env:"LPFILESHARE_CLIENT_CERT" placeholder:"FILE" help:"Connect over TLS with the client certificate in this PEM file."`
	ClientKey          string      `env:"LPFILESHARE_CLIENT_KEY" placeholder:"FILE" help:"Key of --client-cert, in PEM."`
	Plaintext          bool        `env:"LPFILESHARE_PLAINTEXT" help:"Connect to other machines without TLS too. Tokens and files are then readable on the network."`
	Timeout            duration    `env:"LPFILESHARE_TIMEOUT" placeholder:"DURATION" help:"Give up after this time. Default: 1m; 10m for files; none for watches."`
	JSON               bool        `name:"json" env:"LPFILESHARE_JSON" help:"Print results as JSON, one object per line."`
	ShowVersion        showVersion `name:"version" help:"Show the version of this program."`
	SessionFile        string      `env:"LPFILESHARE_SESSION_FILE" placeholder:"FILE" help:"Session file. Default: lpfileshare/session.json in the user's configuration directory."`
}

// The environment variables that are not flags, because they are secrets.
const (
	envToken      = lpfileshare.EnvToken
	envAgentToken = lpfileshare.EnvAgentToken
	envPassword   = "LPFILESHARE_PASSWORD"
)

// run runs one command line and returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	var line cli
	a := &app{globals: &line.globals, stdin: stdin, stdout: stdout, stderr: stderr, getenv: os.Getenv, terminal: isTerminal}
	return runWith(ctx, a, &line, args)
}

// exitPanic leaves the parser on --help: kong expects that its exit function does not return.
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
	if len(args) == 0 { // print the help as an error
		args, out, helped = []string{"--help"}, a.stderr, exitUsage
	}
	parser, err := kong.New(line,
		kong.Name("lpfileshare"),
		kong.Description("Send files into LivePerson conversations and read them back, through an lpfileshare server."),
		kong.Vars{"file_types": fileTypeNames()},
		kong.Writers(out, a.stderr),
		kong.Exit(func(code int) { panic(exitPanic(max(code, helped))) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.Bind(a),
		kong.BindTo(ctx, (*context.Context)(nil)),
	)
	if err != nil {
		panic(err) // a mistake in the struct tags
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

// errReported is a failure that was already printed.
var errReported = errors.New("failed")

// report prints an error and what to do about it. It returns the exit code.
func (a *app) report(ctx context.Context, err error) int {
	if err == nil {
		return exitOK
	}
	if usage, ok := errors.AsType[*usageError](err); ok {
		fmt.Fprintf(a.stderr, "lpfileshare: %s\nSee lpfileshare --help.\n", usage.text)
		return exitUsage
	}
	if !errors.Is(err, errReported) {
		a.printError(ctx, err)
	}
	return exitFailed
}

// mayHaveSucceeded reports whether a failed call may have had an effect, so that it makes sense to repeat it under its request id.
func mayHaveSucceeded(c codes.Code) bool {
	switch c {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Aborted, codes.ResourceExhausted, codes.Internal, codes.Unknown, codes.Canceled:
		return true
	default:
		return false
	}
}

// printError prints one error.
func (a *app) printError(ctx context.Context, err error) {
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
		fmt.Fprintf(a.stderr, "lpfileshare: interrupted: %s was sent and may have been published\n", plain(e.Op))
		fmt.Fprintf(a.stderr, "  Show its state: lpfileshare get-upload %s. Repeat it without publishing it twice: --request-id %s\n", e.RequestID, e.RequestID)
	case a.command == "upload <file>" || a.command == "agent send <file>":
		if a.uploaded > 0 {
			fmt.Fprintf(a.stderr, "lpfileshare: interrupted after %d files; repeat the command with the rest\n", a.uploaded)
			return
		}
		fmt.Fprintln(a.stderr, "lpfileshare: interrupted: nothing was published; repeat the command to upload it again")
	case strings.HasPrefix(a.command, "download"):
		fmt.Fprintln(a.stderr, "lpfileshare: interrupted: no file was written; repeat the command to download it again")
	default:
		fmt.Fprintln(a.stderr, "lpfileshare: interrupted")
	}
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
