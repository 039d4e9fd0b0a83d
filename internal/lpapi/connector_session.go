package lpapi

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// A ConnectorSession is LivePerson as one consumer sees it. It holds nothing that has to be given back, and is safe for concurrent
// use.
type ConnectorSession struct {
	c        *Connector
	account  string
	app      ConnectorApp
	external string
	who      share.Principal
}

// Principal is who LivePerson says that the consumer is: its lp_consumer_id.
func (s *ConnectorSession) Principal() share.Principal { return s.who }

// Release does nothing: there is no connection.
func (s *ConnectorSession) Release() {}

// Sight says that LivePerson cannot be asked for messages: what its webhooks tell is all, and without them what was done here.
func (s *ConnectorSession) Sight() share.Sight {
	if s.app.Webhooks {
		return share.SeesTold
	}
	return share.SeesOwn
}

func (s *ConnectorSession) key() consumerKey {
	return consumerKey{appKey{s.account, s.app.ID, s.app.Secret}, s.external}
}

// tokens are what goes with every call, others than LivePerson has refused.
func (s *ConnectorSession) tokens(ctx context.Context, refusedApp, refusedConsumer string) (app string, consumer consumerToken, err error) {
	key := s.key()
	if app, err = s.c.appJWT(ctx, key.app, refusedApp); err != nil {
		return "", consumerToken{}, err
	}
	consumer, err = s.c.consumerJWS(ctx, key, refusedConsumer)
	return app, consumer, err
}

// The endpoints, behind the account.
const (
	pathCreate = "/messaging/consumer/conversation"
	pathSend   = "/messaging/consumer/conversation/send"
	// connectorVersion is the one that is supported; others are answered with 404.
	connectorVersion = "3"
	// requestID names the one request of an exchange; in a batch profileID stands before it.
	requestID = "1"
	profileID = "0"
)

// A connectorRequest is one request, in the envelope of the socket's.
type connectorRequest struct {
	Kind string `json:"kind"`
	ID   string `json:"id"`
	Type string `json:"type"`
	Body any    `json:"body"`
}

// A connectorAnswer is one answer: {"code":"OK"} over a success, the socket's error otherwise.
type connectorAnswer struct {
	ReqID lpwire.Text     `json:"reqId"`
	Code  *lpwire.Code    `json:"code"` // nil: it is no answer of LivePerson's
	Body  json.RawMessage `json:"body"`
}

// ask asks a question, which may be asked again. An error without a condition is ctx's.
func (s *ConnectorSession) ask(ctx context.Context, step lpwire.Step, typ string, body any) (json.RawMessage, error) {
	answer, _, err := s.exchange(ctx, step, pathSend, connectorRequest{"req", requestID, typ, body})
	return answer, err
}

// exchange makes one request and returns the body of its success. open tells, where it fails, that LivePerson may have done it all
// the same: it is sent once, and again only where LivePerson refused the tokens that went with it.
func (s *ConnectorSession) exchange(ctx context.Context, step lpwire.Step, path string, body any) (answer json.RawMessage, open bool, err error) {
	var refusedApp, refusedConsumer string
	for try := 1; ; try++ {
		app, consumer, err := s.tokens(ctx, refusedApp, refusedConsumer)
		if err != nil {
			return nil, false, err
		}
		// By the wall clock: the timers of a process that was stopped, or of a machine that was suspended, may not have struck yet.
		if deadline, ok := ctx.Deadline(); ok && !time.Now().Round(0).Before(deadline.Round(0)) {
			return nil, false, share.Errorf(share.LPTimeout, "LivePerson could not be told in time; nothing was sent to it", nil)
		}
		got := s.c.post(ctx, s.account, path, app, consumer.jws, body)
		switch {
		case got.err != nil:
			return nil, got.open, got.err
		case got.status == http.StatusUnauthorized && try == 1:
			switch got.number {
			case errorAppInvalid, errorAppMissing:
				refusedApp = app
			case errorConsumerInvalid, errorConsumerMissing:
				refusedConsumer = consumer.jws
			default: // it does not say which
				refusedApp, refusedConsumer = app, consumer.jws
			}
			continue
		case got.status > 399:
			return nil, false, got.failure(step)
		}
		return got.body, false, nil
	}
}

