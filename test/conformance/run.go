package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	"github.com/lpfileshare/lpfileshare/test/faults/proxy"
	"github.com/lpfileshare/lpfileshare/test/harness"
)

const (
	stepTime  = 5 * time.Minute // how long a step may take, on a machine that does much else
	caseTime  = 10 * time.Minute
	closeTime = 30 * time.Second // how long connections may stay after a client was closed
	countTime = 15 * time.Second // how long a server may take to finish an upload whose caller has gone
)

// A Runner runs cases with the driver of one language.
type Runner struct {
	language string
	argv     []string
	root     string
	tmp      string
	files    *Files
	servers  *Servers
	certs    *Certificates
	fixtures *Fixtures
	driver   *Driver

	mu      sync.Mutex
	secrets []string // that no output may contain
	names   int
}

// A trial is a case that runs.
type trial struct {
	*Runner
	c         *Case
	ctx       context.Context
	dir       string
	driver    *Driver
	server    *Server
	fake      *fakeServer
	link      *proxy.Proxy
	consumer  harness.Consumer
	values    map[string]any    // what "$name" stands for
	calls     map[string]*Call  // of the steps with an id
	clients   map[string]string // names of clients among those of all cases
	opened    []string          // clients to be closed
	restarted bool
	mu        sync.Mutex // guards values and calls
	cleanup   []func()
}

// Run runs a case, and returns what is wrong.
func (r *Runner) Run(c *Case) (err error) {
	ctx, cancel := context.WithTimeoutCause(context.Background(), caseTime, fmt.Errorf("the case took longer than %v", caseTime))
	defer cancel()
	dir, err := tempDir(r.tmp)
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	t := &trial{Runner: r, c: c, ctx: ctx, dir: dir, driver: r.driver, values: map[string]any{}, calls: map[string]*Call{}, clients: map[string]string{}}
	defer func() {
		_ = t.close() // again, if the case failed before
		for i := len(t.cleanup) - 1; i >= 0; i-- {
			t.cleanup[i]()
		}
	}()
	if err := t.prepare(); err != nil {
		return fmt.Errorf("preparing: %w", err)
	}
	for i := range c.Steps {
		if err := t.step(&c.Steps[i]); err != nil {
			return fmt.Errorf("step %d (%s): %w", i+1, c.Steps[i].Do, err)
		}
	}
	return t.finish()
}

// prepare starts what the case needs, and opens the client "main".
func (t *trial) prepare() error {
	target, err := t.start()
	if err != nil {
		return err
	}
	protocol := proxy.Protocol(proxy.Raw)
	if t.c.TLS == "" {
		protocol = proxy.HTTP2
	}
	if t.link, err = proxy.Listen(target, protocol); err != nil {
		return err
	}
	t.cleanup = append(t.cleanup, t.link.Close)
	for _, r := range t.c.Link {
		if err := r.arm(t.link); err != nil {
			return err
		}
	}
	t.values["address"], t.values["direct"] = t.link.Addr(), target
	t.values["port"] = t.link.Addr()[strings.LastIndexByte(t.link.Addr(), ':')+1:]
	for _, name := range []string{"ca", "other-ca", "client", "client-key"} {
		t.values[name] = t.certs.Path(name)
	}
	t.values["tmp"] = t.dir
	if t.c.Environment != nil {
		if err := t.ownDriver(); err != nil {
			return err
		}
	}
	if t.c.Closed {
		return nil
	}
	t.opened = append(t.opened, t.clientName("main"))
	_, err = t.call(map[string]any{
		"op": "open", "client": "main", "target": t.link.Addr(), "account": harness.Account,
		"identity": map[string]any{"kind": "consumer", "token": t.values["token"]}, "tls": t.values["tls"],
	})
	return err
}

// start starts the fake, or leases a server and signs up a consumer with a conversation.
func (t *trial) start() (target string, err error) {
	if t.c.Fake != nil {
		if t.fake, err = startFake(*t.c.Fake); err != nil {
			return "", err
		}
		t.cleanup = append(t.cleanup, t.fake.stop)
		t.values["token"], t.values["conversation"] = "conformance-token-1", harness.AccountPath+"/conversations/c1"
		t.secret("conformance-token-1")
		return t.fake.addr, nil
	}
	var giveBack func(bool)
	if t.server, giveBack, err = t.servers.Lease(t.c, t.dir); err != nil {
		return "", err
	}
	t.cleanup = append(t.cleanup, func() { giveBack(!t.restarted) })
	if t.c.TLS != "" {
		t.values["tls"] = map[string]any{"ca": t.certs.Path("ca"), "cert": t.certs.Path("client"), "key": t.certs.Path("client-key")}
	}
	if t.c.Fixture != "" {
		t.consumer, err = t.fixtures.get(t.ctx, t.c.Fixture, t.server)
	} else {
		t.consumer, err = harness.SignUpAndTalk(t.ctx, t.server.client, harness.Account)
	}
	if err != nil {
		return "", err
	}
	t.values["token"], t.values["conversation"], t.values["consumer"] = t.consumer.Token, t.consumer.Conversation, t.consumer.ID
	t.secret(t.consumer.Token)
	for _, f := range t.c.Faults {
		if err := t.server.Fault(f); err != nil {
			return "", err
		}
	}
	return t.server.addr, nil
}

