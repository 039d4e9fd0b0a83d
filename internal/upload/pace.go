package upload

import (
	"time"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

const (
	// contendedTime is the time in which the memory that an upload has reserved must be filled while others wait for memory.
	contendedTime = time.Minute
	// contendedWindow is how often that is checked.
	contendedWindow = 10 * time.Second
)

// A pace checks that the bytes of an upload arrive fast enough: always at the minimum rate, over the long window, and faster while
// other uploads wait for memory, over the short window. Otherwise a few slow uploads could use the memory of all.
type pace struct {
	*reader
	long, short *window
	contended   bool // at the latest tick of the short window
}

// A window is the time between two ticks.
type window struct {
	*time.Ticker
	length         time.Duration
	arrived, waits int64 // at the latest tick
}

func newWindow(length time.Duration) *window {
	return &window{Ticker: time.NewTicker(length), length: length}
}

func (t *transfer) newPace(r *reader) *pace {
	return &pace{reader: r, long: newWindow(t.IdleTimeout), short: newWindow(contendedWindow)}
}

func (p *pace) stop() {
	p.long.Stop()
	p.short.Stop()
}

// checkLong is called at each tick of the long window.
func (p *pace) checkLong() error {
	return p.check(p.long, int64(float64(p.MinRate)*p.IdleTimeout.Seconds()), "")
}

// checkShort is called at each tick of the short window. Others must have waited in two windows, of which this upload has seen the
// second one from its beginning.
func (p *pace) checkShort() error {
	before := p.contended
	p.contended = p.Memory.Contended(contendedWindow)
	least := int64(0)
	if before && p.contended {
		least = p.memory.Bytes() * int64(contendedWindow) / int64(contendedTime)
	}
	return p.check(p.short, least, " while other uploads wait for memory")
}

// check rejects an upload of which fewer than least bytes have arrived since the latest tick. It does not if all bytes are there and
// only the finish is missing, or if the client could not send.
func (p *pace) check(w *window, least int64, why string) error {
	arrived, waits := p.spool.len(), p.waits.Load()
	came, waited := arrived-w.arrived, waits != w.waits || p.waiting.Load()
	w.arrived, w.waits = arrived, waits
	if came >= least || arrived == p.declared || waited {
		return nil
	}
	return share.Reject(share.UploadIdle, "%d bytes arrived in %s, the minimum is %d%s; retry with the same request_id from byte 0", came, w.length, least, why)
}
