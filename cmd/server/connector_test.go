package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/nats-io/nats-server/v2/server"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/harness"
)

// sharedNATS is a NATS server that several of ours share.
func sharedNATS(t *testing.T) (flag string) {
	t.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoSigs: true, NoLog: true, JetStream: true, StoreDir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("NATS does not start")
	}
	return "--ledger=nats://" + s.Addr().String()
}

// replica is one more server before the same sandbox.
func (w *world) replica(args ...string) *world {
	w.t.Helper()
	r := &world{t: w.t, sb: w.sb, connector: w.connector, fixed: w.fixed}
	r.start(args...)
	return r
}

// deliver posts a notification to a server as LivePerson does, and returns the status.
func (w *world) deliver(n map[string]any, secret string) int {
	body, _ := json.Marshal(n)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write(body)
	req, err := http.NewRequest(http.MethodPost, w.webhooks, bytes.NewReader(body))
	if err != nil {
		w.t.Error(err)
		return 0
	}
	req.Header.Set("x-liveperson-account-id", account)
	req.Header.Set("x-liveperson-client-id", sandbox.DefaultAppID)
	req.Header.Set("x-liveperson-signature", "sha256="+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		w.t.Error(err)
		return 0
	}
	resp.Body.Close()
	return resp.StatusCode
}

// deliverUntilStored repeats a delivery that gets 503, as LivePerson does: on a busy machine a server may not store an event in time.
func deliverUntilStored(t *testing.T, w *world, n map[string]any) {
	got := http.StatusServiceUnavailable
	for end := time.Now().Add(time.Minute); got == http.StatusServiceUnavailable && time.Now().Before(end); {
		got = w.deliver(n, sandbox.DefaultAppSecret)
	}
	if got != http.StatusOK {
		t.Errorf("a delivery was answered with %d", got)
	}
}

// shownBy returns the webhook notification of a file that an agent has sent.
func shownBy(conversation string, seq int) map[string]any {
	return map[string]any{"kind": "notification", "type": "ms.MessagingEventNotification", "body": map[string]any{"changes": []any{map[string]any{
		"sequence": seq, "originatorId": "agent", "originatorMetadata": map[string]any{"id": "agent", "role": "ASSIGNED_AGENT"},
		"serverTimestamp": time.Now().UnixMilli(), "conversationId": conversation, "dialogId": conversation,
		"event": map[string]any{"type": "ContentEvent", "contentType": "hosted/file", "message": map[string]any{
			"caption": fmt.Sprint(seq), "relativePath": fmt.Sprintf("/v1/AUTH_async-images/%s/%d.PNG", account, seq), "fileType": "PNG", "preview": "",
		}},
	}}}}
}

// LivePerson delivers each event twice, in random order, to any of three servers. Each watch on each server returns each event once and
// in order.
func TestConnectorWebhooks_ThreeReplicas(t *testing.T) {
	t.Parallel()
	const events = 60
	// The sandbox does not have these events and would give receipts the same sequences. The gap is longer than any machine needs for
	// the deliveries, because a watch does not wait longer than that for a missing event.
	flags := []string{sharedNATS(t), "--event-gap=30m", "--no-accept-receipts"}
	first := newConnectorWorld(t, sandbox.Options{}, true, flags...)
	replicas := []*world{first, first.replica(flags...), first.replica(flags...)}
	if err := first.sb.SetWebhooks("", "", sandbox.Webhooks{}); err != nil { // the test delivers
		t.Fatal(err)
	}
	c := first.consumer()
	conv := first.conversation(c.Client)

	received := make([]chan *pb.File, 0, 2*len(replicas))
	for _, r := range replicas {
		for _, parent := range []string{conv, accountPath + "/conversations/-"} {
			into := make(chan *pb.File, events+10)
			watch(t, r.again(c), parent, into)
			received = append(received, into)
		}
	}
	begun := time.Now()
	order := rand.Perm(2 * events)
	var wg sync.WaitGroup
	for lane := range 12 {
		wg.Go(func() {
			for i := lane; i < len(order); i += 12 {
				deliverUntilStored(t, replicas[rand.IntN(len(replicas))], shownBy(path.Base(conv), order[i]/2))
			}
		})
	}
	wg.Wait()
	delivered := time.Since(begun)
	for i, from := range received {
		for seq := range int64(events) {
			if f := next(t, from); f.GetMessageSequence() != seq || f.GetCaption() != fmt.Sprint(seq) {
				t.Fatalf("watch %d gave %d, want %d", i, f.GetMessageSequence(), seq)
			}
		}
	}
	// An event that is sent twice would arrive before one more event.
	deliverUntilStored(t, first, shownBy(path.Base(conv), events))
	for i, from := range received {
		if f := next(t, from); f.GetMessageSequence() != events {
			t.Errorf("watch %d gave %d again", i, f.GetMessageSequence())
		}
	}
	http.DefaultClient.CloseIdleConnections()
	fmt.Printf("replicas: %d events, each delivered twice in random order to 3 servers in %s: each of %d watches gave %d files, once each and in order\n",
		events, delivered.Round(time.Millisecond), len(received), events)
}

