package ledger

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
)

// embedded is a NATS server in this process. It listens on no port; the only connection to it is in memory.
type embedded struct {
	server *server.Server
	lock   *os.File // nil in memory
	temp   string   // directory to remove; "": none
}

func startEmbedded(c Config, log *slog.Logger) (_ *embedded, err error) {
	e := &embedded{}
	defer func() {
		if err != nil {
			e.close()
		}
	}()
	dir := c.Dir
	if dir == "" {
		// JetStream needs a directory even if all records are in memory.
		if e.temp, err = os.MkdirTemp("", "lpfileshare-ledger-"); err != nil {
			return nil, fmt.Errorf("the ledger: %w", err)
		}
		dir = e.temp
	} else {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("the ledger: %w; use --data-dir with a writable directory", err)
		}
		if e.lock, err = lockFile(filepath.Join(dir, "lock")); err != nil {
			return nil, fmt.Errorf("the ledger in %s is in use (%w); give each server its own --data-dir, or use a shared NATS cluster with --ledger", dir, err)
		}
	}
	const unlimited = 1 << 50 // the bucket has a limit
	relay := &relay{log: log}
	e.server, err = server.NewServer(&server.Options{
		ServerName: "lpfileshare", DontListen: true, NoSigs: true, DisableJetStreamBanner: true,
		JetStream: true, StoreDir: dir, JetStreamMaxMemory: unlimited, JetStreamMaxStore: unlimited, SyncAlways: c.Sync,
	})
	if err != nil {
		return nil, fmt.Errorf("the ledger: %w", err)
	}
	e.server.SetLoggerV2(relay, false, false, false)
	e.server.Start() // it returns after all records have been read
	if !e.server.ReadyForConnections(time.Second) || !e.server.JetStreamEnabled() {
		return nil, fmt.Errorf("the ledger in %s did not start: %s", dir, relay.reason())
	}
	return e, nil
}

func (e *embedded) close() error {
	if e.server != nil {
		e.server.Shutdown()
		e.server.WaitForShutdown()
	}
	var errs []error
	if e.lock != nil {
		errs = append(errs, e.lock.Close())
	}
	if e.temp != "" {
		errs = append(errs, os.RemoveAll(e.temp))
	}
	return errors.Join(errs...)
}

// relay logs the messages of the NATS server and keeps the most severe one. Debug messages are not requested.
type relay struct {
	log   *slog.Logger
	worst atomic.Pointer[string]
}

func (r *relay) reason() string {
	if s := r.worst.Load(); s != nil {
		return *s
	}
	return "it gave no reason"
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
	r.log.Error(relayed, "message", s)
}

func (r *relay) Warnf(format string, v ...any) {
	r.log.Warn(relayed, "message", fmt.Sprintf(format, v...))
}
func (*relay) Noticef(string, ...any) {}
func (*relay) Debugf(string, ...any)  {}
func (*relay) Tracef(string, ...any)  {}
