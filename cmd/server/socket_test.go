package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/harness"
)

// A cut is a point at which the LivePerson socket is killed.
type cut struct {
	point string
	fault sandbox.Fault // killed by the sandbox at a request; or
	at    int           // killed once so many bytes were handed over, -1: before the call
}

// cutsOfAnUpload are all the points of an upload: every request on the socket, before LivePerson handles it and after it has
// and before it answers, and the times in between.
func cutsOfAnUpload(size int) []cut {
	cuts := []cut{{point: "before the call", at: -1}}
	for _, n := range []int{1, size / 4, size / 2, size} {
		cuts = append(cuts, cut{point: fmt.Sprintf("at byte %d of %d", n, size), at: n})
	}
	for _, on := range []string{"ws:upgrade", "cqm.SubscribeExConversations", "ms.GenerateURLForUploadFile", "ms.PublishEvent", "store:PUT"} {
		cuts = append(cuts,
			cut{point: on + " before it is handled", fault: sandbox.Fault{On: on, Drop: true, Count: 1}},
			cut{point: on + " handled, before its answer", fault: sandbox.Fault{On: on, DropAfter: true, Count: 1}})
	}
	for _, code := range []int{1000, 1001, 1006 + 5, 1013} { // any close code but the two that end the identity
		cuts = append(cuts, cut{point: fmt.Sprintf("ms.PublishEvent closed with %d", code), fault: sandbox.Fault{On: "ms.PublishEvent", CloseCode: code, Count: 1}})
	}
	return cuts
}

func TestUpload_SocketKilledAtAnyPoint(t *testing.T) {
	t.Parallel()
	const size = 200_000
	for i, c := range cutsOfAnUpload(size) {
		t.Run(c.point, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, sandbox.Options{}, "--lp-timeout=4s", "--settle=1s")
			who := w.consumer()
			conv := w.conversation(who.Client)
			switch {
			case c.fault.On == "ws:upgrade" || c.fault.On == "cqm.SubscribeExConversations":
				w.sb.Inject(c.fault)
				w.sb.DropSockets(0)
			case c.fault.On != "":
				w.sb.Inject(c.fault)
			case c.at < 0:
				dropped(t, w)
			}
			killed := c.at <= 0
			o := lpfileshare.UploadOptions{Conversation: conv, DisplayName: "a.jpg", OnProgress: func(sent, _ int64) {
				if c.fault.On == "" && c.at > 0 && !killed && sent >= int64(c.at) {
					killed = true
					dropped(t, w)
				}
			}, ChunkBytes: 16 << 10}
			if c.at == 1 {
				o.ChunkBytes = 4 << 10
			}
			data := photo(t, size)
			resp, err := who.Upload(t.Context(), o, bytes.NewReader(data))
			if err != nil {
				t.Fatalf("%v\n%s", err, w.logs.String())
			}
			if !killed && c.fault.On == "" || c.fault.On != "" && w.sb.FaultsStruck() != 1 {
				t.Errorf("nothing was cut: %d faults struck", w.sb.FaultsStruck())
			}
			if n := len(w.sb.Journal().Published); n != 1 {
				t.Errorf("%d messages, want 1", n)
			}
			if got := w.download(who.Client, resp.GetFile().GetName()); sha(got) != sha(data) {
				t.Error("the downloaded bytes differ from the uploaded ones")
			}
			fmt.Printf("upload, socket killed %2d: %s\n", i, c.point)
		})
	}
}

// dropped kills the sockets that are open, of which there must be one once it is open again.
func dropped(t *testing.T, w *world) {
	harness.Eventually(t, "there is a socket to kill", func() bool { return w.sb.Sockets() > 0 })
	if w.sb.DropSockets(0) == 0 {
		t.Error("there was no socket to kill")
	}
}

