package main

import (
	"os"
	"path/filepath"
	"testing"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	"github.com/lpfileshare/lpfileshare/test/wire"
)

func TestSandboxFlag_WritesFrames(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "made")
	w := &world{t: t}
	w.run("--listen=127.0.0.1:0", "--sandbox", "--sandbox-frames="+dir, "--log-level=debug", "--drain-time=2s")
	c := w.consumer()
	w.upload(c.Client, lpfileshare.UploadOptions{Conversation: w.conversation(c.Client), DisplayName: "a.png"}, tinyPNG(t))
	w.stop()

	tap := frames.Watch(t)
	for f, err := range wire.Recorded(dir) {
		if err != nil {
			t.Fatal(err)
		}
		tap.Check(f)
	}
	if tap.Checked() < 10 {
		t.Errorf("%d frames were written", tap.Checked())
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("files: %v, %v", entries, err)
	}
	if info, err := entries[0].Info(); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}
