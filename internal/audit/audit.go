// Package audit writes the audit stream: one line of JSON for each call of the contract that has ended, and for what else a security team
// asks about. docs/audit.md describes the lines. They have identifiers and no contents.
package audit

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"hash"
	"io"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/lpfileshare/lpfileshare/internal/policy"
	"github.com/lpfileshare/lpfileshare/internal/service"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// Config is what a Log works with. Every field but Path and Key is required, and Out only without Path.
type Config struct {
	// Path is the file that lines are appended to; empty: they are written to Out.
	Path string
	Out  io.Writer
	// Refuse has calls refused while the stream cannot be written. Otherwise they run, and lines that do not fit in the buffer are lost.
	Refuse bool
	// Key is the key of the HMAC that replaces the identifiers of people; empty: they are written as they are.
	Key []byte
	// Server names this server, and Version its version.
	Server, Version string
	// Caller returns the calling service, as far as its connection proves it.
	Caller func(ctx context.Context) policy.Caller
	Log    *slog.Logger
}

// A Log writes the audit stream. Its methods never block, and are safe for concurrent use. The nil Log writes nothing.
type Log struct {
	Config
	stream *stream
	denied deniedHandshakes

	mu   sync.Mutex // guards what follows, which is used for one line after the other
	line []byte
	text []byte
	sum  []byte
	mac  hash.Hash // HMAC with Key, or SHA-256
}

// Open opens the stream. The caller must call Close.
func Open(c Config) (*Log, error) {
	var out io.WriteCloser = notClosed{c.Out}
	if c.Path != "" {
		file, err := openFile(c.Path)
		if err != nil {
			return nil, err
		}
		out = file
	}
	l := &Log{Config: c, mac: sha256.New()}
	if len(c.Key) > 0 {
		l.mac = hmac.New(sha256.New, c.Key)
	}
	l.stream = newStream(out, l.appendGap, c.Log)
	l.write("start", func(line) {})
	return l, nil
}

// notClosed is a writer that belongs to somebody else.
type notClosed struct{ io.Writer }

func (notClosed) Close() error { return nil }

// Reopen opens the file again, after a program such as logrotate has renamed it. If that fails, the lines go on to where they went before.
// It has no effect without a file.
func (l *Log) Reopen() error {
	if l == nil || l.Path == "" {
		return nil
	}
	file, err := openFile(l.Path)
	if err != nil {
		l.Log.Error("the audit file cannot be opened again, the previous one stays in use", "error", err)
		return err
	}
	l.stream.replace(file)
	l.Log.Info("the audit file was opened again")
	return nil
}

// Close writes what is buffered, and returns after limit even if that has not ended. What is written after Close is lost.
func (l *Log) Close(limit time.Duration) {
	if l == nil {
		return
	}
	l.denied.stop(l)
	l.write("stop", func(line) {})
	l.stream.close(limit)
}

// Usable reports whether lines are being written, or can be kept until they are.
func (l *Log) Usable() bool { return l == nil || l.stream.isUsable() }

// Refuses reports whether calls are refused, because the stream cannot be written.
func (l *Log) Refuses() bool { return l != nil && l.Refuse && !l.Usable() }

// Watch has f called whenever Usable has changed.
func (l *Log) Watch(f func()) {
	if l != nil {
		l.stream.watch(f)
	}
}

// Lost returns the number of lines that were lost since the start.
func (l *Log) Lost() int64 { return l.stream.lostLines() }

// Accept refuses a call that the stream could have no line for, if Config says so: with ServerDraining, because another server may have a
// stream that can be written.
func (l *Log) Accept() error {
	if !l.Refuses() {
		return nil
	}
	return share.Reject(share.ServerDraining, "this server cannot write its audit stream, so it accepts no calls; retry, preferably on another server").With("why", "audit")
}