// do is exchange for what must not be done twice: its error is LPPublishUnconfirmed where it may have been done, and any other
// condition where it was not.
func (s *ConnectorSession) do(ctx context.Context, step lpwire.Step, path string, body any) (json.RawMessage, error) {
	answer, open, err := s.exchange(ctx, step, path, body)
	switch {
	case err == nil:
		return answer, nil
	case open:
		return nil, unconfirmed(step, errors.New(err.Error())) // without its own condition, which would say that nothing was done
	case share.KindOf(err) == "":
		return nil, share.Errorf(share.LPTimeout, "LivePerson could not be told in time; nothing was sent to it", err)
	}
	return nil, err
}

// LivePerson's numbers for refused tokens (LivePerson: Connector API, authorization).
const (
	errorMissing         = 40001
	errorAppInvalid      = 40102
	errorConsumerInvalid = 40103
	errorConsumerMissing = 40104
	errorAppMissing      = 40105
)

// A posted is what came of one HTTP exchange.
type posted struct {
	// err is why there is no answer. open tells that the request may have left all the same.
	err  error
	open bool
	// status is that of the request itself: of HTTP, or what its answer says; number is its errorCode.
	status, number int
	// readable tells that LivePerson itself has answered, and not something before it.
	readable bool
	body     json.RawMessage
	wait     time.Duration // Retry-After
}

// post makes one exchange. It is never repeated, by net/http neither: see sentOnce.
func (c *Connector) post(ctx context.Context, account, path, app, consumer string, body any) (got posted) {
	base, err := c.client.BaseURL(ctx, account, serviceConsumerWS)
	if err != nil {
		return posted{err: err}
	}
	data, err := json.Marshal(body)
	if err != nil {
		return posted{err: share.Errorf(share.Internal, "the request to LivePerson cannot be written", nil)}
	}
	start := time.Now()
	got = c.roundTrip(ctx, base+"/api/account/"+account+path+"?v="+connectorVersion, app, consumer, data)
	c.client.log.Debug("asked LivePerson", "call", strings.TrimPrefix(path, "/"), "status", got.status, "kind", string(share.KindOf(got.err)), "took", time.Since(start))
	if share.Is(got.err, share.LPUnavailable, share.LPTimeout) {
		c.client.Forget(account, serviceConsumerWS)
	}
	return got
}

func (c *Connector) roundTrip(parent context.Context, url, app, consumer string, body []byte) (got posted) {
	ctx, cancel := context.WithTimeout(parent, c.client.cfg.Timeout)
	defer cancel()
	// Once there is a connection to write to, the request may have left.
	var connected atomic.Bool
	once := sentOnce{body: body}
	ctx = httptrace.WithClientTrace(once.watch(ctx), &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return posted{err: share.Errorf(share.Internal, "the request to LivePerson cannot be made", nil)} // err shows the URL
	}
	req.GetBody = once.again
	properties, _ := json.Marshal(lpwire.NewClientProperties(".ClientProperties")) // strings: cannot fail
	req.Header = http.Header{
		"Accept": {"application/json"}, "Content-Type": {"application/json"}, "User-Agent": {"lpfileshare"},
		"Authorization": {app}, "X-LP-ON-BEHALF": {consumer}, // both bare
		"Client-Properties": {string(properties)},
	}
	resp, err := c.client.http.Do(req)
	if err != nil {
		return posted{err: broken(parent, serviceConsumerWS, err), open: connected.Load()}
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxBody+1))
	if err == nil && len(data) > maxBody {
		err = errors.New("the answer is too long")
	}
	got.status, got.number, got.wait = resp.StatusCode, resp.StatusCode, retryAfter(resp)
	if err != nil && got.status < 300 {
		return posted{err: broken(parent, serviceConsumerWS, err), open: true}
	}
	got.read(data)
	return got
}

