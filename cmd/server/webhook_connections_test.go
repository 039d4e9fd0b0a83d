package main

import (
	"bufio"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"testing"
	"time"
)

// Callers of the webhook listener are unknown until a delivery is complete, so it has the same limit as gRPC.
func TestConnections_ForWebhooksAreLimited(t *testing.T) {
	t.Parallel()
	s, err := newWebhookServer(&connectorFlags{WebhookListen: "127.0.0.1:0"}, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.start(http.NotFoundHandler(), slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.close)
	ask := func() net.Conn {
		conn, err := net.Dial("tcp", s.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if _, err := conn.Write([]byte("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n")); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	answered := func(conn net.Conn, within time.Duration) error {
		if err := conn.SetReadDeadline(time.Now().Add(within)); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err == nil {
			err = resp.Body.Close()
		}
		return err
	}
	first := ask()
	if err := answered(first, time.Minute); err != nil {
		t.Fatal(err)
	}
	second := ask()
	if err := answered(second, 300*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a second connection: %v, want that it waits", err)
	}
	first.Close()
	if err := answered(second, time.Minute); err != nil {
		t.Errorf("the second connection, after the first has gone: %v", err)
	}
}
