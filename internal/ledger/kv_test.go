package ledger

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

func record(attempt string) share.Record {
	return share.Record{Attempt: attempt, State: share.Receiving, Expires: time.Now().Add(time.Hour)}
}

func mustSave(t *testing.T, l ledger, key, attempt string, rev uint64) uint64 {
	t.Helper()
	saved := uint64(0)
	if err := patiently(func() (err error) {
		if saved, err = l.Save(t.Context(), key, record(attempt), rev); err != share.ErrStale {
			return err
		}
		r, at, loadErr := l.Load(t.Context(), key) // the write may have succeeded after its time
		if loadErr == nil && r.Attempt == attempt && at > rev {
			saved = at
			return nil
		}
		return cmp.Or(loadErr, err)
	}); err != nil {
		t.Fatal(err)
	}
	return saved
}

// patiently repeats an operation that should succeed while the ledger does not answer in time: on a busy machine that happens.
func patiently(do func() error) error {
	for limit := time.Now().Add(time.Minute); ; {
		err := do()
		if !share.Is(err, share.LedgerUnavailable) || time.Now().After(limit) {
			return err
		}
	}
}

func wantRecord(t *testing.T, l ledger, key, attempt string, rev uint64) {
	t.Helper()
	var r share.Record
	var at uint64
	err := patiently(func() (err error) { r, at, err = l.Load(t.Context(), key); return err })
	if err != nil || r.Attempt != attempt || at != rev {
		t.Errorf("%s: attempt %q at revision %d, %v; want %q at %d", key, r.Attempt, at, err, attempt, rev)
	}
}

// wantUnavailable checks that an operation fails with LedgerUnavailable.
func wantUnavailable(t *testing.T, do func() error) {
	t.Helper()
	err := do()
	if !share.Is(err, share.LedgerUnavailable) {
		t.Errorf("got %v, want LEDGER_UNAVAILABLE", err)
	}
}

func TestKV_Restart(t *testing.T) {
	t.Parallel()
	conf := config(t, subdir(t))
	l := open(t, conf)
	one := mustSave(t, l, "one", "a", 0)
	two := mustSave(t, l, "two", "b", mustSave(t, l, "two", "a", 0))
	l.Close()
	for _, change := range []func(*Config){
		func(*Config) {},
		func(c *Config) { c.Sync = true },
		func(c *Config) { c.TTL = time.Hour },     // shorter, yet nothing is dropped
		func(c *Config) { c.MaxBytes = 16 << 10 }, // smaller, yet nothing is dropped
		func(c *Config) { c.TTL, c.MaxBytes = 48*time.Hour, 1<<30 },
	} {
		change(&conf)
		l = open(t, conf)
		wantRecord(t, l, "one", "a", one)
		wantRecord(t, l, "two", "b", two)
		info, err := l.stream.Info(t.Context())
		if err != nil || info.Config.MaxAge < 25*time.Hour || info.Config.MaxAge < conf.TTL+ttlMargin || info.Config.MaxBytes != conf.MaxBytes {
			t.Errorf("records are kept for %v in %d bytes, %v", info.Config.MaxAge, info.Config.MaxBytes, err)
		}
		l.Close()
	}
	l = open(t, conf)
	if _, err := l.Save(t.Context(), "two", record("c"), two-1); err != share.ErrStale {
		t.Errorf("an old revision gave %v after the restart, want ErrStale", err)
	}
	if rev := mustSave(t, l, "three", "a", 0); rev <= two {
		t.Errorf("revision %d after a restart, and %d before", rev, two)
	}
}

func TestOpen_DirectoryInUse(t *testing.T) {
	t.Parallel()
	conf := config(t, subdir(t))
	l := open(t, conf)
	_, err := Open(t.Context(), conf)
	if err == nil || !strings.Contains(err.Error(), "--data-dir") {
		t.Errorf("a second server on the same directory: %v", err)
	}
	mustSave(t, l, "k", "a", 0)
}

func TestOpen_DirectoryMode(t *testing.T) {
	t.Parallel()
	dir := subdir(t)
	open(t, config(t, dir))
	if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
}

