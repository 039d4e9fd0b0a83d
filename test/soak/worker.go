package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"path"
	"sync"
	"sync/atomic"
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
	// filesEach is how many files one consumer sends before the worker becomes another.
	filesEach = 20
	chunk     = 4 << 10
)

// A meter collects what the workers see between two samples.
type meter struct {
	wires    atomic.Int64 // faults on the proxies that have struck
	inFlight atomic.Int64

	mu                 sync.Mutex
	uploads, downloads []time.Duration
}

func (m *meter) done(upload bool, took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if upload {
		m.uploads = append(m.uploads, took)
	} else {
		m.downloads = append(m.downloads, took)
	}
}

// take gives what came since it was last asked.
func (m *meter) take() (uploads, downloads []time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	uploads, downloads = m.uploads, m.downloads
	m.uploads, m.downloads = nil, nil
	return uploads, downloads
}

// A worker uploads and downloads, one at a time, as one consumer after another.
type worker struct {
	h      *rig
	m      *meter
	n      int
	rng    *rand.Rand
	record audit.Record
	err    error

	client, direct *lpfileshare.Client // through the proxy with its faults, and past it
	id             lpfileshare.Identity
	owner          string
	conversation   string
	files          []audit.Upload // of this consumer
}

func newWorker(h *rig, m *meter, seed uint64, n int) *worker {
	return &worker{h: h, m: m, n: n, rng: rand.New(rand.NewPCG(seed, uint64(n)))}
}

// run works until no more is to be begun; all bounds what is under way then.
func (w *worker) run(until, all context.Context) {
	if w.client, w.err = lpfileshare.Dial(w.h.caller.Addr()); w.err != nil {
		return
	}
	defer w.client.Close()
	if w.direct, w.err = lpfileshare.Dial(w.h.server.Addr); w.err != nil {
		return
	}
	defer w.direct.Close()
	for until.Err() == nil {
		if w.id == (lpfileshare.Identity{}) || len(w.files) == filesEach {
			if err := w.become(all); err != nil {
				if until.Err() == nil { // the faults strike here too: the next try is another consumer
					select {
					case <-time.After(200 * time.Millisecond):
					case <-until.Done():
					}
				}
				continue
			}
		}
		w.m.inFlight.Add(1)
		if len(w.files) == 0 || w.rng.IntN(3) == 0 {
			w.upload(all)
		} else {
			w.download(all)
		}
		w.m.inFlight.Add(-1)
	}
}

// become signs up as another consumer.
func (w *worker) become(ctx context.Context) error {
	w.id, w.files = lpfileshare.Identity{}, nil
	in, err := w.direct.SignInConsumer(ctx, &pb.SignInConsumerRequest{
		Account: accountPath, Grant: &pb.SignInConsumerRequest_SignUp{SignUp: &pb.SignUp{}},
	})
	if err != nil {
		return err
	}
	id := lpfileshare.ConsumerToken(lpfileshare.StaticToken(in.Token))
	conv, err := w.direct.As(id).CreateConversation(ctx, &pb.CreateConversationRequest{Account: accountPath})
	if err != nil {
		return err
	}
	w.id, w.owner, w.conversation = id, in.ConsumerID, conv.GetName()
	return nil
}

// upload sends a file, at the pace of a phone, and repeats it under its request id until the outcome is known.
func (w *worker) upload(ctx context.Context) {
	seq := len(w.record.Uploads)
	name := fmt.Sprintf("worker %d, file %d", w.n, seq)
	data := text(w.rng.Uint64(), 5_000+w.rng.IntN(50_000))
	sum := sha256.Sum256(data)
	entry := audit.Upload{
		Case: name, RequestID: uuid.NewSHA1(uuid.NameSpaceOID, fmt.Appendf(nil, "%s %s", w.owner, name)).String(), Mark: name, Owner: w.owner,
		Conversation: path.Base(w.conversation), SHA256: hex.EncodeToString(sum[:]), Size: int64(len(data)),
	}
	o := lpfileshare.UploadOptions{
		Conversation: w.conversation, DisplayName: "soak.txt", FileType: pb.FileType_FILE_TYPE_TXT, Caption: entry.Mark,
		RequestID: entry.RequestID, ChunkBytes: chunk, RetryFor: time.Minute,
	}
	begun := time.Now()
	paced := &slowly{ReadSeeker: bytes.NewReader(data), each: time.Duration(20+w.rng.IntN(200)) * time.Millisecond}
	resp, err := w.client.As(w.id).Upload(ctx, o, paced)
	for range 3 {
		if err == nil || harness.Definite(err) {
			break
		}
		resp, err = w.direct.As(w.id).Upload(ctx, o, bytes.NewReader(data))
	}
	switch {
	case err == nil:
		entry.Outcome = audit.Acknowledged
		entry.StoragePath, entry.Sequence = resp.GetFile().GetStoragePath(), resp.GetFile().GetMessageSequence()
		w.m.done(true, time.Since(begun))
		w.files = append(w.files, entry)
	case harness.Definite(err):
		entry.Outcome, entry.Reason = audit.Refused, lpfileshare.ReasonName(lpfileshare.ErrorReason(err))
	default:
		entry.Outcome, entry.Reason = audit.Unknown, err.Error()
	}
	w.record.Uploads = append(w.record.Uploads, entry)
}

