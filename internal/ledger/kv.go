package ledger

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/lpfileshare/lpfileshare/internal/rejections"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// Config configures a KV. Without Servers it runs a NATS server in this process, which stores its files in Dir.
type Config struct {
	// Servers are the NATS servers of a cluster; see ParseServers. None: this process runs its own, which listens on no port.
	Servers []string
	// Dir is the directory of the process's own server. Empty: records are kept in memory.
	Dir string
	// Sync makes the process's own server wait for the disk at every write, so that an acknowledged record survives a power
	// failure.
	Sync bool

	// Replicas is the number of servers of a cluster that store each record, 1 to 5. 0: unchanged; a new bucket gets 3 in a
	// cluster and 1 otherwise.
	Replicas int
	// AcceptLoss continues with a ledger that has lost records, instead of rejecting uploads.
	AcceptLoss bool

	// CredsFile is a NATS credentials file. User and Password are the alternative. The file, Password, RootCAs and Certificate are
	// read whenever a connection is made, so that changes need no restart.
	CredsFile string
	User      string
	Password  func() (string, error)
	// RootCAs returns the authorities to trust, and Certificate the certificate to present. If one is set, TLS is required of every
	// server. nil: the system's authorities; no certificate.
	RootCAs     func() (*x509.CertPool, error)
	Certificate func() (tls.Certificate, error)

	// TTL is the longest time that a record is valid. NATS may drop older ones; Record.Expires decides until then.
	TTL time.Duration
	// MaxBytes is the maximum size of all records together. A full ledger rejects new records and never drops one.
	MaxBytes int64
	// Timeout bounds each Load and each Save; StartTimeout bounds Open.
	Timeout, StartTimeout time.Duration
	// Rejections counts and logs what is dropped because of the limits of the ledger and of the event log; nil: a KV has its own.
	Rejections *rejections.Tally
	// Grown, if set, is called with the memory in bytes that the ledger uses in this process, when that has changed by 4 MiB or
	// more.
	Grown func(heap int64)
	// Now returns the time that is compared with Record.Expires.
	Now func() time.Time
	Log *slog.Logger

	interval time.Duration // between two checks; 0: checkInterval
}

const (
	// bucketName is the name of the bucket, streamName NATS' name of its stream, and subjectPrefix is before the key in a subject.
	bucketName    = "lpfileshare"
	streamName    = "KV_" + bucketName
	subjectPrefix = "$KV." + bucketName + "."
	// ttlMargin is how much longer than its validity a record is kept, because clocks differ.
	ttlMargin = time.Hour
	// fullAt is the part of MaxBytes above which no new id begins, with what attempts have reserved. reserveAt is the part that they may
	// reserve. The rest is for what nothing is reserved for: ids of other servers of a cluster, and results of CreateConversation.
	fullAt    = 0.95
	reserveAt = 0.975
	// growthMargin is what a stored record may grow by until the attempt that publishes it has finished: by a failure, and a deadline.
	growthMargin = 4 << 10
	// envelopeBytes is at least what an envelope adds to its record.
	envelopeBytes = 64
	// heapStep is the change of memory use that is reported to Config.Grown.
	heapStep = 4 << 20
)

// A KV is a ledger in a NATS JetStream key-value bucket, either of this process or of a cluster that several servers share. It is
// safe for concurrent use.
//
// A write is acknowledged by NATS or has failed. If the acknowledgement is lost, KV reads the record back: each write has a unique
// name, by which it is recognized.
type KV struct {
	conn   *nats.Conn
	closed chan struct{} // closed when conn has ended
	own    *embedded     // this process's own server; nil for a cluster
	js     jetstream.JetStream
	stream jetstream.Stream
	bucket jetstream.KeyValue
	ttl    time.Duration // how long the bucket keeps a record that says nothing else
	// msgTTL reports whether the bucket drops a record earlier if the record says so, inMemory whether it has no files.
	msgTTL, inMemory bool
	timeout          time.Duration
	interval         time.Duration // between two checks
	now              func() time.Time
	log              *slog.Logger

	ctx        context.Context // ends with Close
	cancel     context.CancelFunc
	goroutines sync.WaitGroup
	shares     *shares
	rejections *rejections.Tally
	// ownRejections is rejections if Config had none, and is closed with the KV.
	ownRejections *rejections.Tally
	growth        growth
	records       atomic.Uint64 // in the bucket
	dropped       atomic.Int64  // records that were dropped early
	grown         func(heap int64)
	reported      int64 // last argument of grown
	eventLog      atomic.Pointer[Events]
	guard         *guard
	config        Config // as given to Open

	checking  sync.Mutex
	restarted time.Time // when own was restarted last
	spaceAt   time.Time // when noSpace was set
	noSpace   error     // why nothing can be written to the disk of own
	reopened  bool      // own was restarted, and its records are not verified yet
	full      bool      // new keys are rejected, as of the last check

	mu      sync.Mutex
	health  Health
	watcher func(Health) // nil: none
}