func TestKV_MemoryLeavesNoFiles(t *testing.T) {
	t.Parallel()
	l := open(t, config(t, ""))
	if info, err := l.stream.Info(t.Context()); err != nil || info.Config.Storage != jetstream.MemoryStorage {
		t.Errorf("storage %v, %v", info.Config.Storage, err)
	}
	dir := l.own.temp
	if err := l.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the temporary directory still exists: %v", err)
	}
}

// childDirEnv makes a run of this test binary the child process of TestKV_ProcessKilled.
const childDirEnv = "LPFILESHARE_LEDGER_TEST_DIR"

func saveUntilKilled(dir string) {
	l, err := Open(context.Background(), Config{
		Dir: dir, TTL: time.Hour, MaxBytes: 64 << 20, Timeout: 2 * time.Second, StartTimeout: 10 * time.Second, Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for i := 0; ; i++ {
		rev, err := l.Save(context.Background(), fmt.Sprintf("k%d", i), record("a"), 0)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(i, rev)
	}
}

func TestKV_ProcessKilled(t *testing.T) {
	t.Parallel()
	dir := subdir(t)
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childDirEnv+"="+dir)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	revs := map[int]uint64{}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var i int
		var rev uint64
		if _, err := fmt.Sscan(lines.Text(), &i, &rev); err != nil {
			t.Errorf("the child process printed %q", lines.Text())
		}
		revs[i] = rev
		if len(revs) == 300 {
			child.Process.Kill()
		}
	}
	child.Wait()
	if len(revs) < 300 {
		t.Fatalf("%d records were written, want 300", len(revs))
	}
	l := open(t, config(t, dir))
	for i, rev := range revs {
		wantRecord(t, l, fmt.Sprintf("k%d", i), "a", rev)
	}
}

func TestKV_ServerStops(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	l := open(t, impatient(config(t, "", p.url()), 2*time.Second))
	reports := make(chan bool, 100)
	l.Watch(func(h Health) { reports <- h.Ledger == nil })
	want := func(usable bool) {
		t.Helper()
		select {
		case got := <-reports:
			if got != usable {
				t.Errorf("the watcher got %v, want %v", got, usable)
			}
		case <-time.After(time.Minute):
			t.Errorf("the watcher did not get %v", usable)
		}
	}
	want(true)
	rev := mustSave(t, l, "k", "a", 0)

	// Stop the server while writers are active.
	var wg, saved sync.WaitGroup
	saved.Add(20)
	for i := range 20 {
		wg.Go(func() {
			first := sync.OnceFunc(saved.Done)
			defer first()
			for rev := uint64(0); ; {
				next, err := l.Save(t.Context(), fmt.Sprintf("w%d", i), record("a"), rev)
				if err != nil {
					if !share.Is(err, share.LedgerUnavailable) {
						t.Errorf("got %v, want LEDGER_UNAVAILABLE", err)
					}
					return
				}
				rev = next
				first()
			}
		})
	}
	saved.Wait()
	p.stop()
	wg.Wait()
	want(false)
	for _, do := range []func() error{
		func() error { _, err := l.Save(t.Context(), "k", record("b"), rev); return err },
		func() error { _, err := l.Save(t.Context(), "new", record("b"), 0); return err },
		func() error { _, _, err := l.Load(t.Context(), "k"); return err },
	} {
		wg.Go(func() { wantUnavailable(t, do) })
	}
	wg.Wait()

	p.start()
	want(true)
	wantRecord(t, l, "k", "a", rev) // the failed write was not sent later
	if _, at, err := l.Load(t.Context(), "new"); at != 0 || err != nil {
		t.Errorf("the failed write was sent later: revision %d, %v", at, err)
	}
	mustSave(t, l, "k", "b", rev)
}

