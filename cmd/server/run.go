package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	middleware "github.com/grpc-ecosystem/go-grpc-middleware/v2"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/logging"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/recovery"
	"github.com/grpc-ecosystem/go-grpc-middleware/v2/interceptors/selector"
	"golang.org/x/net/netutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"
	"google.golang.org/grpc/status"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/recvlimit"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/internal/service"
)

// run serves until ctx ends, drains, and returns the exit code: 0, 1 for a failure, 2 for wrong flags.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	f, code, done := parse(args, stdout, stderr)
	if done {
		return code
	}
	if f.CheckAccounts {
		return checkAccounts(f, stdout, stderr)
	}
	log := newLogger(f, stderr)
	if err := serve(ctx, f, log); err != nil {
		fmt.Fprintf(stderr, "lpfileshare-server: %v\n", err)
		return 1
	}
	return 0
}

func serve(ctx context.Context, f *flags, log *slog.Logger) error {
	boundMemory(f, 0)
	hangups := make(chan os.Signal, 1)
	if f.Accounts != "" || f.TLSCert != "" || f.WebhookCert != "" { // otherwise SIGHUP ends the server, as when its terminal is closed
		signal.Notify(hangups, syscall.SIGHUP)
		defer signal.Stop(hangups)
	}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", f.Listen)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	defer listener.Close()
	secure, err := newServerTLS(&f.tlsFlags)
	if err != nil {
		return err
	}
	listener = netutil.LimitListener(listener, f.MaxConnections)
	h, err := build(ctx, f, log)
	if err != nil {
		return err
	}
	defer h.close()
	if f.DebugListen != "" {
		debug, err := startDebug(f.DebugListen, h.connector, log)
		if err != nil {
			return err
		}
		defer debug.close()
		h.debug = debug.listener.Addr().String()
	}

	draining, watchersGo := context.WithCancel(context.Background())
	defer watchersGo()
	messages := recvlimit.New(int64(f.ReceiveMemory), log)
	server := newGRPCServer(f, messages.Credentials(secure.credentials()), log, draining)
	h.service.Register(server)
	serving := health.NewServer()
	serving.SetServingStatus(lpfilesharev1.FileSharingService_ServiceDesc.ServiceName, healthpb.HealthCheckResponse_SERVING)
	h.ledger.Watch(func(usable bool) {
		status := healthpb.HealthCheckResponse_SERVING
		if !usable {
			status = healthpb.HealthCheckResponse_NOT_SERVING
		}
		serving.SetServingStatus(ledgerHealth, status)
	})
	healthpb.RegisterHealthServer(server, serving)
	reflection.Register(server)

	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }() // ends with server.Stop, which drain and the return below see to
	logReady(f, h, listener, log)
	for running := true; running; {
		select {
		case err := <-ended:
			return fmt.Errorf("serving gRPC: %w", err)
		case <-hangups:
			if f.Accounts != "" {
				reloadAccounts(f, h.accounts, log)
			}
			if secure != nil {
				secure.reload(log)
			}
			if f.WebhookCert != "" {
				h.webhooks.reload(log)
			}
		case <-ctx.Done():
			running = false
		}
	}
	drain(f, h, server, serving, watchersGo, log)
	<-ended
	return nil
}

// logReady writes the one line that says what is bound where, whatever the level: whoever started the server waits for it. Port 0 in the flags is the real one here.
func logReady(f *flags, h *house, listener net.Listener, log *slog.Logger) {
	attrs := []slog.Attr{slog.String("grpc", listener.Addr().String()), slog.String("tls", f.tlsKind())}
	if h.debug != "" {
		attrs = append(attrs, slog.String("debug", h.debug))
	}
	if h.webhooks != nil {
		attrs = append(attrs, slog.String("webhooks", h.webhooks.listener.Addr().String()))
	}
	if h.sandbox != nil {
		attrs = append(attrs, slog.String("sandbox", h.sandbox.URL()))
		if h.sandbox.TLSURL() != "" {
			attrs = append(attrs, slog.String("sandbox_tls", h.sandbox.TLSURL()))
		}
		attrs = append(attrs, slog.String("sandbox_account", sandboxAccount), slog.String("sandbox_user", f.SandboxUser), slog.String("sandbox_password", f.SandboxPassword),
			slog.String("sandbox_app", sandbox.DefaultAppID), slog.String("sandbox_app_secret", sandbox.DefaultAppSecret))
	}
	attrs = append(attrs, slog.String("ledger", h.kept))
	log.LogAttrs(context.Background(), max(slog.LevelInfo, f.LogLevel), "ready", attrs...)
}

