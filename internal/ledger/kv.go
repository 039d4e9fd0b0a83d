package ledger

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// Config says where a KV keeps its records. Without Servers it runs a NATS server of its own in this process, with files in Dir.
type Config struct {
	// Servers are the NATS servers of a cluster; see ParseServers. None: this process has its own, which listens nowhere.
	Servers []string
	// Dir is where the process's own server keeps its files. Empty: in memory.
	Dir string
	// Sync makes the process's own server wait for the disk at every write, so that an answer survives a power cut too.
	Sync bool

	// Replicas is how many servers of a cluster hold each record, 1 to 5. 0: as the bucket is; a new one gets 3 in a cluster and
	// 1 elsewhere.
	Replicas int
	// CredsFile is a NATS credentials file. User and Password are the other way to log in.
	CredsFile      string
	User, Password string
	// TLS, if given, is demanded of every server.
	TLS *tls.Config

	// TTL is the longest that a record is valid. What is older may be dropped by NATS; until then Record.Expires counts.
	TTL time.Duration
	// MaxBytes bounds all records together. A full ledger takes no new ones, and drops none.
	MaxBytes int64
	// Timeout bounds Load and Save each; StartTimeout bounds Open.
	Timeout, StartTimeout time.Duration
	// Grown, if given, is told when the ledger holds much more or less of this process's memory than last told: about how many
	// bytes.
	Grown func(heap int64)
	// Now is the clock that Record.Expires is held against.
	Now func() time.Time
	Log *slog.Logger
}

const (
	// bucketName is the name of the bucket; NATS calls the stream below it KV_lpfileshare.
	bucketName = "lpfileshare"
	// ttlMargin is how much longer than valid a record is kept, for clocks that disagree.
	ttlMargin = time.Hour
	// lookEvery is how often the ledger is looked after.
	lookEvery = time.Second
	// fullAt is how much of the room new keys may take. The rest is for what has begun: an upload whose file is stored already
	// must be able to say so.
	fullAt = 0.95
)

// A KV is a ledger in a NATS JetStream key-value bucket: of this process, or of a cluster that several servers share. It is safe
// for concurrent use.
//
// A write is acknowledged by NATS or has failed. Where no acknowledgement comes, KV looks what is there: each write carries a
// name of its own, so that it is known again.
type KV struct {
	conn    *nats.Conn
	closed  chan struct{} // closed when conn has ended
	own     *embedded     // nil for a cluster
	stream  jetstream.Stream
	bucket  jetstream.KeyValue
	timeout time.Duration
	now     func() time.Time
	log     *slog.Logger

	ctx        context.Context // ends with Close
	cancel     context.CancelFunc
	goroutines sync.WaitGroup
	full       atomic.Bool // no room for new keys
	grown      func(heap int64)
	told       int64 // to grown
	eventLog   atomic.Pointer[Events]

	mu     sync.Mutex
	usable bool
	tell   func(usable bool) // nil: nobody
}

// Open starts or reaches the ledger, and makes its bucket if there is none. It does not wait longer than StartTimeout, and its
// errors say what to do.
func Open(ctx context.Context, c Config) (_ *KV, err error) {
	l := &KV{closed: make(chan struct{}), timeout: c.Timeout, now: c.Now, log: c.Log, grown: c.Grown, usable: true}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, c.StartTimeout)
	defer cancel()
	if len(c.Servers) == 0 {
		if l.own, err = startEmbedded(c, c.Log); err != nil {
			return nil, err
		}
	}
	if err := l.connect(ctx, c); err != nil {
		return nil, err
	}
	if err := l.openBucket(ctx, c); err != nil {
		return nil, err
	}
	if err := l.look(); err != nil {
		return nil, fmt.Errorf("the ledger does not answer: %w", err)
	}
	l.goroutines.Go(l.lookAfter)
	return l, nil
}

// Close ends the connection and, if it is this process's own, the server, and waits for both. No call may follow.
func (l *KV) Close() error {
	l.cancel()
	l.goroutines.Wait()
	if l.conn != nil {
		l.conn.Close()
		<-l.closed
	}
	if l.own != nil {
		return l.own.close()
	}
	return nil
}

// Load returns the record of key and its revision; revision 0 means that there is none, or none that has not expired.
func (l *KV) Load(ctx context.Context, key string) (share.Record, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	there, err := l.read(ctx, key)
	if err != nil {
		return share.Record{}, 0, err
	}
	if there.rev == 0 || l.expired(there) {
		return share.Record{}, 0, nil
	}
	return there.record, there.rev, nil
}

