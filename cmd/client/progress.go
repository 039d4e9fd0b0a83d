package main

import (
	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// A bar shows the progress of a file on a terminal, and nothing elsewhere.
type bar struct {
	progress *mpb.Progress // nil: show nothing
	bar      *mpb.Bar
}

// newBar starts a bar. The caller must end it.
func (a *app) newBar(name string) *bar {
	if a.JSON || !a.terminal(a.stderr) {
		return &bar{}
	}
	p := mpb.New(mpb.WithOutput(a.stderr), mpb.WithWidth(60), mpb.WithAutoRefresh())
	return &bar{progress: p, bar: p.AddBar(0,
		mpb.PrependDecorators(decor.Name(plain(name)+" ")),
		mpb.AppendDecorators(decor.Counters(decor.SizeB1000(0), "% .1f / % .1f")),
	)}
}

// update shows done of total bytes. total is -1 if it is not known.
func (b *bar) update(done, total int64) {
	if b.progress == nil {
		return
	}
	if total < 0 {
		total = done
	}
	b.bar.SetTotal(total, false)
	b.bar.SetCurrent(done)
}

// end ends the bar, and removes it unless ok.
func (b *bar) end(ok bool) {
	if b.progress == nil {
		return
	}
	if ok {
		b.bar.SetTotal(-1, true)
	} else {
		b.bar.Abort(true)
	}
	b.progress.Wait()
}
