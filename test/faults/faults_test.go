// Package faults breaks the server's connections in every state and in every way. Each server is a process. An auditor compares the
// results that callers got with what LivePerson and the store have.
//
// A fault strikes once. A caller that repeats under one request id must therefore succeed in the end, unless the fault was a final
// error, or damaged bytes on a leg that only TLS protects. A damaged request may be rejected, and a damaged response misread.
// Neither may lose a file, publish it twice, or publish it after a rejection.
//
// The table of table_test.go is states by kinds of faults. Each cell has cases of Upload, Download or WatchFiles; UploadSmallFile and
// PublishUpload have a column of their own, over all kinds. The table is run over each messenger (messenger_test.go). The Connector
// API cannot be asked whether a message exists (docs/adr/0024-error-answers.md), so a message that was never published may stay LP_PUBLISH_UNCONFIRMED. A webhook
// reports a message that was published, so that one must be acknowledged.
//
// LPFILESHARE_FAULTS=all runs every case, otherwise a sample. LPFILESHARE_FAULTS_SEED shifts the byte positions,
// LPFILESHARE_FAULTS_ONLY selects cases whose names contain a text ("publish answer/RST"), and LPFILESHARE_FAULTS_LANES is the number
// of cases at a time.
package faults

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/faults/audit"
	"github.com/lpfileshare/lpfileshare/test/faults/proxy"
	"github.com/lpfileshare/lpfileshare/test/harness"
)

const (
	// fewest is how many cases a cell must have, and fewestInAll how many the table must.
	fewest      = 3
	fewestInAll = 1000
	// caseTimeout bounds one case.
	caseTimeout = 90 * time.Second
	// firstTry is the deadline that a caller sets itself, before it asks again what became of the upload.
	firstTry = 15 * time.Second
)

func messengers() []*messenger { return []*messenger{connector(), socket()} }

func TestFaultTable_EachCellHasCases(t *testing.T) {
	for _, m := range messengers() {
		type cell struct {
			row, column int
			deed        deed
		}
		count := map[cell]int{}
		names := map[string]bool{}
		for _, trial := range trials(m, 1) {
			count[cell{trial.row, trial.column, trial.deed}]++
			names[trial.name()] = true
		}
		total := 0
		for s, state := range statesOf(m) {
			deeds := []deed{state.deed}
			if state.deed == upload {
				deeds = append(deeds, smallUpload)
			}
			if state.publish != nil {
				deeds = append(deeds, publishUpload)
			}
			for k := range kinds {
				for _, d := range deeds {
					n := count[cell{s, k, d}]
					total += n
					if n < fewest {
						t.Errorf("%s: %s, %s: %d cases of %s", m.name, state.name, kinds[k], n, d)
					}
				}
			}
		}
		if total < fewestInAll || len(names) != total {
			t.Errorf("%s: %d cases, %d of them different", m.name, total, len(names))
		}
	}
}

// A result is what became of a trial.
type result struct {
	*trial
	succeeded bool
	took      time.Duration
	said      string // the last error
	err       error  // what did not hold
}

func TestFaultTable_LosesAndDoublesNothing(t *testing.T) {
	var matrix bytes.Buffer
	w := tabwriter.NewWriter(&matrix, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "messenger \\ call\t"+strings.Join(deedNames, "\t"))
	last := ""
	for _, m := range messengers() {
		t.Run(m.name, func(t *testing.T) {
			summary.WriteString(last)
			var results []result
			results, last = testOver(t, m)
			fmt.Fprint(w, m.name)
			for d := range deed(len(deedNames)) {
				all, good := 0, 0
				for _, r := range results {
					if r.deed == d {
						all++
						if r.err == nil {
							good++
						}
					}
				}
				fmt.Fprintf(w, "\t%d of %d hold", good, all)
			}
			fmt.Fprintln(w)
		})
	}
	w.Flush()
	summary.Write(matrix.Bytes())
	summary.WriteString(last)
}

