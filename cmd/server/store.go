package main

import (
	"context"
	"io"

	"github.com/lpfileshare/lpfileshare/internal/lprest"
	"github.com/lpfileshare/lpfileshare/internal/service"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/internal/swift"
)

// store forgets a store host that stops answering, so that it is looked up again. Package swift does not know the Domain API.
type store struct {
	*swift.Client
	api *lprest.Client
}

var _ service.Store = store{}

func (s store) Put(ctx context.Context, account string, u share.TempURL, size int64, contentType string, body io.ReadCloser) (share.StoredObject, error) {
	o, err := s.Client.Put(ctx, account, u, size, contentType, body)
	s.forgetIfUnavailable(ctx, account, err)
	return o, err
}

func (s store) Get(ctx context.Context, account string, u share.TempURL, start, limit int64, ifMatch share.ETag) (*share.ObjectReader, error) {
	o, err := s.Client.Get(ctx, account, u, start, limit, ifMatch)
	s.forgetIfUnavailable(ctx, account, err)
	return o, err
}

func (s store) Head(ctx context.Context, account string, u share.TempURL) (share.StoredObject, error) {
	o, err := s.Client.Head(ctx, account, u)
	s.forgetIfUnavailable(ctx, account, err)
	return o, err
}

func (s store) forgetIfUnavailable(ctx context.Context, account string, err error) {
	if ctx.Err() == nil && share.Is(err, share.StorageUnavailable) {
		s.api.Forget(account, "swift")
	}
}
