package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// demoPicture is a generated landscape with the noise of a photograph.
//
//go:embed demo.jpg
var demoPicture []byte

const (
	serverStart   = 15 * time.Second // time for a server to become ready
	serverStop    = 20 * time.Second // time for a server to stop
	messageTime   = 30 * time.Second // time for the message of a file to arrive at the receiver
	watchOpening  = 10 * time.Second // time for the first heartbeat of a watch
	sandboxSecret = "sandbox"        // the password of every agent of the sandbox
)

type demoCmd struct {
	File      string `arg:"" optional:"" help:"File to send. Default: a picture of this program."`
	Server    string `type:"existingfile" placeholder:"PATH" help:"Start this server with its sandbox first, and stop it at the end."`
	AgentUser string `default:"admin" placeholder:"NAME" help:"Agent to receive the file as, with the password in LPFILESHARE_PASSWORD. Default: admin."`
}

// Run runs the demo. The last line on standard output is the result.
func (cmd *demoCmd) Run(command context.Context, a *app) error {
	ctx, cancel := a.limit(command, 2*time.Minute)
	defer cancel()
	if cmd.File != "" { // check it first
		f, err := openFile(cmd.File)
		if err != nil {
			return &usageError{err.Error()}
		}
		f.Close()
	}
	d := &demo{app: a, cmd: cmd, step: time.Now()}
	summary, err := d.run(ctx)
	if err != nil {
		text := err.Error()
		if e, ok := errors.AsType[*lpfileshare.Error](err); ok {
			text = what(e) + ". " + a.advice(e)
		}
		fmt.Fprintf(a.stdout, "demo: failed: %s\n", plain(strings.TrimSuffix(text, ". ")))
		return reportedError{exitCodeOf(command, err)}
	}
	_, err = fmt.Fprintf(a.stdout, "demo: ok %s\n", summary)
	return err
}

// A demo sends one file from one side of a conversation to the other.
type demo struct {
	*app
	cmd          *demoCmd
	step         time.Time // when the current step began
	connection   *connection
	client       *lpfileshare.Client // without identity
	tokens       *lpfileshare.ConsumerTokens
	consumer     *lpfileshare.Client
	conversation string
}

// done prints a finished step and its duration.
func (d *demo) done(format string, args ...any) {
	now := time.Now()
	fmt.Fprintf(d.stdout, "%8.1f ms  %s\n", float64(now.Sub(d.step).Microseconds())/1000, plain(fmt.Sprintf(format, args...)))
	d.step = now
}

func (d *demo) run(ctx context.Context) (summary string, err error) {
	if d.connection, err = d.app.connection(); err != nil {
		return "", err
	}
	if d.cmd.Server != "" {
		server, err := startServer(ctx, d.cmd.Server)
		if err != nil {
			return "", err
		}
		d.connection.address, d.connection.plaintext, d.connection.tls = server.address, true, nil
		if d.Account == "" {
			d.connection.account = defaultAccount // the sandbox's
		}
		d.done("server started at %s", server.address)
		defer func() {
			stopErr := server.stop()
			if err == nil && stopErr != nil {
				err = stopErr
			}
			if err == nil {
				d.done("server stopped")
			} else if text := server.lastOutput(); text != "" {
				fmt.Fprintf(d.stderr, "The server's last output:\n%s\n", text)
			}
		}()
	}
	if d.client, err = d.dial(ctx, d.connection); err != nil {
		return "", err
	}
	defer d.client.Close()
	return d.exchange(ctx)
}

