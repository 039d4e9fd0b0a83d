package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// scope selects the conversations of a listing or a watch.
type scope struct {
	Conversation string `short:"c" xor:"scope" placeholder:"NAME" help:"Name or id of the conversation. Default: the one that was created last, else your only open one."`
	All          bool   `short:"a" xor:"scope" help:"All conversations that you take part in."`
	Long         bool   `short:"l" help:"Print whole names instead of short ones."`
}

func (s *scope) parent(ctx context.Context, a *app, client *lpfileshare.Client, c *connection) (string, error) {
	if s.All {
		return c.parent() + "/conversations/-", nil
	}
	return a.conversation(ctx, client, c, s.Conversation)
}

type lsCmd struct {
	scope
	Newest bool `help:"List the newest file first."`
	Limit  int  `placeholder:"N" help:"List at most this many files. Default: all."`
	Sizes  bool `help:"Print the sizes of more than 100 files too. Each needs a call."`
}

const (
	// maxListed is the number of files of a listing that can be named by number. It limits the session file.
	maxListed = 1000
	// maxSized is the number of files whose sizes ls asks for without --sizes, sizeCalls how many at once.
	maxSized, sizeCalls = 100, 8
	// maxText is the length of a caption or display name in a table on a terminal, in characters.
	maxText = 40
)

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
	parent, err := cmd.parent(ctx, a, client, c)
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
	if err := cmd.sizes(ctx, a, client, files); err != nil {
		return err
	}
	if err := a.printFiles(files, cmd.Long); err != nil {
		return err
	}
	listed := &listing{Address: c.address}
	for _, f := range files[:min(len(files), maxListed)] {
		listed.Names = append(listed.Names, f.GetName())
	}
	if err := c.file.update(func(s *session) { s.Listed = listed }); err != nil {
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

// sizes sets the sizes of the files, which LivePerson's messages do not have. A file whose size the store does not report keeps none.
func (cmd *lsCmd) sizes(ctx context.Context, a *app, client *lpfileshare.Client, files []*pb.File) error {
	if len(files) > maxSized && !cmd.Sizes {
		a.note("lpfileshare: the sizes of more than %d files are left out; print them with --sizes", maxSized)
		return nil
	}
	calls, ctx := errgroup.WithContext(ctx)
	calls.SetLimit(sizeCalls)
	for _, f := range files {
		if f.StoredSizeBytes != nil {
			continue
		}
		calls.Go(func() error {
			stat, err := client.Stat(ctx, f.GetName())
			switch {
			case err == nil:
				f.StoredSizeBytes = stat.StoredSizeBytes
			case ctx.Err() != nil:
				return err
			default: // a file that was deleted is in the list still
			}
			return nil
		})
	}
	return calls.Wait()
}

// printUnreadable prints a conversation that a listing or a watch leaves out on standard error.
func (a *app) printUnreadable(u *pb.UnreadableConversation) {
	reason := strings.TrimPrefix(u.GetReason().String(), "ERROR_REASON_")
	fmt.Fprintf(a.stderr, "lpfileshare: left out %s: %s (%s)\n", plain(u.GetName()), plain(u.GetMessage()), reason)
}

// printFiles prints a listing: as JSON, as a table on a terminal, and elsewhere with the same columns separated by tabs.
func (a *app) printFiles(files []*pb.File, long bool) error {
	if a.JSON {
		for _, f := range files {
			if err := a.print(f, ""); err != nil {
				return err
			}
		}
		return nil
	}
	if len(files) == 0 {
		a.note("No files.")
		return nil
	}
	out, flush, maxChars := a.stdout, func() error { return nil }, 0
	if a.terminal(a.stdout) {
		table := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
		out, flush, maxChars = table, table.Flush, maxText
	}
	if _, err := io.WriteString(out, "#\tTIME\tSENDER\tTYPE\tSIZE\tNAME\tTEXT\n"); err != nil {
		return err
	}
	for i, f := range files {
		size := "-"
		if f.StoredSizeBytes != nil {
			size = strconv.FormatInt(f.GetStoredSizeBytes(), 10)
		}
		_, err := fmt.Fprintf(out, "%d\t%s\t%s\t%s\t%s\t%s\t%s\n", i+1, timeOf(f), roleName(f.GetSenderRole()), typeName(f), size,
			nameOf(f, long), clip(textOf(f), maxChars))
		if err != nil {
			return err
		}
	}
	return flush()
}

// fileLine returns a file in one line: time, sender, type, name, and caption or display name.
func fileLine(f *pb.File, long bool) string {
	return strings.TrimSuffix(strings.Join([]string{timeOf(f), roleName(f.GetSenderRole()), typeName(f), nameOf(f, long), textOf(f)}, "\t"), "\t")
}

// nameOf returns the name of a file that other commands accept.
func nameOf(f *pb.File, long bool) string {
	if long {
		return plain(f.GetName())
	}
	return shortName(f.GetName())
}

// textOf returns the caption of a file, or else its display name.
func textOf(f *pb.File) string {
	if f.GetCaption() != "" {
		return plain(f.GetCaption())
	}
	return plain(f.GetDisplayName())
}

// clip returns at most n characters of a text. 0: all.
func clip(text string, n int) string {
	if r := []rune(text); n > 0 && len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return text
}

// formatTime returns a time in the local time zone, to the second.
func formatTime(t time.Time) string { return t.Local().Format(time.DateTime) }

// timeOf returns the time of the message of a file.
func timeOf(f *pb.File) string {
	if f.GetCreateTime() == nil {
		return "-"
	}
	return formatTime(f.GetCreateTime().AsTime())
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

type statCmd struct{ fileArg }

func (cmd *statCmd) Run(ctx context.Context, a *app) error {
	return a.call(ctx, func(ctx context.Context, client *lpfileshare.Client, c *connection) error {
		name, err := a.file(ctx, client, c, cmd.Name)
		if err != nil {
			return err
		}
		f, err := client.Stat(ctx, name)
		if err != nil {
			return err
		}
		if a.JSON {
			return a.print(f, "")
		}
		size, preview, pixels := "", "", ""
		if f.StoredSizeBytes != nil {
			size = strconv.FormatInt(f.GetStoredSizeBytes(), 10) + " bytes"
		}
		if n := len(f.GetPreviewDataUri()); n > 0 {
			preview = strconv.Itoa(n) + " characters; printed with --json --previews"
		}
		if f.GetImageWidth() > 0 {
			pixels = fmt.Sprintf("%d x %d pixels", f.GetImageWidth(), f.GetImageHeight())
		}
		return a.rows([][2]string{
			{"name", f.GetName()}, {"short name", shortName(f.GetName())}, {"type", typeName(f)}, {"media type", f.GetContentType()},
			{"size", size}, {"image", pixels}, {"etag", f.GetEtag()}, {"time", timeOf(f)},
			{"sent by", strings.TrimSpace(roleName(f.GetSenderRole()) + " " + f.GetSenderId())},
			{"caption", f.GetCaption()}, {"display name", f.GetDisplayName()}, {"preview", preview},
			{"dialog", f.GetDialogId()}, {"storage path", f.GetStoragePath()},
		})
	})
}
