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
	SignUp          bool   `xor:"grant" help:"Sign up as a new consumer, for trials (the default)."`
	Anonymous       string `xor:"grant" placeholder:"CONNECTOR" help:"Sign in as an unauthenticated consumer with this LivePerson connector id."`
	CustomerJWTFile string `name:"customer-jwt-file" xor:"grant" placeholder:"FILE" help:"Sign in with the brand's JWT in this file; - is standard input."`
	AuthCodeFile    string `xor:"grant" placeholder:"FILE" help:"Sign in with the authorization code in this file; - is standard input."`
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
	User         string `xor:"credentials" placeholder:"NAME" help:"User name of the agent."`
	PasswordFile string `placeholder:"FILE" help:"File with the password. Default: LPFILESHARE_PASSWORD, else a prompt."`
	BotKeysFile  string `xor:"credentials" placeholder:"FILE" help:"Sign in as a bot with this JSON file: username, appKey, secret, accessToken, accessTokenSecret; - is standard input."`
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
		if protojson.Unmarshal([]byte(text), keys) != nil { // its error could contain a secret
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
	r, err := client.Raw().Identity.SignInAgent(ctx, req)
	if err != nil {
		return err
	}
	s := &stored{Address: c.address, Plaintext: c.plaintext, Account: c.account, ID: r.GetAgentId(), Token: r.GetAgentToken()}
	if t := r.GetExpireTime(); t != nil {
		s.Expires = t.AsTime()
	}
	return a.signedIn(c, asAgent, s)
}

// signedIn stores a token, and prints the identity without the token.
func (a *app) signedIn(c *connection, as identityOf, token *stored) error {
	files := []string{c.files.ca, c.files.cert, c.files.key, c.bearer}
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
		s.Address, s.Account, s.Plaintext = c.address, c.account, c.plaintext
		s.TLSCA, s.TLSCert, s.TLSKey, s.BearerTokenFile = files[0], files[1], files[2], files[3]
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
		out := map[string]string{"as": string(as), "id": token.ID, "account": c.account, "address": c.address}
		if !token.Expires.IsZero() {
			out["expireTime"] = token.Expires.UTC().Format(time.RFC3339)
		}
		return a.printJSON(out)
	}
	until := ""
	if !token.Expires.IsZero() {
		until = " until " + formatTime(token.Expires)
	}
	_, err = fmt.Fprintf(a.stdout, "Signed in to account %s at %s as %s %s%s.\n", c.account, c.address, as, plain(token.ID), until)
	return err
}

// password returns the password of a file, of the environment, or of a prompt.
func (a *app) password(ctx context.Context, file, user string) (string, error) {
	if file != "" {
		return a.secret(file)
	}
	if p := a.getenv(envPassword); p != "" {
		return p, nil
	}
	in, ok := a.stdin.(*os.File)
	if !ok || !a.terminal(in) {
		return "", &adviceError{errors.New("no password"), "Put it into a file (--password-file) or into LPFILESHARE_PASSWORD."}
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
	go func() { // a read of a terminal cannot be interrupted: after Ctrl-C this ends with the program
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
	Local bool `help:"Only delete the session file. The agent's login at LivePerson then ends when it expires."`
}

// Run ends the agent's login, if one is stored, and deletes the session file. It also deletes a file that is damaged or accessible to
// other users, but uses nothing of it.
func (cmd signOutCmd) Run(ctx context.Context, a *app) error {
	file, err := a.openSessionFile()
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
		unknown = lpfileshare.ErrorReason(err) == pb.ErrorReason_ERROR_REASON_TOKEN_INVALID // the server has another key now
		if ended = err == nil; !ended && !unknown {
			return &adviceError{
				fmt.Errorf("the agent's login was not ended, and the session file is kept: %w", err),
				"Retry, or delete only the session file: lpfileshare sign-out --local.",
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
	said := "Signed out: the session file is deleted."
	switch {
	case !was:
		said = "Not signed in: there is no session file."
	case ended:
		said += " The agent's login at LivePerson has ended."
	case unknown:
		said += " The server no longer knows the agent's token; the login at LivePerson ends when it expires."
	case s.Agent != nil:
		said += " The agent's login at LivePerson ends when it expires."
	}
	if s.Consumer != nil {
		said += " A consumer's token cannot be revoked; it expires."
	}
	_, err = fmt.Fprintln(a.stdout, said)
	return err
}

// signOutAgent ends the login of the stored agent, on the server that issued its token.
func (a *app) signOutAgent(ctx context.Context, s *session) error {
	to := *a.globals
	to.Address, to.Account, to.As = s.Agent.Address, s.Agent.Account, asAgent
	to.TokenFile, to.ExternalConsumerID = "", "" // use the stored token only
	at := *a
	at.globals, at.getenv = &to, func(string) string { return "" }
	client, _, err := at.client(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	return client.SignOutAgent(ctx, s.Agent.Account)
}
