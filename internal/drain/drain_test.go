package drain

import (
	"context"
	"errors"
	"testing"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

func TestDrain_Steps(t *testing.T) {
	d := New()
	draining, cancel1 := d.UntilDraining(t.Context())
	defer cancel1(nil)
	stopping, cancel2 := d.UntilStopping(t.Context())
	defer cancel2(nil)
	if d.Err() != nil || draining.Err() != nil || stopping.Err() != nil {
		t.Fatal("a new Drain has begun")
	}
	ended := make(chan struct{})
	d.Go(func() {
		<-stopping.Done()
		close(ended)
	})
	d.Begin()
	<-draining.Done()
	if !share.Is(context.Cause(draining), share.ServerDraining) || !share.Is(d.Err(), share.ServerDraining) {
		t.Errorf("draining: %v, %v", context.Cause(draining), d.Err())
	}
	if stopping.Err() != nil {
		t.Error("running work ended when draining began")
	}
	d.Wait()
	select {
	case <-ended:
	default:
		t.Error("Wait did not wait")
	}
	if !share.Is(context.Cause(stopping), share.ServerDraining) {
		t.Errorf("stopping: %v", context.Cause(stopping))
	}
}

func TestDrain_OwnEndIsNotDraining(t *testing.T) {
	d := New()
	ctx, cancel := d.UntilStopping(t.Context())
	own := errors.New("own")
	cancel(own)
	d.Stop()
	if got := Cause(ctx, errors.New("broke")); got != own {
		t.Errorf("got %v", got)
	}
	if got := Cause(ctx, nil); got != nil {
		t.Errorf("a success became %v", got)
	}
}
