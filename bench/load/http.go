package load

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/lpfileshare/lpfileshare/bench/content"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/swift"
)

// folder is where HTTP puts its files, as LivePerson's uploads do.
const folder = "/v1/AUTH_async-images/12345678/"

// block is what is read or written at a time.
const block = 128 << 10

// An httpWorker speaks HTTP/1.1 over one connection, with as little work as possible.
type httpWorker struct {
	job  *Job
	conn net.Conn
	in   *bufio.Reader
	buf  []byte
	file *content.File
	path string // of the file that is downloaded
}

func newHTTPWorker(job *Job) (*httpWorker, error) {
	conn, err := net.Dial("tcp", job.Addr)
	if err != nil {
		return nil, err
	}
	w := &httpWorker{job: job, conn: conn, in: bufio.NewReaderSize(conn, 16<<10), buf: make([]byte, block), file: content.Of(job.Size)}
	if !job.Up {
		if w.path, err = w.put(); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func (w *httpWorker) transfer() error {
	if !w.job.Up {
		return w.exchange(http.MethodGet, w.path, http.StatusOK)
	}
	path, err := w.put()
	if err == nil && w.job.Head {
		err = w.exchange(http.MethodHead, path, http.StatusOK)
	}
	return err
}

// put stores the file under a new path.
func (w *httpWorker) put() (string, error) {
	path := folder + uuid.NewString() + ".pdf"
	head := fmt.Appendf(nil, "PUT %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/pdf\r\nContent-Length: %d\r\n\r\n", w.target(http.MethodPut, path), w.job.Addr, w.job.Size)
	if _, err := w.conn.Write(head); err != nil {
		return "", err
	}
	for rest := w.file.Data; len(rest) > 0; {
		n, err := w.conn.Write(rest[:min(block, len(rest))])
		if err != nil {
			return "", err
		}
		rest = rest[n:]
	}
	return path, w.answer(http.MethodPut, http.StatusCreated)
}

// exchange sends a request without a body.
func (w *httpWorker) exchange(method, path string, want int) error {
	if _, err := fmt.Fprintf(w.conn, "%s %s HTTP/1.1\r\nHost: %s\r\n\r\n", method, w.target(method, path), w.job.Addr); err != nil {
		return err
	}
	return w.answer(method, want)
}

// answer reads an answer, and compares the body of a GET with the file.
func (w *httpWorker) answer(method string, want int) error {
	resp, err := http.ReadResponse(w.in, &http.Request{Method: method})
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != want {
		return fmt.Errorf("%s: %s", method, resp.Status)
	}
	if method != http.MethodGet {
		_, err := io.Copy(io.Discard, resp.Body)
		return err
	}
	rest := w.file.Data
	for {
		n, err := resp.Body.Read(w.buf)
		if n > len(rest) || !bytes.Equal(w.buf[:n], rest[:n]) {
			return errDiffers
		}
		rest = rest[n:]
		switch {
		case err == io.EOF && len(rest) == 0:
			return nil
		case err != nil:
			return err
		}
	}
}

// target returns the request target of a path, signed if the store checks signatures.
func (w *httpWorker) target(method, path string) string {
	if w.job.Key == "" {
		return path
	}
	sig, expires := swift.Signer{Key: w.job.Key, Digest: "sha1"}.Sign(method, path, time.Now().Add(time.Minute))
	return path + "?temp_url_sig=" + sig + "&temp_url_expires=" + expires
}
