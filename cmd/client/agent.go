package main

import "context"

type agentCmd struct {
	Watch agentWatchCmd `cmd:"" help:"Print files as they are published in the agent's conversations."`
	Send  uploadCmd     `cmd:"" help:"Send files to the consumer."`
}

type agentWatchCmd struct{ watchCmd }

// Run watches all of the agent's conversations unless one is named.
func (cmd *agentWatchCmd) Run(ctx context.Context, a *app) error {
	cmd.All = cmd.All || cmd.Conversation == ""
	return cmd.watchCmd.Run(ctx, a)
}
