package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"

	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/connlimit"
	"github.com/lpfileshare/lpfileshare/internal/metrics"
	"github.com/lpfileshare/lpfileshare/internal/recvlimit"
	"github.com/lpfileshare/lpfileshare/internal/rejections"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/internal/service"
)

// run serves until ctx ends, drains, and returns the exit code: 0, 1 for a failure, 2 for invalid flags.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	f, code, done := parse(args, stdout, stderr)
	if done {
		return code
	}
	if f.LivePerson.CheckAccounts {
		return checkAccounts(f, stdout, stderr)
	}
	log := openLog(&f.Log, stderr)
	defer log.close()
	warnUnknown(os.Environ(), f.envs, log.Logger)
	if err := serve(ctx, f, log); err != nil {
		fmt.Fprintf(log.out, "lpfileshare-server: %v\n", err)
		return 1
	}
	return 0
}

func serve(ctx context.Context, f *flags, lines *serverLog) error {
	limitMemory(f, 0)
	log := lines.Logger
	rejected := rejections.New(log)
	defer rejected.Close()
	hangups := make(chan os.Signal, 1)
	// Without files to reload, SIGHUP drains a server whose terminal was closed, unless it was started with nohup. A server without a
	// terminal is a service, and SIGHUP asks it to reload: that must not end it.
	reloads := f.LivePerson.Accounts != "" || f.LivePerson.CA != "" || f.Server.TLS.Cert != "" || f.Connector.WebhookCert != ""
	terminal := hasTerminal()
	if reloads || !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(hangups, syscall.SIGHUP)
		defer signal.Stop(hangups)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", f.Server.Listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	defer listener.Close()
	secure, err := newServerTLS(&f.Server.TLS)
	if err != nil {
		return err
	}
	admin, err := listenAdmin(&f.Admin, rejected)
	if err != nil {
		return err
	}
	serving := health.NewServer()
	var measured *metrics.Metrics // nil: nobody can read them
	if admin != nil {
		measured = newMetrics()
		admin.start(measured, serving, log)
		defer admin.close()
	}
	connections := connlimit.New(f.Limits.MaxConnections, rejected.Add)
	listener = connections.Listener(listener)
	p, err := build(ctx, f, measured.StepObserver(), rejected, log)
	if err != nil {
		return err
	}
	defer p.close()
	draining, endWatches := context.WithCancel(context.Background())
	defer endWatches()
	messages := recvlimit.New(int64(f.Limits.ReceiveMemory), log)
	counted := &counters{rejected, messages, p.connector, p.scanner, lines}
	debugAddress := ""
	if f.Log.DebugListen != "" {
		debug, err := startDebug(f.Log.DebugListen, counted, log)
		if err != nil {
			return err
		}
		defer debug.close()
		debugAddress = debug.listener.Addr().String()
	}
	options := []grpc.ServerOption{grpc.Creds(messages.Credentials(secure.credentials()))}
	if p.sandbox != nil {
		options = append(options, grpc.StatsHandler(&callFeed{report: p.sandbox.ReportCall}))
	}
	server := newGRPCServer(f, connections, measured, rejected, log, draining, options...)
	p.service.Register(server)
	ready := &readiness{server: serving, needsEvents: func() bool { return anyAccount(p.accounts.Set(), usesConnector) }}
	p.ledger.Watch(ready.ledgerChanged)
	healthpb.RegisterHealthServer(server, serving)
	reflection.Register(server)
	if measured != nil {
		measured.Serves(server)
		addGauges(measured, f, p, counted, serving)
		if secure != nil {
			measured.Gauge("lpfs_certificate_not_after_timestamp_seconds", "When the certificate of --tls-cert expires.", secure.notAfter)
		}
	}

	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }() // ends with server.Stop or GracefulStop, which drain calls
	logReady(f, p, listener.Addr(), admin, debugAddress, log)
	reload := func() {
		if f.LivePerson.Accounts != "" {
			measured.Reloaded("accounts", reloadAccounts(f, p.accounts, log))
			ready.update()
		}
		if f.LivePerson.CA != "" {
			measured.Reloaded("lp-ca", reloadTrust(&f.LivePerson, p.trustUsers, log))
		}
		if secure != nil {
			measured.Reloaded("tls-cert", secure.reload(log))
		}
		if f.Connector.WebhookCert != "" {
			measured.Reloaded("webhook-cert", p.webhooks.reload(log))
		}
	}
	if !reloads {
		reload = nil
		if !terminal {
			reload = func() { log.Info("hangup signal received, but no flag names a file to reload") }
		}
	}
	cause, err := waitForEnd(ctx, ended, hangups, reload)
	if err != nil {
		return err
	}
	// At any level: the log must say why the server ended.
	log.Log(context.Background(), max(slog.LevelInfo, f.Log.Level), "draining", "cause", cause.Error(), "for_at_most", f.Behaviour.DrainTime.String())
	drain(f, p.service, server, serving, endWatches, log)
	<-ended
	return nil
}

