package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"time"

	"github.com/alecthomas/kong"

	"github.com/lpfileshare/lpfileshare/internal/accounts"
	"github.com/lpfileshare/lpfileshare/internal/admission"
	"github.com/lpfileshare/lpfileshare/internal/buildinfo"
	"github.com/lpfileshare/lpfileshare/internal/cmdline"
	"github.com/lpfileshare/lpfileshare/internal/netrules"
	"github.com/lpfileshare/lpfileshare/internal/service"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// flags are the settings of the server, in the groups of its help. Each group validates itself. Each flag can also be set by an
// environment variable: LPFILESHARE_ and the name of the flag. A flag that the client has too must mean the same (see
// TestFlags_Names in cmd/client).
type flags struct {
	Server     serverFlags     `embed:""`
	Callers    callerFlags     `embed:"" group:"Callers:"`
	Sandbox    sandboxFlags    `embed:"" group:"Sandbox:"`
	LivePerson livePersonFlags `embed:"" group:"LivePerson:"`
	Limits     limitFlags      `embed:"" group:"Limits:"`
	Scan       scanFlags       `embed:"" group:"Scanning:"`
	Behaviour  behaviourFlags  `embed:"" group:"Behaviour:"`
	Ledger     ledgerFlags     `embed:"" group:"Ledger:"`
	Connector  connectorFlags  `embed:"" group:"Connector API:"`
	Web        webFlags        `embed:"" group:"Browsers:"`
	Admin      adminFlags      `embed:"" group:"Admin:"`
	Audit      auditFlags      `embed:"" group:"Audit:"`
	Log        logFlags        `embed:"" group:"Log:"`

	Version kong.VersionFlag `env:"-" help:"Print the version and exit."`

	envs     []string                 // names of the environment variables that set flags
	settings map[string]string        // values of all flags, without secrets
	read     atomic.Pointer[[]string] // files that accounts has read
}

// serverFlags say where and how gRPC is served.
type serverFlags struct {
	Listen         string   `default:"127.0.0.1:50051" placeholder:"ADDR" help:"Address to serve gRPC on (${default}). Port 0 picks a free port, which the ready line shows."`
	AllowPlaintext bool     `help:"Serve without TLS on an address that is not loopback. Requires a proxy in front that adds TLS, because calls carry tokens."`
	TLS            tlsFlags `embed:"" group:"TLS:"`
}

// limitFlags limit what callers may send and how much of the server they may use.
type limitFlags struct {
	MaxFileBytes      byteSize      `default:"3000000" placeholder:"SIZE" help:"Maximum size of a file (${default}). LivePerson documents 3 MB for the Messaging Window and 5 MB elsewhere."`
	Documents         bool          `help:"Allow documents (${documents}) as well as images."`
	MaxImagePixels    int64         `default:"50000000" placeholder:"N" help:"Maximum number of pixels of an image (${default})."`
	FitImages         bool          `help:"Allow callers to have images larger than --max-file-bytes reduced to it."`
	MaxImageInput     byteSize      `default:"25000000" placeholder:"SIZE" help:"Maximum size of an image that is to be reduced (${default})."`
	StripImages       bool          `help:"Remove metadata (EXIF including the location, XMP, comments) and trailing bytes from every image. Callers can also request it for one upload."`
	MemoryBudget      byteSize      `default:"256MiB" placeholder:"SIZE" help:"Memory for the files of all uploads (${default})."`
	DownloadMemory    byteSize      `default:"96MiB" placeholder:"SIZE" help:"Memory for all downloads (${default}). While many run, their chunks are smaller."`
	PreviewMemory     byteSize      `default:"256MiB" placeholder:"SIZE" help:"Memory for decoding images, for previews and for reducing them (${default}). Images that need more get no preview and are not reduced."`
	ReceiveMemory     byteSize      `default:"48MiB" placeholder:"SIZE" help:"Memory for gRPC messages that are being received, over all connections (${default})."`
	ListMemory        byteSize      `default:"64MiB" placeholder:"SIZE" help:"Memory for the lists of files of all conversations, without previews (${default}). A quarter of it limits one dialog."`
	QueueLength       int           `default:"1024" help:"Maximum number of uploads that wait for memory, of downloads that do, and of sessions that wait to be opened (${default})."`
	QueueTime         time.Duration `default:"5s" help:"Maximum time that an upload or download waits for memory, or a session to be opened (${default})."`
	UploadIdleTimeout time.Duration `default:"30s" help:"Time after which an upload that sends no byte is ended, and any other call whose request has not arrived (${default})."`
	MinUploadRate     byteSize      `default:"1KiB" placeholder:"SIZE" help:"Minimum average upload rate per second, measured over --upload-idle-timeout (${default}; 0 disables the check)."`
	UploadTimeout     time.Duration `default:"10m" help:"Maximum duration of an upload (${default})."`
	ReadStall         time.Duration `default:"60s" help:"Maximum time that the client of a download or watch may read nothing (${default})."`

	MaxUploadsPerCaller int `default:"64" placeholder:"N" help:"Maximum concurrent uploads of one caller, within its share of --memory-budget; as many again may wait (${default})."`
	MaxStreamsPerCaller int `default:"256" placeholder:"N" help:"Maximum concurrent downloads and watches of one caller (${default})."`
	MaxWatches          int `default:"4096" placeholder:"N" help:"Maximum concurrent watches of all callers (${default})."`
	MaxConnections      int `default:"4096" placeholder:"N" help:"Maximum concurrent connections, of which each address has a share; for further ones those without a call are closed (${default})."`
}