func TestKV_ClusterLosesLeader(t *testing.T) {
	t.Parallel()
	peers := newCluster(t)
	l := open(t, impatient(config(t, "", urls(peers)...), 5*time.Second))
	other := open(t, impatient(config(t, "", urls(peers)...), 5*time.Second)) // as a second lpfileshare server
	info, err := l.stream.Info(t.Context())
	if err != nil || info.Config.Replicas != 3 {
		t.Fatalf("%d replicas, %v; want 3", info.Config.Replicas, err)
	}
	if info.Config.AllowDirect {
		t.Error("followers may answer reads, and may lag behind")
	}
	rev := mustSave(t, l, "k", "a", 0)
	wantRecord(t, other, "k", "a", rev)
	for _, p := range peers {
		if p.opts.ServerName == info.Cluster.Leader {
			p.stop()
		}
	}
	begun := time.Now()
	for {
		next, err := other.Save(t.Context(), "k", record("b"), rev)
		if err == nil {
			rev = next
			break
		}
		if err == share.ErrStale { // the write succeeded after its Save had returned
			if _, rev, err = other.Load(t.Context(), "k"); err == nil {
				break
			}
		}
		if time.Since(begun) > 2*time.Minute {
			t.Fatalf("no new leader accepts writes: %v", err)
		}
	}
	t.Logf("a new leader wrote after %v", time.Since(begun).Round(time.Millisecond))
	wantRecord(t, l, "k", "b", rev)
}

func TestKV_LostAnswer(t *testing.T) {
	t.Parallel()
	setup := func(t *testing.T) (p *lossyProxy, l, direct *KV) {
		server := newPeer(t)
		p = newLossyProxy(t, server.addr())
		return p, open(t, impatient(config(t, "", p.url()), 6*time.Second)), open(t, config(t, "", server.url()))
	}
	// arrived waits until the server has the record of an attempt, and returns its revision.
	arrived := func(t *testing.T, direct *KV, attempt string) uint64 {
		t.Helper()
		watch, err := direct.bucket.Watch(t.Context(), "k")
		if err != nil {
			t.Fatal(err)
		}
		defer watch.Stop()
		for e := range watch.Updates() {
			if e == nil { // the end of the initial values
				continue
			}
			if f, err := requests.decode(e.Value(), "k", e.Revision()); err == nil && f.record.Attempt == attempt {
				return f.rev
			}
		}
		t.Fatal("the write did not arrive")
		return 0
	}
	for _, first := range []bool{true, false} {
		t.Run(fmt.Sprintf("to a successful write, creation %v", first), func(t *testing.T) {
			t.Parallel()
			p, l, direct := setup(t)
			rev := uint64(0)
			if !first {
				rev = mustSave(t, l, "k", "before", 0)
			}
			p.dropAnswers(true)
			var wg sync.WaitGroup
			var saved uint64
			var err error
			wg.Go(func() { saved, err = l.Save(t.Context(), "k", record("a"), rev) })
			want := arrived(t, direct, "a")
			p.dropAnswers(false)
			p.cut()
			wg.Wait()
			if err != nil || saved != want {
				t.Errorf("revision %d, %v; want %d", saved, err, want)
			}
			wantRecord(t, direct, "k", "a", want) // once
		})
	}
	t.Run("and another writer followed", func(t *testing.T) {
		t.Parallel()
		p, l, direct := setup(t)
		p.dropAnswers(true)
		var wg sync.WaitGroup
		var err error
		wg.Go(func() { _, err = l.Save(t.Context(), "k", record("a"), 0) })
		rev := mustSave(t, direct, "k", "b", arrived(t, direct, "a"))
		p.dropAnswers(false)
		p.cut()
		wg.Wait()
		if err != share.ErrStale {
			t.Errorf("got %v, want ErrStale", err)
		}
		wantRecord(t, direct, "k", "b", rev)
	})
	t.Run("and to the read as well", func(t *testing.T) {
		t.Parallel()
		p, l, direct := setup(t)
		p.dropAnswers(true)
		wantUnavailable(t, func() error { _, err := l.Save(t.Context(), "k", record("a"), 0); return err })
		arrived(t, direct, "a")
		p.dropAnswers(false)
		p.cut()
		if err := patiently(func() error { _, err := l.Save(t.Context(), "k", record("b"), 0); return err }); err != share.ErrStale {
			t.Errorf("got %v, want ErrStale", err)
		}
	})
	t.Run("and the caller gives up", func(t *testing.T) {
		t.Parallel()
		server := newPeer(t)
		p := newLossyProxy(t, server.addr())
		conf := config(t, "", p.url())
		conf.Timeout = time.Hour // the test hangs if Save waits for it
		l, direct := open(t, conf), open(t, config(t, "", server.url()))
		p.dropAnswers(true)
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			arrived(t, direct, "a")
			cancel()
		}()
		if _, err := l.Save(ctx, "k", record("a"), 0); !share.Is(err, share.LedgerUnavailable) {
			t.Errorf("got %v, want LEDGER_UNAVAILABLE", err)
		}
	})
}

