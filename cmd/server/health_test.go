package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/process"
)

const (
	serving    = healthpb.HealthCheckResponse_SERVING
	notServing = healthpb.HealthCheckResponse_NOT_SERVING
)

// healthClient returns a client of the server's health service.
func (w *world) healthClient() healthpb.HealthClient {
	w.t.Helper()
	conn, err := grpc.NewClient(w.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	return healthpb.NewHealthClient(conn)
}

// A healthWatch receives the status of one name.
type healthWatch struct {
	t      *testing.T
	name   string
	stream grpc.ServerStreamingClient[healthpb.HealthCheckResponse]
}

func (w *world) watchHealth(name string) healthWatch {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 2*time.Minute)
	w.t.Cleanup(cancel)
	stream, err := w.healthClient().Watch(ctx, &healthpb.HealthCheckRequest{Service: name})
	if err != nil {
		w.t.Fatal(err)
	}
	return healthWatch{w.t, name, stream}
}

// becomes waits for a status. Its limit is far above the documented time, and others may come before: on a busy machine a write to the
// ledger may take longer than a check waits.
func (h healthWatch) becomes(want healthpb.HealthCheckResponse_ServingStatus) {
	h.t.Helper()
	begun := time.Now()
	for {
		got, err := h.stream.Recv()
		if err != nil {
			h.t.Fatalf("%q: %v; want %v", h.name, err, want)
		}
		if got.GetStatus() == want {
			break
		}
	}
	h.t.Logf("%q is %v after %v", h.name, want, time.Since(begun).Round(time.Millisecond))
}

// wantHealth checks the present status of several names.
func (w *world) wantHealth(want map[string]healthpb.HealthCheckResponse_ServingStatus) {
	w.t.Helper()
	client := w.healthClient()
	for name, status := range want {
		if got, err := client.Check(w.t.Context(), &healthpb.HealthCheckRequest{Service: name}); err != nil || got.GetStatus() != status {
			w.t.Errorf("%q is %v, %v; want %v", name, got.GetStatus(), err, status)
		}
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{}, "--drain-time=10m")
	w.wantHealth(map[string]healthpb.HealthCheckResponse_ServingStatus{"": serving, readyHealth: serving, ledgerHealth: serving, eventsHealth: serving, scannerHealth: serving, auditHealth: serving})
	if readyHealth != pb.FileSharingService_ServiceDesc.ServiceName {
		t.Errorf("readiness is named %q, clients ask for %q", readyHealth, pb.FileSharingService_ServiceDesc.ServiceName)
	}
	if _, err := w.healthClient().Check(t.Context(), &healthpb.HealthCheckRequest{Service: "unknown"}); status.Code(err) != codes.NotFound {
		t.Errorf("an unknown service: %v, want NOT_FOUND", err)
	}
	var watches []healthWatch
	for _, name := range []string{"", readyHealth, ledgerHealth, eventsHealth} {
		watch := w.watchHealth(name)
		watch.becomes(serving)
		watches = append(watches, watch)
	}
	w.server.Quit()
	for _, watch := range watches {
		watch.becomes(notServing)
	}
	w.stop() // fails after a minute if the watch delays the drain
}

// A natsServer is a NATS server in the test's process. It keeps its port and its files when it is started again.
type natsServer struct {
	t    *testing.T
	opts server.Options
	s    *server.Server
}

func startNATS(t *testing.T) *natsServer {
	t.Helper()
	ports, err := process.FreePorts(1)
	if err != nil {
		t.Fatal(err)
	}
	n := &natsServer{t: t, opts: server.Options{
		Host: "127.0.0.1", Port: ports[0], NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir(), Username: "lpfileshare", Password: "old",
	}}
	n.start()
	t.Cleanup(func() { n.stop() })
	return n
}

func (n *natsServer) start() {
	n.t.Helper()
	opts := n.opts
	s, err := server.NewServer(&opts)
	if err != nil {
		n.t.Fatal(err)
	}
	n.s = s
	s.Start()
	if !s.ReadyForConnections(time.Minute) {
		n.t.Fatal("the NATS server did not start")
	}
}

func (n *natsServer) stop() {
	n.s.Shutdown()
	n.s.WaitForShutdown()
}

// removeStreams removes streams, as an operator can.
func (n *natsServer) removeStreams(names ...string) {
	n.t.Helper()
	conn, err := nats.Connect(n.s.ClientURL(), nats.UserInfo(n.opts.Username, n.opts.Password))
	if err != nil {
		n.t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		n.t.Fatal(err)
	}
	for _, name := range names {
		if err := js.DeleteStream(n.t.Context(), name); err != nil {
			n.t.Fatal(err)
		}
	}
}