// Open starts the process's own server or connects to the cluster, and creates the bucket if there is none. It takes at most
// StartTimeout. Its errors say what to do. The caller must call Close.
func Open(ctx context.Context, c Config) (_ *KV, err error) {
	l := &KV{closed: make(chan struct{}), timeout: c.Timeout, interval: cmp.Or(c.interval, checkInterval), now: c.Now, log: c.Log, grown: c.Grown, config: c}
	if l.rejections = c.Rejections; l.rejections == nil {
		l.rejections = rejections.New(c.Log)
		l.ownRejections = l.rejections
	}
	l.shares = newShares(c.Now)
	l.guard = &guard{accept: c.AcceptLoss, log: c.Log, sync: c.Sync, keeps: c.TTL + ttlMargin}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	ctx, cancel := context.WithTimeout(ctx, c.StartTimeout)
	defer cancel()
	if len(c.Servers) == 0 {
		if err := l.startOwn(); err != nil {
			return nil, err
		}
	}
	if err := l.connect(ctx, c); err != nil {
		return nil, err
	}
	if err := l.openBucket(ctx, c); err != nil {
		return nil, err
	}
	if err := l.verifyOpened(ctx); err != nil {
		return nil, err
	}
	if err := l.firstCheck(ctx); err != nil {
		return nil, fmt.Errorf("the ledger cannot be used: %w", err)
	}
	l.goroutines.Go(l.checkPeriodically)
	if l.msgTTL {
		l.goroutines.Go(l.dropPeriodically)
	}
	return l, nil
}

// Close ends the connection and the process's own server, and waits for both. The KV must not be used afterwards.
func (l *KV) Close() error {
	l.cancel()
	l.goroutines.Wait()
	if l.ownRejections != nil {
		l.ownRejections.Close()
	}
	if l.conn != nil {
		l.conn.Close()
		<-l.closed
	}
	if l.own == nil {
		return nil
	}
	l.own.stop()
	err := l.guard.stopped(l.own.streamDir(streamName))
	return errors.Join(err, l.own.close())
}

// Load returns the record of key and its revision. Revision 0: there is no record, or it has expired.
func (l *KV) Load(ctx context.Context, key string) (share.Record, uint64, error) {
	return load(ctx, l, requests, key)
}

// Save writes the record of key if its revision is still rev (0: if there is none), and returns the new revision. It returns
// share.ErrStale if the revision differs, and LedgerShare if r would begin a new id and its owner's share of the ledger is used. Any
// other error is LedgerUnavailable; the record may then have been written or not, which the revision of the next Load shows.
//
// A record that expires well before others is dropped soon after that, so that it does not fill the ledger.
func (l *KV) Save(ctx context.Context, key string, r share.Record, rev uint64) (uint64, error) {
	t := tenure{
		owner: r.Owner, expires: r.Expires, attempt: r.Attempt, largest: r.Largest,
		begins: rev == 0 && r.State != share.Stored, // a file that is stored was admitted with its upload
		again:  rev != 0 && r.State == share.Receiving,
	}
	switch r.State {
	case share.Receiving, share.Stored, share.Publishing:
		t.unfinished = r.Attempt != "" && (r.Largest > 0 || r.File != nil)
	}
	return save(ctx, l, requests, key, r, rev, t)
}

// Finish ends what an attempt has reserved in the ledger. It must be called once an attempt writes its record no more.
func (l *KV) Finish(key, attemptID string) { l.shares.finish(attempt{key, attemptID}) }

