package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	mangokong "github.com/alecthomas/mango-kong"
	"github.com/muesli/roff"
)

type manCmd struct{}

// Run prints the man page in the format of man(1).
func (manCmd) Run(a *app) error {
	_, err := fmt.Fprint(a.stdout, manPage())
	return err
}

// manPage returns the man page of the command line. It depends on nothing but the program.
func manPage() string {
	parser := newParser(&cli{}, kong.Bind(&app{}))
	page := mangokong.NewManPage(1, parser.Model).WithLongDescription(description + " Sign in once; the session file then has the address and the token for the next commands.")
	var codes strings.Builder
	for _, e := range exitCodes {
		fmt.Fprintf(&codes, "%d: %s\n\n", e.code, e.meaning)
	}
	page = page.WithSection("Exit status", codes.String()).
		WithSection("Environment", "Each global flag is also an environment variable: LPFILESHARE_ and the flag's name, for example LPFILESHARE_TLS_CA for --tls-ca. "+
			"Secrets have no flags: "+envToken+" is a consumer's token, "+envAgentToken+" an agent's, and "+envPassword+" an agent's password.").
		WithSection("Files", "lpfileshare/session.json and lpfileshare/profiles/NAME/session.json in the user's configuration directory, "+
			"on Linux $XDG_CONFIG_HOME or ~/.config. They contain tokens, so only their owner may read them.")
	return strings.Replace(page.Build(undated{roff.NewDocument()}), time.Time{}.Format(time.DateOnly), "", 1)
}

// undated is a document whose heading has neither the date of the build nor the description, which is too long for it.
type undated struct{ *roff.Document }

// Heading implements mango.Builder.
func (d undated) Heading(section uint, title, _ string, _ time.Time) {
	d.Document.Heading(section, title, "lpfileshare", time.Time{})
}
