package service

import (
	"context"
	"encoding/hex"
	"log/slog"
	"strings"
	"sync"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/internal/upload"
)

// Facts are what is known of a call besides its outcome, as far as the call got. They contain identifiers and no contents: no token, no
// caption and no name that a person chose.
type Facts struct {
	// Account is the account that the call names. It is known before the identity is proved.
	Account string
	// RequestID is the request id of an upload or of a creation.
	RequestID string
	// Principal is the identity that LivePerson accepted.
	Principal share.Principal
	// Decision says what the policy decided, if it was asked.
	Decision Decision
	// Conversation is the id of the conversation; empty also if the call is about all of them.
	Conversation string
	// StoragePath is that of the file. FileType is its type, by the name in the contract without its prefix.
	StoragePath, FileType string
	// SHA256 is the checksum of the file; empty if the call did not need it.
	SHA256 []byte
	// Replayed reports that the call returned the result of an earlier one with the same request id. TookOver reports that it continued
	// the work of an earlier one that had not ended with success.
	Replayed, TookOver bool
}

// A Decision is what the policy decided about a call; empty if it was not asked.
type Decision string

// The decisions.
const (
	Permitted Decision = "permitted"
	Denied    Decision = "denied"
)

// callFacts collects the Facts of a call, and what only its log line says. It is safe for concurrent use.
type callFacts struct {
	mu      sync.Mutex
	account string           // of the log line: empty before the call has presented an identity
	caller  admission.Caller // if there is an account
	facts   Facts
	bytes   int64 // of the file, that were received or sent
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
	f.add(func(known *Facts) { known.Principal = p })
}

// add adds to the facts.
func (f *callFacts) add(add func(*Facts)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	add(&f.facts)
}

// names adds the conversation and the file that a request names.
func (f *callFacts) names(conversation, storagePath string) {
	f.add(func(known *Facts) { known.Conversation, known.StoragePath = conversation, storagePath })
}

// stored adds what an upload or a publication returned.
func (f *callFacts) stored(r upload.Result) {
	f.add(func(known *Facts) {
		known.Replayed, known.TookOver = r.Replayed, r.TookOver
		if r.File != nil {
			known.Conversation, known.StoragePath = r.File.Conversation, r.File.File.StoragePath
			known.FileType, known.SHA256 = fileTypeName(r.File.File.FileType), r.File.Checksums.SHA256
		}
	})
}

// fileTypeName returns the name of a type in the contract, without its prefix; empty if the contract does not have it.
func fileTypeName(spelling string) string {
	row, _ := share.FileTypeBySpelling(spelling)
	return row.Name
}

// fileTypeOfProto returns the name of a contract value, without its prefix; empty for the unspecified one.
func fileTypeOfProto(t lpfilesharev1.FileType) string {
	if t == lpfilesharev1.FileType_FILE_TYPE_UNSPECIFIED {
		return ""
	}
	return strings.TrimPrefix(t.String(), "FILE_TYPE_")
}

// known returns the facts so far, and the number of bytes of the file that were received or sent.
func (f *callFacts) known() (Facts, int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.facts, f.bytes
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
	f.facts.RequestID = id
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
	if f.account != "" {
		attrs = append(attrs, slog.String("account", f.account), slog.String("caller", hex.EncodeToString(f.caller[:8])))
	}
	if f.facts.RequestID != "" {
		attrs = append(attrs, slog.String("request_id", f.facts.RequestID))
	}
	if f.bytes > 0 {
		attrs = append(attrs, slog.Int64("bytes", f.bytes))
	}
	return attrs
}
