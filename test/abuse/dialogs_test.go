package abuse

import (
	"context"
	"fmt"
	"io"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/test/harness"
)

// agent signs an agent in and returns its client.
func (s *server) agent(name string) *lpfileshare.Client {
	s.t.Helper()
	c := s.connect()
	in, err := c.Raw().Identity.SignInAgent(s.t.Context(), &pb.SignInAgentRequest{
		Account: accountPath, Credentials: &pb.SignInAgentRequest_Password{Password: &pb.PasswordCredentials{Username: name, Password: "sandbox"}},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return c.As(lpfileshare.AgentToken(lpfileshare.StaticToken(in.GetAgentToken())))
}

// preview is close to the longest that there may be.
var preview = harness.Preview("", 30_000)

// smallPreview is one of the size that is usual.
var smallPreview = harness.Preview("", 3_000)

func picture(ctx context.Context, c *lpfileshare.Client, conversation string, preview *pb.Preview) error {
	_, err := c.Raw().Files.UploadSmallFile(ctx, &pb.UploadSmallFileRequest{Data: gif, Spec: &pb.UploadSpec{
		Conversation: conversation, FileType: pb.FileType_FILE_TYPE_GIF, Preview: preview,
	}})
	return err
}

// pictures uploads n pictures with previews, 16 at once.
func pictures(ctx context.Context, c *lpfileshare.Client, conversation string, preview *pb.Preview, n int) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(16)
	for range n {
		group.Go(func() error { return picture(ctx, c, conversation, preview) })
	}
	return group.Wait()
}

// agentLists returns what an agent does who sees all conversations of the account: a list of all, and a download from one's own.
func agentLists(s *server) func(ctx context.Context) error {
	consumer := s.Consumer(s.t)
	name, err := published(s.t.Context(), consumer, 3000)
	if err != nil {
		s.t.Fatal(err)
	}
	agent := s.agent("ann")
	return func(ctx context.Context) error {
		resp, err := agent.Raw().Files.ListFiles(ctx, &pb.ListFilesRequest{Parent: accountPath + "/conversations/-", PageSize: 5})
		if err != nil {
			return err
		}
		if len(resp.GetFiles()) == 0 {
			return fmt.Errorf("the list is empty")
		}
		_, err = agent.Download(ctx, lpfileshare.DownloadOptions{Name: name, RetryFor: -1}, io.Discard)
		return err
	}
}

// floodDialog has a consumer publish 150 pictures with the longest previews in one dialog, and then use it.
func floodDialog(ctx context.Context, s *server) {
	c := s.Consumer(s.t)
	err := pictures(ctx, c.Client, c.Conversation, preview, 150)
	if err == nil {
		err = list(ctx, c.Client)
	}
	if err != nil && ctx.Err() == nil {
		s.t.Errorf("the consumer with the large dialog: %v", err)
	}
	<-ctx.Done()
}

// TestDialogs_ExceedAFrame reads a dialog whose messages exceed the limit of a frame of LivePerson's.
func TestDialogs_ExceedAFrame(t *testing.T) {
	picked(t, "a dialog that exceeds a frame")
	sb := harness.Sandbox(t, frames, sandbox.Options{AutoAssign: true})
	started, err := harness.Start(program, append(harness.Before(sb), "--ledger=memory", "--drain-notice=0s")...)
	if err != nil {
		t.Fatal(err)
	}
	started.Stopped(t)
	s := &server{started, t, sb}
	large, small := s.Consumer(t), s.Consumer(t)
	list := large.Files(t.Context(), lpfileshare.FilesOptions{Parent: large.Conversation})
	if _, err := list.Collect(); err != nil {
		t.Fatal(err)
	}
	const many = 150
	for c, n := range map[harness.Consumer]int{large: many, small: 1} {
		if err := pictures(t.Context(), c.Client, c.Conversation, preview, n); err != nil {
			t.Fatal(err)
		}
	}
	for _, reader := range []struct {
		c      *lpfileshare.Client
		parent string
		want   int
	}{
		{large.Client, large.Conversation, many}, {small.Client, small.Conversation, 1}, {s.agent("ann"), accountPath + "/conversations/-", many + 1},
	} {
		list := reader.c.Files(t.Context(), lpfileshare.FilesOptions{Parent: reader.parent})
		files, err := list.Collect()
		if err != nil || len(files) != reader.want || len(list.Unreadable()) > 0 {
			t.Fatalf("%s: %d files, %v, left out %v; want %d files", reader.parent, len(files), err, list.Unreadable(), reader.want)
		}
		for _, f := range files {
			if f.GetPreviewDataUri() != preview.GetDataUri() {
				t.Fatalf("%s: %s has the preview %.40s", reader.parent, f.GetName(), f.GetPreviewDataUri())
			}
		}
		last := files[len(files)-1].GetName()
		if f, err := reader.c.Stat(t.Context(), last); err != nil || f.GetPreviewDataUri() != preview.GetDataUri() {
			t.Errorf("%s: stat %.40s, %v", reader.parent, f.GetPreviewDataUri(), err)
		}
		if _, err := reader.c.Download(t.Context(), lpfileshare.DownloadOptions{Name: last}, io.Discard); err != nil {
			t.Errorf("%s: %v", reader.parent, err)
		}
	}
	n := 0
	for f, err := range large.Watch(t.Context(), lpfileshare.WatchOptions{Parent: large.Conversation, Token: list.WatchToken()}).All() {
		if err != nil || f.GetPreviewDataUri() != preview.GetDataUri() {
			t.Fatalf("the watch sent %s with the preview %.40s, %v", f.GetName(), f.GetPreviewDataUri(), err)
		}
		if n++; n == many {
			break
		}
	}
}

func TestDialogs(t *testing.T) {
	r := row{
		name: "150 pictures with the longest previews in one dialog", options: sandbox.Options{AutoAssign: true},
		honest: agentLists, attack: floodDialog, during: 10 * time.Second,
	}
	t.Run(r.name, r.run)
}

// TestDialogs_Size compares what a page, a download and a watch cost in dialogs of 10, 1,000 and 10,000 pictures with previews of
// 3,000 characters, once the caller has read the dialog.
func TestDialogs_Size(t *testing.T) {
	picked(t, "size of a dialog")
	sb := harness.Sandbox(t, frames, sandbox.Options{})
	started, err := harness.Start(program, append(harness.Before(sb), "--debug-listen=127.0.0.1:0", "--ledger=memory", "--drain-notice=0s", "--documents")...)
	if err != nil {
		t.Fatal(err)
	}
	started.Stopped(t)
	s := &server{started, t, sb}
	columns := []string{"a page of 10", "a download", "a watch to its first message"}
	small := make([]time.Duration, len(columns))
	for _, n := range []int{10, 1_000, 10_000} {
		c := s.Consumer(t)
		if err := pictures(t.Context(), c.Client, c.Conversation, smallPreview, n); err != nil {
			t.Fatal(err)
		}
		token := ""
		if resp, err := c.Raw().Files.ListFiles(t.Context(), &pb.ListFilesRequest{Parent: c.Conversation, PageSize: 10, NewestFirst: true}); err != nil {
			t.Fatal(err)
		} else {
			token = resp.GetWatchToken()
			c := c
			name := resp.GetFiles()[0].GetName()
			for i, call := range []func(ctx context.Context) error{
				func(ctx context.Context) error {
					_, err := c.Raw().Files.ListFiles(ctx, &pb.ListFilesRequest{Parent: c.Conversation, PageSize: 10, NewestFirst: true})
					return err
				},
				func(ctx context.Context) error {
					_, err := c.Download(ctx, lpfileshare.DownloadOptions{Name: name, RetryFor: -1}, io.Discard)
					return err
				},
				func(ctx context.Context) error {
					ctx, cancel := context.WithCancel(ctx)
					defer cancel()
					stream, err := c.Raw().Files.WatchFiles(ctx, &pb.WatchFilesRequest{Parent: c.Conversation, ResumeToken: token})
					if err == nil {
						_, err = stream.Recv()
					}
					return err
				},
			} {
				if err := call(t.Context()); err != nil {
					t.Fatalf("%d pictures, %s: %v", n, columns[i], err)
				}
				sample := measure(t.Context(), time.Second, call)
				if len(sample.errs) > 0 {
					t.Errorf("%d pictures, %s: %v", n, columns[i], sample.errs[0])
					continue
				}
				median, verdict := sample.times[len(sample.times)/2], "ok"
				if small[i] == 0 {
					small[i] = median
				}
				if median > 3*small[i]+5*time.Millisecond {
					verdict = "FAILED not flat"
					t.Errorf("%s takes %v with %d pictures, and %v with 10", columns[i], median, n, small[i])
				}
				tableRow(fmt.Sprintf("a dialog of %d pictures: %s", n, columns[i]), len(sample.times), "", sample, s.Memory(t, "VmHWM")/mib, "-", verdict)
			}
		}
	}
}
