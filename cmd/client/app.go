package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
	"unicode"

	"golang.org/x/term"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
)

const (
	defaultAddress = "127.0.0.1:50051"
	defaultAccount = "12345678"
	asConsumer     = "consumer"
	asAgent        = "agent"

	callTimeout = time.Minute
	fileTimeout = 10 * time.Minute

	maxSecretBytes = 64 << 10
)

// duration is a time.Duration flag whose zero value is not shown in the help.
type duration time.Duration

// UnmarshalText parses a duration such as "90s". An empty environment variable is the same as none.
func (d *duration) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		return nil
	}
	v, err := time.ParseDuration(string(text))
	if err == nil && v <= 0 {
		err = errors.New("must be greater than 0")
	}
	*d = duration(v)
	return err
}

// identityOf selects the identity of calls: asConsumer, asAgent, or empty if the user did not say.
type identityOf string

// UnmarshalText parses the name of an identity. An empty environment variable is the same as none.
func (w *identityOf) UnmarshalText(text []byte) error {
	if *w = identityOf(text); *w != "" && *w != asConsumer && *w != asAgent {
		return errors.New("must be consumer or agent")
	}
	return nil
}

// An app is the state of one command line.
type app struct {
	*globals
	stdin    io.Reader
	stdout   io.Writer
	stderr   io.Writer
	getenv   func(string) string
	terminal func(any) bool

	command          string      // the command that runs, in kong's words
	conn             *connection // nil: not known yet
	givenCredentials bool        // sign-in has credentials from the user
	uploaded         int         // number of files that the command has uploaded
}

// isTerminal reports whether a stream is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// limit sets the time limit of a command: --timeout, or else usual. 0: no limit.
func (a *app) limit(ctx context.Context, usual time.Duration) (context.Context, context.CancelFunc) {
	if a.Timeout > 0 {
		usual = time.Duration(a.Timeout)
	}
	if usual == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, usual, fmt.Errorf("not finished within %v: %w", usual, context.DeadlineExceeded))
}

// A connection is how to reach the server, and with which identity.
type connection struct {
	address   string
	plaintext bool
	files     tlsFiles
	tls       *tls.Config // nil: without files
	as        identityOf
	account   string
	session   *session
	file      sessionFile

	usedStored bool // the conversation is the one of the session file
}

// tlsFiles are the PEM files of a TLS connection. Each may be empty.
type tlsFiles struct{ ca, cert, key string }

func (f tlsFiles) any() bool { return f.ca != "" || f.cert != "" }

// connection combines flags and session file.
func (a *app) connection() (*connection, error) {
	file, err := openSessionFile(a.SessionFile)
	if err != nil {
		return nil, err
	}
	s, err := file.load()
	if err != nil {
		return nil, err
	}
	c := &connection{
		address: cmp.Or(a.Address, s.Address, defaultAddress), account: cmp.Or(a.Account, s.Account, defaultAccount),
		files: tlsFiles{a.TLSCA, a.ClientCert, a.ClientKey}, plaintext: a.Plaintext, session: s, file: file,
	}
	if c.address == s.Address && !c.files.any() && !c.plaintext {
		c.files, c.plaintext = tlsFiles{s.TLSCA, s.TLSCert, s.TLSKey}, s.Plaintext
	}
	if err := c.validate(); err != nil {
		return nil, err
	}
	c.plaintext = !c.files.any() && (c.plaintext || lpfileshare.IsLoopback(c.address))
	if c.tls, err = lpfileshare.TLSConfig(c.files.ca, c.files.cert, c.files.key); err != nil {
		return nil, err
	}
	if a.As == "" {
		a.As = a.defaultIdentity(s)
	}
	c.as, a.conn = a.As, c
	return c, nil
}

func (c *connection) validate() error {
	if c.files.any() && c.plaintext {
		return &usageError{"--plaintext excludes --tls-ca and --client-cert"}
	}
	if (c.files.cert == "") != (c.files.key == "") {
		return &usageError{"--client-cert and --client-key must be given together"}
	}
	return validateAddress(c.address)
}

// defaultIdentity is the consumer, unless only an agent's token is known.
func (a *app) defaultIdentity(s *session) identityOf {
	consumer := s.Consumer != nil || a.TokenFile != "" || a.ExternalConsumerID != "" || a.getenv(envToken) != ""
	agent := s.Agent != nil || a.getenv(envAgentToken) != ""
	if agent && !consumer {
		return asAgent
	}
	return asConsumer
}

