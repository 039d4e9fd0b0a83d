package connector

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/lprest"
	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/netrules"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A Session is one consumer's view of LivePerson. It holds no resources and is safe for concurrent use.
type Session struct {
	m         *Messenger
	account   string
	app       App
	external  string
	principal share.Principal
}

// Principal returns the consumer as LivePerson identifies it, by its lp_consumer_id.
func (s *Session) Principal() share.Principal { return s.principal }

// Release does nothing: there is no connection.
func (s *Session) Release() {}

// Sight reports that LivePerson cannot be queried for messages: the log has what webhooks reported, and without webhooks only
// what was done here.
func (s *Session) Sight() share.Sight {
	if s.app.Webhooks {
		return share.SeesReported
	}
	return share.SeesOwn
}

func (s *Session) key() consumerKey {
	return consumerKey{appKey{s.account, s.app.ID, s.app.Secret}, s.external}
}

// tokens returns the tokens for a call, but not those that LivePerson rejected.
func (s *Session) tokens(ctx context.Context, rejectedApp, rejectedConsumer string) (app string, consumer consumerToken, err error) {
	key := s.key()
	if app, err = s.m.appJWT(ctx, key.app, rejectedApp); err != nil {
		return "", consumerToken{}, err
	}
	consumer, err = s.m.consumerJWS(ctx, key, rejectedConsumer)
	return app, consumer, err
}

// The endpoints, after the account.
const (
	pathCreate = "/messaging/consumer/conversation"
	pathSend   = "/messaging/consumer/conversation/send"
	// connectorVersion is the supported version; others get 404.
	connectorVersion = "3"
	// requestID identifies the one request of an exchange; in a batch profileID precedes it.
	requestID = "1"
	profileID = "0"
)

// A connectorRequest is one request, in the envelope of the messaging socket.
type connectorRequest struct {
	Kind string `json:"kind"`
	ID   string `json:"id"`
	Type string `json:"type"`
	Body any    `json:"body"`
}

// A connectorAnswer is one answer: {"code":"OK"} for a success, otherwise the error of the messaging socket.
type connectorAnswer struct {
	ReqID lpwire.Text     `json:"reqId"`
	Code  *lpwire.Code    `json:"code"` // nil if this is not an answer of LivePerson's
	Body  json.RawMessage `json:"body"`
}

// query sends a request that may be repeated. An error without a kind is that of ctx.
func (s *Session) query(ctx context.Context, step lpwire.Step, typ string, body any) (json.RawMessage, error) {
	answer, _, err := s.exchange(ctx, step, pathSend, connectorRequest{"req", requestID, typ, body})
	return answer, err
}

// errNotSent is the error of a request that timed out before it was sent.
func errNotSent(cause error) error {
	return share.Errorf(share.LPTimeout, "timed out before the request to LivePerson was sent; nothing was published", cause)
}

// exchange sends one request and returns the body of a successful answer. If it fails, unknown reports whether LivePerson may have
// acted on the request. The request is sent once, and again only if LivePerson rejected its tokens.
func (s *Session) exchange(ctx context.Context, step lpwire.Step, path string, body any) (answer json.RawMessage, unknown bool, err error) {
	var rejectedApp, rejectedConsumer string
	for try := 1; ; try++ {
		app, consumer, err := s.tokens(ctx, rejectedApp, rejectedConsumer)
		if err != nil {
			return nil, false, err
		}
		// By the wall clock: after the process was stopped or the machine suspended, ctx may not have ended yet.
		if deadline, ok := ctx.Deadline(); ok && !time.Now().Round(0).Before(deadline.Round(0)) {
			return nil, false, errNotSent(nil)
		}
		got := s.m.post(ctx, s.account, path, app, consumer.jws, body)
		switch {
		case got.err != nil:
			return nil, got.unknown, got.err
		case got.status == http.StatusUnauthorized && try == 1:
			rejectedApp, rejectedConsumer = got.rejectedTokens(app, consumer.jws)
			continue
		case got.status > 399:
			return nil, false, got.failure(step)
		case lpwire.IsRefusal(got.body):
			return nil, false, lpwire.Refused(step)
		}
		return got.body, false, nil
	}
}

