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
	"sync"
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
	// Any other error: it does not, or so LivePerson says.
	CreateConversation(ctx context.Context, n share.NewConversation) (share.Conversation, error)
	// Conversation finds a conversation; ConversationNotFound.
	Conversation(ctx context.Context, id string) (share.Conversation, error)
	// ListConversations returns all known conversations, newest first. It may be out of date.
	ListConversations(ctx context.Context) ([]share.Conversation, error)
	// RefreshConversations is ListConversations with a list that is requested from LivePerson after the call has begun, if LivePerson
	// can be asked. share.ErrIncomplete, with the list, if it may lack some.
	RefreshConversations(ctx context.Context) ([]share.Conversation, error)
	// Sight says what the list proves.
	Sight() share.Sight
}

// A Ledger remembers request ids: see upload.Ledger.
type Ledger interface {
	LoadCreation(ctx context.Context, key string) (share.CreationRecord, uint64, error)
	SaveCreation(ctx context.Context, key string, r share.CreationRecord, rev uint64) (uint64, error)
}

// Config is what a Creator works with. Every field is required.
type Config struct {
	Ledger Ledger
	// CallTimeout limits a call. Settle is how long after it LivePerson may still handle its request. RequestIDTTL is how long a
	// request id is kept.
	CallTimeout, Settle, RequestIDTTL time.Duration
	// Now is the clock.
	Now func() time.Time
	Log *slog.Logger
}

// A Creator creates conversations.
type Creator struct {
	Config

	mu      sync.Mutex
	running map[string]int // calls of this process that may create a conversation, by ledger key
}

// New returns a Creator.
func New(c Config) *Creator { return &Creator{Config: c, running: make(map[string]int)} }

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
// LivePerson is asked, so of two calls one waits for the other. If LivePerson's answer is lost, the conversation is one that did not
// exist before, and that no other request id has claimed. If there is none, a retry asks LivePerson again, but not if the session does
// not see all: then the conversation may exist. A conversation that LivePerson denies is looked for too, once, and by a retry again.
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

// Key returns the ledger key of a request id. Keys are hashes, so they fit any ledger and reveal nothing. The calling
// service is not part of them: a retry by another service that may call for the principal finds the record.
func Key(p share.Principal, requestID string) string {
	sum := admission.Hash("conversation", p.Account, string(p.Role), p.ID, "", requestID) // "" was the calling service
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
	case c.isRunning(key), c.Now().Before(rec.Deadline.Add(c.Settle)): // another call is at work, or looks for its conversation
		if err = retry.Sleep(ctx, poll); err == nil {
			err = errAgain
		}
	case rec.State == share.Publishing: // the conversation may exist
		found, lookErr := c.newSince(ctx, session, key, rec, 0)
		switch {
		case lookErr == nil:
		case errors.Is(lookErr, errAbsent) && (session.Sight() == share.SeesAll || rec.Denied):
			return share.Conversation{}, false, nil
		default:
			return share.Conversation{}, false, share.Errorf(share.LPPublishUnconfirmed, "an earlier call may or may not have created the conversation, and "+
				"LivePerson has not reported it; no other is created. Retry later with the same request_id, or use a new one", lookErr)
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
		State: share.Publishing, Known: known,
	}
	defer c.run(key)()
	rev, err = c.Ledger.SaveCreation(ctx, key, rec, rev)
	if errors.Is(err, share.ErrStale) {
		return share.Conversation{}, err
	} else if err != nil {
		return share.Conversation{}, ledgerError(err)
	}
	created, err := session.CreateConversation(ctx, r.Conversation)
	absent := false
	switch {
	case err == nil:
		err = c.claimCreated(ctx, session, key, created.ID)
	case share.Is(err, share.LPPublishUnconfirmed) && session.Sight() != share.SeesOwn:
		found, lookErr := c.newSince(ctx, session, key, rec, c.Settle)
		if lookErr == nil {
			created, err = found, nil
		}
		absent = errors.Is(lookErr, errAbsent) && session.Sight() == share.SeesAll
	case isDenied(err): // some answers are those of a proxy, or of a part of LivePerson, that does not know what another part has done
		found, lookErr := c.newSince(ctx, session, key, rec, 0)
		switch {
		case lookErr == nil:
			created, err = found, nil
		case errors.Is(lookErr, errAbsent):
			rec.Denied = true
		default:
			c.Log.LogAttrs(ctx, slog.LevelWarn, "a conversation that LivePerson denies could not be looked for", slog.Any("denial", err), slog.Any("error", lookErr))
			err = share.Errorf(share.LPPublishUnconfirmed, "LivePerson answered that it created no conversation, and could not be asked whether there is one; "+
				"retry later with the same request_id", errors.New(lookErr.Error()))
		}
	}
	if err != nil {
		created = share.Conversation{}
	}
	if rec.Denied && session.Sight() == share.SeesAll {
		rec.Deadline = c.Now() // it may still appear: the next call waits, and looks again
	} else if err != nil {
		rec.Deadline = time.Time{} // the next call need not wait
	}
	c.record(ctx, key, rec, rev, created, absent, err)
	return created, err
}

// isDenied reports whether an error is LivePerson's word that nothing was created.
func isDenied(err error) bool {
	e, ok := errors.AsType[*share.Error](err)
	return ok && e.Denied
}

// run notes that a call of this process may create a conversation, until the result is called. Other calls wait for it, whatever the
// wall clock says.
func (c *Creator) run(key string) (ended func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.running[key]++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.running[key]--; c.running[key] == 0 {
			delete(c.running, key)
		}
	}
}

