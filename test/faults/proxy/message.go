package proxy

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"strconv"
	"strings"
)

// maxMessage is the largest frame that is read whole. What is larger passes as bytes without a meaning.
const maxMessage = 1 << 20

// A Message is one unit of a protocol, as a fault can pick it.
type Message struct {
	// Name is what it is: "head", "body" and "chunk" of HTTP, or "call"; "text", "ping" and so on of a WebSocket; "DATA", "HEADERS" and so on
	// of HTTP/2; "bytes" where nothing is known.
	Name string
	// Text is the unit without its frame: an HTTP head, a WebSocket message unmasked, a frame's payload. Empty for HTTP bodies.
	// It must not be changed or kept.
	Text []byte
	// Stream is an HTTP/2 frame's stream, and Last means that it ends it.
	Stream uint32
	Last   bool

	raw  []byte // what was read of it
	rest int64  // what is still to be read
}

// Length is how many bytes the message has on the wire.
func (m Message) Length() int64 { return int64(len(m.raw)) + m.rest }

// Says reports whether all of the words stand in the message's text.
func (m Message) Says(words ...string) bool {
	for _, w := range words {
		if !bytes.Contains(m.Text, []byte(w)) {
			return false
		}
	}
	return true
}

// A Protocol takes one direction of a new connection apart.
type Protocol func(Direction) splitter

// A splitter reads one message after another. With an error it returns what was read of the message that was broken off.
type splitter interface {
	next(in *bufio.Reader) (Message, error)
}

// Raw is any protocol: each read is a message.
func Raw(Direction) splitter { return raw{} }

// HTTP is HTTP/1.1 without HEAD: heads and bodies.
func HTTP(d Direction) splitter { return &http1{dir: d} }

// HTTPCalls is HTTP with small bodies, as APIs have them: a head and the body behind it are one message, named "call", so that what
// the body says can pick it.
func HTTPCalls(d Direction) splitter { return &calls{http1{dir: d}} }

// WebSocket is HTTP/1.1 up to the upgrade, and frames from then on.
func WebSocket(d Direction) splitter { return &http1{dir: d, upgrades: true} }

// HTTP2 is HTTP/2 in the clear with prior knowledge, as gRPC speaks it: frames.
func HTTP2(d Direction) splitter { return &http2{preface: d == ToServer} }

type raw struct{}

func (raw) next(in *bufio.Reader) (Message, error) {
	if _, err := in.Peek(1); err != nil {
		return Message{}, err
	}
	m := Message{Name: "bytes", raw: make([]byte, in.Buffered())}
	_, err := io.ReadFull(in, m.raw)
	m.Text = m.raw
	return m, err
}

const httpVersion = "HTTP/1.1 "

// An http1 takes HTTP/1.1 apart.
type http1 struct {
	dir      Direction
	upgrades bool

	body    int64 // of the head that was read last
	chunked bool
	then    splitter // not nil: what follows is no HTTP any more
}

func (h *http1) next(in *bufio.Reader) (Message, error) {
	switch {
	case h.then != nil:
		return h.then.next(in)
	case h.body > 0:
		m := Message{Name: "body", rest: h.body}
		h.body = 0
		if h.dir == ToServer {
			return m, nil
		}
		// The answer to HEAD has a length and no body: the next answer follows it.
		begin, err := in.Peek(int(min(m.rest, int64(len(httpVersion)))))
		if len(begin) == 0 {
			return Message{}, err
		}
		if string(begin) != httpVersion {
			return m, nil
		}
	case h.chunked:
		return h.chunk(in)
	}
	head, err := readUntil(in, "\r\n\r\n", 64<<10)
	m := Message{Name: "head", Text: head, raw: head}
	if err != nil {
		if err == errTooLong {
			h.then, err = raw{}, nil
		}
		return m, err
	}
	h.read(string(head))
	return m, nil
}

// read learns from a head what follows it.
func (h *http1) read(head string) {
	first, fields, _ := strings.Cut(head, "\r\n")
	length, upgrade := int64(-1), false
	for line := range strings.SplitSeq(fields, "\r\n") {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.ToLower(name) {
		case "content-length":
			if n, err := strconv.ParseInt(value, 10, 64); err == nil && n >= 0 {
				length = n
			}
		case "transfer-encoding":
			h.chunked = strings.EqualFold(value, "chunked")
		case "upgrade":
			upgrade = h.upgrades
		}
	}
	status := ""
	if h.dir == ToClient {
		if words := strings.Fields(first); len(words) > 1 {
			status = words[1]
		}
	}
	switch {
	case upgrade && (h.dir == ToServer || status == "101"):
		h.then = frames{}
	case status != "" && (status[0] == '1' || status == "204" || status == "304"):
		h.body, h.chunked = 0, false
	case length >= 0:
		h.body = length
	case status != "" && !h.chunked:
		h.body = math.MaxInt32 // up to the connection's end
	}
}

// A calls takes HTTP/1.1 apart, heads and bodies together. A body that is large, or has no length, follows as messages of its own.
type calls struct{ http1 }

func (c *calls) next(in *bufio.Reader) (Message, error) {
	m, err := c.http1.next(in)
	if err != nil || m.Name != "head" || c.then != nil {
		return m, err
	}
	m.Name = "call"
	if c.body > maxMessage {
		return m, nil
	}
	body := make([]byte, c.body)
	n, err := io.ReadFull(in, body)
	m.raw, c.body = append(m.raw, body[:n]...), 0
	m.Text = m.raw
	if err == io.ErrUnexpectedEOF {
		err = io.EOF
	}
	return m, err
}

