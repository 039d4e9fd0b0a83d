package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/term"
	"google.golang.org/protobuf/encoding/protojson"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

type signInCmd struct {
	Consumer signInConsumerCmd `cmd:"" default:"withargs" help:"Sign in as a consumer (the default)."`
	Agent    signInAgentCmd    `cmd:"" help:"Sign in as an agent or a bot."`
}

type signInConsumerCmd struct {
	SignUp          bool   `xor:"how" help:"As a new consumer, for trying things out (the default)."`
	Anonymous       string `xor:"how" placeholder:"CONNECTOR" help:"As an unauthenticated consumer, by this LivePerson connector id."`
	CustomerJWTFile string `name:"customer-jwt-file" xor:"how" placeholder:"FILE" help:"With the brand's JWT in this file; - is standard input."`
	AuthCodeFile    string `xor:"how" placeholder:"FILE" help:"With the authorization code in this file; - is standard input."`
}

func (cmd *signInConsumerCmd) Run(ctx context.Context, a *app) error {
	ctx, cancel := a.limit(ctx, callTimeout)
	defer cancel()
	c, err := a.connection()
	if err != nil {
		return err
	}
	req := &pb.SignInConsumerRequest{Account: c.parent()}
	switch {
	case cmd.Anonymous != "":
		req.Grant = &pb.SignInConsumerRequest_Anonymous{Anonymous: &pb.AnonymousSignIn{ConnectorId: cmd.Anonymous}}
	case cmd.CustomerJWTFile != "":
		jwt, err := a.secret(cmd.CustomerJWTFile)
		if err != nil {
			return err
		}
		req.Grant = &pb.SignInConsumerRequest_CustomerJwt{CustomerJwt: jwt}
	case cmd.AuthCodeFile != "":
		code, err := a.secret(cmd.AuthCodeFile)
		if err != nil {
			return err
		}
		req.Grant = &pb.SignInConsumerRequest_AuthCode{AuthCode: code}
	default:
		req.Grant = &pb.SignInConsumerRequest_SignUp{SignUp: &pb.SignUp{}}
	}
	a.givenCredentials = req.GetSignUp() == nil
	client, err := a.dial(ctx, c)
	if err != nil {
		return err
	}
	defer client.Close()
	s, err := client.SignInConsumer(ctx, req)
	if err != nil {
		return err
	}
	return a.signedIn(c, asConsumer, &stored{
		Address: c.address, Plaintext: c.plaintext, Account: c.account,
		ID: s.ConsumerID, Token: s.Token, Expires: s.Expires, RenewalSecret: s.RenewalSecret,
	})
}

type signInAgentCmd struct {
	User         string `xor:"who" placeholder:"NAME" help:"The agent's user name."`
	PasswordFile string `placeholder:"FILE" help:"File that holds the password. Else it is LPFILESHARE_PASSWORD, or asked for."`
	BotKeysFile  string `xor:"who" placeholder:"FILE" help:"Sign a bot in: JSON with username, appKey, secret, accessToken, accessTokenSecret; - is standard input."`
}

func (cmd *signInAgentCmd) Run(ctx context.Context, a *app) error {
	if cmd.User == "" && cmd.BotKeysFile == "" {
		return &usageError{"give --user or --bot-keys-file"}
	}
	c, err := a.connection()
	if err != nil {
		return err
	}
	req := &pb.SignInAgentRequest{Account: c.parent()}
	if cmd.BotKeysFile != "" {
		text, err := a.secret(cmd.BotKeysFile)
		if err != nil {
			return err
		}
		keys := &pb.BotKeys{}
		if protojson.Unmarshal([]byte(text), keys) != nil { // its error might tell a secret
			return fmt.Errorf("%s is not JSON with username, appKey, secret, accessToken and accessTokenSecret", cmd.BotKeysFile)
		}
		req.Credentials = &pb.SignInAgentRequest_BotKeys{BotKeys: keys}
	} else {
		password, err := a.password(ctx, cmd.PasswordFile, cmd.User)
		if err != nil {
			return err
		}
		req.Credentials = &pb.SignInAgentRequest_Password{Password: &pb.PasswordCredentials{Username: cmd.User, Password: password}}
	}
	ctx, cancel := a.limit(ctx, callTimeout)
	defer cancel()
	client, err := a.dial(ctx, c)
	if err != nil {
		return err
	}
	defer client.Close()
	r, err := client.Identity().SignInAgent(ctx, req)
	if err != nil {
		return err
	}
	s := &stored{Address: c.address, Plaintext: c.plaintext, Account: c.account, ID: r.GetAgentId(), Token: r.GetAgentToken()}
	if t := r.GetExpireTime(); t != nil {
		s.Expires = t.AsTime()
	}
	return a.signedIn(c, asAgent, s)
}

