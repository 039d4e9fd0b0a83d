package main

import (
	"errors"
	"time"

	kongcompletion "github.com/jotaen/kong-completion"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
)

const description = "Send files into LivePerson conversations and read them back, through an lpfileshare server."

// cli is the command line.
type cli struct {
	globals `embed:"" group:"Global flags:"`

	Demo         demoCmd                   `cmd:"" help:"Send a picture to a server and back, step by step."`
	SignIn       signInCmd                 `cmd:"" help:"Sign in as a consumer or an agent, and store the token in the session file."`
	SignOut      signOutCmd                `cmd:"" help:"End the agent's login, and delete the session file."`
	Whoami       whoamiCmd                 `cmd:"" help:"Show the identity, account and server of the next command."`
	Token        tokenCmd                  `cmd:"" help:"Print the token of the identity, for other programs."`
	Profiles     profilesCmd               `cmd:"" help:"List the profiles (see --profile)."`
	Conversation conversationCmd           `cmd:"" help:"Create, list, show and close conversations."`
	Upload       uploadCmd                 `cmd:"" help:"Send files into a conversation."`
	Publish      publishCmd                `cmd:"" help:"Publish a file that was only stored."`
	Download     downloadCmd               `cmd:"" help:"Download a file of a conversation."`
	Ls           lsCmd                     `cmd:"" help:"List the files of a conversation."`
	Stat         statCmd                   `cmd:"" help:"Show the metadata of a file."`
	Watch        watchCmd                  `cmd:"" help:"Print files as they are published, until Ctrl-C."`
	GetUpload    getUploadCmd              `cmd:"" help:"Show the state of an upload."`
	Capabilities capabilitiesCmd           `cmd:"" help:"Show the limits, file types and times of the account."`
	Health       healthCmd                 `cmd:"" help:"Show the health of the server."`
	Account      accountCmd                `cmd:"" help:"Show and change the settings of the account (as an agent)."`
	Agent        agentCmd                  `cmd:"" help:"Watch and send files as an agent."`
	Completion   kongcompletion.Completion `cmd:"" help:"Show how to complete command lines in bash, zsh or fish."`
	Man          manCmd                    `cmd:"" help:"Print the man page: lpfileshare man | man -l -"`
	ExitCodes    exitCodesCmd              `cmd:"" help:"Show what the exit codes mean."`
	Version      versionCmd                `cmd:"" help:"Show the version of this program."`
}

// globals are the flags of every command. The environment variable of a flag is LPFILESHARE_ and the name of the flag. Tokens and
// passwords have no flags, because other users of the machine can read a command line.
type globals struct {
	Address            string      `env:"LPFILESHARE_ADDRESS" placeholder:"HOST:PORT" help:"Server, or several that share a ledger: HOST:PORT,HOST:PORT. Default: the session file's, else 127.0.0.1:50051."`
	Account            string      `env:"LPFILESHARE_ACCOUNT" placeholder:"ID" help:"LivePerson account. Default: the session file's, else 12345678."`
	As                 identityOf  `env:"LPFILESHARE_AS" placeholder:"IDENTITY" help:"Identity to use: consumer or agent. Default: consumer, unless only an agent is signed in."`
	TokenFile          string      `env:"LPFILESHARE_TOKEN_FILE" placeholder:"FILE" predictor:"path" help:"Use the token in this file instead of the stored one. Or set LPFILESHARE_TOKEN (consumer) or LPFILESHARE_AGENT_TOKEN to the token."`
	ExternalConsumerID string      `env:"LPFILESHARE_EXTERNAL_CONSUMER_ID" placeholder:"ID" help:"Call as the consumer with this id of the brand. Requires a client certificate, a bearer token or loopback, and an account that the server has credentials of."`
	TLSCA              string      `name:"tls-ca" env:"LPFILESHARE_TLS_CA" placeholder:"FILE" predictor:"path" help:"Connect over TLS, and trust only the certificate authorities in this PEM file."`
	ClientCert         string      `env:"LPFILESHARE_CLIENT_CERT" placeholder:"FILE" predictor:"path" help:"Connect over TLS with the client certificate in this PEM file."`
	ClientKey          string      `env:"LPFILESHARE_CLIENT_KEY" placeholder:"FILE" predictor:"path" help:"Key of --client-cert, in PEM."`
	BearerTokenFile    string      `env:"LPFILESHARE_BEARER_TOKEN_FILE" placeholder:"FILE" predictor:"path" help:"Send the bearer token in this file, by which the server knows the calling service. It is read for each call."`
	Plaintext          bool        `env:"LPFILESHARE_PLAINTEXT" help:"Connect to other machines without TLS too. Tokens and files are then readable on the network."`
	Timeout            duration    `env:"LPFILESHARE_TIMEOUT" placeholder:"DURATION" help:"Give up after this time. Default: 1m; 10m for files; none for watches."`
	JSON               bool        `name:"json" env:"LPFILESHARE_JSON" help:"Print results as JSON, one object per line."`
	Previews           bool        `env:"LPFILESHARE_PREVIEWS" help:"With --json: include the previews of files, up to 30 KB each."`
	Quiet              bool        `short:"q" env:"LPFILESHARE_QUIET" help:"Print only results and errors: no progress and no notes."`
	ShowVersion        showVersion `name:"version" help:"Show the version of this program."`
	Profile            string      `env:"LPFILESHARE_PROFILE" placeholder:"NAME" predictor:"profile" help:"Use the session file of this name, for example one for each account or identity. Sign in with it once."`
	SessionFile        string      `env:"LPFILESHARE_SESSION_FILE" placeholder:"FILE" predictor:"path" help:"Session file. Default: lpfileshare/session.json in the user's configuration directory."`
}

// The environment variables that are not flags, because they are secrets.
const (
	envToken      = lpfileshare.EnvToken
	envAgentToken = lpfileshare.EnvAgentToken
	envPassword   = "LPFILESHARE_PASSWORD"
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

const (
	asConsumer identityOf = "consumer"
	asAgent    identityOf = "agent"
)

// UnmarshalText parses the name of an identity. An empty environment variable is the same as none.
func (w *identityOf) UnmarshalText(text []byte) error {
	if *w = identityOf(text); *w != "" && *w != asConsumer && *w != asAgent {
		return errors.New("must be consumer or agent")
	}
	return nil
}
