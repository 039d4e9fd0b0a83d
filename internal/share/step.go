package share

import "context"

// BeginStep observes a step of a call: one request to LivePerson, to the store, to the ledger, or to the
// malware scanner. system is one of the System constants.
// step is a name from a fixed set, without anything of a caller's. The request is made with the context that is returned, and end is
// called once with its result. A nil BeginStep observes nothing.
type BeginStep func(ctx context.Context, system System, step string) (inner context.Context, end func(error))

// A System is what a step talks to.
type System string

// The systems.
const (
	SystemLivePerson System = "liveperson"
	SystemStore      System = "store"
	SystemLedger     System = "ledger"
	SystemScanner    System = "scanner"
)

// Begin begins a step.
func (b BeginStep) Begin(ctx context.Context, system System, step string) (inner context.Context, end func(error)) {
	if b == nil {
		return ctx, func(error) {}
	}
	return b(ctx, system, step)
}