// LoadCreation is Load for the record of a CreateConversation.
func (l *KV) LoadCreation(ctx context.Context, key string) (share.CreationRecord, uint64, error) {
	return load(ctx, l, creations, key)
}

// SaveCreation is Save for the record of a CreateConversation.
func (l *KV) SaveCreation(ctx context.Context, key string, r share.CreationRecord, rev uint64) (uint64, error) {
	// A conversation that exists has been admitted with its request.
	begins := rev == 0 && r.Claimant == ""
	return save(ctx, l, creations, key, r, rev, tenure{owner: r.Owner, expires: r.Expires, begins: begins})
}

// A tenure is how a record uses the ledger: in whose share, and until when.
type tenure struct {
	owner   share.Principal
	expires time.Time
	// attempt is the attempt that writes it. Unfinished reports whether it writes larger ones later, of up to largest bytes.
	attempt    string
	unfinished bool
	largest    int64
	// begins and again are those of a demand.
	begins, again bool
}

// reserves returns what the attempt needs after it has written a record of a size. NATS needs the space of a new record before it
// drops the one that it replaces; therefore the two largest ones must fit. overhead is what the bucket needs for a record without value.
func (t tenure) reserves(size, overhead int64) int64 {
	switch {
	case !t.unfinished:
		return 0
	case t.largest == 0:
		return size + 2*growthMargin
	}
	return 2*(t.largest+overhead+envelopeBytes) - size
}

// load is KV.Load for any type of record.
func load[R any](ctx context.Context, l *KV, f format[R], key string) (R, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	var none R
	if l.guard.lost.Load() {
		return none, 0, unavailable(errLost)
	}
	found, err := read(ctx, l, f, key)
	if err != nil {
		return none, 0, err
	}
	if found.rev == 0 || l.expired(found.expires) {
		return none, 0, nil
	}
	return found.record, found.rev, nil
}

func (l *KV) expired(expires time.Time) bool { return !l.now().Before(expires) }

// save is KV.Save for any type of record.
func save[R any](ctx context.Context, l *KV, f format[R], key string, r R, rev uint64, t tenure) (saved uint64, err error) {
	value, name, err := f.encode(r)
	if err != nil {
		return 0, err
	}
	if l.guard.lost.Load() {
		return 0, unavailable(errLost)
	}
	size := l.stored(key, value)
	by := attempt{key, t.attempt}
	if !t.unfinished {
		by.id = name // this write alone
	}
	more := t.reserves(size, l.stored(key, nil))
	first, err := l.shares.admit(demand{by, t.owner, size, more, t.begins, t.again})
	if err != nil {
		return 0, err
	}
	keep, early := l.keep(t.expires)
	defer func() {
		switch {
		case err == nil:
			l.shares.wrote(saved, by, t.owner, size, more, keep, early)
		case first:
			l.shares.finish(by) // the attempt does not begin
		}
	}()
	ttl := time.Duration(0)
	if early {
		ttl = keep
	}
	until := time.Now().Add(l.timeout)
	saved, err = l.write(ctx, key, value, rev, ttl)
	if err == nil || !conflict(err) && !transient(err) {
		return saved, err
	}
	ctx, cancel := context.WithDeadline(ctx, until)
	defer cancel()
	return resolve(ctx, l, f, pending{key, value, name, rev, ttl}, err)
}

// A pending is a write of which it is not known whether it has succeeded.
type pending struct {
	key   string
	value []byte
	name  string
	rev   uint64
	ttl   time.Duration
}

// resolve reads the record back after a write has failed with err, and repeats the write if it has not been done.
func resolve[R any](ctx context.Context, l *KV, f format[R], p pending, err error) (uint64, error) {
	for at := p.rev; ; {
		// Either another writer's record is there, or this one's, whose acknowledgement was lost.
		found, readErr := read(ctx, l, f, p.key)
		switch {
		case readErr != nil:
			return 0, readErr
		case found.name == p.name:
			return found.rev, nil
		case found.rev != at && p.rev == 0 && found.rev != 0 && l.expired(found.expires):
			at = found.rev // an expired record is replaced
		case found.rev != at:
			return 0, share.ErrStale
		// Not written yet. Repeating the write is safe: at most one of the two can succeed at this revision.
		case !pause(ctx):
			return 0, unavailable(err)
		}
		var saved uint64
		saved, err = l.write(ctx, p.key, p.value, at, p.ttl)
		if err == nil || !conflict(err) && !transient(err) {
			return saved, err
		}
	}
}

