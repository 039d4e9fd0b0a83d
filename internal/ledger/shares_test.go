package ledger

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

func consumer(id string) share.Principal {
	return share.Principal{Account: acct, ID: id, Role: share.RoleConsumer}
}

// fakeBucket is shares of a bucket of 1,000,000 bytes, without NATS.
type fakeBucket struct {
	*shares
	t     *testing.T
	clock *clock
	next  int
	rev   uint64
}

func newFakeBucket(t *testing.T) *fakeBucket {
	t.Helper()
	c := newClock()
	s := newShares(c.now)
	s.ttl = 25 * time.Hour
	f := &fakeBucket{shares: s, t: t, clock: c}
	f.observe(0)
	return f
}

// wrote counts a record that was written now.
func (f *fakeBucket) wrote(key string, p share.Principal, size int64, keep time.Duration, early bool) {
	f.rev++
	f.shares.wrote(f.rev, attempt{key: key}, p, size, 0, keep, early)
}

// observe observes the bucket as it is now.
func (f *fakeBucket) observe(used int64) { f.shares.observe(used, 1_000_000, f.rev, time.Time{}) }

const recordBytes = 1000

// begin begins a new id, which stays for a day.
func (f *fakeBucket) begin(p share.Principal) error {
	f.next++
	key := fmt.Sprint(f.next)
	if _, err := f.admit(demand{attempt: attempt{key: key}, owner: p, size: recordBytes, begins: true}); err != nil {
		return err
	}
	f.wrote(key, p, recordBytes, 25*time.Hour, false)
	return nil
}

// fill begins ids until they are rejected, and returns their bytes.
func (f *fakeBucket) fill(p share.Principal) (bytes int64) {
	f.t.Helper()
	for range 1000 {
		if err := f.begin(p); err != nil {
			if !share.Is(err, share.LedgerShare) {
				f.t.Fatal(err)
			}
			return bytes
		}
		bytes += recordBytes
	}
	f.t.Fatal("nothing was rejected")
	return 0
}

func (f *fakeBucket) wantHeld(what string, got, want int64) {
	f.t.Helper()
	if got < want-2*recordBytes || got > want {
		f.t.Errorf("%s: %d bytes, want %d", what, got, want)
	}
}

func TestShares_CallerHoldsAsMuchAsIsFree(t *testing.T) {
	f := newFakeBucket(t)
	f.wantHeld("one caller", f.fill(consumer("a")), 500_000)
	f.wantHeld("a second beside it", f.fill(consumer("b")), 250_000)
	f.wantHeld("a third", f.fill(consumer("c")), 125_000)
	if err := f.begin(consumer("d")); err != nil {
		t.Errorf("a caller that holds nothing: %v", err)
	}

	f = newFakeBucket(t)
	held := map[string]int64{}
	for range 1000 {
		for _, id := range []string{"a", "b"} {
			if f.begin(consumer(id)) == nil {
				held[id] += recordBytes
			}
		}
	}
	f.wantHeld("two callers at once", held["a"], 333_333)
	f.wantHeld("two callers at once", held["b"], 333_333)
}

// Consumers of one name in two accounts, and services of one consumer, are different callers.
func TestShares_CallersAreDistinguished(t *testing.T) {
	f := newFakeBucket(t)
	f.fill(consumer("a"))
	for _, p := range []share.Principal{
		{Account: "other", ID: "a", Role: share.RoleConsumer}, {Account: acct, ID: "a", Role: share.RoleAgent},
		{Account: acct, ID: "a", Role: share.RoleConsumer, Caller: "orders"},
	} {
		if err := f.begin(p); err != nil {
			t.Errorf("%+v: %v", p, err)
		}
	}
}

func TestShares_AccountLeavesSpaceForOthers(t *testing.T) {
	fillAccount := func(f *fakeBucket, account string) (bytes int64) {
		for i := range 1000 {
			p := share.Principal{Account: account, ID: fmt.Sprint(i), Role: share.RoleConsumer}
			switch err := f.begin(p); {
			case err == nil:
				bytes += recordBytes
			case share.Is(err, share.LedgerShare):
				if !strings.Contains(err.Error(), "account") {
					f.t.Fatal(err)
				}
				return bytes
			default:
				return bytes
			}
		}
		return bytes
	}
	f := newFakeBucket(t)
	f.wantHeld("the only account", fillAccount(f, "1"), 951_000) // until the ledger is full
	f = newFakeBucket(t)
	if err := f.begin(share.Principal{Account: "2", ID: "x"}); err != nil {
		t.Fatal(err)
	}
	f.wantHeld("beside another account", fillAccount(f, "1"), 875_000)
	if err := f.begin(share.Principal{Account: "2", ID: "y"}); err != nil {
		t.Errorf("the other account: %v", err)
	}
}

