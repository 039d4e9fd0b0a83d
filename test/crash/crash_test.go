// Package crash kills and stops servers in every state of the ledger, while the client helper repeats its upload at another one
// under the same request id. An auditor compares the results that callers got with what LivePerson and the store have.
//
// Three servers share a ledger on three NATS nodes; all six are processes. An upload is held at a place by a proxy: the NATS
// answer to the write of a state, LivePerson's or the store's answer, the caller's bytes, the answer to the caller. GetUpload on
// another server says that the ledger has the state; then the server that has the upload is struck.
//
// LPFILESHARE_CRASH_REPETITIONS says how often each cell of the table is run (4), LPFILESHARE_CRASH_LANES how many sets of
// processes there are (3), LPFILESHARE_CRASH_ONLY picks the cases whose names hold a text ("PUBLISHED, answer withheld/kill -9/0").
package crash

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/test/faults/audit"
	"github.com/lpfileshare/lpfileshare/test/harness"
	"github.com/lpfileshare/lpfileshare/test/process"
	"github.com/lpfileshare/lpfileshare/test/wire"
)

const (
	// caseTimeout bounds one case.
	caseTimeout = 2 * time.Minute
	// soon is how long after an upload is held the state must be seen and the strike begin: the server gives up waiting for NATS
	// after two seconds, and for LivePerson after three.
	soon = 1500 * time.Millisecond
	// tries is how often a case may come too late, on a machine that is busy.
	tries = 4
)

// program is the server, and natsBinary the file of the NATS server. Neither has the race detector.
var (
	program    harness.Program
	natsBinary string
)

// summary is printed after the tests.
var summary bytes.Buffer

// frames are those of all sandboxes here.
var frames = wire.NewSuite("crash")

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	dir, err := os.MkdirTemp("", "lpfileshare-crash")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	natsBinary = filepath.Join(dir, "nats-server")
	if err := process.Build(natsBinary, "github.com/nats-io/nats-server/v2"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := harness.Main(m, frames, &program)
	fmt.Print(summary.String()) // after what the testing package prints, so that its last line is the last one
	return code
}

// A result is what became of a trial.
type result struct {
	trial
	acknowledged bool
	took         time.Duration
	late         int // how often it had to be begun anew
}

func TestCrashes_LoseAndDoubleNothing(t *testing.T) {
	todo := trials(setting("REPETITIONS", 4), os.Getenv("LPFILESHARE_CRASH_ONLY"))
	results, report := run(t, todo, min(setting("LANES", 3), len(todo)))
	printTable(results)
	printReport(report)
	acknowledged := 0
	for _, r := range results {
		if r.acknowledged {
			acknowledged++
		}
	}
	var small int
	for _, r := range results {
		if r.small() {
			small++
		}
	}
	fmt.Fprintf(&summary, "%d of the cases upload by UploadSmallFile\n", small)
	if small == 0 && len(todo) > len(states)*len(strikes) {
		t.Error("no case uploads by UploadSmallFile")
	}
	fmt.Fprintf(&summary, "%d cases, acknowledged %d, lost %d, doubled %d, refused but published %d\n", len(results), acknowledged,
		report.Count(audit.Lost), report.Count(audit.Doubled), report.Count(audit.RefusedPublished))
	for _, f := range report.Findings {
		t.Error(f)
	}
	if len(results) != len(todo) || len(todo) == 0 || acknowledged != len(todo) {
		t.Errorf("%d of %d cases were run, and %d uploads acknowledged", len(results), len(todo), acknowledged)
	}
}

// setting is a number from the environment.
func setting(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv("LPFILESHARE_CRASH_" + name)); err == nil && n > 0 {
		return n
	}
	return otherwise
}

