package policy

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/harness"
)

// Rules that change while calls run have an effect on the calls that they are about, and on no others. No signal is sent.
func TestRotation(t *testing.T) {
	const rotations, broken = 20, 7
	ours := newAuthority(t)
	file := filepath.Join(t.TempDir(), "accounts.yaml")
	write := func(text string) {
		t.Helper()
		err := os.WriteFile(file+".new", []byte(text), 0o600)
		if err == nil {
			err = os.Rename(file+".new", file)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// In each round the rule of stays is another one, and that of changes is there in every second round.
	content := func(n int) string {
		text := "accounts: {\"12345678\": }\ncallers:\n" + [...]string{
			"- {certificates: \"uri:spiffe://bank/stays\", accounts: all, tokens: consumer}\n",
			"- {certificates: any, accounts: all, methods: account-settings, tokens: agent}\n- {certificates: \"uri:spiffe://bank/*\", accounts: all, methods: [read, write], tokens: consumer}\n",
			"- {certificates: \"uri:spiffe://bank/stays\", accounts: [\"12345678\"], methods: [Upload, Download, WatchFiles], tokens: [consumer, agent]}\n",
		}[n%3]
		if n%2 == 0 {
			text += "- {certificates: \"dns:changes\", accounts: all, methods: [read], tokens: consumer}\n"
		}
		return text
	}
	write(content(0))
	sb := harness.Sandbox(t, frames, sandbox.Options{})
	args := append(harness.Before(sb), "--ledger=memory", "--drain-time=2s", "--drain-notice=0s")
	loopback, err := harness.Start(program, args...)
	if err != nil {
		t.Fatal(err)
	}
	loopback.Stopped(t)
	server, err := harness.Start(program, append(append(args, ours.server()...), "--accounts="+file, "--reload-every=20ms", "--heartbeat-interval=100ms")...)
	if err != nil {
		t.Fatal(err)
	}
	server.Stopped(t)
	as := func(c harness.Consumer, pair tls.Certificate) *lpfileshare.Client {
		client, err := lpfileshare.Dial(server.Addr, lpfileshare.WithTLS(ours.config(pair)))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		return client.As(c.Credential())
	}
	stays, changes := ours.client("spiffe://bank/stays", nil), ours.client("", dns("changes"))

	ctx, end := context.WithCancel(t.Context())
	defer end()
	var running sync.WaitGroup
	var calls, failed atomic.Int64
	for n := range 3 {
		who := loopback.Consumer(t)
		client, data := as(who, stays), harness.Photo(t, uint64(n), 20_000+n*40_000)
		running.Go(func() {
			for ctx.Err() == nil { // the calls themselves are not cut off, so that each must succeed
				resp, err := client.Upload(context.WithoutCancel(ctx), lpfileshare.UploadOptions{Conversation: who.Conversation, DisplayName: "a.jpg", RetryFor: -1}, bytes.NewReader(data))
				if err == nil {
					_, err = client.Download(context.WithoutCancel(ctx), lpfileshare.DownloadOptions{Name: resp.GetFile().GetName(), RetryFor: -1}, &bytes.Buffer{})
				}
				if calls.Add(2); err != nil {
					failed.Add(1)
					t.Errorf("a permitted call failed: %v", err)
					return
				}
			}
		})
	}
	watcher := loopback.Consumer(t)
	watching := make(chan error, 1)
	go func() { watching <- watch(ctx, as(watcher, stays), watcher.Conversation) }()

	changing := as(watcher, changes)
	begin, reloaded := time.Now(), 0
	for n := 1; n <= rotations; n++ {
		if n == broken {
			write("accounts: {\"12345678\": }\ncallers: [{certificates: any, accounts: all, methods: Uplaod, tokens: consumer}]\n")
			logged(t, server, 1, "accounts file is invalid", "accounts.yaml:2: ", "Uplaod")
		}
		ended := make(chan error, 1)
		if n%2 == 1 { // it will be denied
			go func() { ended <- watch(ctx, changing, watcher.Conversation) }()
		}
		before := calls.Load()
		write(content(n))
		reloaded++
		logged(t, server, reloaded, "accounts file reloaded")
		_, err := changing.Raw().Files.ListFiles(t.Context(), &pb.ListFilesRequest{Parent: watcher.Conversation})
		switch denied := lpfileshare.ErrorReason(err) == pb.ErrorReason_ERROR_REASON_CALLER_NOT_PERMITTED; {
		case n%2 == 0 && err != nil:
			t.Errorf("round %d: a call that is permitted again: %v", n, err)
		case n%2 == 1 && !denied:
			t.Errorf("round %d: a call that is not permitted any more: %v", n, err)
		}
		if n%2 == 1 {
			if err := harness.Next(t, ended); lpfileshare.ErrorReason(err) != pb.ErrorReason_ERROR_REASON_CALLER_NOT_PERMITTED {
				t.Errorf("round %d: a watch that is not permitted any more ended with %v", n, err)
			}
		}
		harness.Eventually(t, "calls continue", func() bool { return calls.Load() > before+2 || t.Failed() })
	}
	took := time.Since(begin)
	select {
	case err := <-watching:
		t.Errorf("the watch ended: %v", err)
	default:
	}
	end()
	running.Wait()
	if err := <-watching; !errors.Is(err, context.Canceled) {
		t.Errorf("the watch ended with %v", err)
	}
	fmt.Printf("rules rewritten %d times in %s, once with an error: %d permitted calls, %d failed\n", rotations, took.Round(time.Millisecond), calls.Load(), failed.Load())
}

// watch watches a conversation until the watch ends, and returns why.
func watch(ctx context.Context, c *lpfileshare.Client, parent string) error {
	for _, err := range c.Watch(ctx, lpfileshare.WatchOptions{Parent: parent}).All() {
		if err != nil {
			return err
		}
	}
	return nil
}

// logged waits until so many lines of the server's log contain all words.
func logged(t *testing.T, s *harness.Server, count int, words ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := s.Logs.Wait(ctx, count, words...); err != nil {
		t.Fatalf("the log does not say %q %d times: %v\n%s", strings.Join(words, " "), count, err, s.Logs.Tail())
	}
}
