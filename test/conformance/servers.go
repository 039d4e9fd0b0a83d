package main

import (
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/harness"
)

// A Server is a running server before a sandbox, which is in this process so that it outlives the server.
type Server struct {
	run     *harness.Server
	program harness.Program
	flags   []string
	addr    string
	sandbox *sandbox.Sandbox // outlives the server
	client  *lpfileshare.Client
	tls     func() (lpfileshare.Option, error)
}

// Servers starts servers, and keeps those that cases can share.
type Servers struct {
	program harness.Program
	certs   *Certificates

	mu     sync.Mutex
	shared map[string]*shared // by TLS and flags
	free   map[string][]*Server
}

type shared struct {
	once   sync.Once
	server *Server
	err    error
}

func newServers(file string, certs *Certificates) *Servers {
	return &Servers{program: harness.Binary(file), certs: certs, shared: map[string]*shared{}, free: map[string][]*Server{}}
}

// Lease returns the server of a case, and a function that gives it back. reusable: it still is as it was at the start.
func (s *Servers) Lease(c *Case, dir string) (server *Server, giveBack func(reusable bool), err error) {
	key := c.TLS + " " + strings.Join(c.Flags, " ")
	s.mu.Lock()
	if c.Own {
		if n := len(s.free[key]); n > 0 {
			server = s.free[key][n-1]
			s.free[key] = s.free[key][:n-1]
		}
		s.mu.Unlock()
		if server == nil {
			if server, err = s.start(c, dir); err != nil {
				return nil, nil, err
			}
		}
		return server, func(reusable bool) { s.giveBack(key, server, reusable && !strings.Contains(key, "$tmp")) }, nil
	}
	one := s.shared[key]
	if one == nil {
		one = &shared{}
		s.shared[key] = one
	}
	s.mu.Unlock()
	one.once.Do(func() { one.server, one.err = s.start(c, dir) })
	return one.server, func(bool) {}, one.err
}

func (s *Servers) giveBack(key string, server *Server, reusable bool) {
	if reusable {
		server.sandbox.ClearFaults()
		s.mu.Lock()
		defer s.mu.Unlock()
		s.free[key] = append(s.free[key], server)
		return
	}
	server.end()
}

// Close ends all servers.
func (s *Servers) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, list := range s.free {
		for _, server := range list {
			server.end()
		}
	}
	for _, one := range s.shared {
		if one.server != nil {
			one.server.end()
		}
	}
}

func (s *Servers) start(c *Case, dir string) (*Server, error) {
	sb, err := sandbox.Start(sandbox.Options{})
	if err != nil {
		return nil, err
	}
	server := &Server{program: s.program, sandbox: sb}
	flags := append(harness.Before(sb), "--documents", "--fit-images", "--drain-notice=50ms", "--ledger=memory")
	flags = append(flags, s.certs.serverFlags(c.TLS)...)
	server.tls = func() (lpfileshare.Option, error) { return s.certs.option(c.TLS) }
	for _, f := range c.Flags {
		flags = append(flags, strings.ReplaceAll(f, "$tmp", dir))
	}
	server.flags = flags
	if err := server.Start(); err != nil {
		server.end()
		return nil, err
	}
	return server, nil
}

// Start starts the server, again on the same address if it ran before.
func (s *Server) Start() error {
	flags := s.flags
	if s.addr != "" { // flags that come later take precedence
		flags = append(append([]string{}, flags...), "--listen="+s.addr)
	}
	run, err := harness.Start(s.program, flags...)
	if err != nil {
		return err
	}
	s.run, s.addr = run, run.Addr
	if s.client == nil {
		option, err := s.tls()
		if err != nil {
			return err
		}
		s.client, err = lpfileshare.Dial(s.addr, option)
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Server) end() {
	if s.client != nil {
		_ = s.client.Close()
	}
	if s.run != nil {
		s.run.Kill()
	}
	s.sandbox.Close()
}

// Terminate asks the server to end.
func (s *Server) Terminate() { s.run.Signal(syscall.SIGTERM) }

// Fault arms a fault of the sandbox, given as JSON.
func (s *Server) Fault(text []byte) error {
	f, err := sandbox.ParseFault(text)
	if err == nil {
		s.sandbox.Inject(f)
	}
	return err
}

// counts returns how many objects an owner has stored, and how many files were published in a conversation.
func (s *Server) counts(owner, conversation string) (stored, published int) {
	j := s.sandbox.Journal()
	paths := map[string]bool{}
	for _, u := range j.Signed {
		if u.Owner == owner && u.Method == http.MethodPut {
			paths[u.Path] = true
		}
	}
	for _, o := range j.Stored {
		if paths[o.Path] {
			stored++
		}
	}
	id := conversation[strings.LastIndexByte(conversation, '/')+1:]
	for _, p := range j.Published {
		if p.Conversation == id {
			published++
		}
	}
	return stored, published
}

// tempDir returns a new folder in a parent.
func tempDir(parent string) (string, error) { return os.MkdirTemp(parent, "case") }
