package ledger

import (
	"errors"
	"fmt"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// Every kind of ledger keeps the same promises.
func TestContract(t *testing.T) {
	for _, kind := range []struct {
		name string
		open func(t *testing.T, c *clock) ledger
	}{
		{"map", func(_ *testing.T, c *clock) ledger { return NewMemory(1000, c.now) }},
		{"in memory", func(t *testing.T, c *clock) ledger { return openWith(t, config(t, ""), c) }},
		{"in files", func(t *testing.T, c *clock) ledger { return openWith(t, config(t, subdir(t)), c) }},
		{"in files, synced", func(t *testing.T, c *clock) ledger {
			conf := config(t, subdir(t))
			conf.Sync = true
			return openWith(t, conf, c)
		}},
		{"of a server elsewhere", func(t *testing.T, c *clock) ledger { return openWith(t, config(t, "", newPeer(t).url()), c) }},
		{"of a cluster", func(t *testing.T, c *clock) ledger { return openWith(t, config(t, "", urls(newCluster(t))...), c) }},
	} {
		t.Run(kind.name, func(t *testing.T) {
			t.Parallel()
			c := newClock()
			l := kind.open(t, c)
			t.Run("what is saved is loaded, whole", func(t *testing.T) { wholeRecords(t, l, c) })
			t.Run("of fifty writers one wins", func(t *testing.T) { races(t, l, c) })
			t.Run("a chain of fifty writers loses nothing", func(t *testing.T) { chain(t, l, c) })
			t.Run("revisions grow", func(t *testing.T) { growing(t, l, c) })
			t.Run("records expire", func(t *testing.T) { expiry(t, l, c) })
		})
	}
}

func openWith(t *testing.T, conf Config, c *clock) *KV {
	conf.Now = c.now
	return open(t, conf)
}

// fill sets every field that v has to something, so that one which is not written is missed.
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
		v.SetInt(1<<53 + 1) // what a float would lose
	case reflect.Uint32:
		v.SetUint(1<<32 - 1)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Slice:
		if v.Type().Elem().Kind() != reflect.Uint8 {
			v.Set(reflect.MakeSlice(v.Type(), 2, 2))
			fill(v.Index(0))
			fill(v.Index(1))
			return
		}
		v.SetBytes([]byte{0, 1, 2, 255})
	default:
		panic("a field of kind " + v.Kind().String())
	}
}

func wholeRecords(t *testing.T, l ledger, c *clock) {
	var full share.Record
	fill(reflect.ValueOf(&full).Elem())
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
		t.Errorf("what was never saved has revision %d, %v", rev, err)
	}
}

func races(t *testing.T, l ledger, c *clock) {
	rev := uint64(0)
	for _, what := range []string{"creation", "change"} {
		var wg sync.WaitGroup
		won := make(chan uint64, 50)
		for i := range 50 {
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
			t.Fatalf("%s: %d writers won, want 1", what, len(won))
		}
		rev = <-won
	}
	if _, err := l.Save(t.Context(), "race", share.Record{Expires: c.now().Add(time.Hour)}, 0); !errors.Is(err, share.ErrStale) {
		t.Errorf("a second creation gave %v, want ErrStale", err)
	}
}

// chain has writers that read, change and try again: each change must be there in the end.
func chain(t *testing.T, l ledger, c *clock) {
	var wg sync.WaitGroup
	for range 50 {
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
	if r, _, err := l.Load(t.Context(), "chain"); len(r.Attempt) != 50 || err != nil {
		t.Errorf("%d of 50 changes are there, %v", len(r.Attempt), err)
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
			t.Fatalf("the revision before gave %v, want ErrStale", err)
		}
		last = rev
	}
	c.pass(2 * time.Minute)
	if rev, err := l.Save(t.Context(), "grows", share.Record{Expires: c.now().Add(time.Hour)}, 0); err != nil || rev <= last {
		t.Errorf("revision %d after %d, when the record had expired; %v", rev, last, err)
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
		t.Fatalf("the record is gone before its time: %+v %d", r, at)
	}
	if _, err := save(0); err != share.ErrStale {
		t.Errorf("a record was written over before its time: %v", err)
	}
	c.pass(time.Second)
	if _, at, err := l.Load(t.Context(), "expires"); at != 0 || err != nil {
		t.Errorf("the record is still there: revision %d, %v", at, err)
	}
	var wg sync.WaitGroup
	won := make(chan uint64, 50)
	for range 50 {
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
		t.Errorf("%d writers took the place of an expired record, want 1", len(won))
	}
}
