package faults

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"path"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats-server/v2/server"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/faults/audit"
	"github.com/lpfileshare/lpfileshare/test/harness"
)

// The drain of the test: what needs longer than drainTime is sent away.
const (
	drainTime   = 6 * time.Second
	drainNotice = time.Second
)

// A stage is what an upload is at when the drain begins.
type stage struct {
	name string
	send progress
	// onFirst means that the draining server must finish the upload, onOther that it cannot.
	onFirst, onOther bool
}

// A progress is what the caller sends, and when.
type progress int

const (
	everything   progress = iota // before the drain
	halfThenRest                 // half before the drain, the rest once it has begun
	halfOnly                     // half before the drain, and no more
	nothingYet                   // the first message once the drain has begun
)

// Each stage has its share of the uploads. The drain begins when all uploads have reached theirs.
var stages = []stage{
	{name: "storing or publishing", send: everything, onFirst: true}, // the store and LivePerson answer slowly
	{name: "receiving, nearly done", send: halfThenRest, onFirst: true},
	{name: "receiving, far from done", send: halfOnly, onOther: true},
	{name: "no first message yet", send: nothingYet, onOther: true},
}

// A replicated is two servers that share a ledger, before one sandbox.
type replicated struct {
	t             *testing.T
	sb            *sandbox.Sandbox
	first, second *harness.Server
	draining      chan struct{} // closed when the first server drains
	mu            sync.Mutex
	record        audit.Record
}

func startReplicated(t *testing.T) *replicated {
	t.Helper()
	r := &replicated{t: t, draining: make(chan struct{})}
	r.sb = harness.Sandbox(t, frames, sandbox.Options{})
	nats, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	nats.Start()
	t.Cleanup(func() {
		nats.Shutdown()
		nats.WaitForShutdown()
	})
	if !nats.ReadyForConnections(time.Minute) {
		t.Fatal("the NATS server does not start")
	}
	for _, p := range []**harness.Server{&r.first, &r.second} {
		if *p, err = harness.Start(program, append(harness.Before(r.sb), "--ledger="+nats.ClientURL(), "--documents",
			"--lp-timeout=5s", "--settle="+settle.String(), "--heartbeat-interval="+heartbeat.String(),
			"--drain-time="+drainTime.String(), "--drain-notice="+drainNotice.String())...); err != nil {
			t.Fatal(err)
		}
		(*p).Stopped(t)
	}
	return r
}

// A caller is one consumer, with a way to either server.
type caller struct {
	owner, conversation string
	id                  lpfileshare.Identity
	first, second       *lpfileshare.Client
}

func (r *replicated) caller(ctx context.Context) caller {
	r.t.Helper()
	in, err := harness.SignUpAndTalk(ctx, r.first.Dial(r.t), account)
	if err != nil {
		r.t.Fatal(err)
	}
	return caller{id: in.Credential(), owner: in.ID, conversation: in.Conversation, first: in.Client, second: r.second.Dial(r.t).As(in.Credential())}
}

// sentAway checks that the drain ended a call: SERVER_DRAINING, with RetryInfo.
func sentAway(err error) error {
	after, ok := lpfileshare.RetryDelay(err)
	if err == nil || lpfileshare.ErrorReason(err) != pb.ErrorReason_ERROR_REASON_SERVER_DRAINING || !ok || after <= 0 {
		return fmt.Errorf("want SERVER_DRAINING with RetryInfo, not %w", err)
	}
	return nil
}

