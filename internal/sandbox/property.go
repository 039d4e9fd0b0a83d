package sandbox

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
)

// fileSharingProperty is the switch: while it is false no upload URL is given out.
const fileSharingProperty = "messaging.file.sharing.enabled"

// booleanProperty is the type of a boolean property. LivePerson does not document the number; clients send what they like.
const booleanProperty = 4

// A property is one of an account's site properties. Sandbox.mu guards it.
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

// fileSharing reports whether the account lets consumers and agents send files.
func (a *account) fileSharing() bool {
	p := a.settings[fileSharingProperty]
	if p == nil {
		return false
	}
	on, _ := p.value.(bool)
	return on
}

// readProperties answers GET .../properties.
func (s *Sandbox) readProperties(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.configSession(w, r)
	if in == nil {
		return
	}
	all := make([]*property, 0, len(in.account.settings))
	for _, id := range slices.Sorted(maps.Keys(in.account.settings)) {
		all = append(all, in.account.settings[id])
	}
	w.Header().Set("ETag", strconv.Itoa(in.account.revision))
	respond(w, http.StatusOK, all)
}

// readProperty answers GET .../properties/{id}.
func (s *Sandbox) readProperty(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.configSession(w, r)
	if in == nil {
		return
	}
	p := in.account.settings[r.PathValue("property")]
	if p == nil {
		fail(w, http.StatusNotFound, "no such property")
		return
	}
	w.Header().Set("ETag", strconv.Itoa(in.account.revision))
	respond(w, http.StatusOK, p)
}

// writeProperty answers PUT .../properties/{id}.
func (s *Sandbox) writeProperty(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	in := s.configSession(w, r)
	if in == nil {
		return
	}
	if !in.agent.admin {
		fail(w, http.StatusForbidden, "only an administrator may change a site property")
		return
	}
	acct := in.account
	switch match := r.Header.Get("If-Match"); match {
	case "":
		fail(w, http.StatusPreconditionRequired, "If-Match is wanted: a revision, or -1 for any")
		return
	case "-1", strconv.Itoa(acct.revision):
	default:
		fail(w, http.StatusPreconditionFailed, "the account is at another revision")
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
	if err := readBody(r, &body); err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	id := r.PathValue("property")
	if id == "" {
		id = body.ID
	}
	if id == "" || (body.ID != "" && body.ID != id) {
		fail(w, http.StatusBadRequest, "path and body name different properties, or none")
		return
	}
	deleted, ok := looseBool(body.Deleted, false)
	if !ok {
		fail(w, http.StatusBadRequest, "deleted is neither true nor false")
		return
	}
	next := &property{id: id, kind: body.Type}
	switch {
	case deleted:
	case body.PropertyValue == nil || len(body.PropertyValue.Value) == 0:
		fail(w, http.StatusBadRequest, "propertyValue.value is wanted")
		return
	case id == fileSharingProperty:
		on, ok := looseBool(body.PropertyValue.Value, false)
		if !ok {
			fail(w, http.StatusBadRequest, "the value is neither true nor false")
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
	respond(w, http.StatusOK, next)
}

// configSession returns the session of r's bearer; if there is none, or r asks for another version, it answers and returns nil.
func (s *Sandbox) configSession(w http.ResponseWriter, r *http.Request) *session {
	bearer, _ := schemeToken(r, "Bearer")
	in := s.sessionByBearer(r.PathValue("account"), bearer)
	if in == nil {
		fail(w, http.StatusUnauthorized, "a bearer of this account is wanted")
		return nil
	}
	if v := r.URL.Query().Get("v"); v != "3.0" {
		fail(w, http.StatusBadRequest, "v must be 3.0")
		return nil
	}
	return in
}

// looseBool reads true or false, bare or quoted; nothing at all is the default.
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
