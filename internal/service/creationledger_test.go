package service

import (
	"context"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// LoadCreation is a Load for the faults and counts of a test.
func (b *book) LoadCreation(ctx context.Context, key string) (share.CreationRecord, uint64, error) {
	if err := b.enter(ctx, "Load"); err != nil {
		return share.CreationRecord{}, 0, err
	}
	return b.Memory.LoadCreation(ctx, key)
}

// SaveCreation is a Save for the faults and counts of a test.
func (b *book) SaveCreation(ctx context.Context, key string, r share.CreationRecord, rev uint64) (uint64, error) {
	if err := b.enter(ctx, "Save"); err != nil {
		return 0, err
	}
	if err := b.enter(ctx, "Save "+string(r.State)); err != nil {
		return 0, err
	}
	n, err := b.Memory.SaveCreation(ctx, key, r, rev)
	if err != nil {
		return 0, err
	}
	return n, b.leave(ctx, "Save "+string(r.State))
}
