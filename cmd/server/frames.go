package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/lpfileshare/lpfileshare/internal/sandbox"
)

// A frameLog writes the frames of the sandbox's sockets to a file: one JSON object per line, as test/wire reads them. The frames
// contain tokens and signatures, which are valid in the sandbox only.
type frameLog struct {
	mu   sync.Mutex
	file *os.File
	err  error
}

// openFrameLog creates this process's file in a folder, and the folder if it does not exist. The caller closes it, after the sandbox.
func openFrameLog(dir string) (*frameLog, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("frames-%d.jsonl", os.Getpid())), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	return &frameLog{file: file}, nil
}

// add appends a frame, in one write. close returns the first error.
func (l *frameLog) add(f sandbox.Frame) {
	line, err := json.Marshal(struct {
		FromClient bool   `json:"fromClient"`
		Dialect    string `json:"dialect"`
		Data       string `json:"data"` // a string, because a frame need not be JSON
	}{f.FromClient, f.Dialect, string(f.Data)})
	l.mu.Lock()
	defer l.mu.Unlock()
	if err == nil {
		_, err = l.file.Write(append(line, '\n'))
	}
	if err != nil && l.err == nil {
		l.err = err
	}
}

func (l *frameLog) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return errors.Join(l.err, l.file.Close())
}
