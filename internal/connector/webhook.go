package connector

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"hash"
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

const (
	// maxDelivery is the maximum length of a delivery's body, in bytes. One event with its preview has about 50 KB.
	maxDelivery = 1 << 20
	// maxKeeping is the number of verified deliveries that are put into the log at once.
	maxKeeping = 256
	// deliveryTimeout limits the handling of a delivery. LivePerson waits for 5 s, and repeats a delivery without a response.
	deliveryTimeout = 4 * time.Second
)

type counts struct{ kept, repeated, rejected, failed, late atomic.Int64 }

// Counts are the numbers of events and deliveries since the Messenger was made.
type Counts struct {
	// Kept events were new, Repeated ones were in the log already.
	Kept, Repeated int64
	// Rejected deliveries are not LivePerson's or cannot be read. Failed ones could not be kept, and will be repeated.
	Rejected, Failed int64
	// Late counts files that arrived after a watch had passed their sequence, once for each watch that had to start again.
	Late int64
}

// Counts returns the current numbers.
func (m *Messenger) Counts() Counts {
	n := &m.counts
	return Counts{n.kept.Load(), n.repeated.Load(), n.rejected.Load(), n.failed.Load(), n.late.Load()}
}

// Webhook handles LivePerson's deliveries (LivePerson: Connector API, webhooks): POST /webhooks, for the account in
// x-liveperson-account-id, or POST /webhooks/{account}. It responds with 200 once everything that a delivery reports is in the log,
// and with 5xx if that fails, so that LivePerson repeats the delivery. A delivery that is not signed with the secret of the
// account's app install has no effect; it gets 401, whatever is wrong with it.
func (m *Messenger) Webhook() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /webhooks", m.handleDelivery)
	mux.HandleFunc("POST /webhooks/{account}", m.handleDelivery)
	return mux
}

// A delivery is LivePerson's report, verified.
type delivery struct {
	account string
	body    []byte
}

// A rejection says why a delivery is not handled. reason is for the log, status for the sender. limit is the name of the limit that
// was reached, if one was.
type rejection struct {
	status        int
	reason, limit string
}

// Limits of webhooks, by their names in the counters.
const (
	limitBodies     = "WEBHOOK_BODIES"     // memory for bodies that are not verified yet
	limitDeliveries = "WEBHOOK_DELIVERIES" // verified deliveries at once
)

func (m *Messenger) handleDelivery(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), deliveryTimeout)
	defer cancel()
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(deliveryTimeout)) // ctx does not end a Read
	d, rejected := m.verify(w, r)
	if rejected != nil {
		m.reject(w, r, rejected)
		return
	}
	// Only now: an unverified delivery must not keep LivePerson's own out.
	select {
	case m.keeping <- struct{}{}:
		defer func() { <-m.keeping }()
	default:
		m.cfg.Rejections.Add(limitDeliveries, slog.String("account", d.account), slog.String("peer", r.RemoteAddr))
		m.fail(w, "too many deliveries")
		return
	}
	rejected, err := m.keep(ctx, d)
	switch {
	case rejected != nil:
		m.reject(w, r, rejected)
	case err != nil:
		m.log.LogAttrs(ctx, slog.LevelWarn, "a delivery could not be kept; LivePerson will repeat it", slog.String("account", d.account), slog.Any("error", err))
		m.fail(w, "retry later")
	default:
		w.WriteHeader(http.StatusOK)
	}
}

// fail responds with a status after which LivePerson repeats the delivery.
func (m *Messenger) fail(w http.ResponseWriter, text string) {
	m.counts.failed.Add(1)
	http.Error(w, text, http.StatusServiceUnavailable)
}

func (m *Messenger) reject(w http.ResponseWriter, r *http.Request, why *rejection) {
	m.counts.rejected.Add(1)
	if why.limit != "" {
		m.cfg.Rejections.Add(why.limit, slog.String("peer", r.RemoteAddr))
	} else {
		m.log.LogAttrs(r.Context(), slog.LevelWarn, "a delivery was rejected", slog.String("reason", why.reason), slog.String("peer", r.RemoteAddr))
	}
	http.Error(w, http.StatusText(why.status), why.status)
}

