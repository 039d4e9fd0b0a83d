package main

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// anyCaller is a rule that permits everything to each certificate.
const anyCaller = "callers: [{certificates: any, accounts: all, tokens: [consumer, agent], consumers: \"*\"}]\n"

func TestCallers_RulesAreRequired(t *testing.T) {
	t.Parallel()
	ours := newAuthority(t, "ours")
	mutual := append(ours.server("server"), "--tls-client-ca="+ours.ca())
	start := func(args ...string) (code int, said string) {
		var out, errs bytes.Buffer
		code = run(t.Context(), append([]string{"--ledger=memory", "--listen=0.0.0.0:0"}, args...), &out, &errs)
		return code, errs.String()
	}
	accepted := func(file accountsFile) {
		t.Helper()
		var out, errs bytes.Buffer
		f, _, done := parse(append([]string{"--listen=0.0.0.0:0", "--accounts=" + file.path}, mutual...), &out, &errs)
		if done {
			t.Fatal(errs.String())
		}
		if _, err := f.accounts(); err != nil {
			t.Error(err)
		}
	}
	// The example in the message is a file that the server accepts.
	for _, served := range [][]string{nil, {"--serve-account=12345678", "--serve-account=le1"}} {
		code, said := start(append(mutual, served...)...)
		_, example, ok := strings.Cut(said, "for example:\n\n")
		if code != 1 || !ok || !strings.Contains(said, "--accounts") {
			t.Fatalf("%v: code %d, %s", served, code, said)
		}
		accepted(newAccountsFile(t, example))
	}
	without := newAccountsFile(t, "others: allow\n")
	code, said := start(append(mutual, "--accounts="+without.path)...)
	_, example, ok := strings.Cut(strings.TrimSpace(said), "for example ")
	if code != 1 || !ok || !strings.Contains(said, without.path+": --tls-client-ca requires rules") {
		t.Fatalf("code %d, %s", code, said)
	}
	without.write("others: allow\n" + example + "\n")
	accepted(without)
	// Rules without certificates protect nothing.
	if code, said := start(append(ours.server("server"), "--accounts="+without.path)...); code != 1 || !strings.Contains(said, "add --tls-client-ca, --spiffe-socket or --jwt-issuer, or remove callers") {
		t.Errorf("rules without client certificates: code %d, %s", code, said)
	}
}