// testOver runs the table over a messenger, prints it, and returns its last line.
func testOver(t *testing.T, m *messenger) ([]result, string) {
	whole := os.Getenv("LPFILESHARE_FAULTS") == "all"
	seed := uint64(setting("SEED", 1))
	todo, lanes := trials(m, seed), 32
	all := len(todo)
	if !whole {
		todo, lanes = sample(todo), 16
	}
	lanes = setting("LANES", lanes)
	// The slowest cases first, or the last lane works alone: a caller that gets no response waits for its own deadline.
	slices.SortStableFunc(todo, func(a, b *trial) int { return cmp.Compare(b.silent(), a.silent()) })
	if only := os.Getenv("LPFILESHARE_FAULTS_ONLY"); only != "" { // to look into some of them
		todo = slices.DeleteFunc(todo, func(t *trial) bool { return !strings.Contains(t.name(), only) })
		lanes = min(lanes, len(todo))
	}
	results, report := run(t, m, todo, lanes)
	if testing.Verbose() {
		for _, r := range results {
			t.Logf("%s: %.1f s %s", r.name(), r.took.Seconds(), r.said)
		}
	}

	printTable(m, results)
	printSlowest(results)
	printReport(report)
	cases, succeeded := len(results), 0
	by := make([]struct{ cases, acknowledged int }, len(deedNames))
	for _, r := range results {
		by[r.deed].cases++
		if r.succeeded {
			succeeded++
			by[r.deed].acknowledged++
		}
	}
	for _, d := range []deed{upload, smallUpload, publishUpload} {
		fmt.Fprintf(&summary, "%s, %s: %d cases, acknowledged %d, lost %d, doubled %d\n", m.name, d, by[d].cases, by[d].acknowledged,
			countOf(report, results, d, audit.Lost), countOf(report, results, d, audit.Doubled))
	}
	if !whole {
		fmt.Fprintf(&summary, "a sample: %d of the table's %d cases; make test-faults runs all\n", cases, all)
	}
	for _, f := range report.Findings {
		t.Error(f)
		for i := range results {
			if strings.HasPrefix(f.Case, results[i].name()) {
				results[i].err = errors.Join(results[i].err, errors.New(f.String()))
			}
		}
	}
	if cases != len(todo) {
		t.Errorf("%d of %d cases were run", cases, len(todo))
	}
	if whole && m.hooked && len(todo) == all && report.Late == 0 {
		t.Error("no webhook came behind LP_PUBLISH_UNCONFIRMED")
	}
	line := fmt.Sprintf("%d cases, acknowledged %d, lost %d, doubled %d\n", cases, succeeded, report.Count(audit.Lost), report.Count(audit.Doubled))
	if m.hooked {
		line = m.name + ": " + line
	}
	return results, line
}

// countOf is how many findings of one fault the cases of one deed have.
func countOf(report audit.Report, results []result, d deed, fault audit.Fault) (n int) {
	of := map[string]deed{}
	for _, r := range results {
		of[r.name()] = r.deed
	}
	for _, f := range report.Findings {
		if was, ok := of[f.Case]; ok && was == d && f.Fault == fault {
			n++
		}
	}
	return n
}

// setting is a number from the environment: LPFILESHARE_FAULTS_LANES and LPFILESHARE_FAULTS_SEED.
func setting(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv("LPFILESHARE_FAULTS_" + name)); err == nil && n > 0 {
		return n
	}
	return otherwise
}

// sample takes a case of every third cell, so that each state and each kind is among them, and of UploadSmallFile and PublishUpload
// one case of each state.
func sample(all []*trial) []*trial {
	return slices.DeleteFunc(all, func(t *trial) bool {
		if t.deed.repeats() {
			return t.column != t.row%len(kinds) || t.v != (t.row+2*t.column)%variants
		}
		return (t.row+t.column)%3 != 0 || t.v != (t.row+2*t.column)%variants
	})
}

// run runs the trials on so many lanes.
func run(t *testing.T, m *messenger, todo []*trial, lanes int) ([]result, audit.Report) {
	queue := make(chan *trial, len(todo))
	for _, trial := range todo {
		queue <- trial
	}
	close(queue)
	var mu sync.Mutex
	var results []result
	var report audit.Report
	var work sync.WaitGroup
	for range lanes {
		work.Go(func() {
			l, err := openLane(m)
			defer func() {
				if err := l.close(); err != nil {
					t.Error(err)
				}
			}()
			if err != nil {
				t.Error(err)
				return
			}
			for trial := range queue {
				r, err := l.run(t.Context(), trial)
				if err != nil {
					t.Errorf("%s: %v\n%s", trial.name(), err, l.server.Logs.Tail())
				}
				r.err = err
				mu.Lock()
				results = append(results, r)
				mu.Unlock()
			}
			found, err := l.audit(t.Context())
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			report.Add(found)
			mu.Unlock()
		})
	}
	work.Wait()
	return results, report
}