// do is exchange for a request that must not take effect twice. It fails with LPPublishUnconfirmed if the request may have taken
// effect; any other error means that it has not.
func (s *Session) do(ctx context.Context, step lpwire.Step, path string, body any) (json.RawMessage, error) {
	answer, unknown, err := s.exchange(ctx, step, path, body)
	switch {
	case err == nil:
		return answer, nil
	case unknown:
		return nil, lpwire.Unconfirmed(step, err)
	case share.KindOf(err) == "":
		return nil, errNotSent(err)
	}
	return nil, err
}

// LivePerson's error codes for rejected tokens (LivePerson: Connector API, authorization).
const (
	errorMissing         = 40001
	errorAppInvalid      = 40102
	errorConsumerInvalid = 40103
	errorConsumerMissing = 40104
	errorAppMissing      = 40105
)

// A posted is the result of one HTTP exchange.
type posted struct {
	// err is why there is no answer. unknown reports whether LivePerson may have received the request.
	err     error
	unknown bool
	// status is that of HTTP or, if there is one, that of the answer. code is its errorCode.
	status, code int
	// readable reports whether the answer is LivePerson's own, not that of a proxy in front of it.
	readable bool
	body     json.RawMessage
	wait     time.Duration // Retry-After
}

// post makes one exchange. Neither post nor net/http repeats it: see lprest.Client.Send.
func (m *Messenger) post(ctx context.Context, account, path, app, consumer string, body any) posted {
	properties, _ := json.Marshal(lpwire.NewClientProperties(".ClientProperties")) // strings: cannot fail
	resp, sent, err := m.client.SendService(ctx, account, lprest.ServiceConsumerWS, lprest.AccountPath(account, path), lprest.Request{
		Name: strings.TrimPrefix(path, "/"), Method: http.MethodPost, Query: url.Values{"v": {connectorVersion}}, JSON: body,
		Header: http.Header{
			"Authorization": {app}, "X-LP-ON-BEHALF": {consumer}, // both without a scheme
			"Client-Properties": {string(properties)},
		},
	})
	if err != nil {
		return posted{err: err, unknown: sent}
	}
	got := posted{status: resp.Status, code: resp.Status, wait: netrules.RetryAfter(resp.Header)}
	got.read(resp)
	return got
}

// read reads the answer. The last one of a batch counts: it is the conversation's, and may be a success if the profile's is not.
func (p *posted) read(resp lprest.Response) {
	var answers lpwire.List[connectorAnswer]
	_ = answers.UnmarshalJSON(resp.Body)
	if n := len(answers); n > 0 && answers[n-1].Code != nil {
		p.readable, p.body = true, answers[n-1].Body
		if code := *answers[n-1].Code; code > 399 {
			p.status = int(code)
		}
		p.code = lpwire.ErrorNumber(p.status, p.body)
	}
	switch {
	case resp.Success() && !p.readable:
		p.err, p.unknown = lprest.Unreadable(lprest.ServiceConsumerWS), true
	case !resp.Success() && p.status < 400: // a redirect, which is not followed; an answer in it may be LivePerson's
		p.unknown = p.readable
		p.err = share.Errorf(share.LPProtocolError, fmt.Sprintf("LivePerson (%s) returned the unexpected status %d", lprest.ServiceConsumerWS, p.status), nil)
	}
}

// rejectedTokens returns which of the tokens a 401 rejected.
func (p *posted) rejectedTokens(app, consumer string) (rejectedApp, rejectedConsumer string) {
	switch p.code {
	case errorAppInvalid, errorAppMissing:
		return app, ""
	case errorConsumerInvalid, errorConsumerMissing:
		return "", consumer
	}
	return app, consumer // the answer does not say which
}

