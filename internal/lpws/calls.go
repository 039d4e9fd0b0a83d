package lpws

import (
	"cmp"
	"context"
	"sync/atomic"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// Session is the view of one caller on LivePerson. It is safe for concurrent use. Each call ends with its answer, its context,
// Config.CallTimeout, or the end of the session. Errors are *share.Error, or the cause of the context's end.
type Session struct {
	s        *sharedSession
	caller   string
	released atomic.Bool
}

// Principal returns the identity that LivePerson accepted.
func (s *Session) Principal() share.Principal {
	p := s.s.principal
	if s.s.cred.Scheme == share.ExternalConsumerID {
		p.Caller = s.caller
	}
	return p
}

// Release gives up the session. No call may follow; further calls of Release have no effect.
func (s *Session) Release() {
	if !s.released.Swap(true) {
		s.s.p.release(s.s)
	}
}

// UploadURL requests a signed URL to upload one object. FileSharingDisabled if file sharing is disabled for the account;
// LPRejectedFile.
func (s *Session) UploadURL(ctx context.Context, size int64, fileType share.FileType) (share.TempURL, error) {
	answer, err := s.s.call(ctx, lpwire.StepUploadURL, request{Type: reqUploadURL, Body: lpwire.NewUploadURLBody(size, fileType)})
	if err != nil {
		return share.TempURL{}, err
	}
	return lpwire.ReadTempURL(answer.Body, s.s.principal.Account, "")
}

// DownloadURL requests a signed URL to read one object. The caller must have checked that the path may be read. FileNotFound.
func (s *Session) DownloadURL(ctx context.Context, storagePath string) (share.TempURL, error) {
	answer, err := s.s.call(ctx, lpwire.StepDownloadURL, request{Type: reqDownloadURL, Body: lpwire.DownloadURLBody{RelativePath: storagePath}})
	if err != nil {
		return share.TempURL{}, err
	}
	return lpwire.ReadTempURL(answer.Body, s.s.principal.Account, storagePath)
}

// PublishFile sends a hosted/file message to a dialog (empty: the main dialog) and returns the message's sequence. The message is
// sent at most once, and not after ctx's deadline by the wall clock, which is checked immediately before the write.
// LPPublishUnconfirmed means that the message may have been published; an error that is Denied, that LivePerson says it was not; any
// other error, that it was not. ConversationClosed; ConversationNotFound; LPForbidden; LPRejectedFile.
func (s *Session) PublishFile(ctx context.Context, conversation, dialog string, file share.HostedFile) (int64, error) {
	return s.publish(ctx, lpwire.StepPublish, conversation, dialog, lpwire.NewFileEvent(file))
}

// MarkAccessed reports to the other participants that the caller opened the message.
func (s *Session) MarkAccessed(ctx context.Context, conversation, dialog string, sequence int64) error {
	return s.sendReceipt(ctx, conversation, dialog, "ACCESS", sequence)
}

// MarkAccepted reports to the other participants that the message reached the caller.
func (s *Session) MarkAccepted(ctx context.Context, conversation, dialog string, sequence int64) error {
	return s.sendReceipt(ctx, conversation, dialog, "ACCEPT", sequence)
}

func (s *Session) sendReceipt(ctx context.Context, conversation, dialog, status string, sequence int64) error {
	_, err := s.publish(ctx, lpwire.StepReceipt, conversation, dialog, lpwire.NewReceipt(status, sequence))
	return err
}

// publish sends an event to a dialog and returns its sequence.
func (s *Session) publish(ctx context.Context, step lpwire.Step, conversation, dialog string, event any) (int64, error) {
	dialog = cmp.Or(dialog, conversation)
	if s.s.book.closed(conversation, dialog) {
		return 0, errClosed()
	}
	body := lpwire.Publish{DialogID: dialog, ConversationID: conversation, Event: event}
	answer, sent, err := s.s.callOnce(ctx, lpwire.StepPublish, request{Type: reqPublish, Body: body})
	switch {
	case err != nil && sent && step == lpwire.StepPublish:
		return 0, lpwire.Unconfirmed(step, err)
	case share.Is(err, share.LPPublishUnconfirmed): // the cause of ctx's end, set by a caller that did not know that nothing was sent
		return 0, errTooLate
	case err != nil:
		return 0, err
	case answer.failed():
		if step != lpwire.StepPublish {
			err = answerError(step, &answer)
		} else {
			err = effectError(step, &answer)
		}
		if answer.Code == 400 && s.s.isClosed(ctx, conversation, dialog) {
			closed := errClosed()
			closed.Denied = true
			err = closed
		}
		return 0, err
	}
	sequence, ok := lpwire.ReadSequence(answer.Body)
	if !ok {
		if step == lpwire.StepPublish { // it was published, at an unknown sequence
			return 0, lpwire.Unconfirmed(step, lpwire.Unreadable("the sequence of a message"))
		}
		return 0, nil
	}
	s.s.book.published(conversation, dialog, sequence)
	return sequence, nil
}

// CreateConversation opens a conversation. Only consumers may: NotAllowed for an agent. The request is sent at most once.
// LPPublishUnconfirmed means that the conversation may have been opened; an error that is Denied, that LivePerson says it was not; any
// other error, that it was not. InvalidField if LivePerson rejects n.
func (s *Session) CreateConversation(ctx context.Context, n share.NewConversation) (share.Conversation, error) {
	if s.s.principal.Role != share.RoleConsumer {
		return share.Conversation{}, share.Errorf(share.NotAllowed, "only consumers can create conversations", nil)
	}
	answer, sent, err := s.s.callOnce(ctx, lpwire.StepCreate, request{Type: reqNewConversation, Body: newConversationBody(s.s.principal.Account, n)})
	switch {
	case err != nil && sent:
		return share.Conversation{}, lpwire.Unconfirmed(lpwire.StepCreate, err)
	case err != nil:
		return share.Conversation{}, err
	case answer.failed():
		return share.Conversation{}, effectError(lpwire.StepCreate, &answer)
	}
	id, ok := lpwire.ReadConversationID(answer.Body)
	if !ok { // the conversation exists, but its id is not known
		return share.Conversation{}, lpwire.Unconfirmed(lpwire.StepCreate, lpwire.Unreadable("the id of a conversation"))
	}
	local, starts := s.s.book.created(id, n)
	s.s.startFetches(starts)
	if c, ok := s.s.await(ctx, id, func(c *conversation) bool { return !c.local }); ok {
		return c, nil
	}
	return local, nil // LivePerson has created it, even if it has not reported it, or the session has ended
}

// CloseConversation closes a conversation with all its dialogs, and returns its new state. Closing a closed conversation succeeds.
// ConversationNotFound.
func (s *Session) CloseConversation(ctx context.Context, id string) (share.Conversation, error) {
	c, err := s.s.conversation(ctx, id)
	if err != nil || !c.Open {
		return c, err
	}
	if _, err := s.s.call(ctx, lpwire.StepClose, request{Type: reqUpdate, Body: lpwire.CloseBody(id)}); err != nil {
		// It may be closed already: by another participant, or by the first attempt.
		if !share.Is(err, share.LPProtocolError, share.LPForbidden) || !s.s.isClosed(ctx, id, id) {
			return share.Conversation{}, err
		}
	}
	if c, ok := s.s.await(ctx, id, func(c *conversation) bool { return !c.Open }); ok {
		return c, nil
	}
	closed, known, err := s.s.book.setClosed(id)
	switch {
	case known:
		return closed, nil
	case ctx.Err() != nil:
		return share.Conversation{}, context.Cause(ctx)
	case err != nil:
		return share.Conversation{}, err
	}
	c.Open = false
	return c, nil
}
