package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

type conversationCmd struct {
	Create conversationCreateCmd `cmd:"" help:"Open a conversation, and make it the default of the same identity's later commands."`
	List   conversationListCmd   `cmd:"" help:"List the conversations that you take part in."`
	Get    conversationGetCmd    `cmd:"" help:"Show a conversation."`
	Close  conversationCloseCmd  `cmd:"" help:"Close a conversation."`
}

// storedConversation returns the default conversation of the caller: the one that it created last, or for an agent the last one that
// any caller of this session file created. Empty: none.
func (c *connection) storedConversation() string {
	for i := len(c.session.Conversations) - 1; i >= 0; i-- {
		made := c.session.Conversations[i]
		if made.Address == c.address && strings.HasPrefix(made.Name, c.parent()+"/") && (made.Caller == c.caller || c.as == asAgent) {
			return made.Name
		}
	}
	return ""
}

// named returns the resource name for a flag or argument: a name, an id, or empty for the default.
func (c *connection) named(flag string) (string, error) {
	switch {
	case strings.HasPrefix(flag, "accounts/"):
		return flag, nil
	case strings.Contains(flag, "/"):
		return "", &usageError{fmt.Sprintf("%q is neither the id of a conversation nor its name, accounts/ID/conversations/ID", flag)}
	case flag != "":
		return c.parent() + "/conversations/" + flag, nil
	}
	if name := c.storedConversation(); name != "" {
		c.usedStored = true
		return name, nil
	}
	if c.as == asAgent {
		return "", noConversation("Name one with -c, as lpfileshare agent watch and conversation list print it.")
	}
	return "", noConversation("Create one (lpfileshare conversation create), or name one with -c.")
}

func noConversation(advice string) error {
	return &adviceError{errors.New("no conversation is selected"), advice}
}

// conversation is named, but without a default it selects the caller's only open conversation.
func (a *app) conversation(ctx context.Context, client *lpfileshare.Client, c *connection, flag string) (string, error) {
	name, err := c.named(flag)
	if err == nil || flag != "" {
		return name, err
	}
	var open []string
	for conversation, listErr := range client.Conversations(ctx, lpfileshare.ConversationsOptions{
		Account: c.parent(), State: pb.ConversationState_CONVERSATION_STATE_OPEN,
	}) {
		switch {
		case lpfileshare.ErrorReason(listErr) == pb.ErrorReason_ERROR_REASON_METHOD_NOT_IMPLEMENTED:
			return "", err
		case listErr != nil:
			return "", listErr
		}
		if open = append(open, conversation.GetName()); len(open) == 2 {
			return "", noConversation("You have several open ones; name one with -c, as lpfileshare conversation list prints it.")
		}
	}
	if len(open) == 0 {
		return "", err
	}
	a.note("lpfileshare: using %s, your only open conversation", plain(open[0]))
	return open[0], nil
}

type conversationCreateCmd struct {
	Skill      string `placeholder:"ID" help:"LivePerson's skill id. Default: any skill."`
	Campaign   string `placeholder:"ID" help:"LivePerson's campaign id."`
	Engagement string `placeholder:"ID" help:"LivePerson's engagement id."`
	RequestID  string `placeholder:"UUID" help:"Make the call repeatable: the same id returns the same conversation."`
}

func (cmd *conversationCreateCmd) Run(ctx context.Context, a *app) error {
	return a.call(ctx, func(ctx context.Context, client *lpfileshare.Client, c *connection) error {
		req := &pb.CreateConversationRequest{Account: c.parent(), SkillId: cmd.Skill, RequestId: cmd.RequestID}
		if cmd.Campaign != "" || cmd.Engagement != "" {
			req.Campaign = &pb.Campaign{CampaignId: cmd.Campaign, EngagementId: cmd.Engagement}
		}
		conversation, err := client.CreateConversation(ctx, req)
		if err != nil {
			return err
		}
		if err := c.file.update(func(s *session) { s.setConversation(c.address, c.caller, conversation.GetName()) }); err != nil {
			return fmt.Errorf("created %s, but the session file could not be written: %w", conversation.GetName(), err)
		}
		return a.print(conversation, "%s", plain(conversation.GetName()))
	})
}

type conversationListCmd struct {
	State string `enum:"all,open,closed" default:"all" help:"State of the conversations: all, open or closed (all)."`
}

func (cmd *conversationListCmd) Run(ctx context.Context, a *app) error {
	return a.call(ctx, func(ctx context.Context, client *lpfileshare.Client, c *connection) error {
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
	})
}

type conversationArg struct {
	Conversation string `arg:"" optional:"" help:"Name or id. Default: the one that was created last."`
}

type conversationGetCmd struct{ conversationArg }

func (cmd *conversationGetCmd) Run(ctx context.Context, a *app) error {
	return a.call(ctx, func(ctx context.Context, client *lpfileshare.Client, c *connection) error {
		name, err := c.named(cmd.Conversation)
		if err != nil {
			return err
		}
		r, err := client.Raw().Conversations.GetConversation(ctx, &pb.GetConversationRequest{Name: name})
		if err != nil {
			return err
		}
		return a.printConversation(r.GetConversation())
	})
}

type conversationCloseCmd struct{ conversationArg }

func (cmd *conversationCloseCmd) Run(ctx context.Context, a *app) error {
	return a.call(ctx, func(ctx context.Context, client *lpfileshare.Client, c *connection) error {
		name, err := c.named(cmd.Conversation)
		if err != nil {
			return err
		}
		conversation, err := client.CloseConversation(ctx, name)
		if err != nil {
			return err
		}
		return a.printConversation(conversation)
	})
}

func (a *app) printConversation(c *pb.Conversation) error {
	state := strings.ToLower(strings.TrimPrefix(c.GetState().String(), "CONVERSATION_STATE_"))
	created := ""
	if c.GetCreateTime() != nil {
		created = formatTime(c.GetCreateTime().AsTime())
	}
	return a.print(c, "%s\t%s\t%s", plain(c.GetName()), state, created)
}
