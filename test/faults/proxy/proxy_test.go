package proxy

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// An echo sends back what it gets, and remembers how each connection ended.
type echo struct {
	listener net.Listener
	work     sync.WaitGroup
	ended    chan error
}

func newEcho(t *testing.T) *echo {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	e := &echo{listener: l, ended: make(chan error, 16)}
	e.work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			e.work.Go(func() {
				defer c.Close()
				_, err := io.Copy(c, c)
				e.ended <- err
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		e.work.Wait()
	})
	return e
}

func listen(t *testing.T, target string, protocol Protocol) *Proxy {
	t.Helper()
	p, err := Listen(target, protocol)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func dial(t *testing.T, p *Proxy) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	return c.(*net.TCPConn)
}

// exchange sends ten bytes and returns what comes back of them until the connection ends, or all ten have come.
func exchange(c net.Conn) (string, error) {
	if _, err := c.Write([]byte("0123456789")); err != nil {
		return "", err
	}
	got := make([]byte, 10)
	n, err := io.ReadFull(c, got)
	return string(got[:n]), err
}

func TestEachKindDoesWhatItSays(t *testing.T) {
	for _, test := range []struct {
		name  string
		fault Fault
		got   string
		part  bool // or a part of got, from its beginning
		err   error
		least time.Duration
		hears error // how the server's side ended; nil: by a FIN
	}{
		{name: "nothing", fault: Fault{Match: func(Message) bool { return false }}, got: "0123456789"},
		{name: "pass", fault: Fault{At: Byte(4)}, got: "0123456789"},
		{name: "reset before the answer", fault: Fault{Dir: ToClient, Kind: Reset}, err: syscall.ECONNRESET, hears: syscall.ECONNRESET},
		{name: "reset in mid-answer", fault: Fault{Dir: ToClient, Kind: Reset, At: Byte(4)}, got: "0123", err: syscall.ECONNRESET, hears: syscall.ECONNRESET},
		{name: "finish in mid-answer", fault: Fault{Dir: ToClient, Kind: Finish, At: Byte(-2)}, got: "01234567", err: io.ErrUnexpectedEOF},
		{name: "delay", fault: Fault{Kind: Delay, At: Part(0.5), For: 60 * time.Millisecond}, got: "0123456789", least: 50 * time.Millisecond},
		{name: "stall", fault: Fault{Kind: Stall, At: Byte(4), For: 60 * time.Millisecond}, got: "0123", part: true, err: syscall.ECONNRESET, least: 50 * time.Millisecond, hears: syscall.ECONNRESET},
		{name: "truncate", fault: Fault{Dir: ToClient, Kind: Truncate, At: Byte(4), Length: 3}, got: "0123789", err: errTimeout},
		{name: "truncate all", fault: Fault{Dir: ToClient, Kind: Truncate, At: Byte(4)}, got: "0123", err: errTimeout},
		{name: "corrupt", fault: Fault{Kind: Corrupt, At: Byte(4), Bit: 0}, got: "0123556789"},
		{name: "corrupt behind the end", fault: Fault{Kind: Corrupt, At: End, Bit: 0}, got: "0123456788"},
		{name: "lose", fault: Fault{Kind: Lose, At: Byte(4), For: 60 * time.Millisecond}, got: "0123", part: true, err: syscall.ECONNRESET, least: 50 * time.Millisecond, hears: syscall.ECONNRESET},
		{name: "answer for the server", fault: Fault{Kind: Answer, Reply: func(m Message) []byte { return []byte("no, thanks") }}, got: "no, thanks"},
		{name: "answer in its place", fault: Fault{Dir: ToClient, Kind: Answer, Reply: func(m Message) []byte { return m.Text[5:] }, Hangup: true}, got: "56789", err: io.ErrUnexpectedEOF},
		{name: "the second connection", fault: Fault{Kind: Reset, Conn: 2}, got: "0123456789"},
		{name: "the second message", fault: Fault{Kind: Reset, Skip: 1}, got: "0123456789"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			e := newEcho(t)
			p := listen(t, e.listener.Addr().String(), Raw)
			before := make(chan bool, 1)
			test.fault.Before = func() { before <- true }
			a := p.Arm(test.fault)
			c := dial(t, p)
			if test.err == errTimeout {
				c.SetDeadline(time.Now().Add(300 * time.Millisecond))
			}
			begun := time.Now()
			got, err := exchange(c)
			if got != test.got && !(test.part && strings.HasPrefix(test.got, got)) || !is(err, test.err) {
				t.Errorf("got %q, %v; want %q, %v", got, err, test.got, test.err)
			}
			if took := time.Since(begun); took < test.least {
				t.Errorf("it took %v", took)
			}
			if want := test.fault.Match == nil && test.fault.Conn == 0 && test.fault.Skip == 0; (a.Struck() == 1) != want || (len(before) == 1) != want {
				t.Errorf("it struck %d times", a.Struck())
			}
			c.Close()
			if err := <-e.ended; !is(err, test.hears) {
				t.Errorf("the server's side ended with %v, want %v", err, test.hears)
			}
		})
	}
}

