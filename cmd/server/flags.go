package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"github.com/lpfileshare/lpfileshare/internal/accounts"
	"github.com/lpfileshare/lpfileshare/internal/netrules"
	"github.com/lpfileshare/lpfileshare/internal/service"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// flags are the settings of the server. Each can also be set by an environment variable: LPFILESHARE_ and the name of the flag. The
// client has flags too: a name that both have must mean the same (see TestFlags_Names in cmd/client).
type flags struct {
	Listen         string `default:"127.0.0.1:50051" placeholder:"ADDR" help:"Address to serve gRPC on (${default}). Port 0 takes a free one; the ready line tells which."`
	AllowPlaintext bool   `help:"Serve without TLS on an address that is not loopback. Only behind something that adds TLS: tokens pass here."`

	tlsFlags

	Sandbox          bool     `group:"Sandbox:" help:"Play LivePerson and its store in this process, on loopback: account 12345678, user admin, password sandbox."`
	SandboxListen    string   `group:"Sandbox:" default:"127.0.0.1:0" placeholder:"ADDR" help:"Address of the sandbox."`
	SandboxTLSListen string   `group:"Sandbox:" name:"sandbox-tls-listen" placeholder:"ADDR" help:"Serve the sandbox by TLS too, for LivePerson's own clients."`
	SandboxCA        string   `group:"Sandbox:" name:"sandbox-ca" placeholder:"FILE" help:"Where to write the certificate of the sandbox's CA."`
	SandboxUser      string   `group:"Sandbox:" default:"admin" placeholder:"NAME" help:"The sandbox's administrator."`
	SandboxFault     []string `group:"Sandbox:" sep:"none" placeholder:"JSON" help:"Trouble to make, for example {\"on\":\"store:PUT\",\"status\":503,\"count\":2}; may be given again. More of it, and the journal, by POST and GET under /_sandbox/."`
	SandboxWebhook   string   `group:"Sandbox:" placeholder:"URL" help:"Where on loopback the sandbox posts the webhooks of its app install, sandbox-app with the secret sandbox-secret: http://127.0.0.1:PORT/PATH. Later, and in detail, by PUT to /_sandbox/webhooks."`
	SandboxFrames    string   `group:"Sandbox:" placeholder:"FOLDER" help:"Write what goes over the sandbox's sockets to a file in this folder, a frame on each line."`
	SandboxPassword  string   `group:"Sandbox:" default:"sandbox" placeholder:"WORD" help:"The password of everybody in the sandbox. Not a secret."`

	Account        []string          `group:"LivePerson:" name:"serve-account" placeholder:"ID" help:"Accounts to serve. Default: every account that a caller has a token of."`
	Accounts       string            `group:"LivePerson:" placeholder:"FILE" help:"YAML file of the accounts to serve and what holds for each, instead of --serve-account; see docs/accounts.md. SIGHUP reads it again."`
	CheckAccounts  bool              `group:"LivePerson:" env:"-" help:"Check --accounts FILE and the secrets that it names, and exit: 0 if it can be used, 1 if not."`
	DomainAPI      string            `group:"LivePerson:" name:"domain-api" default:"https://api.liveperson.net" placeholder:"URL" help:"Where LivePerson's hosts are looked up."`
	Domain         map[string]string `group:"LivePerson:" placeholder:"SERVICE=HOST" help:"Host of a LivePerson service, instead of looking it up: agentVep, asyncMessagingEnt, facadeMsg, idp, sentinel, swift, accountConfigReadWrite."`
	DomainSuffix   []string          `group:"LivePerson:" placeholder:".SUFFIX" default:".liveperson.net,.lpsnmedia.net,.liveperson.com" help:"Looked-up hosts must end in one of these."`
	LPPlainHTTP    bool              `group:"LivePerson:" name:"lp-plain-http" help:"Speak http and ws instead of https and wss, with loopback only: for a sandbox in another process."`
	LPCA           string            `group:"LivePerson:" name:"lp-ca" placeholder:"FILE" help:"Certificates to trust for LivePerson, in PEM, besides the system's."`
	LPTimeout      time.Duration     `group:"LivePerson:" name:"lp-timeout" default:"10s" help:"How long LivePerson may take to answer a request."`
	Settle         time.Duration     `group:"LivePerson:" default:"10s" help:"How long after --lp-timeout a message whose answer was lost may still turn up; then it is sent again."`
	MaxSessions    int               `group:"LivePerson:" default:"10000" help:"Most LivePerson sessions at once."`
	SessionIdle    time.Duration     `group:"LivePerson:" default:"5m" help:"Close a LivePerson session that nobody used for so long."`
	AgentRefresh   time.Duration     `group:"LivePerson:" default:"10m" help:"How often the logins of agents with an open session are refreshed."`
	AcceptReceipts bool              `group:"LivePerson:" default:"true" negatable:"" help:"Tell senders when a file was delivered to a watcher (ACCEPT)."`
	AccessReceipts bool              `group:"LivePerson:" default:"true" negatable:"" help:"Tell senders when a file was downloaded (ACCESS)."`

	MaxFileBytes      byteSize      `group:"Limits:" default:"3000000" placeholder:"SIZE" help:"Largest file (${default}). LivePerson says 3 MB for the Messaging Window, 5 MB elsewhere."`
	Documents         bool          `group:"Limits:" help:"Allow documents (${documents}) besides images."`
	MaxImagePixels    int64         `group:"Limits:" default:"50000000" placeholder:"N" help:"Largest image, in pixels (${default})."`
	FitImages         bool          `group:"Limits:" help:"Let callers have images that are over --max-file-bytes made to fit."`
	MaxImageInput     byteSize      `group:"Limits:" default:"25000000" placeholder:"SIZE" help:"Largest image that is made to fit (${default})."`
	StripImages       bool          `group:"Limits:" help:"Remove metadata (EXIF with the place, XMP, comments) and trailing bytes from every image. Callers may ask for it without this."`
	MemoryBudget      byteSize      `group:"Limits:" default:"256MiB" placeholder:"SIZE" help:"Memory for files on their way up, all together (${default})."`
	PreviewMemory     byteSize      `group:"Limits:" default:"128MiB" placeholder:"SIZE" help:"Memory for decoding images, all together (${default}): for previews, and to make images fit. An image that would take more has no preview, and is not made to fit."`
	ReceiveMemory     byteSize      `group:"Limits:" default:"48MiB" placeholder:"SIZE" help:"Memory for gRPC messages that are still arriving, all connections together (${default})."`
	QueueLength       int           `group:"Limits:" default:"1024" help:"How many uploads may wait for memory."`
	QueueTime         time.Duration `group:"Limits:" default:"5s" help:"How long an upload may wait for memory."`
	UploadIdleTimeout time.Duration `group:"Limits:" default:"30s" help:"End an upload from which no byte comes for so long, and any other call whose request does not come."`
	MinUploadRate     byteSize      `group:"Limits:" default:"1KiB" placeholder:"SIZE" help:"End an upload that brings less a second (${default}), on average over --upload-idle-timeout. 0: any."`
	UploadTimeout     time.Duration `group:"Limits:" default:"10m" help:"Longest upload."`
	ReadStall         time.Duration `group:"Limits:" default:"60s" help:"End a download or watch whose reader takes nothing for so long."`

	MaxUploadsPerCaller int `group:"Limits:" default:"64" placeholder:"N" help:"Most uploads of one caller at once (${default}), within half of --memory-budget; as many again may wait."`
	MaxStreamsPerCaller int `group:"Limits:" default:"256" placeholder:"N" help:"Most downloads and watches of one caller at once (${default})."`
	MaxConnections      int `group:"Limits:" default:"4096" placeholder:"N" help:"Most connections at once (${default}); more wait to be taken."`

	AgentTokenKey     string        `group:"Behaviour:" placeholder:"FILE" help:"File with the key that seals agent tokens: 64 hex digits. Servers that answer for each other need the same. Default: a random one, so that agents sign in anew after a restart."`
	RequestIDTTL      time.Duration `group:"Behaviour:" name:"request-id-ttl" default:"24h" help:"How long a request_id is kept."`
	CheckETag         bool          `group:"Behaviour:" name:"check-etag" default:"true" negatable:"" help:"Compare the store's ETag with the MD5 of what was sent, and of what a whole download gave."`
	StoreStall        time.Duration `group:"Behaviour:" default:"30s" help:"Give up on a store that takes or gives no byte for so long."`
	HeartbeatInterval time.Duration `group:"Behaviour:" default:"25s" help:"How often a watch says that it is alive."`
	DrainTime         time.Duration `group:"Behaviour:" default:"30s" help:"How long running calls may go on after SIGTERM."`
	DrainNotice       time.Duration `group:"Behaviour:" default:"1s" help:"How long of --drain-time connections are still taken, and new calls refused with SERVER_DRAINING: until load balancers see that the server goes."`

	ledgerFlags
	connectorFlags

	DebugListen string `group:"Log:" placeholder:"ADDR" help:"Serve Go's profiles and counters (pprof, expvar) here. Loopback only."`

	LogLevel  slog.Level `group:"Log:" default:"info" placeholder:"LEVEL" help:"debug, info, warn or error."`
	LogFormat string     `group:"Log:" enum:"text,json" default:"text" help:"text or json, on stderr."`

	Version kong.VersionFlag `env:"-" help:"Print the version and exit."`
}

