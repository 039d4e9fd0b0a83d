package ledger

import (
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lpfileshare/lpfileshare/internal/ledger/ledgertest"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// TestLedger_Contract runs the same tests on every kind of ledger.
func TestLedger_Contract(t *testing.T) {
	for _, kind := range []struct {
		name string
		open func(t *testing.T, c *clock) ledger
	}{
		{"map", func(_ *testing.T, c *clock) ledger { return ledgertest.NewMemory(1000, c.now) }},
		{"in memory", func(t *testing.T, c *clock) ledger { return openWith(t, config(t, ""), c) }},
		{"in files", func(t *testing.T, c *clock) ledger { return openWith(t, config(t, subdir(t)), c) }},
		{"in files, synced", func(t *testing.T, c *clock) ledger {
			conf := config(t, subdir(t))
			conf.Sync = true
			return openWith(t, conf, c)
		}},
		{"on another server", func(t *testing.T, c *clock) ledger { return openWith(t, config(t, "", newPeer(t).url()), c) }},
		{"on a cluster", func(t *testing.T, c *clock) ledger { return openWith(t, config(t, "", urls(newCluster(t))...), c) }},
	} {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			c := newClock()
			l := kind.open(t, c)
			t.Run("all fields are saved", func(t *testing.T) { wholeRecords(t, l, c) })
			t.Run("one of many writers succeeds", func(t *testing.T) { races(t, l, c) })
			t.Run("writers that retry lose no change", func(t *testing.T) { chain(t, l, c) })
			t.Run("revisions increase", func(t *testing.T) { growing(t, l, c) })
			t.Run("records expire", func(t *testing.T) { expiry(t, l, c) })
		})
	}
}

func openWith(t *testing.T, conf Config, c *clock) *KV {
	conf.Now = c.now
	return open(t, conf)
}

// fill sets every field of v, so that a field that is not stored is detected.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Date(2030, 1, 2, 3, 4, 5, 678901234, time.UTC)))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	case reflect.String:
		v.SetString("a <b> & \"ü\" \x00\u2028" + v.Type().Name())
	case reflect.Int64, reflect.Int:
		v.SetInt(1<<53 + 1) // not exact as a float64
	case reflect.Uint32:
		v.SetUint(1<<32 - 1)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes([]byte{0, 1, 2, 255})
			return
		}
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range v.Len() {
			fill(v.Index(i))
		}
	default:
		panic("a field of kind " + v.Kind().String())
	}
}

func wholeRecords(t *testing.T, l ledger, c *clock) {
	var full share.Record
	fill(reflect.ValueOf(&full).Elem())
	full.Owner, full.Largest = share.Principal{}, 0 // are not stored
	for i, r := range []share.Record{full, {Expires: c.now().Add(time.Hour).UTC().Round(0)}} {
		key := fmt.Sprintf("whole%d", i)
		rev, err := l.Save(t.Context(), key, r, 0)
		if err != nil {
			t.Fatal(err)
		}
		got, at, err := l.Load(t.Context(), key)
		if err != nil || at != rev {
			t.Fatalf("revision %d, %v; want %d", at, err, rev)
		}
		if diff := cmp.Diff(r, got); diff != "" {
			t.Error(diff)
		}
	}
	if _, rev, err := l.Load(t.Context(), "nothing"); rev != 0 || err != nil {
		t.Errorf("a key without a record has revision %d, %v", rev, err)
	}
}

func races(t *testing.T, l ledger, c *clock) {
	rev := uint64(0)
	for _, write := range []string{"creation", "change"} {
		var wg sync.WaitGroup
		won := make(chan uint64, 20)
		for i := range 20 {
			wg.Go(func() {
				r, err := l.Save(t.Context(), "race", share.Record{Attempt: fmt.Sprint(i), Expires: c.now().Add(time.Hour)}, rev)
				if err == nil {
					won <- r
				} else if err != share.ErrStale {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(won) != 1 {
			t.Fatalf("%s: %d writers succeeded, want 1", write, len(won))
		}
		rev = <-won
	}
	if _, err := l.Save(t.Context(), "race", share.Record{Expires: c.now().Add(time.Hour)}, 0); !errors.Is(err, share.ErrStale) {
		t.Errorf("a second creation gave %v, want ErrStale", err)
	}
}

// chain has writers that load, change and retry: every change must be in the final record.
func chain(t *testing.T, l ledger, c *clock) {
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			for {
				r, rev, err := l.Load(t.Context(), "chain")
				if err != nil {
					t.Error(err)
					return
				}
				r.Expires = c.now().Add(time.Hour)
				r.Attempt += "x"
				switch _, err = l.Save(t.Context(), "chain", r, rev); err {
				case nil:
					return
				case share.ErrStale:
				default:
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if r, _, err := l.Load(t.Context(), "chain"); len(r.Attempt) != 12 || err != nil {
		t.Errorf("%d of 12 changes were saved, %v", len(r.Attempt), err)
	}
}

func growing(t *testing.T, l ledger, c *clock) {
	last := uint64(0)
	for range 5 {
		rev, err := l.Save(t.Context(), "grows", share.Record{Expires: c.now().Add(time.Minute)}, last)
		if err != nil || rev <= last {
			t.Fatalf("revision %d after %d, %v", rev, last, err)
		}
		if _, err := l.Save(t.Context(), "grows", share.Record{Expires: c.now().Add(time.Minute)}, last); err != share.ErrStale {
			t.Fatalf("the previous revision gave %v, want ErrStale", err)
		}
		last = rev
	}
	c.pass(2 * time.Minute)
	if rev, err := l.Save(t.Context(), "grows", share.Record{Expires: c.now().Add(time.Hour)}, 0); err != nil || rev <= last {
		t.Errorf("revision %d after %d and expiry, %v", rev, last, err)
	}
}

func expiry(t *testing.T, l ledger, c *clock) {
	save := func(rev uint64) (uint64, error) {
		return l.Save(t.Context(), "expires", share.Record{Attempt: "a", Expires: c.now().Add(time.Minute)}, rev)
	}
	rev, err := save(0)
	if err != nil {
		t.Fatal(err)
	}
	c.pass(59 * time.Second)
	if r, at, _ := l.Load(t.Context(), "expires"); at != rev || r.Attempt != "a" {
		t.Fatalf("the record expired early: %+v %d", r, at)
	}
	if _, err := save(0); err != share.ErrStale {
		t.Errorf("a valid record was replaced: %v", err)
	}
	c.pass(time.Second)
	if _, at, err := l.Load(t.Context(), "expires"); at != 0 || err != nil {
		t.Errorf("the record did not expire: revision %d, %v", at, err)
	}
	var wg sync.WaitGroup
	won := make(chan uint64, 12)
	for range 12 {
		wg.Go(func() {
			if r, err := save(0); err == nil {
				won <- r
			} else if err != share.ErrStale {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if len(won) != 1 {
		t.Errorf("%d writers replaced an expired record, want 1", len(won))
	}
}
