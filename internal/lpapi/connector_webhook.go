package lpapi

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"hash"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

const (
	// maxDelivery is the largest body of a delivery. One event with its preview has some 50 KB.
	maxDelivery = 1 << 20
	// maxDeliveries is how many are dealt with at once.
	maxDeliveries = 256
	// deliveryTimeout is how long one may take: LivePerson waits for 5 s, and delivers again what was not answered.
	deliveryTimeout = 4 * time.Second
)

type connectorCounts struct{ kept, repeated, refused, failed, late atomic.Int64 }

// ConnectorCounts are what has come by webhook since the Connector was made.
type ConnectorCounts struct {
	// Kept are events that were new, Repeated those that were there already.
	Kept, Repeated int64
	// Refused are deliveries that are not LivePerson's, or cannot be read; Failed those that could not be kept, and come again.
	Refused, Failed int64
	// Late are files that came behind their place, once for each watch that had to begin anew.
	Late int64
}

// Counts are what has come by webhook so far.
func (c *Connector) Counts() ConnectorCounts {
	n := &c.counts
	return ConnectorCounts{n.kept.Load(), n.repeated.Load(), n.refused.Load(), n.failed.Load(), n.late.Load()}
}

// Webhook takes LivePerson's deliveries (LivePerson: Connector API, webhooks): POST /webhooks, of the account in
// x-liveperson-account-id, or POST /webhooks/{account}. It answers 200 once all that a delivery tells is in the log, and 5xx where
// that cannot be, so that LivePerson delivers again. What is not signed with the secret of the account's app install changes nothing:
// 401, whatever is wrong with it.
func (c *Connector) Webhook() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /webhooks", c.delivered)
	mux.HandleFunc("POST /webhooks/{account}", c.delivered)
	return mux
}

func (c *Connector) delivered(w http.ResponseWriter, r *http.Request) {
	select {
	case c.receiving <- struct{}{}:
		defer func() { <-c.receiving }()
	default:
		c.counts.failed.Add(1)
		http.Error(w, "too many at once", http.StatusServiceUnavailable)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), deliveryTimeout)
	defer cancel()
	refuse := func(status int, why string) {
		c.counts.refused.Add(1)
		c.client.log.LogAttrs(ctx, slog.LevelDebug, "a delivery was refused", slog.String("why", why))
		http.Error(w, http.StatusText(status), status)
	}
	account, app, ok := c.receiver(r)
	if !ok {
		refuse(http.StatusUnauthorized, "it is for no account whose events this server takes")
		return
	}
	sum, newHash, ok := readSignature(r.Header.Get("X-Liveperson-Signature"))
	if !ok {
		refuse(http.StatusUnauthorized, "its signature is missing or malformed")
		return
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(deliveryTimeout)) // ctx does not end a Read
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxDelivery))
	if err != nil {
		refuse(http.StatusRequestEntityTooLarge, "it is too long, or broke off")
		return
	}
	mac := hmac.New(newHash, []byte(app.Secret))
	mac.Write(body)
	if !hmac.Equal(mac.Sum(nil), sum) {
		refuse(http.StatusUnauthorized, "its signature is wrong")
		return
	}
	var n struct {
		Type lpwire.Text     `json:"type"`
		Body json.RawMessage `json:"body"`
	}
	if json.Unmarshal(body, &n) != nil {
		refuse(http.StatusBadRequest, "it is not readable")
		return
	}
	name := string(n.Type)
	switch name[strings.LastIndexByte(name, '.')+1:] {
	case "MessagingEventNotification":
		err = c.takeEvents(ctx, account, n.Body)
	case "ExConversationChangeNotification":
		err = c.takeConversations(ctx, account, n.Body)
	}
	if err != nil {
		c.counts.failed.Add(1)
		c.client.log.LogAttrs(ctx, slog.LevelWarn, "a delivery could not be kept, and is to come again", slog.String("account", account), slog.Any("error", err))
		http.Error(w, "try again", http.StatusServiceUnavailable)
		return
	}
	w.WriteHeader(http.StatusOK)
}

