package lprest

import (
	"context"
	"fmt"

	"golang.org/x/sync/singleflight"
)

// Shared runs an operation once for all callers that need its result at the same time. The end of a caller's context ends only
// that caller's wait; the operation itself ends with the Client. It is safe for concurrent use.
type Shared[T any] struct {
	client    *Client
	operation string
	group     singleflight.Group
}

// NewShared returns a Shared for operations of c. operation names them in errors: "getting a token".
func NewShared[T any](c *Client, operation string) *Shared[T] {
	return &Shared[T]{client: c, operation: operation}
}

// Do returns the result of do, or of the call with the same key that is already running. It fails with LPUnavailable once the
// Client is closed, and with the cause of the end of ctx, wrapped.
func (s *Shared[T]) Do(ctx context.Context, key string, do func(context.Context) (T, error)) (T, error) {
	result := s.group.DoChan(key, func() (any, error) {
		if !s.client.begin() {
			return nil, errClosed
		}
		defer s.client.work.Done()
		v, err := do(s.client.ctx)
		if err != nil && s.client.ctx.Err() != nil {
			err = errClosed
		}
		return v, err
	})
	var zero T
	select {
	case r := <-result:
		if r.Err != nil {
			return zero, r.Err
		}
		return r.Val.(T), nil
	case <-ctx.Done():
		return zero, fmt.Errorf("lprest: %s: %w", s.operation, context.Cause(ctx))
	}
}
