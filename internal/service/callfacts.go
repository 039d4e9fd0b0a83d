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
	mu                         sync.Mutex
	account, caller, requestID string
	bytes                      int64 // of the file, that were received or sent
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
	f.account, f.caller = account, hex.EncodeToString(caller[:8])
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

func (f *callFacts) attrs() (attrs []slog.Attr) {
	f.mu.Lock()
	defer f.mu.Unlock()
	attrs = make([]slog.Attr, 0, 5) // one more: for an error
	for _, fact := range []struct{ key, value string }{{"account", f.account}, {"caller", f.caller}, {"request_id", f.requestID}} {
		if fact.value != "" {
			attrs = append(attrs, slog.String(fact.key, fact.value))
		}
	}
	if f.bytes > 0 {
		attrs = append(attrs, slog.Int64("bytes", f.bytes))
	}
	return attrs
}