// minSecret is the length from which on a text is a secret. The fakes issue shorter tokens.
const minSecret = 12

func (r *Runner) secret(s string) {
	if len(s) < minSecret {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.secrets = append(r.secrets, s)
}

// ownDriver starts a driver with the case's environment.
func (t *trial) ownDriver() error {
	var env []string
	for k, v := range t.c.Environment {
		x, err := expand(v, t.lookup)
		if err != nil {
			return err
		}
		env = append(env, fmt.Sprintf("%s=%v", k, x))
	}
	d, err := startDriver(t.root, t.argv, env)
	if err != nil {
		return err
	}
	t.driver = d
	t.cleanup = append(t.cleanup, func() { _ = d.Exit() })
	return nil
}

// clientName is the name of a case's client among those of all cases.
func (t *trial) clientName(name string) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.clients[name] == "" {
		t.Runner.mu.Lock()
		t.Runner.names++
		t.clients[name] = fmt.Sprintf("%s-%d", name, t.Runner.names)
		t.Runner.mu.Unlock()
	}
	return t.clients[name]
}

// send sends a command with the case's names of clients.
func (t *trial) send(command map[string]any) (*Call, error) {
	for _, member := range []string{"client", "from"} {
		if name, ok := command[member].(string); ok {
			command[member] = t.clientName(name)
		}
	}
	return t.driver.Send(command)
}

// call sends a command, and returns its result.
func (t *trial) call(command map[string]any) (any, error) {
	c, err := t.send(command)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(t.ctx, stepTime)
	defer cancel()
	answer, err := c.Answer(ctx)
	if err != nil {
		return nil, err
	}
	if e, failed := answer["error"]; failed {
		return nil, fmt.Errorf("%v failed: %s", command["op"], short(e))
	}
	return answer["result"], nil
}

// step runs a step as often as it says.
func (t *trial) step(s *Step) error {
	if s.Times <= 1 {
		return t.once(s)
	}
	turns := make(chan struct{}, max(s.Parallel, 1))
	errs := make(chan error, s.Times)
	for range s.Times {
		turns <- struct{}{}
		go func() {
			defer func() { <-turns }()
			errs <- t.once(s)
		}()
	}
	var failed []error
	for range s.Times {
		if err := <-errs; err != nil {
			failed = append(failed, err)
		}
	}
	if len(failed) > 0 {
		return fmt.Errorf("%d of %d runs failed, for example: %w", len(failed), s.Times, failed[0])
	}
	return nil
}

func (t *trial) once(s *Step) error {
	x, err := expand(s.Args, t.lookup)
	if err != nil {
		return err
	}
	args := x.(map[string]any)
	if act, ok := actions[s.Do]; ok {
		result, err := act(t, args)
		if err == nil && s.ID != "" {
			t.keep(s.ID, normal(result), nil)
		}
		if err == nil && s.Want != nil && s.Do != "wait" {
			return t.check(s, map[string]any{"result": normal(result)})
		}
		if err == nil && s.Do == "wait" {
			return t.wait(s, args)
		}
		return err
	}
	command, err := t.command(s, args)
	if err != nil {
		return err
	}
	c, err := t.send(command)
	if err != nil {
		return err
	}
	if s.ID != "" {
		t.keep(s.ID, nil, c)
	}
	if s.Async {
		return nil
	}
	return t.judge(s, c, c.begun)
}

// keep stores what later steps can name.
func (t *trial) keep(id string, result any, c *Call) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if result != nil {
		t.values[id] = result
	}
	if c != nil {
		t.calls[id] = c
	}
}

