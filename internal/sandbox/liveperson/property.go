package liveperson

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"

	"github.com/lpfileshare/lpfileshare/internal/sandbox/jsonhttp"
)

// properties is the API of an account's site properties.
type properties struct{ *Service }

// fileSharingProperty is the site property that permits file sharing.
const fileSharingProperty = "messaging.file.sharing.enabled"

// booleanProperty is the type of a boolean property. LivePerson does not document the number, and clients send different ones.
const booleanProperty = 4

// A property is one of an account's site properties. Service.mu guards it.
type property struct {
	id    string
	kind  int
	value any
}

func (p *property) MarshalJSON() ([]byte, error) {
	return json.Marshal(map[string]any{
		"id": p.id, "type": p.kind, "propertyValue": map[string]any{"value": p.value}, "deleted": false,
	})
}

// fileSharing reports whether the account permits consumers and agents to send files.
func (a *account) fileSharing() bool {
	p := a.settings[fileSharingProperty]
	if p == nil {
		return false
	}
	on, _ := p.value.(bool)
	return on
}

// readAll answers GET .../properties.
func (s properties) readAll(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.session(w, r)
	if in == nil {
		return
	}
	all := make([]*property, 0, len(in.account.settings))
	for _, id := range slices.Sorted(maps.Keys(in.account.settings)) {
		all = append(all, in.account.settings[id])
	}
	w.Header().Set("ETag", strconv.Itoa(in.account.revision))
	jsonhttp.Respond(w, http.StatusOK, all)
}

// read answers GET .../properties/{id}.
func (s properties) read(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.session(w, r)
	if in == nil {
		return
	}
	p := in.account.settings[r.PathValue("property")]
	if p == nil {
		jsonhttp.Fail(w, http.StatusNotFound, "no such property")
		return
	}
	w.Header().Set("ETag", strconv.Itoa(in.account.revision))
	jsonhttp.Respond(w, http.StatusOK, p)
}

// write answers PUT .../properties/{id}.
func (s properties) write(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.session(w, r)
	if in == nil {
		return
	}
	if !in.agent.admin {
		jsonhttp.Fail(w, http.StatusForbidden, "only an administrator may change a site property")
		return
	}
	acct := in.account
	switch match := r.Header.Get("If-Match"); match {
	case "":
		jsonhttp.Fail(w, http.StatusPreconditionRequired, "If-Match is required: a revision, or -1 for any")
		return
	case "-1", strconv.Itoa(acct.revision):
	default:
		jsonhttp.Fail(w, http.StatusPreconditionFailed, "the account has another revision")
		return
	}

	var body struct {
		ID            string `json:"id"`
		Type          int    `json:"type"`
		PropertyValue *struct {
			Value json.RawMessage `json:"value"`
		} `json:"propertyValue"`
		Deleted json.RawMessage `json:"deleted"`
	}
	if err := jsonhttp.Read(r, &body); err != nil {
		jsonhttp.Fail(w, http.StatusBadRequest, err.Error())
		return
	}
	id := r.PathValue("property")
	if id == "" {
		id = body.ID
	}
	if id == "" || (body.ID != "" && body.ID != id) {
		jsonhttp.Fail(w, http.StatusBadRequest, "path and body name different properties or none")
		return
	}
	deleted, ok := looseBool(body.Deleted, false)
	if !ok {
		jsonhttp.Fail(w, http.StatusBadRequest, "deleted must be true or false")
		return
	}
	next := &property{id: id, kind: body.Type}
	switch {
	case deleted:
	case body.PropertyValue == nil || len(body.PropertyValue.Value) == 0:
		jsonhttp.Fail(w, http.StatusBadRequest, "propertyValue.value is required")
		return
	case id == fileSharingProperty:
		on, ok := looseBool(body.PropertyValue.Value, false)
		if !ok {
			jsonhttp.Fail(w, http.StatusBadRequest, "the value must be true or false")
			return
		}
		next.kind, next.value = booleanProperty, on
	default:
		next.value = body.PropertyValue.Value
	}
	acct.revision++
	if deleted {
		delete(acct.settings, id)
		next = &property{id: id, kind: body.Type}
	} else {
		acct.settings[id] = next
	}
	s.log.Info("site property written", "account", acct.id, "property", id, "by", in.agent.name)
	w.Header().Set("ETag", strconv.Itoa(acct.revision))
	jsonhttp.Respond(w, http.StatusOK, next)
}

// session returns the session of r's bearer. If there is none, or r is for another version, it answers and returns nil.
func (s properties) session(w http.ResponseWriter, r *http.Request) *session {
	bearer, _ := schemeToken(r, "Bearer")
	in := s.sessionByBearer(r.PathValue("account"), bearer)
	if in == nil {
		jsonhttp.Fail(w, http.StatusUnauthorized, "a bearer of this account is required")
		return nil
	}
	if v := r.URL.Query().Get("v"); v != "3.0" {
		jsonhttp.Fail(w, http.StatusBadRequest, "v must be 3.0")
		return nil
	}
	return in
}

// looseBool parses true or false, with or without quotes; missing is the value of an absent member.
func looseBool(raw json.RawMessage, missing bool) (value, ok bool) {
	switch string(bytes.TrimSpace(raw)) {
	case "", "null":
		return missing, true
	case "true", `"true"`:
		return true, true
	case "false", `"false"`:
		return false, true
	default:
		return false, false
	}
}
