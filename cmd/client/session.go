package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// A session is what one command leaves for the next.
type session struct {
	// Address, the TLS files and Plaintext say how to reach the server that was signed in to last.
	Address   string `json:"address,omitempty"`
	TLSCA     string `json:"tls_ca,omitempty"`
	TLSCert   string `json:"tls_cert,omitempty"`
	TLSKey    string `json:"tls_key,omitempty"`
	Plaintext bool   `json:"plaintext,omitempty"`
	// Account is the account that was signed in to last.
	Account string `json:"account,omitempty"`
	// Consumer and Agent are who is signed in.
	Consumer *stored `json:"consumer,omitempty"`
	Agent    *stored `json:"agent,omitempty"`
	// Conversation is the one that was created last, at Address.
	Conversation string `json:"conversation,omitempty"`
	// Listed are the names of the files that ls listed last, at Address: commands take their numbers for them.
	Listed []string `json:"listed,omitempty"`
}

// A stored token, with the one address that it may be sent to.
type stored struct {
	Address       string    `json:"address"`
	Plaintext     bool      `json:"plaintext,omitempty"`
	Account       string    `json:"account"`
	ID            string    `json:"id"`
	Token         string    `json:"token"`
	Expires       time.Time `json:"expires,omitzero"`
	RenewalSecret string    `json:"renewal_secret,omitempty"`
}

// A sessionFile is the path of a session.
type sessionFile string

// openSessionFile finds the session file; the default is in the user's configuration folder.
func openSessionFile(path string) (sessionFile, error) {
	if path != "" {
		return sessionFile(path), nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", &adviceError{fmt.Errorf("no place for the session file: %w", err), "Name one with --session-file or LPFILESHARE_SESSION."}
	}
	return sessionFile(filepath.Join(dir, "lpfileshare", "session.json")), nil
}

// load reads the session. Where there is no file, the session is empty. One that others can read or change is refused.
func (f sessionFile) load() (*session, error) {
	file, err := os.Open(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return &session{}, nil
	}
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return nil, &adviceError{
			fmt.Errorf("the session file %s is open to others (%v), and it holds tokens", f, info.Mode().Perm()),
			fmt.Sprintf("If nobody else has used it: chmod 600 %s. Else: lpfileshare sign-out, and sign in again.", f),
		}
	}
	var s session
	if err := json.NewDecoder(io.LimitReader(file, 1<<20)).Decode(&s); err != nil {
		return nil, &adviceError{fmt.Errorf("the session file %s cannot be read: %w", f, err), "Remove it with lpfileshare sign-out, and sign in again."}
	}
	return &s, nil
}

// update changes the session as it stands in the file now.
func (f sessionFile) update(change func(*session)) error {
	s, err := f.load()
	if err != nil {
		return err
	}
	change(s)
	return f.save(s)
}

// save writes the session, whole or not at all.
func (f sessionFile) save(s *session) error {
	dir := filepath.Dir(string(f))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, ".session-*") // 0600
	if err != nil {
		return err
	}
	_, err = tmp.Write(append(b, '\n'))
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), string(f))
	}
	if err != nil {
		os.Remove(tmp.Name())
	}
	return err
}

// remove deletes the session, and says whether there was one.
func (f sessionFile) remove() (was bool, err error) {
	err = os.Remove(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