// A sentOnce keeps net/http from sending a request again that has left. Over HTTP/1.1 it does so only where not a byte of a POST was
// written, and may. Over HTTP/2 it also does where the peer resets the stream with PROTOCOL_ERROR, whatever the peer has done by
// then. Of a stream that was refused unread it would be right; but which of them it is it does not tell.
type sentOnce struct {
	body         []byte
	http2, wrote atomic.Bool // the connection's protocol; the headers were written
}

// watch is the context of the request that o is for.
func (o *sentOnce) watch(ctx context.Context) context.Context {
	return httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(to httptrace.GotConnInfo) {
			t, ok := to.Conn.(*tls.Conn)
			o.http2.Store(ok && t.ConnectionState().NegotiatedProtocol == "h2")
		},
		WroteHeaders: func() { o.wrote.Store(true) },
	})
}

// again is a request's GetBody, which net/http asks for the body of a repeat.
func (o *sentOnce) again() (io.ReadCloser, error) {
	if o.http2.Load() && o.wrote.Load() {
		return nil, errors.New("the stream was reset, and what became of the request is not known")
	}
	return io.NopCloser(bytes.NewReader(o.body)), nil
}

// read reads the answer. Of a batch the last one counts: it is the conversation's, and may be a success where the profile's is none.
func (p *posted) read(data []byte) {
	success := p.status >= 200 && p.status <= 299
	var answers lpwire.List[connectorAnswer]
	_ = answers.UnmarshalJSON(data)
	if n := len(answers); n > 0 && answers[n-1].Code != nil {
		p.readable, p.body = true, answers[n-1].Body
		if code := *answers[n-1].Code; code > 399 {
			p.status = int(code)
		}
		p.number = lpwire.ErrorNumber(p.status, p.body)
	}
	switch {
	case success && !p.readable:
		p.err, p.open = unreadable(serviceConsumerWS), true
	case !success && p.status < 400: // a redirect, which is never followed; with an answer in it, who knows
		p.open = p.readable
		p.err = share.Errorf(share.LPProtocolError, fmt.Sprintf("LivePerson (%s) answers with the unexpected status %d", serviceConsumerWS, p.status), nil)
	}
}

// failure is the condition of an answer that says no.
func (p *posted) failure(step lpwire.Step) *share.Error {
	var e *share.Error
	cause := fmt.Errorf("liveperson answered %s with %d (%d)", step, p.status, p.number)
	doing := step == lpwire.StepPublish || step == lpwire.StepCreate
	refused := p.status < 500 && p.status != http.StatusRequestTimeout ||
		p.readable && (p.status == http.StatusNotImplemented || p.status == http.StatusServiceUnavailable)
	switch {
	case p.status == http.StatusUnauthorized:
		e = share.Errorf(share.LPCredentialsRejected, "LivePerson does not accept this server's own credentials for the account; the operator checks the app install", cause)
	case doing && !refused:
		// Something broke somewhere behind LivePerson's door, or before it: it may be done.
		e = unconfirmed(step, cause)
		e.RetryAfter = lpwire.UnavailableWait
	case p.status == http.StatusRequestTimeout:
		e = lpwire.Failure(step, http.StatusServiceUnavailable, p.number)
	case p.number == errorMissing:
		e = lpwire.Failure("", p.status, p.number)
	default:
		e = lpwire.Failure(step, p.status, p.number)
	}
	e.RetryAfter = max(e.RetryAfter, p.wait)
	return e
}

// unconfirmed says that something may have been done, and why that is not known.
func unconfirmed(step lpwire.Step, cause error) *share.Error {
	if step == lpwire.StepCreate {
		return share.Errorf(share.LPPublishUnconfirmed, "LivePerson did not confirm the conversation, which may be there or not", cause)
	}
	return lpwire.Unconfirmed(cause)
}

// UploadURL asks for leave to store one object. FileSharingDisabled if the account's switch is off; LPRejectedFile.
func (s *ConnectorSession) UploadURL(ctx context.Context, size int64, fileType share.FileType) (share.TempURL, error) {
	answer, err := s.ask(ctx, lpwire.StepUploadURL, "ms.GenerateURLForUploadFile", lpwire.NewUploadURLBody(size, fileType))
	if err != nil {
		return share.TempURL{}, err
	}
	return lpwire.ReadTempURL(answer, s.account, "")
}

