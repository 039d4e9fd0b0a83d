package main

import (
	"github.com/dustin/go-humanize"
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// A progress shows the progress of files on a terminal, and nothing elsewhere.
type progress struct {
	bars  *mpb.Progress // nil: show nothing
	files *mpb.Bar      // counts the files, if there are several; nil: none
}

// newProgress starts to show progress. The caller must call wait.
func (a *app) newProgress() *progress {
	if a.JSON || a.Quiet || !a.terminal(a.stderr) {
		return &progress{}
	}
	return &progress{bars: mpb.New(mpb.WithOutput(a.stderr), mpb.WithWidth(60), mpb.WithAutoRefresh())}
}

// count adds a bar that counts n files.
func (p *progress) count(n int) {
	if p.bars == nil || n < 2 {
		return
	}
	p.files = p.bars.AddBar(int64(n), mpb.BarPriority(1<<30), mpb.AppendDecorators(decor.CountersNoUnit("%d / %d files")))
}

// add adds a file. Its bar appears with the first update, when its size is known. The caller must call end.
func (p *progress) add(name string) *bar { return &bar{progress: p, name: plain(name)} }

// wait waits until all bars have been drawn for the last time.
func (p *progress) wait() {
	if p.bars == nil {
		return
	}
	if p.files != nil {
		p.files.Abort(false) // if not all files were sent
	}
	p.bars.Wait()
}

// A bar shows the progress of one file.
type bar struct {
	progress *progress
	name     string
	bar      *mpb.Bar // nil: nothing is shown yet
	total    int64    // -1: not known
}

// update shows done of total bytes. total is -1 if it is not known.
func (b *bar) update(done, total int64) {
	if b.progress.bars == nil {
		return
	}
	if b.bar == nil {
		b.bar, b.total = b.progress.draw(b.name, total), total
	}
	b.bar.SetTotal(max(b.total, 0), false) // does not complete the bar: the response follows the last byte
	b.bar.SetCurrent(done)
}

// draw draws a new bar. Without a total it has a spinner and the number of bytes.
func (p *progress) draw(name string, total int64) *mpb.Bar {
	options := []mpb.BarOption{mpb.PrependDecorators(decor.Name(name + " "))}
	if p.files != nil {
		options = append(options, mpb.BarRemoveOnComplete())
	}
	count := func(s decor.Statistics) string {
		done := humanize.Bytes(uint64(max(s.Current, 0)))
		if total < 0 {
			return done
		}
		return done + " / " + humanize.Bytes(uint64(total))
	}
	options = append(options, mpb.AppendDecorators(decor.Any(count)))
	if total < 0 {
		return p.bars.New(0, mpb.SpinnerStyle(), options...)
	}
	return p.bars.New(0, mpb.BarStyle(), options...)
}

// end completes the bar, and removes it unless ok.
func (b *bar) end(ok bool) {
	switch {
	case b.bar == nil:
	case ok:
		if b.total >= 0 {
			b.bar.SetCurrent(b.total)
		}
		b.bar.SetTotal(-1, true)
	default:
		b.bar.Abort(true)
	}
	if b.progress.files != nil {
		b.progress.files.Increment()
	}
}