// run runs the trials on so many lanes.
func run(t *testing.T, todo []trial, lanes int) ([]result, audit.Report) {
	queue := make(chan trial, len(todo))
	for _, trial := range todo {
		queue <- trial
	}
	close(queue)
	var mu sync.Mutex
	var results []result
	var report audit.Report
	var work sync.WaitGroup
	for n := range lanes {
		dir := filepath.Join(t.TempDir(), fmt.Sprintf("lane-%d", n))
		work.Go(func() {
			l, err := openLane(dir)
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
					t.Errorf("%s: %v", trial.name(), err)
				}
				if testing.Verbose() {
					t.Logf("%s: %.1f s, too late %d times", trial.name(), r.took.Seconds(), r.late)
				}
				mu.Lock()
				results = append(results, r)
				mu.Unlock()
				if err := l.repair(t.Context()); err != nil {
					t.Error(err)
					return
				}
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

// repair starts what was killed, and waits until everything is ready.
func (l *lane) repair(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, caseTimeout)
	defer cancel()
	for _, n := range l.nodes {
		if n.process == nil {
			if err := n.start(); err != nil {
				return err
			}
		}
	}
	for _, s := range l.servers {
		for _, p := range s.proxies() {
			p.Disarm()
		}
		if s.process.Over() {
			if err := s.start(); err != nil {
				return err
			}
		}
	}
	return l.whole(ctx)
}

// errLate is why a case must be begun anew.
var errLate = errors.New("the state was left before the strike")

// run runs one trial.
func (l *lane) run(ctx context.Context, t trial) (result, error) {
	r := result{trial: t}
	begun := time.Now()
	for {
		u, err := l.hold(ctx, t, r.late)
		if err == nil {
			err = strikes[t.column].do(u.ctx, u)
		}
		if u != nil {
			r.acknowledged = u.end(err)
		}
		r.took = time.Since(begun)
		if !errors.Is(err, errLate) || r.late == tries-1 {
			return r, err
		}
		r.late++
		if err := l.repair(ctx); err != nil {
			return r, err
		}
	}
}

// A held is an upload that is held at its place.
type held struct {
	trial
	lane   *lane
	ctx    context.Context
	cancel context.CancelFunc
	hold   *hold
	at     int // the server
	caller harness.Consumer
	entry  audit.Upload
	data   []byte
	files  []*pb.File // results that callers got
	answer chan outcome
	errs   []string
}

type outcome struct {
	file *pb.File
	err  error
}

func (u *held) server() *server { return u.lane.servers[u.at] }

// hold begins an upload, and returns when it is held and another server has said that the ledger has the state. The caller ends it.
func (l *lane) hold(ctx context.Context, t trial, again int) (*held, error) {
	u := &held{trial: t, lane: l, hold: newHold(), answer: make(chan outcome, 1)}
	u.ctx, u.cancel = context.WithTimeout(ctx, caseTimeout)
	name := fmt.Sprintf("%s/%d", t.name(), again)
	u.data = harness.Text(uint64(((t.row*len(strikes)+t.column)<<8+t.v)<<8+again+1), 30_000+1_111*t.v)
	sum := sha256.Sum256(u.data)
	u.entry = audit.Upload{
		Case: name, RequestID: uuid.NewSHA1(uuid.NameSpaceOID, []byte(name)).String(), Mark: name,
		SHA256: hex.EncodeToString(sum[:]), Size: int64(len(u.data)),
	}
	var err error
	if u.caller, err = l.consumer(u.ctx); err != nil {
		return u, err
	}
	u.entry.Owner, u.entry.Conversation = u.caller.ID, path.Base(u.caller.Conversation)
	for n := range l.servers { // each opens its session now, and says later at once what the ledger has
		if _, err := u.look(n); lpfileshare.ErrorReason(err) != pb.ErrorReason_ERROR_REASON_UPLOAD_NOT_FOUND {
			return u, fmt.Errorf("server %d knows of the upload beforehand: %w", n, err)
		}
	}
	st := &states[t.row]
	var targets []string
	for n, s := range l.servers {
		s.process.Logs.Reset()
		st.place(s, n, u.hold)
		targets = append(targets, s.caller.Addr())
	}
	go func() {
		file, err := u.upload(targets)
		u.answer <- outcome{file, err}
	}()
	select {
	case u.at = <-u.hold.reached:
	case o := <-u.answer:
		u.answer <- o
		return u, fmt.Errorf("the upload was never held: %w", o.err)
	case <-u.ctx.Done():
		return u, fmt.Errorf("the upload does not come to its place: %w", u.ctx.Err())
	}
	since := time.Now()
	for {
		up, err := u.look((u.at + 1) % replicas)
		switch {
		case time.Since(since) > soon:
			return u, errLate
		case err != nil:
			return u, fmt.Errorf("the state: %w", err)
		case up.GetState() == st.ledger:
			if n := l.published(u.entry.Mark); n != st.messages {
				return u, fmt.Errorf("LivePerson has %d messages of it, want %d", n, st.messages)
			}
			return u, nil
		}
	}
}

// look asks a server what the ledger says.
func (u *held) look(n int) (*pb.Upload, error) {
	c, err := u.lane.direct(n)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	r, err := c.As(u.caller.Credential()).Raw().Files.GetUpload(u.ctx, &pb.GetUploadRequest{Name: accountPath + "/uploads/" + u.entry.RequestID})
	return r.GetUpload(), err
}

// send uploads the file under the trial's request id, repeating the call as a client library does.
func (u *held) send(ctx context.Context, c *lpfileshare.Client) (*pb.File, error) {
	const name, fileType, limit = "case.txt", pb.FileType_FILE_TYPE_TXT, time.Minute
	c = c.As(u.caller.Credential())
	if u.small() {
		return harness.Retry(ctx, limit, func(ctx context.Context) (*pb.File, error) {
			resp, err := c.Raw().Files.UploadSmallFile(ctx, &pb.UploadSmallFileRequest{Data: u.data, Spec: &pb.UploadSpec{
				Conversation: u.caller.Conversation, DisplayName: name, FileType: fileType, Caption: u.entry.Mark, RequestId: u.entry.RequestID,
			}})
			return resp.GetResult().GetFile(), err
		})
	}
	resp, err := c.Upload(ctx, lpfileshare.UploadOptions{
		Conversation: u.caller.Conversation, DisplayName: name, FileType: fileType, Caption: u.entry.Mark,
		RequestID: u.entry.RequestID, ChunkBytes: 4 << 10, RetryFor: limit,
	}, bytes.NewReader(u.data))
	return resp.GetFile(), err
}

// upload is the caller's one call, which goes on at another server by itself.
func (u *held) upload(targets []string) (*pb.File, error) {
	c, err := lpfileshare.Dial(strings.Join(targets, ","),
		lpfileshare.WithDialOptions(grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: time.Second})))
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return u.send(u.ctx, c)
}

