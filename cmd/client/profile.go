package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

const sessionFileName = "session.json"

// configDir returns the directory of the session files.
func configDir() (string, error) {
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", &adviceError{fmt.Errorf("no directory for the session file: %w", err), "Name a file with --session-file or LPFILESHARE_SESSION_FILE."}
	}
	return filepath.Join(dir, "lpfileshare"), nil
}

// profileDir returns the directory with one directory for each profile.
func profileDir() (string, error) {
	dir, err := configDir()
	return filepath.Join(dir, "profiles"), err
}

// openSessionFile returns the session file of the flags. The default is in the user's configuration directory.
func (a *app) openSessionFile() (sessionFile, error) {
	switch {
	case a.SessionFile != "" && a.Profile != "":
		return "", &usageError{"--session-file and --profile exclude each other; a profile has a session file of its own"}
	case a.SessionFile != "":
		return sessionFile(a.SessionFile), nil
	case a.Profile != "":
		if strings.Trim(a.Profile, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
			return "", &usageError{fmt.Sprintf("the name of a profile has letters, digits, - and _ only, unlike %q", a.Profile)}
		}
		dir, err := profileDir()
		return sessionFile(filepath.Join(dir, a.Profile, sessionFileName)), err
	}
	dir, err := configDir()
	return sessionFile(filepath.Join(dir, sessionFileName)), err
}

// profileNames returns the names of the profiles that have a session file.
func profileNames() ([]string, error) {
	dir, err := profileDir()
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join(dir, e.Name(), sessionFileName)); err == nil {
			names = append(names, e.Name())
		}
	}
	return names, err
}

type profilesCmd struct{}

func (profilesCmd) Run(a *app) error {
	names, err := profileNames()
	if err != nil {
		return err
	}
	if len(names) == 0 {
		a.note("No profiles. Create one: lpfileshare --profile NAME sign-in")
	}
	for _, name := range names {
		if a.JSON {
			err = a.printJSON(map[string]string{"profile": name})
		} else {
			_, err = fmt.Fprintln(a.stdout, name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
