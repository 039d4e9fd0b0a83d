package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
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

// UnmarshalText reads a duration such as "90s".
func (d *duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err == nil && v <= 0 {
		err = errors.New("must be above 0")
	}
	*d = duration(v)
	return err
}

// asWhom is whose stored token to use; empty: to be found out.
type asWhom string

// UnmarshalText reads one of the two.
func (w *asWhom) UnmarshalText(text []byte) error {
	if *w = asWhom(text); *w != asConsumer && *w != asAgent {
		return errors.New("must be consumer or agent")
	}
	return nil
}

// An app is what commands work with.
type app struct {
	*globals
	stdin    io.Reader
	stdout   io.Writer
	stderr   io.Writer
	getenv   func(string) string
	terminal func(any) bool

	command          string      // the one that runs, as kong calls it
	conn             *connection // nil: not known yet
	givenCredentials bool        // whether sign-in was given something to sign in with
	uploaded         int         // how many files the command has uploaded
}

// isTerminal says whether a stream is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// limit bounds a command's time: by --timeout, else by what is usual for it; 0 means not at all.
func (a *app) limit(ctx context.Context, usual time.Duration) (context.Context, context.CancelFunc) {
	if a.Timeout > 0 {
		usual = time.Duration(a.Timeout)
	}
	if usual == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeoutCause(ctx, usual, fmt.Errorf("not done within %v: %w", usual, context.DeadlineExceeded))
}

// A connection is where a command connects to, and as whom.
type connection struct {
	address   string
	plaintext bool // not TLS
	tlsCA     string
	tlsCert   string
	tlsKey    string
	pem       []byte      // what is in tlsCA
	tls       *tls.Config // nil without any of the three files; what is in tlsCA comes in at last
	as        asWhom
	account   string
	session   *session
	file      sessionFile

	usedStored bool // whether the conversation is the stored one
}

// connection puts together flags and session file.
func (a *app) connection() (*connection, error) {
	file, err := openSessionFile(a.SessionFile)
	if err != nil {
		return nil, err
	}
	s, err := file.load()
	if err != nil {
		return nil, err
	}
	c := &connection{address: a.Address, account: a.Account, session: s, file: file, tlsCA: a.TLSCA, tlsCert: a.TLSCert, tlsKey: a.TLSKey, plaintext: a.Plaintext}
	if c.address == "" {
		c.address = s.Address
	}
	if c.address == "" {
		c.address = defaultAddress
	}
	if c.address == s.Address && c.tlsCA == "" && c.tlsCert == "" && !c.plaintext {
		c.tlsCA, c.tlsCert, c.tlsKey, c.plaintext = s.TLSCA, s.TLSCert, s.TLSKey, s.Plaintext
	}
	if c.account == "" {
		c.account = s.Account
	}
	if c.account == "" {
		c.account = defaultAccount
	}
	if (c.tlsCA != "" || c.tlsCert != "") && c.plaintext {
		return nil, &usageError{"--tls-ca and --tls-cert are for TLS, and --plaintext excludes that"}
	}
	if (c.tlsCert == "") != (c.tlsKey == "") {
		return nil, &usageError{"--tls-cert and --tls-key go together: give both, or neither"}
	}
	c.plaintext = c.tlsCA == "" && c.tlsCert == "" && (c.plaintext || lpfileshare.IsLoopback(c.address))
	if err := c.readTLS(); err != nil {
		return nil, err
	}
	if err := checkAddress(c.address); err != nil {
		return nil, err
	}
	if a.As == "" {
		a.As = asConsumer
		given := a.TokenFile != "" || a.ExternalConsumerID != "" || a.getenv("LPFILESHARE_TOKEN") != ""
		if !given && s.Consumer == nil && s.Agent != nil {
			a.As = asAgent
		}
	}
	c.as, a.conn = a.As, c
	return c, nil
}

// readTLS reads the files of a TLS connection.
func (c *connection) readTLS() (err error) {
	if c.tlsCA == "" && c.tlsCert == "" {
		return nil
	}
	c.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	if c.tlsCA != "" {
		if c.pem, err = os.ReadFile(c.tlsCA); err != nil {
			return fmt.Errorf("--tls-ca: %w", err)
		}
	}
	if c.tlsCert != "" {
		pair, err := tls.LoadX509KeyPair(c.tlsCert, c.tlsKey)
		if err != nil {
			return fmt.Errorf("--tls-cert %s and --tls-key %s cannot be used: %w", c.tlsCert, c.tlsKey, err)
		}
		c.tls.Certificates = []tls.Certificate{pair}
	}
	return nil
}

