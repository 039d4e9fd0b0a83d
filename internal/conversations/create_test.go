package conversations

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

const requestID = "6f0c3a52-7d9e-4b1c-9d0a-3c1d2e4f5a6b"

// A fakeSession is LivePerson as one consumer sees it.
type fakeSession struct {
	mu      sync.Mutex
	convs   []share.Conversation // newest first
	listErr error                // of ListConversations and RefreshConversations
	// unreported are conversations that only RefreshConversations returns. incomplete is its error then.
	unreported []share.Conversation
	incomplete error
	created    int
	sight      share.Sight
	onCreate   func(ctx context.Context, c share.Conversation) error // nil: the conversation is created and confirmed
}

func (s *fakeSession) Principal() share.Principal {
	return share.Principal{Account: "1", ID: "alice", Role: share.RoleConsumer}
}

func (s *fakeSession) Sight() share.Sight { return s.sight }

func (s *fakeSession) CreateConversation(ctx context.Context, _ share.NewConversation) (share.Conversation, error) {
	s.mu.Lock()
	s.created++
	s.mu.Unlock()
	c := share.Conversation{ID: "created", Start: time.Now()}
	if s.onCreate != nil {
		if err := s.onCreate(ctx, c); err != nil {
			return share.Conversation{}, err
		}
		return c, nil
	}
	s.add(c)
	return c, nil
}

func (s *fakeSession) add(c share.Conversation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.convs = append([]share.Conversation{c}, s.convs...)
}

func (s *fakeSession) ListConversations(context.Context) ([]share.Conversation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]share.Conversation(nil), s.convs...), s.listErr
}

func (s *fakeSession) RefreshConversations(context.Context) ([]share.Conversation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.convs = append(slices.Clone(s.unreported), s.convs...)
	s.unreported = nil
	return slices.Clone(s.convs), errors.Join(s.listErr, s.incomplete)
}

func (s *fakeSession) Conversation(_ context.Context, id string) (share.Conversation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.convs {
		if c.ID == id {
			return c, nil
		}
	}
	return share.Conversation{}, share.Reject(share.ConversationNotFound, "there is no such conversation")
}

// A fakeLedger has the record of requestID, and others.
type fakeLedger struct {
	mu     sync.Mutex
	rec    share.CreationRecord
	rev    uint64
	others map[string]share.CreationRecord
	revs   map[string]uint64
	// onSave is called before each save of the record of requestID; an error fails it.
	onSave func(ctx context.Context) error
}

func newLedger() *fakeLedger {
	return &fakeLedger{others: make(map[string]share.CreationRecord), revs: make(map[string]uint64)}
}

var mainKey = Key((&fakeSession{}).Principal(), requestID)

func (l *fakeLedger) LoadCreation(_ context.Context, key string) (share.CreationRecord, uint64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if key == mainKey {
		return l.rec, l.rev, nil
	}
	return l.others[key], l.revs[key], nil
}

func (l *fakeLedger) SaveCreation(ctx context.Context, key string, r share.CreationRecord, rev uint64) (uint64, error) {
	if l.onSave != nil && key == mainKey {
		if err := l.onSave(ctx); err != nil {
			return 0, err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case key == mainKey && rev == l.rev:
		l.rec, l.rev = r, l.rev+1
		return l.rev, nil
	case key != mainKey && rev == l.revs[key]:
		l.others[key], l.revs[key] = r, rev+1
		return rev + 1, nil
	}
	return 0, share.ErrStale
}

func newCreator(l *fakeLedger) *Creator {
	return New(Config{
		Ledger: l, CallTimeout: 10 * time.Second, Settle: 5 * time.Second, RequestIDTTL: time.Hour, Now: time.Now, Log: slog.New(slog.DiscardHandler),
	})
}

func request() Request { return Request{RequestID: requestID, Fingerprint: []byte("f")} }

// lose loses the answers to CreateConversation, and adds convs after a delay.
func (s *fakeSession) lose(after time.Duration, convs ...share.Conversation) {
	s.onCreate = func(context.Context, share.Conversation) error {
		time.AfterFunc(after, func() {
			for _, c := range convs {
				s.add(c)
			}
		})
		return share.Errorf(share.LPPublishUnconfirmed, "lost", nil)
	}
}

func TestCreate_LostAnswerFindsTheNewConversation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now()
		s := &fakeSession{}
		s.add(share.Conversation{ID: "before", Start: now.Add(-time.Hour)})
		s.lose(2*time.Second, share.Conversation{ID: "appeared", Start: now}, share.Conversation{ID: "much later", Start: now.Add(time.Hour)})
		l := newLedger()
		found, replayed, err := newCreator(l).Create(t.Context(), s, request())
		if err != nil || replayed || found.ID != "appeared" {
			t.Errorf("got %s, %t, %v", found.ID, replayed, err)
		}
		found, replayed, err = newCreator(l).Create(t.Context(), s, request())
		if err != nil || !replayed || found.ID != "appeared" || s.created != 1 {
			t.Errorf("retry: %s, %t, %v, %d requests", found.ID, replayed, err, s.created)
		}
	})
}

