// Package abuse attacks a server that is a process of its own, at bounded rates and over loopback only, and measures an honest caller
// beside each attack: nothing of the honest caller is rejected, its calls stay fast or it has its part of the processors, and the
// server's memory stays within what its flags allow (docs/limits.md). `make test-abuse` prints the table.
//
// LPFILESHARE_ABUSE_ONLY picks the rows whose names contain a text.
package abuse

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/harness"
	"github.com/lpfileshare/lpfileshare/test/wire"
)

const (
	account     = harness.Account
	accountPath = harness.AccountPath
	mib         = 1 << 20
)

var (
	// program is the server, without the race detector.
	program harness.Program
	// frames are those of all sandboxes here.
	frames = wire.NewSuite("abuse")
	// table is printed after the tests.
	table strings.Builder
)

func TestMain(m *testing.M) {
	if os.Getenv(attackerVariable) != "" {
		if err := attackHere(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		os.Exit(1)
	}
	columns := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	tableRow = func(cells ...any) {
		for _, c := range cells {
			fmt.Fprintf(columns, "%v\t", c)
		}
		fmt.Fprintln(columns)
	}
	tableRow("case", "honest calls", "median, p99 before", "during", "peak MiB", "of at most", "verdict")
	code := harness.Main(m, frames, &program)
	columns.Flush()
	fmt.Print(table.String())
	os.Exit(code)
}

var tableRow func(cells ...any)

// A server is a process before a sandbox in this one.
type server struct {
	*harness.Server
	t  *testing.T
	sb *sandbox.Sandbox
}

// A row is one attack.
type row struct {
	name string
	// flags are those of the server besides the common ones. prepare, if set, adds flags that need the test.
	flags   []string
	prepare func(t *testing.T, sb *sandbox.Sandbox) []string
	options sandbox.Options
	// faults are armed before the honest caller is measured, with the attack and without.
	faults []sandbox.Fault
	// peak is the most that may be resident, in MiB; 0: what the default flags allow.
	peak int64
	// during is how long the attack lasts; 0: attackTime.
	during time.Duration
	// busy says that the attack needs all processors. Then the honest caller's calls per second are judged, not their latency.
	busy bool
	// unjudged says why that is reported and not judged; empty: it is judged.
	unjudged string
	// honest returns the call that the honest caller repeats. It is called before the attack.
	honest func(s *server) func(ctx context.Context) error
	// attack attacks until ctx ends, and returns when all of it has ended.
	attack func(ctx context.Context, s *server)
	// check checks the server after the attack; nil: nothing further.
	check func(s *server)
}

const (
	quietTime  = 2 * time.Second
	attackTime = 6 * time.Second
	// rampUp is the part of an attack in which the honest caller does not measure.
	rampUp = time.Second
	// fastEnough is a p99 that is never wrong.
	fastEnough = 250 * time.Millisecond
	// callLimit is the deadline of an honest call.
	callLimit = 10 * time.Second
	// pause is between two calls of the honest caller.
	pause = 5 * time.Millisecond
	// fairPart is the part of its calls per second that the honest caller keeps at least if one attacker needs all processors: half of
	// what it is due, which is half of what it has alone.
	fairPart = 0.25
)

// defaultPeak is the formula of docs/limits.md with the default flags, and a tenth more.
const defaultPeak = (256+64+96+256+48+64+156+128+48)*11/10 + 1

// picked skips the test unless LPFILESHARE_ABUSE_ONLY picks its row.
func picked(t *testing.T, name string) {
	t.Helper()
	if !strings.Contains(name, os.Getenv("LPFILESHARE_ABUSE_ONLY")) {
		t.Skip("not picked by LPFILESHARE_ABUSE_ONLY")
	}
}

// cannot skips a row that this machine cannot run. The table says why.
func cannot(t *testing.T, name, format string, args ...any) {
	t.Helper()
	why := fmt.Sprintf(format, args...)
	tableRow(name, "", "", "", "", "", "SKIPPED "+why)
	t.Skip(why)
}

// tries is how often a row is run, each time with a new server, before the honest caller counts as slow: the machine may have been
// busy with something else.
const tries = 6

// run runs one row.
func (r *row) run(t *testing.T) {
	picked(t, r.name)
	for try := 1; !r.once(t, try == tries); try++ {
		t.Logf("the honest caller was slow; try %d of %d", try, tries)
	}
}

// once runs the row, and reports false if the honest caller was slow and this is not the last try.
func (r *row) once(t *testing.T, last bool) bool {
	sb := harness.Sandbox(t, frames, r.options)
	args := append(harness.Before(sb), "--debug-listen=127.0.0.1:0", "--ledger=memory", "--drain-notice=0s", "--drain-time=1s", "--documents")
	args = append(args, r.flags...)
	if r.prepare != nil {
		args = append(args, r.prepare(t, sb)...)
	}
	started, err := harness.Start(program, args...)
	if err != nil {
		t.Fatal(err)
	}
	started.Stopped(t)
	s := &server{started, t, sb}
	call := r.honest(s)
	for _, f := range r.faults {
		sb.Inject(f)
	}
	for range 5 { // connections, sessions and caches are warm
		if err := call(t.Context()); err != nil {
			t.Fatalf("the honest call fails without an attack: %v", err)
		}
	}
	before := measure(t.Context(), quietTime, call)

	attack, end := context.WithCancel(t.Context())
	var attacker sync.WaitGroup
	attacker.Go(func() { r.attack(attack, s) })
	measure(t.Context(), rampUp, call)
	lasts := r.during
	if lasts == 0 {
		lasts = attackTime
	}
	during := measure(t.Context(), lasts-rampUp, call)
	end()
	attacker.Wait()
	peak := s.Memory(t, "VmHWM") / mib
	if r.check != nil {
		r.check(s)
	}
	return r.judge(t, before, during, peak, last)
}

// judge adds the row to the table, and fails the test if the honest caller suffered. It does neither, and returns false, if the honest
// caller was only slow and this is not the last try.
func (r *row) judge(t *testing.T, before, during sample, peak int64, last bool) bool {
	bound := r.peak
	if bound == 0 {
		bound = defaultPeak
	}
	var faults []string
	if n := len(during.errs); n > 0 {
		faults = append(faults, fmt.Sprintf("%d honest calls failed", n))
		t.Errorf("%d of %d honest calls failed, the first with %v", n, n+len(during.times), during.errs[0])
	}
	limit := max(5*before.p99(), fastEnough)
	slow := during.p99() > limit
	if r.busy {
		slow = during.rate() < before.rate()*fairPart
	}
	switch {
	case len(during.times) == 0:
		faults = append(faults, "no honest call")
		t.Error("no honest call ended during the attack")
	case r.unjudged != "":
		defer func() { tableRow("  not judged: " + r.unjudged) }()
	case slow && !last && len(during.errs) == 0:
		return false
	case slow:
		faults = append(faults, "slow")
		t.Errorf("the honest caller's p99 was %v, of at most %v; it had %.0f calls/s of %.0f", during.p99(), limit, during.rate(), before.rate())
	}
	if peak > bound {
		faults = append(faults, "memory")
		t.Errorf("%d MiB were resident, want at most %d", peak, bound)
	}
	verdict := "ok"
	if t.Failed() {
		verdict = "FAILED " + strings.Join(faults, ", ")
	}
	if r.busy {
		verdict += fmt.Sprintf(", %.0f calls/s before, %.0f during", before.rate(), during.rate())
	}
	tableRow(r.name, len(during.times), before, during, peak, bound, verdict)
	return true
}

// A sample is what the honest caller measured.
type sample struct {
	times []time.Duration // of calls that succeeded, sorted
	errs  []error
	lasts time.Duration // the calls together
}

// measure repeats call for some time, one after the other.
func measure(ctx context.Context, lasts time.Duration, call func(ctx context.Context) error) (s sample) {
	begun := time.Now()
	for time.Since(begun) < lasts {
		each := time.Now()
		bounded, cancel := context.WithTimeout(ctx, callLimit)
		err := call(bounded)
		cancel()
		if err != nil {
			s.errs = append(s.errs, err)
		} else {
			s.times = append(s.times, time.Since(each))
		}
		wait(ctx, pause)
	}
	slices.Sort(s.times)
	s.lasts = time.Since(begun)
	return s
}

// rate returns the number of calls per second that succeeded.
func (s sample) rate() float64 { return float64(len(s.times)) / s.lasts.Seconds() }

func (s sample) p99() time.Duration {
	if len(s.times) == 0 {
		return 0
	}
	return s.times[len(s.times)*99/100]
}

func (s sample) String() string {
	if len(s.times) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.1f, %.1f ms", s.times[len(s.times)/2].Seconds()*1e3, s.p99().Seconds()*1e3)
}

// wait waits, or until ctx ends.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// atRate begins a call that many times a second until ctx ends, each on a goroutine of its own but no more than 4,000 at once, and
// waits for them.
func atRate(ctx context.Context, perSecond int, call func(ctx context.Context, i int)) {
	var running sync.WaitGroup
	defer running.Wait()
	places := make(chan struct{}, 4000)
	begun := time.Now()
	for i := 0; ctx.Err() == nil; i++ {
		wait(ctx, time.Until(begun.Add(time.Duration(i)*time.Second/time.Duration(perSecond))))
		select {
		case places <- struct{}{}:
			running.Go(func() {
				call(ctx, i)
				<-places
			})
		case <-ctx.Done():
		}
	}
}

// atOnce repeats a call on n goroutines until ctx ends.
func atOnce(ctx context.Context, n int, call func(ctx context.Context, i int)) {
	var running sync.WaitGroup
	defer running.Wait()
	for i := range n {
		running.Go(func() {
			for ctx.Err() == nil {
				call(ctx, i)
			}
		})
	}
}

// connect returns a client of the server over a connection of its own, without an identity.
func (s *server) connect() *lpfileshare.Client { return s.Dial(s.t) }