// What a caller holds is what its records need now: the next record of an id replaces the previous one, and records expire.
func TestShares_CountsWhatIsStored(t *testing.T) {
	f := newFakeBucket(t)
	a := consumer("a")
	held := func() int64 { return f.callers[callerOf(a)].held(f.gone()) }
	f.wrote("k", a, 400, 30*time.Minute, true)
	f.wrote("k", a, 40_000, 25*time.Hour, false)
	f.wrote("k", a, 500, 25*time.Hour, false)
	if held() != 500 || f.used != 500 {
		t.Errorf("held %d of %d bytes, want 500", held(), f.used)
	}
	f.wrote("failed", a, 300, 10*time.Minute, true)
	f.clock.pass(9 * time.Minute)
	if held() != 800 {
		t.Errorf("held %d bytes before a failure expires, want 800", held())
	}
	f.clock.pass(3 * time.Minute)
	if held() != 500 {
		t.Errorf("held %d bytes after a failure has expired, want 500", held())
	}
	f.wrote("failed", a, 300, 10*time.Minute, true) // replaces what has expired
	if held() != 800 {
		t.Errorf("held %d bytes, want 800", held())
	}
	f.clock.pass(27 * time.Hour)
	f.observe(0)
	if held() != 0 || len(f.callers) != 0 || len(f.byAccount) != 0 {
		t.Errorf("held %d bytes by %d callers after all have expired", held(), len(f.callers))
	}
}

// An observation that began before a write does not undo it.
func TestShares_LateObservation(t *testing.T) {
	f := newFakeBucket(t)
	before := f.rev
	for i := range 10 {
		if err := f.begin(consumer(fmt.Sprint(i))); err != nil {
			t.Fatal(err)
		}
	}
	f.shares.observe(0, 1_000_000, before, time.Time{})
	if f.used != 10*recordBytes {
		t.Errorf("%d bytes are used after an observation of the past, want %d", f.used, 10*recordBytes)
	}
	f.observe(9 * recordBytes)
	if f.used != 9*recordBytes || len(f.written) != 0 {
		t.Errorf("%d bytes are used, and %d writes are kept", f.used, len(f.written))
	}
}

func TestShares_ExpiryMakesSpace(t *testing.T) {
	f := newFakeBucket(t)
	f.fill(consumer("a"))
	err := f.begin(consumer("a"))
	e, ok := err.(*share.Error)
	if !ok || e.RetryAfter <= 0 || e.Metadata["limit"] != "caller" || e.Metadata["heldBytes"] == "" || e.Metadata["freeBytes"] == "" {
		t.Errorf("got %+v", err)
	}
	f.clock.pass(27 * time.Hour)
	f.observe(0)
	if err := f.begin(consumer("a")); err != nil {
		t.Errorf("after expiry: %v", err)
	}
}

func TestShares_SlotsAreFew(t *testing.T) {
	f := newFakeBucket(t)
	a := consumer("a")
	for i := range 25 * 60 {
		f.wrote(fmt.Sprint(i), a, 1, 25*time.Hour, false)
		f.wrote(fmt.Sprint("f", i), a, 1, 10*time.Minute, true)
		f.clock.pass(time.Minute)
	}
	if h := f.callers[callerOf(a)]; len(h.usual.list)+len(h.early.list) > 64 {
		n := len(h.usual.list) + len(h.early.list)
		t.Errorf("a caller has %d slots", n)
	}
}

func TestShares_BoundedCallers(t *testing.T) {
	f := newFakeBucket(t)
	const most = 100
	f.maxCallers = most
	for i := range most + 10 {
		f.wrote(fmt.Sprint(i), consumer(fmt.Sprint(i)), 1, time.Hour, true)
	}
	if len(f.callers) != most {
		t.Errorf("%d callers are counted", len(f.callers))
	}
	if held := f.byAccount[acct].held(f.gone()); held != most+10 {
		t.Errorf("the account holds %d", held)
	}
	f.wrote("0", consumer("0"), 0, time.Hour, true) // replaces the record of a caller that is counted
	f.wrote(fmt.Sprint(most+1), consumer(fmt.Sprint(most+1)), 0, time.Hour, true)
	for c, h := range f.callers {
		if held := h.held(f.gone()); held < 0 {
			t.Errorf("%v holds %d bytes", c, held)
		}
	}
}

