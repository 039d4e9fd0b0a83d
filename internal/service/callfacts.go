package service

import (
	"context"
	"encoding/hex"
	"log/slog"
	"sync"

	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// callFacts is what the log says of a call besides its outcome, as far as the call got. It is safe for concurrent use.
type callFacts struct {
	mu                 sync.Mutex
	account, requestID string
	caller             admission.Caller // if there is an account
	bytes              int64            // of the file, that were received or sent
}

type callFactsKey struct{}

// factsOf returns the facts of the call of ctx. Outside of a call they are not logged.
func factsOf(ctx context.Context) *callFacts {
	if f, ok := ctx.Value(callFactsKey{}).(*callFacts); ok {
		return f
	}
	return &callFacts{}
}

// claim adds the account, and a caller that has not been proved yet.
func (f *callFacts) claim(c share.Credential) {
	f.set(c.Account, admission.ByCredential(c))
}

// prove replaces the caller by a proved one.
func (f *callFacts) prove(p share.Principal) {
	f.set(p.Account, admission.ByPrincipal(p))
}

func (f *callFacts) set(account string, caller admission.Caller) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.account, f.caller = account, caller
}

// request adds a validated request id.
func (f *callFacts) request(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.requestID = id
}

// transferred adds bytes of the file that were received or sent.
func (f *callFacts) transferred(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bytes += int64(n)
}

func (f *callFacts) transferredBytes() int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.bytes
}

func (f *callFacts) attrs() (attrs []slog.Attr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	attrs = make([]slog.Attr, 0, 5) // one more: for an error
	if f.account != "" {
		attrs = append(attrs, slog.String("account", f.account), slog.String("caller", hex.EncodeToString(f.caller[:8])))
	}
	if f.requestID != "" {
		attrs = append(attrs, slog.String("request_id", f.requestID))
	}
	if f.bytes > 0 {
		attrs = append(attrs, slog.Int64("bytes", f.bytes))
	}
	return attrs
}
