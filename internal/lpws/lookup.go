package lpws

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

const (
	// settleTime is how long a change that LivePerson has confirmed may take to be reported.
	settleTime = 2 * time.Second
	// maxConversationID is the maximum length of a conversation id, in bytes.
	maxConversationID = 64
)

// Conversation returns a conversation of the caller. It asks LivePerson if the conversation is not known. ConversationNotFound.
func (s *Session) Conversation(ctx context.Context, id string) (share.Conversation, error) {
	return s.s.conversation(ctx, id)
}

// Knows reports whether Conversation answers without a request to LivePerson.
func (s *Session) Knows(conversation string) bool {
	_, ok, err := s.s.book.conversation(conversation)
	return ok && err == nil
}

// ListConversations returns the conversations of the caller, newest first, but no more than Config.MaxConversations.
func (s *Session) ListConversations(ctx context.Context) ([]share.Conversation, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if _, err := s.s.acquire(ctx); err != nil { // without a connection the list may be out of date
		return nil, err
	}
	all := s.s.book.list()
	slices.Reverse(all)
	return all, nil
}

// RefreshConversations is ListConversations with a list that is requested from LivePerson after the call has begun.
// share.ErrIncomplete, with the conversations, if the list may lack some: it has listLimit, or only those that are open, or the
// connection was lost meanwhile.
func (s *Session) RefreshConversations(ctx context.Context) ([]share.Conversation, error) {
	complete := false
	for range maxRefreshes {
		r, joined, err := s.s.joinRefresh(ctx)
		if err != nil {
			return nil, err
		}
		if !joined && r.answered { // one that was joined may have begun before the call
			complete = r.whole
			break
		}
	}
	all, err := s.ListConversations(ctx)
	if err == nil && !complete {
		err = share.ErrIncomplete
	}
	return all, err
}

// maxRefreshes is how often RefreshConversations requests the list.
const maxRefreshes = 3

// Sight returns share.SeesAll: a message that LivePerson does not return does not exist.
func (s *Session) Sight() share.Sight { return share.SeesAll }

// FindFile returns the first message with a storage path in a dialog; an empty dialog means all dialogs of the conversation. The
// result may lack the preview: see Complete. It asks LivePerson if the message is not known. ConversationNotFound if the caller does not
// take part; FileNotFound, caused by share.ErrIncomplete if LivePerson did not return the last message that it has announced.
func (s *Session) FindFile(ctx context.Context, conversation, dialog, storagePath string) (share.FileEvent, error) {
	c, err := s.s.conversation(ctx, conversation)
	if err != nil {
		return share.FileEvent{}, err
	}
	dialogs := dialogIDs(c)
	if dialog != "" {
		if !slices.Contains(dialogs, dialog) {
			return share.FileEvent{}, errNoConversation()
		}
		dialogs = []string{dialog}
	}
	for _, d := range dialogs {
		files, _, _ := s.s.book.kept(d)
		if e, ok := withPath(files, storagePath); ok {
			return e, nil
		}
	}
	var incomplete error
	for range 2 { // a message that arrived during the first reading may follow one that is missing
		read, err := s.readDialogs(ctx, dialogRefs(c.ID, dialogs), nil, false)
		if err != nil {
			return share.FileEvent{}, err
		}
		incomplete = nil
		for i, d := range read {
			if e, ok := withPath(d.files, storagePath); ok {
				return e, nil
			}
			if d.next <= s.s.book.last(dialogs[i]) {
				incomplete = share.ErrIncomplete
			}
		}
		if incomplete == nil {
			break
		}
	}
	return share.FileEvent{}, share.Errorf(share.FileNotFound, "no message of the conversation has this file", incomplete)
}

// Unread reports whether FindFile would ask LivePerson for messages, of a conversation that the caller is known to take part in.
func (s *Session) Unread(conversation, dialog string) bool {
	return s.s.book.unread(conversation, dialog)
}

