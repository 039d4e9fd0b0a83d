package ledger

import (
	"bufio"
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
	rev, err := l.Save(t.Context(), key, record(attempt), rev)
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

func wantThere(t *testing.T, l ledger, key, attempt string, rev uint64) {
	t.Helper()
	r, at, err := l.Load(t.Context(), key)
	if err != nil || r.Attempt != attempt || at != rev {
		t.Errorf("%s: attempt %q at revision %d, %v; want %q at %d", key, r.Attempt, at, err, attempt, rev)
	}
}

// wantUnavailable holds that an operation fails as it must, within its time and some for a slow machine.
func wantUnavailable(t *testing.T, do func() error) {
	t.Helper()
	begun := time.Now()
	err := do()
	if !share.Is(err, share.LedgerUnavailable) {
		t.Errorf("got %v, want LEDGER_UNAVAILABLE", err)
	}
	if d := time.Since(begun); d > 4*time.Second {
		t.Errorf("it took %v", d)
	}
}

func TestRecordsSurviveARestart(t *testing.T) {
	t.Parallel()
	conf := config(t, subdir(t))
	l := open(t, conf)
	one := mustSave(t, l, "one", "a", 0)
	two := mustSave(t, l, "two", "b", mustSave(t, l, "two", "a", 0))
	l.Close()
	for _, change := range []func(*Config){
		func(*Config) {},
		func(c *Config) { c.Sync = true },
		func(c *Config) { c.TTL = time.Hour },     // shorter, and yet nothing is forgotten
		func(c *Config) { c.MaxBytes = 16 << 10 }, // less room, and yet nothing is dropped
		func(c *Config) { c.TTL, c.MaxBytes = 48*time.Hour, 1<<30 },
	} {
		change(&conf)
		l = open(t, conf)
		wantThere(t, l, "one", "a", one)
		wantThere(t, l, "two", "b", two)
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

func TestADirectoryHasOneServer(t *testing.T) {
	t.Parallel()
	conf := config(t, subdir(t))
	l := open(t, conf)
	_, err := Open(t.Context(), conf)
	if err == nil || !strings.Contains(err.Error(), "--data-dir") {
		t.Errorf("a second server on the same directory: %v", err)
	}
	mustSave(t, l, "k", "a", 0)
}

func TestTheDirectoryIsPrivate(t *testing.T) {
	t.Parallel()
	dir := subdir(t)
	open(t, config(t, dir))
	if fi, err := os.Stat(dir); err != nil || fi.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
}

func TestInMemoryNothingStays(t *testing.T) {
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
		t.Errorf("the directory that NATS wants is still there: %v", err)
	}
}

// childDir tells a run of this test binary to be a server that is going to be killed.
const childDir = "LPFILESHARE_LEDGER_TEST_DIR"

func writeUntilKilled(dir string) {
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

func TestWhatWasAnsweredSurvivesTheDeathOfTheProcess(t *testing.T) {
	t.Parallel()
	dir := subdir(t)
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), childDir+"="+dir)
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
			t.Errorf("the server said %q", lines.Text())
		}
		revs[i] = rev
		if len(revs) == 300 {
			child.Process.Kill()
		}
	}
	child.Wait()
	if len(revs) < 300 {
		t.Fatalf("only %d records were written", len(revs))
	}
	l := open(t, config(t, dir))
	for i, rev := range revs {
		wantThere(t, l, fmt.Sprintf("k%d", i), "a", rev)
	}
}