func (h *http1) chunk(in *bufio.Reader) (Message, error) {
	line, err := readUntil(in, "\r\n", 256)
	m := Message{Name: "chunk", raw: line}
	if err != nil {
		return m, err
	}
	size, _, _ := strings.Cut(strings.TrimSpace(string(line)), ";")
	n, perr := strconv.ParseInt(size, 16, 32)
	switch {
	case perr != nil || n < 0:
		h.then = raw{}
	case n > 0:
		m.rest = n + 2
	default: // the last one, and trailers
		h.chunked = false
		for {
			line, err = readUntil(in, "\r\n", 4<<10)
			m.raw = append(m.raw, line...)
			if err != nil || len(line) == 2 {
				break
			}
		}
	}
	return m, err
}

var errTooLong = errors.New("fault proxy: too long")

// readUntil reads up to and including an ending.
func readUntil(in *bufio.Reader, ending string, limit int) ([]byte, error) {
	var read []byte
	for {
		b, err := in.ReadByte()
		if err != nil {
			return read, err
		}
		read = append(read, b)
		if bytes.HasSuffix(read, []byte(ending)) {
			return read, nil
		}
		if len(read) >= limit {
			return read, errTooLong
		}
	}
}

// frames takes a WebSocket apart.
type frames struct{}

var frameNames = map[byte]string{0: "continuation", 1: "text", 2: "binary", 8: "close", 9: "ping", 10: "pong"}

func (frames) next(in *bufio.Reader) (Message, error) {
	var m Message
	more := func(n int) ([]byte, error) {
		at := len(m.raw)
		m.raw = append(m.raw, make([]byte, n)...)
		k, err := io.ReadFull(in, m.raw[at:])
		m.raw = m.raw[:at+k]
		if err == io.ErrUnexpectedEOF {
			err = io.EOF
		}
		return m.raw[at:], err
	}
	head, err := more(2)
	if err != nil {
		return m, err
	}
	m.Name = frameNames[head[0]&0x0f]
	masked, length := head[1]&0x80 != 0, uint64(head[1]&0x7f)
	switch length {
	case 126:
		b, err := more(2)
		if err != nil {
			return m, err
		}
		length = uint64(binary.BigEndian.Uint16(b))
	case 127:
		b, err := more(8)
		if err != nil {
			return m, err
		}
		length = binary.BigEndian.Uint64(b)
	}
	var key []byte
	if masked {
		b, err := more(4)
		if err != nil {
			return m, err
		}
		key = bytes.Clone(b)
	}
	if length > maxMessage {
		m.rest = int64(min(length, math.MaxInt32))
		return m, nil
	}
	payload, err := more(int(length))
	m.Text = payload
	if masked {
		m.Text = bytes.Clone(payload)
		for i := range m.Text {
			m.Text[i] ^= key[i%4]
		}
	}
	return m, err
}

// An http2 takes HTTP/2 apart.
type http2 struct{ preface bool }

var http2Names = []string{
	"DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY", "WINDOW_UPDATE", "CONTINUATION",
}

func (h *http2) next(in *bufio.Reader) (Message, error) {
	read := func(m *Message, n int) error {
		at := len(m.raw)
		m.raw = append(m.raw, make([]byte, n)...)
		k, err := io.ReadFull(in, m.raw[at:])
		m.raw = m.raw[:at+k]
		if err == io.ErrUnexpectedEOF {
			err = io.EOF
		}
		return err
	}
	m := Message{}
	if h.preface {
		h.preface = false
		m.Name = "preface"
		err := read(&m, len("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
		return m, err
	}
	if err := read(&m, 9); err != nil {
		return m, err
	}
	length := int(m.raw[0])<<16 | int(m.raw[1])<<8 | int(m.raw[2])
	m.Name = "frame"
	if t := int(m.raw[3]); t < len(http2Names) {
		m.Name = http2Names[t]
	}
	m.Stream = binary.BigEndian.Uint32(m.raw[5:9]) & math.MaxInt32
	m.Last = (m.Name == "DATA" || m.Name == "HEADERS") && m.raw[4]&1 != 0
	if length > maxMessage {
		m.rest = int64(length)
		return m, nil
	}
	err := read(&m, length)
	m.Text = m.raw[9:]
	return m, err
}

// ResetStream is an HTTP/2 frame that resets a stream with an error code.
func ResetStream(stream, code uint32) []byte {
	frame := []byte{0, 0, 4, 3, 0}
	frame = binary.BigEndian.AppendUint32(frame, stream)
	return binary.BigEndian.AppendUint32(frame, code)
}

// TextFrame is a WebSocket frame with a text, as a server sends it.
func TextFrame(text string) []byte {
	frame := []byte{0x81}
	switch n := len(text); {
	case n < 126:
		frame = append(frame, byte(n))
	case n <= math.MaxUint16:
		frame = binary.BigEndian.AppendUint16(append(frame, 126), uint16(n))
	default:
		frame = binary.BigEndian.AppendUint64(append(frame, 127), uint64(n))
	}
	return append(frame, text...)
}
