package scan

import (
	"context"
	"time"
)

// Times of Watch.
const (
	pingEvery   = 2 * time.Second
	pingTimeout = 5 * time.Second
)

// Watch asks clamd every 2 s whether it answers, within 5 s, until ctx ends. It calls changed with the first error and at each change
// after that; nil: clamd answers. These connections are not among those of Config.
func (s *Scanner) Watch(ctx context.Context, changed func(error)) {
	timer := time.NewTicker(pingEvery)
	defer timer.Stop()
	for {
		err := s.ping(ctx)
		if ctx.Err() != nil {
			return
		}
		if was := !s.down.Swap(err != nil); was != (err == nil) {
			if err != nil {
				s.Log.Error("the malware scanner does not answer", "error", err)
			} else {
				s.Log.Info("the malware scanner answers again")
			}
			changed(err)
		}
		select {
		case <-timer.C:
		case <-ctx.Done():
			return
		}
	}
}

func (s *Scanner) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	return s.Address.Ping(ctx)
}

// Up reports whether clamd answered when Watch asked last; true before that.
func (s *Scanner) Up() bool { return !s.down.Load() }