// ListFiles returns the files of a conversation, or of all conversations of the caller if conversation is empty. They lack previews
// and long captions: see Complete. Each call asks LivePerson for what is new, except if upTo is not nil: then it returns the dialogs of
// upTo only, and asks for those of which the files up to there are not known. A list of all conversations leaves out dialogs that
// cannot be read.
func (s *Session) ListFiles(ctx context.Context, conversation string, upTo share.Cursor) (share.FileList, error) {
	var refs []dialogRef
	if conversation != "" {
		c, err := s.s.conversation(ctx, conversation)
		if err != nil {
			return share.FileList{}, err
		}
		refs = dialogRefs(c.ID, dialogIDs(c))
	} else {
		if _, err := s.s.acquire(ctx); err != nil {
			return share.FileList{}, err
		}
		for _, c := range s.s.book.list() {
			refs = append(refs, dialogRefs(c.ID, dialogIDs(c))...)
		}
	}
	if upTo != nil {
		refs = slices.DeleteFunc(refs, func(d dialogRef) bool { _, listed := upTo[d.dialog]; return !listed })
	}
	read, err := s.readDialogs(ctx, refs, upTo, conversation == "")
	if err != nil {
		return share.FileList{}, err
	}
	list := share.FileList{Cursor: share.Cursor{}}
	for i, d := range read {
		ref := refs[i]
		if d.err != nil {
			list.Unreadable = append(list.Unreadable, share.UnreadableDialog{
				Conversation: ref.conversation, Dialog: ref.dialog, Last: s.s.book.last(ref.dialog), Err: d.err,
			})
			continue
		}
		list.Cursor[ref.dialog] = d.next - 1
		list.Dialogs = append(list.Dialogs, share.DialogFiles{Conversation: ref.conversation, Dialog: ref.dialog, Files: d.files})
	}
	return list, nil
}

// WatchFiles returns a watch of the files behind a cursor, and of those that follow, in the order of each dialog, without gaps or
// repeats, across lost connections. Of a dialog that is not in after, it delivers all files. An empty conversation means all
// conversations of the caller, later ones included. ConversationNotFound. The caller must close the watch, which holds the session
// by itself.
func (s *Session) WatchFiles(ctx context.Context, conversation string, after share.Cursor) (*Watch, error) {
	if conversation != "" {
		if _, err := s.s.conversation(ctx, conversation); err != nil {
			return nil, err
		}
	}
	w := newWatch(s.s, &s.s.book, conversation, after)
	s.s.p.retain(s.s)
	starts, err := s.s.book.attach(w)
	if err != nil {
		s.s.p.release(s.s)
		return nil, err
	}
	s.s.startFetches(starts)
	return w, nil
}

// dialogRef names a dialog.
type dialogRef struct{ conversation, dialog string }

func dialogRefs(conversation string, dialogs []string) []dialogRef {
	refs := make([]dialogRef, len(dialogs))
	for i, d := range dialogs {
		refs[i] = dialogRef{conversation, d}
	}
	return refs
}

// dialogFiles are the files of a dialog, or why it cannot be read.
type dialogFiles struct {
	files []share.FileEvent
	next  int64
	err   *share.Error
}

// readDialogs reads several dialogs, some at the same time. It does not ask for those whose files up to a sequence in upTo are kept.
// The first failure ends it. With tolerant, a failure that concerns one dialog only is part of the result.
func (s *Session) readDialogs(ctx context.Context, refs []dialogRef, upTo share.Cursor, tolerant bool) ([]dialogFiles, error) {
	read := make([]dialogFiles, len(refs))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	readOne := func(i int) {
		if last, limited := upTo[refs[i].dialog]; limited {
			if files, end, kept := s.s.book.kept(refs[i].dialog); kept && end > last {
				read[i] = dialogFiles{files, end, nil}
				return
			}
		}
		files, end, err := s.s.files(ctx, refs[i].conversation, refs[i].dialog)
		failure, ok := errors.AsType[*share.Error](err)
		switch {
		case err == nil:
			read[i] = dialogFiles{files, end, nil}
		case tolerant && ok && share.OfDialog(err):
			read[i].err = failure
		default:
			cancel(err)
		}
	}
	next := make(chan int)
	var readers sync.WaitGroup
	for range min(concurrentFetches, len(refs)) {
		readers.Go(func() {
			for i := range next {
				readOne(i)
			}
		})
	}
	for i := range refs {
		select {
		case next <- i:
			continue
		case <-ctx.Done():
		}
		break
	}
	close(next)
	readers.Wait()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	return read, nil
}