// again sends the same request to the servers that were not struck.
func (u *held) again(ctx context.Context) error {
	var others []string
	for n, s := range u.lane.servers {
		if n != u.at {
			others = append(others, s.addr)
		}
	}
	c, err := lpfileshare.Dial(strings.Join(others, ","))
	if err != nil {
		return err
	}
	defer c.Close()
	return u.record(u.send(ctx, c))
}

// record keeps the result of a call.
func (u *held) record(f *pb.File, err error) error {
	if err != nil {
		u.errs = append(u.errs, err.Error())
		return err
	}
	u.files = append(u.files, f)
	return nil
}

// settle waits for the caller's answer. Where it leaves the outcome open, as that of a call that was taken over does, the caller
// asks again.
func (u *held) settle(ctx context.Context) error {
	var o outcome
	select {
	case o = <-u.answer:
	case <-ctx.Done():
		return fmt.Errorf("the caller gets no answer: %w", ctx.Err())
	}
	err := u.record(o.file, o.err)
	for range 3 {
		if err == nil || harness.Definite(err) {
			break
		}
		err = u.again(ctx)
	}
	return err
}

// end records the results for the auditor, and reports whether the upload was acknowledged. why is how it ended.
func (u *held) end(why error) bool {
	u.hold.release()
	if errors.Is(why, errLate) { // it is settled all the same: it must be neither lost nor doubled
		_ = u.settle(u.ctx)
	}
	u.cancel()
	for _, f := range u.files {
		if u.entry.StoragePath != "" && (u.entry.StoragePath != f.GetStoragePath() || u.entry.Sequence != f.GetMessageSequence()) {
			u.entry.Reason = "two callers got different files" // which the auditor then finds as lost
			u.entry.Sequence = -1
			continue
		}
		u.entry.StoragePath, u.entry.Sequence = f.GetStoragePath(), f.GetMessageSequence()
	}
	switch {
	case len(u.files) > 0:
		u.entry.Outcome = audit.Acknowledged
	case why != nil && harness.Definite(why):
		u.entry.Outcome, u.entry.Reason = audit.Refused, why.Error()
	default:
		u.entry.Outcome, u.entry.Reason = audit.Unknown, strings.Join(u.errs, "; ")
	}
	u.lane.record.Uploads = append(u.lane.record.Uploads, u.entry)
	return u.entry.Outcome == audit.Acknowledged
}

// printTable prints how many cases each cell had, how many of them were acknowledged, and the longest.
func printTable(results []result) {
	type cell struct {
		all, acknowledged int
		longest           time.Duration
	}
	cells := map[[2]int]cell{}
	for _, r := range results {
		at := [2]int{r.row, r.column}
		c := cells[at]
		c.all++
		c.longest = max(c.longest, r.took)
		if r.acknowledged {
			c.acknowledged++
		}
		cells[at] = c
	}
	w := tabwriter.NewWriter(&summary, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "acknowledged of cases, the longest")
	for _, s := range strikes {
		fmt.Fprint(w, "\t"+s.name)
	}
	fmt.Fprintln(w)
	for row := range states {
		fmt.Fprint(w, states[row].name)
		for column := range strikes {
			if c := cells[[2]int{row, column}]; c.all == 0 {
				fmt.Fprint(w, "\t-")
			} else {
				fmt.Fprintf(w, "\t%d of %d, %.1f s", c.acknowledged, c.all, c.longest.Seconds())
			}
		}
		fmt.Fprintln(w)
	}
	w.Flush()
	slices.SortFunc(results, func(a, b result) int { return cmp.Compare(b.late, a.late) })
	for _, r := range results {
		if r.late > 0 {
			fmt.Fprintf(&summary, "begun anew %d times, since the machine was busy: %s\n", r.late, r.name())
		}
	}
}

// printReport prints the auditor's.
func printReport(r audit.Report) {
	fmt.Fprintf(&summary, "audited: %d uploads (%d acknowledged, %d refused); other bytes %d, unsettled %d, unclaimed %d\n",
		r.Uploads, r.Acknowledged, r.Refused, r.Count(audit.OtherBytes), r.Count(audit.Unsettled), r.Count(audit.Unclaimed))
	orphans := 0
	for _, why := range slices.Sorted(maps.Keys(r.Orphans)) {
		orphans += r.Orphans[why]
		fmt.Fprintf(&summary, "orphans: %3d %s\n", r.Orphans[why], why)
	}
	fmt.Fprintf(&summary, "orphans: %3d in all\n", orphans)
}