func TestConnectorWebhooks_RejectsWrongSignature(t *testing.T) {
	t.Parallel()
	w := newConnectorWorld(t, sandbox.Options{}, true)
	c := w.consumer()
	conv := w.conversation(c.Client)
	list := func() int {
		files, err := c.Files(t.Context(), lpfileshare.FilesOptions{Parent: conv}).Collect()
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	for secret, want := range map[string]int{"": 401, "other": 401} {
		if got := w.deliver(shownBy(path.Base(conv), 7), secret); got != want || list() != 0 {
			t.Errorf("signed with %q: %d, and %d files", secret, got, list())
		}
	}
	for range 3 {
		if got := w.deliver(shownBy(path.Base(conv), 7), sandbox.DefaultAppSecret); got != 200 || list() != 1 {
			t.Errorf("signed well, once or again: %d, and %d files", got, list())
		}
	}
	http.DefaultClient.CloseIdleConnections()
	// And the sandbox's own, signed wrongly, twice, in any order.
	w.sb.Inject(sandbox.Fault{On: "webhook:POST", WrongSignature: true, Count: 1})
	w.sb.Inject(sandbox.Fault{On: "webhook:POST", Twice: true, Shuffle: true, Count: 20})
	w.upload(c.Client, lpfileshare.UploadOptions{Conversation: conv, DisplayName: "a.png"}, tinyPNG(t))
	if n := list(); n != 2 {
		t.Errorf("%d files", n)
	}
}

func TestConnectorWithoutWebhooks_ListsOwnFiles(t *testing.T) {
	t.Parallel()
	w := newConnectorWorld(t, sandbox.Options{AutoAssign: true}, false)
	c := w.consumer()
	conv := w.conversation(c.Client)
	data := tinyPNG(t)
	file := w.upload(c.Client, lpfileshare.UploadOptions{Conversation: conv, DisplayName: "a.png"}, data)
	stream, err := c.Raw().Files.WatchFiles(t.Context(), &pb.WatchFilesRequest{Parent: conv})
	if err == nil {
		_, err = stream.Recv()
	}
	wantReason(t, err, pb.ErrorReason_ERROR_REASON_WEBHOOK_NOT_CONFIGURED)
	w.stop()
	w.start()
	again := w.again(c)
	var names []string
	for f, err := range again.Files(t.Context(), lpfileshare.FilesOptions{Parent: accountPath + "/conversations/-"}).All() {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, f.GetName())
	}
	if !slices.Equal(names, []string{file.GetName()}) {
		t.Errorf("after a restart %v are listed", names)
	}
	if got := w.download(again, file.GetName()); !bytes.Equal(got, data) {
		t.Error("the downloaded bytes differ from the uploaded ones")
	}
}

// A message whose answer was lost is confirmed by its echo, or by nothing; it is never sent again.
func TestConnectorUpload_LostAnswerIsNotSentAgain(t *testing.T) {
	t.Parallel()
	for _, webhooks := range []bool{true, false} {
		t.Run(fmt.Sprintf("webhooks %t", webhooks), func(t *testing.T) {
			t.Parallel()
			w := newConnectorWorld(t, sandbox.Options{}, webhooks, "--lp-timeout=2s", "--settle=500ms")
			c := w.consumer()
			o := lpfileshare.UploadOptions{Conversation: w.conversation(c.Client), DisplayName: "a.png", RequestID: uuid.NewString(), RetryFor: -1}
			w.sb.Inject(sandbox.Fault{On: "ms.PublishEvent", DropAfter: true, Count: 1})
			w.sb.Inject(sandbox.Fault{On: "webhook:ContentEvent", Status: 500, Count: 1}) // its first delivery is lost too
			limit := time.Now().Add(time.Minute)
			for try := 0; webhooks && time.Now().Before(limit) || try < 4; try++ {
				resp, err := c.Upload(t.Context(), o, bytes.NewReader(tinyPNG(t)))
				switch {
				case err == nil && webhooks:
					if resp.GetFile().MessageSequence == nil {
						t.Errorf("try %d: %v", try, resp)
					}
				case err == nil:
					t.Errorf("try %d: without webhooks the message cannot be confirmed: %v", try, resp)
				default:
					wantReason(t, err, pb.ErrorReason_ERROR_REASON_LP_PUBLISH_UNCONFIRMED)
				}
				if n := len(w.sb.Journal().Published); n != 1 {
					t.Fatalf("try %d: %d messages", try, n)
				}
				if err == nil {
					return
				}
			}
			if webhooks {
				t.Error("no webhook confirmed the message")
			}
		})
	}
}