// Ended writes the line of a call. A call that was refused because of the stream is counted instead.
func (l *Log) Ended(ctx context.Context, c *service.EndedCall) {
	if c.Refused {
		l.stream.refuse()
		return
	}
	caller := l.Caller(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.begin(c.Begun.Add(c.Took), "call")
	n.text("method", c.Method)
	n.text("code", c.Code.String())
	n.text("reason", c.Reason)
	n.number("duration_ms", c.Took.Milliseconds())
	n.peer(c.Peer)
	n.caller(caller)
	n.text("account", c.Account)
	n.person(personOf(c.Principal.Role), c.Principal.ID)
	n.text("role", string(c.Principal.Role))
	n.text("decision", string(c.Decision))
	n.person("conversation", c.Conversation)
	n.digest("file", c.StoragePath)
	n.text("type", c.FileType)
	if c.Bytes > 0 {
		n.number("bytes", c.Bytes)
	}
	if len(c.SHA256) > 0 {
		n.key("sha256")
		n.hex(c.SHA256[:min(prefixBytes, len(c.SHA256))])
	}
	n.text("request_id", c.RequestID)
	n.flag("replayed", c.Replayed)
	n.flag("takeover", c.TookOver)
	if sent := attempts(ctx); sent > 0 {
		n.number("attempts", sent)
	}
	n.text("trace_id", traceID(ctx))
	l.end(n)
}

// Unseen writes the line of a call that gRPC itself ended, before the server's code saw it. method is not longer than the caller of Unseen
// allows.
func (l *Log) Unseen(ctx context.Context, method, peer string, exceeded bool) {
	l.write("call", func(n line) {
		n.text("method", method)
		if exceeded {
			n.text("code", codes.DeadlineExceeded.String())
		}
		n.text("reason", "REQUEST_NOT_RECEIVED")
		n.peer(peer)
		n.text("trace_id", traceID(ctx))
	})
}

// Reloaded writes the line of a reload. file is the name of the flag that names the file, without dashes; by says what asked for it.
func (l *Log) Reloaded(file, by string, err error) {
	result := "loaded"
	if err != nil {
		result = "failed"
	}
	l.write("reload", func(n line) {
		n.text("file", file)
		n.text("by", by)
		n.text("result", result)
	})
}

// Requested writes the line of a request to one of the server's HTTP listeners for operators. caller is the name in the client's
// certificate, if it has one.
func (l *Log) Requested(listener, peer string, caller policy.Name, method, path string, status int, took time.Duration) {
	l.write("admin", func(n line) {
		n.text("listener", listener)
		n.peer(peer)
		n.name("caller", caller)
		n.text("method", share.Clip(method, maxText))
		n.text("path", share.Clip(path, maxText))
		n.number("status", int64(status))
		n.number("duration_ms", took.Milliseconds())
	})
}

// maxText is the maximum length of a text that others chose, in bytes.
const maxText = 200

func (l *Log) appendGap(to []byte, lost, refused int64) []byte {
	n := line{to: &to, l: l} // without what l.mu guards
	n.start(time.Now(), "gap")
	n.number("lost", lost)
	n.number("refused", refused)
	n.finish()
	return to
}

// write writes a line. The nil Log writes nothing.
func (l *Log) write(event string, fields func(line)) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.begin(time.Now(), event)
	fields(n)
	l.end(n)
}

// begin begins a line in l.line. l.mu is held.
func (l *Log) begin(at time.Time, event string) line {
	l.line = l.line[:0]
	n := line{to: &l.line, l: l}
	n.start(at, event)
	return n
}

func (l *Log) end(n line) {
	n.finish()
	l.stream.add(l.line)
}

// personOf returns the key of the identity of a call.
func personOf(r share.Role) string {
	if r == share.RoleConsumer {
		return "consumer"
	}
	return "agent"
}

// attempts returns how often a client with a retry policy has sent the call, as it says; 0: it does not say.
func attempts(ctx context.Context) int64 {
	before := first(ctx, "grpc-previous-rpc-attempts")
	if before == "" || len(before) > 3 {
		return 0
	}
	n := int64(0)
	for _, c := range []byte(before) {
		if c < '0' || c > '9' {
			return 0
		}
		n = 10*n + int64(c-'0')
	}
	return n + 1
}

// traceID returns the trace id of the W3C header traceparent; empty if the call has none.
func traceID(ctx context.Context) string {
	const length, begin, end = 55, 3, 35 // 00-<32 digits>-<16 digits>-<2 digits>
	parent := first(ctx, "traceparent")
	if len(parent) < length || parent[begin-1] != '-' || parent[end] != '-' {
		return ""
	}
	id := parent[begin:end]
	for _, c := range []byte(id) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return ""
		}
	}
	return id
}

func first(ctx context.Context, key string) string {
	if values := metadata.ValueFromIncomingContext(ctx, key); len(values) > 0 {
		return values[0]
	}
	return ""
}

// digestOf returns the HMAC of a text, or its SHA-256 without a key, shortened. l.mu is held.
func (l *Log) digestOf(text string) []byte {
	l.mac.Reset()
	l.text = append(l.text[:0], text...)
	l.mac.Write(l.text)
	l.sum = l.mac.Sum(l.sum[:0])
	return l.sum[:digestBytes]
}

// Lengths in a line, in bytes: of a digest, and of the prefix of a file's checksum.
const (
	digestBytes = 16
	prefixBytes = 8
)
