package service

import (
	"context"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/conversations"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// CreateConversation is the contract's CreateConversation.
func (s *Server) CreateConversation(ctx context.Context, req *lpfilesharev1.CreateConversationRequest) (*lpfilesharev1.CreateConversationResponse, error) {
	account, err := checkCreation(req)
	if err != nil {
		return nil, err
	}
	if err := s.drain.Err(); err != nil {
		return nil, err
	}
	session, err := s.session(ctx, account)
	if err != nil {
		return nil, err
	}
	defer session.Release()
	if session.Principal().Role != share.RoleConsumer {
		return nil, share.Reject(share.NotAllowed, "only consumers create conversations")
	}
	if req.GetRequestId() == "" {
		c, err := session.CreateConversation(ctx, newConversation(req))
		if err != nil {
			return nil, err
		}
		factsOf(ctx).names(c.ID, "")
		return &lpfilesharev1.CreateConversationResponse{Conversation: conversationToProto(account, c)}, nil
	}
	factsOf(ctx).request(req.GetRequestId())
	bare := proto.CloneOf(req)
	bare.RequestId = ""
	c, replayed, err := s.conversations.Create(ctx, session, conversations.Request{
		RequestID: req.GetRequestId(), Fingerprint: fingerprintOf(bare), Conversation: newConversation(req),
	})
	if err != nil {
		return nil, err
	}
	factsOf(ctx).add(func(known *Facts) { known.Conversation, known.Replayed = c.ID, replayed })
	return &lpfilesharev1.CreateConversationResponse{Conversation: conversationToProto(account, c), Replayed: replayed}, nil
}

// checkCreation validates a request, and returns the account.
func checkCreation(req *lpfilesharev1.CreateConversationRequest) (string, error) {
	var v violations
	account, ok := parseAccountName(req.GetAccount())
	if !ok {
		v.add("account", "must be accounts/{account}")
	}
	checkRequestID(&v, "request_id", req.GetRequestId())
	if skill := req.GetSkillId(); skill != "" && skill != "-1" && (len(skill) > 10 || !digits(skill)) {
		v.add("skill_id", `must have at most 10 digits, or be "-1"`)
	}
	if c := req.GetCampaign(); c != nil {
		if !digits(c.GetCampaignId()) {
			v.add("campaign.campaign_id", "must be digits")
		}
		if !digits(c.GetEngagementId()) {
			v.add("campaign.engagement_id", "must be digits")
		}
	}
	if c := req.GetContext(); c != nil {
		for _, x := range []struct{ field, value string }{
			{"language", c.GetLanguage()}, {"visitor_id", c.GetVisitorId()}, {"session_id", c.GetSessionId()}, {"interaction_context_id", c.GetInteractionContextId()},
		} {
			if len(x.value) > 64 {
				v.add("context."+x.field, "must have at most 64 characters")
			}
		}
	}
	return account, v.err()
}

func newConversation(req *lpfilesharev1.CreateConversationRequest) share.NewConversation {
	n := share.NewConversation{
		SkillID:      req.GetSkillId(),
		CampaignID:   req.GetCampaign().GetCampaignId(),
		EngagementID: req.GetCampaign().GetEngagementId(),
	}
	if c := req.GetContext(); c != nil {
		n.Context = &share.ConversationContext{
			Language: c.GetLanguage(), VisitorID: c.GetVisitorId(), SessionID: c.GetSessionId(), InteractionContextID: c.GetInteractionContextId(),
		}
	}
	return n
}

// GetConversation is the contract's GetConversation.
func (s *Server) GetConversation(ctx context.Context, req *lpfilesharev1.GetConversationRequest) (*lpfilesharev1.GetConversationResponse, error) {
	account, id, session, err := s.oneConversation(ctx, req.GetName())
	if err != nil {
		return nil, err
	}
	defer session.Release()
	c, err := session.Conversation(ctx, id)
	if err != nil {
		return nil, about(err, req.GetName())
	}
	return &lpfilesharev1.GetConversationResponse{Conversation: conversationToProto(account, c)}, nil
}

// CloseConversation is the contract's CloseConversation.
func (s *Server) CloseConversation(ctx context.Context, req *lpfilesharev1.CloseConversationRequest) (*lpfilesharev1.CloseConversationResponse, error) {
	account, id, session, err := s.oneConversation(ctx, req.GetName())
	if err != nil {
		return nil, err
	}
	defer session.Release()
	c, err := session.CloseConversation(ctx, id)
	if err != nil {
		return nil, about(err, req.GetName())
	}
	return &lpfilesharev1.CloseConversationResponse{Conversation: conversationToProto(account, c)}, nil
}

func (s *Server) oneConversation(ctx context.Context, name string) (account, id string, session Session, err error) {
	var v violations
	account, id, ok := parseConversationName(name)
	if !ok || id == anyConversation {
		v.add("name", "must be accounts/{account}/conversations/{conversation}")
	}
	if err := v.err(); err != nil {
		return "", "", nil, err
	}
	factsOf(ctx).names(id, "")
	session, err = s.session(ctx, account)
	return account, id, session, err
}

// ListConversations is the contract's ListConversations.
func (s *Server) ListConversations(ctx context.Context, req *lpfilesharev1.ListConversationsRequest) (*lpfilesharev1.ListConversationsResponse, error) {
	var v violations
	account, ok := parseAccountName(req.GetAccount())
	if !ok {
		v.add("account", "must be accounts/{account}")
	}
	if _, known := lpfilesharev1.ConversationState_name[int32(req.GetState())]; !known {
		v.add("state", "must be one of the ConversationState values, not %d", req.GetState())
	}
	size := pageSize(&v, req.GetPageSize())
	if err := v.err(); err != nil {
		return nil, err
	}
	of := req.GetAccount() + "?" + req.GetState().String()
	page, err := readToken(req.GetPageToken(), pageOfConversations, of)
	if err != nil {
		return nil, err
	}
	session, err := s.session(ctx, account)
	if err != nil {
		return nil, err
	}
	defer session.Release()
	all, err := session.ListConversations(ctx)
	if err != nil {
		return nil, err
	}
	if page.Conversation != "" {
		i := slices.IndexFunc(all, func(c share.Conversation) bool { return c.ID == page.Conversation })
		if i < 0 {
			return nil, errToken("page_token")
		}
		all = all[i+1:]
	}
	resp := &lpfilesharev1.ListConversationsResponse{}
	for _, c := range all {
		if want := req.GetState(); want != 0 && want != stateToProto(c.Open) {
			continue
		}
		if len(resp.Conversations) == size {
			resp.NextPageToken = page.write(pageOfConversations, of)
			break
		}
		resp.Conversations = append(resp.Conversations, conversationToProto(account, c))
		page.Conversation = c.ID
	}
	return resp, nil
}

func conversationToProto(account string, c share.Conversation) *lpfilesharev1.Conversation {
	p := &lpfilesharev1.Conversation{
		Name:       conversationName(account, c.ID),
		State:      stateToProto(c.Open),
		CreateTime: timeToProto(c.Start),
		CloseTime:  timeToProto(c.End),
		SkillId:    c.SkillID,
	}
	main, _ := c.Dialog(c.MainDialog())
	p.Dialogs = append(p.Dialogs, dialogToProto(main))
	for _, d := range c.Dialogs {
		if d.ID != main.ID {
			p.Dialogs = append(p.Dialogs, dialogToProto(d))
		}
	}
	for _, x := range c.Participants {
		p.Participants = append(p.Participants, &lpfilesharev1.Participant{ParticipantId: x.ID, Role: roleToProto(x.Role)})
	}
	return p
}

func dialogToProto(d share.Dialog) *lpfilesharev1.Dialog {
	return &lpfilesharev1.Dialog{DialogId: d.ID, DialogType: d.Type, State: stateToProto(d.Open)}
}

func stateToProto(open bool) lpfilesharev1.ConversationState {
	if open {
		return lpfilesharev1.ConversationState_CONVERSATION_STATE_OPEN
	}
	return lpfilesharev1.ConversationState_CONVERSATION_STATE_CLOSED
}

func digits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }
