// Package ledger stores the records of request ids: which attempt owns one, its progress, and its result. It also has the event
// log of messengers whose messages cannot be queried (Events).
//
// It does not know uploads: it stores records by key, changes them by compare-and-set on revisions, and drops them after they
// expire. docs/ledger.md says which failures an acknowledged record survives.
package ledger
