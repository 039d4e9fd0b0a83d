package ledger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/nats-io/nats.go/jetstream"
)

// Health says what the ledger can be used for. A nil error means that it can.
type Health struct {
	// Ledger is why new request ids are rejected.
	Ledger error
	// Events is why the event log cannot be used. It is nil if no event log is open.
	Events error
}

const (
	// checkInterval is the time between two checks of the ledger's state.
	checkInterval = time.Second
	// spaceChecks is how many checks are between two searches for space on the disk of the process's own server. A probe alone does not
	// show that the disk is full, because it is so small that it finds space in the last block of a file for many seconds.
	spaceChecks = 4
	// restartChecks is the least number of checks between two restarts of the process's own server.
	restartChecks = 5
	// probeKey is the key of the record that checks write. It has no value, and is overwritten, so that it takes no space. Keys of
	// requests are hashes.
	probeKey = "probe"
)

// Watch calls f with the health of the ledger: now, and when an error appears or disappears, until Close. A second call replaces f.
func (l *KV) Watch(f func(Health)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.watcher = f
	f(l.health)
}

// checkPeriodically calls check until Close, and reports changes to the log and the watcher.
func (l *KV) checkPeriodically() {
	tick := time.NewTicker(l.interval)
	defer tick.Stop()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-tick.C:
		}
		now := l.checkAll()
		if l.ctx.Err() != nil {
			return
		}
		l.report(now)
	}
}

// checkAll checks the bucket and the event log. If that fails, it tries what may help.
func (l *KV) checkAll() Health {
	l.checking.Lock()
	defer l.checking.Unlock()
	events := l.eventLog.Load()
	checkEvents := func() error {
		if events == nil {
			return nil
		}
		return events.usable()
	}
	var ledger, logged error
	if l.own == nil || l.own.failed() == nil { // else both would only time out
		ledger, logged = l.check(), checkEvents()
	}
	if l.own != nil && l.own.files {
		restarted, err := l.restartOwn(errors.Join(ledger, logged))
		switch {
		case err != nil:
			ledger = err
		case restarted:
			ledger, logged = l.check(), checkEvents()
		}
		if err := l.findSpace(); err != nil && ledger == nil {
			ledger = err
		}
	}
	switch { // another error says nothing of the records
	case errors.Is(ledger, errLost):
		l.guard.lost.Store(true)
	case ledger == nil:
		l.guard.lost.Store(false)
		l.guard.persist()
		part := l.shares.part()
		if l.full = part > fullAt || l.full && part > fullAt-rearm; l.full {
			ledger = errFull
		}
	}
	return Health{Ledger: ledger, Events: logged}
}

// report logs changes and passes them on.
func (l *KV) report(now Health) {
	l.mu.Lock()
	defer l.mu.Unlock()
	was := l.health
	l.health = now
	for _, part := range []struct {
		was, now         error
		restored, failed string
	}{
		{was.Ledger, now.Ledger, "the ledger is usable again", "the ledger is not usable; uploads are rejected"},
		{was.Events, now.Events, "the event log is usable again", "the event log is not usable; calls of accounts with the Connector API are rejected"},
	} {
		switch {
		case part.now == nil && part.was != nil:
			l.log.Info(part.restored)
		case part.now != nil && part.now != errFull && (part.was == nil || part.was == errFull || errors.Is(part.now, errLost) && !errors.Is(part.was, errLost)):
			l.log.Error(part.failed, "error", explain(part.now))
		}
	}
	if now.Ledger != nil && was.Ledger != nil {
		l.log.Debug("the ledger is still not usable", "error", now.Ledger)
	}
	if l.watcher != nil && ((was.Ledger == nil) != (now.Ledger == nil) || (was.Events == nil) != (now.Events == nil)) {
		l.watcher(now)
	}
}

