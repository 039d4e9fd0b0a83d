package main

import (
	"testing"
	"time"

	"github.com/google/uuid"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
)

func TestCreateConversation_LostAnswerCreatesOne(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name  string
		fault sandbox.Fault
	}{
		{"the socket breaks before", sandbox.Fault{On: "cm.ConsumerRequestConversation", Drop: true, Count: 1}},
		{"the socket breaks after", sandbox.Fault{On: "cm.ConsumerRequestConversation", DropAfter: true, Count: 1}},
		{"no answer comes", sandbox.Fault{On: "cm.ConsumerRequestConversation", Mute: true, Count: 1}},
		{"the answer comes too late", sandbox.Fault{On: "cm.ConsumerRequestConversation", AnswerDelay: 6 * time.Second, Count: 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, sandbox.Options{}, "--lp-timeout=4s", "--settle=5s")
			c := w.consumer()
			w.conversation(c.Client)
			w.sb.Inject(test.fault)
			req := &pb.CreateConversationRequest{Account: accountPath, RequestId: uuid.NewString()}
			first, err := c.CreateConversation(t.Context(), req)
			if w.connector && test.fault.Drop {
				// The conversation may exist, so no other is opened.
				wantReason(t, err, pb.ErrorReason_ERROR_REASON_LP_PUBLISH_UNCONFIRMED)
				if n := len(w.sb.Journal().Conversations); n != 1 {
					t.Errorf("LivePerson has %d conversations, want 1", n)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			again, err := c.CreateConversation(t.Context(), req)
			if err != nil || again.GetName() != first.GetName() {
				t.Errorf("the repeat gave %v, %v; the first %v", again.GetName(), err, first.GetName())
			}
			list, err := c.Raw().Conversations.ListConversations(t.Context(), &pb.ListConversationsRequest{Account: accountPath})
			if err != nil || len(list.GetConversations()) != 2 {
				t.Errorf("%d conversations, %v; want 2", len(list.GetConversations()), err)
			}
			if n := len(w.sb.Journal().Conversations); n != 2 {
				t.Errorf("LivePerson has %d conversations, want 2", n)
			}
		})
	}
}
