package main

import (
	"fmt"
	"runtime"
	"strings"

	"github.com/alecthomas/kong"

	"github.com/lpfileshare/lpfileshare/internal/buildinfo"
)

type versionCmd struct{}

// showVersion is the flag --version.
type showVersion bool

// BeforeReset prints the version and exits.
func (showVersion) BeforeReset(k *kong.Kong, a *app) error {
	err := versionCmd{}.Run(a)
	k.Exit(exitOK)
	return err
}

func (versionCmd) Run(a *app) error {
	v, revision := buildinfo.Version(), buildinfo.Revision()
	if a.JSON {
		return a.printJSON(map[string]string{"version": v, "revision": revision, "go": runtime.Version()})
	}
	_, err := fmt.Fprintln(a.stdout, strings.TrimSpace("lpfileshare "+v+" "+runtime.Version()+" "+revision))
	return err
}
