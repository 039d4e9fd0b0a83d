package main

import (
	"testing"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/harness"
)

// TestWatch_LostSockets breaks the sockets of an agent and a consumer between uploads and at requests. Each upload succeeds, and each
// watch has every file once and in order. test/faults breaks connections in every state.
func TestWatch_LostSockets(t *testing.T) {
	t.Parallel()
	w := newWorld(t, sandbox.Options{AutoAssign: true}, "--settle=500ms")
	agent, c := w.agent("ann"), w.consumer()
	byAgent, byConsumer := make(chan *pb.File, 1), make(chan *pb.File, 1)
	watch(t, agent, accountPath+"/conversations/-", byAgent)
	conv := w.conversation(c.Client)
	watch(t, c.Client, conv, byConsumer)
	harness.Eventually(t, "the agent is assigned", func() bool {
		_, err := agent.Raw().Conversations.GetConversation(t.Context(), &pb.GetConversationRequest{Name: conv})
		return err == nil
	})
	// Each lost socket makes the server wait longer before it opens the next one, so there are few.
	for _, on := range []string{"", "ms.PublishEvent", "ms.SubscribeMessagingEvents"} {
		struck := w.sb.FaultsStruck()
		if on != "" {
			w.sb.Inject(sandbox.Fault{On: on, DropAfter: true, Count: 1})
		}
		if on != "ms.PublishEvent" { // the other request is sent when a socket is opened
			harness.Eventually(t, "a socket breaks", func() bool { return w.sb.DropSockets(0) > 0 })
		}
		for _, sender := range []*lpfileshare.Client{agent, c.Client} {
			sent := w.upload(sender, lpfileshare.UploadOptions{Conversation: conv, DisplayName: "a.png"}, tinyPNG(t))
			for name, seen := range map[string]chan *pb.File{"agent": byAgent, "consumer": byConsumer} {
				if f := next(t, seen); f.GetName() != sent.GetName() {
					t.Fatalf("%q: the watch of the %s sent %s, want %s", on, name, f.GetName(), sent.GetName())
				}
			}
		}
		if on != "" && w.sb.FaultsStruck() != struck+1 {
			t.Errorf("%s: the fault struck %d times, want once", on, w.sb.FaultsStruck()-struck)
		}
	}
	if n := len(w.sb.Journal().Published); n != 6 {
		t.Errorf("%d messages, want 6", n)
	}
}
