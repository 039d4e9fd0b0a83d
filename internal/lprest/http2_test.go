package lprest

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
// peer did with it. Send must not: a message would be published twice, a wrong password would count twice.
func TestSend_ResetHTTP2Stream(t *testing.T) {
	t.Parallel()
	for name, code := range map[string]http2.ErrCode{"protocol error": http2.ErrCodeProtocol, "refused stream": http2.ErrCodeRefusedStream} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := httptest.NewTLSServer(nil) // for its certificate
			t.Cleanup(server.Close)
			roots := x509.NewCertPool()
			roots.AddCert(server.Certificate())
			url, streams := resettingServer(t, server.TLS.Certificates, code)
			c := newClient(t, Config{TLS: &tls.Config{RootCAs: roots}})
			_, sent, err := c.Send(t.Context(), Request{Name: "publish", Service: ServiceConsumerWS, Method: http.MethodPost, URL: url, JSON: struct{}{}})
			if n := streams.Load(); n != 1 {
				t.Errorf("the request was sent %d times", n)
			}
			if !share.Is(err, share.LPUnavailable) || !sent {
				t.Errorf("%v, sent %t", err, sent)
			}
		})
	}
}

// resettingServer reads whole requests over HTTP/2, and then resets their streams.
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
	t.Cleanup(func() { // runs after the client is closed
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