// drain lets running calls end, within bounds. First the health service says that this server goes, and what is new is refused
// with SERVER_DRAINING, over new connections too; then connections are told to go, and no more are taken; then what still runs is
// told to end; then it is cut.
func drain(f *flags, h *house, server *grpc.Server, serving *health.Server, watchersGo func(), log *slog.Logger) {
	log.Info("draining", "for_at_most", f.DrainTime.String())
	serving.Shutdown()
	watchersGo()
	h.service.Drain()
	notice := min(f.DrainNotice, f.DrainTime)
	time.Sleep(notice)
	graceful := make(chan struct{})
	go func() {
		server.GracefulStop() // ends when all calls have, or with Stop below
		close(graceful)
	}()
	for _, step := range []struct {
		wait time.Duration
		then func()
	}{
		{f.DrainTime - notice, h.service.Stop},
		// What is being published goes on for as long as LivePerson may take.
		{f.LPTimeout + time.Second, server.Stop},
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
	log.Warn("stopped, and calls were cut off")
}

func newGRPCServer(f *flags, creds credentials.TransportCredentials, log *slog.Logger, draining context.Context) *grpc.Server {
	recovered := recovery.WithRecoveryHandlerContext(service.Recovered(log))
	opts := []logging.Option{logging.WithLogOnEvents(logging.FinishCall), logging.WithLevels(callLevel)}
	ours := selector.MatchFunc(func(_ context.Context, c interceptors.CallMeta) bool { // probes come every few seconds
		return strings.HasPrefix(c.Service, "lpfileshare.v1.")
	})
	return grpc.NewServer(
		grpc.Creds(creds),
		grpc.MaxRecvMsgSize(service.MaxRecvMessageBytes),
		grpc.MaxConcurrentStreams(250),
		grpc.ConnectionTimeout(20*time.Second),
		grpc.MaxHeaderListSize(16<<10),
		grpc.InTapHandle(service.RequestTimeout(f.UploadIdleTimeout)),
		grpc.WaitForHandlers(true),
		// Both set, and generously: bounded memory for each stream, and as cheap as windows that grow (docs/adr/0005).
		grpc.InitialWindowSize(1<<20),
		grpc.InitialConnWindowSize(4<<20),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: 30 * time.Second, Timeout: 10 * time.Second, MaxConnectionIdle: 5 * time.Minute,
			MaxConnectionAge: 30 * time.Minute, MaxConnectionAgeGrace: f.UploadTimeout + time.Minute,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: service.MinPingInterval, PermitWithoutStream: true}),
		grpc.ChainUnaryInterceptor(
			recovery.UnaryServerInterceptor(recovered),
			service.UnaryRequestReceived,
			selector.UnaryServerInterceptor(logging.UnaryServerInterceptor(callLogger(log), opts...), ours),
			service.UnaryErrors(log, 3*f.LPTimeout),
		),
		grpc.ChainStreamInterceptor(
			recovery.StreamServerInterceptor(recovered),
			service.StreamRequestReceived,
			endHealthWatches(draining),
			selector.StreamServerInterceptor(logging.StreamServerInterceptor(callLogger(log), opts...), ours),
			service.StreamErrors(log),
		),
	)
}

// callLogger lets the middleware log with slog; the levels have the same numbers. It logs calls, never messages.
func callLogger(log *slog.Logger) logging.Logger {
	return logging.LoggerFunc(func(ctx context.Context, level logging.Level, msg string, fields ...any) {
		log.Log(ctx, slog.Level(level), msg, fields...)
	})
}

// callLevel says how loud the end of a call is: a caller's mistake is no trouble of ours.
func callLevel(code codes.Code) logging.Level {
	switch code {
	case codes.Internal, codes.DataLoss, codes.Unknown:
		return logging.LevelError
	case codes.Unavailable, codes.ResourceExhausted:
		return logging.LevelWarn
	}
	return logging.LevelInfo
}

// endHealthWatches ends the watches of the health service when the server drains, once they have been told: they would hold the
// drain up to its end.
func endHealthWatches(draining context.Context) grpc.StreamServerInterceptor {
	const telling = 100 * time.Millisecond
	return func(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		if info.FullMethod != healthpb.Health_Watch_FullMethodName {
			return handler(srv, stream)
		}
		ctx, cancel := context.WithCancel(stream.Context())
		defer cancel()
		stop := context.AfterFunc(draining, func() {
			timer := time.NewTimer(telling)
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
			return status.Error(codes.Unavailable, "the server is going down")
		}
		return err
	}
}

// boundMemory makes the garbage collector keep the process near what it may hold: by the flags files, messages that are arriving,
// sessions and the rest, and what the ledger has now. The sandbox keeps files of its own, so there it is left alone.
func boundMemory(f *flags, ledger int64) {
	const rest, session = 48 << 20, 16 << 10
	if os.Getenv("GOMEMLIMIT") == "" && !f.Sandbox {
		debug.SetMemoryLimit(int64(f.MemoryBudget+f.PreviewMemory+f.ReceiveMemory) + rest + int64(f.MaxSessions)*session + ledger)
	}
}
