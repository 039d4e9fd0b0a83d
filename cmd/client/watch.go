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
	Download string `placeholder:"DIR" help:"Also download each file into this directory."`
	Existing bool   `help:"Begin with the files that exist already."`
	Count    int    `placeholder:"N" help:"End after this many files. Default: never."`
}

// errEnough ends a watch that has printed --count files.
var errEnough = errors.New("enough")

func (cmd *watchCmd) Run(ctx context.Context, a *app) error {
	if cmd.Count < 0 {
		return &usageError{"--count must not be negative"}
	}
	if cmd.Download != "" {
		if info, err := os.Stat(cmd.Download); err != nil || !info.IsDir() {
			return &usageError{fmt.Sprintf("--download: %s is not a directory", cmd.Download)}
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
	parent, err := cmd.parent(connect, a, client, c)
	if err != nil {
		return err
	}
	w := &watcher{app: a, client: client, cmd: cmd, seen: map[string]bool{}}
	err = w.run(ctx, parent)
	switch {
	case ctrlC.Err() != nil: // the usual end of a watch
		return nil
	case errors.Is(err, errEnough) && w.failed != exitOK:
		return reportedError{w.failed}
	case errors.Is(err, errEnough):
		return nil
	default:
		return err
	}
}

// A watcher lists the existing files, then prints new ones, each file once.
type watcher struct {
	*app
	client *lpfileshare.Client
	cmd    *watchCmd
	seen   map[string]bool
	count  int
	failed int  // exit code of the downloads that failed
	opened bool // the watch was open at least once
	lost   bool // the loss of the connection was printed
}

// connection prints changes of the connection on standard error, so that a lost connection does not look like a quiet one.
func (w *watcher) connection(parent string, err error) {
	switch {
	case err != nil && !w.lost:
		w.lost = true
		w.note("lpfileshare: connection lost, retrying")
	case err != nil:
	case w.lost:
		w.lost = false
		w.note("lpfileshare: connected again")
	case !w.opened:
		what := parent
		if strings.HasSuffix(parent, "/-") {
			what = "all conversations"
		}
		w.note("lpfileshare: watching %s (Ctrl-C ends it)", plain(what))
	}
	w.opened = w.opened || err == nil
}

func (w *watcher) run(ctx context.Context, parent string) error {
	show := w.cmd.Existing
	for {
		token, err := w.list(ctx, parent, show)
		if err != nil {
			return err
		}
		watch := w.client.Watch(ctx, lpfileshare.WatchOptions{
			Parent: parent, Token: token, OnConnection: func(err error) { w.connection(parent, err) }, OnUnreadable: w.printUnreadable,
		})
		for f, werr := range watch.All() {
			if err = werr; err != nil {
				break
			}
			if err = w.print(ctx, f); err != nil {
				break
			}
		}
		if !errors.Is(err, lpfileshare.ErrWatchReset) {
			return err
		}
		show = true // files of the listing that were not seen were published while there was no watch
	}
}

// list lists the files, and prints them if show is set. The watch must begin with its token: otherwise it would miss files that are
// published in between.
func (w *watcher) list(ctx context.Context, parent string, show bool) (token string, err error) {
	list := w.client.Files(ctx, lpfileshare.FilesOptions{Parent: parent})
	for f, err := range list.All() {
		switch {
		case lpfileshare.ErrorReason(err) == pb.ErrorReason_ERROR_REASON_METHOD_NOT_IMPLEMENTED && !show:
			return "", nil
		case err != nil:
			return "", err
		case !show:
			w.seen[f.GetName()] = true
		default:
			if err := w.print(ctx, f); err != nil {
				return "", err
			}
		}
	}
	for _, u := range list.Unreadable() {
		w.printUnreadable(u)
	}
	return list.WatchToken(), nil
}

// print prints a file, and downloads it with --download. A failed download is printed and does not end the watch, but a watch of
// --count files fails in the end.
func (w *watcher) print(ctx context.Context, f *pb.File) error {
	if w.seen[f.GetName()] {
		return nil
	}
	w.seen[f.GetName()] = true
	if w.cmd.Download == "" {
		if err := w.app.print(f, "%s", fileLine(f, w.cmd.Long)); err != nil {
			return err
		}
	} else if err := w.download(ctx, f); err != nil {
		if ctx.Err() != nil {
			return err
		}
		w.printError(ctx, err)
		if w.failed != exitFailed {
			w.failed = exitCodeOf(ctx, err)
		}
	}
	if w.count++; w.count == w.cmd.Count {
		return errEnough
	}
	return nil
}

// download downloads a file under its own name, or a numbered one if that exists.
func (w *watcher) download(ctx context.Context, f *pb.File) error {
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
		result, err := downloadFile(ctx, w.client, lpfileshare.DownloadOptions{Name: f.GetName()}, path, true)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return err
		}
		if w.JSON {
			return w.printDownloaded(f, path, result)
		}
		_, err = fmt.Fprintf(w.stdout, "%s\t%s\n", fileLine(f, w.cmd.Long), path)
		return err
	}
}