var errTimeout = errors.New("a time-out")

func is(err, want error) bool {
	if want == errTimeout {
		n, ok := errors.AsType[net.Error](err)
		return ok && n.Timeout()
	}
	return errors.Is(err, want)
}

func TestCountsConnectionsAndMessages(t *testing.T) {
	p := listen(t, newEcho(t).listener.Addr().String(), Raw)
	if got, err := exchange(dial(t, p)); err != nil {
		t.Fatal(got, err)
	}
	a := p.Arm(Fault{Kind: Reset, Conn: 2, Skip: 1, Count: 1})
	for n := 1; n <= 3; n++ {
		c := dial(t, p)
		for m := 1; m <= 2; m++ {
			got, err := exchange(c)
			if cut := n == 2 && m == 2; cut != (err != nil) {
				t.Errorf("connection %d, message %d: %q, %v", n, m, got, err)
			}
		}
	}
	p.Disarm()
	if _, ever := p.Conns(); a.Struck() != 1 || ever != 4 {
		t.Errorf("it struck %d times, in %d connections", a.Struck(), ever)
	}
}

func TestCutsAllConnections(t *testing.T) {
	for kind, want := range map[Kind]error{Reset: syscall.ECONNRESET, Finish: io.EOF} {
		p := listen(t, newEcho(t).listener.Addr().String(), Raw)
		conns := []net.Conn{dial(t, p), dial(t, p)}
		for _, c := range conns {
			if _, err := exchange(c); err != nil {
				t.Fatal(err)
			}
		}
		if n := p.Cut(kind); n != 2 {
			t.Errorf("%d were cut", n)
		}
		for _, c := range conns {
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, want) {
				t.Errorf("%v: %v, want %v", kind, err, want)
			}
		}
	}
}

func TestNobodyBehindIsAConnectionRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	p := listen(t, l.Addr().String(), Raw)
	if c, err := net.Dial("tcp", p.Addr()); err == nil { // or it was reset before the dialler looked
		if _, err := exchange(c); err == nil {
			t.Error("something answered")
		}
		c.Close()
	}
	if _, err := Listen("192.0.2.1:80", Raw); err == nil {
		t.Error("it goes elsewhere than to loopback")
	}
}

// record arms a fault that notes every message of a direction.
func record(p *Proxy, d Direction) func() []string {
	var mu sync.Mutex
	var seen []string
	p.Arm(Fault{Dir: d, Match: func(m Message) bool {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, fmt.Sprintf("%s %d", m.Name, m.Length()))
		return false
	}})
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return seen
	}
}

func TestHTTPIsTakenApart(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		switch r.URL.Path {
		case "/chunked":
			fmt.Fprint(w, "abc")
			w.(http.Flusher).Flush()
			fmt.Fprint(w, "defg")
		case "/length":
			w.Header().Set("Content-Length", "1234")
		case "/none":
			w.WriteHeader(http.StatusNoContent)
		default:
			w.Write(body)
		}
	}))
	defer server.Close()
	p := listen(t, server.Listener.Addr().String(), HTTP)
	in, out := record(p, ToServer), record(p, ToClient)
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	for _, c := range []struct{ path, send, want string }{
		{"/echo", "hello", "hello"}, {"/chunked", "", "abcdefg"}, {"/none", "", ""}, {"/echo", strings.Repeat("x", 100_000), strings.Repeat("x", 100_000)},
	} {
		req, _ := http.NewRequest("PUT", "http://"+p.Addr()+c.path, strings.NewReader(c.send))
		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || string(got) != c.want {
			t.Errorf("%s: %d bytes, %v", c.path, len(got), err)
		}
	}
	head, err := (&http.Client{Transport: transport}).Head("http://" + p.Addr() + "/length")
	if err != nil || head.ContentLength != 1234 {
		t.Fatal(head, err)
	}
	after, err := (&http.Client{Transport: transport}).Get("http://" + p.Addr() + "/none")
	if err != nil {
		t.Fatal(err)
	}
	after.Body.Close()
	names := func(seen []string) (names []string) {
		for _, s := range seen {
			if name, _, _ := strings.Cut(s, " "); name == "head" {
				s = name
			}
			names = append(names, s)
		}
		return names
	}
	if got := fmt.Sprint(names(in())); got != "[head body 5 head head head body 100000 head head]" {
		t.Error(got)
	}
	// The chunks are 3 and 4 bytes, and the last one is empty, each with its size and line ends. How the largest answer is cut into
	// chunks is the server's business.
	if got := fmt.Sprint(names(out())); !strings.HasPrefix(got, "[head body 5 head chunk 8 chunk 9 chunk 5 head head chunk ") {
		t.Error(got)
	}
	// The answer to HEAD has a length, and no body.
	if got := fmt.Sprint(names(out())); !strings.HasSuffix(got, " chunk 5 head head]") {
		t.Error(got)
	}
}

