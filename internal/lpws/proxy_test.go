package lpws

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// proxy forwards connections to the sandbox, and cuts them at chosen WebSocket frames, counted over both directions and all
// connections.
type proxy struct {
	listener net.Listener
	target   string
	work     sync.WaitGroup

	mu     sync.Mutex
	frames int
	cutAt  func(frame int) (cut, deliver bool) // deliver: forward the frame first
	cuts   int
	conns  map[net.Conn]bool
}

func newProxy(t *testing.T, target string, cutAt func(int) (bool, bool)) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: l, target: strings.TrimPrefix(target, "http://"), cutAt: cutAt, conns: map[net.Conn]bool{}}
	p.work.Go(p.serve)
	t.Cleanup(func() {
		_ = l.Close()
		p.mu.Lock()
		for c := range p.conns {
			_ = c.Close()
		}
		p.conns = nil
		p.mu.Unlock()
		p.work.Wait()
	})
	return p
}

// socketURL is a Config.SocketURL that returns the proxy.
func (p *proxy) socketURL(context.Context, string, share.Scheme) (string, error) {
	return "ws://" + p.listener.Addr().String(), nil
}

func (p *proxy) serve() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", p.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		p.mu.Lock()
		if p.conns == nil {
			_ = client.Close()
			_ = server.Close()
			p.mu.Unlock()
			return
		}
		p.conns[client], p.conns[server] = true, true
		p.mu.Unlock()
		p.work.Go(func() { p.pass(client, server) })
		p.work.Go(func() { p.pass(server, client) })
	}
}

// pass forwards one direction: the HTTP header, then frame by frame.
func (p *proxy) pass(from, to net.Conn) {
	defer from.Close()
	defer to.Close()
	in := bufio.NewReader(from)
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return
		}
		if _, err := to.Write(line); err != nil {
			return
		}
		if len(line) == 2 {
			break
		}
	}
	for {
		data, err := readRawFrame(in)
		if err != nil {
			return
		}
		p.mu.Lock()
		p.frames++
		cut, deliver := p.cutAt(p.frames)
		if cut {
			p.cuts++
		}
		p.mu.Unlock()
		if !cut || deliver {
			if _, err := to.Write(data); err != nil {
				return
			}
		}
		if cut {
			return
		}
	}
}

// readRawFrame reads one frame with its header.
func readRawFrame(in *bufio.Reader) ([]byte, error) {
	head := make([]byte, 2, 14)
	if _, err := io.ReadFull(in, head); err != nil {
		return nil, err
	}
	more := func(n int) ([]byte, error) {
		at := len(head)
		head = head[:at+n]
		_, err := io.ReadFull(in, head[at:])
		return head[at:], err
	}
	length := uint64(head[1] & 0x7f)
	switch length {
	case 126:
		b, err := more(2)
		if err != nil {
			return nil, err
		}
		length = uint64(binary.BigEndian.Uint16(b))
	case 127:
		b, err := more(8)
		if err != nil {
			return nil, err
		}
		length = binary.BigEndian.Uint64(b)
	}
	if head[1]&0x80 != 0 {
		if _, err := more(4); err != nil {
			return nil, err
		}
	}
	data := make([]byte, len(head)+int(length))
	copy(data, head)
	_, err := io.ReadFull(in, data[len(head):])
	return data, err
}