// TestHealth_Ledger breaks and repairs what uploads need, while one server runs.
func TestHealth_Ledger(t *testing.T) {
	t.Parallel()
	n := startNATS(t)
	password := filepath.Join(t.TempDir(), "password")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(password, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("old")
	w := newConnectorWorld(t, sandbox.Options{}, true, "--ledger="+n.s.ClientURL(), "--ledger-user=lpfileshare", "--ledger-password-file="+password, "--ledger-accept-loss")
	who := w.consumer()
	o := lpfileshare.UploadOptions{Conversation: w.conversation(who.Client), DisplayName: "a.jpg"}
	w.upload(who.Client, o, photo(t, 10_000))
	ready, ledger, events := w.watchHealth(readyHealth), w.watchHealth(ledgerHealth), w.watchHealth(eventsHealth)
	for _, watch := range []healthWatch{ready, ledger, events} {
		watch.becomes(serving)
	}
	cannotUpload := func() {
		t.Helper()
		o.RetryFor = -1
		_, err := who.Upload(t.Context(), o, bytes.NewReader(photo(t, 10_000)))
		wantReason(t, err, pb.ErrorReason_ERROR_REASON_LEDGER_UNAVAILABLE)
		w.wantHealth(map[string]healthpb.HealthCheckResponse_ServingStatus{"": serving})
	}
	uploads := func() {
		t.Helper()
		o.RetryFor = time.Minute
		o.Conversation = w.conversation(who.Client)
		w.upload(who.Client, o, photo(t, 10_000))
	}

	t.Log("the NATS server ends")
	n.stop()
	ledger.becomes(notServing)
	ready.becomes(notServing)
	events.becomes(notServing)
	cannotUpload()
	n.start()
	ledger.becomes(serving)
	events.becomes(serving)
	ready.becomes(serving)
	uploads()

	t.Log("the password is rotated")
	n.opts.Password = "new"
	rotated := n.opts
	if err := n.s.ReloadOptions(&rotated); err != nil {
		t.Fatal(err)
	}
	ledger.becomes(notServing)
	ready.becomes(notServing)
	events.becomes(notServing)
	write("new")
	ledger.becomes(serving)
	events.becomes(serving)
	ready.becomes(serving)
	uploads()

	t.Log("the streams of the event log are removed")
	n.removeStreams("lpfileshare_events", "lpfileshare_conversations")
	events.becomes(notServing)
	ready.becomes(notServing)
	w.wantHealth(map[string]healthpb.HealthCheckResponse_ServingStatus{ledgerHealth: serving})
	events.becomes(serving)
	ready.becomes(serving)
	uploads()

	t.Log("the bucket is removed, and the operator accepts the loss")
	n.removeStreams("KV_lpfileshare")
	ledger.becomes(notServing)
	ready.becomes(notServing)
	ledger.becomes(serving)
	ready.becomes(serving)
	uploads()
}

// TestHealth_LostRecords removes the bucket of a server whose operator has not accepted the loss.
func TestHealth_LostRecords(t *testing.T) {
	t.Parallel()
	n := startNATS(t)
	n.opts.Username, n.opts.Password = "", ""
	n.stop()
	n.start()
	w := newWorld(t, sandbox.Options{}, "--ledger="+n.s.ClientURL())
	who := w.consumer()
	o := lpfileshare.UploadOptions{Conversation: w.conversation(who.Client), DisplayName: "a.jpg", RequestID: "6f0c3a52-7d9e-4b1c-9d0a-3c1d2e4f5a6b", RetryFor: -1}
	data := photo(t, 10_000)
	w.upload(who.Client, o, data)
	ready := w.watchHealth(readyHealth)
	ready.becomes(serving)
	n.removeStreams("KV_lpfileshare")
	ready.becomes(notServing)
	w.logged("the ledger is not usable", "--ledger-accept-loss")
	_, err := who.Upload(t.Context(), o, bytes.NewReader(data))
	wantReason(t, err, pb.ErrorReason_ERROR_REASON_LEDGER_UNAVAILABLE)
	if published := len(w.sb.Journal().Published); published != 1 {
		t.Errorf("%d messages were published, want 1", published)
	}
}

// TestHealth_WatchesAreLimited opens watches on one connection until one is rejected. Other connections may still have one, and a check
// is no watch.
func TestHealth_WatchesAreLimited(t *testing.T) {
	w := newWorld(t, sandbox.Options{})
	dial := func() healthpb.HealthClient {
		conn, err := grpc.NewClient(w.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return healthpb.NewHealthClient(conn)
	}
	watch := func(c healthpb.HealthClient, ctx context.Context) error {
		stream, err := c.Watch(ctx, &healthpb.HealthCheckRequest{})
		if err == nil {
			_, err = stream.Recv()
		}
		return err
	}
	var first healthpb.HealthClient
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range moreProbes/(probesPerConnection-1) + 1 {
		c := dial()
		if first == nil {
			first = c
		}
		for range probesPerConnection {
			if err := watch(c, ctx); err != nil {
				if status.Code(err) != codes.ResourceExhausted {
					t.Fatal(err)
				}
				wantReason(t, err, pb.ErrorReason_ERROR_REASON_TOO_MANY_STREAMS)
			}
		}
		err := watch(c, ctx)
		wantReason(t, err, pb.ErrorReason_ERROR_REASON_TOO_MANY_STREAMS)
	}
	another := dial()
	if err := watch(another, ctx); err != nil {
		t.Errorf("the first watch of another connection: %v", err)
	}
	wantReason(t, watch(another, ctx), pb.ErrorReason_ERROR_REASON_TOO_MANY_STREAMS)
	if _, err := first.Check(ctx, &healthpb.HealthCheckRequest{}); err != nil {
		t.Error(err)
	}
}