func TestWithoutTheServerNothingIsDoneAndAfterwardsAllGoesOn(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	l := open(t, config(t, "", p.url()))
	told := make(chan bool, 100)
	l.Watch(func(usable bool) { told <- usable })
	want := func(usable bool) {
		t.Helper()
		select {
		case got := <-told:
			if got != usable {
				t.Errorf("the watcher is told %v, want %v", got, usable)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("the watcher is not told %v", usable)
		}
	}
	want(true)
	rev := mustSave(t, l, "k", "a", 0)

	// While writers are at it.
	var wg sync.WaitGroup
	for i := range 20 {
		wg.Go(func() {
			for rev := uint64(0); ; {
				begun := time.Now()
				next, err := l.Save(t.Context(), fmt.Sprintf("w%d", i), record("a"), rev)
				if err != nil {
					if !share.Is(err, share.LedgerUnavailable) {
						t.Errorf("got %v, want LEDGER_UNAVAILABLE", err)
					}
					if d := time.Since(begun); d > 4*time.Second {
						t.Errorf("it took %v", d)
					}
					return
				}
				rev = next
			}
		})
	}
	time.Sleep(100 * time.Millisecond)
	p.stop()
	wg.Wait()
	want(false)
	wantUnavailable(t, func() error { _, err := l.Save(t.Context(), "k", record("b"), rev); return err })
	wantUnavailable(t, func() error { _, err := l.Save(t.Context(), "new", record("b"), 0); return err })
	wantUnavailable(t, func() error { _, _, err := l.Load(t.Context(), "k"); return err })

	p.start()
	want(true)
	wantThere(t, l, "k", "a", rev) // what was refused was not kept for later
	if _, at, err := l.Load(t.Context(), "new"); at != 0 || err != nil {
		t.Errorf("what was refused is there: revision %d, %v", at, err)
	}
	mustSave(t, l, "k", "b", rev)
}

func TestAClusterOutlivesOneOfItsServers(t *testing.T) {
	t.Parallel()
	peers := newCluster(t)
	l := open(t, config(t, "", urls(peers)...))
	other := open(t, config(t, "", urls(peers)...)) // a second replica of ours
	info, err := l.stream.Info(t.Context())
	if err != nil || info.Config.Replicas != 3 {
		t.Fatalf("%d replicas, %v; want 3", info.Config.Replicas, err)
	}
	if info.Config.AllowDirect {
		t.Error("followers, which may lag behind, may answer reads")
	}
	rev := mustSave(t, l, "k", "a", 0)
	wantThere(t, other, "k", "a", rev)
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
		if err == share.ErrStale { // it came through when we had stopped waiting for it
			if _, rev, err = other.Load(t.Context(), "k"); err == nil {
				break
			}
		}
		if time.Since(begun) > 30*time.Second {
			t.Fatalf("still not: %v", err)
		}
	}
	t.Logf("a new leader wrote after %v", time.Since(begun).Round(time.Millisecond))
	wantThere(t, l, "k", "b", rev)
}

func TestALostAnswer(t *testing.T) {
	t.Parallel()
	setup := func(t *testing.T) (p *through, l, direct *KV) {
		server := newPeer(t)
		p = newThrough(t, server.addr())
		return p, open(t, config(t, "", p.url())), open(t, config(t, "", server.url()))
	}
	// arrived waits until the server has a record of an attempt, and returns its revision.
	arrived := func(t *testing.T, direct *KV, attempt string) uint64 {
		for range 1000 {
			if r, rev, err := direct.Load(t.Context(), "k"); err == nil && r.Attempt == attempt {
				return rev
			}
			time.Sleep(time.Millisecond)
		}
		t.Fatal("the write did not arrive")
		return 0
	}
	for _, first := range []bool{true, false} {
		t.Run(fmt.Sprintf("to a write that was done, creation %v", first), func(t *testing.T) {
			t.Parallel()
			p, l, direct := setup(t)
			rev := uint64(0)
			if !first {
				rev = mustSave(t, l, "k", "before", 0)
			}
			p.loseAnswers(true)
			var wg sync.WaitGroup
			var saved uint64
			var err error
			wg.Go(func() { saved, err = l.Save(t.Context(), "k", record("a"), rev) })
			want := arrived(t, direct, "a")
			p.loseAnswers(false)
			p.cut()
			wg.Wait()
			if err != nil || saved != want {
				t.Errorf("revision %d, %v; want %d", saved, err, want)
			}
			wantThere(t, direct, "k", "a", want) // once
		})
	}
	t.Run("and somebody else wrote since", func(t *testing.T) {
		t.Parallel()
		p, l, direct := setup(t)
		p.loseAnswers(true)
		var wg sync.WaitGroup
		var err error
		wg.Go(func() { _, err = l.Save(t.Context(), "k", record("a"), 0) })
		rev := mustSave(t, direct, "k", "b", arrived(t, direct, "a"))
		p.loseAnswers(false)
		p.cut()
		wg.Wait()
		if err != share.ErrStale {
			t.Errorf("got %v, want ErrStale", err)
		}
		wantThere(t, direct, "k", "b", rev)
	})
	t.Run("and none to the question either", func(t *testing.T) {
		t.Parallel()
		p, l, direct := setup(t)
		p.loseAnswers(true)
		wantUnavailable(t, func() error { _, err := l.Save(t.Context(), "k", record("a"), 0); return err })
		arrived(t, direct, "a")
		p.loseAnswers(false)
		p.cut()
		if _, err := l.Save(t.Context(), "k", record("b"), 0); err != share.ErrStale {
			t.Errorf("got %v, want ErrStale", err)
		}
	})
	t.Run("and the caller is gone", func(t *testing.T) {
		t.Parallel()
		p, l, _ := setup(t)
		p.loseAnswers(true)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		begun := time.Now()
		_, err := l.Save(ctx, "k", record("a"), 0)
		if !share.Is(err, share.LedgerUnavailable) || time.Since(begun) > time.Second {
			t.Errorf("got %v after %v", err, time.Since(begun))
		}
	})
}

