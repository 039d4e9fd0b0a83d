// Command go is the driver of the Go client: see ../README.md.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// maxLine is the longest command, in bytes.
const maxLine = 1 << 20

func main() {
	d := &driver{clients: map[string]*lpfileshare.Client{}, identities: map[string]lpfileshare.Identity{}, calls: map[string]*call{}}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, maxLine)
	for in.Scan() {
		var c command
		if err := json.Unmarshal(in.Bytes(), &c); err != nil {
			fmt.Fprintln(os.Stderr, "conformance driver:", err)
			os.Exit(2)
		}
		d.begin(c)
	}
	d.end()
}

// A command is one line of the runner. Each op uses some of the members.
type command struct {
	ID, Op                      string
	Client, From, Target        string
	Account                     string
	Identity                    *identity
	TLS                         *tlsFiles
	FromEnvironment             bool
	Source                      source
	Sink                        sink
	Options                     json.RawMessage
	DeadlineMs                  int
	File, Upload, Parent, Token string
	MaxSilenceMs, RetryForMs    int
	Limit, DelayMs              int
	Request                     signIn
	RequestID, Conversation     string
	Call                        string
}

type tlsFiles struct {
	CA, Cert, Key string
	Plaintext     bool
}

type signIn struct {
	SignUp                           bool
	Anonymous, CustomerJWT, AuthCode string
	UserName, Password               string
}

// A call is a command that runs or has ended.
type call struct {
	cancel context.CancelFunc
	result any
	err    error
}

type driver struct {
	out  sync.Mutex
	work sync.WaitGroup

	mu         sync.Mutex
	clients    map[string]*lpfileshare.Client
	identities map[string]lpfileshare.Identity
	calls      map[string]*call
}

// begin runs a command. Those that change the table of clients end before the next command is read.
func (d *driver) begin(c command) {
	ctx, cancel := context.WithCancel(context.Background())
	if c.DeadlineMs > 0 {
		ctx, cancel = context.WithTimeout(context.Background(), time.Duration(c.DeadlineMs)*time.Millisecond)
	}
	k := &call{cancel: cancel}
	d.mu.Lock()
	d.calls[c.ID] = k
	d.mu.Unlock()
	run := func() {
		defer cancel()
		result, err := d.run(ctx, c)
		d.mu.Lock()
		k.result, k.err = result, err
		d.mu.Unlock()
		if err != nil {
			d.write(map[string]any{"id": c.ID, "error": describe(err)})
			return
		}
		if result == nil {
			result = map[string]any{}
		}
		d.write(map[string]any{"id": c.ID, "result": result})
	}
	switch c.Op {
	case "open", "as", "cancel":
		run()
	default:
		d.work.Go(run)
	}
}

func (d *driver) write(line any) {
	text, err := json.Marshal(line)
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance driver:", err)
		os.Exit(2)
	}
	d.out.Lock()
	defer d.out.Unlock()
	os.Stdout.Write(append(text, '\n'))
}

func (d *driver) event(c command, event map[string]any) {
	d.write(map[string]any{"id": c.ID, "event": event})
}

// end cancels what still runs and closes the clients.
func (d *driver) end() {
	d.mu.Lock()
	for _, k := range d.calls {
		k.cancel()
	}
	for _, c := range d.clients {
		c.Close()
	}
	d.mu.Unlock()
	d.work.Wait()
}

func (d *driver) client(name string) (*lpfileshare.Client, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if c := d.clients[name]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("there is no client %q", name)
}

func (d *driver) add(name string, c *lpfileshare.Client, id lpfileshare.Identity) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.clients[name], d.identities[name] = c, id
}

func (d *driver) run(ctx context.Context, c command) (any, error) {
	switch c.Op {
	case "open":
		return nil, d.open(c)
	case "cancel":
		d.mu.Lock()
		defer d.mu.Unlock()
		if k := d.calls[c.Call]; k != nil {
			k.cancel()
		}
		return nil, nil
	}
	name := c.Client
	if c.Op == "as" {
		name = c.From
	}
	client, err := d.client(name)
	if err != nil {
		return nil, err
	}
	switch c.Op {
	case "as":
		id := c.Identity.identity("")
		d.add(c.Client, client.As(id), id)
		return nil, nil
	case "close":
		return nil, client.Close()
	case "print":
		return d.print(client, c), nil
	case "upload":
		return d.upload(ctx, client, c)
	case "download":
		return d.download(ctx, client, c)
	case "files":
		return files(ctx, client, c)
	case "watch":
		return d.watch(ctx, client, c)
	}
	return unary(ctx, client, c)
}

