package main

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/accounts"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
)

// sandboxFlags are the settings of LivePerson's stand-in; docs/sandbox.md describes it.
type sandboxFlags struct {
	On        bool     `name:"sandbox" help:"Simulate LivePerson and its store in this process, on loopback: account 12345678, user admin, password sandbox."`
	Listen    string   `name:"sandbox-listen" default:"127.0.0.1:0" placeholder:"ADDR" help:"Loopback address of the sandbox (${default})."`
	TLSListen string   `name:"sandbox-tls-listen" placeholder:"ADDR" help:"Address to also serve the sandbox on with TLS, for LivePerson's own clients. Default: none."`
	CA        string   `name:"sandbox-ca" placeholder:"FILE" help:"File to write the certificate of the sandbox's CA to. Default: none."`
	User      string   `name:"sandbox-user" default:"admin" placeholder:"NAME" help:"Name of the sandbox's administrator (${default})."`
	OneLogin  bool     `name:"sandbox-one-login" help:"End an agent's session in the sandbox when the agent logs in again (false)."`
	Fault     []string `name:"sandbox-fault" sep:"none" placeholder:"JSON" help:"Fault to inject, for example {\"on\":\"store:PUT\",\"status\":503,\"count\":2}; repeatable. POST to /_sandbox/faults injects more, GET /_sandbox/journal shows the requests. docs/sandbox.md has the fields."`
	Webhook   string   `name:"sandbox-webhook" placeholder:"URL" help:"Loopback URL that the sandbox sends the webhooks of its app install to: http://127.0.0.1:PORT/PATH. The install is sandbox-app with the secret sandbox-secret. PUT /_sandbox/webhooks changes it later."`
	Frames    string   `name:"sandbox-frames" placeholder:"FOLDER" help:"Folder to write the frames of the sandbox's sockets to, one per line. Default: none."`
	Password  string   `name:"sandbox-password" default:"sandbox" placeholder:"WORD" help:"Password of every sandbox user, which is not a secret (${default})."`
}

// sandboxAccount is the account that the sandbox always has.
const sandboxAccount = "12345678"

// Validate checks that the sandbox is on if it is configured. --sandbox-listen alone has no effect.
func (f *sandboxFlags) Validate() error {
	if f.On {
		return nil
	}
	if f.TLSListen != "" || f.CA != "" || f.Frames != "" || f.OneLogin || len(f.Fault) > 0 || f.Webhook != "" || f.User != "admin" || f.Password != "sandbox" {
		return errors.New("a flag of the sandbox is set, but the sandbox is off; add --sandbox, or leave the --sandbox-... flags out")
	}
	return nil
}

// A localSandbox is the sandbox in this process.
type localSandbox struct {
	*sandbox.Sandbox
	frames *frameLog // nil without --sandbox-frames
	log    *slog.Logger
}

// startSandbox starts the sandbox with all accounts that the accounts file names. The caller closes it.
func startSandbox(f *sandboxFlags, served *accounts.Set, log *slog.Logger) (_ *localSandbox, err error) {
	s := &localSandbox{log: log}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	var onFrame func(sandbox.Frame)
	if f.Frames != "" {
		if s.frames, err = openFrameLog(f.Frames); err != nil {
			return nil, fmt.Errorf("--sandbox-frames: %w", err)
		}
		onFrame = s.frames.add
	}
	s.Sandbox, err = sandbox.Start(sandbox.Options{
		Accounts: sandboxAccounts(served), Brands: sandboxBrands(served), Listen: f.Listen, TLSListen: f.TLSListen, CAFile: f.CA,
		AutoAssign: true, OneLogin: f.OneLogin, AdminUser: f.User, Password: f.Password, OnFrame: onFrame, Logger: log,
	})
	if err != nil {
		return nil, fmt.Errorf("--sandbox: %w", err)
	}
	for _, text := range f.Fault {
		fault, err := sandbox.ParseFault([]byte(text))
		if err != nil {
			return nil, fmt.Errorf("--sandbox-fault %s: %w", text, err)
		}
		s.Inject(fault)
	}
	if f.Webhook != "" {
		if err := s.SetWebhooks("", "", sandbox.Webhooks{Endpoints: sandbox.AllEvents(f.Webhook), Retention: 24 * time.Hour}); err != nil {
			return nil, fmt.Errorf("--sandbox-webhook: %w", err)
		}
	}
	return s, nil
}

func (s *localSandbox) close() {
	if s.Sandbox != nil {
		s.Close()
	}
	if s.frames != nil {
		if err := s.frames.close(); err != nil {
			s.log.Error("not all frames of the sandbox were written", "error", err)
		}
	}
}

// sandboxAccounts returns the ids of the sandbox's accounts.
func sandboxAccounts(s *accounts.Set) []string {
	ids := slices.Collect(maps.Keys(s.Named))
	if !slices.Contains(ids, sandboxAccount) {
		ids = append(ids, sandboxAccount)
	}
	return ids
}

// sandboxBrands returns the issuers of the accounts file, as LivePerson would know them.
func sandboxBrands(s *accounts.Set) map[string]sandbox.Brand {
	brands := map[string]sandbox.Brand{}
	for id, a := range s.Named {
		if a.Issuer != nil {
			brands[id] = sandbox.Brand{Issuer: a.Issuer.Name, Key: a.Issuer.Key.Public()}
		}
	}
	return brands
}
