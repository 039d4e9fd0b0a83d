package service

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// CreateConversation is the contract's CreateConversation.
func (s *Server) CreateConversation(ctx context.Context, req *lpfilesharev1.CreateConversationRequest) (*lpfilesharev1.CreateConversationResponse, error) {
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
	if err := v.err(); err != nil {
		return nil, err
	}
	if err := s.checkDraining(); err != nil {
		return nil, err
	}
	session, err := s.session(ctx, account)
	if err != nil {
		return nil, err
	}
	defer session.Release()
	if session.Principal().Role != share.RoleConsumer {
		return nil, refuse(share.NotAllowed, "conversations are opened by consumers")
	}
	if req.GetRequestId() == "" {
		c, err := session.CreateConversation(ctx, newConversation(req))
		if err != nil {
			return nil, err
		}
		return &lpfilesharev1.CreateConversationResponse{Conversation: conversationToProto(account, c)}, nil
	}
	return s.createOnce(ctx, session, account, req)
}

// createOnce makes the conversation of a request id, or finds the one that was made. The id is claimed before LivePerson is
// asked, so that of two calls one waits for the other. When LivePerson's answer is lost, the conversation is the one that was not
// there before. A server that dies in between may leave one behind that the repeat does not find; but where the session does not
// see all, a repeat never asks LivePerson again.
func (s *Server) createOnce(ctx context.Context, session Session, account string, req *lpfilesharev1.CreateConversationRequest) (*lpfilesharev1.CreateConversationResponse, error) {
	key := createdKey(session.Principal(), strings.ToLower(req.GetRequestId()))
	bare := proto.CloneOf(req)
	bare.RequestId = ""
	print := fingerprintOf(bare)
	for {
		rec, rev, err := s.load(ctx, key)
		if err != nil {
			return nil, err
		}
		if rev != 0 && s.Now().Before(rec.Expires) {
			switch {
			case !bytes.Equal(rec.Fingerprint, print):
				return nil, refuse(share.RequestIDConflict, "the request_id was used with another request; use a new one")
			case rec.ConversationID != "":
				c, err := session.Conversation(ctx, rec.ConversationID)
				if err != nil {
					return nil, err
				}
				return &lpfilesharev1.CreateConversationResponse{Conversation: conversationToProto(account, c), Replayed: true}, nil
			case s.Now().Before(rec.PublishDeadline.Add(s.Settle)): // another call is at it, or looks for what became of it
				if err := sleep(ctx, settlePoll); err != nil {
					return nil, err
				}
				continue
			case rec.State == share.Publishing: // it may be there unseen
				c, found := s.newSince(ctx, session, rec)
				if !found {
					return nil, refuse(share.LPPublishUnconfirmed, "an earlier call may or may not have opened the conversation, and LivePerson has not told of "+
						"it; no other is opened. Repeat later under the same request_id, or use a new one")
				}
				rec.ConversationID, rec.State, rec.Known = c.ID, "", nil
				if _, err := s.ports.Ledger.Save(ctx, key, rec, rev); err != nil && !errors.Is(err, share.ErrStale) {
					return nil, ledgerError(err)
				}
				continue
			}
		}
		known, err := conversationIDs(ctx, session)
		if err != nil {
			return nil, err
		}
		rec = share.Record{Fingerprint: print, AttemptTime: s.Now(), Expires: s.Now().Add(s.RequestIDTTL), PublishDeadline: s.Now().Add(s.UnaryTimeout)}
		if session.Sight() != share.SeesAll {
			rec.State, rec.Known = share.Publishing, known
		}
		rev, err = s.ports.Ledger.Save(ctx, key, rec, rev)
		if errors.Is(err, share.ErrStale) {
			continue
		} else if err != nil {
			return nil, ledgerError(err)
		}
		c, err := session.CreateConversation(ctx, newConversation(req))
		if share.Is(err, share.LPPublishUnconfirmed) {
			if found, ok := s.newSince(ctx, session, share.Record{AttemptTime: rec.AttemptTime, Known: known}); ok {
				c, err = found, nil
			}
		}
		after, cancel := context.WithTimeout(context.WithoutCancel(ctx), ledgerTimeout)
		defer cancel()
		if err != nil {
			rec.PublishDeadline = time.Time{} // the next call need not wait
		}
		// Only a named condition says that there is no conversation.
		if err == nil || share.KindOf(err) != "" && !share.Is(err, share.LPPublishUnconfirmed) {
			rec.State, rec.Known = "", nil
		}
		rec.ConversationID = c.ID
		if _, lerr := s.ports.Ledger.Save(after, key, rec, rev); lerr != nil { // the conversation is there, whatever the ledger says
			s.Log.LogAttrs(ctx, slog.LevelWarn, "the end of a CreateConversation could not be recorded", slog.Any("error", lerr))
		}
		if err != nil {
			return nil, err
		}
		return &lpfilesharev1.CreateConversationResponse{Conversation: conversationToProto(account, c)}, nil
	}
}

// maxKnown is how many conversations are looked at, and remembered: the newest ones.
const maxKnown = 256

// conversationIDs are those of the caller's newest conversations.
func conversationIDs(ctx context.Context, session Session) ([]string, error) {
	all, err := session.ListConversations(ctx)
	ids := make([]string, min(len(all), maxKnown))
	for i := range ids {
		ids[i] = all[i].ID
	}
	return ids, err
}

// newSince looks for a conversation that was not there when a record's attempt began, and is not one that began long after, until
// it can no longer appear. A session that sees nothing but its own could never find it.
func (s *Server) newSince(ctx context.Context, session Session, rec share.Record) (share.Conversation, bool) {
	if session.Sight() == share.SeesOwn {
		return share.Conversation{}, false
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.Settle)
	defer cancel()
	latest := rec.AttemptTime.Add(s.UnaryTimeout + s.Settle)
	for {
		now, err := session.ListConversations(ctx)
		if err == nil {
			for _, c := range now[:min(len(now), maxKnown)] {
				if !slices.Contains(rec.Known, c.ID) && c.Start.Before(latest) {
					return c, true
				}
			}
		}
		if sleep(ctx, settlePoll) != nil {
			return share.Conversation{}, false
		}
	}
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
