package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sync/errgroup"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

// A batch is the files of one upload command.
type batch struct {
	*app
	cmd          *uploadCmd
	client       *lpfileshare.Client
	conversation string
	progress     *progress
	files        []string
}

// An outcome is what the upload of one file printed, and its error.
type outcome struct {
	stdout, stderr bytes.Buffer
	err            error
	done           chan struct{} // closed at the end
}

// run uploads the files and prints their results in the order of the files: as they are known, or after the progress bars. A file that
// fails does not end the others.
func (b *batch) run(ctx context.Context) error {
	b.progress.count(len(b.files))
	outcomes := make([]*outcome, len(b.files))
	for i := range outcomes {
		outcomes[i] = &outcome{done: make(chan struct{})}
	}
	printed := make(chan error, 1)
	var uploads errgroup.Group
	uploads.SetLimit(b.cmd.Parallel)
	show := func() { printed <- b.print(ctx, outcomes) }
	if b.progress.bars == nil {
		go show() // ends with the last upload
	}
	for i, file := range b.files {
		uploads.Go(func() error {
			o := outcomes[i]
			defer close(o.done)
			if o.err = ctx.Err(); o.err == nil {
				o.err = b.send(ctx, file, o)
			}
			return nil
		})
	}
	uploads.Wait()
	b.progress.wait()
	if b.progress.bars != nil {
		show()
	}
	return <-printed
}

// print prints the outcomes as they are known, and returns the error of the command.
func (b *batch) print(ctx context.Context, outcomes []*outcome) error {
	code := exitOK
	var uploaded, unknown, failed, canceled int
	for i, o := range outcomes {
		<-o.done
		b.stderr.Write(o.stderr.Bytes())
		if _, err := b.stdout.Write(o.stdout.Bytes()); err != nil {
			return err
		}
		e, ok := errors.AsType[*lpfileshare.Error](o.err)
		sent := ok && e.Finished && mayHaveSucceeded(e.Code)
		if sent {
			unknown++
		}
		switch {
		case o.err == nil:
			uploaded++
		case ctx.Err() != nil && errors.Is(o.err, context.Canceled):
			canceled++
			if sent {
				b.printSent(shownPath(b.files[i]), e)
			}
		default:
			b.printFailure(o.err)
			failed++
			if one := exitCodeOf(ctx, o.err); code != exitFailed {
				code = one
			}
		}
	}
	switch {
	case canceled > 0:
		b.printInterrupted(uploaded, unknown)
		return reportedError{exitInterrupted}
	case failed == 0:
		return nil
	case len(outcomes) > 1:
		fmt.Fprintf(b.stderr, "lpfileshare: %d of %d files failed\n", failed, len(outcomes))
	}
	return reportedError{code}
}

// printInterrupted prints how many files an interrupted command uploaded, and of how many that is unknown.
func (b *batch) printInterrupted(uploaded, unknown int) {
	if uploaded+unknown == 0 {
		fmt.Fprintln(b.stderr, nothingPublished)
		return
	}
	maybe := ""
	if unknown > 0 {
		maybe = fmt.Sprintf(", and %d may have been", unknown)
	}
	fmt.Fprintf(b.stderr, "lpfileshare: interrupted: %d of %d files were uploaded%s; repeat the command with the rest\n", uploaded, len(b.files), maybe)
}

// send uploads one file.
func (b *batch) send(ctx context.Context, path string, out *outcome) error {
	ctx, cancel := b.limit(ctx, fileTimeout)
	defer cancel()
	a := *b.app
	a.stdout, a.stderr = &out.stdout, &out.stderr
	source, name := a.stdin, shownPath(path)
	o := b.cmd.options(b.conversation)
	if path != "-" {
		f, err := openFile(path)
		if err != nil {
			return fmt.Errorf("upload: %w", err)
		}
		defer f.Close()
		source, name = f, displayName(path)
		if o.DisplayName == "" {
			o.DisplayName = name
		}
	}
	source, err := b.cmd.setType(&o, name, source)
	if err != nil {
		return err
	}
	bar := b.progress.add(name)
	o.OnProgress = bar.update
	resp, err := b.client.Upload(ctx, o, source)
	bar.end(err == nil)
	if err != nil {
		return b.explain(ctx, o, err)
	}
	return b.printUploaded(&a, name, o, resp)
}

// shownPath returns a path of the command line as messages name it.
func shownPath(path string) string {
	if path == "-" {
		return "standard input"
	}
	return path
}

// options returns the options for every file of the command.
func (cmd *uploadCmd) options(conversation string) lpfileshare.UploadOptions {
	o := lpfileshare.UploadOptions{
		Conversation: conversation, DialogID: cmd.Dialog, DisplayName: cmd.Name, Caption: cmd.Caption, Preview: cmd.preview,
		RequestID: cmd.RequestID, ValidateOnly: cmd.ValidateOnly,
	}
	if cmd.StoreOnly {
		o.PublishMode = pb.PublishMode_PUBLISH_MODE_STORE_ONLY
	}
	return o
}

// setType sets the type of a file, and what depends on it. It returns a reader of the whole file.
func (cmd *uploadCmd) setType(o *lpfileshare.UploadOptions, name string, source io.Reader) (io.Reader, error) {
	o.FileType = pb.FileType(pb.FileType_value["FILE_TYPE_"+strings.ToUpper(string(cmd.Type))])
	if o.FileType == pb.FileType_FILE_TYPE_UNSPECIFIED {
		head, whole, err := peek(source)
		if err != nil {
			return nil, fmt.Errorf("upload: %w", err)
		}
		source = whole
		if o.FileType, err = detectType(o.DisplayName, name, head); err != nil {
			return nil, err
		}
	}
	if o.Preview == nil {
		o.Preview = autoPreview(o.FileType)
	}
	if (cmd.Fit || cmd.Strip) && isImage(o.FileType) { // other files are not changed
		o.Image = &pb.ImageOptions{Fit: cmd.Fit, StripMetadata: cmd.Strip}
	}
	return source, nil
}

// printUploaded prints the result of an upload with a: the name of the file, on a terminal the short one.
func (b *batch) printUploaded(a *app, name string, o lpfileshare.UploadOptions, resp *pb.UploadResponse) error {
	if o.ValidateOnly {
		return a.print(resp, "%s would be accepted", plain(name))
	}
	if change := imageChange(resp); change != "" && !a.JSON {
		a.note("%s: %s", plain(name), change)
	}
	stored := o.PublishMode == pb.PublishMode_PUBLISH_MODE_STORE_ONLY
	if stored && !a.JSON {
		a.note("%s: stored, not published; publish it: lpfileshare publish %s", plain(name), plain(resp.GetRequestId()))
	}
	long := stored || !b.terminal(b.stdout) // no list has a file that is only stored, so its short name cannot be looked up
	return a.print(resp, "%s", nameOf(resp.GetFile(), long))
}
