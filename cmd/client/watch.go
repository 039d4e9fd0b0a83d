package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	lpfileshare "github.com/lpfileshare/lpfileshare/clients/go"
	pb "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
)

type watchCmd struct {
	scope
	Download string `placeholder:"DIR" help:"Also get each file into this folder."`
	Existing bool   `help:"Begin with the files that are already there."`
	Count    int    `placeholder:"N" help:"End after so many files. Default: never."`
}

// errEnough ends a watch that has seen as many files as were asked for.
var errEnough = errors.New("enough")

func (cmd *watchCmd) Run(ctx context.Context, a *app) error {
	if cmd.Count < 0 {
		return &usageError{"--count must not be negative"}
	}
	if cmd.Download != "" {
		if info, err := os.Stat(cmd.Download); err != nil || !info.IsDir() {
			return &usageError{fmt.Sprintf("--download: %s is no folder", cmd.Download)}
		}
	}
	ctrlC := ctx
	ctx, cancel := a.limit(ctx, 0)
	defer cancel()
	connect, cancelConnect := a.limit(ctx, callTimeout)
	defer cancelConnect()
	client, c, err := a.client(connect)
	if err != nil {
		return err
	}
	defer client.Close()
	parent, err := cmd.parent(c)
	if err != nil {
		return err
	}
	w := &watcher{app: a, client: client, cmd: cmd, seen: map[string]bool{}}
	err = w.run(ctx, parent)
	if errors.Is(err, errEnough) || ctrlC.Err() != nil { // which is how a watch is ended
		return nil
	}
	return err
}

// A watcher lists what is there, then prints what comes, each file once.
type watcher struct {
	*app
	client *lpfileshare.Client
	cmd    *watchCmd
	seen   map[string]bool
	count  int
	begun  bool // whether the watch has stood
	lost   bool // whether it is told that it does not
}

// connection tells of the connection on standard error: a watch that sees nothing is not to be mistaken for a quiet one.
func (w *watcher) connection(parent string, err error) {
	switch {
	case err != nil && !w.lost:
		w.lost = true
		fmt.Fprintln(w.stderr, "lpfileshare: connection lost, trying again")
	case err != nil:
	case w.lost:
		w.lost = false
		fmt.Fprintln(w.stderr, "lpfileshare: connected again")
	case !w.begun:
		what := parent
		if strings.HasSuffix(parent, "/-") {
			what = "all conversations"
		}
		fmt.Fprintf(w.stderr, "lpfileshare: watching %s (Ctrl-C ends it)\n", plain(what))
	}
	w.begun = w.begun || err == nil
}

func (w *watcher) run(ctx context.Context, parent string) error {
	show := w.cmd.Existing
	for {
		// The listing gives the place that the watch begins at; without it, what is published in between would be lost.
		token, err := w.client.ListFiles(ctx, parent, func(f *pb.File) error {
			if !show {
				w.seen[f.GetName()] = true
				return nil
			}
			return w.file(ctx, f)
		})
		if lpfileshare.ErrorReason(err) == pb.ErrorReason_ERROR_REASON_METHOD_NOT_IMPLEMENTED && !show {
			err = nil
		}
		if err != nil {
			return err
		}
		o := lpfileshare.WatchOptions{Parent: parent, Token: token, OnConnection: func(err error) { w.connection(parent, err) }}
		err = w.client.Watch(ctx, o, func(f *pb.File) error {
			return w.file(ctx, f)
		})
		if !errors.Is(err, lpfileshare.ErrWatchReset) {
			return err
		}
		show = true // whatever the listing has that was not seen came while nobody watched
	}
}

// file prints a file and gets it if asked to. One that cannot be had is told, and does not end the watch.
func (w *watcher) file(ctx context.Context, f *pb.File) error {
	if w.seen[f.GetName()] {
		return nil
	}
	w.seen[f.GetName()] = true
	if w.cmd.Download == "" {
		if err := w.printFile(f); err != nil {
			return err
		}
	} else if err := w.get(ctx, f); err != nil {
		if ctx.Err() != nil {
			return err
		}
		w.complain(ctx, err)
	}
	if w.count++; w.count == w.cmd.Count {
		return errEnough
	}
	return nil
}

// get gets a file under its own name, or where that is taken, a numbered one.
func (w *watcher) get(ctx context.Context, f *pb.File) error {
	ctx, cancel := context.WithTimeout(ctx, fileTimeout)
	defer cancel()
	name := fileName(f)
	ext := filepath.Ext(name)
	for n := 1; ; n++ {
		path := filepath.Join(w.cmd.Download, name)
		if n > 1 {
			path = filepath.Join(w.cmd.Download, strings.TrimSuffix(name, ext)+"-"+strconv.Itoa(n)+ext)
		}
		if _, err := os.Lstat(path); err == nil {
			continue
		}
		_, err := downloadFile(ctx, w.client, lpfileshare.DownloadOptions{Name: f.GetName()}, path, true)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		if w.JSON {
			return w.printJSON(map[string]string{"name": f.GetName(), "path": path})
		}
		_, err = fmt.Fprintf(w.stdout, "%s\t%s\n", fileLine(f), path)
		return err
	}
}

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