// run runs one trial. Its error says that the trial itself went wrong, or that a caller who must succeed did not; what the
// auditor has to say comes later.
func (l *lane) run(ctx context.Context, t *trial) (result, error) {
	begun := time.Now()
	ctx, cancel := context.WithTimeout(ctx, caseTimeout)
	defer cancel()
	l.server.Logs.Reset()
	r := result{trial: t}
	c, err := l.consumer(ctx)
	if err != nil {
		return r, err
	}
	if l.hooks != nil { // else a fault might strike the news of the conversation
		if err := t.over.settle(ctx, l); err != nil {
			return r, err
		}
	}
	if t.fresh {
		if err := t.over.reauthenticate(ctx, l); err != nil {
			return r, err
		}
	}
	through, err := lpfileshare.Dial(l.caller.Addr())
	if err != nil {
		return r, err
	}
	defer through.Close()

	l.spoiling.Store(t.spoilsFrames())
	defer l.spoiling.Store(false) // behind the last settle, so that nothing is left of what was spoiled
	var struck func() bool
	arm := func() {
		struck = t.arm(l)
		if t.answers != nil {
			l.sb.Inject(t.answers(t.v))
		}
		if t.unanswered {
			l.sb.Inject(sandbox.Fault{On: "ms.PublishEvent", DropAfter: true, Count: 1})
		}
	}
	caller := through.As(c.id)
	switch t.deed {
	case upload, smallUpload:
		arm()
		err = l.upload(ctx, t, c, caller, "")
	case publishUpload:
		if err := l.storeOnly(ctx, t, c); err != nil {
			return r, fmt.Errorf("the upload before it: %w", err)
		}
		arm()
		err = l.upload(ctx, t, c, caller, "")
	case download:
		err = l.download(ctx, t, c, caller, arm)
	case watch:
		err = l.watch(ctx, t, c, caller, arm)
	}
	if t.place.leg == hookLeg { // the caller may know before LivePerson has its answer
		if err := t.over.settle(ctx, l); err != nil {
			return r, err
		}
	}
	for _, p := range []*proxy.Proxy{l.lp, l.store, l.caller, l.hooks} {
		if p != nil {
			p.Disarm()
		}
	}
	l.sb.ClearFaults()
	r.succeeded, r.took = err == nil, time.Since(begun)
	if err != nil {
		r.said = err.Error()
	}
	if struck == nil || !struck() {
		return r, fmt.Errorf("the fault did not strike; the caller got: %v", err)
	}
	if err := t.over.settle(ctx, l); err != nil {
		return r, err
	}
	if t.sure && err != nil && !(t.open && unconfirmed(t.over, err)) {
		return r, fmt.Errorf("the caller must succeed, and got: %w", err)
	}
	return r, nil
}

// A sending is one file of a case, and how its caller sends it.
type sending struct {
	*trial
	conversation string
	requestID    string
	caption      string
	data         []byte
	sum          [sha256.Size]byte
}

func (t *trial) sending(c *consumer, which string) *sending {
	name := t.name() + which
	data := harness.Text(t.seed()<<8+uint64(len(which)), 18_000+1_111*t.v)
	return &sending{
		trial: t, conversation: c.conversation, requestID: uuid.NewSHA1(uuid.NameSpaceOID, []byte(name)).String(), caption: name,
		data: data, sum: sha256.Sum256(data),
	}
}

// send sends the file by the call that the trial is about, repeating it as a client library does.
func (s *sending) send(ctx context.Context, c *lpfileshare.Client) (*pb.File, error) {
	switch s.deed {
	case smallUpload:
		return harness.Retry(ctx, s.over.retryFor, func(ctx context.Context) (*pb.File, error) {
			resp, err := c.Raw().Files.UploadSmallFile(ctx, &pb.UploadSmallFileRequest{Data: s.data, Spec: &pb.UploadSpec{
				Conversation: s.conversation, DisplayName: "case.txt", FileType: pb.FileType_FILE_TYPE_TXT, Caption: s.caption, RequestId: s.requestID,
				Checksums: &pb.Checksums{Crc32C: new(crc32.Checksum(s.data, crc32.MakeTable(crc32.Castagnoli)))},
			}})
			return resp.GetResult().GetFile(), err
		})
	case publishUpload:
		return harness.Retry(ctx, s.over.retryFor, func(ctx context.Context) (*pb.File, error) {
			resp, err := c.Raw().Files.PublishUpload(ctx, &pb.PublishUploadRequest{Name: accountPath + "/uploads/" + s.requestID})
			return resp.GetFile(), err
		})
	default:
		return s.stream(ctx, c, pb.PublishMode_PUBLISH_MODE_PUBLISH)
	}
}

