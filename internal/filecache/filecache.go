// Package filecache bounds the memory for the files of dialogs: one number of bytes for all sessions of the process.
//
// What is kept of a file has no preview (share.FileEvent.Brief), so its size is bounded. If the memory is used up, the dialog that
// has not been used for the longest time is dropped; its next reader reads it from LivePerson again.
package filecache

import (
	"container/list"
	"sync"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// dialogOverhead is the approximate size of a Dialog without its files, in bytes.
const dialogOverhead = 512

// Cache is the memory for the files of all dialogs. It is safe for concurrent use.
type Cache struct {
	max int64

	mu       sync.Mutex
	used     int64     // bytes of all dialogs, and reserved ones
	reserved int64     // bytes of all parts
	recent   list.List // of *Dialog, the most recently used first
}

// New returns a Cache of at most max bytes.
func New(max int64) *Cache { return &Cache{max: max} }

// MaxDialog returns the maximum size of one dialog in bytes: a quarter of the Cache.
func (c *Cache) MaxDialog() int64 { return c.max / 4 }

// Used returns the bytes in use.
func (c *Cache) Used() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used
}

// A Part is what one caller has reserved. A caller may reserve as much as others leave free, like all memory that callers share
// (docs/adr/0021-fair-shares.md).
type Part struct {
	c     *Cache
	bytes int64 // guarded by c.mu
}

// Part returns a Part with nothing reserved.
func (c *Cache) Part() *Part { return &Part{c: c} }

// Reserve counts n bytes that the caller holds, and reports whether there is memory for them. Dialogs are dropped to make space. The
// caller must release the bytes.
func (p *Part) Reserve(n int64) bool {
	c := p.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.bytes > 0 && p.bytes+n > c.max-c.reserved-n || !c.reserve(n, nil) {
		return false
	}
	p.bytes += n
	c.reserved += n
	return true
}

// Release gives back reserved bytes.
func (p *Part) Release(n int64) {
	p.c.mu.Lock()
	defer p.c.mu.Unlock()
	p.bytes -= n
	p.c.reserved -= n
	p.c.used -= n
}

// reserve drops other dialogs than except until n bytes are free.
func (c *Cache) reserve(n int64, except *Dialog) bool {
	for last := c.recent.Back(); c.used+n > c.max && last != nil; {
		d, previous := last.Value.(*Dialog), last.Prev()
		if d != except {
			d.drop()
		}
		last = previous
	}
	if c.used+n > c.max {
		return false
	}
	c.used += n
	return true
}

// Dialog is what is kept of one dialog: its files up to a position. The Cache may drop it at any time.
type Dialog struct {
	c *Cache

	// Guarded by c.mu.
	element *list.Element // nil if nothing is kept
	files   []share.FileEvent
	next    int64
	size    int64
}

// Dialog returns a Dialog of which nothing is kept.
func (c *Cache) Dialog() *Dialog { return &Dialog{c: c} }

// Files returns the files before position next, in order; ok is false if nothing is kept. The caller must not change them.
func (d *Dialog) Files() (files []share.FileEvent, next int64, ok bool) {
	d.c.mu.Lock()
	defer d.c.mu.Unlock()
	if d.element == nil {
		return nil, 0, false
	}
	d.c.recent.MoveToFront(d.element)
	return d.files[:len(d.files):len(d.files)], d.next, true
}

// Next returns the position up to which the dialog is kept; ok is false if nothing is kept. It does not count as a use.
func (d *Dialog) Next() (next int64, ok bool) {
	d.c.mu.Lock()
	defer d.c.mu.Unlock()
	return d.next, d.element != nil
}

// Append adds the files between the positions from and next. It does nothing unless the dialog is kept up to from, or from is 0. If
// there is no memory for them, the dialog is dropped.
func (d *Dialog) Append(from, next int64, files ...share.FileEvent) {
	d.c.mu.Lock()
	defer d.c.mu.Unlock()
	if d.element == nil && from != 0 || d.element != nil && from != d.next {
		return
	}
	d.grow(next, files)
}

// Replace keeps files as those before position next, instead of what was kept.
func (d *Dialog) Replace(next int64, files []share.FileEvent) {
	d.c.mu.Lock()
	defer d.c.mu.Unlock()
	d.drop()
	d.grow(next, files)
}

// grow must be called with c.mu held.
func (d *Dialog) grow(next int64, files []share.FileEvent) {
	size := int64(0)
	if d.element == nil {
		size = dialogOverhead
	}
	for i := range files {
		size += files[i].Size()
	}
	if d.size+size > d.c.MaxDialog() || !d.c.reserve(size, d) {
		d.drop()
		return
	}
	if d.element == nil {
		d.element = d.c.recent.PushFront(d)
	}
	d.files, d.next, d.size = append(d.files, files...), next, d.size+size
}

// Drop forgets what is kept.
func (d *Dialog) Drop() {
	d.c.mu.Lock()
	defer d.c.mu.Unlock()
	d.drop()
}

func (d *Dialog) drop() {
	if d.element == nil {
		return
	}
	d.c.recent.Remove(d.element)
	d.c.used -= d.size
	d.element, d.files, d.next, d.size = nil, nil, 0, 0
}
