package main

import (
	"context"
	"sync"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/filewatch"
)

// A reloader reads files again while the server runs: all at SIGHUP, and each when it has changed, because Kubernetes and cert-manager
// send no signal.
type reloader struct {
	every   time.Duration                       // 0: files are not polled
	done    func(file, cause string, err error) // called after each reload; the cause is "signal" or "poll"
	sources []source

	mu sync.Mutex // held during a reload
}

// A source is a file, or several that belong together.
type source struct {
	file    string // the flag that names it, without dashes
	watcher *filewatch.Watcher
	load    func() error
}

// add adds files. It must be called before they are read for the first time, or right after that, so that no change is missed. load reads them
// again, and logs the result. After an error the previous content stays in use.
func (r *reloader) add(file string, paths func() []string, load func() error) {
	s := source{file: file, load: load}
	s.watcher = filewatch.New(r.every, paths, func() { r.reload(s, "poll") })
	r.sources = append(r.sources, s)
}

// files returns what add needs for files that are always the same. Empty names are left out.
func files(names ...string) func() []string {
	var paths []string
	for _, name := range names {
		if name != "" {
			paths = append(paths, name)
		}
	}
	return func() []string { return paths }
}

// all reads all files again.
func (r *reloader) all() {
	for _, s := range r.sources {
		s.watcher.Mark()
		r.reload(s, "signal")
	}
}

func (r *reloader) reload(s source, cause string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done(s.file, cause, s.load())
}

// watch polls the files until ctx ends. The returned function waits until then.
func (r *reloader) watch(ctx context.Context) (wait func()) {
	var running sync.WaitGroup
	if r.every > 0 {
		for _, s := range r.sources {
			running.Go(func() { s.watcher.Run(ctx) })
		}
	}
	return running.Wait
}