func (s *sending) stream(ctx context.Context, c *lpfileshare.Client, mode pb.PublishMode) (*pb.File, error) {
	resp, err := c.Upload(ctx, lpfileshare.UploadOptions{
		Conversation: s.conversation, DisplayName: "case.txt", FileType: pb.FileType_FILE_TYPE_TXT, Caption: s.caption,
		RequestID: s.requestID, ChunkBytes: 4 << 10, RetryFor: s.over.retryFor, PublishMode: mode,
	}, bytes.NewReader(s.data))
	return resp.GetFile(), err
}

// storeOnly uploads the file of a trial without publishing it, before the trial's fault is armed.
func (l *lane) storeOnly(ctx context.Context, t *trial, c *consumer) error {
	_, err := t.sending(c, "").stream(ctx, c.direct, pb.PublishMode_PUBLISH_MODE_STORE_ONLY)
	return err
}

// upload sends a file, and repeats it under its request id until the outcome is known.
func (l *lane) upload(ctx context.Context, t *trial, c *consumer, caller *lpfileshare.Client, which string) error {
	s := t.sending(c, which)
	entry := audit.Upload{
		Case: s.caption, RequestID: s.requestID, Mark: s.caption, Owner: c.owner,
		Conversation: path.Base(c.conversation), SHA256: hex.EncodeToString(s.sum[:]), Size: int64(len(s.data)), Spoiled: t.spoiled,
	}
	// A caller has a deadline: what spoils a frame's head may make its reader wait for the rest for ever.
	first, cancel := context.WithTimeout(ctx, firstTry)
	defer cancel()
	file, err := s.send(first, caller)
	for try := 1; err != nil && !harness.Definite(err) && try <= 3; try++ {
		if unconfirmed(t.over, err) {
			entry.Late = true
			if err := t.over.settle(ctx, l); err != nil { // a webhook may confirm it
				return err
			}
		}
		file, err = s.send(ctx, c.direct)
	}
	switch {
	case err == nil:
		entry.Outcome = audit.Acknowledged
		entry.StoragePath, entry.Sequence = file.GetStoragePath(), file.GetMessageSequence()
	case harness.Definite(err):
		entry.Outcome, entry.Reason = audit.Refused, lpfileshare.ReasonName(lpfileshare.ErrorReason(err))
	case unconfirmed(t.over, err):
		entry.Outcome, entry.Reason = audit.Unconfirmed, lpfileshare.ReasonName(lpfileshare.ErrorReason(err))
	default:
		entry.Outcome, entry.Reason = audit.Unknown, err.Error()
	}
	l.record.Uploads = append(l.record.Uploads, entry)
	return err
}

// unconfirmed reports whether an error is final unless a webhook arrives: the Connector API cannot be asked.
func unconfirmed(over *messenger, err error) bool {
	return over.hooked && lpfileshare.ErrorReason(err) == pb.ErrorReason_ERROR_REASON_LP_PUBLISH_UNCONFIRMED
}

func (l *lane) download(ctx context.Context, t *trial, c *consumer, caller *lpfileshare.Client, arm func()) error {
	if err := l.upload(ctx, t, c, c.direct, ""); err != nil {
		return fmt.Errorf("the upload before it: %w", err)
	}
	file := l.record.Uploads[len(l.record.Uploads)-1]
	arm()
	o := lpfileshare.DownloadOptions{Conversation: c.conversation, StoragePath: file.StoragePath, ChunkBytes: 4 << 10, RetryFor: 30 * time.Second}
	var got bytes.Buffer
	if _, err := caller.Download(ctx, o, &got); err != nil {
		return err
	}
	sum := sha256.Sum256(got.Bytes())
	l.record.Downloads = append(l.record.Downloads, audit.Download{Case: t.name(), Path: file.StoragePath, SHA256: hex.EncodeToString(sum[:])})
	return nil
}