func TestConnectorWatch_LateFileResetsTheWatch(t *testing.T) {
	t.Parallel()
	w := newConnectorWorld(t, sandbox.Options{}, true, "--event-gap=200ms", "--debug-listen=127.0.0.1:0", "--no-accept-receipts")
	if err := w.sb.SetWebhooks("", "", sandbox.Webhooks{}); err != nil {
		t.Fatal(err)
	}
	c := w.consumer()
	conv := w.conversation(c.Client)
	received := make(chan *pb.File, 10)
	ended := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	token := watchToken(t, c.Client, conv)
	go func() {
		ended <- watchInto(c.Watch(ctx, lpfileshare.WatchOptions{Parent: conv, Token: token}), received)
	}()
	if got := w.deliver(shownBy(path.Base(conv), 1), sandbox.DefaultAppSecret); got != http.StatusOK {
		t.Errorf("a delivery was answered with %d", got)
	}
	if f := next(t, received); f.GetMessageSequence() != 1 {
		t.Errorf("received %v", f)
	}
	if got := w.deliver(shownBy(path.Base(conv), 0), sandbox.DefaultAppSecret); got != http.StatusOK {
		t.Errorf("a delivery was answered with %d", got)
	}
	if err := <-ended; !errors.Is(err, lpfileshare.ErrWatchReset) {
		t.Errorf("the watch ended with %v", err)
	}
	resp, err := http.Get("http://" + regexp.MustCompile(`debug=(\S+)`).FindStringSubmatch(w.logs.String())[1] + "/debug/webhooks")
	if err != nil {
		t.Fatal(err)
	}
	var counts struct{ Kept, Repeated, Rejected, Failed, Late int }
	if err := json.NewDecoder(resp.Body).Decode(&counts); err != nil || counts.Late != 1 || counts.Kept != 2 {
		t.Errorf("counted %+v, %v", counts, err)
	}
	resp.Body.Close()
	var seqs []int64
	for f, err := range c.Files(ctx, lpfileshare.FilesOptions{Parent: conv}).All() {
		if err != nil {
			t.Fatal(err)
		}
		seqs = append(seqs, f.GetMessageSequence())
	}
	if !slices.Equal(seqs, []int64{0, 1}) {
		t.Errorf("%v are listed", seqs)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestReload_ChangesMessengerAndSecret(t *testing.T) {
	w := newSandboxWorld(t, sandbox.Options{})
	connector := func(secret string) string {
		t.Setenv("TEST_APP_SECRET", secret)
		return fmt.Sprintf("accounts:\n  %q:\n    messenger: connector\n    app: {id: %s, secret_env: TEST_APP_SECRET}\n", account, sandbox.DefaultAppID)
	}
	file := newAccountsFile(t, connector("wrong"))
	w.start("--accounts=" + file.path)
	signedUp := w.consumer()
	external := w.dial().As(lpfileshare.ExternalConsumerID("anna"))
	create := func(c *lpfileshare.Client) error {
		_, err := c.CreateConversation(t.Context(), &pb.CreateConversationRequest{Account: accountPath})
		return err
	}
	wantReason(t, create(external), pb.ErrorReason_ERROR_REASON_LP_CREDENTIALS_REJECTED)
	wantReason(t, create(signedUp.Client), pb.ErrorReason_ERROR_REASON_NOT_ALLOWED)

	const read = "accounts file reloaded"
	file.write(connector(sandbox.DefaultAppSecret))
	w.hangUp(read)
	if err := create(external); err != nil {
		t.Errorf("with the right secret: %v", err)
	}
	file.write(fmt.Sprintf("accounts:\n  %q: {}\n", account))
	w.hangUp(read)
	wantReason(t, create(external), pb.ErrorReason_ERROR_REASON_IDENTITY_NOT_CONFIGURED)
	if err := create(signedUp.Client); err != nil {
		t.Errorf("over the messaging socket: %v", err)
	}
}

func TestConnectorWebhooks_ReloadTLSCertificate(t *testing.T) {
	a := newAuthority(t, "hooks")
	flags := a.server("one")
	w := newConnectorWorld(t, sandbox.Options{WebhookTLS: a.config("")}, true,
		"--webhook-cert="+strings.TrimPrefix(flags[0], "--tls-cert="), "--webhook-key="+strings.TrimPrefix(flags[1], "--tls-key="))
	hook := strings.Replace(w.webhooks, "http://", "https://", 1)
	if err := w.sb.SetWebhooks("", "", sandbox.Webhooks{Endpoints: sandbox.AllEvents(hook)}); err != nil {
		t.Fatal(err)
	}
	c := w.consumer()
	conv := w.conversation(c.Client)
	received := make(chan *pb.File, 10)
	watch(t, c.Client, conv, received)
	w.upload(c.Client, lpfileshare.UploadOptions{Conversation: conv, DisplayName: "a.png"}, tinyPNG(t))
	next(t, received)
	delivered := func() (n int) {
		for _, d := range w.sb.Journal().Delivered {
			if d.Outcome == sandbox.HookDelivered {
				n++
			}
		}
		return n
	}
	harness.Eventually(t, "webhooks arrive by TLS", func() bool { return delivered() >= 2 })

	serial := func() string {
		conn, err := tls.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(hook, "https://"), "/webhooks"), a.config(""))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	before := serial()
	a.server("one") // replaces it
	w.hangUp("accounts file reloaded")
	harness.Eventually(t, "the new certificate is shown", func() bool { return serial() != before })
}
