package wire

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"sync"
)

// A record is a line of a recording.
type record struct {
	FromClient bool   `json:"fromClient"`
	Dialect    string `json:"dialect"`
	Data       string `json:"data"` // a string, because a frame may be invalid JSON
}

// A Recorder appends frames to a file. It is safe for concurrent use. The file contains tokens and signatures, so record sandboxes
// only.
type Recorder struct {
	mu   sync.Mutex
	file *os.File
	err  error
}

// Record opens this process's file in dir, which it creates if necessary. All Recorders of a process append to the same file. Callers
// must call Close.
func Record(dir string) (*Recorder, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("wire: %w", err)
	}
	name := filepath.Join(dir, fmt.Sprintf("frames-%d.jsonl", os.Getpid()))
	f, err := os.OpenFile(name, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("wire: %w", err)
	}
	return &Recorder{file: f}, nil
}

// RecordEnv is the environment variable with the folder in which suites record.
const RecordEnv = "LPFILESHARE_RECORD_FRAMES"

// Add appends a frame in one write. Close reports errors. Add on a nil Recorder does nothing.
func (r *Recorder) Add(f Frame) {
	if r == nil {
		return
	}
	line, err := json.Marshal(record{FromClient: f.FromClient, Dialect: f.Dialect, Data: string(f.Data)})
	r.mu.Lock()
	defer r.mu.Unlock()
	if err == nil {
		_, err = r.file.Write(append(line, '\n'))
	}
	if err != nil && r.err == nil {
		r.err = fmt.Errorf("wire: recording: %w", err)
	}
}

// Close closes the file and returns the first error of Add.
func (r *Recorder) Close() error {
	if r == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return errors.Join(r.err, r.file.Close())
}

// Recorded returns the frames of all files in dir, in the order of recording within each file. It ends after the first error.
func Recorded(dir string) iter.Seq2[Frame, error] {
	return func(yield func(Frame, error) bool) {
		entries, err := os.ReadDir(dir) // sorted
		if err != nil {
			yield(Frame{}, fmt.Errorf("wire: %w", err))
			return
		}
		for _, e := range entries {
			if filepath.Ext(e.Name()) == ".jsonl" && !readFile(filepath.Join(dir, e.Name()), yield) {
				return
			}
		}
	}
}

// readFile yields the frames of one file and reports whether to continue.
func readFile(name string, yield func(Frame, error) bool) bool {
	f, err := os.Open(name)
	if err != nil {
		yield(Frame{}, fmt.Errorf("wire: %w", err))
		return false
	}
	defer func() { _ = f.Close() }()
	d := json.NewDecoder(bufio.NewReaderSize(f, 1<<16))
	d.DisallowUnknownFields()
	for {
		var r record
		switch err := d.Decode(&r); {
		case errors.Is(err, io.EOF):
			return true
		case err != nil:
			yield(Frame{}, fmt.Errorf("wire: %s: %w", filepath.Base(name), err))
			return false
		}
		if !yield(Frame{FromClient: r.FromClient, Dialect: r.Dialect, Data: []byte(r.Data)}, nil) {
			return false
		}
	}
}