// waitForEnd returns why the server is to drain, or an error if it has stopped serving by itself. Until then it calls reload, if not
// nil, at each hangup.
func waitForEnd(ctx context.Context, ended <-chan error, hangups <-chan os.Signal, reload func()) (cause, err error) {
	for {
		select {
		case err := <-ended:
			return nil, fmt.Errorf("serving gRPC: %w", err)
		case <-hangups:
			if reload == nil {
				return errors.New("hangup signal received"), nil
			}
			reload()
		case <-ctx.Done():
			return context.Cause(ctx), nil
		}
	}
}

// logReady logs the addresses of the server, with the real port in place of port 0. It logs at any level, because programs that start
// the server wait for this line.
func logReady(f *flags, p *parts, grpcAddress net.Addr, admin *adminServer, debugAddress string, log *slog.Logger) {
	attrs := []slog.Attr{slog.String("grpc", grpcAddress.String()), slog.String("tls", f.Server.TLS.kind())}
	if admin != nil {
		attrs = append(attrs, slog.String("admin", admin.listener.Addr().String()))
	}
	if debugAddress != "" {
		attrs = append(attrs, slog.String("debug", debugAddress))
	}
	if p.webhooks != nil {
		attrs = append(attrs, slog.String("webhooks", p.webhooks.listener.Addr().String()))
	}
	if p.sandbox != nil {
		attrs = append(attrs, slog.String("sandbox", p.sandbox.URL()))
		if p.sandbox.TLSURL() != "" {
			attrs = append(attrs, slog.String("sandbox_tls", p.sandbox.TLSURL()))
		}
		attrs = append(attrs, slog.String("sandbox_account", sandboxAccount), slog.String("sandbox_user", f.Sandbox.User), slog.String("sandbox_password", f.Sandbox.Password),
			slog.String("sandbox_app", sandbox.DefaultAppID), slog.String("sandbox_app_secret", sandbox.DefaultAppSecret))
	}
	attrs = append(attrs, slog.String("ledger", p.ledgerPlace))
	log.LogAttrs(context.Background(), max(slog.LevelInfo, f.Log.Level), "ready", attrs...)
}

// drain shuts down in four steps:
//  1. The health service reports that this server is not serving, and new calls are rejected with SERVER_DRAINING.
//  2. After DrainNotice the server closes its listener, and clients receive GOAWAY.
//  3. After DrainTime the service ends the calls that still run.
//  4. What is being published may take as long as LivePerson may; then the connections are closed.
func drain(f *flags, svc *service.Server, server *grpc.Server, serving *health.Server, endWatches func(), log *slog.Logger) {
	b := &f.Behaviour
	serving.Shutdown()
	endWatches()
	svc.Drain()
	notice := min(b.DrainNotice, b.DrainTime)
	time.Sleep(notice)
	graceful := make(chan struct{})
	go func() {
		server.GracefulStop() // ends when all calls have ended, or with Stop below
		close(graceful)
	}()
	for _, step := range []struct {
		wait time.Duration
		then func()
	}{
		{b.DrainTime - notice, svc.Stop},
		{f.LivePerson.Timeout + time.Second, server.Stop},
	} {
		timer := time.NewTimer(step.wait)
		select {
		case <-graceful:
			timer.Stop()
			log.Info("stopped")
			return
		case <-timer.C:
			step.then()
		}
	}
	<-graceful
	log.Warn("stopped before all calls had ended")
}

// Limits of health watches and reflection streams, which need no identity: those of one connection, and those of all connections in
// addition to the first of each.
const (
	probesPerConnection = 16
	moreProbes          = 256
)

