package ledger

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// embedded is a NATS server in this process. It listens on no port; the only connection to it is in memory.
//
// The server can be restarted while it is in use: nats.Conn then connects to the new one, as it would to a server that was down. That
// is needed because JetStream rejects every write after the first one that the disk has rejected, until it opens its files again.
type embedded struct {
	dir   string
	files bool // records are in files, not in memory
	sync  bool
	relay *relay
	lock  *os.File // nil in memory
	temp  string   // directory to remove; "": none

	mu     sync.Mutex
	server *server.Server // nil while it does not run
	opened map[string]os.FileInfo
}

// syncInterval is the time after which JetStream has synced a record to the disk.
const syncInterval = 2 * time.Minute

// errLocked is returned by lockFile if another process has the lock.
var errLocked = errors.New("another server has locked it")

// newEmbedded prepares the directory of a server, which start then starts. The caller must call close.
func newEmbedded(c Config, log *slog.Logger) (_ *embedded, err error) {
	e := &embedded{dir: c.Dir, files: c.Dir != "", sync: c.Sync, relay: newRelay(log)}
	defer func() {
		if err != nil {
			e.close()
		}
	}()
	if !e.files {
		// JetStream needs a directory even if all records are in memory.
		if e.temp, err = os.MkdirTemp("", "lpfileshare-ledger-"); err != nil {
			return nil, fmt.Errorf("the ledger: %w", err)
		}
		e.dir = e.temp
		return e, nil
	}
	if err := os.MkdirAll(e.dir, 0o700); err != nil {
		return nil, fmt.Errorf("the ledger: %w; use --data-dir with a writable directory", err)
	}
	return e, e.acquire()
}

// acquire locks the directory, and verifies that it can be written to.
func (e *embedded) acquire() (err error) {
	if e.lock == nil {
		e.lock, err = lockFile(filepath.Join(e.dir, "lock"))
	}
	if errors.Is(err, errLocked) {
		return fmt.Errorf("the ledger in %s is in use (%w); give each server its own --data-dir, or use a shared NATS cluster with --ledger", e.dir, err)
	}
	if err == nil {
		err = e.writable()
	}
	if err != nil {
		return fmt.Errorf("the ledger cannot write to %s: %w; make the directory writable and free some space, or choose another one with --data-dir", e.dir, err)
	}
	return nil
}

// release stops the server and closes all files, so that the disk can be unmounted and repaired.
func (e *embedded) release() error {
	e.stop()
	if e.lock == nil {
		return nil
	}
	err := e.lock.Close()
	e.lock = nil
	return err
}