// failure returns the error of an answer that is not a success.
func (p *posted) failure(step lpwire.Step) *share.Error {
	var e *share.Error
	cause := fmt.Errorf("status %d (%d) for %s", p.status, p.code, step)
	hasEffect := step == lpwire.StepPublish || step == lpwire.StepCreate
	switch {
	case p.status == http.StatusUnauthorized:
		e = share.Errorf(share.LPCredentialsRejected,
			"LivePerson does not accept this server's own credentials for the account; the operator must check the app install", cause)
	case p.status == http.StatusBadRequest && p.code == errorMissing: // the fault is the server's, not the caller's file or conversation
		e = lpwire.Failure("", p.status, p.code)
		e.Denied = hasEffect
	case hasEffect && p.status >= 500 && !p.readable: // something failed in front of LivePerson, before or after the effect
		e = lpwire.Unconfirmed(step, cause)
		e.RetryAfter = lpwire.UnavailableWait
	case hasEffect:
		e = lpwire.EffectFailure(lpwire.Connector, step, p.status, p.code)
	case p.status == http.StatusRequestTimeout:
		e = lpwire.Failure(step, http.StatusServiceUnavailable, p.code)
	default:
		e = lpwire.Failure(step, p.status, p.code)
	}
	e.RetryAfter = max(e.RetryAfter, p.wait)
	return e
}

// UploadURL requests a signed URL to upload one object. It fails with FileSharingDisabled if the account has file sharing disabled,
// and with LPRejectedFile.
func (s *Session) UploadURL(ctx context.Context, size int64, fileType share.FileType) (share.TempURL, error) {
	answer, err := s.query(ctx, lpwire.StepUploadURL, "ms.GenerateURLForUploadFile", lpwire.NewUploadURLBody(size, fileType))
	if err != nil {
		return share.TempURL{}, err
	}
	return lpwire.ReadTempURL(answer, s.account, "")
}

// DownloadURL requests a signed URL to download one object. It fails with FileNotFound. The caller must have checked that the
// consumer may read the path.
func (s *Session) DownloadURL(ctx context.Context, storagePath string) (share.TempURL, error) {
	answer, err := s.query(ctx, lpwire.StepDownloadURL, "ms.GenerateURLForDownloadFile", lpwire.DownloadURLBody{RelativePath: storagePath})
	if err != nil {
		return share.TempURL{}, err
	}
	return lpwire.ReadTempURL(answer, s.account, storagePath)
}

// PublishFile sends a hosted/file message to a dialog (empty: the main one) and returns its sequence. It sends the message at most
// once: LPPublishUnconfirmed means that the message may exist, an error that is Denied, that LivePerson says that nothing was
// published, any other error, that nothing was. Those are ConversationClosed, ConversationNotFound, LPForbidden and LPRejectedFile,
// besides those of every call.
func (s *Session) PublishFile(ctx context.Context, conversation, dialog string, file share.HostedFile) (int64, error) {
	dialog = cmp.Or(dialog, conversation)
	answer, err := s.do(ctx, lpwire.StepPublish, pathSend, connectorRequest{"req", requestID, "ms.PublishEvent",
		lpwire.Publish{DialogID: dialog, ConversationID: conversation, Event: lpwire.NewFileEvent(file)}})
	if err != nil {
		if share.Is(err, share.LPRejectedFile, share.LPForbidden, share.ConversationNotFound) && s.closed(ctx, conversation, dialog) {
			closed := errConversationClosed()
			closed.Denied = true
			err = closed
		}
		return 0, err
	}
	sequence, ok := lpwire.ReadSequence(answer)
	if !ok { // published, but the sequence is not known
		return 0, lpwire.Unconfirmed(lpwire.StepPublish, lpwire.Unreadable("the sequence of a message"))
	}
	s.keep(ctx, share.LoggedEvent{Conversation: conversation, Dialog: dialog, Sequence: sequence, File: &share.FileEvent{
		Conversation: conversation, Dialog: dialog, Sequence: sequence, SenderID: s.principal.ID, SenderRole: s.principal.Role,
		Time: s.m.client.Now().UTC().Truncate(time.Millisecond), File: file,
	}})
	return sequence, nil
}