// keep returns how long the bucket keeps a record that is written now. early is true if that is less than for other records, and if
// the bucket can drop it then: NATS 2.11 or later. The margin after expiry covers clocks that differ.
func (l *KV) keep(expires time.Time) (keep time.Duration, early bool) {
	valid := max(expires.Sub(l.now()), 0)
	keep = (valid + min(valid, ttlMargin) + time.Second).Round(time.Second) // in whole seconds, and not 0
	if early = l.msgTTL && keep < l.ttl-ttlMargin; !early {
		keep = l.ttl
	}
	return keep, early
}

// write makes one attempt. It uses half of the time, so that the record can be read back if no answer arrives. ttl is how long the
// bucket keeps the record; 0: as long as others. An error that is neither a conflict nor transient is LedgerUnavailable.
func (l *KV) write(ctx context.Context, key string, value []byte, rev uint64, ttl time.Duration) (uint64, error) {
	newest := l.guard.newest.Load()
	saved, err := l.publish(ctx, key, value, rev, ttl, l.timeout/2)
	if err == nil {
		err = l.guard.saved(newest, saved)
	}
	if err != nil && !conflict(err) && !transient(err) {
		err = unavailable(err)
	}
	return saved, err
}

// read repeats until ctx ends. It asks the leader of the bucket, never a follower, which may lag behind.
func read[R any](ctx context.Context, l *KV, f format[R], key string) (found[R], error) {
	for {
		attempt, cancel := context.WithTimeout(ctx, l.timeout/4)
		e, err := l.bucket.Get(attempt, key)
		cancel()
		switch {
		case err == nil:
			return f.decode(e.Value(), key, e.Revision())
		case errors.Is(err, jetstream.ErrKeyNotFound):
			return found[R]{}, nil
		case !transient(err) || !pause(ctx):
			return found[R]{}, unavailable(err)
		}
	}
}

