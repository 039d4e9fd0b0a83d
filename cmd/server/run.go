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
	"github.com/lpfileshare/lpfileshare/internal/audit"
	"github.com/lpfileshare/lpfileshare/internal/connlimit"
	"github.com/lpfileshare/lpfileshare/internal/metrics"
	"github.com/lpfileshare/lpfileshare/internal/recvlimit"
	"github.com/lpfileshare/lpfileshare/internal/rejections"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/internal/service"
	"github.com/lpfileshare/lpfileshare/internal/web"
)

// run serves until ctx ends, drains, and returns the exit code: 0, 1 for a failure, 2 for invalid flags. The commands of policyCommands
// do not serve.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == "policy" {
		return runPolicy(args[1:], stdout, stderr)
	}
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
	if err := serve(ctx, f, log, stderr); err != nil {
		fmt.Fprintf(log.out, "lpfileshare-server: %v\n", err)
		return 1
	}
	return 0
}

func serve(ctx context.Context, f *flags, lines *serverLog, stderr io.Writer) error {
	limitMemory(f, 0)
	log := lines.Logger
	rejected := rejections.New(log)
	defer rejected.Close()
	hangups := make(chan os.Signal, 1)
	// Without files to reload, SIGHUP drains a server whose terminal was closed, unless it was started with nohup. A server without a
	// terminal is a service, and SIGHUP asks it to reload: that must not end it.
	reloadable := f.LivePerson.Accounts != "" || f.LivePerson.CA != "" || f.Server.TLS.Cert != "" || f.Connector.WebhookCert != "" || f.Web.Cert != "" || f.Audit.path() != ""
	terminal := hasTerminal()
	if reloadable || !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(hangups, syscall.SIGHUP)
		defer signal.Stop(hangups)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", f.Server.Listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	defer listener.Close()
	reloads := &reloader{every: f.Behaviour.ReloadEvery}
	trail, err := openAudit(f, stderr, log)
	if err != nil {
		return err
	}
	defer trail.Close(logFlushTime) // when all calls have ended
	if f.Audit.path() != "" {
		reloads.add("audit", files(), trail.Reopen) // only at SIGHUP: rotation is no change of the file's content
	}
	admin, err := listenAdmin(&f.Admin, rejected)
	if err != nil {
		return err
	}
	serving := health.NewServer()
	var measured *metrics.Metrics // nil: without --admin-listen they are not counted
	if f.Admin.Listen != "" {
		measured = newMetrics()
	}
	transport, err := newTransport(ctx, &f.Server.TLS, f.Admin.ClientCA, reloads, measured, trail, log)
	if err != nil {
		return err
	}
	defer transport.close()
	if admin != nil {
		admin.start(measured, serving, transport.files, trail, log)
		defer admin.close()
	}
	traced, err := newTraces(ctx, measured, log)
	if err != nil {
		return err
	}
	defer traced.Close() // after the drain
	connections := connlimit.New(f.Limits.MaxConnections, rejected.Add)
	listener = connections.Listener(listener)
	p, err := build(ctx, f, reloads, traced.StepObserver(measured.StepObserver()), rejected, log)
	if err != nil {
		return err
	}
	defer p.close()
	draining, endWatches := context.WithCancel(context.Background())
	defer endWatches()
	messages := recvlimit.New(int64(f.Limits.ReceiveMemory), log)
	counted := &counters{rejected, messages, p.connector, p.scanner, lines}
	options := append([]grpc.ServerOption{grpc.Creds(messages.Credentials(web.Credentials(auditedHandshakes{transport.credentials(), trail})))}, p.sandbox.serverOptions()...)
	ready := &readiness{server: serving, needsEvents: func() bool { return anyAccount(p.accounts.Set(), usesConnector) }, refuses: trail.Refuses}
	identifier, err := f.identifier(ready.update, log)
	if err != nil {
		return err
	}
	ready.knowsKeys = identifier.Ready
	options = append(options, traceCalls(traced, identifier)...)
	p.ledger.Watch(ready.ledgerChanged)
	trail.Watch(ready.update)
	defer watchScanner(p.scanner, ready.scannerChanged)()
	identifier.Start()
	defer identifier.Close()
	server := newGRPCServer(f, authenticate(identifier), connections, measured, trail, rejected, log, draining, options...)
	p.service.Register(server)
	healthpb.RegisterHealthServer(server, serving)
	reflection.Register(server)
	if measured != nil {
		measured.Serves(server)
		addGauges(measured, f, p, counted, trail, serving)
		if transport.files != nil {
			measured.Gauge("lpfs_certificate_not_after_timestamp_seconds", "When the certificate of --tls-cert expires.", transport.files.notAfter)
		}
	}
	admin.addPages(&inspected{f, p, counted, measured, serving})

	pipe := web.NewPipe()
	browsers, err := startWeb(f, server, pipe, connlimit.New(f.Limits.MaxConnections, rejected.Add), reloads, log)
	if err != nil {
		return err
	}
	defer browsers.close()
	closePage, err := servePage(f, server, pipe, p.sandbox, listener.Addr())
	if err != nil {
		return err
	}
	defer closePage()
	ended := make(chan error, 2)
	for _, l := range []net.Listener{listener, pipe} { // both end with server.Stop or GracefulStop, which drain calls
		go func() { ended <- server.Serve(l) }()
	}
	logReady(f, p, listener.Addr(), admin, browsers, lines)
	reloads.done = func(file, cause string, err error) {
		measured.Reloaded(file, err)
		trail.Reloaded(file, cause, err)
		ready.update()
	}
	watching, endWatching := context.WithCancel(context.Background())
	defer reloads.watch(watching)()
	defer endWatching()
	reload := reloads.all
	if !reloadable {
		reload = nil
		if !terminal {
			reload = func() { log.Info("hangup signal received, but no flag names a file to reload") }
		}
	}
	cause, err := waitForEnd(ctx, ended, hangups, reload)
	if err != nil {
		return err
	}
	lines.always("draining", slog.String("cause", cause.Error()), slog.String("for_at_most", f.Behaviour.DrainTime.String()))
	drain(f, p.service, server, browsers, serving, endWatches, log)
	<-ended
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
func logReady(f *flags, p *parts, grpcAddress net.Addr, admin *adminServer, browsers *webServer, log *serverLog) {
	attrs := []slog.Attr{slog.String("grpc", grpcAddress.String()), slog.String("tls", f.Server.TLS.kind())}
	attrs = append(attrs, admin.addresses()...)
	if browsers != nil {
		attrs = append(attrs, slog.String("web", browsers.listener.Addr().String()))
	}
	if p.webhooks != nil {
		attrs = append(attrs, slog.String("webhooks", p.webhooks.listener.Addr().String()))
	}
	if p.sandbox != nil {
		attrs = append(attrs, slog.String("sandbox", p.sandbox.URL()), slog.String("page", p.sandbox.URL()+"/"))
		if p.sandbox.TLSURL() != "" {
			attrs = append(attrs, slog.String("sandbox_tls", p.sandbox.TLSURL()))
		}
		attrs = append(attrs, slog.String("sandbox_account", sandboxAccount), slog.String("sandbox_user", f.Sandbox.User), slog.String("sandbox_password", f.Sandbox.Password),
			slog.String("sandbox_app", sandbox.DefaultAppID), slog.String("sandbox_app_secret", sandbox.DefaultAppSecret))
	}
	attrs = append(attrs, slog.String("ledger", p.ledgerPlace))
	log.always("ready", attrs...)
}

// drain shuts down in four steps:
//  1. The health service reports that this server is not serving, and new calls are rejected with SERVER_DRAINING.
//  2. After DrainNotice the server closes its listeners, and clients receive GOAWAY. Browsers' connections close as they become idle.
//  3. After DrainTime the service ends the calls that still run.
//  4. What is being published may take as long as LivePerson may; then the connections are closed.
func drain(f *flags, svc *service.Server, server *grpc.Server, browsers *webServer, serving *health.Server, endWatches func(), log *slog.Logger) {
	b := &f.Behaviour
	serving.Shutdown()
	endWatches()
	svc.Drain()
	notice := min(b.DrainNotice, b.DrainTime)
	time.Sleep(notice)
	defer browsers.drain()()
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

func newGRPCServer(f *flags, authenticate func(context.Context) (context.Context, error), connections *connlimit.Limiter, measured *metrics.Metrics, trail *audit.Log, rejected *rejections.Tally, log *slog.Logger, draining context.Context, more ...grpc.ServerOption) *grpc.Server {
	recovered := recovery.WithRecoveryHandlerContext(service.Recovered(log))
	calls := &service.Calls{UnaryTimeout: 3 * f.LivePerson.Timeout, Authenticate: authenticate, Rejections: rejected, Log: log}
	timeout := service.RequestTimeout(f.Limits.UploadIdleTimeout, unseenCalls(trail))
	if measured != nil {
		calls.Ended = append(calls.Ended, measured.Ended)
		more = append(more, grpc.UnaryInterceptor(measured.Unary()), grpc.StreamInterceptor(measured.Stream())) // outside of those below
	}
	if trail != nil {
		calls.Accept = trail.Accept
		calls.Ended = append(calls.Ended, trail.Ended)
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
		budgets := f.Web.budget() + l.firstBytes() + int64(l.MemoryBudget+l.DownloadMemory+l.PreviewMemory+l.ReceiveMemory+l.ListMemory)
		debug.SetMemoryLimit(budgets + int64(f.LivePerson.MaxSessions)*session + int64(l.MaxWatches)*watch + ledger + rest)
	}
}