// If the session sees all, a conversation that has not appeared by the end of the settle time does not exist: a retry creates it.
func TestCreate_LostRequestIsRepeatedByARetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeSession{}
		s.lose(0)
		l := newLedger()
		c := newCreator(l)
		begun := time.Now()
		_, _, err := c.Create(t.Context(), s, request())
		if !share.Is(err, share.LPPublishUnconfirmed) || time.Since(begun) < c.Settle {
			t.Errorf("got %v after %s", err, time.Since(begun))
		}
		s.onCreate, begun = nil, time.Now()
		found, replayed, err := c.Create(t.Context(), s, request())
		if err != nil || replayed || found.ID != "created" || s.created != 2 {
			t.Errorf("retry: %s, %t, %v, %d requests", found.ID, replayed, err, s.created)
		}
		if waited := time.Since(begun); waited > 0 {
			t.Errorf("the retry waited %s, although the first call has ended", waited)
		}
	})
}

// A call that has ended does not leave its conversation unrecorded: the retry returns it.
func TestCreate_RecordsTheResultOfACancelledCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := &fakeSession{}, newLedger()
		l.onSave = func(ctx context.Context) error { return ctx.Err() }
		ctx, cancel := context.WithCancel(t.Context())
		s.onCreate = func(_ context.Context, c share.Conversation) error {
			s.add(c)
			cancel()
			return nil
		}
		if _, _, err := newCreator(l).Create(ctx, s, request()); err != nil {
			t.Errorf("got %v", err)
		}
		found, replayed, err := newCreator(l).Create(t.Context(), s, request())
		if err != nil || !replayed || found.ID != "created" || s.created != 1 {
			t.Errorf("retry: %s, %t, %v, %d requests", found.ID, replayed, err, s.created)
		}
	})
}

func TestCreate_WaitsForAnotherCallUntilItsConversationCannotAppear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &fakeSession{}
		deadline := time.Now().Add(3 * time.Second)
		l := newLedger()
		l.rev, l.rec = 1, share.CreationRecord{Fingerprint: []byte("f"), Expires: time.Now().Add(time.Hour), Deadline: deadline}
		c := newCreator(l)
		if _, _, err := c.Create(t.Context(), s, request()); err != nil {
			t.Fatal(err)
		}
		if time.Now().Before(deadline.Add(c.Settle)) {
			t.Errorf("the conversation was created %s before the end of the settle time", time.Until(deadline.Add(c.Settle)))
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		l.rec.ConversationID, l.rec.Deadline = "", time.Now().Add(time.Hour)
		if _, _, err := c.Create(ctx, s, request()); !errors.Is(err, context.DeadlineExceeded) || s.created != 1 {
			t.Errorf("got %v, %d requests", err, s.created)
		}
	})
}

func TestCreate_ExpiredRequestIDIsNew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := &fakeSession{}, newLedger()
		c := newCreator(l)
		for want := 1; want <= 2; want++ {
			if _, replayed, err := c.Create(t.Context(), s, request()); err != nil || replayed || s.created != want {
				t.Errorf("got %t, %v, %d requests", replayed, err, s.created)
			}
			time.Sleep(c.RequestIDTTL)
		}
	})
}

// A call whose claim fails because another call claimed the id first, returns the conversation of that call.
func TestCreate_LostClaimReturnsTheOtherCallsConversation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := &fakeSession{}, newLedger()
		s.add(share.Conversation{ID: "other", Start: time.Now()})
		l.onSave = func(context.Context) error {
			l.onSave = nil
			l.rev++
			l.rec = share.CreationRecord{Fingerprint: []byte("f"), Expires: time.Now().Add(time.Hour), ConversationID: "other"}
			return nil
		}
		found, replayed, err := newCreator(l).Create(t.Context(), s, request())
		if err != nil || !replayed || found.ID != "other" || s.created != 0 {
			t.Errorf("got %s, %t, %v, %d requests", found.ID, replayed, err, s.created)
		}
	})
}

