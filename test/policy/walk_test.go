// Package policy shows that only the calls that the rules for callers permit pass: it makes each call of the contract as each kind of
// caller, at a real server. What it expects is written down here, and does not come from the code that decides.
package policy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/harness"
	"github.com/lpfileshare/lpfileshare/test/issuer"
	"github.com/lpfileshare/lpfileshare/test/wire"
)

var (
	frames  = wire.NewSuite("policy")
	program harness.Program
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m, frames, &program)) }

const (
	withIssuer = "12345678" // the server signs its consumers in
	plain      = "23456789"
	notServed  = "34567890"
)

// rules is the accounts file of the walk. grants, below, says what it permits.
const rules = `callers:
- {certificates: "uri:spiffe://bank/full", accounts: all, tokens: [consumer, agent], consumers: "*"}
- {certificates: "uri:spiffe://bank/ns/*/sa/reader", accounts: ["12345678"], methods: read, tokens: consumer}
- {certificates: "uri:spiffe://bank/writer", accounts: all, methods: [write, SignInConsumer, RenewConsumer], tokens: consumer}
- {certificates: "dns:*.agents.bank", accounts: ["23456789"], methods: [sign-in, account-settings, WatchFiles], tokens: agent}
- {certificates: "cn:Payments", accounts: ["12345678"], methods: [Upload, GetUpload], consumers: "pay-*"}
- {certificates: "cn:Payments", accounts: ["23456789"], methods: Download, tokens: consumer}
- {subjects: "jwt:bank/full", accounts: all, tokens: [consumer, agent], consumers: "*"}
- {subjects: "jwt:bank/ns/*", accounts: ["12345678"], methods: read, tokens: consumer}
accounts:
  "12345678":
    identity: {issuer: {name: brand, key_file: issuer.pem}}
  "23456789":
`

// What a call presents to prove the identity of a consumer or an agent.
const (
	consumer = "consumer token"
	agent    = "agent token"
	pay      = "consumer pay-1"
	other    = "consumer chat-1"
)

var presented = []string{consumer, agent, pay, other}

// The methods of the contract, in the order of the columns.
var (
	reads = []string{
		"FileSharingService/Download", "FileSharingService/StatFile", "FileSharingService/ListFiles", "FileSharingService/WatchFiles", "FileSharingService/GetUpload",
		"FileSharingService/GetCapabilities", "ConversationService/GetConversation", "ConversationService/ListConversations",
	}
	writes = []string{
		"FileSharingService/Upload", "FileSharingService/UploadSmallFile", "FileSharingService/PublishUpload", "ConversationService/CreateConversation", "ConversationService/CloseConversation",
	}
	settings        = []string{"AccountService/GetFileSharing", "AccountService/SetFileSharing"}
	consumerSignIns = []string{"IdentityService/SignInConsumer", "IdentityService/RenewConsumer"}
	agentSignIn     = []string{"IdentityService/SignInAgent"}
	signOut         = []string{"IdentityService/SignOutAgent"}
	columns         = slices.Concat(reads, writes, settings, consumerSignIns, agentSignIn, signOut)
)

// A grant permits calls.
type grant struct{ accounts, methods, presented []string }

// A caller is some rows of the table: how it connects, and what it may do.
type caller struct {
	name    string
	tls     *tls.Config // nil: to the server without TLS, on loopback
	toTLS   bool        // without TLS, to the server that wants it
	headers []string
	grants  []grant
	refused bool // the connection is refused
}

// dns changes a template to have DNS names.
func dns(names ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.DNSNames = names }
}

// bearer returns the header of a token.
func bearer(token string) []string { return []string{"authorization", "Bearer " + token} }

// xfcc returns the header with which a proxy names its client.
func xfcc(by, uri string) []string {
	return []string{"x-forwarded-client-cert", fmt.Sprintf(`By=%s;Hash=00;Subject="CN=full";URI=%s`, by, uri)}
}