// checkAddress finds an address without a port. Those with a scheme are gRPC's to understand.
func checkAddress(address string) error {
	if first, others, several := strings.Cut(address, ","); several {
		return errors.Join(checkAddress(strings.TrimSpace(first)), checkAddress(strings.TrimSpace(others)))
	}
	if strings.Contains(address, "/") || strings.HasPrefix(address, "unix") {
		return nil
	}
	if _, port, err := net.SplitHostPort(address); err != nil || port == "" {
		if ip := net.ParseIP(address); ip != nil {
			address = strings.TrimSuffix(net.JoinHostPort(address, ""), ":")
		}
		return &usageError{fmt.Sprintf("the address %s has no port: give HOST:PORT, for example %s:50051", address, strings.TrimSuffix(address, ":"))}
	}
	return nil
}

func (c *connection) parent() string { return "accounts/" + c.account }

// dial connects without identity, and fails at once if nobody is there.
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

// newClient makes a client without identity, and does not connect yet.
func (a *app) newClient(c *connection) (*lpfileshare.Client, error) {
	options := []lpfileshare.Option{lpfileshare.WithUserAgent("lpfileshare-cli")}
	switch {
	case c.tls != nil:
		if c.tlsCA != "" {
			c.tls.RootCAs = x509.NewCertPool()
			if !c.tls.RootCAs.AppendCertsFromPEM(c.pem) {
				return nil, fmt.Errorf("%s has no certificate in PEM form", c.tlsCA)
			}
		}
		options = append(options, lpfileshare.WithTLS(c.tls))
	case c.plaintext:
		options = append(options, lpfileshare.WithPlaintext())
	}
	return lpfileshare.Dial(c.address, options...)
}

// client connects with the identity that flags, environment or session file give. The caller closes it.
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

// identity finds out as whom to call. A stored token is given out only for the address that it was stored for.
func (a *app) identity(c *connection) (lpfileshare.Identity, error) {
	var none lpfileshare.Identity
	token := strings.TrimSpace(a.getenv("LPFILESHARE_TOKEN"))
	if a.TokenFile != "" {
		var err error
		if token, err = a.secret(a.TokenFile); err != nil {
			return none, err
		}
	}
	switch {
	case a.ExternalConsumerID != "" && token != "":
		return none, &usageError{"--external-consumer-id and a token exclude each other: a call carries one identity"}
	case a.ExternalConsumerID != "":
		return lpfileshare.ExternalConsumerID(a.ExternalConsumerID), nil
	case token != "" && a.As == asAgent:
		return lpfileshare.AgentToken(lpfileshare.StaticToken(token)), nil
	case token != "":
		return lpfileshare.ConsumerToken(lpfileshare.StaticToken(token)), nil
	}
	stored, signIn := c.session.Consumer, "lpfileshare sign-in"
	if a.As == asAgent {
		stored, signIn = c.session.Agent, "lpfileshare sign-in agent --user NAME"
	}
	if stored == nil {
		return none, &adviceError{fmt.Errorf("not signed in as %s", a.As), "Sign in first: " + signIn}
	}
	if stored.Address == c.address && stored.Plaintext != c.plaintext {
		how := map[bool]string{true: "without TLS", false: "by TLS"}
		return none, &adviceError{
			fmt.Errorf("the stored %s token was got %s from %s, and is not sent there %s", a.As, how[stored.Plaintext], c.address, how[c.plaintext]),
			fmt.Sprintf("Sign in so (%s), or connect as you signed in: look at --plaintext and --tls-ca.", signIn),
		}
	}
	if stored.Address != c.address {
		return none, &adviceError{
			fmt.Errorf("the stored %s token is for %s, and is not sent to %s", a.As, place(stored.Address, stored.Plaintext), place(c.address, c.plaintext)),
			fmt.Sprintf("Sign in there (%s), or go on where you are signed in (--address %s).", signIn, stored.Address),
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

// conversation makes a resource name of a flag: a name, a bare id, or nothing for the last one that was created.
func (c *connection) conversation(flag string) (string, error) {
	switch {
	case strings.HasPrefix(flag, "accounts/"):
		return flag, nil
	case strings.Contains(flag, "/"):
		return "", &usageError{fmt.Sprintf("%q is neither a conversation's id nor its name, accounts/ID/conversations/ID", flag)}
	case flag != "":
		return c.parent() + "/conversations/" + flag, nil
	case c.session.Conversation != "" && c.session.Address == c.address && strings.HasPrefix(c.session.Conversation, c.parent()+"/"):
		c.usedStored = true
		return c.session.Conversation, nil
	case c.as == asAgent:
		return "", &adviceError{errors.New("no conversation is named"), "Name one with -c, as lpfileshare agent watch and conversation list print it."}
	default:
		return "", &adviceError{errors.New("no conversation is known here"),
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
		return "", fmt.Errorf("%s does not hold a secret: it is empty or over %d bytes", path, maxSecretBytes)
	}
	return s, nil
}

// print writes a result: as JSON if asked for, else as a line of text.
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

// plain makes text of others safe to show: a caption may hold what a terminal takes for commands.
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
