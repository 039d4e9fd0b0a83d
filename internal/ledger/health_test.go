package ledger

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A healthLog has the changes of a ledger's health.
type healthLog struct {
	t       *testing.T
	changes chan Health
}

func watchHealth(t *testing.T, l *KV) *healthLog {
	t.Helper()
	h := &healthLog{t, make(chan Health, 100)}
	l.Watch(func(now Health) { h.changes <- now })
	h.want("usable at first", func(now Health) bool { return now.Ledger == nil && now.Events == nil })
	return h
}

// want waits for a change to a state. Its limit is far above the 10 seconds that are documented, because the machine may be busy; the
// test logs the time.
func (h *healthLog) want(what string, ok func(Health) bool) Health {
	h.t.Helper()
	begun := time.Now()
	limit := time.After(30 * time.Second)
	var last Health
	for {
		select {
		case last = <-h.changes:
			if ok(last) {
				h.t.Logf("%s: after %v", what, time.Since(begun).Round(time.Millisecond))
				return last
			}
		case <-limit:
			h.t.Fatalf("not reported: %s; the last report was %+v", what, last)
		}
	}
}

func (h *healthLog) usable() {
	h.t.Helper()
	h.want("usable", func(now Health) bool { return now.Ledger == nil && now.Events == nil })
}

func (h *healthLog) unusable() error {
	h.t.Helper()
	return h.want("not usable", func(now Health) bool { return now.Ledger != nil }).Ledger
}

// lost waits until the ledger is not usable because records are lost. A write that was under way when they were removed may have failed
// with another reason before.
func (h *healthLog) lost(l *KV) {
	h.t.Helper()
	h.unusable()
	for begun := time.Now(); !errors.Is(l.checkAll().Ledger, errLost); {
		if time.Since(begun) > 30*time.Second {
			h.t.Fatal("the loss is not noticed")
		}
	}
}

// smallDisk mounts a disk of some MiB that is removed with the test.
func smallDisk(t *testing.T, mib int) string {
	t.Helper()
	if runtime.GOOS != "linux" || os.Getuid() != 0 {
		t.Skip("mounting a small disk requires Linux and root")
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("size=%dm", mib), "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("a small disk cannot be mounted here: %v %s", err, out)
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("%v %s", err, out)
		}
	})
	return dir
}

// fillDisk takes all space of a disk. It returns a function that frees it.
func fillDisk(t *testing.T, dir string) (free func()) {
	t.Helper()
	name := filepath.Join(dir, "filler")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size > 0; {
		if _, err := f.Write(make([]byte, size)); err != nil {
			size /= 2
		}
	}
	return func() {
		if err := os.Remove(name); err != nil {
			t.Error(err)
		}
	}
}

