package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

type conversationCmd struct {
	Create conversationCreateCmd `cmd:"" help:"Open a conversation, and make it the default of later commands."`
	List   conversationListCmd   `cmd:"" help:"List the conversations that you take part in."`
	Get    conversationGetCmd    `cmd:"" help:"Show a conversation."`
	Close  conversationCloseCmd  `cmd:"" help:"Close a conversation."`
}

type conversationCreateCmd struct {
	Skill      string `placeholder:"ID" help:"LivePerson's skill id. Default: any skill."`
	Campaign   string `placeholder:"ID" help:"LivePerson's campaign id."`
	Engagement string `placeholder:"ID" help:"LivePerson's engagement id."`
	RequestID  string `placeholder:"UUID" help:"Make the call repeatable: the same id returns the same conversation."`
}

func (cmd *conversationCreateCmd) Run(ctx context.Context, a *app) error {
	ctx, cancel := a.limit(ctx, callTimeout)
	defer cancel()
	client, c, err := a.client(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	req := &pb.CreateConversationRequest{Account: c.parent(), SkillId: cmd.Skill, RequestId: cmd.RequestID}
	if cmd.Campaign != "" || cmd.Engagement != "" {
		req.Campaign = &pb.Campaign{CampaignId: cmd.Campaign, EngagementId: cmd.Engagement}
	}
	conversation, err := client.CreateConversation(ctx, req)
	if err != nil {
		return err
	}
	if c.session.Address == c.address {
		if err := c.file.update(func(s *session) { s.Conversation = conversation.GetName() }); err != nil {
			return fmt.Errorf("created %s, but the session file could not be written: %w", conversation.GetName(), err)
		}
	}
	return a.print(conversation, "%s", plain(conversation.GetName()))
}

type conversationListCmd struct {
	State string `enum:"all,open,closed" default:"all" help:"State of the conversations: all, open or closed (all)."`
}

func (cmd *conversationListCmd) Run(ctx context.Context, a *app) error {
	ctx, cancel := a.limit(ctx, callTimeout)
	defer cancel()
	client, c, err := a.client(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	state := map[string]pb.ConversationState{
		"open": pb.ConversationState_CONVERSATION_STATE_OPEN, "closed": pb.ConversationState_CONVERSATION_STATE_CLOSED,
	}[cmd.State]
	for conversation, err := range client.Conversations(ctx, lpfileshare.ConversationsOptions{Account: c.parent(), State: state}) {
		if err != nil {
			return err
		}
		if err := a.printConversation(conversation); err != nil {
			return err
		}
	}
	return nil
}

type conversationArg struct {
	Conversation string `arg:"" optional:"" help:"Name or id. Default: the one that was created last."`
}

type conversationGetCmd struct{ conversationArg }

func (cmd *conversationGetCmd) Run(ctx context.Context, a *app) error {
	ctx, cancel := a.limit(ctx, callTimeout)
	defer cancel()
	client, c, err := a.client(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	name, err := c.conversation(cmd.Conversation)
	if err != nil {
		return err
	}
	r, err := client.Raw().Conversations.GetConversation(ctx, &pb.GetConversationRequest{Name: name})
	if err != nil {
		return err
	}
	return a.printConversation(r.GetConversation())
}

type conversationCloseCmd struct{ conversationArg }

func (cmd *conversationCloseCmd) Run(ctx context.Context, a *app) error {
	ctx, cancel := a.limit(ctx, callTimeout)
	defer cancel()
	client, c, err := a.client(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	name, err := c.conversation(cmd.Conversation)
	if err != nil {
		return err
	}
	conversation, err := client.CloseConversation(ctx, name)
	if err != nil {
		return err
	}
	return a.printConversation(conversation)
}

func (a *app) printConversation(c *pb.Conversation) error {
	state := strings.ToLower(strings.TrimPrefix(c.GetState().String(), "CONVERSATION_STATE_"))
	created := ""
	if c.GetCreateTime() != nil {
		created = c.GetCreateTime().AsTime().Local().Format(time.DateTime)
	}
	return a.print(c, "%s\t%s\t%s", plain(c.GetName()), state, created)
}