// verify reads a delivery and checks its signature. Until then its memory is limited by maxBodyMemory.
func (m *Messenger) verify(w http.ResponseWriter, r *http.Request) (delivery, *rejection) {
	account, app, ok := m.receiver(r)
	if !ok {
		return delivery{}, &rejection{status: http.StatusUnauthorized, reason: "the account does not use webhooks on this server"}
	}
	sum, newHash, ok := readSignature(r.Header.Get("X-Liveperson-Signature"))
	if !ok {
		return delivery{}, &rejection{status: http.StatusUnauthorized, reason: "the signature is missing or malformed"}
	}
	from, _ := netip.ParseAddrPort(r.RemoteAddr)
	body := m.bodies.begin(from.Addr(), func() { _ = http.NewResponseController(w).SetReadDeadline(time.Now()) })
	defer body.release()
	data, err := body.readAll(http.MaxBytesReader(w, r.Body, maxDelivery))
	_, tooLong := errors.AsType[*http.MaxBytesError](err)
	switch {
	case errors.Is(err, errBodyMemory):
		return delivery{}, &rejection{status: http.StatusServiceUnavailable, limit: limitBodies}
	case tooLong:
		return delivery{}, &rejection{status: http.StatusRequestEntityTooLarge, reason: "the body is too long"}
	case err != nil:
		return delivery{}, &rejection{status: http.StatusRequestEntityTooLarge, reason: "the body is incomplete"}
	}
	mac := hmac.New(newHash, []byte(app.Secret))
	mac.Write(data)
	if !hmac.Equal(mac.Sum(nil), sum) {
		return delivery{}, &rejection{status: http.StatusUnauthorized, reason: "the signature is wrong"}
	}
	return delivery{account, data}, nil
}

// receiver returns the account that a delivery is for. The headers are not signed: they must agree with the path and with the
// configuration.
func (m *Messenger) receiver(r *http.Request) (account string, app App, ok bool) {
	header := r.Header.Get("X-Liveperson-Account-Id")
	account = cmp.Or(r.PathValue("account"), header)
	if !share.ValidAccountID(account) || header != "" && header != account {
		return "", App{}, false
	}
	app, ok = m.cfg.App(account)
	client := r.Header.Get("X-Liveperson-Client-Id")
	return account, app, ok && app.Webhooks && app.Secret != "" && (client == "" || client == app.ID)
}

// readSignature reads "sha1=" or "sha256=" and a sum in base64.
func readSignature(header string) (sum []byte, newHash func() hash.Hash, ok bool) {
	algorithm, text, _ := strings.Cut(header, "=")
	switch algorithm {
	case "sha1":
		newHash = sha1.New
	case "sha256":
		newHash = sha256.New
	default:
		return nil, nil, false
	}
	sum, err := base64.StdEncoding.DecodeString(text)
	return sum, newHash, err == nil && len(sum) == newHash().Size()
}

// keep puts what a delivery reports into the log.
func (m *Messenger) keep(ctx context.Context, d delivery) (*rejection, error) {
	var n struct {
		Type lpwire.Text     `json:"type"`
		Body json.RawMessage `json:"body"`
	}
	if json.Unmarshal(d.body, &n) != nil {
		return &rejection{status: http.StatusBadRequest, reason: "the body is not JSON"}, nil
	}
	name := string(n.Type)
	switch name[strings.LastIndexByte(name, '.')+1:] {
	case "MessagingEventNotification":
		return nil, m.keepEvents(ctx, d.account, n.Body)
	case "ExConversationChangeNotification":
		return nil, m.keepConversations(ctx, d.account, n.Body)
	}
	return nil, nil
}