const description = "Serves lpfileshare.v1 over gRPC: files in LivePerson conversations, stored and published exactly once.\n\n" +
	"To try it without LivePerson: lpfileshare-server --sandbox"

// parse reads the flags. done tells that there is nothing left to do: help or version was printed, or an error.
func parse(args []string, stdout, stderr io.Writer) (f *flags, code int, done bool) {
	f = &flags{}
	exited := -1
	k, err := kong.New(f,
		kong.Name("lpfileshare-server"),
		kong.Description(description),
		kong.Vars{"version": version(), "documents": strings.Join(documentTypes(), ", ")},
		kong.Writers(stdout, stderr),
		kong.DefaultEnvars("LPFILESHARE"),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Exit(func(c int) { exited = c }),
	)
	if err != nil { // a mistake in the tags above
		panic(err)
	}
	_, err = k.Parse(args)
	if exited >= 0 {
		return nil, exited, true
	}
	if err == nil {
		err = f.check()
	}
	if err != nil {
		fmt.Fprintf(stderr, "lpfileshare-server: %v\n(see lpfileshare-server --help)\n", err)
		return nil, 2, true
	}
	return f, 0, false
}

// oneBlock is what rounding adds to a file in memory, at most.
const oneBlock byteSize = 1 << 16

const defaultDomainAPI = "https://api.liveperson.net"