func newGRPCServer(f *flags, connections *connlimit.Limiter, measured *metrics.Metrics, rejected *rejections.Tally, log *slog.Logger, draining context.Context, more ...grpc.ServerOption) *grpc.Server {
	recovered := recovery.WithRecoveryHandlerContext(service.Recovered(log))
	calls := &service.Calls{UnaryTimeout: 3 * f.LivePerson.Timeout, Rejections: rejected, Log: log}
	timeout := service.RequestTimeout(f.Limits.UploadIdleTimeout)
	if measured != nil {
		calls.Ended = measured.Ended
		more = append(more, grpc.UnaryInterceptor(measured.Unary()), grpc.StreamInterceptor(measured.Stream())) // outside of those below
	}
	options := []grpc.ServerOption{
		grpc.MaxRecvMsgSize(service.MaxRecvMessageBytes),
		grpc.ForceServerCodecV2(service.Codec()),
		experimental.BufferPool(&messageBuffers),
		grpc.MaxConcurrentStreams(250),
		grpc.ConnectionTimeout(20 * time.Second),
		grpc.MaxHeaderListSize(16 << 10),
		grpc.InTapHandle(func(ctx context.Context, info *tap.Info) (context.Context, error) {
			connections.Call(ctx)
			return timeout(ctx, info)
		}),
		grpc.WaitForHandlers(true),
		// Goroutines that serve one call after another keep stacks that are large enough, which new ones would have to copy.
		grpc.NumStreamWorkers(streamWorkers),
		// Fixed large windows limit the memory of each stream and are as fast as windows that grow (docs/adr/0005).
		grpc.InitialWindowSize(1 << 20),
		grpc.InitialConnWindowSize(4 << 20),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: 30 * time.Second, Timeout: 10 * time.Second, MaxConnectionIdle: 5 * time.Minute,
			MaxConnectionAge: 30 * time.Minute, MaxConnectionAgeGrace: f.Limits.UploadTimeout + time.Minute,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: service.MinPingInterval, PermitWithoutStream: true}),
		grpc.ChainUnaryInterceptor(
			recovery.UnaryServerInterceptor(recovered),
			service.UnaryRequestReceived,
			calls.Unary,
		),
		grpc.ChainStreamInterceptor(
			recovery.StreamServerInterceptor(recovered),
			service.StreamRequestReceived,
			service.LimitProbes(admission.NewProbes(probesPerConnection, moreProbes), rejected),
			endHealthWatches(draining),
			calls.Stream,
		),
	}
	return grpc.NewServer(append(options, more...)...)
}

// streamWorkers is how many goroutines wait for calls. More calls at once get goroutines of their own.
const streamWorkers = 64

// endHealthWatches ends the watches of the health service when the server drains, after they have sent the new status. Otherwise they
// would keep the drain from ending before DrainTime.
func endHealthWatches(draining context.Context) grpc.StreamServerInterceptor {
	const sendStatus = 100 * time.Millisecond
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		if info.FullMethod != healthpb.Health_Watch_FullMethodName {
			return handler(srv, stream)
		}
		ctx, cancel := context.WithCancel(stream.Context())
		defer cancel()
		stop := context.AfterFunc(draining, func() {
			timer := time.NewTimer(sendStatus)
			defer timer.Stop()
			select {
			case <-timer.C:
				cancel()
			case <-ctx.Done():
			}
		})
		defer stop()
		wrapped := middleware.WrapServerStream(stream)
		wrapped.WrappedContext = ctx
		err := handler(srv, wrapped)
		if draining.Err() != nil && stream.Context().Err() == nil {
			return status.Error(codes.Unavailable, "the server is shutting down")
		}
		return err
	}
}

// limitMemory sets the memory limit of the garbage collector: the budgets of the flags, the sessions, the watches, the ledger's current
// memory and a fixed amount for the rest. With --sandbox there is no limit, because the sandbox keeps its files in memory.
func limitMemory(f *flags, ledger int64) {
	const rest, session, watch = 48 << 20, 16 << 10, 32 << 10
	if os.Getenv("GOMEMLIMIT") == "" && !f.Sandbox.On {
		l := &f.Limits
		budgets := l.firstBytes() + int64(l.MemoryBudget+l.DownloadMemory+l.PreviewMemory+l.ReceiveMemory+l.ListMemory)
		debug.SetMemoryLimit(budgets + int64(f.LivePerson.MaxSessions)*session + int64(l.MaxWatches)*watch + ledger + rest)
	}
}
