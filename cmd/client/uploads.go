package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/uuid"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// uploadArg names an upload.
type uploadArg struct {
	Upload string `arg:"" help:"Request id of the upload, or its name, accounts/ID/uploads/REQUEST-ID."`
}

func (arg *uploadArg) name(c *connection) (string, error) {
	switch {
	case strings.HasPrefix(arg.Upload, "accounts/"):
		return arg.Upload, nil
	case uuid.Validate(arg.Upload) == nil:
		return c.parent() + "/uploads/" + arg.Upload, nil
	default:
		return "", &usageError{fmt.Sprintf("%q is neither a request id, which is a UUID, nor the name of an upload; upload prints both with --json", arg.Upload)}
	}
}

type publishCmd struct{ uploadArg }

func (cmd *publishCmd) Run(ctx context.Context, a *app) error {
	return a.call(ctx, func(ctx context.Context, client *lpfileshare.Client, c *connection) error {
		name, err := cmd.name(c)
		if err != nil {
			return err
		}
		r, err := client.PublishUpload(ctx, name)
		if err != nil {
			return err
		}
		return a.print(r, "%s", plain(r.GetFile().GetName()))
	})
}

type getUploadCmd struct {
	uploadArg
}

func (cmd *getUploadCmd) Run(ctx context.Context, a *app) error {
	return a.call(ctx, func(ctx context.Context, client *lpfileshare.Client, c *connection) error {
		name, err := cmd.name(c)
		if err != nil {
			return err
		}
		u, err := client.GetUpload(ctx, name)
		if err != nil {
			return err
		}
		state := strings.ToLower(strings.TrimPrefix(u.GetState().String(), "UPLOAD_STATE_"))
		what, again := u.GetFile().GetName(), "lpfileshare upload FILE --request-id "+u.GetRequestId()
		switch u.GetState() {
		case pb.UploadState_UPLOAD_STATE_RECEIVING:
			what = "not finished: it is running, or its connection broke; repeat it under the same id: " + again
		case pb.UploadState_UPLOAD_STATE_STORED:
			what = strings.TrimSpace("not published; publish it: lpfileshare publish " + u.GetRequestId() + "\t" + what)
		case pb.UploadState_UPLOAD_STATE_PUBLISHING:
			what = "sent, LivePerson's response is not known yet; repeat it, it is never published twice: " + again
		case pb.UploadState_UPLOAD_STATE_FAILED:
			what = "nothing was published: " + u.GetFailure().GetMessage()
		}
		return a.print(u, "%s", strings.TrimSpace(state+"\t"+plain(what)))
	})
}