func (d *driver) open(c command) error {
	if c.FromEnvironment {
		client, err := lpfileshare.DialEnv()
		if err == nil {
			d.add(c.Client, client, lpfileshare.Identity{})
		}
		return err
	}
	options := []lpfileshare.Option{lpfileshare.WithAccount(c.Account)}
	if c.TLS != nil && c.TLS.Plaintext {
		options = append(options, lpfileshare.WithPlaintext())
	} else if c.TLS != nil {
		config, err := lpfileshare.TLSConfig(c.TLS.CA, c.TLS.Cert, c.TLS.Key)
		if err != nil {
			return err
		}
		if config != nil {
			options = append(options, lpfileshare.WithTLS(config))
		}
	}
	client, err := lpfileshare.Dial(c.Target, options...)
	if err != nil {
		return err
	}
	id := c.Identity.identity(c.Account)
	d.add(c.Client, client.As(id), id)
	return nil
}

// print formats what a program could log, in every way of the language.
func (d *driver) print(client *lpfileshare.Client, c command) any {
	d.mu.Lock()
	values := []any{client, *client, d.identities[c.Client]}
	if k := d.calls[c.Call]; k != nil {
		if s, ok := k.result.(session); ok {
			values = append(values, lpfileshare.ConsumerSession{
				Token: s.Token, RenewalSecret: s.RenewalSecret, ConsumerID: s.ConsumerID,
			})
		} else {
			values = append(values, k.result)
		}
		values = append(values, k.err)
	}
	d.mu.Unlock()
	var text []string
	for _, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
			text = append(text, fmt.Sprintf(verb, v))
		}
		if _, secret := v.(lpfileshare.ConsumerSession); secret {
			continue // its JSON is for storing it
		}
		if data, err := json.Marshal(v); err == nil {
			text = append(text, string(data))
		}
	}
	return map[string]any{"text": text}
}

// unary makes a call that is one request and one response.
func unary(ctx context.Context, client *lpfileshare.Client, c command) (any, error) {
	switch c.Op {
	case "stat":
		f, err := client.Stat(ctx, c.File)
		return object{"file": file(f)}, err
	case "getUpload":
		u, err := client.GetUpload(ctx, c.Upload)
		return object{"upload": u.GetName(), "state": enum(u.GetState(), "UPLOAD_STATE_")}, err
	case "publishUpload":
		r, err := client.PublishUpload(ctx, c.Upload)
		return object{"file": file(r.GetFile()), "replayed": r.GetReplayed()}, err
	case "capabilities":
		r, err := client.Capabilities(ctx, "")
		types := []any{}
		for _, t := range r.GetFileTypes() {
			types = append(types, enum(t, "FILE_TYPE_"))
		}
		return object{
			"maxFileBytes": r.GetMaxFileBytes(), "maxSmallFileBytes": r.GetMaxSmallFileBytes(), "fileTypes": types,
			"serverVersion": r.GetServerVersion(),
		}, err
	case "signInConsumer":
		s, err := client.SignInConsumer(ctx, c.Request.consumer(client.Account()))
		return session{Token: s.Token, RenewalSecret: s.RenewalSecret, ConsumerID: s.ConsumerID, ExpiresAtMs: unixMilli(s.Expires)}, err
	case "signInAgent":
		r, err := client.SignInAgent(ctx, &pb.SignInAgentRequest{Credentials: &pb.SignInAgentRequest_Password{
			Password: &pb.PasswordCredentials{Username: c.Request.UserName, Password: c.Request.Password},
		}})
		return object{"token": r.Token}, err
	case "signOutAgent":
		return nil, client.SignOutAgent(ctx, "")
	case "createConversation":
		r, err := client.CreateConversation(ctx, &pb.CreateConversationRequest{RequestId: c.RequestID})
		return object{"conversation": r.GetName()}, err
	case "closeConversation":
		r, err := client.CloseConversation(ctx, c.Conversation)
		return object{"state": enum(r.GetState(), "CONVERSATION_STATE_")}, err
	case "conversations":
		names := []string{}
		for conversation, err := range client.Conversations(ctx, lpfileshare.ConversationsOptions{}) {
			if err != nil {
				return nil, err
			}
			names = append(names, conversation.GetName())
		}
		return object{"conversations": names}, nil
	}
	return nil, errors.New("unknown op " + c.Op)
}