// exchange runs the demo on a connected server.
func (d *demo) exchange(ctx context.Context) (summary string, err error) {
	state, err := d.client.Health(ctx, "")
	if err != nil {
		return "", err
	}
	if state != healthpb.HealthCheckResponse_SERVING {
		return "", fmt.Errorf("the server at %s is %v", d.connection.address, state)
	}
	d.done("server at %s is healthy", d.connection.address)

	if err := d.signIn(ctx); err != nil {
		return "", err
	}
	conversation, err := d.consumer.CreateConversation(ctx, &pb.CreateConversationRequest{Account: d.connection.parent()})
	if err != nil {
		return "", err
	}
	d.conversation = conversation.GetName()
	d.done("created %s", d.conversation)
	open := true
	defer func() {
		if open { // after an error
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			d.consumer.CloseConversation(ctx, d.conversation)
		}
	}()

	other, err := d.receiver(ctx)
	if err != nil {
		return "", err
	}
	defer other.close()
	d.done("%s watches", other.name)

	sent, sum, size, err := d.send(ctx)
	if err != nil {
		return "", err
	}
	received, err := other.receive(ctx, sent)
	if err != nil {
		return "", err
	}
	d.done("%s received its message: %s, sequence %d", other.name, typeName(received), received.GetMessageSequence())

	sha := sha256.New()
	result, err := other.client.Download(ctx, lpfileshare.DownloadOptions{Name: received.GetName()}, sha)
	if err != nil {
		return "", err
	}
	d.done("%s downloaded %d bytes", other.name, result.Bytes)
	if got := hex.EncodeToString(sha.Sum(nil)); got != sum {
		return "", fmt.Errorf("the downloaded file has SHA-256 %s, the uploaded one %s", got, sum)
	}
	d.done("the SHA-256 of both is equal")

	if _, err := d.consumer.CloseConversation(ctx, d.conversation); err != nil {
		return "", err
	}
	open = false
	d.done("closed the conversation")
	return fmt.Sprintf("sha256=%s bytes=%d file=%s", sum, size, sent.GetName()), nil
}

func (d *demo) signIn(ctx context.Context) error {
	s, err := d.client.SignInConsumer(ctx, &pb.SignInConsumerRequest{
		Account: d.connection.parent(), Grant: &pb.SignInConsumerRequest_SignUp{SignUp: &pb.SignUp{}},
	})
	if err != nil {
		return err
	}
	d.tokens = lpfileshare.NewConsumerTokens(d.connection.account, s, nil)
	d.consumer = d.client.As(lpfileshare.ConsumerToken(d.tokens))
	d.done("signed in to account %s as consumer %s", d.connection.account, s.ConsumerID)
	return nil
}

// send uploads the file, and returns it with the SHA-256 and size of what was sent.
func (d *demo) send(ctx context.Context) (file *pb.File, sum string, size int, err error) {
	data, name := demoPicture, "demo.jpg"
	if d.cmd.File != "" {
		if data, err = os.ReadFile(d.cmd.File); err != nil {
			return nil, "", 0, err
		}
		name = filepath.Base(d.cmd.File)
	}
	r, err := d.consumer.Upload(ctx, lpfileshare.UploadOptions{
		Conversation: d.conversation, DisplayName: name, Caption: "From the lpfileshare demo",
		Preview: autoPreview(lpfileshare.DetectFileType(name, data[:min(len(data), 512)])),
	}, bytes.NewReader(data))
	if err != nil {
		return nil, "", 0, err
	}
	d.done("uploaded %s, %d bytes, as %s", name, len(data), r.GetFile().GetName())
	hash := sha256.Sum256(data)
	return r.GetFile(), hex.EncodeToString(hash[:]), len(data), nil
}

// A receiver watches the conversation.
type receiver struct {
	name   string
	client *lpfileshare.Client
	own    bool // close client at the end

	files chan *pb.File
	ended chan error // the watch's error, once it has ended
	stop  context.CancelFunc
}

// receiver opens a watch of the conversation: as an agent, if the server allows one that has not joined, and else as the consumer
// on a second connection.
func (d *demo) receiver(ctx context.Context) (*receiver, error) {
	s, err := d.agent(ctx)
	if err == nil {
		return s, nil
	}
	switch lpfileshare.ErrorReason(err) {
	case pb.ErrorReason_ERROR_REASON_METHOD_NOT_IMPLEMENTED, pb.ErrorReason_ERROR_REASON_CONVERSATION_NOT_FOUND,
		pb.ErrorReason_ERROR_REASON_NOT_ALLOWED, pb.ErrorReason_ERROR_REASON_LP_FORBIDDEN,
		pb.ErrorReason_ERROR_REASON_LP_CREDENTIALS_REJECTED:
		d.done("no agent (%s): the consumer watches on a second connection", lpfileshare.ReasonName(lpfileshare.ErrorReason(err)))
		return d.secondConnection(ctx)
	default:
		return nil, err
	}
}