// transient reports whether a request was not sent or got no answer, so that a retry may succeed.
func transient(err error) bool {
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

// pause waits before the next attempt. It returns false if ctx ends first.
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

var errFull = errors.New("the ledger is full")

func unavailable(cause error) error {
	switch e, ok := errors.AsType[*jetstream.APIError](cause); {
	case errors.Is(cause, errLost):
		return share.Errorf(share.LedgerUnavailable, "the ledger of request ids has lost records", cause)
	case cause == errFull, ok && e.ErrorCode == jetstream.ErrorCode(server.JSStreamStoreFailedF) && e.Description == server.ErrMaxBytes.Error():
		return share.Errorf(share.LedgerUnavailable, "the ledger of request ids is full", cause)
	case ok && e.ErrorCode == jetstream.ErrorCode(server.JSStreamStoreFailedF):
		return share.Errorf(share.LedgerUnavailable, "the ledger of request ids cannot write to its disk", cause)
	}
	return share.Errorf(share.LedgerUnavailable, "the ledger of request ids cannot be reached", cause)
}

// check writes the probe, and asks the bucket's leader for its state. Both succeed only while a majority of its servers is connected.
func (l *KV) check() error {
	ctx, cancel := context.WithTimeout(l.ctx, l.timeout/2)
	defer cancel()
	if l.own != nil {
		if err := l.own.check(streamName); err != nil {
			return err
		}
	}
	info, err := l.writeProbe(ctx)
	if err != nil {
		return err
	}
	l.observe(info)
	heap := l.heap(info)
	if e := l.eventLog.Load(); e != nil {
		heap += e.check(ctx)
	}
	if l.grown != nil && max(heap-l.reported, l.reported-heap) >= heapStep {
		l.reported = heap
		l.grown(heap)
	}
	return nil
}

// firstCheck is check for a bucket that was just opened. The servers of a cluster may still elect the leader of its stream; until then
// nobody answers.
func (l *KV) firstCheck(ctx context.Context) error {
	for {
		err := l.check()
		if l.own != nil || err == nil || !transient(err) || !pause(ctx) {
			return err
		}
	}
}

// heap returns the memory in bytes that this process's own server uses for a stream. The factors are measured: see docs/ledger.md.
func (l *KV) heap(info *jetstream.StreamInfo) int64 {
	switch {
	case l.own == nil:
		return 0
	case info.Config.Storage == jetstream.MemoryStorage:
		return 2 * int64(info.State.Bytes)
	}
	return 320 * int64(info.State.Msgs)
}

// openBucket opens or creates the bucket, and configures it. It repeats until ctx ends: servers that have just started need some
// time to elect a leader.
func (l *KV) openBucket(ctx context.Context, c Config) error {
	js, err := jetstream.New(l.conn)
	if err != nil {
		return fmt.Errorf("the ledger: %w", err)
	}
	var cause error
	for {
		attempt, cancel := context.WithTimeout(ctx, l.timeout)
		l.stream, err = l.ensureBucket(attempt, js)
		if err == nil {
			l.bucket, err = js.KeyValue(attempt, bucketName)
		}
		cancel()
		if err == nil {
			l.configured(js, c)
			return nil
		}
		if cause == nil || !errors.Is(err, context.DeadlineExceeded) {
			cause = err
		}
		if permanent(err) || !pause(ctx) {
			return fmt.Errorf("the ledger's bucket %s cannot be opened: %w", bucketName, explain(cause))
		}
	}
}

// ensureBucket creates the bucket, or corrects the configuration of an existing one.
func (l *KV) ensureBucket(ctx context.Context, js jetstream.JetStream) (jetstream.Stream, error) {
	c := l.config
	storage := jetstream.FileStorage
	if len(c.Servers) == 0 && c.Dir == "" {
		storage = jetstream.MemoryStorage
	}
	s, err := js.Stream(ctx, streamName)
	if errors.Is(err, jetstream.ErrStreamNotFound) {
		first, refused := l.guard.creating()
		if refused != nil {
			return nil, refused
		}
		want := jetstream.StreamConfig{
			Name: streamName, FirstSeq: first, Subjects: []string{"$KV." + bucketName + ".>"}, Description: "lpfileshare: request ids",
			Storage: storage, Replicas: c.Replicas, AllowRollup: true, DenyDelete: true, MaxMsgs: -1, MaxConsumers: -1,
			MaxAge: c.TTL + ttlMargin,
		}
		if want.Replicas == 0 {
			want.Replicas = 1
			if l.conn.ConnectedClusterName() != "" {
				want.Replicas = 3
			}
		}
		require(&want, c)
		if s, err = js.CreateStream(ctx, want); !errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) {
			return s, err
		}
		s, err = js.Stream(ctx, streamName) // another server created it meanwhile
	}
	if err != nil {
		return nil, err
	}
	have := s.CachedInfo().Config
	if have.Storage != storage {
		return nil, errStorage
	}
	want := have
	if c.Replicas != 0 {
		want.Replicas = c.Replicas
	}
	require(&want, c)
	if sameRequirements(want, have) {
		return s, nil
	}
	return js.UpdateStream(ctx, want)
}

// require sets what the ledger needs of the bucket's stream. It never shortens the time that records are kept: Record.Expires
// decides, and servers with different settings must not drop each other's records.
func require(s *jetstream.StreamConfig, c Config) {
	s.MaxMsgsPerSubject = 1
	s.Discard = jetstream.DiscardNew // a full bucket rejects new records instead of dropping old ones
	s.AllowDirect = false            // reads go to the leader: a follower may lag behind
	s.MaxMsgSize = maxValue + 1<<10  // including headers
	s.AllowMsgTTL = true             // records of failures are dropped early; NATS before 2.11 ignores it
	s.MaxBytes = c.MaxBytes
	if s.MaxAge != 0 { // 0: unlimited
		s.MaxAge = max(s.MaxAge, c.TTL+ttlMargin)
	}
}

func sameRequirements(a, b jetstream.StreamConfig) bool {
	return a.Replicas == b.Replicas && a.MaxMsgsPerSubject == b.MaxMsgsPerSubject && a.Discard == b.Discard && a.AllowDirect == b.AllowDirect &&
		a.MaxMsgSize == b.MaxMsgSize && a.MaxBytes == b.MaxBytes && a.MaxAge == b.MaxAge &&
		a.AllowMsgTTL == b.AllowMsgTTL
}