func callers(t *testing.T, ours, theirs *authority, tokens *issuer.Issuer) []caller {
	everything := []grant{{[]string{withIssuer, plain}, columns, presented}}
	expired := func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }
	cn := func(name string) func(*x509.Certificate) {
		return func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: name} }
	}
	forServers := func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }
	nobody := ours.config(ours.client("spiffe://bank/nobody", nil))
	full := ours.config(ours.client("spiffe://bank/full", nil))
	proxy := ours.config(ours.client("spiffe://bank/edge", nil))
	// claim returns the header of full's token with another claim.
	claim := func(name string, value any) []string {
		claims := tokens.Claims("bank/full")
		claims[name] = value
		return bearer(tokens.Token("k1", claims))
	}
	stranger := issuer.NewKey(t)
	return []caller{
		{name: "no certificate", tls: ours.config(), refused: true},
		{name: "no TLS", toTLS: true, refused: true},
		{name: "another authority's", tls: ours.config(theirs.client("spiffe://bank/full", nil)), refused: true},
		{name: "expired", tls: ours.config(ours.client("spiffe://bank/full", expired)), refused: true},
		{name: "a server's", tls: ours.config(ours.client("spiffe://bank/full", forServers)), refused: true},
		{name: "no name", tls: ours.config(ours.client("", func(c *x509.Certificate) { c.Subject = pkix.Name{Organization: []string{"spiffe://bank/full"}} }))},
		{name: "no rule", tls: nobody},
		{name: "CN of full's URI", tls: ours.config(ours.client("", cn("spiffe://bank/full")))},
		{name: "CN uri:...full", tls: ours.config(ours.client("", cn("uri:spiffe://bank/full")))},
		{name: "CN Payments, other URI", tls: ours.config(ours.client("spiffe://bank/nobody", cn("Payments")))},
		{name: "second URI is full's", tls: ours.config(ours.client("spiffe://bank/nobody", func(c *x509.Certificate) {
			c.URIs = append(c.URIs, ours.client("spiffe://bank/full", nil).Leaf.URIs[0])
		}))},
		{name: "below reader", tls: ours.config(ours.client("spiffe://bank/ns/pay/sa/reader/x", nil))},
		{name: "*.agents.bank", tls: ours.config(ours.client("", dns("a.b.agents.bank", "a.agents.bank")))},
		{name: "spoofed XFCC", tls: nobody, headers: xfcc("spiffe://bank/edge", "spiffe://bank/full")},
		{name: "spoofed XFCC of full", tls: full, headers: xfcc("spiffe://bank/edge", "spiffe://bank/full")},
		{name: "proxy without XFCC", tls: proxy},
		{name: "proxy, no rule", tls: proxy, headers: xfcc("spiffe://bank/edge", "spiffe://bank/nobody")},
		{name: "proxy, another's XFCC", tls: proxy, headers: xfcc("spiffe://bank/other", "spiffe://bank/full")},
		{name: "proxy, client's XFCC first", tls: proxy, headers: []string{"x-forwarded-client-cert", "URI=spiffe://bank/full,By=spiffe://bank/edge;URI=spiffe://bank/nobody"}},
		{name: "proxy, full", tls: proxy, headers: xfcc("spiffe://bank/edge", "spiffe://bank/full"), grants: everything},
		{name: "JWT without signature", tls: nobody, headers: bearer("eyJhbGciOiJub25lIn0.eyJzdWIiOiJiYW5rL2Z1bGwifQ.")},
		{name: "JWT expired", tls: nobody, headers: claim("exp", time.Now().Add(-time.Hour).Unix())},
		{name: "JWT, another issuer", tls: nobody, headers: claim("iss", "https://issuer.example")},
		{name: "JWT, another audience", tls: nobody, headers: claim("aud", "another service")},
		{name: "JWT, another key", tls: nobody, headers: bearer(issuer.Sign(t, jwt.SigningMethodES256, "k1", stranger, tokens.Claims("bank/full")))},
		{name: "JWT, unknown key id", tls: nobody, headers: bearer(issuer.Sign(t, jwt.SigningMethodES256, "k9", stranger, tokens.Claims("bank/full")))},
		{name: "JWT expired, of full", tls: full, headers: claim("exp", time.Now().Add(-time.Hour).Unix())},
		{name: "JWT no rule", tls: nobody, headers: claim("sub", "bank/nobody")},
		{name: "JWT of full's URI", tls: nobody, headers: claim("sub", "spiffe://bank/full")},
		{name: "JWT no rule, of full", tls: full, headers: claim("sub", "bank/nobody")},
		{name: "JWT full", tls: nobody, headers: claim("sub", "bank/full"), grants: everything},
		{name: "JWT reader", tls: nobody, headers: claim("sub", "bank/ns/reader"), grants: []grant{{[]string{withIssuer}, reads, []string{consumer}}}},
		{name: "full", tls: full, grants: everything},
		{name: "reader", tls: ours.config(ours.client("spiffe://bank/ns/pay/sa/reader", nil)), grants: []grant{{[]string{withIssuer}, reads, []string{consumer}}}},
		{name: "writer", tls: ours.config(ours.client("spiffe://bank/writer", nil)), grants: []grant{
			{[]string{withIssuer, plain}, slices.Concat(writes, consumerSignIns), []string{consumer}},
		}},
		{name: "agents", tls: ours.config(ours.client("", dns("one.agents.bank"))), grants: []grant{
			{[]string{plain}, slices.Concat(agentSignIn, signOut, settings, []string{"FileSharingService/WatchFiles"}), []string{agent}},
		}},
		{name: "Payments", tls: ours.config(ours.client("", cn("Payments"))), grants: []grant{
			{[]string{withIssuer}, []string{"FileSharingService/Upload", "FileSharingService/GetUpload"}, []string{pay}},
			{[]string{plain}, []string{"FileSharingService/Download"}, []string{consumer}},
		}},
		{name: "loopback, no TLS", grants: everything},
	}
}

