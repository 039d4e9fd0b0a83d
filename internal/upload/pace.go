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

// A pace checks that the bytes of an upload arrive fast enough: that one arrives within the idle timeout, that they arrive at the minimum
// rate, over the long window, and faster while other uploads wait for memory, over the short window. Otherwise a few slow uploads could
// use the memory of all.
type pace struct {
	*reader
	timer       *time.Timer // fires at the next check; one for all, because nearly every upload ends before any of them
	idle        time.Time   // when the idle timeout is checked next
	long, short window
	contended   bool // at the latest end of a short window
}

// A window is the time between two checks of the rate.
type window struct {
	length         time.Duration
	end            time.Time
	arrived, waits int64 // at its beginning
}

func (t *transfer) newPace(r *reader) *pace {
	now := time.Now()
	p := &pace{
		reader: r, idle: now.Add(t.IdleTimeout),
		long:  window{length: t.IdleTimeout, end: now.Add(t.IdleTimeout)},
		short: window{length: contendedWindow, end: now.Add(contendedWindow)},
	}
	p.timer = time.NewTimer(min(t.IdleTimeout, contendedWindow))
	return p
}

// check does the checks that are due. It is called when the timer has fired.
func (p *pace) check() error {
	now := time.Now()
	if !now.Before(p.idle) {
		left := p.IdleTimeout - p.sinceLastByte()
		if left <= 0 {
			return share.Reject(share.UploadIdle, "no byte arrived for %s; retry with the same request_id from byte 0", p.IdleTimeout)
		}
		p.idle = now.Add(left)
	}
	if p.long.next(now) {
		if err := p.checkLong(); err != nil {
			return err
		}
	}
	if p.short.next(now) {
		if err := p.checkShort(); err != nil {
			return err
		}
	}
	p.timer.Reset(min(p.idle.Sub(now), p.long.end.Sub(now), p.short.end.Sub(now)))
	return nil
}

// next reports whether the window has ended, and begins the next one.
func (w *window) next(now time.Time) bool {
	if now.Before(w.end) {
		return false
	}
	w.end = now.Add(w.length)
	return true
}

// checkLong is called at the end of each long window.
func (p *pace) checkLong() error {
	return p.checkRate(&p.long, int64(float64(p.MinRate)*p.IdleTimeout.Seconds()), "")
}

// checkShort is called at the end of each short window. Others must have waited in two windows, of which this upload has seen the
// second one from its beginning.
func (p *pace) checkShort() error {
	before := p.contended
	p.contended = p.Memory.Contended(contendedWindow)
	least := int64(0)
	if before && p.contended {
		least = p.memory.Bytes() * int64(contendedWindow) / int64(contendedTime)
	}
	return p.checkRate(&p.short, least, " while other uploads wait for memory")
}

// checkRate rejects an upload of which fewer than least bytes have arrived in a window. It does not if all bytes are there and only the
// finish is missing, or if the client could not send.
func (p *pace) checkRate(w *window, least int64, why string) error {
	arrived, waits := p.spool.len(), p.waits.Load()
	came, waited := arrived-w.arrived, waits != w.waits || p.waiting.Load()
	w.arrived, w.waits = arrived, waits
	if came >= least || arrived == p.declared || waited {
		return nil
	}
	return share.Reject(share.UploadIdle, "%d bytes arrived in %s, the minimum is %d%s; retry with the same request_id from byte 0", came, w.length, least, why)
}