// services are those of LivePerson's that this server asks for.
var services = []string{"agentVep", "asyncMessagingEnt", "facadeMsg", "idp", "sentinel", "swift", "accountConfigReadWrite", "accountConfigReadOnly"}

// A byteSize is a number of bytes: plain, or with KB, MB, GB (thousands) or KiB, MiB, GiB (1024s) behind it.
type byteSize int64

// UnmarshalText reads a flag's value.
func (b *byteSize) UnmarshalText(text []byte) error {
	n, err := accounts.ParseSize(string(text))
	if err != nil {
		return err
	}
	*b = byteSize(n)
	return nil
}

// check refuses settings that cannot work, all at once, and says what to do.
func (f *flags) check() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	if host, _, err := net.SplitHostPort(f.Listen); err != nil {
		bad("--listen %q is no address; give HOST:PORT, for example 127.0.0.1:50051", f.Listen)
	} else if !netrules.IsLoopback(host) && !f.AllowPlaintext && f.TLSCert == "" {
		bad("--listen %s is not loopback, and tokens would pass in the clear; serve by TLS with --tls-cert and --tls-key, listen on 127.0.0.1, or say "+
			"--allow-plaintext if something in front adds TLS", f.Listen)
	}
	f.tlsFlags.check(f.AllowPlaintext, bad)
	if f.DebugListen != "" {
		if host, _, err := net.SplitHostPort(f.DebugListen); err != nil || !netrules.IsLoopback(host) {
			bad("--debug-listen %s is not an address on loopback; a heap profile is nobody else's business", f.DebugListen)
		}
	}
	if f.Sandbox {
		if len(f.Account) > 0 || len(f.Domain) > 0 || f.LPPlainHTTP || f.LPCA != "" || f.DomainAPI != defaultDomainAPI {
			bad("--sandbox plays LivePerson itself; leave --serve-account, --domain, --domain-api, --lp-plain-http and --lp-ca out, or run the sandbox in a server of its own")
		}
	} else {
		if f.SandboxTLSListen != "" || f.SandboxCA != "" || f.SandboxFrames != "" || len(f.SandboxFault) > 0 || f.SandboxWebhook != "" || f.SandboxUser != "admin" || f.SandboxPassword != "sandbox" {
			bad("the flags of the sandbox want --sandbox")
		}
		if u, err := url.Parse(f.DomainAPI); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			bad("--domain-api %q is no URL; give https://HOST", f.DomainAPI)
		}
		if f.LPPlainHTTP && f.DomainAPI == defaultDomainAPI {
			bad("--lp-plain-http reaches loopback only; say with --domain-api=http://127.0.0.1:PORT where the sandbox is")
		}
		for _, a := range f.Account {
			if !share.ValidAccountID(a) {
				bad("--serve-account %q is not an account id; use %s", a, share.AccountIDRule)
			}
		}
	}
	if f.Accounts != "" && len(f.Account) > 0 {
		bad("--serve-account and --accounts exclude each other; put the ids of --serve-account into %s, or leave --accounts out", f.Accounts)
	}
	if f.CheckAccounts && f.Accounts == "" {
		bad("--check-accounts checks a file; say which by --accounts FILE")
	}
	for name := range f.Domain {
		if !slices.Contains(services, name) {
			bad("--domain %s=...: there is no such service; there are %s", name, strings.Join(services, ", "))
		}
	}
	for name, v := range map[string]int64{
		"max-file-bytes": int64(f.MaxFileBytes), "max-image-pixels": f.MaxImagePixels, "memory-budget": int64(f.MemoryBudget),
		"preview-memory": int64(f.PreviewMemory), "max-image-input": int64(f.MaxImageInput),
		"max-sessions": int64(f.MaxSessions), "max-connections": int64(f.MaxConnections),
		"max-uploads-per-caller": int64(f.MaxUploadsPerCaller), "max-streams-per-caller": int64(f.MaxStreamsPerCaller),
		"lp-timeout": int64(f.LPTimeout), "upload-idle-timeout": int64(f.UploadIdleTimeout), "upload-timeout": int64(f.UploadTimeout),
		"read-stall": int64(f.ReadStall), "request-id-ttl": int64(f.RequestIDTTL), "heartbeat-interval": int64(f.HeartbeatInterval),
		"store-stall": int64(f.StoreStall), "session-idle": int64(f.SessionIdle), "agent-refresh": int64(f.AgentRefresh),
	} {
		if v <= 0 {
			bad("--%s must be more than 0", name)
		}
	}
	if least := byteSize(4 * service.MaxRecvMessageBytes); f.ReceiveMemory < least {
		bad("--receive-memory %d is too small for large messages; it must be at least %d", f.ReceiveMemory, least)
	}
	if f.QueueLength < 0 || f.QueueTime < 0 || f.DrainTime < 0 || f.DrainNotice < 0 || f.Settle < 0 {
		bad("--queue-length, --queue-time, --drain-time, --drain-notice and --settle must not be negative")
	}
	// An id that is forgotten while its message is on the way would let a repeat publish a second one.
	if least := f.UploadTimeout + 4*f.LPTimeout + 3*f.Settle; f.RequestIDTTL < least {
		bad("--request-id-ttl %s is shorter than an upload and its publication may take: it must be at least --upload-timeout, 4 times --lp-timeout and 3 times --settle, together %s", f.RequestIDTTL, least)
	}
	if err := f.checkRoom(f.account()); err != nil {
		bad("%w", err)
	}
	f.ledgerFlags.check(bad)
	f.checkConnector(bad)
	return errors.Join(errs...)
}