// DownloadURL asks for leave to read one object. FileNotFound. The caller has checked that the path may be read.
func (s *ConnectorSession) DownloadURL(ctx context.Context, storagePath string) (share.TempURL, error) {
	answer, err := s.ask(ctx, lpwire.StepDownloadURL, "ms.GenerateURLForDownloadFile", lpwire.DownloadURLBody{RelativePath: storagePath})
	if err != nil {
		return share.TempURL{}, err
	}
	return lpwire.ReadTempURL(answer, s.account, storagePath)
}

// PublishFile sends a hosted/file message to a dialog (empty: the main one) and returns its sequence. It sends at most once:
// LPPublishUnconfirmed means that the message may be there, any other error that nothing was published. ConversationClosed;
// ConversationNotFound; LPForbidden; LPRejectedFile.
func (s *ConnectorSession) PublishFile(ctx context.Context, conversation, dialog string, file share.HostedFile) (int64, error) {
	dialog = cmp.Or(dialog, conversation)
	answer, err := s.do(ctx, lpwire.StepPublish, pathSend, connectorRequest{"req", requestID, "ms.PublishEvent",
		lpwire.Publish{DialogID: dialog, ConversationID: conversation, Event: lpwire.NewFileEvent(file)}})
	if err != nil {
		if share.Is(err, share.LPRejectedFile, share.LPForbidden, share.ConversationNotFound) && s.closed(ctx, conversation, dialog) {
			err = errConversationClosed()
		}
		return 0, err
	}
	sequence, ok := lpwire.ReadSequence(answer)
	if !ok { // it was published, and where is not known
		return 0, lpwire.Unconfirmed(lpwire.Unreadable("the sequence of a message"))
	}
	s.keep(ctx, share.LoggedEvent{Conversation: conversation, Dialog: dialog, Sequence: sequence, File: &share.FileEvent{
		Conversation: conversation, Dialog: dialog, Sequence: sequence, SenderID: s.who.ID, SenderRole: s.who.Role,
		Time: s.c.client.cfg.Now().UTC().Truncate(time.Millisecond), File: file,
	}})
	return sequence, nil
}

// keep notes what was done here. It is done, whatever the log says; where there are webhooks, they tell the log too.
func (s *ConnectorSession) keep(ctx context.Context, e share.LoggedEvent) {
	if _, err := s.c.log.AddEvent(context.WithoutCancel(ctx), s.account, e); err != nil {
		s.c.client.log.LogAttrs(ctx, slog.LevelWarn, "a message that was published could not be put into the event log", slog.Any("error", err))
	}
}

// MarkAccessed tells the others that the caller opened the message.
func (s *ConnectorSession) MarkAccessed(ctx context.Context, conversation, dialog string, sequence int64) error {
	return s.receipt(ctx, conversation, dialog, "ACCESS", sequence)
}

// MarkAccepted tells the others that the message reached the caller.
func (s *ConnectorSession) MarkAccepted(ctx context.Context, conversation, dialog string, sequence int64) error {
	return s.receipt(ctx, conversation, dialog, "ACCEPT", sequence)
}

func (s *ConnectorSession) receipt(ctx context.Context, conversation, dialog, status string, of int64) error {
	dialog = cmp.Or(dialog, conversation)
	answer, err := s.ask(ctx, lpwire.StepReceipt, "ms.PublishEvent",
		lpwire.Publish{DialogID: dialog, ConversationID: conversation, Event: lpwire.NewReceipt(status, of)})
	if err != nil {
		return err
	}
	if sequence, ok := lpwire.ReadSequence(answer); ok { // it has taken a place in the dialog, which must not look like a gap
		s.keep(ctx, share.LoggedEvent{Conversation: conversation, Dialog: dialog, Sequence: sequence})
	}
	return nil
}