// behaviourFlags are the remaining settings of the service.
type behaviourFlags struct {
	AgentTokenKey     string        `placeholder:"FILE" help:"File with the key that seals agent tokens: 64 hex digits. Replicas need the same key. Default: a random key, so that agents must sign in again after a restart."`
	RequestIDTTL      time.Duration `name:"request-id-ttl" default:"24h" help:"How long a request_id is kept (${default})."`
	CheckETag         bool          `name:"check-etag" default:"true" negatable:"" help:"Compare the store's ETag with the MD5 of each upload, and send it with each download so that clients can (${default})."`
	StoreStall        time.Duration `default:"30s" help:"Maximum time that the store may neither send nor receive a byte of a transfer (${default})."`
	HeartbeatInterval time.Duration `default:"25s" help:"Interval between the heartbeats of a watch (${default})."`
	ReloadEvery       time.Duration `default:"5s" help:"Interval at which the files that SIGHUP reloads are read, to reload those that have changed (${default}; 0: only SIGHUP reloads)."`
	DrainTime         time.Duration `default:"30s" help:"Maximum time that running calls may take to end after SIGTERM (${default})."`
	DrainNotice       time.Duration `default:"1s" help:"Part of --drain-time in which the server still accepts connections and rejects new calls with SERVER_DRAINING, so that load balancers notice (${default})."`
}

const description = "Serves lpfileshare.v1 over gRPC: files in LivePerson conversations, stored and published exactly once.\n\n" +
	"To try it without LivePerson: lpfileshare-server --sandbox\n\n" +
	"To see what the accounts file permits to callers: lpfileshare-server policy test --help"

// parse reads the flags. done reports that the process is to exit with code: help or version was printed, or a flag is wrong.
func parse(args []string, stdout, stderr io.Writer) (f *flags, code int, done bool) {
	f = &flags{}
	exited := -1
	k, err := kong.New(f,
		kong.Name("lpfileshare-server"),
		kong.Description(description),
		kong.Vars{"version": buildinfo.Version(), "documents": strings.Trim(fmt.Sprint(share.Documents()), "[]")},
		kong.Writers(stdout, stderr),
		kong.DefaultEnvars(envPrefix),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true}),
		kong.Exit(func(c int) { exited = c }),
		cmdline.RawStrings(),
	)
	if err != nil { // a mistake in the tags above
		panic(err)
	}
	_, err = k.Parse(args)
	if exited >= 0 {
		return nil, exited, true
	}
	if err != nil {
		fmt.Fprintf(stderr, "lpfileshare-server: %v\n(see lpfileshare-server --help)\n", err)
		return nil, 2, true
	}
	for _, flag := range k.Model.Flags {
		f.envs = append(f.envs, flag.Envs...)
	}
	f.settings = settings(k.Model.Flags)
	return f, 0, false
}

