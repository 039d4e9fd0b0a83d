package main

import (
	"context"
	"fmt"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

type accountCmd struct {
	FileSharing struct {
		Get     fileSharingGetCmd     `cmd:"" help:"Show whether file sharing is enabled."`
		Enable  fileSharingEnableCmd  `cmd:"" help:"Enable file sharing."`
		Disable fileSharingDisableCmd `cmd:"" help:"Disable file sharing."`
	} `cmd:"" help:"Show, enable or disable file sharing for the account."`
}

type fileSharingGetCmd struct{}

func (fileSharingGetCmd) Run(ctx context.Context, a *app) error {
	return a.call(ctx, func(ctx context.Context, client *lpfileshare.Client, c *connection) error {
		r, err := client.Raw().Accounts.GetFileSharing(ctx, &pb.GetFileSharingRequest{Account: c.parent()})
		if err != nil {
			return err
		}
		return a.printSwitch(r.GetEnabled())
	})
}

type fileSharingEnableCmd struct{}

func (fileSharingEnableCmd) Run(ctx context.Context, a *app) error {
	return a.setFileSharing(ctx, true)
}

type fileSharingDisableCmd struct{}

func (fileSharingDisableCmd) Run(ctx context.Context, a *app) error {
	return a.setFileSharing(ctx, false)
}

func (a *app) setFileSharing(ctx context.Context, on bool) error {
	ctx, cancel := a.limit(ctx, callTimeout)
	defer cancel()
	client, c, err := a.client(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	r, err := client.Raw().Accounts.SetFileSharing(ctx, &pb.SetFileSharingRequest{Account: c.parent(), Enabled: &on})
	if err != nil {
		return err
	}
	return a.printSwitch(r.GetEnabled())
}

func (a *app) printSwitch(on bool) error {
	if a.JSON {
		return a.printJSON(map[string]bool{"enabled": on})
	}
	_, err := fmt.Fprintln(a.stdout, map[bool]string{true: "enabled", false: "disabled"}[on])
	return err
}