// start starts the server. It returns after all records have been read.
func (e *embedded) start() error {
	const unlimited = 1 << 50 // the bucket has a limit
	e.relay.begin()
	s, err := server.NewServer(&server.Options{
		ServerName: "lpfileshare", DontListen: true, NoSigs: true, DisableJetStreamBanner: true,
		JetStream: true, StoreDir: e.dir, JetStreamMaxMemory: unlimited, JetStreamMaxStore: unlimited, SyncAlways: e.sync, SyncInterval: syncInterval,
	})
	if err != nil {
		return fmt.Errorf("the ledger: %w", err)
	}
	s.SetLoggerV2(e.relay, false, false, false)
	s.Start()
	if !s.ReadyForConnections(time.Second) || !s.JetStreamEnabled() {
		s.Shutdown()
		s.WaitForShutdown()
		return fmt.Errorf("the ledger in %s did not start: %s", e.dir, e.relay.reason())
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.server, e.opened = s, map[string]os.FileInfo{}
	return nil
}

// stop stops the server, and waits until it has written its files.
func (e *embedded) stop() {
	e.mu.Lock()
	s := e.server
	e.server = nil
	e.mu.Unlock()
	if s != nil {
		s.Shutdown()
		s.WaitForShutdown()
	}
}

// InProcessConn returns a connection to the server. nats.Conn calls it whenever it connects.
func (e *embedded) InProcessConn() (net.Conn, error) {
	e.mu.Lock()
	s := e.server
	e.mu.Unlock()
	if s == nil {
		return nil, errors.New("the embedded NATS server does not run")
	}
	return s.InProcessConn()
}

// failed reports why the server must be restarted; nil if it need not. After an error of the disk a stream rejects every write without
// an answer, or JetStream ends by itself.
func (e *embedded) failed() error {
	if s := e.relay.writeError.Load(); s != nil {
		return errors.New(*s)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.server == nil:
		return errors.New("its files are closed, to be opened again")
	case !e.server.JetStreamEnabled():
		return errors.New(e.relay.reason())
	}
	return nil
}

// writable reports whether the disk has space for more than a few records. It writes a file and removes it.
func (e *embedded) writable() (err error) {
	const size = 256 << 10
	f, err := os.CreateTemp(e.dir, "space-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	_, err = f.Write(make([]byte, size))
	return errors.Join(err, f.Close())
}

// streamDir returns the directory in which JetStream stores a stream.
func (e *embedded) streamDir(stream string) string {
	return filepath.Join(e.dir, server.JetStreamStoreDir, "$G", "streams", stream)
}

// check reports whether the directory of an open stream is still the one that was there when check was first called. JetStream does
// not notice if its files are removed or replaced, and goes on writing to the removed ones.
func (e *embedded) check(stream string) error {
	if !e.files {
		return nil
	}
	dir := e.streamDir(stream)
	now, err := os.Stat(dir)
	if err == nil {
		_, err = os.Stat(filepath.Join(dir, "msgs"))
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errFilesReplaced, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	first, known := e.opened[stream]
	if !known {
		e.opened[stream] = now
	} else if !os.SameFile(first, now) {
		return fmt.Errorf("%w: %s is another directory", errFilesReplaced, dir)
	}
	return nil
}

// missing reports whether the directory of a stream does not exist.
func (e *embedded) missing(stream string) bool {
	_, err := os.Stat(filepath.Join(e.streamDir(stream), "msgs"))
	return errors.Is(err, os.ErrNotExist)
}

var errFilesReplaced = errors.New("the files of the ledger were removed or replaced while it was open")

func (e *embedded) close() error {
	errs := []error{e.release()}
	if e.temp != "" {
		errs = append(errs, os.RemoveAll(e.temp))
	}
	return errors.Join(errs...)
}

// relay logs the messages of the NATS server, and keeps the most severe one. Debug messages are not requested.
type relay struct {
	log   *slog.Logger
	worst atomic.Pointer[string]
	// writeError is a message about a write that the disk has rejected.
	writeError atomic.Pointer[string]

	mu   sync.Mutex
	last map[string]time.Time // when a format was logged
}

func newRelay(log *slog.Logger) *relay { return &relay{log: log, last: map[string]time.Time{}} }

// begin forgets the messages of an earlier server.
func (r *relay) begin() {
	r.worst.Store(nil)
	r.writeError.Store(nil)
}

func (r *relay) reason() string {
	if s := r.worst.Load(); s != nil {
		return *s
	}
	return "it gave no reason"
}

// relayEvery is the time between two log lines of the same kind: a full disk gives one for each record.
const relayEvery = time.Minute

func (r *relay) due(format string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if t, ok := r.last[format]; ok && time.Since(t) < relayEvery {
		return false
	}
	r.last[format] = time.Now()
	return true
}

const relayed = "embedded NATS server"

func (r *relay) Fatalf(format string, v ...any) {
	s := fmt.Sprintf(format, v...)
	r.worst.Store(&s)
	r.log.Error(relayed, "message", s)
}

func (r *relay) Errorf(format string, v ...any) {
	s := fmt.Sprintf(format, v...)
	r.worst.CompareAndSwap(nil, &s)
	if strings.Contains(s, "write error") { // NATS has no other sign of it
		r.writeError.CompareAndSwap(nil, &s)
	}
	if r.due(format) {
		r.log.Error(relayed, "message", s)
	}
}

func (r *relay) Warnf(format string, v ...any) {
	if r.due(format) {
		r.log.Warn(relayed, "message", fmt.Sprintf(format, v...))
	}
}
func (*relay) Noticef(string, ...any) {}
func (*relay) Debugf(string, ...any)  {}
func (*relay) Tracef(string, ...any)  {}