// A call that certainly created nothing is forgotten soon; one whose result is not known is not.
func TestCreate_FailureExpiresSoon(t *testing.T) {
	for kind, kept := range map[share.Kind]bool{share.LPForbidden: false, share.LPPublishUnconfirmed: true} {
		synctest.Test(t, func(t *testing.T) {
			s, l := &fakeSession{}, newLedger()
			s.onCreate = func(context.Context, share.Conversation) error { return share.Errorf(kind, "no", nil) }
			c := newCreator(l)
			if _, _, err := c.Create(t.Context(), s, request()); !share.Is(err, kind) {
				t.Fatalf("got %v", err)
			}
			if left := time.Until(l.rec.Expires); left > failureTTL != kept {
				t.Errorf("after %s the record is valid for %s", kind, left)
			}
		})
	}
}

// lost is the error of a CreateConversation whose answer is lost.
func lost(context.Context, share.Conversation) error {
	return share.Errorf(share.LPPublishUnconfirmed, "lost", nil)
}

// Of three requests whose answers are lost, on servers of their own, two get the conversation that appears for each. The third ends
// unconfirmed: no two request ids are answered with one conversation.
func TestCreate_LostAnswersGetAConversationEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := &fakeSession{onCreate: lost}, newLedger()
		time.AfterFunc(time.Second, func() {
			s.add(share.Conversation{ID: "x", Start: time.Now()})
			s.add(share.Conversation{ID: "y", Start: time.Now()})
		})
		var mu sync.Mutex
		requests := make(map[string]int) // by conversation
		var calls sync.WaitGroup
		for _, id := range []string{requestID, "7a1d4b63-8eaf-4c2d-8e1b-4d2e3f5a6b7c", "8b2e5c74-9fb0-4d3e-9f2c-5e3f4a6b7c8d"} {
			calls.Go(func() {
				found, _, err := newCreator(l).Create(t.Context(), s, Request{RequestID: id, Fingerprint: []byte("f")})
				if err != nil && !share.Is(err, share.LPPublishUnconfirmed) {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				requests[found.ID]++
			})
		}
		calls.Wait()
		if requests["x"] != 1 || requests["y"] != 1 || requests[""] != 1 {
			t.Errorf("requests by the conversation that they got: %v", requests)
		}
	})
}

// A conversation that LivePerson's answer names is not given to a request whose answer was lost, although that one sees it first.
func TestCreate_AnsweredConversationIsNotTakenByAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		other := &fakeSession{onCreate: lost}
		s := &fakeSession{}
		s.onCreate = func(_ context.Context, c share.Conversation) error {
			other.add(c)
			time.Sleep(poll / 2) // the answer takes some time
			return nil
		}
		otherRequest := request()
		otherRequest.RequestID = "7a1d4b63-8eaf-4c2d-8e1b-4d2e3f5a6b7c"
		var looking sync.WaitGroup
		looking.Go(func() {
			if found, _, err := newCreator(l).Create(t.Context(), other, otherRequest); !share.Is(err, share.LPPublishUnconfirmed) {
				t.Errorf("the request whose answer was lost got %s, %v", found.ID, err)
			}
		})
		time.Sleep(poll - time.Millisecond) // just before it looks again
		if found, _, err := newCreator(l).Create(t.Context(), s, request()); err != nil || found.ID != "created" {
			t.Errorf("got %s, %v", found.ID, err)
		}
		looking.Wait()
	})
}

// A retry that comes after the settle time does not take the conversation of a call whose answer is on its way either.
func TestCreate_RetryDoesNotTakeAnAnsweredConversation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLedger()
		l.rev, l.rec = 1, share.CreationRecord{
			Fingerprint: []byte("f"), AttemptTime: time.Now().Add(-time.Minute), Expires: time.Now().Add(time.Hour), Deadline: time.Now().Add(-time.Minute), State: share.Publishing,
		}
		earlier := &fakeSession{onCreate: lost}
		s := &fakeSession{}
		var retrying sync.WaitGroup
		s.onCreate = func(_ context.Context, c share.Conversation) error {
			earlier.add(c)
			retrying.Go(func() {
				if found, _, err := newCreator(l).Create(t.Context(), earlier, request()); !share.Is(err, share.LPPublishUnconfirmed) {
					t.Errorf("the retry got %s, %v", found.ID, err)
				}
			})
			time.Sleep(poll / 2) // the answer takes some time
			return nil
		}
		other := request()
		other.RequestID = "7a1d4b63-8eaf-4c2d-8e1b-4d2e3f5a6b7c"
		if found, _, err := newCreator(l).Create(t.Context(), s, other); err != nil || found.ID != "created" {
			t.Errorf("got %s, %v", found.ID, err)
		}
		retrying.Wait()
	})
}