// validateAddress rejects an address without a port. gRPC parses those with a scheme.
func validateAddress(address string) error {
	if first, others, several := strings.Cut(address, ","); several {
		return errors.Join(validateAddress(strings.TrimSpace(first)), validateAddress(strings.TrimSpace(others)))
	}
	if strings.Contains(address, "/") || strings.HasPrefix(address, "unix") {
		return nil
	}
	if _, port, err := net.SplitHostPort(address); err != nil || port == "" {
		if ip := net.ParseIP(address); ip != nil {
			address = strings.TrimSuffix(net.JoinHostPort(address, ""), ":")
		}
		return &usageError{fmt.Sprintf("the address %s has no port; use HOST:PORT, for example %s:50051", address, strings.TrimSuffix(address, ":"))}
	}
	return nil
}

func (c *connection) parent() string { return "accounts/" + c.account }

// dial connects without an identity. It fails at once if the server cannot be reached.
func (a *app) dial(ctx context.Context, c *connection) (*lpfileshare.Client, error) {
	client, err := a.newClient(c)
	if err != nil {
		return nil, err
	}
	if err := client.Connect(ctx); err != nil {
		client.Close()
		return nil, err
	}
	return client, nil
}

// newClient returns a client without an identity. It does not connect yet.
func (a *app) newClient(c *connection) (*lpfileshare.Client, error) {
	options := []lpfileshare.Option{lpfileshare.WithUserAgent("lpfileshare-cli"), lpfileshare.WithAccount(c.account)}
	switch {
	case c.tls != nil:
		options = append(options, lpfileshare.WithTLS(c.tls))
	case c.plaintext:
		options = append(options, lpfileshare.WithPlaintext())
	}
	return lpfileshare.Dial(c.address, options...)
}

// client connects with the identity of the flags, the environment or the session file. The caller must close it.
func (a *app) client(ctx context.Context) (*lpfileshare.Client, *connection, error) {
	c, err := a.connection()
	if err != nil {
		return nil, nil, err
	}
	id, err := a.identity(c)
	if err != nil {
		return nil, nil, err
	}
	client, err := a.dial(ctx, c)
	if err != nil {
		return nil, nil, err
	}
	return client.As(id), c, nil
}

// identity returns the identity of calls: of the flags and the environment, or else of the session file.
func (a *app) identity(c *connection) (lpfileshare.Identity, error) {
	token, err := a.givenToken()
	switch {
	case err != nil:
		return lpfileshare.Identity{}, err
	case a.ExternalConsumerID != "" && token != "":
		return lpfileshare.Identity{}, &usageError{"--external-consumer-id and a token exclude each other; a call carries one identity"}
	case a.ExternalConsumerID != "":
		return lpfileshare.ExternalConsumerID(a.ExternalConsumerID), nil
	case token != "" && a.As == asAgent:
		return lpfileshare.AgentToken(lpfileshare.StaticToken(token)), nil
	case token != "":
		return lpfileshare.ConsumerToken(lpfileshare.StaticToken(token)), nil
	}
	return a.storedIdentity(c)
}

// givenToken returns the token of --token-file, or of the environment variable for the identity. Empty: none.
func (a *app) givenToken() (string, error) {
	switch {
	case a.TokenFile != "":
		return a.secret(a.TokenFile)
	case a.As == asAgent:
		return strings.TrimSpace(a.getenv(envAgentToken)), nil
	default:
		return strings.TrimSpace(a.getenv(envToken)), nil
	}
}

