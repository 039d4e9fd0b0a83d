package lpapi

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// net/http repeats a request over HTTP/2 whose stream the peer resets with PROTOCOL_ERROR, whatever its method, and whatever the
// peer has done by then. A message must not be sent twice for that.
func TestAMessageIsNotRepeatedOverHTTP2(t *testing.T) {
	t.Parallel()
	for name, code := range map[string]http2.ErrCode{"a protocol error": http2.ErrCodeProtocol, "the stream's refusal": http2.ErrCodeRefusedStream} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := &connectorHouse{t: t, log: newEventLog(t), app: ConnectorApp{ID: "app", Secret: "s"}}
			at := httptest.NewTLSServer(nil) // for its certificate
			t.Cleanup(at.Close)
			roots := x509.NewCertPool()
			roots.AddCert(at.Certificate())
			url, streams := resettingServer(t, at.TLS.Certificates, code)
			c := h.connector(newClient(t, Config{TLS: &tls.Config{RootCAs: roots}}))
			got := c.roundTrip(t.Context(), url, "app", "jws", []byte(`{}`))
			if n := streams.Load(); n != 1 {
				t.Errorf("the request was sent %d times", n)
			}
			if got.err == nil || !got.open {
				t.Errorf("%v, open %t; want that nobody knows what became of it", got.err, got.open)
			}
		})
	}
}

// Nor must a password be tried twice for that.
func TestASignInIsNotRepeatedOverHTTP2(t *testing.T) {
	t.Parallel()
	at := httptest.NewTLSServer(nil) // for its certificate
	t.Cleanup(at.Close)
	roots := x509.NewCertPool()
	roots.AddCert(at.Certificate())
	url, streams := resettingServer(t, at.TLS.Certificates, http2.ErrCodeProtocol)
	c := newClient(t, Config{TLS: &tls.Config{RootCAs: roots}})
	_, err := c.exchange(t.Context(), call{name: "log in", service: serviceLogin, method: http.MethodPost, url: url, body: struct{ Password string }{"x"}})
	if n := streams.Load(); n != 1 || !share.Is(err, share.LPUnavailable) {
		t.Errorf("the request was sent %d times: %v", n, err)
	}
}

// resettingServer takes requests over HTTP/2 whole, and then resets their streams.
func resettingServer(t *testing.T, certs []tls.Certificate, code http2.ErrCode) (url string, streams *atomic.Int64) {
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: certs, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	streams = new(atomic.Int64)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { resetAll(conn, code, streams) })
		}
	})
	t.Cleanup(func() { // after the client's: its connections are closed by then
		l.Close()
		serving.Wait()
	})
	return "https://" + l.Addr().String(), streams
}

func resetAll(conn net.Conn, code http2.ErrCode, streams *atomic.Int64) {
	defer conn.Close()
	if _, err := io.ReadFull(conn, make([]byte, len(http2.ClientPreface))); err != nil {
		return
	}
	f := http2.NewFramer(conn, conn)
	if f.WriteSettings() != nil {
		return
	}
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				_ = f.WriteSettingsAck()
			}
		case *http2.DataFrame:
			if frame.StreamEnded() {
				streams.Add(1)
				_ = f.WriteRSTStream(frame.StreamID, code)
			}
		}
	}
}