// keepEvents adds events of dialogs to the log.
func (m *Messenger) keepEvents(ctx context.Context, account string, body json.RawMessage) error {
	var changes lpwire.EventChanges
	_ = json.Unmarshal(body, &changes) // unreadable events are left out
	for i := range changes.Changes {
		e, ok := m.loggedEvent(account, &changes.Changes[i])
		if !ok {
			continue
		}
		added, err := m.events.AddEvent(ctx, account, e)
		if err != nil {
			return err
		}
		if added {
			m.counts.kept.Add(1)
		} else {
			m.counts.repeated.Add(1)
		}
	}
	return nil
}

// loggedEvent converts an event for the log; false for one that the log does not keep.
func (m *Messenger) loggedEvent(account string, e *lpwire.Event) (share.LoggedEvent, bool) {
	conversation := cmp.Or(e.ConversationID, e.DialogID)
	if !e.Sequence.OK || e.Sequence.N < 0 || !isID(e.DialogID) || !isID(conversation) {
		return share.LoggedEvent{}, false // such as chat states, which have no sequence
	}
	at := e.Timestamp.Time()
	if !at.IsZero() && m.client.Now().Sub(at) > m.cfg.KeepFor {
		m.counts.repeated.Add(1) // the log had it, and has dropped it
		return share.LoggedEvent{}, false
	}
	logged := share.LoggedEvent{Conversation: string(conversation), Dialog: string(e.DialogID), Sequence: e.Sequence.N}
	// An event for agents only has a sequence, but consumers must not see the rest.
	if file, ok := e.File(account); ok && (e.Audience == "" || e.Audience == "ALL") {
		logged.File = &share.FileEvent{
			Conversation: logged.Conversation, Dialog: logged.Dialog, Sequence: logged.Sequence,
			SenderID: e.SenderID(), SenderRole: share.Role(e.Originator.V.Role), Time: at, File: file,
		}
	}
	return logged, true
}

// keepConversations updates the records of conversations, and drops updates that are older than the record.
func (m *Messenger) keepConversations(ctx context.Context, account string, body json.RawMessage) error {
	var changes lpwire.ConversationChanges
	_ = json.Unmarshal(body, &changes)
	for i := range changes.Changes {
		wire := &changes.Changes[i].Result.V
		brand := wire.Details.V.BrandID
		if changes.Changes[i].Type == "DELETE" || !isID(wire.ConvID) || brand != "" && string(brand) != account {
			continue
		}
		next := share.LoggedConversation{Updated: cmp.Or(wire.Details.V.MetaDataTs.N, wire.LastUpdateTime.N)}
		next.Conversation, _ = wire.Read()
		if next.Updated > 0 && m.client.Now().Sub(time.UnixMilli(next.Updated)) > m.cfg.KeepFor {
			continue
		}
		for _, p := range next.Participants {
			if p.Role != share.RoleConsumer || !isID(lpwire.Text(p.ID)) {
				continue
			}
			if err := m.events.ChangeConversation(ctx, account, p.ID, next.ID, updateTo(next)); err != nil {
				return err
			}
		}
	}
	return nil
}

// updateTo returns the change from a record to next, which is no change if next is older.
func updateTo(next share.LoggedConversation) func(share.LoggedConversation, bool) (share.LoggedConversation, bool) {
	return func(old share.LoggedConversation, known bool) (share.LoggedConversation, bool) {
		if known && next.Updated < old.Updated {
			return old, false
		}
		c := next
		c.Dialogs = slices.Clone(next.Dialogs)
		if known {
			if c.Updated == 0 && !old.Open { // an update without a time does not reopen a conversation
				return old, false
			}
			for _, d := range old.Dialogs { // an update may leave out dialogs that still exist
				if _, there := c.Dialog(d.ID); !there {
					d.Open = d.Open && c.Open
					c.Dialogs = append(c.Dialogs, d)
				}
			}
			if c.Start.IsZero() {
				c.Start = old.Start
			}
		}
		return c, true
	}
}

// isID reports whether id can be used as an id here: 1 to 64 printable characters, without "/". LivePerson's ids are such.
func isID(id lpwire.Text) bool {
	return len(id) <= 64 && share.IsPrintableWord(string(id)) && !strings.Contains(string(id), "/") && id[0] != '~' // share.LogPosition
}
