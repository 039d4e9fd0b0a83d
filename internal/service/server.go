package service

import (
	"context"
	"log/slog"
	"runtime"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/conversations"
	"github.com/lpfileshare/lpfileshare/internal/download"
	"github.com/lpfileshare/lpfileshare/internal/drain"
	"github.com/lpfileshare/lpfileshare/internal/policy"
	"github.com/lpfileshare/lpfileshare/internal/rejections"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/internal/upload"
)

// Settings are the limits and rules of one account. A call reads them once, when it begins: they may change while the server runs.
type Settings = share.Settings

// Config is the behaviour of the service. Every field is required. cmd/server has the defaults.
type Config struct {
	// Serves reports whether the server handles an account. Other accounts get NotAllowed.
	Serves func(account string) bool
	// Settings returns an account's settings.
	Settings func(account string) Settings
	// Caller returns the calling service, as far as the call proves it: see Calls.Authenticate.
	Caller func(ctx context.Context) policy.Caller
	// Permit returns CallerNotPermitted if the caller may not call the method for the account with an identity of the scheme.
	Permit func(policy.Request) error
	// Connection returns a context that ends when the connection of a call does. It may outlive the call.
	Connection func(ctx context.Context) context.Context
	// MemoryBudget is the memory for the files of all uploads, DownloadMemory that for all downloads, in bytes.
	MemoryBudget, DownloadMemory int64
	// Buffers keeps the blocks of downloads that are not in use. It need not clear them.
	Buffers mem.BufferPool
	// QueueLength is the maximum number of uploads that wait for memory, and that of downloads; QueueWait is how long each may wait.
	QueueLength int
	QueueWait   time.Duration
	// MaxWatches is the maximum number of watches of all callers.
	MaxWatches int
	// MaxUploadsPerCaller is the maximum number of uploads of one caller at once; as many again may wait. MaxStreamsPerCaller is the
	// maximum number of its downloads and watches.
	MaxUploadsPerCaller, MaxStreamsPerCaller int
	// IdleTimeout ends an upload from which no byte arrives for this long, and any other call whose request does not arrive.
	// UploadTimeout ends an upload that takes longer in all.
	IdleTimeout, UploadTimeout time.Duration
	// MinUploadRate is the minimum average rate of an upload in bytes per second, measured over each IdleTimeout; 0: no minimum.
	MinUploadRate int64
	// UnaryTimeout limits the time of a unary call.
	UnaryTimeout time.Duration
	// RequestIDTTL is how long a request id is kept.
	RequestIDTTL time.Duration
	// PublishTimeout is how long LivePerson may take to confirm a message. Settle is how long after that the message may still
	// appear: the time after which LivePerson handles no frame any more.
	PublishTimeout, Settle time.Duration
	// Heartbeat is the time between two heartbeats of a watch.
	Heartbeat time.Duration
	// ReadStall ends a download or a watch whose client reads nothing for this long.
	ReadStall time.Duration
	// AgentTokenKey encrypts the agent tokens that SignInAgent returns. Servers that share a ledger must have the same key.
	AgentTokenKey [32]byte
	// Version is the server's version, for GetCapabilities.
	Version string
	// Openings limits what callers use before their identity is proved. The Messenger limits its openings of sessions with it.
	Openings *admission.Openings
	// ScanDownloads has files scanned before they are sent, if there is a Scanner.
	ScanDownloads bool
	// Now is the clock.
	Now func() time.Time
	// Rejections counts what the limits of the service reject.
	Rejections *rejections.Tally
	Log        *slog.Logger
}

// MinPingInterval is the shortest time between two HTTP/2 pings of a client: the gRPC server's enforcement policy must have it.
const MinPingInterval = 15 * time.Second

// Ports are the adapters that the service uses.
type Ports struct {
	Messenger Messenger
	Accounts  Accounts
	Store     Store
	Ledger    Ledger
	Images    Images
	Scanner   upload.Scanner // nil: files are not scanned
}

// A Server implements lpfileshare.v1. Create it with New, register it, and Close it after the gRPC server has stopped.
type Server struct {
	lpfilesharev1.UnimplementedFileSharingServiceServer
	lpfilesharev1.UnimplementedConversationServiceServer
	lpfilesharev1.UnimplementedIdentityServiceServer
	lpfilesharev1.UnimplementedAccountServiceServer

	Config
	ports         Ports
	drain         *drain.Drain
	memory        *admission.Memory
	streams       *admission.Streams
	downloads     *admission.Downloads
	watches       *admission.Watches
	processors    *admission.Processors
	uploads       *upload.Engine
	conversations *conversations.Creator
	urls          *download.URLs

	receipts *receipts
	seal     agentSeal
}