func (l *KV) expired(w written) bool { return !l.now().Before(w.record.Expires) }

// Save writes the record of key if its revision still is rev (0: if there is none), and returns the new one; share.ErrStale if it
// is not. Any other error is LedgerUnavailable, and leaves open whether the record was written: the revision that a Load gives
// next tells.
func (l *KV) Save(ctx context.Context, key string, r share.Record, rev uint64) (uint64, error) {
	value, name, err := encode(r)
	if err != nil {
		return 0, err
	}
	if rev == 0 && l.full.Load() {
		return 0, unavailable(errFull)
	}
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	for at := rev; ; {
		saved, err := l.write(ctx, key, value, at)
		if err == nil {
			return saved, nil
		}
		if !refused(err) && !passing(err) {
			return 0, unavailable(err)
		}
		// Somebody else's record, or our own after a lost answer?
		there, readErr := l.read(ctx, key)
		switch {
		case readErr != nil:
			return 0, readErr
		case there.name == name:
			return there.rev, nil
		case there.rev != at && rev == 0 && there.rev != 0 && l.expired(there):
			at = there.rev // what has expired is in nobody's way
			continue
		case there.rev != at:
			return 0, share.ErrStale
		}
		// Not written so far. Writing again is safe: of the two at most one comes on this revision.
		if !pause(ctx) {
			return 0, unavailable(err)
		}
	}
}

// write tries once. It leaves half of the time for looking, should no answer come.
func (l *KV) write(ctx context.Context, key string, value []byte, rev uint64) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout/2)
	defer cancel()
	if rev == 0 {
		return l.bucket.Create(ctx, key, value)
	}
	return l.bucket.Update(ctx, key, value, rev)
}

// read tries until ctx ends. It asks the leader of the bucket, never a follower that may lag behind.
func (l *KV) read(ctx context.Context, key string) (written, error) {
	for {
		try, cancel := context.WithTimeout(ctx, l.timeout/4)
		e, err := l.bucket.Get(try, key)
		cancel()
		switch {
		case err == nil:
			return decode(e.Value(), key, e.Revision())
		case errors.Is(err, jetstream.ErrKeyNotFound):
			return written{}, nil
		case !passing(err) || !pause(ctx):
			return written{}, unavailable(err)
		}
	}
}

// refused tells that NATS answered, and that the revision is another.
func refused(err error) bool {
	return errors.Is(err, jetstream.ErrKeyExists) || errors.Is(err, jetstream.ErrKeyRevisionMismatch)
}

// passing tells that no answer came, or that the request did not get out: both may pass.
func passing(err error) bool {
	for _, e := range []error{
		context.DeadlineExceeded, nats.ErrTimeout, nats.ErrNoResponders, jetstream.ErrNoStreamResponse,
		nats.ErrReconnectBufExceeded, nats.ErrConnectionReconnecting, nats.ErrDisconnected,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// pause waits before the next try. It returns false when there is no time for one.
func pause(ctx context.Context) bool {
	t := time.NewTimer(50 * time.Millisecond)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}

// storeFailed is NATS's code for a stream that cannot take a message: most often since it is full.
const storeFailed jetstream.ErrorCode = 10077

var errFull = errors.New("it is full")

func unavailable(cause error) error {
	if e, ok := errors.AsType[*jetstream.APIError](cause); cause == errFull || ok && e.ErrorCode == storeFailed {
		return share.Errorf(share.LedgerUnavailable, "the record of request ids takes no more", cause)
	}
	return share.Errorf(share.LedgerUnavailable, "the record of request ids cannot be reached", cause)
}

// Watch calls f with whether the ledger can be used: at once, and whenever that changes, until Close. There is one watcher.
func (l *KV) Watch(f func(usable bool)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tell = f
	f(l.usable)
}

// lookAfter asks every so often whether the ledger can be used and has room, until Close.
func (l *KV) lookAfter() {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-l.ctx.Done():
			return
		case <-tick.C:
		}
		err := l.look()
		if l.ctx.Err() != nil {
			return
		}
		l.mu.Lock()
		if usable := err == nil; usable != l.usable {
			l.usable = usable
			if usable {
				l.log.Info("the ledger can be used again")
			} else {
				l.log.Warn("the ledger cannot be used; uploads are refused", "error", err)
			}
			if l.tell != nil {
				l.tell(usable)
			}
		}
		l.mu.Unlock()
	}
}