func TestARecordThatCannotBeReadIsNotActedOn(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	l := open(t, config(t, "", p.url()))
	const secret = "Hunter2"
	for i, value := range []string{
		"", secret, `{"version":1,"write":"` + secret, `{"version":"` + secret + `"}`, `{"version":2,"write":"` + secret + `","record":{}}`,
		`{"version":2,"write":"` + secret + `","record":{"Expires":"2999-01-01T00:00:00Z"}}`, `{"write":"w","record":{"Expires":"2999-01-01T00:00:00Z"}}`,
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
				t.Errorf("the error tells what stood there: %s", s)
			}
		}
	}
}

// The fields of a later version of the program do not matter; what it means by another version number does.
func TestARecordWithMoreFieldsIsRead(t *testing.T) {
	t.Parallel()
	p := newPeer(t)
	l := open(t, config(t, "", p.url()))
	put(t, p.url(), "k", []byte(`{"version":1,"write":"w","more":1,"record":{"Attempt":"a","More":{},"Expires":"2999-01-01T00:00:00Z"}}`))
	if r, _, err := l.Load(t.Context(), "k"); err != nil || r.Attempt != "a" {
		t.Errorf("%+v, %v", r, err)
	}
}

func TestAFullKVRefusesWhatIsNewAndFinishesWhatHasBegun(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"memory", "files"} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			conf := config(t, "")
			if where == "files" {
				conf.Dir = subdir(t)
			}
			conf.MaxBytes = 256 << 10
			l := open(t, conf)
			fat := record("a")
			fat.FailureMessage = strings.Repeat("x", 1000)
			var last string
			var rev uint64
			deadline := time.Now().Add(20 * time.Second)
			refused := false
			for i := 0; !refused; i++ {
				key := fmt.Sprintf("k%d", i)
				at, err := l.Save(t.Context(), key, fat, 0)
				switch {
				case share.Is(err, share.LedgerUnavailable):
					refused = true
				case err != nil:
					t.Fatal(err)
				default:
					last, rev = key, at
				}
				if time.Now().After(deadline) {
					t.Fatal("it never gets full")
				}
			}
			if err := l.look(); err != nil || !l.full.Load() {
				t.Errorf("it is full and does not know: %v", err)
			}
			wantUnavailable(t, func() error { _, err := l.Save(t.Context(), "one more", fat, 0); return err })
			wantThere(t, l, "k0", "a", 1) // nothing was dropped
			// A record that has its place may change: here by becoming no longer.
			next := fat
			next.State = share.Failed
			if _, err := l.Save(t.Context(), last, next, rev); err != nil {
				t.Errorf("a record that has its place cannot be changed: %v", err)
			}
		})
	}
}

func TestATooLargeRecordIsRefused(t *testing.T) {
	t.Parallel()
	l := open(t, config(t, ""))
	r := record("a")
	r.File = &share.StoredFile{File: share.HostedFile{Caption: strings.Repeat("\x01", 5000), Preview: strings.Repeat("A", 30<<10)}}
	if _, err := l.Save(t.Context(), "largest", r, 0); err != nil {
		t.Errorf("the largest that can be is refused: %v", err)
	}
	r.File.File.Preview = strings.Repeat("A", maxValue)
	wantUnavailable(t, func() error { _, err := l.Save(t.Context(), "k", r, 0); return err })
}