func TestKV_InvalidRecord(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	l := open(t, config(t, "", p.url()))
	const secret = "Hunter2"
	for i, value := range []string{
		"", secret, `{"version":1,"write":"` + secret, `{"version":"` + secret + `"}`, `{"version":3,"write":"` + secret + `","record":{}}`,
		`{"version":3,"write":"` + secret + `","record":{"Expires":"2999-01-01T00:00:00Z"}}`, `{"version":2,"write":"` + secret + `","record":"` + secret + `"}`,
		`{"version":2,"write":"` + secret + `","record":"SHVudGVyMg=="}`, `{"version":2,"write":"` + secret + `","record":"c3IJSbU"}`, `{"write":"w","record":{"Expires":"2999-01-01T00:00:00Z"}}`,
		`{"version":1,"write":"x","record":{"Expires":"` + secret + `"}}`, `{"version":1,"write":"` + secret + `","record":{}}`,
		`{"version":1,"record":{"Expires":"2999-01-01T00:00:00Z"}}`, "null", "{}",
	} {
		key := fmt.Sprintf("damaged%d", i)
		put(t, p.url(), key, []byte(value))
		_, _, loadErr := l.Load(t.Context(), key)
		_, saveErr := l.Save(t.Context(), key, record("a"), 0)
		for _, err := range []error{loadErr, saveErr} {
			if !share.Is(err, share.LedgerUnavailable) {
				t.Errorf("%s: got %v, want LEDGER_UNAVAILABLE", value, err)
			} else if s := fmt.Sprintf("%v %v", err, errors.Unwrap(err)); strings.Contains(s, secret) {
				t.Errorf("the error quotes the record: %s", s)
			}
		}
	}
}

// TestKV_UnknownFields reads a record of a newer server that has more fields but the same version.
func TestKV_UnknownFields(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	l := open(t, config(t, "", p.url()))
	put(t, p.url(), "k", []byte(`{"version":1,"write":"w","more":1,"record":{"Attempt":"a","More":{},"Expires":"2999-01-01T00:00:00Z"}}`))
	if r, _, err := l.Load(t.Context(), "k"); err != nil || r.Attempt != "a" {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestKV_Full(t *testing.T) {
	t.Parallel()
	for where, dir := range map[string]string{"memory": "", "files": subdir(t)} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			conf := config(t, dir)
			conf.MaxBytes = 128 << 10
			l := open(t, conf)
			fat := record("a")
			fat.FailureMessage = strings.Repeat("x", 1000)
			var revs []uint64
			var err error
			for err == nil && len(revs) < 1000 {
				var rev uint64
				if rev, err = l.Save(t.Context(), fmt.Sprint(len(revs)), fat, 0); err == nil {
					revs = append(revs, rev)
				}
			}
			if !share.Is(err, share.LedgerUnavailable) {
				t.Fatalf("got %v after %d records, want LEDGER_UNAVAILABLE", err, len(revs))
			}
			if now := l.checkAll(); now.Ledger != errFull {
				t.Errorf("the check of a full ledger gives %v", now.Ledger)
			}
			wantUnavailable(t, func() error { _, err := l.Save(t.Context(), "one more", fat, 0); return err })
			wantRecord(t, l, "0", "a", revs[0]) // nothing was dropped
			if u := l.Usage(); u.RejectedFull != 2 || u.RejectedShare != 0 || float64(u.Bytes) < fullAt*float64(u.LimitBytes) || u.Records == 0 {
				t.Errorf("got %+v", u)
			}
			// A file that belongs to an upload in progress may be recorded, and an existing record may change.
			stored := fat
			stored.State = share.Stored
			if _, err := l.Save(t.Context(), "stored", stored, 0); err != nil {
				t.Errorf("a stored file cannot be recorded: %v", err)
			}
			next := fat
			next.State = share.Failed
			if _, err := l.Save(t.Context(), "1", next, revs[1]); err != nil {
				t.Errorf("an existing record cannot be changed: %v", err)
			}
		})
	}
}