// permits reports whether a caller may make a call.
func (c caller) permits(account, method, as string) bool {
	return slices.ContainsFunc(c.grants, func(g grant) bool {
		return slices.Contains(g.accounts, account) && slices.Contains(g.methods, method) && slices.Contains(g.presented, as)
	})
}

// asked reports whether a call that presents as is in the table: a sign-in is only asked as what it returns.
func asked(method, as string) bool {
	switch {
	case slices.Contains(consumerSignIns, method):
		return as == consumer
	case slices.Contains(agentSignIn, method):
		return as == agent
	}
	return true
}

// request returns a valid request of a method.
func request(method, account string) proto.Message {
	name := "accounts/" + account
	conversation := name + "/conversations/6f0c3a52-7d9e-4b1c-9d0a-3c1d2e4f5a6b"
	file := conversation + "/files/" + base64.RawURLEncoding.EncodeToString([]byte("\n/v1/AUTH_async/"+account+"/a/b.jpg"))
	upload := name + "/uploads/6f0c3a52-7d9e-4b1c-9d0a-3c1d2e4f5a6b"
	spec := &pb.UploadSpec{Conversation: conversation, FileType: pb.FileType_FILE_TYPE_JPEG}
	return map[string]proto.Message{
		"FileSharingService/Download":            &pb.DownloadRequest{Source: &pb.DownloadRequest_Name{Name: file}},
		"FileSharingService/StatFile":            &pb.StatFileRequest{Source: &pb.StatFileRequest_Name{Name: file}},
		"FileSharingService/ListFiles":           &pb.ListFilesRequest{Parent: conversation},
		"FileSharingService/WatchFiles":          &pb.WatchFilesRequest{Parent: name + "/conversations/-"},
		"FileSharingService/GetUpload":           &pb.GetUploadRequest{Name: upload},
		"FileSharingService/GetCapabilities":     &pb.GetCapabilitiesRequest{Account: name},
		"FileSharingService/Upload":              &pb.UploadRequest{FirstMessage: &pb.UploadRequest_Spec{Spec: spec}},
		"FileSharingService/UploadSmallFile":     &pb.UploadSmallFileRequest{Spec: spec, Data: []byte{0xff, 0xd8, 0xff}},
		"FileSharingService/PublishUpload":       &pb.PublishUploadRequest{Name: upload},
		"ConversationService/GetConversation":    &pb.GetConversationRequest{Name: conversation},
		"ConversationService/ListConversations":  &pb.ListConversationsRequest{Account: name},
		"ConversationService/CreateConversation": &pb.CreateConversationRequest{Account: name},
		"ConversationService/CloseConversation":  &pb.CloseConversationRequest{Name: conversation},
		"AccountService/GetFileSharing":          &pb.GetFileSharingRequest{Account: name},
		"AccountService/SetFileSharing":          &pb.SetFileSharingRequest{Account: name, Enabled: proto.Bool(true)},
		"IdentityService/SignInConsumer": &pb.SignInConsumerRequest{
			Account: name, Grant: &pb.SignInConsumerRequest_SignUp{SignUp: &pb.SignUp{}},
		},
		"IdentityService/RenewConsumer": &pb.RenewConsumerRequest{Account: name, RenewalSecret: "unknown"},
		"IdentityService/SignInAgent": &pb.SignInAgentRequest{
			Account: name, Credentials: &pb.SignInAgentRequest_Password{Password: &pb.PasswordCredentials{Username: "nobody", Password: "wrong"}},
		},
		"IdentityService/SignOutAgent": &pb.SignOutAgentRequest{Account: name},
	}[method]
}

