package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/uuid"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
)

// issuerName is the brand's at LivePerson.
const issuerName = "https://brand.example.com"

// brandKeys are two keys of the brand's, made once.
var brandKeys = sync.OnceValue(func() (keys [2]*rsa.PrivateKey) {
	for i := range keys {
		var err error
		if keys[i], err = rsa.GenerateKey(rand.Reader, 2048); err != nil {
			panic(err)
		}
	}
	return keys
})

func writeKey(t *testing.T, path string, key *rsa.PrivateKey) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

const withIssuer = "accounts:\n  \"" + account + "\":\n    identity: {issuer: {name: \"" + issuerName + "\", key_id: k1, key_file: issuer.pem}}\n"

// accountsWithIssuer is an accounts file whose account has the brand's issuer, and a LivePerson that knows it.
func accountsWithIssuer(t *testing.T) (accountsFile, sandbox.Options) {
	file := newAccountsFile(t, withIssuer)
	writeKey(t, filepath.Join(filepath.Dir(file.path), "issuer.pem"), brandKeys()[0])
	return file, sandbox.Options{Brands: map[string]sandbox.Brand{account: {Issuer: issuerName, Key: brandKeys()[0].Public()}}}
}

func TestExternalConsumer_EndedTokenIsReplacedOnce(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		fault sandbox.Fault
		want  pb.ErrorReason
	}{
		{sandbox.Fault{On: "ms.GenerateURLForUploadFile", CloseCode: 4401, Count: 1}, 0},
		{sandbox.Fault{On: "ms.PublishEvent", CloseCode: 4401, Count: 1}, 0},
		{sandbox.Fault{On: "ms.GenerateURLForUploadFile", CloseCode: 4401}, pb.ErrorReason_ERROR_REASON_LP_CREDENTIALS_REJECTED},
		{sandbox.Fault{On: "ws:upgrade", Status: 401}, pb.ErrorReason_ERROR_REASON_LP_CREDENTIALS_REJECTED},
		{sandbox.Fault{On: "http:authenticate", Status: 401}, pb.ErrorReason_ERROR_REASON_LP_CREDENTIALS_REJECTED},
		{sandbox.Fault{On: "http:authenticate", Status: 503}, pb.ErrorReason_ERROR_REASON_LP_UNAVAILABLE},
	} {
		t.Run(fmt.Sprintf("%s %d %d %d", test.fault.On, test.fault.CloseCode, test.fault.Status, test.fault.Count), func(t *testing.T) {
			t.Parallel()
			file, opts := accountsWithIssuer(t)
			w := newWorld(t, opts, "--accounts="+file.path, "--lp-timeout=4s", "--settle=1s")
			c := w.dial().As(lpfileshare.ExternalConsumerID("c-1"))
			conv := "accounts/" + account + "/conversations/c"
			if !strings.Contains(test.fault.On, ":") {
				conv = w.conversation(c)
			}
			w.sb.Inject(test.fault)
			_, err := c.Upload(t.Context(), lpfileshare.UploadOptions{Conversation: conv, DisplayName: "a.jpg", RetryFor: -1}, bytes.NewReader(photo(t, 20_000)))
			published := len(w.sb.Journal().Published)
			if test.want != 0 {
				wantReason(t, err, test.want)
			} else if err != nil || published != 1 {
				t.Errorf("%v, and %d messages", err, published)
			}
		})
	}
}