// plainHTTP tells that LivePerson is spoken to without TLS.
func (f *flags) plainHTTP() bool { return f.LPPlainHTTP || f.Sandbox }

// agentTokenKey reads --agent-token-key, or makes a key up.
func (f *flags) agentTokenKey() (key [32]byte, err error) {
	if f.AgentTokenKey == "" {
		return service.NewAgentTokenKey(), nil
	}
	text, err := os.ReadFile(f.AgentTokenKey)
	if err != nil {
		return key, fmt.Errorf("--agent-token-key: %w", err)
	}
	text = bytes.TrimSpace(text)
	if len(text) != hex.EncodedLen(len(key)) {
		return key, fmt.Errorf("--agent-token-key: %s must hold 64 hex digits, as `openssl rand -hex 32` gives", f.AgentTokenKey)
	}
	if _, err := hex.Decode(key[:], text); err != nil {
		return key, fmt.Errorf("--agent-token-key: %s must hold 64 hex digits, as `openssl rand -hex 32` gives", f.AgentTokenKey)
	}
	return key, nil
}

// trust makes the TLS settings for LivePerson and its store; nil means the system's.
func (f *flags) trust() (*tls.Config, error) {
	if f.LPCA == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(f.LPCA)
	if err != nil {
		return nil, fmt.Errorf("--lp-ca: %w", err)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		roots = x509.NewCertPool()
	}
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("--lp-ca: %s has no certificate in PEM", f.LPCA)
	}
	return &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, nil
}