// keep puts an event that was sent here into the log. Best effort: the event is published, and with webhooks LivePerson reports it
// too.
func (s *Session) keep(ctx context.Context, e share.LoggedEvent) {
	if _, err := s.m.events.AddEvent(context.WithoutCancel(ctx), s.account, e); err != nil {
		s.m.log.LogAttrs(ctx, slog.LevelWarn, "a published message could not be added to the event log", slog.Any("error", err))
	}
}

// MarkAccessed sends the receipt that the consumer opened the message.
func (s *Session) MarkAccessed(ctx context.Context, conversation, dialog string, sequence int64) error {
	return s.receipt(ctx, conversation, dialog, "ACCESS", sequence)
}

// MarkAccepted sends the receipt that the message reached the consumer.
func (s *Session) MarkAccepted(ctx context.Context, conversation, dialog string, sequence int64) error {
	return s.receipt(ctx, conversation, dialog, "ACCEPT", sequence)
}

func (s *Session) receipt(ctx context.Context, conversation, dialog, status string, of int64) error {
	dialog = cmp.Or(dialog, conversation)
	answer, err := s.query(ctx, lpwire.StepReceipt, "ms.PublishEvent",
		lpwire.Publish{DialogID: dialog, ConversationID: conversation, Event: lpwire.NewReceipt(status, of)})
	if err != nil {
		return err
	}
	if sequence, ok := lpwire.ReadSequence(answer); ok { // without it in the log, the receipt's sequence would look like a gap
		s.keep(ctx, share.LoggedEvent{Conversation: conversation, Dialog: dialog, Sequence: sequence})
	}
	return nil
}

// CreateConversation opens a conversation. The request is sent at most once: LPPublishUnconfirmed means that the conversation may
// exist, any other error that it does not. InvalidField means that LivePerson rejected it.
func (s *Session) CreateConversation(ctx context.Context, n share.NewConversation) (share.Conversation, error) {
	answer, err := s.do(ctx, lpwire.StepCreate, pathCreate, []connectorRequest{ // in this order
		{"req", profileID, "userprofile.SetUserProfile", struct{}{}},
		{"req", requestID, "cm.ConsumerRequestConversation", lpwire.NewConversationBody(s.account, n)},
	})
	if err != nil {
		return share.Conversation{}, err
	}
	id, ok := lpwire.ReadConversationID(answer)
	if !ok { // the conversation exists, but its id is not known
		return share.Conversation{}, lpwire.Unconfirmed(lpwire.StepCreate, lpwire.Unreadable("the id of a conversation"))
	}
	var c share.LoggedConversation
	err = s.m.events.ChangeConversation(context.WithoutCancel(ctx), s.account, s.principal.ID, id, func(reported share.LoggedConversation, known bool) (share.LoggedConversation, bool) {
		if known { // a webhook was faster
			c = reported
			return c, false
		}
		c = share.LoggedConversation{Conversation: share.Conversation{
			ID: id, Open: true, Start: s.m.client.Now().UTC().Truncate(time.Millisecond), SkillID: n.SkillID,
			Dialogs:      []share.Dialog{{ID: id, Type: "MAIN", Open: true}},
			Participants: []share.Participant{{ID: s.principal.ID, Role: s.principal.Role}},
		}}
		return c, true
	})
	if err != nil { // without its record the conversation cannot be used
		return share.Conversation{}, lpwire.Unconfirmed(lpwire.StepCreate, err)
	}
	return c.Conversation, nil
}

// Conversation returns a conversation that the consumer takes part in. It fails with ConversationNotFound for one that was neither
// opened here nor reported by a webhook.
func (s *Session) Conversation(ctx context.Context, id string) (share.Conversation, error) {
	c, ok, err := s.m.events.Conversation(ctx, s.account, s.principal.ID, id)
	if err == nil && !ok {
		err = errNoConversation()
	}
	return c.Conversation, err
}

// Knows returns false: Conversation reads the event log.
func (s *Session) Knows(conversation string) bool { return false }