// conversation returns a conversation of the principal. It asks LivePerson if the conversation is not known.
func (s *sharedSession) conversation(ctx context.Context, id string) (share.Conversation, error) {
	if id == "" || len(id) > maxConversationID {
		return share.Conversation{}, errNoConversation()
	}
	for refreshed := false; ; refreshed = true {
		c, ok, err := s.book.conversation(id)
		switch {
		case err != nil:
			return share.Conversation{}, err
		case ok:
			return c, nil
		case refreshed:
			return share.Conversation{}, errNoConversation()
		}
		if err := s.refreshConversations(ctx); err != nil {
			return share.Conversation{}, err
		}
	}
}

// refreshConversations requests the list of conversations again. Concurrent callers share one request.
func (s *sharedSession) refreshConversations(ctx context.Context) error {
	_, _, err := s.joinRefresh(ctx)
	return err
}

// joinRefresh waits for the end of the running refresh, or else of a new one. joined reports that it had begun before.
func (s *sharedSession) joinRefresh(ctx context.Context) (_ *refresh, joined bool, err error) {
	r, begin := s.book.joinRefresh()
	if begin && !s.p.spawn(func() { s.refresh(r) }) {
		s.book.endRefresh(r, &frame{}, errDraining)
	}
	select {
	case <-r.done:
		return r, !begin, r.err
	case <-ctx.Done():
		return nil, !begin, context.Cause(ctx)
	}
}

func (s *sharedSession) refresh(r *refresh) {
	ctx, cancel := context.WithTimeoutCause(s.p.ctx, s.p.cfg.CallTimeout, errTimeout)
	defer cancel()
	answer, err := s.call(ctx, lpwire.StepSubscribe, request{Type: reqSubscribeConvs, Body: s.opener.subscription()})
	if err == nil {
		select {
		case <-r.listed:
		case <-s.ended:
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	if obsolete := s.book.endRefresh(r, &answer, err); obsolete != "" {
		s.unsubscribe(ctx, obsolete)
	}
}

// unsubscribe ends a subscription to conversations. Best effort: errors and the answer are ignored.
func (s *sharedSession) unsubscribe(ctx context.Context, subscription string) {
	t, err := s.acquire(ctx)
	if err != nil {
		return
	}
	call, _, err := t.send(ctx, request{Type: s.dialect.requestType(reqUnsubscribe), Body: unsubscribe{subscription}})
	if err == nil {
		call.forget()
	}
}

// await waits, up to settleTime, until a conversation satisfies a condition that LivePerson has confirmed.
func (s *sharedSession) await(ctx context.Context, id string, satisfied func(*conversation) bool) (share.Conversation, bool) {
	timer := time.NewTimer(settleTime)
	defer timer.Stop()
	for {
		c, ok, changed := s.book.find(id, satisfied)
		if ok {
			return c, true
		}
		select {
		case <-changed:
		case <-timer.C:
			return share.Conversation{}, false
		case <-ctx.Done():
			return share.Conversation{}, false
		case <-s.ended:
			return share.Conversation{}, false
		}
	}
}

// isClosed reports whether a dialog is closed. LivePerson may have rejected a message for that reason before it reported the close.
func (s *sharedSession) isClosed(ctx context.Context, conversation, dialog string) bool {
	if s.book.closed(conversation, dialog) {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	return s.refreshConversations(ctx) == nil && s.book.closed(conversation, dialog)
}