// Uploads begin at once until the ledger rejects one. Those that were admitted are then recorded to their end, although their records
// grow far above the ledger's last percents.
func TestKV_AdmittedUploadsAreRecorded(t *testing.T) {
	t.Parallel()
	for where, conf := range map[string]Config{
		"memory": config(t, ""), "files": config(t, subdir(t)), "another server": config(t, "", newPeer(t).url()),
	} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			conf.MaxBytes = 256 << 10
			l := open(t, conf)
			type upload struct {
				key    string
				states []share.Record
				rev    uint64
			}
			admitted := make(chan *upload, 1000)
			var wg sync.WaitGroup
			for writer := range 8 {
				wg.Go(func() {
					for i := 0; ; i++ {
						id := fmt.Sprint(writer, "-", i)
						u := &upload{key: id, states: uploadStates(consumer(id), 3000, 10)}
						var err error
						if u.rev, err = l.Save(t.Context(), u.key, u.states[0], 0); share.Is(err, share.LedgerUnavailable) {
							return
						} else if err != nil {
							t.Error(err)
							return
						}
						admitted <- u
					}
				})
			}
			wg.Wait()
			close(admitted)
			var uploads []*upload
			for u := range admitted {
				uploads = append(uploads, u)
			}
			if len(uploads) < 10 {
				t.Errorf("only %d uploads were admitted", len(uploads))
			}
			for state := 1; state < 4; state++ { // all of them at the same time
				for _, u := range uploads {
					wg.Go(func() {
						var err error
						if u.rev, err = l.Save(t.Context(), u.key, u.states[state], u.rev); err != nil {
							t.Errorf("%s: %v", u.states[state].State, err)
						}
					})
				}
				wg.Wait()
			}
			for _, u := range uploads {
				l.Finish(u.key, u.states[0].Attempt)
			}
			if u := l.Usage(); u.ReservedBytes != 0 || u.Callers != len(uploads) {
				t.Errorf("got %+v after %d uploads", u, len(uploads))
			}
			saveAll(t, l, "next", uploadStates(alice, 3000, 10))
		})
	}
}

func TestKV_RecordTooLarge(t *testing.T) {
	t.Parallel()
	l := open(t, config(t, ""))
	r := record("a")
	r.File = &share.StoredFile{File: share.HostedFile{Caption: strings.Repeat("\x01", 5000), Preview: strings.Repeat("A", 30<<10)}}
	if _, err := l.Save(t.Context(), "largest", r, 0); err != nil {
		t.Errorf("the largest valid record was rejected: %v", err)
	}
	r.File.File.Preview = strings.Repeat("A", maxValue)
	wantUnavailable(t, func() error { _, err := l.Save(t.Context(), "k", r, 0); return err })
}

