package web_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/web"
)

// open sends the header of a request with a body of length bytes, over a connection of its own, and returns the connection.
func (s *site) open(t *testing.T, path, format string, length int) net.Conn {
	t.Helper()
	host := strings.TrimPrefix(s.url, "http://")
	conn, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: %s\r\nOrigin: %s\r\nContent-Type: %s\r\nConnect-Protocol-Version: 1\r\nContent-Length: %d\r\n\r\n",
		path, host, origin, format, length)
	return conn
}

// answer reads a response and the error in it.
func answer(t *testing.T, conn net.Conn) (code int, failure string) {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var body struct{ Code, Message string }
	if err := json.NewDecoder(resp.Body).Decode(&body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, body.Code
}

func TestHandler_HalfARequest(t *testing.T) {
	t.Parallel()
	short := func(c *web.Config) { c.RequestTimeout = 20 * time.Millisecond }
	t.Run("HTTP/1.1", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, short, nil)
		conn := s.open(t, uploadPath, "application/json", 100)
		fmt.Fprint(conn, "{")
		if code, failure := answer(t, conn); code != 504 || failure != "deadline_exceeded" {
			t.Errorf("got %d %q", code, failure)
		}
		if _, err := conn.Read(make([]byte, 1)); err == nil {
			t.Error("the connection stays open, with half a request in it")
		}
	})
	t.Run("HTTP/2", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, short, connectHTTP2)
		r, w := io.Pipe()
		defer w.Close()
		go func() { _, _ = w.Write([]byte("{")) }()
		if resp, body := s.do(t, s.request(t, uploadPath, "application/json", r)); resp.StatusCode != 504 || !strings.Contains(body, "deadline_exceeded") {
			t.Errorf("got %s %s", resp.Status, body)
		}
	})
}

// TestHandler_StalledReader has clients that read nothing of a response that is larger than all buffers.
func TestHandler_StalledReader(t *testing.T) {
	t.Parallel()
	short := func(c *web.Config) { c.ReadStall = 50 * time.Millisecond }
	const message = `{"parent":"1000 of 90000","resumeToken":"end"}`
	envelope := append([]byte{0, 0, 0, 0, byte(len(message))}, message...)
	t.Run("HTTP/1.1", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, short, nil)
		conn := s.open(t, watchPath, "application/connect+json", len(envelope))
		if _, err := conn.Write(envelope); err != nil {
			t.Fatal(err)
		}
		<-s.ended
	})
	t.Run("HTTP/2", func(t *testing.T) {
		t.Parallel()
		s := newSite(t, short, connectHTTP2)
		resp, err := s.client.Do(s.request(t, watchPath, "application/connect+json", bytes.NewReader(envelope)))
		if err == nil { // the stream can be reset before the response has arrived
			defer resp.Body.Close()
		}
		<-s.ended
	})
}

func TestHandler_Memory(t *testing.T) {
	t.Parallel()
	const half = maxMessage / 2
	// One address may have a quarter of it: one such request, but not two.
	s := newSite(t, func(c *web.Config) { c.Memory = 6 * half }, nil)
	s.hold = make(chan struct{})
	upload := newClient[pb.UploadSmallFileRequest, pb.UploadSmallFileResponse](s, uploadPath)
	send := func() error {
		_, err := upload.CallUnary(t.Context(), connect.NewRequest(&pb.UploadSmallFileRequest{Data: make([]byte, half)}))
		return err
	}

	// A request that the service has received holds nothing.
	first := make(chan error, 1)
	go func() { first <- send() }()
	<-s.calls
	conn := s.open(t, uploadPath, "application/proto", half)
	if _, err := conn.Write(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	close(s.hold)
	if err := <-first; err != nil {
		t.Fatal(err)
	}

	// One that is arriving does.
	for {
		if err := send(); err != nil {
			wantError(t, err, connect.CodeResourceExhausted, "TOO_MANY_UPLOADS")
			break
		}
	}
	conn.Close()
	for send() != nil { // until the server notices
	}
}

func TestHandler_ManyWatches(t *testing.T) {
	t.Parallel()
	const watches = 300 // more than the gRPC server allows on one connection
	s := newSite(t, nil, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watch := newClient[pb.WatchFilesRequest, pb.WatchFilesResponse](s, watchPath)
	failed := make(chan error, watches)
	began, ended := make(chan struct{}, watches), make(chan struct{}, watches)
	for range watches {
		go func() {
			defer func() { ended <- struct{}{} }()
			stream, err := watch.CallServerStream(ctx, connect.NewRequest(&pb.WatchFilesRequest{Parent: "1 of 10"}))
			if err != nil {
				failed <- err
				return
			}
			defer stream.Close()
			if !stream.Receive() {
				failed <- stream.Err()
				return
			}
			began <- struct{}{}
			stream.Receive()
		}()
	}
	for range watches {
		select {
		case <-began:
		case err := <-failed:
			t.Fatal(err)
		}
	}
	cancel()
	for range watches {
		<-s.ended // the service notices each page that is closed
		<-ended
	}
}

// TestHandler_Drain stops the gRPC server while it handles a call: the call ends as it would have, and later ones get SERVER_DRAINING.
func TestHandler_Drain(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, nil)
	s.hold = make(chan struct{})
	upload := newClient[pb.UploadSmallFileRequest, pb.UploadSmallFileResponse](s, uploadPath)
	running := make(chan error, 1)
	go func() {
		_, err := upload.CallUnary(t.Context(), connect.NewRequest(&pb.UploadSmallFileRequest{Data: []byte{1}}))
		running <- err
	}()
	<-s.calls
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.server.GracefulStop()
	}()
	for {
		stream := newClient[pb.WatchFilesRequest, pb.WatchFilesResponse](s, watchPath, connect.WithGRPCWeb())
		later, err := stream.CallServerStream(t.Context(), connect.NewRequest(&pb.WatchFilesRequest{ResumeToken: "end"}))
		if err != nil {
			t.Fatal(err)
		}
		if later.Receive(); later.Err() != nil {
			wantError(t, later.Err(), connect.CodeUnavailable, "SERVER_DRAINING")
			later.Close()
			break
		}
		later.Close()
	}
	close(s.hold)
	if err := <-running; err != nil {
		t.Errorf("the running call: %v", err)
	}
	<-stopped
}

func TestCheckOrigin(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"https://www.example.com", "http://localhost:8080", "http://127.0.0.1:3000", "https://[2001:db8::1]:8443"} {
		if err := web.CheckOrigin(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
	for _, text := range []string{
		"", "*", "null", "www.example.com", "https://www.example.com/", "https://www.example.com/page", "https://*.example.com", "https://WWW.example.com",
		"https://www.example.com:443", "http://localhost:80", "ftp://example.com", "https://user@example.com", "https://example.com?a", "https://", "https://:8443",
	} {
		if web.CheckOrigin(text) == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}