// One caller fills its share. It is rejected, its uploads in progress go on, and others begin new ones.
func TestKV_Share(t *testing.T) {
	t.Parallel()
	for where, dir := range map[string]string{"memory": "", "files": subdir(t)} {
		t.Run(where, func(t *testing.T) {
			conf := config(t, dir)
			conf.MaxBytes = 128 << 10
			l := open(t, conf)
			running := uploadStates(alice, 1000, 100)
			rev, err := saveStates(t, l, requestKey(-1), running[:1], 0)
			if err != nil {
				t.Fatal(err)
			}
			n := 0
			for ; err == nil && n < 1000; n++ {
				states := uploadStates(alice, 100, 10)
				_, err = saveStates(t, l, requestKey(n), states, 0)
				l.Finish(requestKey(n), states[0].Attempt)
			}
			if !share.Is(err, share.LedgerShare) {
				t.Fatalf("got %v after %d uploads, want LEDGER_SHARE", err, n)
			}
			check(t, l)
			u := l.Usage()
			if part := float64(u.Bytes+u.ReservedBytes) / float64(u.LimitBytes); part < 0.40 || part > 0.55 {
				t.Errorf("alice's uploads use %.2f of the ledger", part)
			}
			if u.RejectedShare != 1 || u.RejectedFull != 0 || u.Callers != 1 || u.Records < uint64(n-1) {
				t.Errorf("got %+v after %d uploads", u, n)
			}
			if _, err = saveStates(t, l, requestKey(-1), running[1:], rev); err != nil {
				t.Errorf("an upload in progress: %v", err)
			}
			creation := share.CreationRecord{Owner: alice, Expires: time.Now().Add(24 * time.Hour)}
			for i := 0; err == nil && i < 100; i++ {
				_, err = l.SaveCreation(t.Context(), fmt.Sprint("creation", i), creation, 0)
			}
			if !share.Is(err, share.LedgerShare) {
				t.Errorf("conversations of the same caller: %v", err)
			}
			creation.Claimant = requestKey(0) // of a conversation that exists
			if _, err := l.SaveCreation(t.Context(), "claim", creation, 0); err != nil {
				t.Errorf("a claim of the same caller: %v", err)
			}
			saveAll(t, l, requestKey(-2), uploadStates(consumer("bob"), 100, 10))
			// A repeated request id uses no more space.
			if _, _, err := l.Load(t.Context(), requestKey(0)); err != nil {
				t.Error(err)
			}
		})
	}
}

// A record that expires soon leaves the bucket soon after, and others stay.
func TestKV_ShortRecordsAreDropped(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"memory", "files", "another server"} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			conf := config(t, "")
			switch where {
			case "files":
				conf.Dir = subdir(t)
			case "another server":
				conf.Servers = []string{newPeer(t).url()}
			}
			l := open(t, conf)
			mustSave(t, l, "stays", "a", 0)
			rev := mustSave(t, l, "fails", "a", 0)
			failed := record("a")
			failed.State, failed.Expires = share.Failed, time.Now()
			if _, err := l.Save(t.Context(), "fails", failed, rev); err != nil {
				t.Fatal(err)
			}
			// NATS has no event for it.
			for limit := time.After(time.Minute); ; {
				info, err := l.stream.Info(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				if info.State.Msgs == 2 { // with the probe
					break
				}
				select {
				case <-limit:
					t.Fatalf("there are %d records", info.State.Msgs)
				case <-time.After(20 * time.Millisecond):
				}
			}
			if r, _, err := l.Load(t.Context(), "stays"); err != nil || r.Attempt != "a" {
				t.Errorf("%+v, %v", r, err)
			}
			if _, err := l.Save(t.Context(), "fails", failed, rev+1); err != share.ErrStale {
				t.Errorf("an attempt whose record is gone: %v, want ErrStale", err)
			}
			mustSave(t, l, "fails", "b", 0)
		})
	}
}

// How long records are kept: a margin after their expiry, because clocks differ, and never longer than the bucket keeps any.
func TestKV_Keep(t *testing.T) {
	c := newClock()
	l := &KV{now: c.now, ttl: 25 * time.Hour, msgTTL: true}
	for _, k := range []struct {
		valid, want time.Duration
		early       bool
	}{
		{24 * time.Hour, 25 * time.Hour, false}, {15 * time.Minute, 30 * time.Minute, true}, {2 * time.Hour, 3 * time.Hour, true},
		{0, time.Second, true}, {-time.Hour, time.Second, true},
	} {
		keep, early := l.keep(c.now().Add(k.valid))
		if early != k.early || keep < k.want || keep > k.want+2*time.Second {
			t.Errorf("valid for %s: kept for %s, early %t; want %s, %t", k.valid, keep, early, k.want, k.early)
		}
	}
	l.msgTTL = false // NATS before 2.11
	if keep, early := l.keep(c.now()); early || keep != l.ttl {
		t.Errorf("without AllowMsgTTL: kept for %s, early %t", keep, early)
	}
}
