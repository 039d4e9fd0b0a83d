package harness

import (
	"bytes"
	"io"
	"net"
	"path/filepath"
	"testing"
)

// Clamd starts a clamd that gives every file one reply, such as "stream: OK", and returns its Unix socket. It runs until stop, which
// must be called.
func Clamd(tb testing.TB, reply string) (socket string, stop func()) {
	tb.Helper()
	socket = filepath.Join(tb.TempDir(), "s")
	clamd, err := net.Listen("unix", socket)
	if err != nil {
		tb.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		for {
			conn, err := clamd.Accept()
			if err != nil {
				return
			}
			end := []byte{0, 0, 0, 0}
			var got []byte
			for chunk := make([]byte, 4096); !bytes.HasSuffix(got, end) && !bytes.HasSuffix(got, []byte("zPING\x00")); {
				n, err := conn.Read(chunk)
				if got = append(got, chunk[:n]...); err != nil {
					break
				}
			}
			answer := reply
			if bytes.HasPrefix(got, []byte("zPING")) {
				answer = "PONG"
			}
			_, _ = io.WriteString(conn, answer+"\x00")
			conn.Close()
		}
	}()
	return socket, func() {
		clamd.Close()
		<-served
	}
}