// signedIn stores a token, and tells who is signed in, without it.
func (a *app) signedIn(c *connection, as string, token *stored) error {
	files := []string{c.tlsCA, c.tlsCert, c.tlsKey}
	for i, path := range files {
		if path == "" {
			continue
		}
		var err error
		if files[i], err = filepath.Abs(path); err != nil {
			return err
		}
	}
	err := c.file.update(func(s *session) {
		other := as == asConsumer && s.Consumer != nil && s.Consumer.ID != token.ID // whose conversation is not this one's
		if s.Address != c.address || s.Account != c.account || other {
			s.Conversation = ""
			s.Listed = nil
		}
		s.Address, s.Account, s.Plaintext = c.address, c.account, c.plaintext
		s.TLSCA, s.TLSCert, s.TLSKey = files[0], files[1], files[2]
		if as == asAgent {
			s.Agent = token
		} else {
			s.Consumer = token
		}
	})
	if err != nil {
		return fmt.Errorf("signed in, but the token could not be stored: %w", err)
	}
	if a.JSON {
		out := map[string]string{"as": as, "id": token.ID, "account": c.account, "address": c.address}
		if !token.Expires.IsZero() {
			out["expireTime"] = token.Expires.UTC().Format(time.RFC3339)
		}
		return a.printJSON(out)
	}
	until := ""
	if !token.Expires.IsZero() {
		until = " until " + token.Expires.Local().Format("2006-01-02 15:04")
	}
	_, err = fmt.Fprintf(a.stdout, "Signed in to account %s at %s as %s %s%s.\n", c.account, c.address, as, plain(token.ID), until)
	return err
}

// password gets a password from a file, the environment, or a person.
func (a *app) password(ctx context.Context, file, user string) (string, error) {
	if file != "" {
		return a.secret(file)
	}
	if p := a.getenv("LPFILESHARE_PASSWORD"); p != "" {
		return p, nil
	}
	in, ok := a.stdin.(*os.File)
	if !ok || !a.terminal(in) {
		return "", &adviceError{errors.New("no password is given"), "Put it into a file (--password-file) or the environment (LPFILESHARE_PASSWORD)."}
	}
	fd := int(in.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return "", err
	}
	fmt.Fprintf(a.stderr, "Password of %s: ", plain(user))
	type answer struct {
		password []byte
		err      error
	}
	answers := make(chan answer, 1)
	go func() { // reading a terminal cannot be interrupted: after Ctrl-C this ends with the program
		p, err := term.ReadPassword(fd)
		answers <- answer{p, err}
	}()
	select {
	case got := <-answers:
		fmt.Fprintln(a.stderr)
		return string(got.password), got.err
	case <-ctx.Done():
		fmt.Fprintln(a.stderr)
		return "", errors.Join(ctx.Err(), term.Restore(fd, before))
	}
}

type signOutCmd struct {
	Local bool `help:"Only forget the tokens here; an agent's login then lives on at LivePerson until it expires."`
}

// Run ends the agent's login, if one is stored, and removes the session file, even one that is damaged or open to others: of such a
// file nothing is believed or sent.
func (cmd signOutCmd) Run(ctx context.Context, a *app) error {
	file, err := openSessionFile(a.SessionFile)
	if err != nil {
		return err
	}
	s, err := file.load()
	if err != nil {
		s = &session{}
	}
	ended, unknown := false, false
	if s.Agent != nil && !cmd.Local {
		ctx, cancel := a.limit(ctx, callTimeout)
		defer cancel()
		err := a.signOutAgent(ctx, s)
		unknown = lpfileshare.ErrorReason(err) == pb.ErrorReason_ERROR_REASON_TOKEN_INVALID // the server's key is another now
		if ended = err == nil; !ended && !unknown {
			return &adviceError{
				fmt.Errorf("the agent's login was not ended, and the tokens are kept: %w", err),
				"Repeat it; or forget the tokens here only: lpfileshare sign-out --local.",
			}
		}
	}
	was, err := file.remove()
	if err != nil {
		return err
	}
	if a.JSON {
		return a.printJSON(map[string]bool{"signedOut": was, "agentLoginEnded": ended})
	}
	said := "Signed out: the tokens are forgotten here."
	switch {
	case !was:
		said = "Not signed in: there was nothing to forget."
	case ended:
		said += " The agent's login is ended at LivePerson."
	case unknown:
		said += " The server does not know the agent's token any more; the login runs out by itself at LivePerson."
	case s.Agent != nil:
		said += " The agent's login runs out by itself at LivePerson."
	}
	if s.Consumer != nil {
		said += " A consumer's token cannot be ended: it expires by itself."
	}
	_, err = fmt.Fprintln(a.stdout, said)
	return err
}

// signOutAgent ends the stored agent's login, over the server that it was got from.
func (a *app) signOutAgent(ctx context.Context, s *session) error {
	to := *a.globals
	to.Address, to.Account, to.As = s.Agent.Address, s.Agent.Account, asAgent
	to.TokenFile, to.ExternalConsumerID = "", "" // the stored token is meant, and no other
	at := *a
	at.globals, at.getenv = &to, func(string) string { return "" }
	client, _, err := at.client(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	return client.SignOutAgent(ctx, s.Agent.Account)
}
