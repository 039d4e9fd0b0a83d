package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// demoPicture is a landscape that a program drew, with the grain of a photograph.
//
//go:embed demo.jpg
var demoPicture []byte

const (
	serverStart   = 15 * time.Second // how long a server may take to be ready
	serverStop    = 20 * time.Second // how long it may take to end
	messageTime   = 30 * time.Second // how long the message of a file may take to the other side
	watchOpening  = 10 * time.Second // how long a watch may take to begin, which its first heartbeat tells
	sandboxSecret = "sandbox"        // the password of every agent of the sandbox
)

type demoCmd struct {
	File      string `arg:"" optional:"" help:"File to send. Default: a picture of this program's own."`
	Server    string `type:"existingfile" placeholder:"PATH" help:"Start this server with its sandbox first, and stop it at the end."`
	AgentUser string `default:"admin" placeholder:"NAME" help:"Agent to receive the file as, with the password in LPFILESHARE_PASSWORD. Default: admin."`
}

// Run runs the demo. Its last line on standard output tells how it ended.
func (cmd *demoCmd) Run(ctx context.Context, a *app) error {
	ctx, cancel := a.limit(ctx, 2*time.Minute)
	defer cancel()
	if cmd.File != "" { // before anything is begun
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
		return errReported
	}
	_, err = fmt.Fprintf(a.stdout, "demo: ok %s\n", summary)
	return err
}

// A demo is one file on its way from one side of a conversation to the other.
type demo struct {
	*app
	cmd          *demoCmd
	step         time.Time // when the step at hand began
	connection   *connection
	client       *lpfileshare.Client // without identity
	tokens       *lpfileshare.ConsumerTokens
	consumer     *lpfileshare.Client
	conversation string
}

// done tells of a step that is done, and how long it took.
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
			d.connection.account = defaultAccount // the sandbox's, whatever was signed in to last
		}
		d.done("server started at %s", server.address)
		defer func() {
			stopErr := server.stop()
			if err == nil && stopErr != nil {
				err = stopErr
			}
			if err == nil {
				d.done("server stopped")
			} else if text := server.lastWords(); text != "" {
				fmt.Fprintf(d.stderr, "The server's last words:\n%s\n", text)
			}
		}()
	}
	if d.client, err = d.dial(ctx, d.connection); err != nil {
		return "", err
	}
	defer d.client.Close()
	return d.talk(ctx)
}

// talk is the demo proper.
func (d *demo) talk(ctx context.Context) (summary string, err error) {
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
		if open { // not left behind, whatever went wrong
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			d.consumer.CloseConversation(ctx, d.conversation)
		}
	}()

	other, err := d.otherSide(ctx)
	if err != nil {
		return "", err
	}
	defer other.close()
	d.done("%s watches", other.who)

	sent, sum, size, err := d.send(ctx)
	if err != nil {
		return "", err
	}
	received, err := other.receive(ctx, sent)
	if err != nil {
		return "", err
	}
	d.done("%s received its message: %s, sequence %d", other.who, typeName(received), received.GetMessageSequence())

	sha := sha256.New()
	result, err := other.client.Download(ctx, lpfileshare.DownloadOptions{Name: received.GetName()}, sha)
	if err != nil {
		return "", err
	}
	d.done("%s downloaded %d bytes", other.who, result.Bytes)
	if got := hex.EncodeToString(sha.Sum(nil)); got != sum {
		return "", fmt.Errorf("the file came back with SHA-256 %s, and went out with %s", got, sum)
	}
	d.done("SHA-256 of both is the same")

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

// A side is somebody who watches the conversation.
type side struct {
	who    string
	client *lpfileshare.Client
	own    bool // the connection is the side's own

	files chan *pb.File
	ended chan error // the watch's error, once it has ended
	stop  context.CancelFunc
}

// otherSide finds somebody to watch the conversation and opens the watch: an agent if the server lets one in who has not
// joined, else the consumer over a second connection.
func (d *demo) otherSide(ctx context.Context) (*side, error) {
	s, err := d.agent(ctx)
	if err == nil {
		return s, nil
	}
	switch lpfileshare.ErrorReason(err) {
	case pb.ErrorReason_ERROR_REASON_METHOD_NOT_IMPLEMENTED, pb.ErrorReason_ERROR_REASON_CONVERSATION_NOT_FOUND,
		pb.ErrorReason_ERROR_REASON_NOT_ALLOWED, pb.ErrorReason_ERROR_REASON_LP_FORBIDDEN,
		pb.ErrorReason_ERROR_REASON_LP_CREDENTIALS_REJECTED:
		d.done("no agent takes part (%s): the consumer watches over a second connection", lpfileshare.ReasonName(lpfileshare.ErrorReason(err)))
		return d.secondConnection(ctx)
	default:
		return nil, err
	}
}