// upload sends a file to the first server as the stage says. If that is draining, upload sends it to the second under the same
// request id. onFirst reports which of them published it.
// reached is called when the upload has reached its stage.
func (r *replicated) upload(ctx context.Context, c caller, s stage, name string, data []byte, reached func()) (onFirst bool, err error) {
	sum := sha256.Sum256(data)
	entry := audit.Upload{
		Case: name, RequestID: uuid.NewString(), Mark: name, Owner: c.owner, Conversation: path.Base(c.conversation),
		SHA256: hex.EncodeToString(sum[:]), Size: int64(len(data)),
	}
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.record.Uploads = append(r.record.Uploads, entry)
	}()
	o := lpfileshare.UploadOptions{
		Conversation: c.conversation, DisplayName: "a.txt", FileType: pb.FileType_FILE_TYPE_TXT, Caption: entry.Mark, RequestID: entry.RequestID,
	}
	resp, err := r.attempt(ctx, c.first, o, data, s, reached)
	if err != nil {
		if err := sentAway(err); err != nil {
			entry.Outcome, entry.Reason = audit.Unknown, err.Error()
			return false, fmt.Errorf("%s: %w", name, err)
		}
		if resp, err = c.second.Upload(ctx, o, bytes.NewReader(data)); err != nil {
			entry.Outcome, entry.Reason = audit.Unknown, err.Error()
			return false, fmt.Errorf("%s, on the other server: %w", name, err)
		}
	} else {
		onFirst = true
	}
	entry.Outcome = audit.Acknowledged
	entry.StoragePath, entry.Sequence = resp.GetFile().GetStoragePath(), resp.GetFile().GetMessageSequence()
	return onFirst, nil
}

// attempt is one try with the generated client, because a caller of clients/go cannot stop in the middle.
func (r *replicated) attempt(ctx context.Context, c *lpfileshare.Client, o lpfileshare.UploadOptions, data []byte, s stage, reached func()) (*pb.UploadResponse, error) {
	stream, err := c.Raw().Files.Upload(ctx)
	if err != nil {
		return nil, err
	}
	if s.send == nothingYet {
		reached()
		<-r.draining
	}
	_ = stream.Send(&pb.UploadRequest{FirstMessage: &pb.UploadRequest_Spec{Spec: &pb.UploadSpec{
		Conversation: o.Conversation, DisplayName: o.DisplayName, FileType: o.FileType, Caption: o.Caption, RequestId: o.RequestID,
		SizeBytes: new(int64(len(data))),
	}}})
	// A failed Send is not the result. CloseAndRecv returns it.
	send := func(from, to int) {
		_ = stream.Send(&pb.UploadRequest{Chunk: &pb.DataChunk{Offset: int64(from), Data: data[from:to]}})
	}
	half := len(data) / 2
	send(0, half)
	if s.send == halfThenRest || s.send == halfOnly {
		_, _ = stream.Header() // the server has accepted the upload, or ended it
		reached()
		<-r.draining
	}
	if s.send == halfOnly {
		var resp pb.UploadResponse
		return &resp, stream.RecvMsg(&resp)
	}
	send(half, len(data))
	_ = stream.Send(&pb.UploadRequest{Finish: &pb.UploadFinish{Checksums: &pb.Checksums{Crc32C: new(crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))}}})
	reached()
	return stream.CloseAndRecv()
}

// download reads a file from the first server, and on from the second where that sends it away.
func (r *replicated) download(ctx context.Context, c caller, file *pb.File, sum string) (onFirst bool, err error) {
	var got bytes.Buffer
	o := lpfileshare.DownloadOptions{Name: file.GetName(), RetryFor: -1, ChunkBytes: 4 << 10}
	onFirst = true
	if _, err := c.first.Download(ctx, o, &got); err != nil {
		if err := sentAway(err); err != nil {
			return false, fmt.Errorf("a download: %w", err)
		}
		onFirst = false
		r.sb.ClearFaults() // the drain is over: nothing needs to be slow any more
		o.Offset, o.RetryFor = int64(got.Len()), 0
		if _, err := c.second.Download(ctx, o, &got); err != nil {
			return false, fmt.Errorf("a download, on the other server: %w", err)
		}
	}
	have := sha256.Sum256(got.Bytes())
	r.mu.Lock()
	defer r.mu.Unlock()
	r.record.Downloads = append(r.record.Downloads, audit.Download{Case: file.GetName(), Path: file.GetStoragePath(), SHA256: hex.EncodeToString(have[:])})
	if hex.EncodeToString(have[:]) != sum {
		return false, fmt.Errorf("%d other bytes were downloaded", got.Len())
	}
	return onFirst, nil
}

