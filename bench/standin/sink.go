// Package standin has the processes behind and beside a gateway under test: a store that keeps no bytes, LivePerson's stand-in, and
// a reverse proxy. Each writes "ready addr=HOST:PORT" to its standard error and serves until it is killed.
package standin

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/lpfileshare/lpfileshare/bench/content"
)

// Key signs the URLs of the sink, which does not check signatures.
const Key = "bench"

const block = 256 << 10

var blocks = sync.Pool{New: func() any { return new([block]byte) }}

// A sink is a store that compares what it receives with the file of that size and drops it. It answers with the file's true MD5, which
// it does not compute again.
type sink struct {
	stored sync.Map // path -> size
	delay  time.Duration
	wrong  func() // called when other bytes arrive
}

// Sink serves a store.
func Sink(args []string) error {
	set := flag.NewFlagSet("sink", flag.ContinueOnError)
	delay := set.Duration("delay", 0, "delay of each answer")
	if err := set.Parse(args); err != nil {
		return err
	}
	return serve(&sink{delay: *delay, wrong: func() {
		fmt.Fprintln(os.Stderr, "the store received other bytes than were sent")
		os.Exit(1) // so that the whole run fails
	}})
}

// serve serves HTTP on a free port of loopback.
func serve(h http.Handler) error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "ready addr=%s\n", l.Addr())
	return http.Serve(l, h)
}

func (s *sink) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.Method {
	case http.MethodPut:
		s.put(w, r)
	case http.MethodGet, http.MethodHead:
		s.get(w, r)
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

func (s *sink) put(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength < 0 {
		w.WriteHeader(http.StatusLengthRequired)
		return
	}
	file := content.Of(int(r.ContentLength))
	rest, same := receive(r.Body, file.Data)
	if !same {
		s.wrong()
	}
	if rest > 0 || !same {
		w.WriteHeader(http.StatusUnprocessableEntity)
		return
	}
	s.stored.Store(r.URL.Path, len(file.Data))
	time.Sleep(s.delay)
	w.Header().Set("Etag", file.MD5)
	w.WriteHeader(http.StatusCreated)
}

// receive reads a body, and reports how many bytes of want are missing and whether all others are the same.
func receive(body io.Reader, want []byte) (rest int, same bool) {
	buf := blocks.Get().(*[block]byte)
	defer blocks.Put(buf)
	for {
		n, err := body.Read(buf[:])
		if n > len(want) || !bytes.Equal(buf[:n], want[:n]) {
			return len(want), false
		}
		want = want[n:]
		if err != nil {
			return len(want), true
		}
	}
}

func (s *sink) get(w http.ResponseWriter, r *http.Request) {
	size, ok := s.stored.Load(r.URL.Path)
	if r.Method == http.MethodGet { // HEAD is only of LivePerson's stand-in, which has a delay of its own
		time.Sleep(s.delay)
	}
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	file := content.Of(size.(int))
	h := w.Header()
	h.Set("Etag", file.MD5)
	h.Set("Content-Type", "application/pdf")
	h.Set("Content-Length", strconv.Itoa(len(file.Data)))
	h.Set("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
	if r.Method == http.MethodGet {
		_, _ = w.Write(file.Data)
	}
}
