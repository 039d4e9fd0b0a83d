// Check-frames checks the frames that a server with a sandbox has written (lpfileshare-server --sandbox --sandbox-frames FOLDER)
// against the schemas of test/wire.
//
//	check-frames -suite NAME [-foreign DIALECT,...] FOLDER
//
// It is for scripts that run the server as a process. -foreign lists the dialects (consumer, brand) whose clients are not the server;
// their own frames are not checked. If LPFILESHARE_RECORD_FRAMES names a folder, the frames are recorded there for the suite.
//
// It exits with 1 if there is no frame or an invalid one.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/lpfileshare/lpfileshare/test/wire"
)

func main() {
	suite := flag.String("suite", "", "`name` of the suite that wrote the frames")
	foreign := flag.String("foreign", "", "Comma-separated `dialects` whose clients are not the server (none).")
	flag.Parse()
	if *suite == "" || flag.NArg() != 1 {
		flag.Usage()
		os.Exit(2)
	}
	if err := run(*suite, strings.Split(*foreign, ","), flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, "check-frames:", err)
		os.Exit(1)
	}
}

// run checks the frames in a folder. The command exits with 1 if it returns an error.
func run(name string, foreign []string, folder string) error {
	suite := wire.NewSuite(name)
	tap, err := suite.Tap()
	if err != nil {
		return err
	}
	for f, err := range wire.Recorded(folder) {
		switch {
		case err != nil:
			return errors.Join(err, suite.End())
		case slices.Contains(foreign, f.Dialect):
			tap.CheckForeign(f)
		default:
			tap.Check(f)
		}
	}
	return errors.Join(tap.Close(), suite.End())
}
