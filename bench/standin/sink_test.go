package standin

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/lpfileshare/lpfileshare/bench/content"
)

func TestSink(t *testing.T) {
	wrong := 0
	s := &sink{wrong: func() { wrong++ }}
	file := content.Of(600_000)
	ask := func(method, path string, body []byte) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		s.ServeHTTP(w, httptest.NewRequest(method, path, bytes.NewReader(body)))
		return w
	}
	changed := bytes.Clone(file.Data)
	changed[len(changed)-1]++
	if w := ask(http.MethodPut, "/v1/a", changed); w.Code != http.StatusUnprocessableEntity || wrong != 1 {
		t.Errorf("a PUT of other bytes: %d", w.Code)
	}
	if w := ask(http.MethodGet, "/v1/a", nil); w.Code != http.StatusNotFound {
		t.Errorf("GET of what was not stored: %d", w.Code)
	}
	cut := httptest.NewRequest(http.MethodPut, "/v1/a", bytes.NewReader(file.Data[:100]))
	cut.ContentLength = int64(len(file.Data))
	w := httptest.NewRecorder()
	if s.ServeHTTP(w, cut); w.Code != http.StatusUnprocessableEntity || wrong != 1 {
		t.Errorf("a PUT that is cut: %d, wrong bytes %d times", w.Code, wrong)
	}
	if w := ask(http.MethodPut, "/v1/a", file.Data); w.Code != http.StatusCreated || w.Header().Get("Etag") != file.MD5 {
		t.Errorf("PUT: %d, ETag %q", w.Code, w.Header().Get("Etag"))
	}
	if w := ask(http.MethodGet, "/v1/a", nil); w.Code != http.StatusOK || !bytes.Equal(w.Body.Bytes(), file.Data) || w.Header().Get("Etag") != file.MD5 {
		t.Errorf("GET: %d, %d bytes", w.Code, w.Body.Len())
	}
}
