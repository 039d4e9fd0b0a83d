package main

import (
	kongcompletion "github.com/jotaen/kong-completion"
	"github.com/posener/complete"
)

// completionEnv is the environment variable in which a shell passes the command line that is to be completed.
const completionEnv = "COMP_LINE"

// predictors complete the values of flags and arguments, by the names in their predictor tags.
func predictors(a *app) kongcompletion.Option {
	return kongcompletion.WithPredictors(map[string]complete.Predictor{
		"path": complete.PredictFiles("*"),
		"file": complete.PredictFunc(func(complete.Args) []string { return a.listedNames() }),
		"profile": complete.PredictFunc(func(complete.Args) []string {
			names, _ := profileNames()
			return names
		}),
	})
}

// listedNames returns the short names of the files of the last listing, of the default profile.
func (a *app) listedNames() (names []string) {
	file, err := a.openSessionFile()
	if err != nil {
		return nil
	}
	s, err := file.load()
	if err != nil || s.Listed == nil {
		return nil
	}
	for _, name := range s.Listed.Names {
		names = append(names, shortName(name))
	}
	return names
}