// If another request id has claimed the conversation of LivePerson's answer, the call ends unconfirmed.
func TestCreate_ClaimedConversationIsNotAnsweredTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := &fakeSession{}, newLedger()
		if err := newCreator(l).claim(t.Context(), s, "another request's key", "created"); err != nil {
			t.Fatal(err)
		}
		if found, _, err := newCreator(l).Create(t.Context(), s, request()); !share.Is(err, share.LPPublishUnconfirmed) || found.ID != "" {
			t.Errorf("got %s, %v", found.ID, err)
		}
		s.onCreate = func(_ context.Context, c share.Conversation) error {
			c.ID = "second"
			s.add(c)
			return lost(t.Context(), c)
		}
		if found, _, err := newCreator(l).Create(t.Context(), s, request()); err != nil || found.ID != "second" {
			t.Errorf("retry: %s, %v", found.ID, err)
		}
	})
}

// A list that fails does not prove that the conversation does not exist: the retry looks for it before it creates another.
func TestCreate_FailedListIsNoProof(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := &fakeSession{}, newLedger()
		s.onCreate = func(_ context.Context, c share.Conversation) error {
			s.mu.Lock()
			s.listErr = share.Errorf(share.LPUnavailable, "unreachable", nil)
			s.mu.Unlock()
			s.add(c)
			return lost(t.Context(), c)
		}
		for range 2 {
			if _, _, err := newCreator(l).Create(t.Context(), s, request()); !share.Is(err, share.LPPublishUnconfirmed) {
				t.Errorf("got %v", err)
			}
		}
		s.listErr = nil
		found, replayed, err := newCreator(l).Create(t.Context(), s, request())
		if err != nil || !replayed || found.ID != "created" || s.created != 1 {
			t.Errorf("retry: %s, %t, %v, %d requests", found.ID, replayed, err, s.created)
		}
	})
}

// A conversation that LivePerson has not reported to the session is found in a list that is requested once it can no longer appear.
func TestCreate_UnreportedConversationIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := &fakeSession{}, newLedger()
		s.onCreate = func(_ context.Context, c share.Conversation) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.unreported = []share.Conversation{c}
			return lost(t.Context(), c)
		}
		for range 2 {
			if found, _, err := newCreator(l).Create(t.Context(), s, request()); err != nil || found.ID != "created" || s.created != 1 {
				t.Errorf("got %s, %v, %d requests", found.ID, err, s.created)
			}
		}
	})
}

// A list that may lack conversations proves only that those exist which it has.
func TestCreate_IncompleteListIsNoProof(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := &fakeSession{onCreate: lost, incomplete: share.ErrIncomplete}, newLedger()
		for range 2 {
			if _, _, err := newCreator(l).Create(t.Context(), s, request()); !share.Is(err, share.LPPublishUnconfirmed) || s.created != 1 {
				t.Errorf("got %v, %d requests", err, s.created)
			}
		}
		s.add(share.Conversation{ID: "listed", Start: time.Now()})
		if found, _, err := newCreator(l).Create(t.Context(), s, request()); err != nil || found.ID != "listed" || s.created != 1 {
			t.Errorf("retry: %s, %v, %d requests", found.ID, err, s.created)
		}
	})
}

// denied is the error of a CreateConversation that LivePerson denies.
func denied(context.Context, share.Conversation) error {
	e := share.Errorf(share.LPForbidden, "denied", nil)
	e.Denied = true
	return e
}

// A conversation that LivePerson created all the same is found before its denial is believed.
func TestCreate_DeniedConversationIsLookedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := &fakeSession{}, newLedger()
		s.onCreate = func(_ context.Context, c share.Conversation) error {
			s.add(c)
			return denied(t.Context(), c)
		}
		for range 2 {
			if found, _, err := newCreator(l).Create(t.Context(), s, request()); err != nil || found.ID != "created" || s.created != 1 {
				t.Errorf("got %s, %v, %d requests", found.ID, err, s.created)
			}
		}
	})
}