// watch watches while two files are published, the first of which meets the fault.
func (l *lane) watch(ctx context.Context, t *trial, c *consumer, caller *lpfileshare.Client, arm func()) error {
	list := c.direct.Files(ctx, lpfileshare.FilesOptions{Parent: c.conversation})
	if _, err := list.Collect(); err != nil {
		return err
	}
	const files = 2
	watching, stop := context.WithCancel(ctx)
	defer stop()
	begun := make(chan struct{})
	begin := sync.OnceFunc(func() { close(begun) })
	came := make(chan string, 64)
	ended := make(chan error, 1)
	go func() { // ends with watching
		o := lpfileshare.WatchOptions{Parent: c.conversation, Token: list.WatchToken(), MaxSilence: 3 * heartbeat, OnConnection: func(err error) {
			if err == nil {
				begin()
			}
		}}
		for f, err := range caller.Watch(watching, o).All() {
			if err != nil {
				ended <- err
				return
			}
			came <- f.GetCaption()
		}
	}()
	select {
	case <-begun:
	case err := <-ended:
		return fmt.Errorf("before it began: %w", err)
	case <-ctx.Done():
		return fmt.Errorf("it does not begin: %w", ctx.Err())
	}
	arm()
	for _, which := range []string{" first", " second"} {
		if err := l.upload(ctx, t, c, c.direct, which); err != nil {
			return fmt.Errorf("the upload beside it: %w", err)
		}
	}
	entry := audit.Watch{Case: t.name(), Conversation: path.Base(c.conversation), Spoiled: t.spoiled}
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	missing := func() bool { return len(entry.Marks) < files }
	for missing() {
		select {
		case mark := <-came:
			entry.Marks = append(entry.Marks, mark)
			continue
		case err := <-ended:
			entry.Broken = true
			return l.watched(entry, fmt.Errorf("the watch ended: %w", err))
		case <-limit.C:
		}
		break
	}
	// Once more, and it would come now.
	select {
	case mark := <-came:
		entry.Marks = append(entry.Marks, mark)
	case <-time.After(100 * time.Millisecond):
	}
	stop()
	<-ended
	if missing() {
		return l.watched(entry, fmt.Errorf("%d of %d files came", len(entry.Marks), files))
	}
	return l.watched(entry, nil)
}

func (l *lane) watched(w audit.Watch, err error) error {
	l.record.Watches = append(l.record.Watches, w)
	return err
}

// printTable prints how many cases each cell had, and how many of them succeeded where that is not all.
func printTable(m *messenger, results []result) {
	type count struct{ all, good int }
	cells := map[[2]int]count{}
	for _, r := range results {
		at := [2]int{r.row, r.column}
		if r.deed.repeats() { // a column of its own, over all kinds
			at[1] = len(kinds) + int(r.deed-smallUpload)
		}
		n := cells[at]
		n.all++
		if r.succeeded {
			n.good++
		}
		cells[at] = n
	}
	w := tabwriter.NewWriter(&summary, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%s: state \\ fault\t%s\t%s\t%s\n", m.name, strings.Join(kinds, "\t"), smallUpload, publishUpload)
	for s, state := range statesOf(m) {
		fmt.Fprint(w, state.name)
		for k := range len(kinds) + 2 {
			switch n := cells[[2]int{s, k}]; {
			case n.all == 0:
				fmt.Fprint(w, "\t-")
			case n.good < n.all:
				fmt.Fprintf(w, "\t%d (%d ok)", n.all, n.good)
			default:
				fmt.Fprintf(w, "\t%d", n.all)
			}
		}
		fmt.Fprintln(w)
	}
	w.Flush()
}

func printSlowest(results []result) {
	slices.SortFunc(results, func(a, b result) int { return cmp.Compare(b.took, a.took) })
	for _, r := range results[:min(3, len(results))] {
		fmt.Fprintf(&summary, "slow: %s took %.1f s\n", r.name(), r.took.Seconds())
	}
}

func printReport(r audit.Report) {
	fmt.Fprintf(&summary, "audited: %d uploads (%d acknowledged, %d of them after LP_PUBLISH_UNCONFIRMED, %d refused, %d unconfirmed and not there), %d downloads, %d watches\n",
		r.Uploads, r.Acknowledged, r.Late, r.Refused, r.Unconfirmed, r.Downloads, r.Watches)
	fmt.Fprintf(&summary, "refused but published %d, other bytes %d, unsettled %d, unclaimed %d, misdelivered %d; altered on a leg without TLS %d\n",
		r.Count(audit.RefusedPublished), r.Count(audit.OtherBytes), r.Count(audit.Unsettled), r.Count(audit.Unclaimed),
		r.Count(audit.Misdelivered), r.Altered)
	orphans := 0
	for _, why := range slices.Sorted(maps.Keys(r.Orphans)) {
		orphans += r.Orphans[why]
		fmt.Fprintf(&summary, "orphans: %3d %s\n", r.Orphans[why], why)
	}
	fmt.Fprintf(&summary, "orphans: %3d in all\n", orphans)
}