func (c *Creator) isRunning(key string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.running[key] > 0
}

// record records the result of a call. A created conversation exists, whatever the ledger says. absent means that it was looked for,
// and certainly does not exist.
func (c *Creator) record(ctx context.Context, key string, rec share.CreationRecord, rev uint64, created share.Conversation, absent bool, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ledgerTimeout)
	defer cancel()
	// Only a named condition proves that there is no conversation, unless it is LivePerson's denial.
	failed := share.KindOf(err) != "" && !share.Is(err, share.LPPublishUnconfirmed) && !rec.Denied
	if err == nil || failed || absent {
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

// errAbsent is newSince's error if there certainly is no such conversation among those that the session sees.
var errAbsent = errors.New("no new conversation appeared")

// clockSkew is how much LivePerson's clock may differ from this server's.
const clockSkew = 5 * time.Minute

// newSince looks for a conversation that did not exist when a record's attempt began, began about then, and that no other request id
// has claimed, and claims it. It looks for the last time after settle, when the conversation can no longer appear, and in a list that is
// requested from LivePerson then: errAbsent. Any other error means that it is not known.
func (c *Creator) newSince(ctx context.Context, session Session, key string, rec share.CreationRecord, settle time.Duration) (share.Conversation, error) {
	if session.Sight() == share.SeesOwn {
		return share.Conversation{}, errAbsent
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settle+c.CallTimeout)
	defer cancel()
	settled := time.Now().Add(settle) // by the monotonic clock
	seen := make(map[string]time.Time)
	for {
		left := time.Until(settled)
		list := session.ListConversations
		if left <= 0 {
			list = session.RefreshConversations
		}
		all, err := list(ctx)
		incomplete, wait := errors.Is(err, share.ErrIncomplete), false
		if err == nil || incomplete { // what an incomplete list has exists
			var found share.Conversation
			if found, wait, err = c.claimNew(ctx, session, key, rec, all, seen); err == nil {
				return found, nil
			}
		}
		switch {
		case wait:
			err = retry.Sleep(ctx, poll)
		case left > 0:
			err = retry.Sleep(ctx, min(left, poll))
		case errors.Is(err, errAbsent) && incomplete:
			err = share.ErrIncomplete
		}
		if err != nil {
			return share.Conversation{}, err
		}
	}
}

// claimNew claims one of the conversations that can be the one of a record's attempt, and was seen poll ago: a call whose answer has just
// arrived is given the time to claim its own. seen has the time at which each was first seen. errAbsent if there is none, and wait if
// there may be one later.
func (c *Creator) claimNew(ctx context.Context, session Session, key string, rec share.CreationRecord, all []share.Conversation, seen map[string]time.Time) (_ share.Conversation, wait bool, err error) {
	for _, found := range all[:min(len(all), maxKnown)] {
		if !isNew(found, rec, c.CallTimeout+c.Settle) {
			continue
		}
		if _, known := seen[found.ID]; !known {
			seen[found.ID] = time.Now()
		}
		if time.Since(seen[found.ID]) < poll {
			wait = true
			continue
		}
		switch err = c.claim(ctx, session, key, found.ID); {
		case err == nil:
			return found, false, nil
		case !errors.Is(err, errClaimed):
			return share.Conversation{}, false, err
		}
	}
	return share.Conversation{}, wait, errAbsent
}

// isNew reports whether a conversation can be the one of a record's attempt, which may take so long.
func isNew(found share.Conversation, rec share.CreationRecord, within time.Duration) bool {
	earliest, latest := rec.AttemptTime.Add(-clockSkew), rec.AttemptTime.Add(within+clockSkew)
	return !slices.Contains(rec.Known, found.ID) && found.Start.Before(latest) && (found.Start.IsZero() || found.Start.After(earliest))
}

// errClaimed is claim's error if the conversation is that of another request id.
var errClaimed = errors.New("another request id has the conversation")

// claim makes a conversation that of a request id, unless it is another's: then errClaimed. Claims are records by conversation, so
// that two request ids never get one conversation, on any server.
func (c *Creator) claim(ctx context.Context, session Session, key, conversation string) error {
	p := session.Principal()
	sum := admission.Hash("conversation claimed", p.Account, conversation)
	at := hex.EncodeToString(sum[:])
	for {
		held, rev, err := c.Ledger.LoadCreation(ctx, at)
		switch {
		case err != nil:
			return ledgerError(err)
		case rev != 0 && c.Now().Before(held.Expires) && held.Claimant != key:
			return errClaimed
		case rev != 0 && held.Claimant == key:
			return nil
		}
		_, err = c.Ledger.SaveCreation(ctx, at, share.CreationRecord{
			Owner: p, AttemptTime: c.Now(), Expires: c.Now().Add(c.RequestIDTTL), ConversationID: conversation, Claimant: key,
		}, rev)
		if !errors.Is(err, share.ErrStale) {
			return err
		}
	}
}

// claimCreated claims the conversation of LivePerson's answer. LPPublishUnconfirmed: another request id, whose answer was lost, has
// it, or the ledger cannot say. The conversation of this request may then be the other's, for which a retry looks.
func (c *Creator) claimCreated(ctx context.Context, session Session, key, conversation string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ledgerTimeout)
	defer cancel()
	if err := c.claim(ctx, session, key, conversation); err != nil {
		return share.Errorf(share.LPPublishUnconfirmed, "the conversation was created, and could not be recorded as that of this request; retry with the same "+
			"request_id", errors.New(err.Error()))
	}
	return nil
}