// Outcomes of a call, as the table prints them.
const (
	passed      = 'P'
	denied      = '.' // CALLER_NOT_PERMITTED
	refused     = '-' // the call proves no caller, or the connection was refused
	unserved    = 'n' // the rules permit it, but the server does not handle the account, or the token is of another one
	notAsked    = ' '
	unspecified = '?' // the request was invalid, which shows nothing
)

// call makes a call of a method and returns its outcome, and its error.
func call(ctx context.Context, conn *grpc.ClientConn, method string, req proto.Message) (rune, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/lpfileshare.v1."+method)
	if err == nil {
		_ = stream.SendMsg(req)
		_ = stream.CloseSend()
		err = stream.RecvMsg(&emptypb.Empty{}) // keeps the fields of any message as unknown ones
	}
	reason := lpfileshare.ErrorReason(err)
	switch {
	case err == nil:
		return passed, nil
	case reason == pb.ErrorReason_ERROR_REASON_CALLER_NOT_PERMITTED:
		return denied, err
	case strings.Contains(reason.String(), "CALLER_"), reason == 0 && status.Code(err) == codes.Unavailable:
		return refused, err
	case reason == pb.ErrorReason_ERROR_REASON_NOT_ALLOWED && (strings.Contains(err.Error(), "this server does not") || strings.Contains(err.Error(), "of another account")):
		return unserved, err
	case status.Code(err) == codes.InvalidArgument, reason == 0:
		return unspecified, err
	}
	return passed, err
}

