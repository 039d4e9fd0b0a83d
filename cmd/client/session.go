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
	"slices"
	"strings"
	"time"
)

// A session is what one command stores for the next.
type session struct {
	// Address, the TLS files and Plaintext are how to reach the server of the last sign-in. TLSCert and TLSKey are those of the client.
	Address   string `json:"address,omitempty"`
	TLSCA     string `json:"tls_ca,omitempty"`
	TLSCert   string `json:"tls_cert,omitempty"`
	TLSKey    string `json:"tls_key,omitempty"`
	Plaintext bool   `json:"plaintext,omitempty"`
	// Account is the account of the last sign-in.
	Account string `json:"account,omitempty"`
	// Consumer and Agent are the identities that are signed in.
	Consumer *stored `json:"consumer,omitempty"`
	Agent    *stored `json:"agent,omitempty"`
	// Conversations are the last ones that callers created, newest last: one of each caller.
	Conversations []created `json:"conversations,omitempty"`
	// Listed is the last listing. Commands accept the numbers and the short names of its files.
	Listed *listing `json:"listed,omitempty"`
}

// A created conversation is the default of its caller at its server.
type created struct {
	Address string `json:"address"`
	Caller  string `json:"caller"`
	Name    string `json:"name"`
}

// A listing has the names of files, in the order in which they were listed, and where.
type listing struct {
	Address string   `json:"address"`
	Names   []string `json:"names"`
}

// maxConversations is the number of conversations that the session file keeps.
const maxConversations = 100

// setConversation makes a conversation the default of a caller at an address.
func (s *session) setConversation(address, caller, name string) {
	account, _, _ := strings.Cut(name, "/conversations/")
	s.Conversations = slices.DeleteFunc(s.Conversations, func(c created) bool {
		return c.Address == address && c.Caller == caller && strings.HasPrefix(c.Name, account+"/")
	})
	s.Conversations = append(s.Conversations, created{address, caller, name})
	s.Conversations = s.Conversations[max(0, len(s.Conversations)-maxConversations):]
}

// A stored token, with the only address that it may be sent to.
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

// load reads the session. Without a file the session is empty. A file that other users can read or change is rejected.
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
			fmt.Errorf("the session file %s contains tokens and is accessible to other users (mode %v)", f, info.Mode().Perm()),
			fmt.Sprintf("If no other user has read it: chmod 600 %s. Otherwise: lpfileshare sign-out, and sign in again.", f),
		}
	}
	var s session
	if err := json.NewDecoder(io.LimitReader(file, 1<<20)).Decode(&s); err != nil {
		return nil, &adviceError{fmt.Errorf("the session file %s cannot be read: %w", f, err), "Delete it with lpfileshare sign-out, and sign in again."}
	}
	return &s, nil
}

// update reads, changes and writes the session.
func (f sessionFile) update(change func(*session)) error {
	s, err := f.load()
	if err != nil {
		return err
	}
	change(s)
	return f.save(s)
}

// save writes the session, completely or not at all.
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

// remove deletes the session. It reports whether there was one.
func (f sessionFile) remove() (was bool, err error) {
	err = os.Remove(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