func TestOpen_Errors(t *testing.T) {
	t.Parallel()
	withUser := func(o *server.Options) { o.Username, o.Password = "user", "Hunter2" }
	noJetStream := func(o *server.Options) { o.JetStream = false }
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	gone := newPeer(t)
	gone.stop()
	for _, c := range []struct {
		name  string
		conf  Config
		wants string
		quick bool
	}{
		{"no server", config(t, "", gone.url()), "--ledger", false},
		{"wrong credentials", config(t, "", newPeer(t, withUser).url()), "--ledger-creds", true},
		{"no JetStream", config(t, "", newPeer(t, noJetStream).url()), "JetStream", false},
		{"too many replicas", func() Config { c := config(t, "", newPeer(t).url()); c.Replicas = 3; return c }(), "--ledger-replicas", true},
		{"no directory", config(t, filepath.Join(file, "x")), "--data-dir", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.conf.StartTimeout = 2 * time.Second
			if c.quick {
				c.conf.StartTimeout = time.Hour // the test hangs if Open waits for it
			}
			_, err := Open(t.Context(), c.conf)
			if err == nil || !strings.Contains(err.Error(), c.wants) || strings.Contains(err.Error(), "Hunter2") {
				t.Errorf("got %v, want an error with %s", err, c.wants)
			}
		})
	}
	t.Run("cancelled", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		conf := config(t, "", gone.url())
		conf.StartTimeout = time.Hour // the test hangs if Open waits for it
		if _, err := Open(ctx, conf); err == nil {
			t.Error("Open succeeded without a server")
		}
	})
	t.Run("with a password", func(t *testing.T) {
		t.Parallel()
		conf := config(t, "", newPeer(t, withUser).url())
		conf.User, conf.Password = "user", func() (string, error) { return "Hunter2", nil }
		mustSave(t, open(t, conf), "k", "a", 0)
	})
}

func TestOpen_TLS(t *testing.T) {
	t.Parallel()
	certified := httptest.NewUnstartedServer(nil) // its certificate is self-signed for 127.0.0.1
	certified.StartTLS()
	defer certified.Close()
	p := newPeer(t, func(o *server.Options) {
		o.TLS, o.TLSTimeout = true, 5
		o.TLSConfig = &tls.Config{Certificates: certified.TLS.Certificates, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS12}
	})
	none, trusted := x509.NewCertPool(), x509.NewCertPool()
	trusted.AddCert(certified.Certificate())
	trusting := func(roots *x509.CertPool) func() (*x509.CertPool, error) {
		return func() (*x509.CertPool, error) { return roots, nil }
	}
	presenting := func() (tls.Certificate, error) { return certified.TLS.Certificates[0], nil }
	conf := config(t, "", p.url())
	conf.RootCAs, conf.Certificate = trusting(trusted), presenting
	mustSave(t, open(t, conf), "k", "a", 0)

	for name, c := range map[string]struct {
		url         string
		roots       func() (*x509.CertPool, error)
		certificate func() (tls.Certificate, error)
	}{
		"another's certificate":              {p.url(), trusting(none), presenting},
		"the system's certificates alone":    {"tls://" + p.addr(), nil, nil},
		"no certificate to show":             {p.url(), trusting(trusted), nil},
		"a server without TLS, and tls://":   {"tls://" + newPeer(t).addr(), nil, nil},
		"a server without TLS, and a CA set": {newPeer(t).url(), trusting(trusted), presenting},
	} {
		conf := config(t, "", c.url)
		conf.RootCAs, conf.Certificate, conf.StartTimeout = c.roots, c.certificate, time.Second
		if _, err := Open(t.Context(), conf); err == nil {
			t.Errorf("%s: Open succeeded", name)
		}
	}
}

func TestParseServers(t *testing.T) {
	got, err := ParseServers("nats://a.example, tls://[::1]:5222/,nats://b:1")
	if want := "nats://a.example:4222 tls://[::1]:5222 nats://b:1"; err != nil || strings.Join(got, " ") != want {
		t.Errorf("%v, %v; want %s", got, err, want)
	}
	for _, bad := range []string{
		"", "nats://a,", "a:4222", "http://a", "nats://", "nats://user:Hunter2@a", "nats://Hunter2@a:4222", "nats://a/Hunter2", "nats://a?x=Hunter2",
		"nats://a:Hunter2", "nats://a b:Hunter2@c", "tls://:4222",
	} {
		if s, err := ParseServers(bad); err == nil || strings.Contains(err.Error(), "Hunter2") {
			t.Errorf("%q gave %v, %v", bad, s, err)
		}
	}
}
