package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/alecthomas/kong"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
)

// Client and server can run in one environment, so a name that both have must mean the same. The environment variable of a flag is
// LPFILESHARE_ and the name of the flag; those of secrets, which have no flags, must not be the name of any flag.
func TestFlags_Names(t *testing.T) {
	same := []string{"help", "version"}                      // the only names that both programs have; they mean the same
	text, err := os.ReadFile("../server/testdata/flags.txt") // compared with the server's flags by a test there
	if err != nil {
		t.Fatal(err)
	}
	server := map[string]bool{} // names and environment variables
	for name := range strings.FieldsSeq(string(text)) {
		server[name] = true
	}
	if !server["serve-account"] || !server["LPFILESHARE_SERVE_ACCOUNT"] {
		t.Fatalf("the server's flags are %v", server)
	}
	k, err := kong.New(&cli{}, kong.Vars{"file_types": fileTypeNames()}, kong.Bind(&app{}))
	if err != nil {
		t.Fatal(err)
	}
	flags := map[string]bool{}
	var walk func(n *kong.Node)
	walk = func(n *kong.Node) {
		for _, f := range n.Flags {
			flags[envOf(f.Name)] = true
			if server[f.Name] && !slices.Contains(same, f.Name) {
				t.Errorf("%s: the server has --%s too", n.FullPath(), f.Name)
			}
			for _, env := range f.Envs {
				if env != envOf(f.Name) {
					t.Errorf("--%s is set by %s, want %s", f.Name, env, envOf(f.Name))
				}
				if server[env] {
					t.Errorf("the server reads %s too", env)
				}
			}
			if n.Type != kong.ApplicationNode && len(f.Envs) > 0 { // an option of one command must not be set for all of them
				t.Errorf("%s: --%s is set by %v", n.FullPath(), f.Name, f.Envs)
			}
		}
		for _, child := range n.Children {
			walk(child)
		}
	}
	walk(k.Model.Node)
	for _, secret := range []string{envToken, envAgentToken, envPassword} {
		if flags[secret] || server[secret] {
			t.Errorf("%s is the environment variable of a flag", secret)
		}
	}
	for _, setting := range []string{
		lpfileshare.EnvAddress, lpfileshare.EnvAccount, lpfileshare.EnvExternalConsumerID, lpfileshare.EnvTLSCA, lpfileshare.EnvClientCert,
		lpfileshare.EnvClientKey, lpfileshare.EnvPlaintext, lpfileshare.EnvBearerTokenFile,
	} {
		if !flags[setting] {
			t.Errorf("DialEnv reads %s, and the command has no such flag", setting)
		}
	}
}

func envOf(flag string) string {
	return "LPFILESHARE_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}