// CreateConversation opens a conversation. It is sent at most once: LPPublishUnconfirmed means that it may be there, any other error
// that it is not. InvalidField where LivePerson refuses it.
func (s *ConnectorSession) CreateConversation(ctx context.Context, n share.NewConversation) (share.Conversation, error) {
	answer, err := s.do(ctx, lpwire.StepCreate, pathCreate, []connectorRequest{ // the order counts
		{"req", profileID, "userprofile.SetUserProfile", struct{}{}},
		{"req", requestID, "cm.ConsumerRequestConversation", lpwire.NewConversationBody(s.account, n)},
	})
	if err != nil {
		return share.Conversation{}, err
	}
	id, ok := lpwire.ReadConversationID(answer)
	if !ok { // it is there, and nobody knows which
		return share.Conversation{}, unconfirmed(lpwire.StepCreate, lpwire.Unreadable("the id of a conversation"))
	}
	var c share.LoggedConversation
	err = s.c.log.ChangeConversation(context.WithoutCancel(ctx), s.account, s.who.ID, id, func(told share.LoggedConversation, known bool) (share.LoggedConversation, bool) {
		if known { // LivePerson was faster
			c = told
			return c, false
		}
		c = share.LoggedConversation{Conversation: share.Conversation{
			ID: id, Open: true, Start: s.c.client.cfg.Now().UTC().Truncate(time.Millisecond), SkillID: n.SkillID,
			Dialogs:      []share.Dialog{{ID: id, Type: "MAIN", Open: true}},
			Participants: []share.Participant{{ID: s.who.ID, Role: s.who.Role}},
		}}
		return c, true
	})
	if err != nil { // without the record nobody could use it
		return share.Conversation{}, unconfirmed(lpwire.StepCreate, errors.New(err.Error()))
	}
	return c.Conversation, nil
}

// Conversation finds one that the consumer takes part in. ConversationNotFound for one that was neither opened here nor told of.
func (s *ConnectorSession) Conversation(ctx context.Context, id string) (share.Conversation, error) {
	c, ok, err := s.c.log.Conversation(ctx, s.account, s.who.ID, id)
	if err == nil && !ok {
		err = errNoConversation()
	}
	return c.Conversation, err
}