// command completes a command with the defaults of its op.
func (t *trial) command(s *Step, args map[string]any) (map[string]any, error) {
	command := map[string]any{"op": s.Do, "client": "main"}
	for k, v := range args {
		command[k] = v
	}
	if call, ok := command["call"].(string); ok {
		t.mu.Lock()
		c := t.calls[call]
		t.mu.Unlock()
		if c == nil {
			return nil, fmt.Errorf("there is no call %q", call)
		}
		command["call"] = c.ID
	}
	switch s.Do {
	case "upload":
		if command["options"] == nil {
			command["options"] = map[string]any{}
		}
		if o := command["options"].(map[string]any); o["conversation"] == nil {
			o["conversation"] = t.values["conversation"]
		}
		if name, ok := command["source"].(string); ok {
			command["source"] = map[string]any{"kind": "bytes", "file": name}
		}
		source := command["source"].(map[string]any)
		path, err := t.files.Path(source["file"].(string))
		if err != nil {
			return nil, err
		}
		source["path"] = path
		delete(source, "file")
	case "download":
		if command["sink"] == nil {
			command["sink"] = map[string]any{"kind": "memory"}
		}
	case "files", "watch":
		if command["parent"] == nil {
			command["parent"] = t.values["conversation"]
		}
	case "open":
		if command["fromEnvironment"] == nil {
			t.openDefaults(command)
		}
	}
	return command, nil
}

func (t *trial) openDefaults(command map[string]any) {
	for name, v := range map[string]any{
		"target": t.link.Addr(), "account": harness.Account, "tls": t.values["tls"],
		"identity": map[string]any{"kind": "consumer", "token": t.values["token"]},
	} {
		if _, there := command[name]; !there && v != nil {
			command[name] = v
		}
	}
}

// judge waits for the answer of a call, and compares it, and the time since begun, with what the step wants.
func (t *trial) judge(s *Step, c *Call, begun time.Time) error {
	ctx, cancel := context.WithTimeout(t.ctx, stepTime)
	defer cancel()
	answer, err := c.Answer(ctx)
	if err != nil {
		return err
	}
	if s.ID != "" {
		value := answer["result"]
		if value == nil {
			value = answer["error"]
		}
		t.keep(s.ID, value, nil)
	}
	if result, ok := answer["result"].(map[string]any); ok {
		t.note(s, result)
	}
	if err := t.check(s, answer); err != nil {
		return err
	}
	if ms := int(c.ended.Sub(begun).Milliseconds()); s.MinMs > 0 && ms < s.MinMs || s.MaxMs > 0 && ms > s.MaxMs {
		return fmt.Errorf("it took %d ms, want %d to %d: %s", ms, s.MinMs, s.MaxMs, short(answer))
	}
	return t.checkEvents(s, c)
}

// note keeps what a result means for the rest of the case: clients to be closed, and secrets.
func (t *trial) note(s *Step, result map[string]any) {
	switch s.Do {
	case "open":
		name, ok := s.Args["client"].(string)
		if !ok {
			name = "main"
		}
		t.opened = append(t.opened, t.clientName(name))
	case "signInConsumer", "signInAgent":
		for _, k := range []string{"token", "renewalSecret"} {
			if text, ok := result[k].(string); ok && text != "" {
				t.secret(text)
			}
		}
	}
}

// check compares an answer with what the step wants. A step that wants nothing wants a result.
func (t *trial) check(s *Step, answer map[string]any) error {
	if s.Want == nil {
		if e, failed := answer["error"]; failed {
			return fmt.Errorf("it failed: %s", short(e))
		}
		return nil
	}
	want, err := expand(s.Want, t.lookup)
	if err != nil {
		return err
	}
	if diff := match("the answer", want, any(answer)); diff != "" {
		return fmt.Errorf("%s; the whole: %s", diff, short(answer))
	}
	return nil
}

func (t *trial) checkEvents(s *Step, c *Call) error {
	events, _ := c.Events()
	next := 0
	for _, e := range events {
		for _, bad := range s.NoEvents {
			x, err := expand(bad, t.lookup)
			if err != nil {
				return err
			}
			if match("", x, e) == "" {
				return fmt.Errorf("there was the event %s", short(e))
			}
		}
		if next < len(s.Events) {
			x, err := expand(s.Events[next], t.lookup)
			if err != nil {
				return err
			}
			if match("", x, e) == "" {
				next++
			}
		}
	}
	if next < len(s.Events) {
		return fmt.Errorf("the event %s did not come; there were %s", short(s.Events[next]), short(events))
	}
	return nil
}