// signIn returns the metadata of calls by what they present.
func signIn(t *testing.T, c *lpfileshare.Client, account string) map[string][]string {
	t.Helper()
	signedUp, err := harness.SignUp(t.Context(), c, account)
	if err != nil {
		t.Fatal(err)
	}
	in, err := c.Raw().Identity.SignInAgent(t.Context(), &pb.SignInAgentRequest{
		Account: "accounts/" + account, Credentials: &pb.SignInAgentRequest_Password{Password: &pb.PasswordCredentials{Username: "ann", Password: "sandbox"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return map[string][]string{
		consumer: {"lp-consumer-token", signedUp.Token}, agent: {"lp-agent-token", in.GetAgentToken()},
		pay: {"lp-external-consumer-id", "pay-1"}, other: {"lp-external-consumer-id", "chat-1"},
	}
}

const rowFormat = "%-28s %-9s %-15s %s\n"

func TestWalk(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	file := filepath.Join(t.TempDir(), "accounts.yaml")
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	writeIssuerKey(t, filepath.Join(filepath.Dir(file), "issuer.pem"))
	sb := harness.Sandbox(t, frames, sandbox.Options{Accounts: []string{withIssuer, plain}})
	start := func(args ...string) *harness.Server {
		s, err := harness.Start(program, append(append(harness.Before(sb), "--accounts="+file, "--ledger=memory", "--drain-time=2s", "--drain-notice=0s"), args...)...)
		if err != nil {
			t.Fatal(err)
		}
		s.Stopped(t)
		return s
	}
	key := filepath.Join(filepath.Dir(file), "agents.key")
	if err := os.WriteFile(key, []byte(strings.Repeat("0a", 32)), 0o600); err != nil {
		t.Fatal(err)
	}
	tokens := issuer.New(t)
	mutual := start(append(ours.server(), "--agent-token-key="+key, "--trusted-proxy=uri:spiffe://bank/edge", "--jwt-issuer="+tokens.URL(), "--jwt-audience="+issuer.Audience)...)
	if err := mutual.Logs.Wait(t.Context(), 1, "the keys of --jwt-issuer were fetched"); err != nil {
		t.Fatal(err)
	}
	loopback := start("--agent-token-key=" + key)
	identities := map[string]map[string][]string{}
	for _, account := range []string{withIssuer, plain} {
		identities[account] = signIn(t, loopback.Dial(t), account)
	}
	identities[notServed] = identities[plain]

	var table strings.Builder
	calls, wrong := 0, 0
	begin := time.Now()
	for _, c := range callers(t, ours, theirs, tokens) {
		target, creds := mutual.Addr, insecure.NewCredentials()
		if c.tls != nil {
			creds = credentials.NewTLS(c.tls)
		} else if !c.toTLS {
			target = loopback.Addr
		}
		conn, err := grpc.NewClient(target, grpc.WithTransportCredentials(creds))
		if err != nil {
			t.Fatal(err)
		}
		var rows strings.Builder
		outcomes := map[rune]bool{}
		for _, account := range []string{withIssuer, plain, notServed} {
			for _, as := range presented {
				ctx := metadata.AppendToOutgoingContext(t.Context(), slices.Concat(identities[account][as], c.headers)...)
				row := make([]rune, len(columns))
				for i, method := range columns {
					if row[i] = notAsked; !asked(method, as) {
						continue
					}
					calls++
					got, err := call(ctx, conn, method, request(method, account))
					row[i], outcomes[got] = got, true
					if !c.expects(got, account, method, as) {
						wrong++
						t.Errorf("%s, account %s, %s, %s: %v", c.name, account, as, method, err)
					}
				}
				fmt.Fprintf(&rows, rowFormat, c.name, account, as, string(row))
			}
		}
		conn.Close()
		if len(outcomes) == 1 {
			rows.Reset()
			fmt.Fprintf(&rows, rowFormat, c.name, "all", "all", strings.Repeat(string(slices.Collect(maps.Keys(outcomes))), len(columns)))
		}
		table.WriteString(rows.String())
	}
	for i, method := range columns {
		fmt.Printf("%s %s\n", strings.Repeat(" ", len(fmt.Sprintf(rowFormat, "", "", "", ""))-1+i)+"|", method)
	}
	fmt.Printf(rowFormat+"%s\n", "caller", "account", "presents", "", table.String())
	fmt.Printf("%c passed, %c denied by the rules, %c no caller or no connection, %c account not handled\n", passed, denied, refused, unserved)
	fmt.Printf("%d calls in %s, %d not as expected\n", calls, time.Since(begin).Round(time.Millisecond), wrong)
}

// expects reports whether an outcome is what the table of grants says.
func (c caller) expects(got rune, account, method, as string) bool {
	switch {
	case c.refused:
		return got == refused
	case account == notServed:
		// Rules for all accounts permit it; nothing else.
		permitted := c.permits(withIssuer, method, as) && c.permits(plain, method, as)
		return permitted && got == unserved || !permitted && (got == denied || got == refused)
	case c.permits(account, method, as):
		return got == passed
	}
	return got == denied || got == refused
}

// The table has all methods of the contract.
func TestWalk_HasAllMethods(t *testing.T) {
	var all []string
	for _, service := range []grpc.ServiceDesc{
		pb.FileSharingService_ServiceDesc, pb.ConversationService_ServiceDesc, pb.AccountService_ServiceDesc, pb.IdentityService_ServiceDesc,
	} {
		name := strings.TrimPrefix(service.ServiceName, "lpfileshare.v1.")
		for _, m := range service.Methods {
			all = append(all, name+"/"+m.MethodName)
		}
		for _, s := range service.Streams {
			all = append(all, name+"/"+s.StreamName)
		}
	}
	if want := slices.Sorted(slices.Values(all)); !slices.Equal(slices.Sorted(slices.Values(columns)), want) {
		t.Errorf("the table has %v, the contract %v", columns, want)
	}
}