func TestExternalConsumer_RequiresAuthenticatedCaller(t *testing.T) {
	t.Parallel()
	file, opts := accountsWithIssuer(t)
	id := lpfileshare.ExternalConsumerID("c-1")
	ask := func(c *lpfileshare.Client, account string) error {
		_, err := c.As(id).Raw().Files.GetCapabilities(t.Context(), &pb.GetCapabilitiesRequest{Account: "accounts/" + account})
		return err
	}
	t.Run("loopback", func(t *testing.T) {
		plain := newAccountsFile(t, withIssuer+"  \"87654321\":\n")
		writeKey(t, filepath.Join(filepath.Dir(plain.path), "issuer.pem"), brandKeys()[0])
		w := newWorld(t, opts, "--accounts="+plain.path)
		if err := ask(w.dial(), account); err != nil {
			t.Error(err)
		}
		wantReason(t, ask(w.dial(), "87654321"), pb.ErrorReason_ERROR_REASON_IDENTITY_NOT_CONFIGURED)
		wantReason(t, ask(w.dial(), "1"), pb.ErrorReason_ERROR_REASON_NOT_ALLOWED)
	})
	t.Run("a server that listens everywhere", func(t *testing.T) {
		w := newWorld(t, opts, "--listen=0.0.0.0:0", "--allow-plaintext")
		w.grpc = "127.0.0.1" + w.grpc[strings.LastIndex(w.grpc, ":"):]
		wantReason(t, ask(w.dial(), account), pb.ErrorReason_ERROR_REASON_CALLER_NOT_AUTHENTICATED)

		ours := newAuthority(t, "ours")
		w = newWorld(t, opts, append(ours.server("server"), "--listen=0.0.0.0:0")...)
		w.grpc = "127.0.0.1" + w.grpc[strings.LastIndex(w.grpc, ":"):]
		wantReason(t, ask(w.dialTLS(ours.config("")), account), pb.ErrorReason_ERROR_REASON_CALLER_NOT_AUTHENTICATED)
	})
	t.Run("client certificates", func(t *testing.T) {
		ours := newAuthority(t, "ours")
		ours.client("orders", "spiffe://mesh/orders")
		ours.client("billing", "spiffe://mesh/billing")
		file.write(withIssuer + anyCaller)
		w := newWorld(t, opts, append(ours.server("server"), "--listen=0.0.0.0:0", "--tls-client-ca="+ours.ca(), "--accounts="+file.path)...)
		w.grpc = "127.0.0.1" + w.grpc[strings.LastIndex(w.grpc, ":"):]
		orders, billing := w.dialTLS(ours.config("orders")).As(id), w.dialTLS(ours.config("billing")).As(id)
		conv := w.conversation(orders)
		o := lpfileshare.UploadOptions{Conversation: conv, DisplayName: "a.jpg", RequestID: uuid.NewString()}
		data := photo(t, 20_000)
		w.upload(orders, o, data)
		create := &pb.CreateConversationRequest{Account: accountPath, RequestId: uuid.NewString()}
		// A retry by another service that may call for the consumer finds the record.
		for _, service := range []*lpfileshare.Client{orders, billing} {
			resp, err := service.Upload(t.Context(), o, bytes.NewReader(data))
			if err != nil || !resp.GetReplayed() {
				t.Errorf("a repeat: %v, %v; want it replayed", resp, err)
			}
			created, err := service.Raw().Conversations.CreateConversation(t.Context(), create)
			if err != nil || created.GetReplayed() != (service == billing) {
				t.Errorf("a conversation: %v, %v", created, err)
			}
		}
		if n := len(w.sb.Journal().Published); n != 1 {
			t.Errorf("%d messages", n)
		}
		if n := w.sb.Sockets(); n != 1 {
			t.Errorf("%d sockets for one consumer", n)
		}
	})
}

func TestExternalConsumer_CredentialsRequireKnownCallers(t *testing.T) {
	file, opts := accountsWithIssuer(t)
	var out, errs bytes.Buffer
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	args := []string{"--listen=0.0.0.0:0", "--allow-plaintext", "--ledger=memory", "--accounts=" + file.path}
	if code := run(ctx, args, &out, &errs); code != 1 || !strings.Contains(errs.String(), "--tls-client-ca") || !strings.Contains(errs.String(), account) {
		t.Errorf("%d %s", code, errs.String())
	}

	// The same at a reload: what held before does.
	late := newAccountsFile(t, "accounts: {\""+account+"\": }\n")
	writeKey(t, filepath.Join(filepath.Dir(late.path), "issuer.pem"), brandKeys()[0])
	w := newWorld(t, opts, "--listen=0.0.0.0:0", "--allow-plaintext", "--accounts="+late.path)
	late.write(withIssuer)
	w.hangUp(notUsable)
	if line := lineWith(t, w, notUsable, 1); !strings.Contains(line, "--tls-client-ca") {
		t.Errorf("the line is %s", line)
	}
}

func TestReload_ReadsIssuerKey(t *testing.T) {
	file, opts := accountsWithIssuer(t)
	key := filepath.Join(filepath.Dir(file.path), "issuer.pem")
	writeKey(t, key, brandKeys()[1]) // which LivePerson does not know
	w := newWorld(t, opts, "--accounts="+file.path)
	c := w.dial().As(lpfileshare.ExternalConsumerID("c-1"))
	ask := func() error {
		_, err := c.Raw().Files.GetCapabilities(t.Context(), &pb.GetCapabilitiesRequest{Account: accountPath})
		return err
	}
	err := ask()
	wantReason(t, err, pb.ErrorReason_ERROR_REASON_LP_CREDENTIALS_REJECTED)
	var e *lpfileshare.Error
	if !errors.As(err, &e) || !strings.Contains(e.Error(), "issuer, key and key id") {
		t.Errorf("it does not say what to do: %v", err)
	}
	writeKey(t, key, brandKeys()[0])
	w.hangUp(readAgain)
	if err := ask(); err != nil {
		t.Errorf("with the right key: %v", err)
	}
	// And away from it: sessions that were opened by another key are not given out.
	writeKey(t, key, brandKeys()[1])
	w.hangUp(readAgain)
	wantReason(t, ask(), pb.ErrorReason_ERROR_REASON_LP_CREDENTIALS_REJECTED)
	file.write("accounts: {\"" + account + "\": }\n")
	w.hangUp(readAgain)
	wantReason(t, ask(), pb.ErrorReason_ERROR_REASON_IDENTITY_NOT_CONFIGURED)
}