// New returns a Server.
func New(c Config, p Ports) *Server {
	d := drain.New()
	s := &Server{
		Config: c,
		ports:  p,
		drain:  d,
		memory: admission.NewMemory(admission.Limits{
			Budget: c.MemoryBudget, UploadsPerCaller: c.MaxUploadsPerCaller, QueueLength: c.QueueLength, QueueTimeout: c.QueueWait,
			Draining: d.Draining(), Now: c.Now,
		}),
		streams:    admission.NewStreams(c.MaxStreamsPerCaller),
		watches:    admission.NewWatches(c.MaxWatches),
		processors: admission.NewProcessors(runtime.GOMAXPROCS(0)),
		downloads: admission.NewDownloads(admission.DownloadLimits{
			Budget: c.DownloadMemory, QueueLength: c.QueueLength, QueueTimeout: c.QueueWait, Now: c.Now, Blocks: c.Buffers,
		}),
		urls: download.NewURLs(c.Now),
		seal: newAgentSeal(c.AgentTokenKey),
		conversations: conversations.New(conversations.Config{
			Ledger: p.Ledger, CallTimeout: c.UnaryTimeout, Settle: c.Settle, RequestIDTTL: c.RequestIDTTL, Now: c.Now, Log: c.Log,
		}),
	}
	s.receipts = &receipts{
		settings: c.Settings, session: s.session, timeout: c.PublishTimeout, inFlight: make(chan struct{}, maxReceipts), drain: s.drain,
		rejections: c.Rejections, log: c.Log,
	}
	s.uploads = upload.New(upload.Config{
		OpenSession: func(ctx context.Context, credential share.Credential, firstBytes int64) (upload.Session, error) {
			return s.openUploadSession(ctx, credential, firstBytes)
		},
		Store: p.Store, Ledger: p.Ledger, Images: p.Images, Scanner: p.Scanner, Memory: s.memory, Processors: s.processors, Drain: s.drain,
		IdleTimeout: c.IdleTimeout, Timeout: c.UploadTimeout, MinRate: c.MinUploadRate, RequestIDTTL: c.RequestIDTTL,
		PublishTimeout: c.PublishTimeout, Settle: c.Settle, Now: c.Now, Log: c.Log,
	})
	return s
}

// Register adds the services to a gRPC server.
func (s *Server) Register(g grpc.ServiceRegistrar) {
	lpfilesharev1.RegisterFileSharingServiceServer(g, s)
	lpfilesharev1.RegisterConversationServiceServer(g, s)
	lpfilesharev1.RegisterIdentityServiceServer(g, s)
	lpfilesharev1.RegisterAccountServiceServer(g, s)
}

// Drain rejects new uploads and ends watches, with SERVER_DRAINING. Running calls continue.
func (s *Server) Drain() { s.drain.Begin() }

// Stop ends running calls with SERVER_DRAINING, except messages that are being published.
func (s *Server) Stop() { s.drain.Stop() }

// Close waits for the last goroutine. Call it after the gRPC server has stopped, which must be configured with
// grpc.WaitForHandlers.
func (s *Server) Close() { s.drain.Wait() }

// session opens the caller's LivePerson session for an account's resource, which proves the identity. The caller of session
// releases it.
func (s *Server) session(ctx context.Context, account string) (Session, error) {
	c, err := s.credential(ctx, account)
	if err != nil {
		return nil, err
	}
	return s.openSession(ctx, c)
}

// openSession opens the session of a credential, which must turn out to be of its account.
func (s *Server) openSession(ctx context.Context, c share.Credential) (Session, error) {
	session, err := s.ports.Messenger.Session(ctx, c)
	if err != nil {
		return nil, err
	}
	if session.Principal().Account != c.Account {
		session.Release()
		return nil, errOtherAccount()
	}
	factsOf(ctx).prove(session.Principal())
	return session, nil
}

// openUploadSession is openSession for an upload. Until the identity is proved the bytes of the call's first message count against the
// share of the peer's address.
func (s *Server) openUploadSession(ctx context.Context, c share.Credential, firstBytes int64) (Session, error) {
	if s.ports.Messenger.Opened(c) {
		return s.openSession(ctx, c)
	}
	release, err := s.Openings.Hold(c, firstBytes+specBytes)
	if err != nil {
		return nil, err
	}
	defer release()
	return s.openSession(ctx, c)
}

// specBytes is what the first message of an upload holds beside the file's bytes, or less: a preview and a caption.
const specBytes = 48 << 10

// streamSession is session for a download or a watch, which counts as a stream of its caller: of the credential, and once that is
// proved of the principal. The caller of streamSession calls done.
func (s *Server) streamSession(ctx context.Context, account string) (session Session, done func(), err error) {
	credential, err := s.credential(ctx, account)
	if err != nil {
		return nil, nil, err
	}
	releaseCredential, err := s.streams.Acquire(admission.ByCredential(credential))
	if err != nil {
		return nil, nil, err
	}
	if session, err = s.openSession(ctx, credential); err != nil {
		releaseCredential()
		return nil, nil, err
	}
	releasePrincipal, err := s.streams.Acquire(admission.ByPrincipal(session.Principal()))
	if err != nil {
		session.Release()
		releaseCredential()
		return nil, nil, err
	}
	return session, func() {
		releasePrincipal()
		session.Release()
		releaseCredential()
	}, nil
}

// checkServed rejects accounts that this server does not handle.
func (s *Server) checkServed(account string) error {
	if s.Serves(account) {
		return nil
	}
	return share.Reject(share.NotAllowed, "this server does not handle account %s", account)
}

func errOtherAccount() error {
	return share.Reject(share.NotAllowed, "the token is of another account")
}