func TestCallers(t *testing.T) {
	ours := newAuthority(t, "ours")
	ours.client("chat", "spiffe://mesh/chat")
	ours.client("pay", "spiffe://mesh/ns/pay")
	ours.client("reader", "spiffe://mesh/reader")
	ours.issue("common", &x509.Certificate{Subject: pkix.Name{CommonName: "spiffe://mesh/chat"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	ours.issue("nameless", &x509.Certificate{Subject: pkix.Name{Organization: []string{"spiffe://mesh/chat"}}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	file, opts := accountsWithIssuer(t)
	const rules = withIssuer + "  \"87654321\":\n" + `callers:
- certificates: [uri:spiffe://mesh/chat]
  accounts: ["` + account + `"]
  tokens: consumer
- certificates: [uri:spiffe://mesh/ns/*]
  accounts: all
  consumers: ["pay-*"]
- certificates: [uri:spiffe://mesh/reader]
  accounts: all
  methods: [read, SignInConsumer]
  tokens: consumer
`
	file.write(rules)
	w := newWorld(t, opts, append(ours.server("server"), "--tls-client-ca="+ours.ca(), "--accounts="+file.path)...)
	clients := map[string]*lpfileshare.Client{}
	for _, name := range []string{"chat", "pay", "reader", "common", "nameless"} {
		clients[name] = w.dialTLS(ours.config(name))
	}
	signUp := func(c *lpfileshare.Client, account string) (string, error) {
		resp, err := c.SignInConsumer(t.Context(), &pb.SignInConsumerRequest{
			Account: "accounts/" + account, Grant: &pb.SignInConsumerRequest_SignUp{SignUp: &pb.SignUp{}},
		})
		return resp.Token, err
	}
	token, err := signUp(clients["chat"], account)
	if err != nil {
		t.Fatal(err)
	}
	use := func(c *lpfileshare.Client, id lpfileshare.Identity, account string) error {
		_, err := c.As(id).Raw().Files.ListFiles(t.Context(), &pb.ListFilesRequest{Parent: "accounts/" + account + "/conversations/-"})
		return err
	}
	const denied = pb.ErrorReason_ERROR_REASON_CALLER_NOT_PERMITTED
	consumer := lpfileshare.ConsumerToken(lpfileshare.StaticToken(token))
	check := func(certificate string, id lpfileshare.Identity, account string, want pb.ErrorReason) {
		t.Helper()
		if err := use(clients[certificate], id, account); want != 0 {
			wantReason(t, err, want)
		} else if err != nil {
			t.Errorf("%s is denied %s: %v", certificate, account, err)
		}
	}
	check("chat", consumer, account, 0)
	check("chat", consumer, "87654321", denied)
	check("chat", lpfileshare.ExternalConsumerID("pay-1"), account, denied)
	check("reader", consumer, account, 0)
	_, err = clients["reader"].As(consumer).CreateConversation(t.Context(), &pb.CreateConversationRequest{Account: accountPath})
	wantReason(t, err, denied)
	_, err = clients["reader"].As(consumer).Upload(t.Context(), lpfileshare.UploadOptions{Conversation: accountPath + "/conversations/a", DisplayName: "a.jpg", RetryFor: -1}, bytes.NewReader(photo(t, 10_000)))
	wantReason(t, err, denied)
	if _, err := signUp(clients["reader"], account); err != nil {
		t.Errorf("a method that a rule names is denied: %v", err)
	}
	check("pay", consumer, account, denied)
	check("pay", lpfileshare.ExternalConsumerID("pay-1"), account, 0)
	check("pay", lpfileshare.ExternalConsumerID("pay-1"), "87654321", pb.ErrorReason_ERROR_REASON_IDENTITY_NOT_CONFIGURED)
	check("pay", lpfileshare.ExternalConsumerID("chat-1"), account, denied)
	check("common", lpfileshare.ExternalConsumerID("pay-1"), account, denied)
	check("nameless", lpfileshare.ExternalConsumerID("pay-1"), account, pb.ErrorReason_ERROR_REASON_CALLER_NOT_AUTHENTICATED)
	for _, other := range []string{"common", "nameless"} {
		check(other, consumer, account, denied)
		_, err := signUp(clients[other], account)
		wantReason(t, err, denied)
	}

	// Probes need no rule.
	conn, err := grpc.NewClient(w.grpc, grpc.WithTransportCredentials(credentials.NewTLS(ours.config("common"))))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if resp, err := healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil || resp.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("health: %v, %v", resp, err)
	}
	reflected, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	if err == nil {
		_ = reflected.Send(&reflectionpb.ServerReflectionRequest{MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{}})
		_, err = reflected.Recv()
		_ = reflected.CloseSend()
	}
	if err != nil {
		t.Errorf("reflection: %v", err)
	}

	// Rules are reloaded, for open connections too. A file without them, or with an error in them, changes nothing.
	for _, invalid := range []string{withIssuer, strings.Replace(rules, "uri:spiffe://mesh/chat", "spiffe://mesh/chat", 1), strings.Replace(rules, "all", `["99"]`, 1)} {
		file.write(invalid)
		w.hangUp(notUsable)
		check("chat", consumer, account, 0)
		check("common", consumer, account, denied)
	}
	file.write(strings.Replace(rules, "uri:spiffe://mesh/chat", "cn:spiffe://mesh/chat", 1))
	w.hangUp(readAgain)
	check("chat", consumer, account, denied)
	check("common", consumer, account, 0)
	if line := lineWith(t, w, readAgain, 1); !strings.Contains(line, "callers_changed=true") {
		t.Errorf("the log says %s", line)
	}
}