func TestFramesAreTakenApart(t *testing.T) {
	masked := func(text string) []byte {
		key := []byte{1, 2, 3, 4}
		f := append([]byte{0x81, 0x80 | byte(len(text))}, key...)
		for i := range len(text) {
			f = append(f, text[i]^key[i%4])
		}
		return f
	}
	upgrade := "GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"
	var wire bytes.Buffer
	wire.WriteString(upgrade)
	wire.Write(masked("hello"))
	wire.Write([]byte{0x89, 0})
	wire.Write(TextFrame(strings.Repeat("y", 300)))
	wire.Write(TextFrame(strings.Repeat("z", 70_000)))
	in, s := bufio.NewReader(&wire), WebSocket(ToServer)
	for _, want := range []struct {
		name, text string
		length     int64
	}{
		{"head", upgrade, int64(len(upgrade))}, {"text", "hello", 11}, {"ping", "", 2},
		{"text", strings.Repeat("y", 300), 304}, {"text", strings.Repeat("z", 70_000), 70_010},
	} {
		m, err := s.next(in)
		if err != nil || m.Name != want.name || string(m.Text) != want.text || m.Length() != want.length {
			t.Errorf("%s %d %v, want %s %d", m.Name, m.Length(), err, want.name, want.length)
		}
	}
	if _, err := s.next(in); err != io.EOF {
		t.Error(err)
	}

	wire.WriteString("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	wire.Write(append([]byte{0, 0, 3, 0, 1, 0, 0, 0, 5}, "abc"...))
	wire.Write(ResetStream(7, 8))
	wire.Write([]byte{0, 0, 9, 1, 4}) // broken off
	in, s = bufio.NewReader(&wire), HTTP2(ToServer)
	if m, err := s.next(in); err != nil || m.Name != "preface" || m.Length() != 24 {
		t.Error(m, err)
	}
	if m, err := s.next(in); err != nil || m.Name != "DATA" || m.Stream != 5 || !m.Last || string(m.Text) != "abc" || m.Length() != 12 {
		t.Error(m, err)
	}
	if m, err := s.next(in); err != nil || m.Name != "RST_STREAM" || m.Stream != 7 || binary.BigEndian.Uint32(m.Text) != 8 || m.Last {
		t.Error(m, err)
	}
	if m, err := s.next(in); err != io.EOF || m.Length() != 5 {
		t.Error(m, err)
	}
}

func TestNATSIsTakenApart(t *testing.T) {
	const sent = "INFO {\"a\":1}\r\nPING\r\nPUB $KV.x.y _INBOX.1 5\r\na\r\nbc\r\nhmsg _INBOX.1 9 10 12\r\nNATS/1.0\r\n{}\r\n+OK\r\n"
	var names, texts []string
	in := bufio.NewReader(strings.NewReader(sent))
	var passed bytes.Buffer
	for {
		m, err := NATS(ToServer).next(in)
		passed.Write(m.raw)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		names, texts = append(names, m.Name), append(texts, string(m.Text))
	}
	if got := strings.Join(names, " "); got != "INFO PING PUB HMSG +OK" || passed.String() != sent {
		t.Errorf("%s; %q passed", got, passed.String())
	}
	if len(texts) > 3 && !(strings.Contains(texts[2], "a\r\nbc") && strings.HasSuffix(texts[3], "{}\r\n")) {
		t.Errorf("%q", texts)
	}
	if _, err := NATS(ToServer).next(bufio.NewReader(strings.NewReader("PUB x 5\r\nab"))); err == nil {
		t.Error("a message that was broken off passes for whole")
	}
}
