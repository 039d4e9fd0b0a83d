package scan

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strings"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/netrules"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// An Address is where clamd listens.
type Address struct{ network, address string }

// ParseAddress parses clamd://HOST:PORT or clamd:///PATH of a Unix socket.
func ParseAddress(text string) (Address, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != "clamd" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "":
	case u.Host == "" && len(u.Path) > 1:
		return Address{"unix", u.Path}, nil
	case u.Hostname() != "" && u.Port() != "" && (u.Path == "" || u.Path == "/"):
		return Address{"tcp", u.Host}, nil
	}
	return Address{}, fmt.Errorf("%q is not an address of clamd; give clamd://HOST:PORT or clamd:///PATH", text)
}

// Local reports whether the bytes of files stay on this machine. clamd has no TLS.
func (a Address) Local() bool {
	host, _, err := net.SplitHostPort(a.address)
	return a.network == "unix" || err == nil && netrules.IsLoopback(host)
}

// Ping reports whether clamd answers.
func (a Address) Ping(ctx context.Context) error {
	reply, err := a.exchange(ctx, func(conn net.Conn) error {
		_, err := io.WriteString(conn, "zPING\x00")
		return err
	})
	if err == nil && reply != "PONG" {
		err = unavailable(whyFailed, "its answer is not that of clamd", nil)
	}
	return err
}

// scan sends content to clamd (INSTREAM) and returns its verdict. It makes one attempt.
func (a Address) scan(ctx context.Context, job share.ScanJob) error {
	whole := false
	reply, err := a.exchange(ctx, func(conn net.Conn) error {
		body := job.Open(ctx)
		defer body.Close()
		if _, err := io.WriteString(conn, "zINSTREAM\x00"); err != nil {
			return err
		}
		if err := sendChunks(conn, body); err != nil {
			return err
		}
		whole = true
		return nil
	})
	if err != nil {
		return err
	}
	return verdict(reply, whole)
}

// maxChunk is the maximum number of bytes of a file that are written at a time.
const maxChunk = 64 << 10

// sendChunks sends each run of bytes with its length before it, and a length of 0 at the end. It does not copy the bytes.
func sendChunks(conn net.Conn, body share.ScanReader) error {
	var length [4]byte
	var all [][]byte
	for {
		parts, end := body.ReadBuffers(maxChunk)
		if end != nil && end != io.EOF {
			return end
		}
		n := 0
		for _, p := range parts {
			n += len(p)
		}
		binary.BigEndian.PutUint32(length[:], uint32(n))
		all = append(append(all[:0], length[:]), parts...)
		writing := net.Buffers(all)
		if _, err := writing.WriteTo(conn); err != nil || end != nil {
			return err
		}
	}
}

// dialTimeout is how long a connection to clamd may take. A file that still arrives has no other limit that would notice.
const dialTimeout = 5 * time.Second

func (a Address) dial(ctx context.Context, timeout time.Duration) (net.Conn, error) {
	dialer := net.Dialer{Timeout: timeout}
	conn, err := dialer.DialContext(ctx, a.network, a.address)
	switch {
	case err == nil:
		return conn, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	}
	return nil, unavailable(whyUnreachable, "it cannot be reached", err)
}

// exchange makes a connection, sends a command and returns the answer. clamd may answer before it has read everything, and then closes
// the connection, so an error of sending is not the result if there is an answer. Nor is the end of ctx: an answer that was read may be
// that the content is malware.
func (a Address) exchange(ctx context.Context, send func(net.Conn) error) (string, error) {
	conn, err := a.dial(ctx, dialTimeout)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()

	sendErr := send(conn)
	reply, err := readReply(conn) // fails at once if ctx has ended
	switch {
	case err == nil:
		return reply, nil
	case ctx.Err() != nil:
		return "", context.Cause(ctx)
	}
	return "", unavailable(whyFailed, "its connection broke", errors.Join(sendErr, err))
}

// maxReply is the maximum length of an answer, in bytes.
const maxReply = 4 << 10

// readReply reads an answer up to the zero byte that ends it. Without that byte it is not whole.
func readReply(conn net.Conn) (string, error) {
	text, err := bufio.NewReaderSize(io.LimitReader(conn, maxReply), 512).ReadString(0)
	if err != nil {
		return "", fmt.Errorf("after %d bytes of the answer: %w", len(text), err)
	}
	return strings.TrimSpace(text[:len(text)-1]), nil
}

// verdict translates an answer to INSTREAM. whole reports whether all bytes were sent: if not, OK says nothing.
func verdict(reply string, whole bool) error {
	const found = " FOUND"
	result, ok := strings.CutPrefix(reply, "stream: ")
	switch {
	case ok && result == "OK" && whole:
		return nil
	case ok && strings.HasSuffix(result, found):
		name := signature(strings.TrimSuffix(result, found))
		return share.Reject(share.FileRejectedByScanner, "the malware scanner found %s, so the file is rejected", name).With("why", "malware", "signature", name)
	case strings.HasPrefix(reply, "INSTREAM size limit exceeded"):
		return share.Reject(share.FileRejectedByScanner, "the file is larger than the malware scanner accepts, so it is rejected; send a smaller "+
			"file, or have the operator raise StreamMaxLength of clamd").With("why", "size")
	}
	return unavailable(whyFailed, "it reports an error", fmt.Errorf("the answer is %q", share.Clip(reply, 200)))
}

// maxSignature is the maximum length of a signature's name in an error, in bytes.
const maxSignature = 128

// signature returns the name of a signature if it is one: printable ASCII and not too long.
func signature(name string) string {
	for _, c := range []byte(name) {
		if c < ' ' || c > '~' {
			return "malware with an unreadable name"
		}
	}
	if name == "" {
		return "malware without a name"
	}
	return share.Clip(name, maxSignature)
}