// agent signs in an agent and watches as the agent.
func (d *demo) agent(ctx context.Context) (*receiver, error) {
	password := d.getenv(envPassword)
	if password == "" {
		if d.connection.account != defaultAccount {
			return d.secondConnection(ctx) // the sandbox's password is not sent to another account
		}
		password = sandboxSecret
	}
	r, err := d.client.Raw().Identity.SignInAgent(ctx, &pb.SignInAgentRequest{
		Account:     d.connection.parent(),
		Credentials: &pb.SignInAgentRequest_Password{Password: &pb.PasswordCredentials{Username: d.cmd.AgentUser, Password: password}},
	})
	if err != nil {
		return nil, err
	}
	d.done("signed in as agent %s", r.GetAgentId())
	agent := d.client.As(lpfileshare.AgentToken(lpfileshare.StaticToken(r.GetAgentToken())))
	s := &receiver{name: "agent " + r.GetAgentId(), client: agent}
	if err := s.watch(ctx, d.conversation); err != nil {
		return nil, err
	}
	return s, nil
}

// secondConnection watches as the same consumer on another connection.
func (d *demo) secondConnection(ctx context.Context) (*receiver, error) {
	client, err := d.dial(ctx, d.connection)
	if err != nil {
		return nil, err
	}
	s := &receiver{name: "the consumer's second connection", client: client.As(lpfileshare.ConsumerToken(d.tokens)), own: true}
	if err := s.watch(ctx, d.conversation); err != nil {
		client.Close()
		return nil, err
	}
	return s, nil
}

// watch opens the watch, and returns when it is open or has failed.
func (s *receiver) watch(ctx context.Context, conversation string) error {
	list := s.client.Files(ctx, lpfileshare.FilesOptions{Parent: conversation})
	if _, err := list.Collect(); err != nil && lpfileshare.ErrorReason(err) != pb.ErrorReason_ERROR_REASON_METHOD_NOT_IMPLEMENTED {
		return err
	}
	ctx, s.stop = context.WithCancel(ctx)
	s.files, s.ended = make(chan *pb.File, 16), make(chan error, 1)
	opened := make(chan struct{}, 1)
	watch := s.client.Watch(ctx, lpfileshare.WatchOptions{Parent: conversation, Token: list.WatchToken(), OnConnection: func(err error) {
		if err == nil {
			select {
			case opened <- struct{}{}:
			default:
			}
		}
	}})
	go func() { // ends in close, which waits for it
		defer close(s.ended)
		for f, err := range watch.All() {
			if err != nil {
				s.ended <- err
				return
			}
			select {
			case s.files <- f:
			case <-ctx.Done():
			}
		}
	}()
	timer := time.NewTimer(watchOpening)
	defer timer.Stop()
	select {
	case err := <-s.ended:
		s.stop()
		return err
	case <-opened:
	case <-timer.C:
	}
	return nil
}

// receive waits for the message with a file.
func (s *receiver) receive(ctx context.Context, sent *pb.File) (*pb.File, error) {
	timer := time.NewTimer(messageTime)
	defer timer.Stop()
	for {
		select {
		case f := <-s.files:
			if f.GetStoragePath() == sent.GetStoragePath() {
				return f, nil
			}
		case err := <-s.ended:
			return nil, err
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-timer.C:
			return nil, fmt.Errorf("%s has not received the message within %v", s.name, messageTime)
		}
	}
}

func (s *receiver) close() {
	s.stop()
	for range s.ended { // until the watch has ended
	}
	if s.own {
		s.client.Close()
	}
}
