// Package ledger remembers request ids: which attempt holds one, how far it got, and what came of it.
//
// It knows nothing of uploads: it keeps records by key, changes them by compare-and-set on revisions, and forgets them when they
// expire. docs/ledger.md says what an answer survives.
package ledger