// startOwn starts the process's own server, and verifies its files before and after that.
func (l *KV) startOwn() (err error) {
	if l.own, err = newEmbedded(l.config, l.log); err != nil {
		return err
	}
	if l.own.files {
		if err := l.guard.accepted(l.guard.load(l.own.dir, l.own.streamDir(streamName))); err != nil {
			return fmt.Errorf("%w (the ledger in %s)", err, l.own.dir)
		}
		if err := l.guard.opening(); err != nil {
			return fmt.Errorf("the ledger in %s: %w", l.own.dir, err)
		}
		if l.guard.accept {
			// JetStream's index may name records that are lost, and JetStream would then lose new ones. It rebuilds the index.
			if err := os.Remove(filepath.Join(l.own.streamDir(streamName), "msgs", "index.db")); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
	}
	return l.own.start()
}

// findSpace reports whether the disk of the process's own server has no space for records. It looks each time while that is so.
func (l *KV) findSpace() error {
	if l.noSpace == nil && time.Since(l.spaceAt) < spaceChecks*l.interval {
		return nil
	}
	l.spaceAt = time.Now()
	l.noSpace = l.own.writable()
	return l.noSpace
}

// restartOwn restarts the process's own server if it has failed, or if its files were replaced. It waits until the disk can be written
// to. It returns why the ledger cannot be used, or nil if the server needs no restart.
func (l *KV) restartOwn(cause error) (restarted bool, err error) {
	replaced := errors.Is(cause, errFilesReplaced)
	if failed := l.own.failed(); failed != nil {
		cause = failed
	} else if !replaced {
		return false, nil
	}
	if l.ctx.Err() != nil {
		return false, nil
	}
	if replaced && l.own.missing(streamName) && l.guard.expectsRecords() && !l.guard.accept {
		return false, lost("%v", cause) // a restart would begin an empty ledger
	}
	// Until the disk is repaired no file is open on it, so that it can be unmounted.
	if err := l.own.release(); err != nil {
		l.log.Warn("closing the ledger's files failed", "error", err)
	}
	if time.Since(l.restarted) < restartChecks*l.interval {
		return false, cause
	}
	if l.own.missing(streamName) && l.guard.expectsRecords() && !l.guard.accept {
		return false, fmt.Errorf("the files in %s do not exist; mount the disk or restore them: %w", l.own.dir, cause)
	}
	if err := l.own.acquire(); err != nil {
		return false, err
	}
	l.restarted, l.reopened = time.Now(), true
	l.log.Warn("the ledger opens its files again after an error", "error", cause)
	l.guard.lost.Store(true) // until the records are verified
	return true, l.own.start()
}

// verifyOpened verifies that a bucket which was just opened has the records that it had. A bucket that does not exist is the concern
// of writeProbe.
func (l *KV) verifyOpened(ctx context.Context) error {
	if l.own == nil {
		// The first records of a cluster that this process knows of.
		if info := l.stream.CachedInfo(); info.State.Msgs > 1 {
			l.guard.newest.Store(info.State.LastSeq)
		}
		return nil
	}
	for {
		var probe uint64
		e, err := l.bucket.Get(ctx, probeKey)
		if err == nil {
			probe = e.Revision()
		} else if errors.Is(err, jetstream.ErrKeyNotFound) {
			err = nil
		}
		var info *jetstream.StreamInfo
		if err == nil {
			info, err = l.stream.Info(ctx)
		}
		switch {
		case err == nil:
			return l.guard.accepted(l.guard.opened(probe, info.State.LastSeq))
		case errors.Is(err, jetstream.ErrStreamNotFound):
			return nil
		case !transient(err) || !pause(ctx): // the connection is restored soon
			return err
		}
	}
}

// writeProbe writes the probe and returns the state of the bucket. It creates a bucket that was removed, if that is safe.
func (l *KV) writeProbe(ctx context.Context) (*jetstream.StreamInfo, error) {
	if l.reopened {
		if err := l.verifyOpened(ctx); err != nil {
			return nil, err
		}
		l.reopened = false
	}
	newest := l.guard.newest.Load()
	probe, err := l.bucket.Put(ctx, probeKey, nil)
	if err != nil {
		return nil, l.restoreBucket(err)
	}
	info, err := l.stream.Info(ctx)
	if err != nil {
		return nil, err
	}
	return info, l.guard.probed(newest, probe, info)
}

// restoreBucket creates the bucket if it is missing and if that is safe. It returns nil if the probe can be written now, else cause.
func (l *KV) restoreBucket(cause error) error {
	ctx, cancel := context.WithTimeout(l.ctx, l.timeout/2)
	defer cancel()
	_, err := l.stream.Info(ctx)
	if !errors.Is(err, jetstream.ErrStreamNotFound) {
		return cause
	}
	js, err := jetstream.New(l.conn)
	if err != nil {
		return err
	}
	if _, err := l.ensureBucket(ctx, js); err != nil {
		return err
	}
	return errCreated
}

// errCreated is the result of a check that has created the bucket. The next one is expected to succeed.
var errCreated = errors.New("the bucket was missing and has been created")
