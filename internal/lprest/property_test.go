package lprest

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/lpwire"
	"github.com/lpfileshare/lpfileshare/internal/share"
	"github.com/lpfileshare/lpfileshare/test/lpfake"
)

func TestFileSharing(t *testing.T) {
	f, clk := lpfake.New(t), newClock()
	c := newClient(t, Config{DomainAPI: f.URL, PlainHTTP: true, Now: clk.Now})
	agent := share.AgentGrant{Account: lpfake.Account, UserID: "1", UserPID: "2", Bearer: "bea4e4", Expires: clk.Now().Add(time.Hour).Unix()}
	const path = "/configuration/setting/properties/messaging.file.sharing.enabled"
	for name, x := range map[string]struct {
		answer http.HandlerFunc
		on     bool
		kind   share.Kind
	}{
		"on":              {lpfake.Says(200, `{"id":"messaging.file.sharing.enabled","type":2,"propertyValue":{"value":true},"deleted":false}`), true, ""},
		"on, as a string": {lpfake.Says(200, `{"propertyValue":{"value":"true"},"deleted":"false"}`), true, ""},
		"off":             {lpfake.Says(200, `{"id":"messaging.file.sharing.enabled","propertyValue":{"value":"false"}}`), false, ""},
		"deleted":         {lpfake.Says(200, `{"propertyValue":{"value":"true"},"deleted":"true"}`), false, ""},
		"in a list":       {lpfake.Says(200, `[{"id":"x","propertyValue":{"value":"7"}},{"id":"messaging.file.sharing.enabled","propertyValue":{"value":true}}]`), true, ""},
		"not there":       {lpfake.Says(404, `{}`), false, ""},
		"not in the list": {lpfake.Says(200, `[]`), false, ""},
		"no answer":       {lpfake.Says(200, `{}`), false, share.LPProtocolError},
		"not a boolean":   {lpfake.Says(200, `{"propertyValue":{"value":"maybe"}}`), false, share.LPProtocolError},
		"no login":        {lpfake.Says(401, ``), false, share.TokenInvalid},
		"no right":        {lpfake.Says(403, ``), false, share.NotAllowed},
		"trouble":         {lpfake.Says(500, ``), false, share.LPUnavailable},
	} {
		f.On(path, x.answer)
		on, err := c.FileSharing(t.Context(), agent)
		if on != x.on || share.KindOf(err) != x.kind || (x.kind == "") != (err == nil) {
			t.Errorf("%s: %t, %v", name, on, err)
		}
	}
	f.Requests()

	for name, x := range map[string]struct{ there, sent string }{
		"with its type":       {`{"id":"messaging.file.sharing.enabled","type":2,"propertyValue":{"value":false}}`, "2"},
		"with a default type": {``, "4"},
	} {
		f.On(path, func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.Method == http.MethodGet && x.there == "":
				w.WriteHeader(404)
			case r.Method == http.MethodGet:
				lpfake.Says(200, x.there)(w, r)
			}
		})
		if err := c.SetFileSharing(t.Context(), agent, true); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		asked := f.Requests()
		same(t, asked, "GET "+path+"?v=3.0 ",
			"PUT "+path+`?v=3.0 {"id":"messaging.file.sharing.enabled","type":`+x.sent+`,"propertyValue":{"value":"true"},"deleted":"false"}`)
		if h := asked[1].Header; h.Get("If-Match") != "-1" || h.Get("Authorization") != "Bearer bea4e4" {
			t.Errorf("%s: headers %v", name, h)
		}
	}

	for status, kind := range map[int]share.Kind{401: share.TokenInvalid, 403: share.NotAllowed, 412: share.LPProtocolError, 503: share.LPUnavailable} {
		f.On(path, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				w.WriteHeader(status)
				return
			}
			w.WriteHeader(404)
		})
		err := c.SetFileSharing(t.Context(), agent, false)
		if !share.Is(err, kind) {
			t.Errorf("PUT answered %d: %v", status, err)
		}
		if status == 403 && !strings.Contains(err.Error(), "administrator") {
			t.Errorf("403 does not say who may: %v", err)
		}
	}
	f.Requests()
	for name, bad := range map[string]share.AgentGrant{
		"expired": {Account: lpfake.Account, Bearer: "b", Expires: clk.Now().Add(-lpwire.Leeway).Unix()}, "a broken bearer": {Account: lpfake.Account, Bearer: "a\r\nX: y"},
		"none": {Account: lpfake.Account},
	} {
		if _, err := c.FileSharing(t.Context(), bad); !share.Is(err, share.TokenInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if asked := f.Requests(); len(asked) > 0 {
		t.Errorf("asked %v", asked)
	}
}