// ListConversations returns all conversations that the consumer takes part in, newest first.
func (s *Session) ListConversations(ctx context.Context) ([]share.Conversation, error) {
	logged, err := s.m.events.Conversations(ctx, s.account, s.principal.ID)
	if err != nil {
		return nil, err
	}
	all := make([]share.Conversation, len(logged))
	for i := range logged {
		all[i] = logged[i].Conversation
	}
	slices.SortFunc(all, func(a, b share.Conversation) int { return cmp.Or(b.Start.Compare(a.Start), cmp.Compare(b.ID, a.ID)) })
	return all, nil
}

// RefreshConversations is ListConversations: LivePerson cannot be asked for a consumer's conversations.
func (s *Session) RefreshConversations(ctx context.Context) ([]share.Conversation, error) {
	return s.ListConversations(ctx)
}

// CloseConversation closes a conversation with all its dialogs and returns it. A conversation that is already closed is not an
// error. CloseConversation fails with ConversationNotFound.
func (s *Session) CloseConversation(ctx context.Context, id string) (share.Conversation, error) {
	c, err := s.Conversation(ctx, id)
	if err != nil || !c.Open {
		return c, err
	}
	if _, err := s.query(ctx, lpwire.StepClose, "cm.UpdateConversationField", lpwire.CloseBody(id)); err != nil {
		// Another participant, or an earlier attempt, may have closed it.
		if !share.Is(err, share.LPProtocolError, share.LPForbidden) || !s.closed(ctx, id, id) {
			return share.Conversation{}, err
		}
		return s.Conversation(ctx, id)
	}
	now := s.m.client.Now().UTC().Truncate(time.Millisecond)
	err = s.m.events.ChangeConversation(context.WithoutCancel(ctx), s.account, s.principal.ID, id, func(l share.LoggedConversation, known bool) (share.LoggedConversation, bool) {
		if !known { // the full log has dropped the record since
			l.Conversation = c
		}
		write := l.Open
		if write {
			l.Open, l.End = false, now
			l.Updated = max(l.Updated, now.UnixMilli()) // an older update that arrives later must not reopen it
			l.Dialogs = slices.Clone(l.Dialogs)
			for i := range l.Dialogs {
				l.Dialogs[i].Open = false
			}
		}
		c = l.Conversation
		return l, write
	})
	return c, err
}

// closed reports whether the log has the dialog as closed.
func (s *Session) closed(ctx context.Context, conversation, dialog string) bool {
	c, err := s.Conversation(ctx, conversation)
	if err != nil {
		return false
	}
	d, ok := c.Dialog(dialog)
	return ok && !d.Open || !c.Open && dialog == c.ID
}

func errNoConversation() error {
	return share.Errorf(share.ConversationNotFound, "the consumer is not known to take part in such a conversation or dialog", nil)
}

func errConversationClosed() *share.Error {
	return share.Errorf(share.ConversationClosed, "the conversation or dialog is closed; start another conversation", nil)
}

// FindFile returns the first message of a dialog (empty: any of the conversation's) that shows a storage path. It fails with
// ConversationNotFound if the consumer is not known to take part, and with FileNotFound: see Sight.
func (s *Session) FindFile(ctx context.Context, conversation, dialog, storagePath string) (share.FileEvent, error) {
	if _, err := s.Conversation(ctx, conversation); err != nil {
		return share.FileEvent{}, err
	}
	e, ok, err := s.m.events.FindFile(ctx, s.account, conversation, dialog, storagePath)
	if err == nil && !ok {
		err = share.Errorf(share.FileNotFound, "no known message of the conversation shows this file", nil)
	}
	if err != nil {
		return share.FileEvent{}, err
	}
	return *e.File, nil
}

// Unread returns false: FindFile reads the event log, and asks LivePerson for nothing.
func (s *Session) Unread(conversation, dialog string) bool { return false }

// chosen returns the conversation, or all (empty id) of the consumer's, oldest first.
func (s *Session) chosen(ctx context.Context, conversation string) ([]share.Conversation, error) {
	if conversation != "" {
		c, err := s.Conversation(ctx, conversation)
		return []share.Conversation{c}, err
	}
	all, err := s.ListConversations(ctx)
	slices.Reverse(all)
	return all, err
}
