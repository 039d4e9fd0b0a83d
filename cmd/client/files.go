package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// scope selects the conversations of a listing or a watch.
type scope struct {
	Conversation string `short:"c" xor:"scope" placeholder:"NAME" help:"Name or id of the conversation. Default: the one that was created last."`
	All          bool   `short:"a" xor:"scope" help:"All conversations that you take part in."`
}

func (s *scope) parent(c *connection) (string, error) {
	if s.All {
		return c.parent() + "/conversations/-", nil
	}
	return c.conversation(s.Conversation)
}

type lsCmd struct {
	scope
	Newest bool `help:"List the newest file first."`
	Limit  int  `placeholder:"N" help:"List at most this many files. Default: all."`
}

func (cmd *lsCmd) Run(ctx context.Context, a *app) error {
	if cmd.Limit < 0 {
		return &usageError{"--limit must not be negative"}
	}
	ctx, cancel := a.limit(ctx, callTimeout)
	defer cancel()
	client, c, err := a.client(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	parent, err := cmd.parent(c)
	if err != nil {
		return err
	}
	files, unreadable, err := cmd.list(ctx, client, parent)
	if err != nil {
		return err
	}
	for _, u := range unreadable {
		a.printUnreadable(u)
	}
	if a.JSON || !a.terminal(a.stdout) {
		for _, f := range files {
			if err := a.printFile(f); err != nil {
				return err
			}
		}
	} else if err := a.fileTable(files); err != nil {
		return err
	}
	if c.session.Address != c.address {
		return nil // the session, which has the numbers, is of another server
	}
	var names []string
	for _, f := range files[:min(len(files), maxListed)] {
		names = append(names, f.GetName())
	}
	if err := c.file.update(func(s *session) { s.Listed = names }); err != nil {
		return fmt.Errorf("the numbers of the files could not be stored: %w", err)
	}
	return nil
}

func (cmd *lsCmd) list(ctx context.Context, client *lpfileshare.Client, parent string) (files []*pb.File, unreadable []*pb.UnreadableConversation, err error) {
	o := lpfileshare.FilesOptions{Parent: parent, NewestFirst: cmd.Newest, PageSize: int32(min(cmd.Limit, maxListed))}
	list := client.Files(ctx, o)
	for f, err := range list.All() {
		if err != nil {
			return nil, nil, err
		}
		if files = append(files, f); len(files) == cmd.Limit {
			break
		}
	}
	return files, list.Unreadable(), nil
}

// printUnreadable prints a conversation that a listing or a watch leaves out on standard error.
func (a *app) printUnreadable(u *pb.UnreadableConversation) {
	reason := strings.TrimPrefix(u.GetReason().String(), "ERROR_REASON_")
	fmt.Fprintf(a.stderr, "lpfileshare: left out %s: %s (%s)\n", plain(u.GetName()), plain(u.GetMessage()), reason)
}

// maxListed is the number of files of a listing that can be named by number. It limits the session file.
const maxListed = 1000

// fileNamed returns the name of a file for an argument: a name, or a number of the last listing.
func (c *connection) fileNamed(arg string) (string, error) {
	n, err := strconv.Atoi(arg)
	if err != nil {
		return arg, nil
	}
	listed := c.session.Listed
	if c.session.Address != c.address {
		listed = nil
	}
	if n < 1 || n > len(listed) {
		return "", &usageError{fmt.Sprintf("the last listing has no file %d, it had %d files; list them with lpfileshare ls", n, len(listed))}
	}
	return listed[n-1], nil
}

// fileTable prints a listing as a table.
func (a *app) fileTable(files []*pb.File) error {
	if len(files) == 0 {
		_, err := fmt.Fprintln(a.stderr, "No files.")
		return err
	}
	table := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "#\tTIME\tSENDER\tTYPE\tSIZE\tCAPTION\tNAME")
	for i, f := range files {
		when, size := "-", "-"
		if f.GetCreateTime() != nil {
			when = f.GetCreateTime().AsTime().Local().Format(time.DateTime)
		}
		if f.StoredSizeBytes != nil {
			size = strconv.FormatInt(f.GetStoredSizeBytes(), 10)
		}
		caption := []rune(plain(captionOf(f)))
		if len(caption) > 40 {
			caption = append(caption[:39], '…')
		}
		fmt.Fprintf(table, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n",
			i+1, when, roleName(f.GetSenderRole()), typeName(f), size, string(caption), plain(f.GetName()))
	}
	return table.Flush()
}

// captionOf returns the caption of a file, or else its display name.
func captionOf(f *pb.File) string {
	if f.GetCaption() != "" {
		return f.GetCaption()
	}
	return f.GetDisplayName()
}

// printFile prints a file in one line: time, sender, type, caption, and the name, which other commands take.
func (a *app) printFile(f *pb.File) error {
	return a.print(f, "%s", fileLine(f))
}

func fileLine(f *pb.File) string {
	when := "-"
	if f.GetCreateTime() != nil {
		when = f.GetCreateTime().AsTime().Local().Format(time.DateTime)
	}
	return strings.Join([]string{when, roleName(f.GetSenderRole()), typeName(f), plain(captionOf(f)), plain(f.GetName())}, "\t")
}

func roleName(r pb.ParticipantRole) string {
	if r == pb.ParticipantRole_PARTICIPANT_ROLE_UNSPECIFIED {
		return "-"
	}
	return strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(r.String(), "PARTICIPANT_ROLE_")), "_", " ")
}

func typeName(f *pb.File) string {
	if f.GetFileType() == pb.FileType_FILE_TYPE_UNSPECIFIED {
		return strings.ToLower(plain(f.GetLpFileType()))
	}
	return strings.ToLower(strings.TrimPrefix(f.GetFileType().String(), "FILE_TYPE_"))
}

type statCmd struct {
	Name string `arg:"" help:"Name of the file, as upload, ls and watch print it, or its number in the last ls."`
}

func (cmd *statCmd) Run(ctx context.Context, a *app) error {
	ctx, cancel := a.limit(ctx, callTimeout)
	defer cancel()
	client, c, err := a.client(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	if cmd.Name, err = c.fileNamed(cmd.Name); err != nil {
		return err
	}
	f, err := client.Stat(ctx, cmd.Name)
	if err != nil {
		return err
	}
	if a.JSON {
		return a.print(f, "")
	}
	size := ""
	if f.StoredSizeBytes != nil {
		size = strconv.FormatInt(f.GetStoredSizeBytes(), 10) + " bytes"
	}
	return a.table([][2]string{
		{"name", f.GetName()}, {"type", typeName(f)}, {"size", size}, {"etag", f.GetEtag()},
		{"sent by", strings.TrimSpace(roleName(f.GetSenderRole()) + " " + f.GetSenderId())},
		{"caption", f.GetCaption()}, {"display name", f.GetDisplayName()}, {"dialog", f.GetDialogId()}, {"storage path", f.GetStoragePath()},
	})
}

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
	ctx, cancel := a.limit(ctx, callTimeout)
	defer cancel()
	client, c, err := a.client(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	name, err := cmd.name(c)
	if err != nil {
		return err
	}
	r, err := client.PublishUpload(ctx, name)
	if err != nil {
		return err
	}
	return a.print(r, "%s", plain(r.GetFile().GetName()))
}

type getUploadCmd struct {
	uploadArg
}

func (cmd *getUploadCmd) Run(ctx context.Context, a *app) error {
	ctx, cancel := a.limit(ctx, callTimeout)
	defer cancel()
	client, c, err := a.client(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
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
}