// agent signs an agent in and watches as that.
func (d *demo) agent(ctx context.Context) (*side, error) {
	password := d.getenv("LPFILESHARE_PASSWORD")
	if password == "" {
		if d.connection.account != defaultAccount {
			return d.secondConnection(ctx) // the sandbox's password is nobody's but the sandbox's
		}
		password = sandboxSecret
	}
	r, err := d.client.Identity().SignInAgent(ctx, &pb.SignInAgentRequest{
		Account:     d.connection.parent(),
		Credentials: &pb.SignInAgentRequest_Password{Password: &pb.PasswordCredentials{Username: d.cmd.AgentUser, Password: password}},
	})
	if err != nil {
		return nil, err
	}
	d.done("signed in as agent %s", r.GetAgentId())
	agent := d.client.As(lpfileshare.AgentToken(lpfileshare.StaticToken(r.GetAgentToken())))
	s := &side{who: "agent " + r.GetAgentId(), client: agent}
	if err := s.watch(ctx, d.conversation); err != nil {
		return nil, err
	}
	return s, nil
}

// secondConnection watches as the same consumer, over another connection.
func (d *demo) secondConnection(ctx context.Context) (*side, error) {
	client, err := d.dial(ctx, d.connection)
	if err != nil {
		return nil, err
	}
	s := &side{who: "the consumer's second connection", client: client.As(lpfileshare.ConsumerToken(d.tokens)), own: true}
	if err := s.watch(ctx, d.conversation); err != nil {
		client.Close()
		return nil, err
	}
	return s, nil
}

// watch opens the watch, and returns once it stands or has failed.
func (s *side) watch(ctx context.Context, conversation string) error {
	token, err := s.client.ListFiles(ctx, conversation, func(*pb.File) error { return nil })
	if err != nil && lpfileshare.ErrorReason(err) != pb.ErrorReason_ERROR_REASON_METHOD_NOT_IMPLEMENTED {
		return err
	}
	ctx, s.stop = context.WithCancel(ctx)
	s.files, s.ended = make(chan *pb.File, 16), make(chan error, 1)
	opened := make(chan struct{}, 1)
	go func() { // ends in close, which waits for it
		s.ended <- s.client.Watch(ctx, lpfileshare.WatchOptions{Parent: conversation, Token: token, OnToken: func(string) {
			select {
			case opened <- struct{}{}:
			default:
			}
		}}, func(f *pb.File) error {
			select {
			case s.files <- f:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		close(s.ended)
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

// receive waits for the message of a file.
func (s *side) receive(ctx context.Context, sent *pb.File) (*pb.File, error) {
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
			return nil, fmt.Errorf("%s has not received the message within %v", s.who, messageTime)
		}
	}
}

func (s *side) close() {
	s.stop()
	for range s.ended { // until the watch has ended
	}
	if s.own {
		s.client.Close()
	}
}

// A server is one that this program started.
type server struct {
	cmd     *exec.Cmd
	address string
	read    chan struct{} // closed when its standard error has ended
	lines   []string      // its last lines; to be read after read is closed
}

// readyAddress finds the address of gRPC in the line by which a server says that it is ready.
var readyAddress = regexp.MustCompile(`\bgrpc="?([^\s"]+)`)

// startServer starts a server with its sandbox, and waits until it is ready.
func startServer(ctx context.Context, path string) (*server, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	s := &server{cmd: exec.Command(path, "--sandbox", "--listen", "127.0.0.1:0"), read: make(chan struct{})}
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the server: %w", err)
	}
	ready := make(chan string, 1)
	go s.listen(stderr, ready) // ends with the server; stop waits for it
	timer := time.NewTimer(serverStart)
	defer timer.Stop()
	select {
	case s.address = <-ready:
		return s, nil
	case <-s.read:
		err = errors.New("it ended before it was ready")
	case <-timer.C:
		err = fmt.Errorf("it was not ready within %v", serverStart)
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	s.stop()
	return nil, fmt.Errorf("start the server: %w; its last words:\n%s", err, s.lastWords())
}

// listen reads what the server has to say, to the end.
func (s *server) listen(stderr io.Reader, ready chan<- string) {
	defer close(s.read)
	lines := bufio.NewScanner(stderr)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if s.lines = append(s.lines, line); len(s.lines) > 20 {
			s.lines = s.lines[1:]
		}
		if m := readyAddress.FindStringSubmatch(line); m != nil && strings.Contains(line, "ready") {
			select {
			case ready <- m[1]:
			default:
			}
		}
	}
	io.Copy(io.Discard, stderr) // after a line too long for the scanner
}

// stop ends the server and waits for it.
func (s *server) stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.cmd.Process.Kill() // where there is no SIGTERM
	}
	late := time.AfterFunc(serverStop, func() { s.cmd.Process.Kill() })
	<-s.read
	err := s.cmd.Wait()
	if !late.Stop() {
		return fmt.Errorf("the server did not stop within %v, and was killed", serverStop)
	}
	if err != nil {
		return fmt.Errorf("the server ended badly: %w", err)
	}
	return nil
}

// lastWords is the end of what a stopped server said.
func (s *server) lastWords() string { return strings.Join(s.lines, "\n") }
