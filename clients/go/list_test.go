package lpfileshare_test

import (
	"fmt"
	"strconv"
	"testing"

	"google.golang.org/grpc/codes"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

func TestFiles(t *testing.T) {
	var requests []*pb.ListFilesRequest
	f := &fake{list: func(r *pb.ListFilesRequest) (*pb.ListFilesResponse, error) {
		requests = append(requests, r)
		page, _ := strconv.Atoi(r.GetPageToken())
		if page == 3 {
			return nil, failure(codes.InvalidArgument, pb.ErrorReason_ERROR_REASON_PAGE_TOKEN_INVALID)
		}
		resp := &pb.ListFilesResponse{Files: []*pb.File{{Name: strconv.Itoa(page)}}, WatchToken: "w"}
		if page < 2 || r.GetParent() == "broken" {
			resp.NextPageToken = strconv.Itoa(page + 1)
		}
		return resp, nil
	}}
	c := start(t, f)
	o := lpfileshare.FilesOptions{
		Parent: conversation, NewestFirst: true, DialogID: "d", SenderRole: pb.ParticipantRole_PARTICIPANT_ROLE_CONSUMER, PageSize: 7,
	}

	t.Run("all pages", func(t *testing.T) {
		list := c.Files(testContext(t), o)
		if list.WatchToken() != "" {
			t.Errorf("token %q before the first call", list.WatchToken())
		}
		for range 2 { // a listing can be repeated
			files, err := list.Collect()
			if err != nil || len(files) != 3 || files[2].GetName() != "2" || list.WatchToken() != "w" {
				t.Errorf("files %v, token %q, error %v", files, list.WatchToken(), err)
			}
		}
		for i, r := range requests {
			if r.GetParent() != conversation || !r.GetNewestFirst() || r.GetDialogId() != "d" || r.GetPageSize() != 7 ||
				r.GetSenderRole() != pb.ParticipantRole_PARTICIPANT_ROLE_CONSUMER {
				t.Errorf("request %d: %v", i, r)
			}
		}
	})
	t.Run("broken loop", func(t *testing.T) {
		before := len(requests)
		for range c.Files(testContext(t), o).All() {
			break
		}
		if len(requests) != before+1 {
			t.Errorf("%d pages were requested", len(requests)-before)
		}
	})
	t.Run("error is the last element", func(t *testing.T) {
		var names []string
		var last error
		for f, err := range c.Files(testContext(t), lpfileshare.FilesOptions{Parent: "broken"}).All() {
			names, last = append(names, f.GetName()), err
		}
		if fmt.Sprint(names) != "[0 1 2 ]" || lpfileshare.ErrorReason(last) != pb.ErrorReason_ERROR_REASON_PAGE_TOKEN_INVALID {
			t.Errorf("files %q, error %v", names, last)
		}
	})
}

func TestConversations(t *testing.T) {
	var requests []*pb.ListConversationsRequest
	c := start(t, &fake{listConvs: func(r *pb.ListConversationsRequest) (*pb.ListConversationsResponse, error) {
		requests = append(requests, r)
		if r.GetPageToken() == "" {
			return &pb.ListConversationsResponse{Conversations: []*pb.Conversation{{Name: "a"}}, NextPageToken: "2"}, nil
		}
		return &pb.ListConversationsResponse{Conversations: []*pb.Conversation{{Name: "b"}}}, nil
	}}, lpfileshare.WithAccount("12345678"))
	var names []string
	for conversation, err := range c.Conversations(testContext(t), lpfileshare.ConversationsOptions{State: pb.ConversationState_CONVERSATION_STATE_OPEN}) {
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, conversation.GetName())
	}
	if fmt.Sprint(names) != "[a b]" {
		t.Errorf("got %v", names)
	}
	for _, r := range requests {
		if r.GetAccount() != "accounts/12345678" || r.GetState() != pb.ConversationState_CONVERSATION_STATE_OPEN {
			t.Errorf("request %v", r)
		}
	}
}

// An account is given by its id, by its resource name, or by the client's default.
func TestAccount(t *testing.T) {
	var asked string
	f := &fake{caps: func(r *pb.GetCapabilitiesRequest) (*pb.GetCapabilitiesResponse, error) {
		asked = r.GetAccount()
		return &pb.GetCapabilitiesResponse{}, nil
	}}
	f.create = func(_ int, r *pb.CreateConversationRequest) (*pb.CreateConversationResponse, error) {
		asked = r.GetAccount()
		return &pb.CreateConversationResponse{}, nil
	}
	c := start(t, f, lpfileshare.WithAccount("7")).As(lpfileshare.ExternalConsumerID("e"))
	for account, want := range map[string]string{"": "accounts/7", "8": "accounts/8", "accounts/9": "accounts/9"} {
		if _, err := c.Capabilities(testContext(t), account); err != nil || asked != want {
			t.Errorf("%q: asked for %q, %v", account, asked, err)
		}
	}
	if c.Account() != "accounts/7" {
		t.Errorf("the client's account is %q", c.Account())
	}
	req := &pb.CreateConversationRequest{}
	if _, err := c.CreateConversation(testContext(t), req); err != nil || asked != "accounts/7" || req.GetAccount() != "" {
		t.Errorf("asked for %q, request %v, %v", asked, req, err)
	}
}

func TestFiles_Unreadable(t *testing.T) {
	reports := [][]*pb.UnreadableConversation{{{Name: "a", DialogId: "a"}}, {{Name: "a", DialogId: "a"}, {Name: "b", DialogId: "b"}}}
	c := start(t, &fake{list: func(r *pb.ListFilesRequest) (*pb.ListFilesResponse, error) {
		if r.GetPageToken() == "" {
			return &pb.ListFilesResponse{UnreadableConversations: reports[0], NextPageToken: "2"}, nil
		}
		return &pb.ListFilesResponse{UnreadableConversations: reports[1]}, nil
	}})
	list := c.Files(testContext(t), lpfileshare.FilesOptions{Parent: conversation})
	for range 2 { // a listing can be repeated
		if _, err := list.Collect(); err != nil {
			t.Fatal(err)
		}
		got := list.Unreadable()
		if len(got) != 2 || got[0].GetName() != "a" || got[1].GetName() != "b" {
			t.Errorf("unreadable: %v", got)
		}
	}
}