// storedIdentity returns the identity of the session file. A stored token is sent only to the address that it was stored for.
func (a *app) storedIdentity(c *connection) (lpfileshare.Identity, error) {
	var none lpfileshare.Identity
	stored, signIn := c.session.Consumer, "lpfileshare sign-in"
	if a.As == asAgent {
		stored, signIn = c.session.Agent, "lpfileshare sign-in agent --user NAME"
	}
	if stored == nil {
		return none, &adviceError{fmt.Errorf("not signed in as %s", a.As), "Sign in first: " + signIn}
	}
	if stored.Address == c.address && stored.Plaintext != c.plaintext {
		how := map[bool]string{true: "without TLS", false: "over TLS"}
		return none, &adviceError{
			fmt.Errorf("the stored %s token was received %s from %s, and is not sent there %s", a.As, how[stored.Plaintext], c.address, how[c.plaintext]),
			fmt.Sprintf("Sign in again that way (%s), or connect as before: check --plaintext and --tls-ca.", signIn),
		}
	}
	if stored.Address != c.address {
		return none, &adviceError{
			fmt.Errorf("the stored %s token is for %s, and is not sent to %s", a.As, place(stored.Address, stored.Plaintext), place(c.address, c.plaintext)),
			fmt.Sprintf("Sign in there (%s), or use the server that you are signed in to (--address %s).", signIn, stored.Address),
		}
	}
	if a.As == asAgent {
		return lpfileshare.AgentToken(lpfileshare.StaticToken(stored.Token)), nil
	}
	return lpfileshare.ConsumerToken(lpfileshare.NewConsumerTokens(stored.Account, lpfileshare.ConsumerSession{
		Token: stored.Token, Expires: stored.Expires, RenewalSecret: stored.RenewalSecret, ConsumerID: stored.ID,
	}, func(renewed lpfileshare.ConsumerSession) {
		err := c.file.update(func(s *session) {
			if s.Consumer != nil && s.Consumer.ID == stored.ID && s.Consumer.Address == stored.Address {
				s.Consumer.Token, s.Consumer.Expires, s.Consumer.RenewalSecret = renewed.Token, renewed.Expires, renewed.RenewalSecret
			}
		})
		if err != nil {
			fmt.Fprintf(a.stderr, "lpfileshare: the renewed token could not be stored: %v\n", err)
		}
	})), nil
}

func place(address string, plaintext bool) string {
	if plaintext && !lpfileshare.IsLoopback(address) {
		return address + " (plaintext)"
	}
	return address
}

// conversation returns the resource name for a flag: a name, an id, or empty for the conversation that was created last.
func (c *connection) conversation(flag string) (string, error) {
	switch {
	case strings.HasPrefix(flag, "accounts/"):
		return flag, nil
	case strings.Contains(flag, "/"):
		return "", &usageError{fmt.Sprintf("%q is neither the id of a conversation nor its name, accounts/ID/conversations/ID", flag)}
	case flag != "":
		return c.parent() + "/conversations/" + flag, nil
	case c.session.Conversation != "" && c.session.Address == c.address && strings.HasPrefix(c.session.Conversation, c.parent()+"/"):
		c.usedStored = true
		return c.session.Conversation, nil
	case c.as == asAgent:
		return "", &adviceError{errors.New("no conversation is selected"), "Name one with -c, as lpfileshare agent watch and conversation list print it."}
	default:
		return "", &adviceError{errors.New("no conversation is selected"),
			"Create one (lpfileshare conversation create), or name one with -c."}
	}
}

// secret reads a secret from a file, or from standard input for "-".
func (a *app) secret(path string) (string, error) {
	r := a.stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return "", err
		}
		defer f.Close()
		r = f
	}
	b, err := io.ReadAll(io.LimitReader(r, maxSecretBytes+1))
	if err != nil {
		return "", err
	}
	s := strings.TrimSpace(string(b))
	if len(b) > maxSecretBytes || s == "" {
		return "", fmt.Errorf("%s does not contain a secret: it is empty or larger than %d bytes", path, maxSecretBytes)
	}
	return s, nil
}

// print writes a result: as JSON with --json, otherwise as a line of text.
func (a *app) print(m proto.Message, format string, args ...any) error {
	if a.JSON {
		b, err := protojson.Marshal(m)
		if err != nil {
			return err
		}
		return a.printJSON(json.RawMessage(b))
	}
	_, err := fmt.Fprintf(a.stdout, format+"\n", args...)
	return err
}

// printJSON writes any value as one line of JSON.
func (a *app) printJSON(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var line bytes.Buffer
	if err := json.Compact(&line, b); err != nil {
		return err
	}
	line.WriteByte('\n')
	_, err = a.stdout.Write(line.Bytes())
	return err
}

// plain makes text from the network safe to print: a caption can contain control sequences of a terminal.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r):
			return '\uFFFD'
		}
		return r
	}, s)
}