// Validate is called by kong, which would stop at the first group with an error. Here the errors of all groups are reported at once.
func (f *flags) Validate() error {
	return errors.Join(
		f.Server.Validate(), f.Callers.Validate(), f.Sandbox.Validate(), f.LivePerson.Validate(), f.Limits.Validate(), f.Scan.Validate(),
		f.Behaviour.Validate(), f.Ledger.Validate(), f.Connector.Validate(), f.Web.Validate(), f.Admin.Validate(), f.Audit.Validate(), f.validateTogether(),
	)
}

// validateTogether checks flags against those of other groups.
func (f *flags) validateTogether() error {
	var errs []error
	if f.Sandbox.On && f.LivePerson.choosesHosts() {
		errs = append(errs, errors.New("--sandbox replaces LivePerson; leave out --serve-account, --domain, --domain-api, --lp-plain-http and --lp-ca, or "+
			"start the sandbox as a server of its own"))
	}
	if f.Web.Listen != "" && f.authenticatesCallers() {
		errs = append(errs, errors.New("--web-listen excludes --tls-client-ca, --spiffe-socket and --jwt-issuer, because browsers have none of the names that the rules for callers permit; "+
			"serve browsers by a server of their own that shares the ledger"))
	}
	// If an id expired while its message was on the way, a repeated upload would publish a second message.
	if least := f.Limits.UploadTimeout + 4*f.LivePerson.Timeout + 3*f.LivePerson.Settle; f.Behaviour.RequestIDTTL < least {
		errs = append(errs, fmt.Errorf("--request-id-ttl is %s, which is shorter than an upload and its publication may take; set it to at least %s "+
			"(--upload-timeout + 4 * --lp-timeout + 3 * --settle)", f.Behaviour.RequestIDTTL, least))
	}
	if f.Admin.ClientCA != "" && f.Server.TLS.Cert == "" {
		errs = append(errs, errors.New("--admin-client-ca requires TLS; add --tls-cert and --tls-key"))
	}
	return errors.Join(append(errs, f.checkMemory(f.account()), f.validateCallers())...)
}

// checkMemory reports whether the budgets are too small for an account's limits.
func (f *flags) checkMemory(a accounts.Account) error {
	err := f.Limits.checkMemory(a)
	// A caller may have half of the budget.
	if need := 2 * (a.MaxFileBytes + int64(oneBlock) + admission.MinDownloadBytes); f.Scan.Downloads && int64(f.Limits.DownloadMemory) < need {
		err = errors.Join(err, fmt.Errorf("--download-memory is %d, which is too small to scan downloads of %d bytes; set it to at least %d",
			f.Limits.DownloadMemory, a.MaxFileBytes, need))
	}
	return err
}

// Validate checks the addresses and the TLS flags.
func (f *serverFlags) Validate() error {
	var errs []error
	if host, _, err := net.SplitHostPort(f.Listen); err != nil {
		errs = append(errs, fmt.Errorf("--listen %q is not an address; give HOST:PORT, for example 127.0.0.1:50051", f.Listen))
	} else if !netrules.IsLoopback(host) && !f.AllowPlaintext && !f.TLS.secure() {
		errs = append(errs, fmt.Errorf("--listen %s is not loopback, so tokens would be sent unencrypted; set --tls-cert and --tls-key or --spiffe-socket, listen on 127.0.0.1, or set "+
			"--allow-plaintext if a proxy in front adds TLS", f.Listen))
	}
	if f.TLS.secure() && f.AllowPlaintext {
		errs = append(errs, errors.New("--allow-plaintext and TLS, by --tls-cert or --spiffe-socket, exclude each other; leave one out"))
	}
	return errors.Join(append(errs, f.TLS.Validate())...)
}

// listensOnLoopback reports whether only programs on this machine can connect.
func (f *serverFlags) listensOnLoopback() bool {
	host, _, err := net.SplitHostPort(f.Listen)
	return err == nil && netrules.IsLoopback(host)
}

// leastListMemory is the minimum of --list-memory: about 500 files in one dialog.
const leastListMemory byteSize = 1 << 20

