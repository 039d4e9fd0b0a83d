// Package conversations creates LivePerson conversations, one for each request id. It knows no gRPC.
package conversations

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/retry"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A Session is LivePerson as the caller sees it. Errors are *share.Error.
type Session interface {
	// Principal is the identity that LivePerson accepted.
	Principal() share.Principal
	// CreateConversation creates a conversation. It sends the request at most once. LPPublishUnconfirmed: the conversation may exist.
	// Any other error: it does not.
	CreateConversation(ctx context.Context, n share.NewConversation) (share.Conversation, error)
	// Conversation finds a conversation; ConversationNotFound.
	Conversation(ctx context.Context, id string) (share.Conversation, error)
	// ListConversations returns all conversations, newest first.
	ListConversations(ctx context.Context) ([]share.Conversation, error)
	// Sight says what the list proves.
	Sight() share.Sight
}

// A Ledger remembers request ids: see upload.Ledger.
type Ledger interface {
	LoadCreation(ctx context.Context, key string) (share.CreationRecord, uint64, error)
	SaveCreation(ctx context.Context, key string, r share.CreationRecord, rev uint64) (uint64, error)
}

// A Creator creates conversations. Every field is required.
type Creator struct {
	Ledger Ledger
	// CallTimeout limits a call. Settle is how long after it LivePerson may still handle its request. RequestIDTTL is how long a
	// request id is kept.
	CallTimeout, Settle, RequestIDTTL time.Duration
	// Now is the clock.
	Now func() time.Time
	Log *slog.Logger
}

// A Request is a request to create a conversation.
type Request struct {
	// RequestID is a UUID. Fingerprint identifies what it stands for.
	RequestID    string
	Fingerprint  []byte
	Conversation share.NewConversation
}

// ledgerTimeout limits the last step of the ledger, which is recorded even if the caller has gone.
const ledgerTimeout = 5 * time.Second

// failureTTL is how long the record of a failed call is kept. Losing it is safe: a repeat calls LivePerson again in any case.
const failureTTL = 5 * time.Minute

// poll is how often another call's record, and LivePerson, are asked again.
const poll = 500 * time.Millisecond

// errAgain says that the record must be read again.
var errAgain = errors.New("read the record again")

// Create creates the conversation of a request id, or returns the one that an earlier call created. The id is claimed before
// LivePerson is asked, so of two calls one waits for the other. If LivePerson's answer is lost, the conversation is the one that
// did not exist before. A server that crashes in between can leave a conversation that the retry does not find. But if the session
// does not see all, a retry never asks LivePerson again.
func (c *Creator) Create(ctx context.Context, session Session, r Request) (_ share.Conversation, replayed bool, err error) {
	key := Key(session.Principal(), strings.ToLower(r.RequestID))
	for {
		rec, rev, err := c.Ledger.LoadCreation(ctx, key)
		if err != nil {
			return share.Conversation{}, false, ledgerError(err)
		}
		if rev != 0 && c.Now().Before(rec.Expires) {
			found, done, err := c.earlier(ctx, session, key, r, rec, rev)
			if errors.Is(err, errAgain) {
				continue
			}
			if done || err != nil {
				return found, true, err
			}
		}
		created, err := c.create(ctx, session, key, r, rev)
		if errors.Is(err, share.ErrStale) {
			continue
		}
		return created, false, err
	}
}

// Key returns the ledger key of a request id. Keys are hashes, so they fit any ledger and reveal nothing.
func Key(p share.Principal, requestID string) string {
	sum := admission.Hash("conversation", p.Account, string(p.Role), p.ID, p.Caller, requestID)
	return hex.EncodeToString(sum[:])
}

// earlier deals with the record of an earlier call: it returns its conversation and done, or waits for the call and returns
// errAgain, or returns neither if this call may take the id over.
func (c *Creator) earlier(ctx context.Context, session Session, key string, r Request, rec share.CreationRecord, rev uint64) (_ share.Conversation, done bool, err error) {
	switch {
	case !bytes.Equal(rec.Fingerprint, r.Fingerprint):
		err = share.Reject(share.RequestIDConflict, "the request_id was used with another request; use a new one")
	case rec.ConversationID != "":
		found, err := session.Conversation(ctx, rec.ConversationID)
		return found, true, err
	case c.Now().Before(rec.Deadline.Add(c.Settle)): // another call is at work, or looks for its conversation
		if err = retry.Sleep(ctx, poll); err == nil {
			err = errAgain
		}
	case rec.State == share.Publishing: // the conversation may exist unseen
		found, ok := c.newSince(ctx, session, rec)
		if !ok {
			return share.Conversation{}, false, share.Reject(share.LPPublishUnconfirmed, "an earlier call may or may not have created the conversation, and "+
				"LivePerson has not reported it; no other is created. Retry later with the same request_id, or use a new one")
		}
		rec.Owner, rec.ConversationID, rec.State, rec.Known = session.Principal(), found.ID, "", nil
		if _, err = c.Ledger.SaveCreation(ctx, key, rec, rev); err == nil || errors.Is(err, share.ErrStale) {
			err = errAgain
		} else {
			err = ledgerError(err)
		}
	}
	return share.Conversation{}, false, err
}