// receiver is whom a delivery is for. Its headers are not signed: what they say must agree with the path, if that says anything, and
// with what is configured.
func (c *Connector) receiver(r *http.Request) (account string, app ConnectorApp, ok bool) {
	header := r.Header.Get("X-Liveperson-Account-Id")
	account = cmp.Or(r.PathValue("account"), header)
	if !accountID.MatchString(account) || header != "" && header != account {
		return "", ConnectorApp{}, false
	}
	app, ok = c.cfg.App(account)
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

// takeEvents keeps events of dialogs.
func (c *Connector) takeEvents(ctx context.Context, account string, body json.RawMessage) error {
	var changes lpwire.EventChanges
	_ = json.Unmarshal(body, &changes) // what is not readable is none
	for i := range changes.Changes {
		e := &changes.Changes[i]
		if !e.Sequence.OK || e.Sequence.N < 0 || !isID(e.DialogID) {
			continue // chat states have no sequence, and nothing to tell
		}
		at := e.Timestamp.Time()
		if !at.IsZero() && c.client.cfg.Now().Sub(at) > c.cfg.KeepFor {
			c.counts.repeated.Add(1) // it was there, and is forgotten
			continue
		}
		conversation := cmp.Or(e.ConversationID, e.DialogID)
		if !isID(conversation) {
			continue
		}
		ev := share.LoggedEvent{Conversation: string(conversation), Dialog: string(e.DialogID), Sequence: e.Sequence.N}
		// What is for agents alone has a place in the dialog, and nothing else for consumers.
		if file, ok := e.File(account); ok && (e.Audience == "" || e.Audience == "ALL") {
			ev.File = &share.FileEvent{
				Conversation: ev.Conversation, Dialog: ev.Dialog, Sequence: ev.Sequence,
				SenderID: e.SenderID(), SenderRole: share.Role(e.Originator.V.Role), Time: at, File: file,
			}
		}
		added, err := c.log.AddEvent(ctx, account, ev)
		if err != nil {
			return err
		}
		if added {
			c.counts.kept.Add(1)
		} else {
			c.counts.repeated.Add(1)
		}
	}
	return nil
}

// takeConversations keeps news of conversations, and drops what is older than what is known.
func (c *Connector) takeConversations(ctx context.Context, account string, body json.RawMessage) error {
	var changes lpwire.ConversationChanges
	_ = json.Unmarshal(body, &changes)
	for i := range changes.Changes {
		w := &changes.Changes[i].Result.V
		brand := w.Details.V.BrandID
		if changes.Changes[i].Type == "DELETE" || !isID(w.ConvID) || brand != "" && string(brand) != account {
			continue
		}
		next := share.LoggedConversation{Updated: cmp.Or(w.Details.V.MetaDataTs.N, w.LastUpdateTime.N)}
		next.Conversation, _ = w.Read()
		if next.Updated > 0 && c.client.cfg.Now().Sub(time.UnixMilli(next.Updated)) > c.cfg.KeepFor {
			continue
		}
		for _, p := range next.Participants {
			if p.Role != share.RoleConsumer || !isID(lpwire.Text(p.ID)) {
				continue
			}
			if err := c.log.ChangeConversation(ctx, account, p.ID, next.ID, newer(next)); err != nil {
				return err
			}
		}
	}
	return nil
}

// newer is the change that news brings, unless it is old.
func newer(next share.LoggedConversation) func(share.LoggedConversation, bool) (share.LoggedConversation, bool) {
	return func(old share.LoggedConversation, known bool) (share.LoggedConversation, bool) {
		if known && next.Updated < old.Updated {
			return old, false
		}
		c := next
		c.Dialogs = slices.Clone(next.Dialogs)
		if known {
			if c.Updated == 0 && !old.Open { // it does not say when it was: what is closed stays closed
				return old, false
			}
			for _, d := range old.Dialogs { // one that was spoken of once is not gone because it is left out
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

// isID: LivePerson's ids have 1 to 64 characters, as they must here to be named.
func isID(id lpwire.Text) bool {
	for _, b := range []byte(id) {
		if b <= ' ' || b >= 0x7f || b == '/' {
			return false
		}
	}
	return id != "" && len(id) <= 64 && id[0] != '~' // share.LogPlace is nobody's
}
