// Soak runs 64 uploads and downloads at a time for ten minutes, with random faults on every leg, and watches whether the server
// grows. It is bounded, stays on loopback, and ends with what the auditor says and with a verdict on flatness; see docs/soak.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/faults/audit"
	"github.com/lpfileshare/lpfileshare/test/faults/proxy"
	"github.com/lpfileshare/lpfileshare/test/harness"
	"github.com/lpfileshare/lpfileshare/test/process"
)

const (
	account     = "12345678"
	accountPath = "accounts/" + account
	// windUp is how long what is under way may take in the end.
	windUp = 3 * time.Minute
	// longest bounds the duration: the sandbox keeps every file.
	longest = 20 * time.Minute
)

func main() {
	duration := flag.Duration("duration", 10*time.Minute, "how long, 1m to 20m")
	workers := flag.Int("workers", 64, "uploads and downloads at a time")
	out := flag.String("out", ".", "folder for soak.svg and soak.csv")
	seed := flag.Uint64("seed", 1, "of files and faults")
	flag.Parse()
	if *duration < time.Minute || *duration > longest || *workers < 1 || *workers > 256 || flag.NArg() > 0 {
		fmt.Fprintln(os.Stderr, "soak: -duration is 1m to 20m, -workers 1 to 256")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, *duration, *workers, *out, *seed)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

// A rig is the server, its sandbox, and the proxies between them.
type rig struct {
	sb                    *sandbox.Sandbox
	socket, store, caller *proxy.Proxy
	server                *harness.Server
	dir                   string
}

func (h *rig) close() error {
	var err error
	if h.server != nil && !h.server.Over() {
		if err = h.server.Stop(); err != nil {
			err = fmt.Errorf("the server ended with %w\n%s", err, h.server.Logs.Tail())
		}
	}
	for _, p := range []*proxy.Proxy{h.caller, h.store, h.socket} {
		if p != nil {
			p.Close()
		}
	}
	if h.sb != nil {
		h.sb.Close()
	}
	os.RemoveAll(h.dir)
	return err
}

// build starts everything. The caller closes it, even after an error.
func build() (_ *rig, err error) {
	h := &rig{}
	if h.dir, err = os.MkdirTemp("", "lpfileshare-soak"); err != nil {
		return h, err
	}
	binary := filepath.Join(h.dir, "lpfileshare-server")
	if err := process.Build(binary, "github.com/lpfileshare/lpfileshare/cmd/server"); err != nil {
		return h, err
	}
	if h.sb, err = sandbox.Start(sandbox.Options{}); err != nil {
		return h, err
	}
	at := strings.TrimPrefix(h.sb.URL(), "http://")
	if h.socket, err = proxy.Listen(at, proxy.WebSocket); err != nil {
		return h, err
	}
	if h.store, err = proxy.Listen(at, proxy.HTTP); err != nil {
		return h, err
	}
	h.server, err = harness.Start(harness.Binary(binary), append(harness.Before(h.sb), "--debug-listen=127.0.0.1:0", "--data-dir="+filepath.Join(h.dir, "data"), "--log-level=warn",
		"--domain=asyncMessagingEnt="+h.socket.Addr(), "--domain=swift="+h.store.Addr(),
		"--documents", "--lp-timeout=3s", "--settle=1s", "--store-stall=3s", "--session-idle=30s", "--drain-time=5s")...)
	if err != nil {
		return h, err
	}
	h.caller, err = proxy.Listen(h.server.Addr, proxy.HTTP2)
	return h, err
}

func run(ctx context.Context, duration time.Duration, workers int, out string, seed uint64) (err error) {
	h, err := build()
	defer func() { err = errors.Join(err, h.close()) }()
	if err != nil {
		return err
	}
	// New work begins until the duration is over; what is under way then goes on.
	until, cancel := context.WithTimeout(ctx, duration)
	defer cancel()
	all, cancelAll := context.WithTimeout(ctx, duration+windUp)
	defer cancelAll()

	var work sync.WaitGroup
	m := &meter{}
	fleet := make([]*worker, workers)
	for n := range fleet {
		fleet[n] = newWorker(h, m, seed, n)
		work.Go(func() { fleet[n].run(until, all) })
	}
	var trouble sync.WaitGroup
	trouble.Go(func() { makeTrouble(until, h, m, seed) })
	samples, err := watch(until, h, m)
	trouble.Wait()
	work.Wait()
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return errors.New("interrupted; nothing was written")
	}

	var record audit.Record
	for _, w := range fleet {
		record.Uploads, record.Downloads = append(record.Uploads, w.record.Uploads...), append(record.Downloads, w.record.Downloads...)
		if w.err != nil {
			err = errors.Join(err, w.err)
		}
	}
	evidence, fetchErr := audit.Fetch(ctx, h.sb.URL())
	if err = errors.Join(err, fetchErr); err != nil {
		return err
	}
	report := audit.Check(record, evidence)
	if err := write(out, samples); err != nil {
		return err
	}
	fmt.Printf("%s at %d uploads and downloads at a time; %d faults struck in the sandbox, and %d on the wires\n",
		duration, workers, h.sb.FaultsStruck(), m.wires.Load())
	refused := map[string]int{}
	for _, u := range record.Uploads {
		if u.Outcome == audit.Refused {
			refused[u.Reason]++
		}
	}
	for _, why := range slices.Sorted(maps.Keys(refused)) {
		fmt.Printf("refused: %d %s\n", refused[why], why)
	}
	return errors.Join(judge(samples), show(report))
}

// show prints the auditor's report. It is an error if there are findings.
func show(r audit.Report) error {
	orphans := 0
	for _, why := range slices.Sorted(maps.Keys(r.Orphans)) {
		orphans += r.Orphans[why]
		fmt.Printf("orphans: %d %s\n", r.Orphans[why], why)
	}
	fmt.Printf("audited: %d uploads, acknowledged %d, refused %d; %d downloads; orphans %d; unsettled %d, other bytes %d, unclaimed %d\n",
		r.Uploads, r.Acknowledged, r.Refused, r.Downloads, orphans, r.Count(audit.Unsettled), r.Count(audit.OtherBytes), r.Count(audit.Unclaimed))
	fmt.Printf("lost %d, doubled %d, refused but published %d\n", r.Count(audit.Lost), r.Count(audit.Doubled), r.Count(audit.RefusedPublished))
	for n, f := range r.Findings {
		if n == 20 {
			fmt.Printf("and %d more\n", len(r.Findings)-n)
			break
		}
		fmt.Println(f)
	}
	if len(r.Findings) > 0 {
		return fmt.Errorf("the auditor found %d faults", len(r.Findings))
	}
	if r.Acknowledged == 0 || r.Downloads == 0 {
		return errors.New("nothing was done")
	}
	return nil
}

// get reads a page of the server's debug port.
func get(ctx context.Context, url string) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(r)
	if err == nil && resp.StatusCode != http.StatusOK {
		resp.Body.Close()
		return nil, fmt.Errorf("the debug port answered %s", resp.Status)
	}
	return resp, err
}