// Validate checks each limit.
func (f *limitFlags) Validate() error {
	var receive error
	if least := byteSize(4 * service.MaxRecvMessageBytes); f.ReceiveMemory < least {
		receive = fmt.Errorf("--receive-memory is %d, which is too small for four messages of the maximum size; set it to at least %d", f.ReceiveMemory, least)
	}
	var download error
	if least := byteSize(4 * admission.MinDownloadBytes); f.DownloadMemory < least {
		download = fmt.Errorf("--download-memory is %d, which is too small for four downloads; set it to at least %d", f.DownloadMemory, least)
	}
	var lists error
	if f.ListMemory < leastListMemory {
		lists = fmt.Errorf("--list-memory is %d, which is too small; set it to at least %d", f.ListMemory, leastListMemory)
	}
	return errors.Join(
		positive("max-file-bytes", f.MaxFileBytes), positive("max-image-pixels", f.MaxImagePixels), positive("max-image-input", f.MaxImageInput),
		positive("memory-budget", f.MemoryBudget), positive("preview-memory", f.PreviewMemory), receive, download, lists,
		notNegative("queue-length", f.QueueLength), notNegative("queue-time", f.QueueTime),
		positive("upload-idle-timeout", f.UploadIdleTimeout), positive("upload-timeout", f.UploadTimeout), positive("read-stall", f.ReadStall),
		positive("max-uploads-per-caller", f.MaxUploadsPerCaller), positive("max-streams-per-caller", f.MaxStreamsPerCaller),
		positive("max-watches", f.MaxWatches),
		positive("max-connections", f.MaxConnections),
	)
}

// firstBytes is the memory for the first messages of uploads whose identity is not proved yet, in addition to MemoryBudget.
func (f *limitFlags) firstBytes() int64 { return int64(f.MemoryBudget) / 4 }

// checkMemory reports whether the memory budget is too small for an account's limits: an image that is stripped or reduced is in
// memory twice, as received and as stored.
func (f *limitFlags) checkMemory(a accounts.Account) error {
	const block = int64(oneBlock)
	if need := 2 * (a.MaxFileBytes + block); int64(f.MemoryBudget) < need {
		return fmt.Errorf("--memory-budget is %d, which is too small for one file of %d bytes and its stripped copy; set it to at least %d",
			f.MemoryBudget, a.MaxFileBytes, need)
	}
	if !a.FitImages {
		return nil
	}
	if a.MaxImageInputBytes <= a.MaxFileBytes {
		return fmt.Errorf("images of up to %d bytes are to be reduced, but files of %d bytes need no reduction; raise the first limit or lower the second",
			a.MaxImageInputBytes, a.MaxFileBytes)
	}
	if need := a.MaxImageInputBytes + a.MaxFileBytes + 2*block; int64(f.MemoryBudget) < need {
		return fmt.Errorf("--memory-budget is %d, which is too small for one image of %d bytes and its reduced copy; set it to at least %d",
			f.MemoryBudget, a.MaxImageInputBytes, need)
	}
	return nil
}

// Validate checks the times. The key file is checked when it is read.
func (f *behaviourFlags) Validate() error {
	return errors.Join(
		positive("request-id-ttl", f.RequestIDTTL), positive("store-stall", f.StoreStall), positive("heartbeat-interval", f.HeartbeatInterval),
		notNegative("reload-every", f.ReloadEvery),
		notNegative("drain-time", f.DrainTime), notNegative("drain-notice", f.DrainNotice),
	)
}

// agentTokenKey reads --agent-token-key, or generates a random key.
func (f *behaviourFlags) agentTokenKey() (key [32]byte, err error) {
	if f.AgentTokenKey == "" {
		return service.NewAgentTokenKey(), nil
	}
	return readHexKey("--agent-token-key", f.AgentTokenKey)
}

func positive[T ~int | ~int64](flag string, v T) error {
	if v > 0 {
		return nil
	}
	return fmt.Errorf("--%s is %v; it must be more than 0", flag, v)
}

func notNegative[T ~int | ~int64](flag string, v T) error {
	if v >= 0 {
		return nil
	}
	return fmt.Errorf("--%s is %v; it must not be negative", flag, v)
}

// oneBlock is the maximum that rounding adds to the memory of a file.
const oneBlock byteSize = 1 << 16

// A byteSize is a number of bytes, optionally with a unit: KB, MB, GB (powers of 1000) or KiB, MiB, GiB (powers of 1024).
type byteSize int64

// UnmarshalText parses the value of a flag.
func (b *byteSize) UnmarshalText(text []byte) error {
	n, err := accounts.ParseSize(string(text))
	if err != nil {
		return err
	}
	*b = byteSize(n)
	return nil
}