// download gets one of the consumer's files, as slowly.
func (w *worker) download(ctx context.Context) {
	file := w.files[w.rng.IntN(len(w.files))]
	o := lpfileshare.DownloadOptions{Conversation: w.conversation, StoragePath: file.StoragePath, ChunkBytes: chunk, RetryFor: time.Minute}
	begun := time.Now()
	sum := sha256.New()
	if _, err := w.client.As(w.id).Download(ctx, o, &slowWriter{sum, time.Duration(20+w.rng.IntN(200)) * time.Millisecond}); err != nil {
		return // the error was reported; only complete downloads are compared
	}
	w.m.done(false, time.Since(begun))
	w.record.Downloads = append(w.record.Downloads, audit.Download{Case: file.Case, Path: file.StoragePath, SHA256: hex.EncodeToString(sum.Sum(nil))})
}

// slowly gives a block at a time, from the second pass on: the first is for the checksums.
type slowly struct {
	io.ReadSeeker
	each  time.Duration
	again bool
}

func (s *slowly) Read(p []byte) (int, error) {
	if s.again {
		time.Sleep(s.each)
	}
	return s.ReadSeeker.Read(p[:min(len(p), chunk)])
}

func (s *slowly) Seek(offset int64, whence int) (int64, error) {
	s.again = s.again || whence == io.SeekStart
	return s.ReadSeeker.Seek(offset, whence)
}

type slowWriter struct {
	io.Writer
	each time.Duration
}

func (s *slowWriter) Write(p []byte) (int, error) {
	time.Sleep(s.each)
	return s.Writer.Write(p)
}

// makeTrouble makes some every quarter of a second.
func makeTrouble(ctx context.Context, h *rig, m *meter, seed uint64) {
	var armed []*proxy.Armed
	clear := func() {
		h.sb.ClearFaults()
		for _, p := range []*proxy.Proxy{h.caller, h.store, h.socket} {
			p.Disarm()
		}
		for _, a := range armed {
			m.wires.Add(int64(a.Struck()))
		}
		armed = nil
	}
	defer clear()
	rng := rand.New(rand.NewPCG(seed, 1<<63))
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if n%40 == 0 { // what has not struck by now
			clear()
		}
		if rng.IntN(2) == 0 {
			f := sandboxFaults[rng.IntN(len(sandboxFaults))]
			f.Count = 1
			h.sb.Inject(f)
			continue
		}
		p := []*proxy.Proxy{h.caller, h.store, h.socket}[rng.IntN(3)]
		armed = append(armed, p.Arm(proxy.Fault{
			Dir: proxy.Direction(rng.IntN(2)), Skip: rng.IntN(40), At: proxy.Part(rng.Float64()),
			Kind: []proxy.Kind{proxy.Reset, proxy.Finish, proxy.Delay, proxy.Stall, proxy.Lose}[rng.IntN(5)],
			For:  time.Duration(50+rng.IntN(1500)) * time.Millisecond,
		}))
	}
}

// sandboxFaults is trouble that passes: a caller that retries must succeed.
var sandboxFaults = []sandbox.Fault{
	{On: "store:PUT", Status: 503}, {On: "store:PUT", Status: 408}, {On: "store:PUT", Status: 429, RetryAfter: 1}, {On: "store:PUT", Expire: true},
	{On: "store:PUT", CutAfter: 3_000}, {On: "store:PUT", Drop: true}, {On: "store:PUT", DropAfter: true}, {On: "store:PUT", Corrupt: true},
	{On: "store:PUT", WrongETag: true}, {On: "store:PUT", BytesPerSecond: 20_000}, {On: "store:PUT", StallAfter: 2_000},
	{On: "store:GET", Status: 503}, {On: "store:GET", Expire: true}, {On: "store:GET", CutAfter: 3_000}, {On: "store:GET", Drop: true},
	{On: "store:GET", StallAfter: 2_000}, {On: "store:GET", Corrupt: true},
	{On: "ms.GenerateURLForUploadFile", Status: 500}, {On: "ms.GenerateURLForUploadFile", Status: 429}, {On: "ms.GenerateURLForUploadFile", Drop: true},
	{On: "ms.GenerateURLForDownloadFile", Status: 500}, {On: "ms.GenerateURLForDownloadFile", Mute: true},
	{On: "ms.PublishEvent", Drop: true}, {On: "ms.PublishEvent", DropAfter: true}, {On: "ms.PublishEvent", Mute: true},
	{On: "ms.PublishEvent", AnswerDelay: 4 * time.Second}, {On: "ws:upgrade", Status: 503}, {On: "ws:idle", Drop: true},
}

// text is a file of n bytes that any check takes for plain text, and that no other has.
func text(seed uint64, n int) []byte {
	var b bytes.Buffer
	for i := uint64(0); b.Len() < n; i++ {
		fmt.Fprintf(&b, "%016x %016x\n", seed, (seed+i)*0x9E3779B97F4A7C15)
	}
	return b.Bytes()[:n]
}
