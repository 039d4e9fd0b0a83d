// Command lpfileshare sends files into LivePerson conversations and reads them back, through an lpfileshare server.
//
// Sign in once. The session file then has the address and the token for the next commands:
//
//	lpfileshare sign-in
//	lpfileshare conversation create
//	lpfileshare upload cat.jpg
//	lpfileshare watch
//
// Results are written to standard output, everything else to standard error. exit.go has the exit codes.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/alecthomas/kong"
	kongcompletion "github.com/jotaen/kong-completion"

	"github.com/lpfileshare/lpfileshare/internal/cmdline"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C kills the program
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

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
	completes := a.getenv(completionEnv) != ""
	if len(args) == 0 && !completes { // print the help as an error
		args, out, helped = []string{"--help"}, a.stderr, exitUsage
	}
	parser := newParser(line,
		kong.Writers(out, a.stderr),
		kong.Exit(func(code int) { panic(exitPanic(max(code, helped))) }),
		kong.Bind(a),
		kong.BindTo(ctx, (*context.Context)(nil)),
	)
	if completes {
		kongcompletion.Register(parser, predictors(a)) // exits
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

// newParser returns the parser of the command line.
func newParser(line *cli, options ...kong.Option) *kong.Kong {
	parser, err := kong.New(line, append([]kong.Option{
		kong.Name("lpfileshare"),
		kong.Description(description),
		kong.Vars{"file_types": fileTypeNames()},
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		cmdline.RawStrings(),
	}, options...)...)
	if err != nil {
		panic(err) // a mistake in the struct tags
	}
	return parser
}
