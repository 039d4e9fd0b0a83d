package main

import (
	"testing"

	"github.com/google/uuid"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
)

func TestCreateConversation_LostAnswerCreatesOne(t *testing.T) {
	overBoth(t, testCreateConversation_LostAnswerCreatesOne)
}

func testCreateConversation_LostAnswerCreatesOne(t *testing.T, newWorld worldFunc) {
	w := newWorld(t, sandbox.Options{}, "--lp-timeout=4s", "--settle=5s")
	for name, fault := range map[string]sandbox.Fault{"before": {Drop: true}, "after": {DropAfter: true}} {
		t.Run(name, func(t *testing.T) {
			c := w.consumer()
			w.conversation(c.Client)
			existing := len(w.sb.Journal().Conversations)
			fault.On, fault.Count = "cm.ConsumerRequestConversation", 1
			w.sb.Inject(fault)
			req := &pb.CreateConversationRequest{Account: accountPath, RequestId: uuid.NewString()}
			first, err := c.CreateConversation(t.Context(), req)
			if w.connector && fault.Drop {
				// The conversation may exist, so no other is opened.
				wantReason(t, err, pb.ErrorReason_ERROR_REASON_LP_PUBLISH_UNCONFIRMED)
				if n := len(w.sb.Journal().Conversations); n != existing {
					t.Errorf("LivePerson has %d more conversations, want none", n-existing)
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
			if n := len(w.sb.Journal().Conversations); n != existing+1 {
				t.Errorf("LivePerson has %d more conversations, want 1", n-existing)
			}
		})
	}
}
