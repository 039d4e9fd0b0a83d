package admission

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

func credential(peer, secret string) share.Credential {
	return share.Credential{Scheme: share.ConsumerToken, Account: "1", Secret: secret, Peer: peer}
}

// An openingsFixture is Openings of which a test ends each by itself. It is used in a synctest bubble.
type openingsFixture struct {
	t *testing.T
	*Openings
	mu    sync.Mutex
	begun []string // in order
	ends  map[string]func(bool)
	errs  []error
}

func newOpeningsFixture(t *testing.T, inFlight, queue int) *openingsFixture {
	return &openingsFixture{t: t, ends: map[string]func(bool){}, Openings: NewOpenings(OpeningLimits{
		InFlight: inFlight, Queue: queue, Timeout: 5 * time.Second, FirstBytes: 1000, Now: time.Now,
	})}
}

// begin begins an opening, and returns when it has begun, waits or was rejected.
func (f *openingsFixture) begin(ctx context.Context, peer, secret string) {
	f.t.Helper()
	go func() {
		end, err := f.Begin(ctx, credential(peer, secret))
		f.mu.Lock()
		defer f.mu.Unlock()
		if err != nil {
			f.errs = append(f.errs, err)
			return
		}
		f.begun = append(f.begun, peer+secret)
		f.ends[peer+secret] = end
	}()
	synctest.Wait()
}

func (f *openingsFixture) end(name string) {
	f.t.Helper()
	f.mu.Lock()
	end := f.ends[name]
	f.mu.Unlock()
	if end == nil {
		f.t.Fatalf("%s has not begun", name)
	}
	end(false)
	synctest.Wait()
}

// want wants exactly these openings to have begun since its last call, in this order, and that many to have been rejected.
func (f *openingsFixture) want(rejected int, names ...string) {
	f.t.Helper()
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	if !slices.Equal(f.begun, names) {
		f.t.Errorf("%v have begun, want %v", f.begun, names)
	}
	if len(f.errs) != rejected {
		f.t.Errorf("%d were rejected, want %d: %v", len(f.errs), rejected, f.errs)
	}
	for _, err := range f.errs {
		if e, ok := errors.AsType[*share.Error](err); !ok || e.Kind != share.SessionLimit || e.Metadata["limit"] != "openings" || e.RetryAfter < MinRetryAfter {
			f.t.Errorf("rejected with %v", err)
		}
	}
	f.begun, f.errs = nil, nil
}

// A flood of invented credentials from one address takes half of the openings, and others begin at once.
func TestOpenings_AddressHasAShare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newOpeningsFixture(t, 8, 100)
		for i := range 20 {
			f.begin(t.Context(), "flood", fmt.Sprint(i))
		}
		f.want(0, "flood0", "flood1", "flood2", "flood3")
		for i := range 2 {
			f.begin(t.Context(), "honest", fmt.Sprint(i))
		}
		f.want(0, "honest0", "honest1")
		f.end("flood0")
		f.want(0) // three and two are held, so the flood is at its share
		f.end("honest0")
		f.want(0)
		f.end("honest1")
		f.want(0, "flood4")
		time.Sleep(time.Minute)
		f.want(15)
		for _, name := range []string{"flood1", "flood2", "flood3", "flood4"} {
			f.end(name)
		}
		if u := f.Usage(); u != (OpeningsUsage{}) {
			t.Errorf("%+v are left", u)
		}
	})
}

// Behind the address of a proxy the credentials take turns: one that opens many sessions waits behind its own.
func TestOpenings_CredentialsOfAnAddressTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newOpeningsFixture(t, 2, 100)
		f.begin(t.Context(), "proxy", "a")
		for range 5 {
			f.begin(t.Context(), "proxy", "b")
		}
		f.begin(t.Context(), "proxy", "c")
		f.want(0, "proxya")
		f.end("proxya")
		f.want(0, "proxyb")
		f.end("proxyb")
		f.want(0, "proxyc")
		f.end("proxyc")
		f.want(0, "proxyb")
		f.end("proxyb")
		f.want(0, "proxyb")
	})
}

func TestOpenings_QueueIsSharedToo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newOpeningsFixture(t, 1, 10)
		f.begin(t.Context(), "x", "first")
		ctx, cancel := context.WithCancel(t.Context())
		for i := range 20 {
			f.begin(ctx, "flood", fmt.Sprint(i))
		}
		f.want(15, "xfirst")
		f.begin(ctx, "honest", "x")
		f.want(0)
		f.end("xfirst")
		f.want(0, "flood0")
		f.end("flood0")
		f.want(0, "honestx") // its address had its turn
		f.end("honestx")
		f.want(0, "flood1")
		cancel()
		synctest.Wait()
		f.end("flood1")
		if u := f.Usage(); u != (OpeningsUsage{}) {
			t.Errorf("%+v are left", u)
		}
	})
}

// A flood of invented credentials through a proxy does not keep those from their turn that LivePerson has accepted before.
func TestOpenings_KnownCredentialsHaveTurnsOfTheirOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newOpeningsFixture(t, 1, 10)
		f.Know(credential("elsewhere", "known"))
		f.begin(t.Context(), "proxy", "first")
		ctx, cancel := context.WithCancel(t.Context())
		for i := range 20 {
			f.begin(ctx, "proxy", fmt.Sprint(i))
		}
		f.want(15, "proxyfirst")
		f.begin(ctx, "proxy", "known")
		f.begin(ctx, "proxy", "") // a sign-in
		f.want(0)
		f.end("proxyfirst")
		f.want(0, "proxy0")
		f.end("proxy0")
		f.want(0, "proxyknown")
		f.ends["proxyknown"](true)
		f.want(0, "proxy")
		f.end("proxy")
		f.want(0, "proxy1")
		cancel()
		for i := range 2*maxKnown - 2 { // the credential has just been accepted again
			f.Know(credential("", fmt.Sprint(i)))
		}
		if h := f.holder(credential("", "known")); h.Group != " known" {
			t.Error("a credential that was accepted lately is not known")
		}
		for i := range 2 * maxKnown {
			f.Know(credential("", fmt.Sprint("other", i)))
		}
		if h := f.holder(credential("", "known")); h.Group != "" || len(f.known[0])+len(f.known[1]) > 2*maxKnown {
			t.Error("the known credentials are not limited")
		}
	})
}

// What the first messages of unproved callers hold is shared by address.
func TestOpenings_HoldFirstMessages(t *testing.T) {
	o := NewOpenings(OpeningLimits{FirstBytes: 1000, Now: time.Now})
	var releases []func()
	for i := range 10 {
		if release, err := o.Hold(credential("flood", fmt.Sprint(i)), 100); err == nil {
			releases = append(releases, release)
		} else if !share.Is(err, share.SessionLimit) {
			t.Errorf("rejected with %v", err)
		}
	}
	if len(releases) != 5 {
		t.Errorf("one address holds %d of 10", len(releases))
	}
	release, err := o.Hold(credential("honest", ""), 500)
	if err != nil {
		t.Fatal(err)
	}
	for _, release := range append(releases, release) {
		release()
		release()
	}
	if u := o.Usage(); u.HeldBytes != 0 {
		t.Errorf("%d bytes are left", u.HeldBytes)
	}
}