func TestHealth_FullDisk(t *testing.T) {
	t.Parallel()
	for sync, rounds := range map[bool]int{false: 2, true: 1} { // it recovers each time
		t.Run(fmt.Sprintf("sync %v", sync), func(t *testing.T) {
			t.Parallel()
			disk := smallDisk(t, 6)
			conf := config(t, filepath.Join(disk, "ledger"))
			conf.Sync = sync
			conf.Timeout = 4 * time.Second
			l := open(t, conf)
			h := watchHealth(t, l)
			acknowledged := map[string]uint64{}
			add := func(n int) error {
				for range n {
					key := fmt.Sprintf("k%d", len(acknowledged))
					rev, err := l.Save(t.Context(), key, record("a"), 0)
					if err != nil {
						return err
					}
					acknowledged[key] = rev
				}
				return nil
			}
			for round := range rounds {
				if err := add(200); err != nil {
					t.Fatal(err)
				}
				free := fillDisk(t, disk)
				if err := add(10_000); !share.Is(err, share.LedgerUnavailable) {
					t.Errorf("on a full disk: %v, want LEDGER_UNAVAILABLE", err)
				}
				if err := h.unusable(); !strings.Contains(err.Error(), "no space left on device") {
					t.Errorf("the reason of round %d is %v", round, err)
				}
				free()
				h.usable()
				for key, rev := range acknowledged {
					wantRecord(t, l, key, "a", rev)
				}
			}
			if err := add(10); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestHealth_EventRejectedOnce fills the disk only as long as one event of the event log needs it, which may be shorter than between
// two probes.
func TestHealth_EventRejectedOnce(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, 8)
	conf := config(t, filepath.Join(disk, "ledger"))
	conf.Timeout = 4 * time.Second
	l := open(t, conf)
	e := events(t, l)
	if _, err := e.AddEvent(t.Context(), acct, fileAt("c", 1, "/1")); err != nil {
		t.Fatal(err)
	}
	h := watchHealth(t, l)
	free := fillDisk(t, disk)
	var err error
	for seq := int64(2); err == nil; seq++ {
		_, err = e.AddEvent(t.Context(), acct, fileAt("c", seq, strings.Repeat("/x", 1000)))
	}
	free()
	if !share.Is(err, share.LedgerUnavailable) {
		t.Errorf("on a full disk: %v, want LEDGER_UNAVAILABLE", err)
	}
	// Whether a probe failed as well depends on the time.
	for limit := time.Now().Add(time.Minute); ; {
		_, err := e.AddEvent(t.Context(), acct, fileAt("d", 1, "/2"))
		if err == nil {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("the event log does not recover: %v", err)
		}
	}
	_ = h
}

func TestOpen_UnwritableDirectory(t *testing.T) {
	t.Parallel()
	disk := smallDisk(t, 4)
	conf := config(t, filepath.Join(disk, "ledger"))
	open(t, conf).Close()
	wants := func(want string) {
		t.Helper()
		_, err := Open(t.Context(), conf)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "--data-dir") || strings.Contains(err.Error(), "in use") {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
	free := fillDisk(t, disk)
	wants("no space left")
	free()
	if out, err := exec.Command("mount", "-o", "remount,ro", disk).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	wants("read-only")
	conf.Dir = filepath.Join(disk, "new")
	wants("read-only")
}

// blocks returns JetStream's files of the bucket.
func blocks(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "jetstream", "$G", "streams", streamName, "msgs", "*.blk"))
	if err != nil || len(files) < 3 {
		t.Fatalf("%d files, %v; want 3", len(files), err)
	}
	return files
}

func flip(t *testing.T, file string, at int64) {
	t.Helper()
	f, err := os.OpenFile(file, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("\xff\xff\xff\xff\xff\xff\xff\xff"), at); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, files ...string) {
	t.Helper()
	for _, f := range files {
		if err := os.RemoveAll(f); err != nil {
			t.Fatal(err)
		}
	}
}

func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := subdir(t)
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestOpen_LostRecords(t *testing.T) {
	t.Parallel()
	const records = 90
	conf := config(t, subdir(t))
	conf.MaxBytes = 120_000 // JetStream's files then have 32 kB
	l := open(t, conf)
	large := record("a")
	large.FailureMessage = strings.Repeat("x", 1000)
	for i := range records {
		if _, err := l.Save(t.Context(), fmt.Sprint(i), large, 0); err != nil {
			t.Fatal(err)
		}
	}
	l.checkAll() // as it does each second
	killed := copyDir(t, conf.Dir)
	l.Close()
	stopped := conf.Dir

	last := func(files []string) string { return files[len(files)-1] }
	for _, c := range []struct {
		name   string
		killed bool // it is noticed after kill -9 as well
		damage func(t *testing.T, dir string)
	}{
		{"the last file is damaged", true, func(t *testing.T, dir string) { flip(t, last(blocks(t, dir)), 0) }},
		{"the first file is damaged", false, func(t *testing.T, dir string) { flip(t, blocks(t, dir)[0], 0) }},
		{"the first file is damaged in the middle", false, func(t *testing.T, dir string) { flip(t, blocks(t, dir)[0], 16_000) }},
		{"the last file is missing", true, func(t *testing.T, dir string) { remove(t, last(blocks(t, dir))) }},
		{"a file is missing", false, func(t *testing.T, dir string) { remove(t, blocks(t, dir)[1]) }},
		{"all files are missing", true, func(t *testing.T, dir string) { remove(t, blocks(t, dir)...) }},
		{"the stream is missing", true, func(t *testing.T, dir string) { remove(t, filepath.Dir(filepath.Dir(blocks(t, dir)[0]))) }},
		{"all streams are missing", true, func(t *testing.T, dir string) { remove(t, filepath.Join(dir, "jetstream")) }},
	} {
		for how, from := range map[string]string{"stopped": stopped, "killed": killed} {
			if how == "killed" && !c.killed {
				continue
			}
			t.Run(c.name+", "+how, func(t *testing.T) {
				t.Parallel()
				conf := conf
				conf.Dir = copyDir(t, from)
				c.damage(t, conf.Dir)
				for range 2 { // it is refused until it is repaired
					if _, err := Open(t.Context(), conf); !errors.Is(err, errLost) || !strings.Contains(err.Error(), "--ledger-accept-loss") {
						t.Fatalf("got %v, want an error about lost records", err)
					}
				}
				conf.AcceptLoss = true
				l := open(t, conf)
				mustSave(t, l, "new", "b", 0)
				l.checkAll()
				if l.guard.lost.Load() {
					t.Error("the accepted loss is noticed again")
				}
				l.Close()
				conf.AcceptLoss = false
				l = open(t, conf)
				if _, rev, err := l.Load(t.Context(), "new"); rev == 0 || err != nil {
					t.Errorf("revision %d, %v after the loss was accepted", rev, err)
				}
			})
		}
	}
	t.Run("nothing is missing", func(t *testing.T) {
		t.Parallel()
		for _, from := range []string{stopped, killed} {
			conf := conf
			conf.Dir = copyDir(t, from)
			l := open(t, conf)
			for i := range records {
				if _, rev, err := l.Load(t.Context(), fmt.Sprint(i)); rev == 0 || err != nil {
					t.Errorf("record %d: revision %d, %v", i, rev, err)
				}
			}
			l.Close()
		}
	})
	t.Run("a power failure loses the last minutes", func(t *testing.T) {
		t.Parallel()
		conf := conf
		conf.Dir = copyDir(t, killed)
		// Another start of the machine, and nothing is known to be synced.
		state := filepath.Join(conf.Dir, guardFile)
		text, err := os.ReadFile(state)
		if err != nil {
			t.Fatal(err)
		}
		if boot := bootID(); boot != "" {
			text = []byte(strings.ReplaceAll(string(text), boot, "another"))
		}
		if err := os.WriteFile(state, text, 0o600); err != nil {
			t.Fatal(err)
		}
		remove(t, last(blocks(t, conf.Dir)))
		open(t, conf)
	})
}

func TestOpen_EmptyLedgerRemoved(t *testing.T) {
	t.Parallel()
	conf := config(t, subdir(t))
	open(t, conf).Close()
	remove(t, filepath.Join(conf.Dir, "jetstream"))
	mustSave(t, open(t, conf), "k", "a", 0)
}

func TestHealth_FilesMovedWhileOpen(t *testing.T) {
	t.Parallel()
	conf := config(t, subdir(t))
	conf.Timeout = 4 * time.Second
	l := open(t, conf)
	rev := mustSave(t, l, "k", "a", 0)
	h := watchHealth(t, l)
	streams := filepath.Join(conf.Dir, "jetstream")
	away := streams + "-away"
	backup := subdir(t)
	if err := os.CopyFS(backup, os.DirFS(streams)); err != nil {
		t.Fatal(err)
	}
	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	move(streams, away)
	h.lost(l)
	wantUnavailable(t, func() error { _, err := l.Save(t.Context(), "new", record("b"), 0); return err })
	wantUnavailable(t, func() error { _, _, err := l.Load(t.Context(), "new"); return err })
	move(away, streams)
	h.usable()
	wantRecord(t, l, "k", "a", rev)

	remove(t, streams)
	h.unusable()
	if err := os.CopyFS(streams, os.DirFS(backup)); err != nil {
		t.Fatal(err)
	}
	h.usable()
	wantRecord(t, l, "k", "a", rev)
	mustSave(t, l, "k", "b", rev)
}

// admin returns JetStream of a server, for what an operator does.
func admin(t *testing.T, url string) jetstream.JetStream {
	t.Helper()
	nc, err := nats.Connect(url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func TestHealth_BucketRemoved(t *testing.T) {
	t.Parallel()
	setup := func(t *testing.T, accept bool) (*peer, *KV, *healthLog, jetstream.JetStream) {
		p := newPeer(t)
		conf := config(t, "", p.url())
		conf.AcceptLoss = accept
		l := open(t, impatient(conf, 4*time.Second))
		return p, l, watchHealth(t, l), admin(t, p.url())
	}
	t.Run("with records", func(t *testing.T) {
		t.Parallel()
		p, l, h, js := setup(t, false)
		mustSave(t, l, "k", "a", 0)
		if err := js.DeleteStream(t.Context(), streamName); err != nil {
			t.Fatal(err)
		}
		h.lost(l)
		wantUnavailable(t, func() error { _, err := l.Save(t.Context(), "new", record("b"), 0); return err })

		// Another server that starts now creates an empty one. It has more writes than the removed one, and still it is not the same.
		other := open(t, config(t, "", p.url()))
		for i := range 20 {
			mustSave(t, other, fmt.Sprint(i), "c", 0)
		}
		got := l.checkAll()
		for limit := time.Now().Add(time.Minute); got.Ledger != nil && !errors.Is(got.Ledger, errLost) && time.Now().Before(limit); {
			got = l.checkAll() // the one before got no answer in time
		}
		if !errors.Is(got.Ledger, errLost) {
			t.Errorf("the empty bucket of another server is used: %v", got.Ledger)
		}
		wantUnavailable(t, func() error { _, _, err := l.Load(t.Context(), "k"); return err })
		other.Close()

		// A server that accepts the loss makes the bucket usable for all.
		if err := js.DeleteStream(t.Context(), streamName); err != nil {
			t.Fatal(err)
		}
		conf := config(t, "", p.url())
		conf.AcceptLoss = true
		mustSave(t, open(t, conf), "new", "d", 0)
		h.usable()
		if _, rev, err := l.Load(t.Context(), "new"); rev == 0 || err != nil {
			t.Errorf("revision %d, %v", rev, err)
		}
	})
	t.Run("with records, accepted", func(t *testing.T) {
		t.Parallel()
		_, l, h, js := setup(t, true)
		rev := mustSave(t, l, "k", "a", 0)
		if err := js.DeleteStream(t.Context(), streamName); err != nil {
			t.Fatal(err)
		}
		h.unusable()
		h.usable()
		if again := mustSave(t, l, "k", "b", 0); again <= rev {
			t.Errorf("revision %d after %d", again, rev)
		}
	})
	t.Run("empty", func(t *testing.T) {
		t.Parallel()
		_, l, h, js := setup(t, false)
		if err := js.DeleteStream(t.Context(), streamName); err != nil {
			t.Fatal(err)
		}
		h.unusable()
		h.usable()
		mustSave(t, l, "k", "a", 0)
	})
}

// TestHealth_NoticedByWrites replaces the bucket between two checks.
func TestHealth_NoticedByWrites(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	l := open(t, config(t, "", p.url()))
	for i := range 10 {
		mustSave(t, l, fmt.Sprint(i), "a", 0)
	}
	js := admin(t, p.url())
	info, err := l.stream.Info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := js.DeleteStream(t.Context(), streamName); err != nil {
		t.Fatal(err)
	}
	info.Config.FirstSeq = 0
	if _, err := js.CreateStream(t.Context(), info.Config); err != nil {
		t.Fatal(err)
	}
	wantUnavailable(t, func() error { _, err := l.Save(t.Context(), "1", record("b"), 0); return err })
}

func TestHealth_ServerReturnsEmpty(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	l := open(t, impatient(config(t, "", p.url()), 4*time.Second))
	mustSave(t, l, "k", "a", 0)
	h := watchHealth(t, l)
	p.stop()
	remove(t, filepath.Join(p.opts.StoreDir, "jetstream"))
	p.start()
	h.want("lost records", func(now Health) bool { return now.Ledger != nil })
	for limit := time.Now().Add(time.Minute); !l.guard.lost.Load(); {
		if time.Now().After(limit) {
			t.Fatal("the loss is not noticed")
		}
		if now := l.checkAll(); now.Ledger == nil {
			t.Fatal("the empty ledger is used")
		}
	}
}

func TestHealth_ClusterMinority(t *testing.T) {
	t.Parallel()
	peers := newCluster(t)
	l := open(t, impatient(config(t, "", urls(peers)...), 4*time.Second))
	mustSave(t, l, "k", "a", 0)
	h := watchHealth(t, l)
	peers[0].stop()
	peers[1].stop()
	h.unusable()
	peers[0].start()
	peers[1].start()
	h.usable()
}

func TestHealth_PasswordRotated(t *testing.T) {
	t.Parallel()
	p := newPeer(t, func(o *server.Options) { o.Username, o.Password = "user", "old" })
	conf := config(t, "", p.url())
	password := atomic.Value{}
	password.Store("old")
	conf.User, conf.Password = "user", func() (string, error) { return password.Load().(string), nil }
	l := open(t, impatient(conf, 4*time.Second))
	h := watchHealth(t, l)
	next := p.opts
	next.Password = "new"
	if err := p.s.ReloadOptions(&next); err != nil {
		t.Fatal(err)
	}
	h.unusable()
	password.Store("new")
	h.usable()
	mustSave(t, l, "k", "a", 0)
}

func TestHealth_EventStreamsRemoved(t *testing.T) {
	t.Parallel()
	for _, stream := range []string{eventStream, conversationStream} {
		t.Run(stream, func(t *testing.T) {
			t.Parallel()
			p := newPeer(t)
			l := open(t, impatient(config(t, "", p.url()), 4*time.Second))
			e := events(t, l)
			reported := make(chan uint64, 100)
			if _, err := e.Follow(t.Context(), func(_, _ string, position uint64) { reported <- position }, func(_, _ string) {}); err != nil {
				t.Fatal(err)
			}
			add := func(seq int64) {
				t.Helper()
				if err := patiently(func() error {
					_, err := e.AddEvent(t.Context(), acct, fileAt("c", seq, fmt.Sprint("/", seq)))
					return err
				}); err != nil {
					t.Fatal(err)
				}
			}
			add(1)
			before := <-reported
			h := watchHealth(t, l)
			if err := admin(t, p.url()).DeleteStream(t.Context(), stream); err != nil {
				t.Fatal(err)
			}
			h.want("event log not usable", func(now Health) bool { return now.Events != nil && now.Ledger == nil })
			h.usable()
			add(2)
			if after := <-reported; after <= before {
				t.Errorf("position %d after position %d of the removed log", after, before)
			}
		})
	}
}

func TestHealth_EventFilesRemoved(t *testing.T) {
	t.Parallel()
	conf := config(t, subdir(t))
	conf.Timeout = 4 * time.Second
	l := open(t, conf)
	e := events(t, l)
	if _, err := e.AddEvent(t.Context(), acct, fileAt("c", 1, "/1")); err != nil {
		t.Fatal(err)
	}
	rev := mustSave(t, l, "k", "a", 0)
	l.checkAll()
	h := watchHealth(t, l)
	remove(t, l.own.streamDir(eventStream))
	for limit := time.Now().Add(time.Minute); ; {
		if _, err := os.Stat(l.own.streamDir(eventStream)); err == nil {
			break
		}
		if time.Now().After(limit) {
			t.Fatal("the stream is not created again")
		}
		<-time.After(10 * time.Millisecond)
	}
	_ = h
	if _, err := e.AddEvent(t.Context(), acct, fileAt("c", 2, "/2")); err != nil {
		t.Fatal(err)
	}
	wantRecord(t, l, "k", "a", rev)
}