// If a denied conversation does not exist, the caller gets the reason, and a retry looks again before it creates one. If the session
// sees all, it looks when the conversation can no longer appear.
func TestCreate_RetryOfADeniedConversationLooksAgain(t *testing.T) {
	for _, sight := range []share.Sight{share.SeesAll, share.SeesReported, share.SeesOwn} {
		for _, appears := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				s, l := &fakeSession{onCreate: denied, sight: sight}, newLedger()
				c := newCreator(l)
				begun := time.Now()
				if _, _, err := c.Create(t.Context(), s, request()); !share.Is(err, share.LPForbidden) || time.Since(begun) > 0 {
					t.Errorf("got %v after %s", err, time.Since(begun))
				}
				if left := time.Until(l.rec.Expires); left <= failureTTL {
					t.Errorf("the record is valid for %s", left)
				}
				if appears {
					s.add(share.Conversation{ID: "appeared", Start: time.Now()})
				}
				s.onCreate = nil
				want, requests := "created", 2
				if appears && sight != share.SeesOwn {
					want, requests = "appeared", 1
				}
				found, _, err := c.Create(t.Context(), s, request())
				if err != nil || found.ID != want || s.created != requests {
					t.Errorf("sight %v: %s, %v, %d requests", sight, found.ID, err, s.created)
				}
				if waited := time.Since(begun); waited >= c.Settle != (sight == share.SeesAll) {
					t.Errorf("sight %v: the retry ended after %s", sight, waited)
				}
			})
		}
	}
}

// A denied conversation that cannot be looked for may exist.
func TestCreate_DeniedAndNotLookedForIsUnconfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := &fakeSession{}, newLedger()
		s.onCreate = func(_ context.Context, c share.Conversation) error {
			s.add(c)
			s.incomplete = share.Errorf(share.LPUnavailable, "unreachable", nil)
			return denied(t.Context(), c)
		}
		if _, _, err := newCreator(l).Create(t.Context(), s, request()); !share.Is(err, share.LPPublishUnconfirmed) {
			t.Errorf("got %v", err)
		}
		s.incomplete = nil
		if found, _, err := newCreator(l).Create(t.Context(), s, request()); err != nil || found.ID != "created" || s.created != 1 {
			t.Errorf("retry: %s, %v, %d requests", found.ID, err, s.created)
		}
	})
}

// A server that stops between LivePerson's answer and the ledger leaves a conversation that the retry on another server finds.
func TestCreate_ConversationOfAStoppedServerIsFound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, l := &fakeSession{}, newLedger()
		c := newCreator(l)
		l.rev, l.rec = 1, share.CreationRecord{
			Fingerprint: []byte("f"), AttemptTime: time.Now(), Expires: time.Now().Add(time.Hour), Deadline: time.Now().Add(c.CallTimeout), State: share.Publishing,
		}
		s.add(share.Conversation{ID: "left", Start: time.Now()})
		found, replayed, err := c.Create(t.Context(), s, request())
		if err != nil || !replayed || found.ID != "left" || s.created != 0 {
			t.Errorf("got %s, %t, %v, %d requests", found.ID, replayed, err, s.created)
		}
	})
}

// A repeat on the same server waits for the running call, although the wall clock was set forward.
func TestCreate_ClockSetForwardDuringACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ahead atomic.Int64
		s, l := &fakeSession{}, newLedger()
		c := newCreator(l)
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
		c.RequestIDTTL = 24 * time.Hour
		sent := make(chan struct{}, 2)
		s.onCreate = func(_ context.Context, conv share.Conversation) error {
			sent <- struct{}{}
			time.Sleep(3 * time.Second)
			s.add(conv)
			return nil
		}
		var first sync.WaitGroup
		first.Go(func() {
			if found, _, err := c.Create(t.Context(), s, request()); err != nil || found.ID != "created" {
				t.Errorf("got %s, %v", found.ID, err)
			}
		})
		<-sent
		ahead.Store(int64(time.Hour))
		found, replayed, err := c.Create(t.Context(), s, request())
		if err != nil || !replayed || found.ID != "created" || s.created != 1 {
			t.Errorf("repeat: %s, %t, %v, %d requests", found.ID, replayed, err, s.created)
		}
		first.Wait()
	})
}