// create claims the id, creates a conversation, and records it. share.ErrStale: another call claimed the id.
func (c *Creator) create(ctx context.Context, session Session, key string, r Request, rev uint64) (share.Conversation, error) {
	known, err := conversationIDs(ctx, session)
	if err != nil {
		return share.Conversation{}, err
	}
	rec := share.CreationRecord{
		Owner: session.Principal(), Fingerprint: r.Fingerprint, AttemptTime: c.Now(), Expires: c.Now().Add(c.RequestIDTTL), Deadline: c.Now().Add(c.CallTimeout),
	}
	if session.Sight() != share.SeesAll {
		rec.State, rec.Known = share.Publishing, known
	}
	rev, err = c.Ledger.SaveCreation(ctx, key, rec, rev)
	if errors.Is(err, share.ErrStale) {
		return share.Conversation{}, err
	} else if err != nil {
		return share.Conversation{}, ledgerError(err)
	}
	created, err := session.CreateConversation(ctx, r.Conversation)
	if share.Is(err, share.LPPublishUnconfirmed) {
		if found, ok := c.newSince(ctx, session, share.CreationRecord{AttemptTime: rec.AttemptTime, Known: known}); ok {
			created, err = found, nil
		}
	}
	c.record(ctx, key, rec, rev, created, err)
	return created, err
}

// record records the result of a call. A created conversation exists, whatever the ledger says.
func (c *Creator) record(ctx context.Context, key string, rec share.CreationRecord, rev uint64, created share.Conversation, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ledgerTimeout)
	defer cancel()
	if err != nil {
		rec.Deadline = time.Time{} // the next call need not wait
	}
	// Only a named condition proves that there is no conversation.
	failed := share.KindOf(err) != "" && !share.Is(err, share.LPPublishUnconfirmed)
	if err == nil || failed {
		rec.State, rec.Known = "", nil
	}
	if soon := c.Now().Add(failureTTL); failed && soon.Before(rec.Expires) { // the record is only in the way of a repeat
		rec.Expires = soon
	}
	rec.ConversationID = created.ID
	if _, err := c.Ledger.SaveCreation(ctx, key, rec, rev); err != nil {
		c.Log.LogAttrs(ctx, slog.LevelWarn, "the result of a CreateConversation could not be recorded", slog.Any("error", err))
	}
}

func ledgerError(err error) error {
	if share.KindOf(err) != "" {
		return err
	}
	return share.Errorf(share.LedgerUnavailable, "the ledger of request ids cannot be reached; nothing was done", err)
}

// maxKnown is how many conversations are compared and remembered: the newest ones.
const maxKnown = 256

// conversationIDs returns the ids of the caller's newest conversations.
func conversationIDs(ctx context.Context, session Session) ([]string, error) {
	all, err := session.ListConversations(ctx)
	ids := make([]string, min(len(all), maxKnown))
	for i := range ids {
		ids[i] = all[i].ID
	}
	return ids, err
}

// newSince looks for a conversation that did not exist when a record's attempt began, and did not begin long after that, until it
// can no longer appear. A session that sees only its own conversations could never find it.
func (c *Creator) newSince(ctx context.Context, session Session, rec share.CreationRecord) (share.Conversation, bool) {
	if session.Sight() == share.SeesOwn {
		return share.Conversation{}, false
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.Settle)
	defer cancel()
	latest := rec.AttemptTime.Add(c.CallTimeout + c.Settle)
	for {
		all, err := session.ListConversations(ctx)
		if err == nil {
			for _, found := range all[:min(len(all), maxKnown)] {
				if !slices.Contains(rec.Known, found.ID) && found.Start.Before(latest) {
					return found, true
				}
			}
		}
		if retry.Sleep(ctx, poll) != nil {
			return share.Conversation{}, false
		}
	}
}
