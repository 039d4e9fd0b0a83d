package main

import (
	"testing"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/harness"
)

func TestReceipts_AreSentUnlessDisabled(t *testing.T) {
	overBoth(t, testReceipts_AreSentUnlessDisabled)
}

func testReceipts_AreSentUnlessDisabled(t *testing.T, newWorld worldFunc) {
	for name, test := range map[string]struct {
		flags          []string
		accept, access int
	}{
		"by default": {nil, 1, 1},
		"off":        {[]string{"--no-accept-receipts", "--no-access-receipts"}, 0, 0},
		"one of two": {[]string{"--no-accept-receipts"}, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, sandbox.Options{AutoAssign: true}, test.flags...)
			agent := w.agent("ann")
			seen := make(chan *pb.File, 10)
			watch(t, agent, accountPath+"/conversations/-", seen)
			c := w.consumer()
			conv := w.conversation(c.Client)
			own := make(chan *pb.File, 10)
			watch(t, c.Client, conv, own)
			w.upload(c.Client, lpfileshare.UploadOptions{Conversation: conv, DisplayName: "a.png"}, tinyPNG(t))
			next(t, own) // one's own file gets no receipt
			w.download(agent, next(t, seen).GetName())
			harness.Eventually(t, "the receipts are sent", func() bool {
				return w.receiptsSent("ACCEPT") >= test.accept && w.receiptsSent("ACCESS") >= test.access
			})
			w.stop() // nothing is sent after it
			if a, b := w.receiptsSent("ACCEPT"), w.receiptsSent("ACCESS"); a != test.accept || b != test.access {
				t.Errorf("%d ACCEPT and %d ACCESS, want %d and %d", a, b, test.accept, test.access)
			}
		})
	}
}
