package lpws

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// UploadURL asks for leave to store one object. FileSharingDisabled if the account's switch is off; LPRejectedFile.
func (s *Session) UploadURL(ctx context.Context, size int64, fileType share.FileType) (share.TempURL, error) {
	return s.l.url(ctx, lpwire.StepUploadURL, request{Type: reqUploadURL, Body: lpwire.NewUploadURLBody(size, fileType)})
}

// DownloadURL asks for leave to read one object. FileNotFound. The caller has checked that the path may be read.
func (s *Session) DownloadURL(ctx context.Context, storagePath string) (share.TempURL, error) {
	return s.l.url(ctx, lpwire.StepDownloadURL, request{Type: reqDownloadURL, Body: lpwire.DownloadURLBody{RelativePath: storagePath}})
}

func (l *link) url(ctx context.Context, s lpwire.Step, r request) (share.TempURL, error) {
	answer, err := l.ask(ctx, s, r)
	if err != nil {
		return share.TempURL{}, err
	}
	asked := ""
	if body, ok := r.Body.(lpwire.DownloadURLBody); ok {
		asked = body.RelativePath
	}
	return lpwire.ReadTempURL(answer.Body, l.who.Account, asked)
}

// PublishFile sends a hosted/file message to a dialog (empty: the main one) and returns its sequence. It sends at most once, and
// nothing once ctx's deadline has passed by the wall clock: that is looked at immediately before the write. LPPublishUnconfirmed
// means that the frame may have been sent, and any other error that nothing was published.
// ConversationClosed; ConversationNotFound; LPForbidden; LPRejectedFile.
func (s *Session) PublishFile(ctx context.Context, conversation, dialog string, file share.HostedFile) (int64, error) {
	return s.l.publish(ctx, lpwire.StepPublish, conversation, dialog, lpwire.NewFileEvent(file))
}

// MarkAccessed tells the others that the caller opened the message.
func (s *Session) MarkAccessed(ctx context.Context, conversation, dialog string, sequence int64) error {
	return s.l.receipt(ctx, conversation, dialog, "ACCESS", sequence)
}

// MarkAccepted tells the others that the message reached the caller.
func (s *Session) MarkAccepted(ctx context.Context, conversation, dialog string, sequence int64) error {
	return s.l.receipt(ctx, conversation, dialog, "ACCEPT", sequence)
}

func (l *link) receipt(ctx context.Context, conversation, dialog, status string, sequence int64) error {
	_, err := l.publish(ctx, lpwire.StepReceipt, conversation, dialog, lpwire.NewReceipt(status, sequence))
	return err
}

func (l *link) publish(ctx context.Context, s lpwire.Step, conversation, dialog string, event any) (int64, error) {
	dialog = cmp.Or(dialog, conversation)
	if l.closed(conversation, dialog) {
		return 0, errClosed()
	}
	answer, sent, err := l.tell(ctx, request{Type: reqPublish, Body: lpwire.Publish{DialogID: dialog, ConversationID: conversation, Event: event}})
	switch {
	case err != nil && sent && s == lpwire.StepPublish:
		return 0, lpwire.Unconfirmed(reason(err))
	case share.Is(err, share.LPPublishUnconfirmed): // why ctx ended, as its maker put it who did not know that nothing was sent
		return 0, errTooLate
	case err != nil:
		return 0, err
	case answer.failed():
		err = answerError(s, &answer)
		if answer.Code == 400 && l.closedByNow(ctx, conversation, dialog) {
			err = errClosed()
		}
		return 0, err
	}
	sequence, ok := lpwire.ReadSequence(answer.Body)
	if !ok {
		if s == lpwire.StepPublish { // it was published, and where is not known
			return 0, lpwire.Unconfirmed(lpwire.Unreadable("the sequence of a message"))
		}
		return 0, nil
	}
	l.mu.Lock()
	if _, known := l.mine(conversation); known {
		l.exists(dialog, sequence) // the message itself may come later than this answer
	}
	l.mu.Unlock()
	return sequence, nil
}

// reason is why something was not confirmed, for the log: without a kind of its own, which would say that nothing was published.
func reason(err error) error { return errors.New(err.Error()) }

