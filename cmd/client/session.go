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
	// BearerTokenFile is the path of the file with the service's bearer token for that server.
	BearerTokenFile string `json:"bearer_token_file,omitempty"`
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

const (
	// maxConversations is the number of conversations that the session file keeps.
	maxConversations = 100
	// maxSessionBytes is the size of the session file that load reads, maxListedBytes the part of its listing.
	maxSessionBytes, maxListedBytes = 1 << 20, 512 << 10
)

// cut returns the first files of a listing, as many as the session file may have.
func (l *listing) cut() *listing {
	size := 0
	for i, name := range l.Names {
		line, _ := json.Marshal(name) // a string is always valid
		if size += len(line) + len("      ,\n"); size > maxListedBytes {
			return &listing{Address: l.Address, Names: l.Names[:i]}
		}
	}
	return l
}

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
	if err := json.NewDecoder(io.LimitReader(file, maxSessionBytes)).Decode(&s); err != nil {
		return nil, &adviceError{fmt.Errorf("the session file %s cannot be read: %w", f, err), "Delete it with lpfileshare sign-out, and sign in again."}
	}
	return &s, nil
}

const (
	// lockTimeout is how long a command waits for others that change the session, which takes each a few milliseconds.
	lockTimeout = 5 * time.Second
	// lockInterval is the time between two attempts to lock. A blocking flock could not be ended.
	lockInterval = 5 * time.Millisecond
)

// lock excludes other commands that change the session, until unlock. It locks a file of its own, because save replaces the session file.
// Where the platform or the file system has no locks it excludes nothing.
func (f sessionFile) lock() (unlock func(), err error) {
	file, err := os.OpenFile(string(f)+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(lockTimeout); !tryLock(file); time.Sleep(lockInterval) {
		if time.Now().After(deadline) {
			file.Close()
			return nil, temporaryError{fmt.Errorf("another command has locked the session file %s for %v; retry later", f, lockTimeout)}
		}
	}
	return func() { file.Close() }, nil
}

// update reads, changes and writes the session.
func (f sessionFile) update(change func(*session)) error {
	if err := os.MkdirAll(filepath.Dir(string(f)), 0o700); err != nil {
		return err
	}
	unlock, err := f.lock()
	if err != nil {
		return err
	}
	defer unlock()
	s, err := f.load()
	if err != nil {
		return err
	}
	change(s)
	return f.save(s)
}

// save writes the session, completely or not at all. It cuts a listing that is too large, so that load can read the file.
func (f sessionFile) save(s *session) error {
	if s.Listed != nil {
		s.Listed = s.Listed.cut()
	}
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
	if _, err := os.Lstat(string(f)); errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	unlock, err := f.lock() // otherwise a command that updates the session would write it again
	if err != nil {
		return false, err
	}
	defer unlock()
	err = os.Remove(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}
