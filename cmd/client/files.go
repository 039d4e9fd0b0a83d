package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/google/uuid"

	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// scope says which conversations a listing or a watch is about.
type scope struct {
	Conversation string `short:"c" xor:"scope" placeholder:"NAME" help:"Name or id of the conversation. Default: the one created last."`
	All          bool   `short:"a" xor:"scope" help:"All conversations that you take part in."`
}

func (s *scope) parent(c *connection) (string, error) {
	if s.All {
		return c.parent() + "/conversations/-", nil
	}
	return c.conversation(s.Conversation)
}

type lsCmd struct{ scope }

func (cmd *lsCmd) Run(ctx context.Context, a *app) error {
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
	var files []*pb.File
	if _, err = client.ListFiles(ctx, parent, func(f *pb.File) error {
		files = append(files, f)
		return nil
	}); err != nil {
		return err
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
		return nil // nobody has signed in here: there is no session to keep the numbers in
	}
	var names []string
	for _, f := range files[:min(len(files), maxListed)] {
		names = append(names, f.GetName())
	}
	if err := c.file.update(func(s *session) { s.Listed = names }); err != nil {
		return fmt.Errorf("the numbers of the files could not be kept: %w", err)
	}
	return nil
}

// maxListed is how many files of a listing can be named by number: the session file stays small.
const maxListed = 1000

// fileNamed makes a file's name of an argument, which may be a number in the last listing.
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
		return "", &usageError{fmt.Sprintf("no file %d in the last listing, which had %d: lpfileshare ls numbers them", n, len(listed))}
	}
	return listed[n-1], nil
}

// fileTable writes a listing for people.
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

// captionOf is a file's caption, or where there is none, its name for people.
func captionOf(f *pb.File) string {
	if f.GetCaption() != "" {
		return f.GetCaption()
	}
	return f.GetDisplayName()
}

// printFile writes one line for a file: when, by whom, what, its caption, and its name, which is what other commands take.
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
	r, err := client.Files().StatFile(ctx, &pb.StatFileRequest{Source: &pb.StatFileRequest_Name{Name: cmd.Name}})
	if err != nil {
		return err
	}
	f := r.GetFile()
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
		{"caption", f.GetCaption()}, {"called", f.GetDisplayName()}, {"dialog", f.GetDialogId()}, {"storage path", f.GetStoragePath()},
	})
}

type getUploadCmd struct {
	RequestID string `arg:"" help:"Request id of the upload."`
}

func (cmd *getUploadCmd) Run(ctx context.Context, a *app) error {
	if uuid.Validate(cmd.RequestID) != nil {
		return &usageError{"the request id must be a UUID, such as upload prints with --json and in errors"}
	}
	ctx, cancel := a.limit(ctx, callTimeout)
	defer cancel()
	client, c, err := a.client(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	r, err := client.Files().GetUpload(ctx, &pb.GetUploadRequest{Name: c.parent() + "/uploads/" + cmd.RequestID})
	if err != nil {
		return err
	}
	u := r.GetUpload()
	state := strings.ToLower(strings.TrimPrefix(u.GetState().String(), "UPLOAD_STATE_"))
	what, again := u.GetFile().GetName(), "lpfileshare upload FILE --request-id "+u.GetRequestId()
	switch u.GetState() {
	case pb.UploadState_UPLOAD_STATE_RECEIVING:
		what = "not finished: bytes are coming in, or its connection broke; repeat it under the same id: " + again
	case pb.UploadState_UPLOAD_STATE_STORED:
		what = strings.TrimSpace("stored, not published: " + what)
	case pb.UploadState_UPLOAD_STATE_PUBLISHING:
		what = "sent or about to be, LivePerson's answer is not known yet; to have it settled, never publishing it twice: " + again
	case pb.UploadState_UPLOAD_STATE_FAILED:
		what = "nothing was published: " + u.GetFailure().GetMessage()
	}
	return a.print(u, "%s", strings.TrimSpace(state+"\t"+plain(what)))
}