// lookup returns what "$name" stands for: uuid:NAME (the same for a name within a case), sha:FILE[,FROM,TO], dataUri:FILE, or a value with a path, such as
// "upload.file.name".
func (t *trial) lookup(name string) (any, error) {
	if kind, arg, ok := strings.Cut(name, ":"); ok {
		switch kind {
		case "sha":
			return t.files.SHA256(arg)
		case "address":
			return t.values["address"], nil
		case "uuid":
			t.mu.Lock()
			defer t.mu.Unlock()
			if t.values[name] == nil {
				t.values[name] = uuid.NewString()
			}
			return t.values[name], nil
		case "join": // "$join:a,$address": parts, each of which may be a name
			return t.join(arg)
		}
		return nil, fmt.Errorf("unknown value $%s", name)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	path := strings.Split(name, ".")
	v, ok := t.values[path[0]]
	if !ok {
		return nil, fmt.Errorf("unknown value $%s", name)
	}
	for _, p := range path[1:] {
		switch at := v.(type) {
		case map[string]any:
			v = at[p]
		case []any:
			i, err := strconv.Atoi(p)
			if err != nil || i >= len(at) {
				return nil, fmt.Errorf("$%s: there is no %s", name, p)
			}
			v = at[i]
		default:
			return nil, fmt.Errorf("$%s: there is no %s", name, p)
		}
	}
	return v, nil
}

// join puts parts together, which are separated by "|". A part that begins with "$" is a name.
func (t *trial) join(arg string) (any, error) {
	var b strings.Builder
	for part := range strings.SplitSeq(arg, "|") {
		if name, ok := strings.CutPrefix(part, "$"); ok {
			v, err := t.lookup(name)
			if err != nil {
				return nil, err
			}
			part = fmt.Sprint(v)
		}
		b.WriteString(part)
	}
	return b.String(), nil
}

// close closes the clients that were opened. Those on the connection of another one are closed with it.
func (t *trial) close() error {
	opened := t.opened
	t.opened = nil
	for _, name := range opened {
		c, err := t.driver.Send(map[string]any{"op": "close", "client": name})
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(t.ctx, stepTime)
		answer, err := c.Answer(ctx)
		cancel()
		if err != nil {
			return fmt.Errorf("close: %w", err)
		}
		if e, failed := answer["error"]; failed {
			return fmt.Errorf("close failed: %s", short(e))
		}
	}
	return nil
}

// finish closes the clients, and checks what must hold at the end.
func (t *trial) finish() error {
	if err := t.close(); err != nil {
		return err
	}
	for limit := time.Now().Add(closeTime); ; time.Sleep(5 * time.Millisecond) {
		open, _ := t.link.Conns()
		if open == 0 {
			break
		}
		if time.Now().After(limit) {
			return fmt.Errorf("%d connections are open %v after the clients were closed", open, closeTime)
		}
	}
	if t.fake != nil && t.c.Calls != nil {
		if diff := match("calls", any(t.c.Calls), t.fake.counts()); diff != "" {
			return errors.New(diff)
		}
	}
	return t.counted()
}

// counted compares the journal. A server may finish an upload after its caller has gone, so it waits a moment for more.
func (t *trial) counted() error {
	if t.c.Stored == nil && t.c.Published == nil {
		return nil
	}
	for limit := time.Now().Add(countTime); ; time.Sleep(20 * time.Millisecond) {
		stored, published := t.server.counts(t.consumer.ID, t.consumer.Conversation)
		goodStored := t.c.Stored == nil || *t.c.Stored == stored
		goodPublished := t.c.Published == nil || *t.c.Published == published
		if goodStored && goodPublished {
			return nil
		}
		if time.Now().After(limit) {
			return fmt.Errorf("%d objects were stored and %d files published, want %s and %s", stored, published, short(t.c.Stored), short(t.c.Published))
		}
	}
}

// Fixtures are conversations that take long to prepare, and that cases only read.
type Fixtures struct {
	mu   sync.Mutex
	made map[string]harness.Consumer
}

// manyFiles is the number of files of the fixture "many": more than a page has.
const manyFiles = 1001

func (f *Fixtures) get(ctx context.Context, name string, s *Server) (harness.Consumer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if c, ok := f.made[name+s.addr]; ok {
		return c, nil
	}
	c, err := harness.SignUpAndTalk(ctx, s.client, harness.Account)
	if err != nil {
		return c, err
	}
	if name != "many" {
		return c, fmt.Errorf("unknown fixture %q", name)
	}
	if _, err := publish(ctx, c, manyFiles, harness.TinyGIF()); err != nil {
		return c, err
	}
	f.made[name+s.addr] = c
	return c, nil
}

// publish uploads files with the runner's own client, eight at a time, and returns their names.
func publish(ctx context.Context, c harness.Consumer, n int, data []byte) ([]string, error) {
	names, errs := make([]string, n), make([]error, n)
	var work sync.WaitGroup
	turns := make(chan struct{}, 8)
	for i := range n {
		turns <- struct{}{}
		work.Go(func() {
			defer func() { <-turns }()
			r, err := c.UploadBytes(ctx, lpfileshare.UploadOptions{Conversation: c.Conversation, Caption: fmt.Sprintf("file %d", i)}, data)
			names[i], errs[i] = r.GetFile().GetName(), err
		})
	}
	work.Wait()
	return names, errors.Join(errs...)
}
