// Check-frames holds the frames that a server with its sandbox has written (lpfileshare-server --sandbox --sandbox-frames FOLDER)
// against the schemas of test/wire.
//
//	check-frames -suite NAME [-foreign DIALECT,...] FOLDER
//
// It is for scripts that run the server as a process. -foreign names the dialects, consumer and brand, that clients speak there
// which are not our gateway: theirs are their own. What is checked is recorded as the suite's if LPFILESHARE_RECORD_FRAMES names a
// folder.
//
// It exits with 1 if there was no frame, or a wrong one.
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
	foreign := flag.String("foreign", "", "`dialects`, with commas between them, of clients that are not our gateway")
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

// run checks the frames in a folder. Its error is what the exit code stands for.
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