// ListConversations gives all that the consumer takes part in, newest first.
func (s *ConnectorSession) ListConversations(ctx context.Context) ([]share.Conversation, error) {
	logged, err := s.c.log.Conversations(ctx, s.account, s.who.ID)
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

// CloseConversation closes a conversation with all its dialogs, and returns it as it is then. One that is closed already is no
// error. ConversationNotFound.
func (s *ConnectorSession) CloseConversation(ctx context.Context, id string) (share.Conversation, error) {
	c, err := s.Conversation(ctx, id)
	if err != nil || !c.Open {
		return c, err
	}
	if _, err := s.ask(ctx, lpwire.StepClose, "cm.UpdateConversationField", lpwire.CloseBody(id)); err != nil {
		// Somebody else, or our own first try, may have been faster.
		if !share.Is(err, share.LPProtocolError, share.LPForbidden) || !s.closed(ctx, id, id) {
			return share.Conversation{}, err
		}
		return s.Conversation(ctx, id)
	}
	now := s.c.client.cfg.Now().UTC().Truncate(time.Millisecond)
	err = s.c.log.ChangeConversation(context.WithoutCancel(ctx), s.account, s.who.ID, id, func(l share.LoggedConversation, known bool) (share.LoggedConversation, bool) {
		if !known { // it was dropped meanwhile, since the log is full
			l.Conversation = c
		}
		write := l.Open
		if write {
			l.Open, l.End = false, now
			l.Updated = max(l.Updated, now.UnixMilli()) // what was told before, and comes after, does not open it again
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

// closed reports whether a dialog is known to be closed.
func (s *ConnectorSession) closed(ctx context.Context, conversation, dialog string) bool {
	c, err := s.Conversation(ctx, conversation)
	if err != nil {
		return false
	}
	d, ok := c.Dialog(dialog)
	return ok && !d.Open || !c.Open && dialog == c.ID
}

func errNoConversation() error {
	return share.Errorf(share.ConversationNotFound, "there is no such conversation or dialog among those that the consumer is known to take part in", nil)
}

func errConversationClosed() error {
	return share.Errorf(share.ConversationClosed, "the conversation or dialog is closed; begin another one", nil)
}

// FindFile looks in a dialog (empty: any of the conversation's) for the message that shows a storage path; the first, if there are
// several. ConversationNotFound if the consumer is not known to take part, FileNotFound: see Sight.
func (s *ConnectorSession) FindFile(ctx context.Context, conversation, dialog, storagePath string) (share.FileEvent, error) {
	if _, err := s.Conversation(ctx, conversation); err != nil {
		return share.FileEvent{}, err
	}
	e, ok, err := s.c.log.FindFile(ctx, s.account, conversation, dialog, storagePath)
	if err == nil && !ok {
		err = share.Errorf(share.FileNotFound, "no message of the conversation that is known here shows this file", nil)
	}
	if err != nil {
		return share.FileEvent{}, err
	}
	return *e.File, nil
}

// ListFiles gives the hosted files that are known of a conversation (""; of all that the consumer takes part in), by conversation
// (oldest first), dialog (the main one first) and sequence, and the place behind them. Without webhooks these are the files that
// were published through this server, and those that share its log.
func (s *ConnectorSession) ListFiles(ctx context.Context, conversation string) ([]share.FileEvent, share.Cursor, error) {
	in, err := s.chosen(ctx, conversation)
	if err != nil {
		return nil, nil, err
	}
	_, last, err := s.c.log.Bounds(ctx)
	if err != nil {
		return nil, nil, err
	}
	files, behind := []share.FileEvent{}, share.Cursor{share.LogPlace: int64(last)}
	for _, c := range in {
		events, err := s.c.log.Read(ctx, s.account, c.ID, 0, last)
		if err != nil {
			return nil, nil, err
		}
		if err := s.learn(ctx, c, events); err != nil {
			return nil, nil, err
		}
		behind[c.ID] = -1
		for _, d := range c.Dialogs {
			behind[d.ID] = -1
		}
		from := len(files)
		for _, e := range events {
			if at, seen := behind[e.Dialog]; !seen || e.Sequence > at {
				behind[e.Dialog] = e.Sequence
			}
			if e.File != nil {
				files = append(files, *e.File)
			}
		}
		slices.SortFunc(files[from:], func(a, b share.FileEvent) int {
			return cmp.Or(mainFirst(c.ID, a.Dialog, b.Dialog), cmp.Compare(a.Dialog, b.Dialog), cmp.Compare(a.Sequence, b.Sequence))
		})
	}
	return files, behind, nil
}

func mainFirst(main, a, b string) int {
	switch {
	case a == b:
		return 0
	case a == main:
		return -1
	case b == main:
		return 1
	}
	return 0
}

// chosen are the conversation that is asked for, or all ("") of the consumer's, oldest first.
func (s *ConnectorSession) chosen(ctx context.Context, conversation string) ([]share.Conversation, error) {
	if conversation != "" {
		c, err := s.Conversation(ctx, conversation)
		return []share.Conversation{c}, err
	}
	all, err := s.ListConversations(ctx)
	slices.Reverse(all)
	return all, err
}

// learn adds dialogs to a conversation that events have and its record does not: LivePerson may tell of their conversation later.
func (s *ConnectorSession) learn(ctx context.Context, c share.Conversation, events []share.LoggedEvent) error {
	for _, e := range events {
		if _, ok := c.Dialog(e.Dialog); ok {
			continue
		}
		d := share.Dialog{ID: e.Dialog, Open: c.Open}
		c.Dialogs = append(slices.Clip(c.Dialogs), d)
		err := s.c.log.ChangeConversation(ctx, s.account, s.who.ID, c.ID, func(l share.LoggedConversation, known bool) (share.LoggedConversation, bool) {
			_, there := l.Dialog(d.ID)
			l.Dialogs = append(slices.Clip(l.Dialogs), d)
			return l, known && !there
		})
		if err != nil {
			return err
		}
	}
	return nil
}
