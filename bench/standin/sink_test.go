package standin

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/lpfileshare/lpfileshare/bench/content"
)

func TestSink(t *testing.T) {
	s := &sink{}
	file := content.Of(600_000)
	ask := func(method, path string, body []byte) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(method, path, bytes.NewReader(body)))
		return w
	}
	changed := bytes.Clone(file.Data)
	changed[len(changed)-1]++
	if w := ask(http.MethodPut, "/v1/a", changed); w.Code != http.StatusUnprocessableEntity {
		t.Errorf("a PUT of other bytes: %d", w.Code)
	}
	if w := ask(http.MethodGet, "/v1/a", nil); w.Code != http.StatusNotFound {
		t.Errorf("GET of what was not stored: %d", w.Code)
	}
	if w := ask(http.MethodPut, "/v1/a", file.Data); w.Code != http.StatusCreated || w.Header().Get("Etag") != file.MD5 {
		t.Errorf("PUT: %d, ETag %q", w.Code, w.Header().Get("Etag"))
	}
	if w := ask(http.MethodGet, "/v1/a", nil); w.Code != http.StatusOK || !bytes.Equal(w.Body.Bytes(), file.Data) || w.Header().Get("Etag") != file.MD5 {
		t.Errorf("GET: %d, %d bytes", w.Code, w.Body.Len())
	}
}
