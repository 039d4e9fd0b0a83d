package ledger

import (
	"fmt"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// fillUp saves published uploads of many consumers, from number n on, until the ledger is above a part of its limit. It returns the
// next number.
func fillUp(t testing.TB, l *KV, n int, part float64) int {
	t.Helper()
	for ; l.shares.part() <= part; n++ {
		states := uploadStates(consumer(fmt.Sprint(n%50)), 100, 10)
		saveAll(t, l, requestKey(n), states[len(states)-1:])
	}
	return n
}

func exists(t *testing.T, l *KV, key string) bool {
	t.Helper()
	_, rev, err := l.Load(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	return rev != 0
}

// A nearly full ledger drops its oldest finished records, and neither young ones nor those that an attempt may work on.
func TestKV_DropsFinishedRecords(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"memory", "files", "another server"} {
		t.Run(where, func(t *testing.T) {
			t.Parallel()
			c := newClock()
			conf := config(t, "")
			switch where {
			case "files":
				conf.Dir = subdir(t)
			case "another server":
				conf.Servers = []string{newPeer(t).url()}
			}
			conf.MaxBytes = 128 << 10
			l := openWith(t, conf, c)
			unfinished := uploadStates(alice, 100, 10)[:3]
			unfinished[0].Expires = time.Now().Add(24 * time.Hour)
			for _, r := range unfinished {
				saveAll(t, l, string(r.State), []share.Record{r})
			}
			creation := share.CreationRecord{Owner: alice, Expires: time.Now().Add(24 * time.Hour), State: share.Publishing}
			if _, err := l.SaveCreation(t.Context(), "creating", creation, 0); err != nil {
				t.Fatal(err)
			}
			if _, err := l.js.Publish(t.Context(), subjectPrefix+"damaged", []byte("x")); err != nil {
				t.Fatal(err)
			}
			n := fillUp(t, l, 0, 0.93)
			if _, dropped, err := l.dropFinished(0); dropped != 0 || err != nil {
				t.Errorf("%d young records were dropped, %v", dropped, err)
			}
			c.pass(keptAtLeast + time.Minute)
			if _, _, err := l.dropFinished(0); err != nil { // or dropPeriodically was faster
				t.Fatal(err)
			}
			for limit := time.After(time.Minute); ; { // until NATS has dropped the markers, of which it has no event
				check(t, l)
				if part := l.shares.part(); part < dropTo-0.05 {
					t.Fatalf("the ledger is at %.3f of its limit, want %.2f", part, dropTo)
				} else if part <= dropTo+0.01 {
					break
				}
				select {
				case <-limit:
					t.Fatalf("the ledger is at %.3f of its limit, want %.2f", l.shares.part(), dropTo)
				case <-time.After(20 * time.Millisecond):
				}
			}
			for key, want := range map[string]bool{
				string(share.Receiving): true, string(share.Publishing): true, string(share.Stored): false, "creating": true,
				requestKey(0): false, requestKey(n - 1): true, requestKey(n / 2): true,
			} {
				if key == "creating" {
					if _, rev, err := l.LoadCreation(t.Context(), key); err != nil || rev == 0 {
						t.Errorf("a conversation that may exist was dropped, %v", err)
					}
				} else if got := exists(t, l, key); got != want {
					t.Errorf("%s exists: %t, want %t", key, got, want)
				}
			}
			// The ids that were dropped begin again.
			saveAll(t, l, requestKey(0), uploadStates(consumer("new"), 100, 10))
			fillUp(t, l, n, 0.90)
		})
	}
}

// A conversation stays that of its request id as long as the claim is valid; the request's own record may be dropped.
func TestFinished_ClaimIsKept(t *testing.T) {
	for claimant, want := range map[string]bool{"": true, "the key of a request id": false} {
		value, _, err := creations.encode(share.CreationRecord{Owner: alice, Expires: time.Now().Add(time.Hour), ConversationID: "c", Claimant: claimant})
		if err != nil {
			t.Fatal(err)
		}
		if got := finished(value); got != want {
			t.Errorf("claimant %q: finished is %t", claimant, got)
		}
	}
}

// The shares know of dropped records: a caller whose records were dropped may begin new ids.
func TestShares_DroppedRecordsAreNotHeld(t *testing.T) {
	f := newFakeBucket(t)
	f.fill(consumer("a"))
	f.clock.pass(3 * time.Hour)
	f.dropped(f.rev+1, recordBytes, f.clock.now().Add(-90*time.Minute))
	if held := f.callers[callerOf(consumer("a"))].held(f.gone()); held != 0 {
		t.Errorf("the caller holds %d bytes", held)
	}
	if f.used != 500_000-recordBytes {
		t.Errorf("%d bytes are used", f.used)
	}
}
