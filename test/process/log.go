package process

import (
	"context"
	"strings"
	"sync"
)

// A Log keeps the lines that a program wrote since the last Reset. It is safe for concurrent use.
type Log struct {
	mu      sync.Mutex
	lines   []string
	changed chan struct{} // closed at the next line
}

func newLog() *Log { return &Log{changed: make(chan struct{})} }

func (l *Log) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	close(l.changed)
	l.changed = make(chan struct{})
}

// Reset forgets all lines.
func (l *Log) Reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = nil
}

// since returns the lines from the n-th on, and a channel that is closed when there are more.
func (l *Log) since(n int) (lines []string, more <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines[min(n, len(l.lines)):len(l.lines):len(l.lines)], l.changed
}

// String returns all lines.
func (l *Log) String() string {
	lines, _ := l.since(0)
	return strings.Join(lines, "")
}

// Tail returns the last lines, for error messages.
func (l *Log) Tail() string {
	lines, _ := l.since(0)
	return strings.Join(lines[max(0, len(lines)-200):], "")
}

// Count returns the number of lines that contain all of the words.
func (l *Log) Count(words ...string) int {
	lines, _ := l.since(0)
	return count(lines, words)
}

// Wait waits until n lines contain all of the words. Its error is that of ctx.
func (l *Log) Wait(ctx context.Context, n int, words ...string) error {
	found, read := 0, 0
	for {
		lines, more := l.since(read)
		found, read = found+count(lines, words), read+len(lines)
		if found >= n {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func count(lines, words []string) (n int) {
	for _, line := range lines {
		if containsAll(line, words) {
			n++
		}
	}
	return n
}

func containsAll(line string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(line, w) {
			return false
		}
	}
	return true
}
