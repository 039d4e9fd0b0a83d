package main

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
)

func TestHealth(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{}, "--drain-time=10m")
	conn, err := grpc.NewClient(w.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	health := healthpb.NewHealthClient(conn)
	for _, service := range []string{"", "lpfileshare.v1.FileSharingService"} {
		if resp, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{Service: service}); err != nil || resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
			t.Errorf("%q is %v, %v", service, resp, err)
		}
	}
	if _, err := health.Check(t.Context(), &healthpb.HealthCheckRequest{Service: "unknown"}); status.Code(err) != codes.NotFound {
		t.Errorf("an unknown service: %v, want NOT_FOUND", err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	watch, err := health.Watch(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if first, err := watch.Recv(); err != nil || first.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Fatalf("the watch begins with %v, %v", first, err)
	}
	w.server.Quit()
	if next, err := watch.Recv(); err != nil || next.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("when the drain begins the watch sends %v, %v", next, err)
	}
	w.stop() // fails after a minute if the watch delays the drain
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