func TestOpenSaysWhatToDo(t *testing.T) {
	t.Parallel()
	withUser := func(o *server.Options) { o.Username, o.Password = "somebody", "Hunter2" }
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
		{"nobody there", config(t, "", gone.url()), "--ledger", false},
		{"not let in", config(t, "", newPeer(t, withUser).url()), "--ledger-creds", true},
		{"no JetStream", config(t, "", newPeer(t, noJetStream).url()), "JetStream", false},
		{"too many replicas", func() Config { c := config(t, "", newPeer(t).url()); c.Replicas = 3; return c }(), "--ledger-replicas", true},
		{"no directory", config(t, filepath.Join(file, "x")), "--data-dir", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.conf.StartTimeout = 2 * time.Second
			begun := time.Now()
			_, err := Open(t.Context(), c.conf)
			if err == nil || !strings.Contains(err.Error(), c.wants) || strings.Contains(err.Error(), "Hunter2") {
				t.Errorf("got %v, want something about %s", err, c.wants)
			}
			if d := time.Since(begun); c.quick && d > time.Second || d > 4*time.Second {
				t.Errorf("it took %v", d)
			}
		})
	}
	t.Run("interrupted", func(t *testing.T) {
		t.Parallel()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		begun := time.Now()
		if _, err := Open(ctx, config(t, "", gone.url())); err == nil || time.Since(begun) > time.Second {
			t.Errorf("%v after %v", err, time.Since(begun))
		}
	})
	t.Run("with a password", func(t *testing.T) {
		t.Parallel()
		conf := config(t, "", newPeer(t, withUser).url())
		conf.User, conf.Password = "somebody", "Hunter2"
		mustSave(t, open(t, conf), "k", "a", 0)
	})
}

func TestTLS(t *testing.T) {
	t.Parallel()
	certified := httptest.NewUnstartedServer(nil) // for its certificate, which is for 127.0.0.1 and trusts itself
	certified.StartTLS()
	defer certified.Close()
	p := newPeer(t, func(o *server.Options) {
		o.TLS, o.TLSTimeout = true, 5
		o.TLSConfig = &tls.Config{Certificates: certified.TLS.Certificates, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS12}
	})
	trusting := &tls.Config{RootCAs: x509.NewCertPool(), Certificates: certified.TLS.Certificates, MinVersion: tls.VersionTLS12}
	trusting.RootCAs.AddCert(certified.Certificate())
	conf := config(t, "", p.url())
	conf.TLS = trusting
	mustSave(t, open(t, conf), "k", "a", 0)

	for what, c := range map[string]struct {
		url string
		tls *tls.Config
	}{
		"another's certificate":              {p.url(), &tls.Config{RootCAs: x509.NewCertPool(), Certificates: certified.TLS.Certificates, MinVersion: tls.VersionTLS12}},
		"the system's certificates alone":    {"tls://" + p.addr(), nil},
		"no certificate to show":             {p.url(), &tls.Config{RootCAs: trusting.RootCAs, MinVersion: tls.VersionTLS12}},
		"a server without TLS, and tls://":   {"tls://" + newPeer(t).addr(), nil},
		"a server without TLS, and a CA set": {newPeer(t).url(), trusting},
	} {
		conf := config(t, "", c.url)
		conf.TLS, conf.StartTimeout = c.tls, time.Second
		if _, err := Open(t.Context(), conf); err == nil {
			t.Errorf("%s was good enough", what)
		}
	}
}

func TestParseServers(t *testing.T) {
	got, err := ParseServers("nats://a.example, tls://[::1]:5222/,nats://b:1")
	if want := "nats://a.example:4222 tls://[::1]:5222 nats://b:1"; err != nil || strings.Join(got, " ") != want {
		t.Errorf("%v, %v; want %s", got, err, want)
	}
	for _, bad := range []string{
		"", "nats://a,", "a:4222", "http://a", "nats://", "nats://somebody:Hunter2@a", "nats://Hunter2@a:4222", "nats://a/Hunter2", "nats://a?x=Hunter2",
		"nats://a:Hunter2", "nats://a b:Hunter2@c", "tls://:4222",
	} {
		if s, err := ParseServers(bad); err == nil || strings.Contains(err.Error(), "Hunter2") {
			t.Errorf("%q gave %v, %v", bad, s, err)
		}
	}
}
