package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// maxRequestBody is the most that an HTTP endpoint reads.
const maxRequestBody = 64 << 10

// endpoint wraps one HTTP endpoint in its faults.
func (s *Sandbox) endpoint(on string, serve http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		f, _ := s.faults.take(on)
		s.trouble(f, w, r, func(w http.ResponseWriter, r *http.Request) {
			if f.Status == 0 {
				serve(w, r)
				return
			}
			if f.RetryAfter > 0 {
				w.Header().Set("Retry-After", strconv.Itoa(f.RetryAfter))
			}
			fail(w, f.Status, "made on demand")
		})
	}
}

// trouble serves a request as its fault says, but for the fault's status, which is serve's to answer. The answer is held back
// until it is whole, so that it can be spoiled. It returns what was answered; nil if nothing was.
func (s *Sandbox) trouble(f Fault, w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) *heldAnswer {
	if !sleep(r.Context(), f.Delay) {
		return nil
	}
	if f.Drop || f.CloseCode != 0 {
		resetHTTP(w)
		return nil
	}
	held := &heldAnswer{header: http.Header{}, status: http.StatusOK}
	serve(held, r)
	switch {
	case f.DropAfter:
		resetHTTP(w)
		return nil
	case f.Mute:
		<-r.Context().Done()
		return nil
	case f.Garbage:
		held.body.Reset()
		held.body.WriteString(`{"baseURIs":[{"`)
	}
	if !sleep(r.Context(), f.AnswerDelay) {
		return nil
	}
	held.release(w)
	return held
}

// sleep waits for d and reports whether ctx still stands then.
func sleep(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// resetHTTP ends the connection under w with a TCP reset.
func resetHTTP(w http.ResponseWriter) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	reset(conn)
}

// reset closes conn so that the peer sees it broken rather than ended.
func reset(conn net.Conn) {
	if c, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = c.NetConn() // closing TLS itself would say goodbye first
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// A heldAnswer is an http.ResponseWriter that keeps the answer until release.
type heldAnswer struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (h *heldAnswer) Header() http.Header         { return h.header }
func (h *heldAnswer) WriteHeader(status int)      { h.status = status }
func (h *heldAnswer) Write(b []byte) (int, error) { return h.body.Write(b) }

func (h *heldAnswer) release(w http.ResponseWriter) {
	for name, values := range h.header {
		w.Header()[name] = values
	}
	w.WriteHeader(h.status)
	_, _ = w.Write(h.body.Bytes())
}

// respond answers with v as JSON.
func respond(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	writeJSON(w, status, data)
}

// writeJSON answers with data, which is JSON.
func writeJSON(w http.ResponseWriter, status int, data []byte) {
	w.Header().Set("Content-Type", "application/json;charset=UTF-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write(data)
}

// fail answers with an error.
func fail(w http.ResponseWriter, status int, why string) {
	_, data := failure(status, why)
	writeJSON(w, status, data)
}

// failure is an error answer. LivePerson documents no body for those; node-agent-sdk reads error.internalCode.
func failure(status int, why string) (int, []byte) {
	return status, frame(map[string]any{"error": map[string]any{"internalCode": status, "message": why}})
}

// readBody decodes the JSON body of r into v; an empty body leaves v as it is.
func readBody(r *http.Request, v any) error {
	data, err := io.ReadAll(io.LimitReader(r.Body, maxRequestBody+1))
	if err != nil {
		return err
	}
	if len(data) > maxRequestBody {
		return fmt.Errorf("the body is larger than %d bytes", maxRequestBody)
	}
	if len(bytes.TrimSpace(data)) == 0 {
		return nil
	}
	if err := json.Unmarshal(data, v); err != nil {
		return errors.New("the body is not the JSON that it should be")
	}
	return nil
}

// schemeToken returns the token of an Authorization header with that scheme; schemes have no case.
func schemeToken(r *http.Request, scheme string) (string, bool) {
	given, token, ok := strings.Cut(strings.TrimSpace(r.Header.Get("Authorization")), " ")
	if !ok || !strings.EqualFold(given, scheme) {
		return "", false
	}
	token = strings.TrimSpace(token)
	return token, token != ""
}