func TestAgent_SocketKilledAtAnyPoint(t *testing.T) {
	t.Parallel()
	for i, on := range []string{"", "ms.GenerateURLForUploadFile", "ms.PublishEvent", "ms.QueryMessages", "aam.SubscribeExConversations"} {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s after=%v", on, after), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, sandbox.Options{AutoAssign: true}, "--lp-timeout=4s", "--settle=1s")
				agent := w.agent("ann")
				seen := make(chan *pb.File, 10)
				watch(t, agent, accountPath+"/conversations/-", seen)
				c := w.consumer()
				conv := w.conversation(c.Client)
				harness.Eventually(t, "the agent is assigned", func() bool {
					_, err := agent.Raw().Conversations.GetConversation(t.Context(), &pb.GetConversationRequest{Name: conv})
					return err == nil
				})
				fault := sandbox.Fault{On: on, Drop: !after, DropAfter: after, Count: 1}
				if on != "" {
					w.sb.Inject(fault)
				}
				if on == "" || on == "aam.SubscribeExConversations" || on == "ms.QueryMessages" {
					dropped(t, w)
				}
				sent := w.upload(agent, lpfileshare.UploadOptions{Conversation: conv, DisplayName: "a.png"}, tinyPNG(t))
				back := w.upload(c.Client, lpfileshare.UploadOptions{Conversation: conv, DisplayName: "b.png"}, tinyPNG(t))
				for _, want := range []string{sent.GetName(), back.GetName()} {
					if f := next(t, seen); f.GetName() != want {
						t.Errorf("the agent saw %v, want %s", f, want)
					}
				}
				if n := len(w.sb.Journal().Published); n != 2 {
					t.Errorf("%d messages, want 2", n)
				}
				fmt.Printf("agent, socket killed %2d: %s after=%v, faults struck %d\n", i, on, after, w.sb.FaultsStruck())
			})
		}
	}
}

func TestWatch_SocketKilledAtAnyPoint(t *testing.T) {
	t.Parallel()
	const files = 6
	var cuts []cut
	for _, on := range []string{"ws:upgrade", "cqm.SubscribeExConversations", "ms.SubscribeMessagingEvents", "GetClock"} {
		cuts = append(cuts,
			cut{point: on + " before it is handled", fault: sandbox.Fault{On: on, Drop: true, Count: 1}},
			cut{point: on + " handled, before its answer", fault: sandbox.Fault{On: on, DropAfter: true, Count: 1}})
	}
	for n := range files + 1 { // after the n-th file, and so that the next ones are published while the socket is away
		cuts = append(cuts, cut{point: fmt.Sprintf("after file %d", n), at: n})
	}
	for i, c := range cuts {
		t.Run(c.point, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, sandbox.Options{}, "--lp-timeout=4s")
			who := w.consumer()
			conv := w.conversation(who.Client)
			token := watchToken(t, who.Client, conv)
			var sent []string
			if c.fault.On != "" {
				w.sb.Inject(c.fault)
				w.sb.DropSockets(0)
			}
			got := make(chan *pb.File, 2*files)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- watchInto(who.Watch(ctx, lpfileshare.WatchOptions{Parent: conv, Token: token}), got) }()
			for n := range files {
				if c.fault.On == "" && c.at == n {
					dropped(t, w)
				}
				f := w.upload(who.Client, lpfileshare.UploadOptions{Conversation: conv, DisplayName: "a.png"}, tinyPNG(t))
				sent = append(sent, f.GetName())
			}
			if c.fault.On == "" && c.at == files {
				dropped(t, w)
			}
			for n, want := range sent {
				if f := next(t, got); f.GetName() != want {
					t.Fatalf("file %d is %v, want %s", n, f, want)
				}
			}
			// Whatever arrived twice would arrive before one more file.
			last := w.upload(who.Client, lpfileshare.UploadOptions{Conversation: conv, DisplayName: "a.png"}, tinyPNG(t))
			if f := next(t, got); f.GetName() != last.GetName() {
				t.Errorf("once more: %v", f)
			}
			if c.fault.On != "" && w.sb.FaultsStruck() != 1 {
				t.Errorf("nothing was cut: %d faults struck", w.sb.FaultsStruck())
			}
			cancel()
			if err := <-ended; !errors.Is(err, context.Canceled) {
				t.Errorf("the watch ended with %v", err)
			}
			fmt.Printf("watch, socket killed %2d: %s\n", i, c.point)
		})
	}
}
