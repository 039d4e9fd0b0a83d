package service

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// Settings are what holds for one account. A call reads them once, at its beginning: they may change while the server runs.
type Settings struct {
	// MaxFileBytes is the largest file.
	MaxFileBytes int64
	// MaxImagePixels is the largest image. Images has a limit for all accounts, which is no less.
	MaxImagePixels int64
	// Documents are the types that are allowed beside images: some of share.Documents.
	Documents []share.FileType
	// MaxImageInputBytes is the largest image that is made to fit MaxFileBytes where a caller asks for it; 0: none is.
	MaxImageInputBytes int64
	// StripImages strips every image, whether asked for or not.
	StripImages bool
	// CheckETag compares the store's ETag with the MD5 of what was sent.
	CheckETag bool
	// AcceptReceipts and AccessReceipts tell the sender when a file was delivered to a watcher, and when it was downloaded.
	AcceptReceipts, AccessReceipts bool
}

// Config is how the service behaves. Every field is required; cmd/server has the defaults.
type Config struct {
	// Serves tells whether an account is served at all; what is not is NotAllowed.
	Serves func(account string) bool
	// Settings tells an account's.
	Settings func(account string) Settings
	// Caller tells which service calls, where its connection proves it (else ""), and whether that connection is trusted with
	// credentials that the server holds: see share.Credential.Caller.
	Caller func(ctx context.Context) (name string, trusted bool)
	// MemoryBudget is how many bytes of files may be held at once, in all uploads together.
	MemoryBudget int64
	// QueueLength is how many uploads may wait for room in the budget, QueueWait for how long.
	QueueLength int
	QueueWait   time.Duration
	// MaxUploadsPerCaller is how many uploads one caller may have at once, with half of the budget; as many again may wait.
	// MaxStreamsPerCaller is how many downloads and watches it may have, together.
	MaxUploadsPerCaller, MaxStreamsPerCaller int
	// IdleTimeout ends an upload from which no byte comes for so long, and any other call whose request does not come;
	// UploadTimeout ends an upload that takes longer as a whole.
	IdleTimeout, UploadTimeout time.Duration
	// MinUploadRate is how many bytes a second an upload must bring, on average over each IdleTimeout; 0: any number.
	MinUploadRate int64
	// UnaryTimeout bounds a unary call.
	UnaryTimeout time.Duration
	// RequestIDTTL is how long a request id is kept.
	RequestIDTTL time.Duration
	// PublishTimeout is how long LivePerson may take to confirm a message. Settle is how long after that the message may still
	// turn up: the time after which LivePerson handles no frame any more.
	PublishTimeout, Settle time.Duration
	// Heartbeat is how often a watch says that it is alive.
	Heartbeat time.Duration
	// ReadStall ends a download or a watch whose reader takes nothing for so long.
	ReadStall time.Duration
	// AgentTokenKey seals the agent tokens that SignInAgent gives out. Servers that answer for each other must have the same.
	AgentTokenKey [32]byte
	// Version is the server's version, for GetCapabilities.
	Version string
	// Now is the clock.
	Now func() time.Time
	Log *slog.Logger
}

// MinPingInterval is the shortest time between two HTTP/2 pings of a client: the gRPC server's enforcement policy must have it.
const MinPingInterval = 15 * time.Second

// Ports are what the service works with.
type Ports struct {
	Messenger Messenger
	Accounts  Accounts
	Store     Store
	Ledger    Ledger
	Images    Images
}

// A Server is lpfileshare.v1. Make one with New, register it, and Close it after the gRPC server has stopped.
type Server struct {
	lpfilesharev1.UnimplementedFileSharingServiceServer
	lpfilesharev1.UnimplementedConversationServiceServer
	lpfilesharev1.UnimplementedIdentityServiceServer
	lpfilesharev1.UnimplementedAccountServiceServer

	Config
	ports Ports

	admission  *admission
	streams    *streams
	courtesies chan struct{} // one for each receipt on its way
	seal       agentSeal

	// draining is closed when new work is refused, stopping when running work must end.
	draining, stopping  chan struct{}
	drainOnce, stopOnce sync.Once
	goroutines          sync.WaitGroup
	mu                  sync.Mutex
	running             map[string]*attempt // by ledger key: the attempts of this process
}

// New makes a Server.
func New(c Config, p Ports) *Server {
	return &Server{
		Config:     c,
		ports:      p,
		admission:  newAdmission(c.MemoryBudget, c.MaxUploadsPerCaller, c.QueueLength, c.QueueWait, c.Now),
		streams:    newStreams(c.MaxStreamsPerCaller),
		seal:       newAgentSeal(c.AgentTokenKey),
		courtesies: make(chan struct{}, maxCourtesies),
		draining:   make(chan struct{}),
		stopping:   make(chan struct{}),
		running:    make(map[string]*attempt),
	}
}

// Register adds the services to a gRPC server.
func (s *Server) Register(g grpc.ServiceRegistrar) {
	lpfilesharev1.RegisterFileSharingServiceServer(g, s)
	lpfilesharev1.RegisterConversationServiceServer(g, s)
	lpfilesharev1.RegisterIdentityServiceServer(g, s)
	lpfilesharev1.RegisterAccountServiceServer(g, s)
}

// Drain refuses new uploads and ends watches, with SERVER_DRAINING; what runs goes on.
func (s *Server) Drain() { s.drainOnce.Do(func() { close(s.draining) }) }

// Stop ends what still runs with SERVER_DRAINING, but for messages that are being published.
func (s *Server) Stop() {
	s.Drain()
	s.stopOnce.Do(func() { close(s.stopping) })
}

// Close waits for the last goroutine. Call it after the gRPC server has stopped.
func (s *Server) Close() {
	s.Stop()
	s.goroutines.Wait()
}

func (s *Server) checkDraining() error {
	select {
	case <-s.draining:
		return errDraining()
	default:
		return nil
	}
}

// until is ctx, which also ends, with SERVER_DRAINING, when gone is closed: draining or stopping.
func (s *Server) until(ctx context.Context, gone <-chan struct{}) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	s.goroutines.Go(func() { // ends with the call, which cancels
		select {
		case <-gone:
			cancel(errDraining())
		case <-ctx.Done():
		}
	})
	return ctx, cancel
}

// ended is why ctx has ended, where it has: what broke because of that is no news. Else it is err.
func ended(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func errDraining() error {
	return refuse(share.ServerDraining, "the server is going down; repeat under the same request_id on another")
}

// session opens the caller's LivePerson session for an account's resource: the identity is proved by that, and by nothing else.
func (s *Server) session(ctx context.Context, account string) (Session, error) {
	c, err := s.credential(ctx, account)
	if err != nil {
		return nil, err
	}
	session, err := s.ports.Messenger.Session(ctx, c)
	if err != nil {
		return nil, err
	}
	if session.Principal().Account != account {
		session.Release()
		return nil, errOtherAccount()
	}
	return session, nil
}

// checkServed refuses accounts that this server does not serve.
func (s *Server) checkServed(account string) error {
	if s.Serves(account) {
		return nil
	}
	return refuse(share.NotAllowed, "this server does not serve account %s", account)
}

func errOtherAccount() error { return refuse(share.NotAllowed, "the token is of another account") }

// sleep waits, or returns why it may not.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
