package abuse

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/harness"
)

// bigPicture is a PNG of 40 megapixels, which is small until it is decoded.
var bigPicture = sync.OnceValue(func() []byte {
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewNRGBA(image.Rect(0, 0, 8000, 5000))); err != nil {
		panic(err)
	}
	return b.Bytes()
})

// previews uploads pictures that take much memory to decode, and has the server generate previews.
func previews(ctx context.Context, s *server) {
	c := s.Consumer(s.t)
	atOnce(ctx, 8, func(ctx context.Context, _ int) {
		_, _ = c.UploadBytes(ctx, lpfileshare.UploadOptions{
			Conversation: c.Conversation, FileType: pb.FileType_FILE_TYPE_PNG, RetryFor: -1,
			Preview: &pb.Preview{Source: &pb.Preview_Generate{Generate: true}},
		}, bigPicture())
	})
}

// unfinished begins messages that never end, on four connections with 250 streams each.
func unfinished(ctx context.Context, s *server) {
	var running sync.WaitGroup
	defer running.Wait()
	for range 4 {
		running.Go(func() {
			for ctx.Err() == nil {
				c, err := dialStalled(ctx, s.Addr)
				if err != nil {
					return
				}
				stop := context.AfterFunc(ctx, func() { c.Close() })
				c.unfinished(ctx, 250)
				stop()
				c.Close()
			}
		})
	}
}

// fullUploads keeps uploads of 3 MB that lack their last byte.
func fullUploads(ctx context.Context, s *server) {
	c := s.Consumer(s.t)
	spec := textSpec(c.Conversation)
	atOnce(ctx, 64, func(ctx context.Context, _ int) {
		stream, err := c.Raw().Files.Upload(ctx)
		if err != nil {
			return
		}
		_ = stream.Send(&pb.UploadRequest{FirstMessage: &pb.UploadRequest_Spec{Spec: spec}})
		for at := 0; at < 2_999_000 && err == nil; at += 1000 {
			err = stream.Send(&pb.UploadRequest{Chunk: &pb.DataChunk{Offset: int64(at), Data: text(1000)}})
		}
		_ = stream.RecvMsg(new(pb.UploadResponse)) // until it is ended
	})
}

// everything is all attacks at once.
func everything(ctx context.Context, s *server) {
	var attacks sync.WaitGroup
	defer attacks.Wait()
	for _, attack := range []func(ctx context.Context, s *server){
		storeAll, slowUploads, fullUploads, stalledDownloads(4), manyDownloads, unfinished, previews, floodDialog, slowBodies,
		garbageUploads(100, forged),
	} {
		attacks.Go(func() { attack(ctx, s) })
	}
}

// bothMessengers serves two accounts, one of which uses the Connector API.
func bothMessengers(t *testing.T, _ *sandbox.Sandbox) []string {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte(secret), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "accounts.yaml")
	text := fmt.Sprintf("accounts:\n  %q: {}\n  \"23456789\":\n    messenger: connector\n    app: {id: %s, secret_file: secret, webhooks: true}\n", account, sandbox.DefaultAppID)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"--accounts=" + file, "--webhook-listen=127.0.0.1:0"}
}

// TestMemory_EverythingAtOnce attacks everything that a peer can make the server hold, at default flags. The server stays within the
// formula of docs/limits.md, and an honest caller's uploads succeed in the end.
func TestMemory_EverythingAtOnce(t *testing.T) {
	const name = "everything at once"
	picked(t, name)
	sb := harness.Sandbox(t, frames, sandbox.Options{Accounts: []string{account, "23456789"}})
	args := append(harness.Before(sb), "--ledger=memory", "--drain-notice=0s", "--drain-time=1s", "--documents")
	started, err := harness.Start(program, append(args, bothMessengers(t, sb)...)...)
	if err != nil {
		t.Fatal(err)
	}
	started.Stopped(t)
	s := &server{started, t, sb}
	c := s.Consumer(t)
	before := measure(t.Context(), quietTime, func(ctx context.Context) error { return upload(ctx, c, text(3000)) })
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var attacks sync.WaitGroup
	attacks.Go(func() { everything(ctx, s) })
	var during sample
	for ctx.Err() == nil { // an honest caller's client repeats what the server rejects
		begun := time.Now()
		if _, err := c.Upload(t.Context(), lpfileshare.UploadOptions{Conversation: c.Conversation, FileType: pb.FileType_FILE_TYPE_TXT}, bytes.NewReader(text(3000))); err != nil {
			t.Errorf("an honest upload: %v", err)
			break
		}
		during.times = append(during.times, time.Since(begun))
	}
	attacks.Wait()
	peak := s.Memory(t, "VmHWM") / mib
	if peak > defaultPeak {
		t.Errorf("%d MiB were resident, want at most %d", peak, defaultPeak)
	}
	verdict := "ok"
	if t.Failed() {
		verdict = "FAILED"
	}
	tableRow(name, len(during.times), before, during, peak, defaultPeak, verdict)
}
