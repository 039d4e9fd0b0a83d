package main

import (
	"bufio"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/connlimit"
)

// Peers of the webhook listener are unknown until a delivery is complete, so it limits connections as that of gRPC does: one with a
// request is not closed for a new one.
func TestConnections_ForWebhooksAreLimited(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, protocol string }{{"plain", ""}, {"TLS", "http/1.1"}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			flags := &connectorFlags{WebhookListen: "127.0.0.1:0"}
			dial := net.Dial
			if c.protocol != "" {
				a := newAuthority(t, "hooks")
				a.server("one")
				flags.WebhookCert, flags.WebhookKey = a.file("one.pem"), a.file("one.key")
				config := a.config("")
				config.NextProtos = []string{c.protocol}
				dial = func(network, address string) (net.Conn, error) { return tls.Dial(network, address, config) }
			}
			s, err := newWebhookServer(flags, connlimit.New(1, func(string, ...slog.Attr) {}))
			if err != nil {
				t.Fatal(err)
			}
			entered, finish := make(chan struct{}, 1), make(chan struct{})
			handler := http.NewServeMux()
			handler.HandleFunc("/slow", func(http.ResponseWriter, *http.Request) {
				entered <- struct{}{}
				<-finish
			})
			if err := s.start(handler, slog.New(slog.DiscardHandler)); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(s.close)
			ask := func(path string) (answered func() error) {
				conn, err := dial("tcp", s.listener.Addr().String())
				if err != nil {
					return func() error { return err } // closed before the handshake
				}
				t.Cleanup(func() { conn.Close() })
				_, err = conn.Write([]byte("POST " + path + " HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"))
				return func() error {
					if err != nil {
						return err
					}
					resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
					if err == nil {
						err = resp.Body.Close()
					}
					return err
				}
			}

			answered := ask("/slow")
			<-entered
			<-time.After(200 * time.Millisecond) // a connection is not closed in its first 100 ms, with or without a request
			if rejected := ask("/"); rejected() == nil {
				t.Error("a second connection was accepted while the first has a request")
			}
			close(finish)
			if err := answered(); err != nil {
				t.Errorf("the first connection: %v", err)
			}
		})
	}
}