// watch watches at the first server until that sends it away, and on from there at the second, until ctx ends.
func (r *replicated) watch(ctx context.Context, c caller, begun func()) error {
	entry := audit.Watch{Case: "watch of " + c.conversation, Conversation: path.Base(c.conversation)}
	o := lpfileshare.WatchOptions{Parent: c.conversation, RetryFor: -1, OnConnection: func(err error) {
		if err == nil {
			begun()
		}
	}}
	see := func(w *lpfileshare.FileWatch) error {
		for f, err := range w.All() {
			if err != nil {
				return err
			}
			entry.Marks = append(entry.Marks, f.GetCaption())
		}
		return nil
	}
	first := c.first.Watch(ctx, o)
	if err := sentAway(see(first)); err != nil {
		return fmt.Errorf("a watch: %w", err)
	}
	o.Token, o.RetryFor = first.Token(), 0
	if err := see(c.second.Watch(ctx, o)); !errors.Is(err, context.Canceled) {
		return fmt.Errorf("a watch, on the other server: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.record.Watches = append(r.record.Watches, entry)
	return nil
}

// SIGTERM goes to one of two servers in the middle of 64 uploads, 8 downloads and 4 watches. What can end in time ends there; everything else gets SERVER_DRAINING, and ends on the other server under the same request id.
func TestDrain_UnderFullLoad(t *testing.T) {
	const uploads, downloads, watches = 64, 8, 4
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	r := startReplicated(t)
	callers := make([]caller, 8)
	for i := range callers {
		callers[i] = r.caller(ctx)
	}

	// Watches first: they are to see all there is.
	watching, stopWatching := context.WithCancel(ctx)
	defer stopWatching()
	var watchers, begun sync.WaitGroup
	failed := make(chan error, uploads+downloads+watches)
	for i := range watches {
		begun.Add(1)
		watchers.Go(func() {
			if err := r.watch(watching, callers[i], sync.OnceFunc(begun.Done)); err != nil {
				failed <- err
			}
		})
	}
	begun.Wait()

	// Files to download: half of them short enough to end in time.
	r.sb.Inject(sandbox.Fault{On: "ms.PublishEvent", AnswerDelay: 500 * time.Millisecond})
	files, sums := make([]*pb.File, downloads), make([]string, downloads)
	var before sync.WaitGroup
	for i := range downloads {
		before.Go(func() {
			data := harness.Text(uint64(1000+i), []int{60_000, 600_000}[i%2])
			sum := sha256.Sum256(data)
			sums[i] = hex.EncodeToString(sum[:])
			c := callers[i%len(callers)]
			if _, err := r.upload(ctx, c, stage{}, fmt.Sprintf("to download %d", i), data, func() {}); err != nil {
				failed <- err
			}
		})
	}
	before.Wait()
	for i := range files {
		c := callers[i%len(callers)]
		listed, err := c.first.Files(ctx, lpfileshare.FilesOptions{Parent: c.conversation}).Collect()
		if err != nil || len(listed) == 0 {
			t.Fatalf("file %d: %v", i, err)
		}
		files[i] = listed[len(listed)-1]
	}
	r.sb.Inject(sandbox.Fault{On: "store:GET", BytesPerSecond: 20_000})
	r.sb.Inject(sandbox.Fault{On: "store:PUT", AnswerDelay: 500 * time.Millisecond})

	var load sync.WaitGroup
	var endedOn [2]atomic.Int64 // uploads, by server
	var downloadedOn [2]atomic.Int64
	count := func(on *[2]atomic.Int64, first bool) {
		if first {
			on[0].Add(1)
		} else {
			on[1].Add(1)
		}
	}
	var ready sync.WaitGroup
	ready.Add(uploads)
	for i := range uploads {
		load.Go(func() {
			reached := sync.OnceFunc(ready.Done)
			defer reached()
			s := stages[i%len(stages)]
			c := callers[i/len(stages)%len(callers)]
			first, err := r.upload(ctx, c, s, fmt.Sprintf("%s %d", s.name, i), harness.Text(uint64(i), 30_000), reached)
			if err == nil && (s.onFirst && !first || s.onOther && first) {
				err = fmt.Errorf("%s: ended on the first server: %t", s.name, first)
			}
			if err != nil {
				failed <- err
				return
			}
			count(&endedOn, first)
		})
	}
	for i, f := range files {
		load.Go(func() {
			first, err := r.download(ctx, callers[i%len(callers)], f, sums[i])
			if err != nil {
				failed <- err
				return
			}
			count(&downloadedOn, first)
		})
	}
	ready.Wait()

	signalled := time.Now()
	r.first.Signal(syscall.SIGTERM)
	if err := r.first.Logs.Wait(ctx, 1, "msg=draining"); err != nil {
		t.Fatal(err)
	}
	close(r.draining)
	t.Run("new calls", func(t *testing.T) { newCalls(t, r, callers[0]) })
	load.Wait()
	stopWatching()
	watchers.Wait()
	if err := r.first.Stop(); err != nil {
		t.Errorf("the first server ended with %v\n%s", err, r.first.Logs.Tail())
	}
	took := time.Since(signalled)

	close(failed)
	for err := range failed {
		t.Error(err)
	}
	e, err := audit.Fetch(ctx, r.sb.URL())
	if err != nil {
		t.Fatal(err)
	}
	report := audit.Check(r.record, e)
	for _, f := range report.Findings {
		t.Error(f)
	}
	fmt.Fprintf(&summary, "drain: %d uploads: %d ended where they began, %d got SERVER_DRAINING and ended on the other server; "+
		"%d and %d downloads; %d watches went on; acknowledged %d, lost %d, doubled %d, misdelivered %d, orphans %v; all within %.1f s of SIGTERM\n",
		uploads, endedOn[0].Load(), endedOn[1].Load(), downloadedOn[0].Load(), downloadedOn[1].Load(), report.Watches,
		report.Acknowledged, report.Count(audit.Lost), report.Count(audit.Doubled), report.Count(audit.Misdelivered), report.Orphans, took.Seconds())
	if report.Acknowledged != uploads+downloads || report.Watches != watches || len(r.record.Downloads) != downloads {
		t.Errorf("%d uploads are acknowledged, %d downloads and %d watches were compared", report.Acknowledged, len(r.record.Downloads), report.Watches)
	}
	if endedOn[0].Load() == 0 || endedOn[1].Load() == 0 || downloadedOn[0].Load() == 0 || downloadedOn[1].Load() == 0 {
		t.Error("the load was not mixed")
	}
}

// newCalls makes calls to a draining server over a new connection. The health service and the calls report the drain.
func newCalls(t *testing.T, r *replicated, c caller) {
	fresh, err := lpfileshare.Dial(r.first.Addr, lpfileshare.WithDialOptions(grpc.WithDisableHealthCheck()))
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var health grpc_health_v1.HealthCheckResponse_ServingStatus
	for health != grpc_health_v1.HealthCheckResponse_NOT_SERVING && ctx.Err() == nil {
		if health, err = fresh.Health(ctx, ""); err != nil {
			t.Fatalf("the health service does not answer: %v", err)
		}
	}
	stream, err := fresh.As(c.id).Raw().Files.Upload(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_ = stream.Send(&pb.UploadRequest{FirstMessage: &pb.UploadRequest_Spec{Spec: &pb.UploadSpec{
		Conversation: c.conversation, FileType: pb.FileType_FILE_TYPE_TXT, SizeBytes: new(int64(1)),
	}}})
	if _, err := stream.CloseAndRecv(); err == nil {
		t.Error("a new upload was accepted")
	} else if err := sentAway(err); err != nil {
		t.Errorf("a new upload over a new connection: %v", err)
	}
}