// closedByNow reports whether a refusal is because the conversation is closed, which the news of it may have yet to tell.
func (l *link) closedByNow(ctx context.Context, conversation, dialog string) bool {
	if l.closed(conversation, dialog) {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	return l.refreshConversations(ctx) == nil && l.closed(conversation, dialog)
}

// CreateConversation opens a conversation. Only consumers do: NotAllowed for an agent. It is sent at most once; where LivePerson's
// answer is lost (LPTimeout, LPUnavailable) there may be a conversation that nobody knows of. InvalidField where LivePerson
// refuses it.
func (s *Session) CreateConversation(ctx context.Context, n share.NewConversation) (share.Conversation, error) {
	l := s.l
	if l.who.Role != share.RoleConsumer {
		return share.Conversation{}, share.Errorf(share.NotAllowed, "only a consumer begins a conversation", nil)
	}
	answer, sent, err := l.tell(ctx, request{Type: reqNewConversation, Body: newConversationBody(l.who.Account, n)})
	if err != nil && sent {
		err = share.Errorf(share.LPPublishUnconfirmed, "LivePerson did not confirm the conversation, which may be there or not", err)
	}
	if err == nil && answer.failed() {
		err = answerError(lpwire.StepCreate, &answer)
	}
	if err != nil {
		return share.Conversation{}, err
	}
	id, ok := lpwire.ReadConversationID(answer.Body)
	if !ok {
		return share.Conversation{}, lpwire.Unreadable("the id of a conversation")
	}
	l.begun(id, n)
	if c, ok := l.await(ctx, id, func(c *conversation) bool { return !c.local }); ok {
		return c, nil
	}
	return l.conversation(context.WithoutCancel(ctx), id) // it is there, made up or not
}

// begun records a conversation that LivePerson has opened and not told of yet.
func (l *link) begun(id string, n share.NewConversation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil || l.book.convs[id] != nil {
		return
	}
	c := &conversation{local: true, members: []string{l.who.ID}, Conversation: share.Conversation{
		ID: id, Open: true, Start: l.p.cfg.Now().UTC(), SkillID: n.SkillID,
		Dialogs:      []share.Dialog{{ID: id, Type: "MAIN", Open: true}},
		Participants: []share.Participant{{ID: l.who.ID, Role: l.who.Role}},
	}}
	l.put(c)
	l.follow(c)
	l.bound()
}

// Conversation finds one that the caller takes part in, asking LivePerson afresh if it is not known. ConversationNotFound.
func (s *Session) Conversation(ctx context.Context, id string) (share.Conversation, error) {
	return s.l.conversation(ctx, id)
}

// ListConversations gives all that the caller takes part in, newest first, of the newest Config.MaxConversations.
func (s *Session) ListConversations(ctx context.Context) ([]share.Conversation, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if _, err := s.l.acquire(ctx); err != nil { // without a connection the news may be old
		return nil, err
	}
	all := s.l.conversations()
	slices.Reverse(all)
	return all, nil
}

// conversations are all that the principal takes part in, oldest first.
func (l *link) conversations() []share.Conversation {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := []share.Conversation{}
	for _, c := range l.book.convs {
		if l.takesPart(c) {
			all = append(all, c.clone())
		}
	}
	slices.SortFunc(all, func(a, b share.Conversation) int {
		return cmp.Or(a.Start.Compare(b.Start), cmp.Compare(a.ID, b.ID))
	})
	return all
}

// CloseConversation closes a conversation with all its dialogs, and returns it as it is then. One that is closed already is no
// error. ConversationNotFound.
func (s *Session) CloseConversation(ctx context.Context, id string) (share.Conversation, error) {
	l := s.l
	c, err := l.conversation(ctx, id)
	if err != nil || !c.Open {
		return c, err
	}
	_, err = l.ask(ctx, lpwire.StepClose, request{Type: reqUpdate, Body: lpwire.CloseBody(id)})
	if err != nil {
		// Somebody else, or our own first try, may have been faster.
		if !share.Is(err, share.LPProtocolError, share.LPForbidden) || !l.closedByNow(ctx, id, id) {
			return share.Conversation{}, err
		}
	}
	if c, ok := l.await(ctx, id, func(c *conversation) bool { return !c.Open }); ok {
		return c, nil
	}
	return l.markClosed(ctx, id, c)
}

// markClosed notes that LivePerson has closed a conversation and not told of it yet.
func (l *link) markClosed(ctx context.Context, id string, c share.Conversation) (share.Conversation, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if known := l.book.convs[id]; known != nil {
		known.Open, known.End = false, l.p.cfg.Now().UTC()
		for i := range known.Dialogs {
			known.Dialogs[i].Open = false
		}
		l.announce()
		return known.clone(), nil
	}
	if ctx.Err() != nil {
		return share.Conversation{}, context.Cause(ctx)
	}
	if l.err != nil {
		return share.Conversation{}, l.endError(l.err)
	}
	c.Open = false
	return c, nil
}

// Sight is share.SeesAll: LivePerson answers what is there.
func (s *Session) Sight() share.Sight { return share.SeesAll }

// FindFile looks in a dialog ("": any of the conversation's) for the message that shows a storage path, asking LivePerson afresh
// if it is not known yet; the first, if there are several. ConversationNotFound if the caller does not take part, FileNotFound.
func (s *Session) FindFile(ctx context.Context, conversation, dialog, storagePath string) (share.FileEvent, error) {
	l := s.l
	c, err := l.conversation(ctx, conversation)
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
		if e, ok := l.cached(d, storagePath); ok {
			return e, nil
		}
	}
	got, err := l.all(ctx, places(c.ID, dialogs), false)
	if err != nil {
		return share.FileEvent{}, err
	}
	for _, g := range got {
		if e, ok := withPath(g.files, storagePath); ok {
			return e, nil
		}
	}
	return share.FileEvent{}, share.Errorf(share.FileNotFound, "no message of the conversation shows this file", nil)
}