// look asks the bucket's leader, which answers only while a majority of its servers is there.
func (l *KV) look() error {
	ctx, cancel := context.WithTimeout(l.ctx, l.timeout/2)
	defer cancel()
	info, err := l.stream.Info(ctx)
	if err != nil {
		return err
	}
	if room := info.Config.MaxBytes; room > 0 {
		full := float64(info.State.Bytes) > fullAt*float64(room)
		if l.full.Swap(full) != full && full {
			l.log.Warn("the ledger is full; new request ids are refused", "bytes", info.State.Bytes, "of", room)
		}
	}
	heap := l.heap(info)
	if e := l.eventLog.Load(); e != nil && l.own != nil {
		heap += e.heap(ctx)
	}
	if l.grown != nil && max(heap-l.told, l.told-heap) >= 4<<20 {
		l.told = heap
		l.grown(heap)
	}
	return nil
}

// heap is how much of this process's memory its own server takes for its records, measured: see docs/ledger.md.
func (l *KV) heap(info *jetstream.StreamInfo) int64 {
	switch {
	case l.own == nil:
		return 0
	case info.Config.Storage == jetstream.MemoryStorage:
		return 2 * int64(info.State.Bytes)
	}
	return 320 * int64(info.State.Msgs)
}

// openBucket finds the bucket or makes it, and sets what the flags say of it. It tries until ctx ends: servers that have just
// started need a while to choose a leader.
func (l *KV) openBucket(ctx context.Context, c Config) error {
	js, err := jetstream.New(l.conn)
	if err != nil {
		return fmt.Errorf("the ledger: %w", err)
	}
	var why error
	for {
		try, cancel := context.WithTimeout(ctx, l.timeout)
		l.stream, err = ensureBucket(try, js, c, l.conn.ConnectedClusterName() != "")
		if err == nil {
			l.bucket, err = js.KeyValue(try, bucketName)
		}
		cancel()
		if err == nil {
			return nil
		}
		if why == nil || !errors.Is(err, context.DeadlineExceeded) {
			why = err
		}
		if hopeless(err) || !pause(ctx) {
			return fmt.Errorf("the ledger's bucket %s cannot be opened: %w", bucketName, explain(why))
		}
	}
}

// ensureBucket makes the bucket, or mends the settings of the one that is there.
func ensureBucket(ctx context.Context, js jetstream.JetStream, c Config, cluster bool) (jetstream.Stream, error) {
	storage := jetstream.FileStorage
	if len(c.Servers) == 0 && c.Dir == "" {
		storage = jetstream.MemoryStorage
	}
	name := "KV_" + bucketName
	s, err := js.Stream(ctx, name)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		want := jetstream.StreamConfig{
			Name: name, Subjects: []string{"$KV." + bucketName + ".>"}, Description: "lpfileshare: request ids",
			Storage: storage, Replicas: c.Replicas, AllowRollup: true, DenyDelete: true, MaxMsgs: -1, MaxConsumers: -1,
			MaxAge: c.TTL + ttlMargin,
		}
		if want.Replicas == 0 {
			want.Replicas = 1
			if cluster {
				want.Replicas = 3
			}
		}
		demand(&want, c)
		if s, err = js.CreateStream(ctx, want); !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return s, err
		}
		s, err = js.Stream(ctx, name) // another server was faster
	}
	if err != nil {
		return nil, err
	}
	there := s.CachedInfo().Config
	if there.Storage != storage {
		return nil, errStorage
	}
	want := there
	if c.Replicas != 0 {
		want.Replicas = c.Replicas
	}
	demand(&want, c)
	if sameDemands(want, there) {
		return s, nil
	}
	return js.UpdateStream(ctx, want)
}

// demand sets what must hold of the bucket. It never makes the time that records are kept shorter: Record.Expires decides, and
// servers whose settings differ for a while must not forget each other's.
func demand(s *jetstream.StreamConfig, c Config) {
	s.MaxMsgsPerSubject = 1
	s.Discard = jetstream.DiscardNew // full means full: nothing is dropped for something newer
	s.AllowDirect = false            // reads go to the leader: a follower's could be old
	s.MaxMsgSize = maxValue + 1<<10  // with room for headers
	s.MaxBytes = c.MaxBytes
	if s.MaxAge != 0 { // 0: for ever
		s.MaxAge = max(s.MaxAge, c.TTL+ttlMargin)
	}
}

func sameDemands(a, b jetstream.StreamConfig) bool {
	return a.Replicas == b.Replicas && a.MaxMsgsPerSubject == b.MaxMsgsPerSubject && a.Discard == b.Discard && a.AllowDirect == b.AllowDirect &&
		a.MaxMsgSize == b.MaxMsgSize && a.MaxBytes == b.MaxBytes && a.MaxAge == b.MaxAge
}