// ListFiles gives the hosted files of a conversation (""; of all that the caller takes part in), by conversation (oldest first),
// dialog (the main one first) and sequence, and the place behind them. It asks LivePerson each time, for no more than is new.
// Where all are asked for, those that LivePerson does not let be read are left out.
func (s *Session) ListFiles(ctx context.Context, conversation string) ([]share.FileEvent, share.Cursor, error) {
	l := s.l
	var ask []askedDialog
	if conversation != "" {
		c, err := l.conversation(ctx, conversation)
		if err != nil {
			return nil, nil, err
		}
		ask = places(c.ID, dialogIDs(c))
	} else {
		if _, err := l.acquire(ctx); err != nil {
			return nil, nil, err
		}
		for _, c := range l.conversations() {
			ask = append(ask, places(c.ID, dialogIDs(c))...)
		}
	}
	got, err := l.all(ctx, ask, conversation == "")
	if err != nil {
		return nil, nil, err
	}
	files, behind := []share.FileEvent{}, share.Cursor{}
	for i, g := range got {
		if g.read {
			files = append(files, g.files...)
			behind[ask[i].dialog] = g.next - 1
		}
	}
	return files, behind, nil
}

// WatchFiles gives the files behind a place, and those that come, in the order of each dialog, without gap or repeat, over lost
// connections too. Of a dialog that is not in after, all. An empty conversation means all that the caller takes part in, those
// that begin later included. ConversationNotFound. The caller closes the watch, which holds the session by itself.
func (s *Session) WatchFiles(ctx context.Context, conversation string, after share.Cursor) (*Watch, error) {
	if conversation != "" {
		if _, err := s.l.conversation(ctx, conversation); err != nil {
			return nil, err
		}
	}
	return s.l.watch(conversation, after)
}

type askedDialog struct{ conversation, dialog string }

type dialogFiles struct {
	files []share.FileEvent
	next  int64
	read  bool
}

func places(conversation string, dialogs []string) []askedDialog {
	out := make([]askedDialog, len(dialogs))
	for i, d := range dialogs {
		out[i] = askedDialog{conversation, d}
	}
	return out
}

// all reads several dialogs, some at a time; the first failure ends it, but for dialogs that may not be read if those are to be
// left out.
func (l *link) all(ctx context.Context, ask []askedDialog, leaveOut bool) ([]dialogFiles, error) {
	got := make([]dialogFiles, len(ask))
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan int)
	var readers sync.WaitGroup
	for range min(dialogsAtOnce, len(ask)) {
		readers.Go(func() {
			for i := range next {
				files, end, err := l.files(ctx, ask[i].conversation, ask[i].dialog)
				switch {
				case err == nil:
					got[i] = dialogFiles{files, end, true}
				case leaveOut && share.Is(err, share.ConversationNotFound, share.LPForbidden):
				default:
					cancel(err)
				}
			}
		})
	}
	for i := range ask {
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
	return got, nil
}
