// Package feed keeps the latest events of the sandbox and sends them to listeners as server-sent events.
package feed

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/sandbox/jsonhttp"
)

const (
	// maxEvents and maxText limit what the feed keeps: events, and bytes of the texts in them.
	maxEvents = 2000
	maxText   = 8 << 20
	// maxListeners is how many listeners there may be at a time.
	maxListeners = 64
	// interval is the time between two comments to a listener that gets no events, so that both ends notice a broken connection.
	interval = 15 * time.Second
	// retryAfter is how long a browser waits before it connects again.
	retryAfter = time.Second
	// writeTimeout is how long a listener may take to read what it is sent.
	writeTimeout = 10 * time.Second
)

// An Event is one thing that happened in the sandbox.
type Event struct {
	// ID is the number of the event, from 1, without gaps.
	ID int64 `json:"id"`
	// At is when it happened.
	At time.Time `json:"at"`
	// Kind says what Data is: docs/sandbox.md lists the kinds.
	Kind string `json:"kind"`
	// Data is encoded as JSON when the event is sent, so it must not change any more.
	Data any `json:"data"`
}

// A Feed keeps the latest events. Its methods may be called from any goroutine, and none of them blocks but ServeHTTP.
type Feed struct {
	now       func() time.Time
	run       string // identifies this feed among those of earlier runs on the same address
	listeners atomic.Int32
	ended     chan struct{}
	end       func()

	mu      sync.Mutex
	events  []Event // the latest, in order
	text    int     // bytes of the texts in events
	last    int64
	changed chan struct{} // closed by the next event, if somebody waits for it; otherwise nil
}

// New returns an empty feed that takes the time from now.
func New(now func() time.Time) *Feed {
	f := &Feed{now: now, run: strconv.FormatInt(time.Now().UnixNano(), 36), ended: make(chan struct{})}
	f.end = sync.OnceFunc(func() { close(f.ended) })
	return f
}

// Close ends the listeners' connections.
func (f *Feed) Close() { f.end() }

// Add adds an event. Events are sent with their secrets masked. A nil feed keeps nothing.
func (f *Feed) Add(kind string, data any) {
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.last++
	f.events = append(f.events, Event{ID: f.last, At: f.now(), Kind: kind, Data: data})
	f.text += textSize(data)
	drop := 0
	for drop < len(f.events)-1 && (len(f.events)-drop > maxEvents || f.text > maxText) {
		f.text -= textSize(f.events[drop].Data)
		drop++
	}
	if drop > 0 {
		clear(f.events[:drop]) // the array is reused until append moves it
		f.events = f.events[drop:]
	}
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}

// A sized is data whose texts are large enough to be counted.
type sized interface{ TextSize() int }

func textSize(data any) int {
	if s, ok := data.(sized); ok {
		return s.TextSize()
	}
	return 0
}

// after returns the events after the one with that id, how many of them are no longer kept, and a channel that is closed by the next event
// if there is none yet.
func (f *Feed) after(id int64) (events []Event, missed int64, changed <-chan struct{}) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if id >= f.last {
		if f.changed == nil {
			f.changed = make(chan struct{})
		}
		return nil, 0, f.changed
	}
	first := f.last - int64(len(f.events)) + 1
	missed = max(0, first-id-1)
	return append([]Event(nil), f.events[max(0, id+1-first):]...), missed, nil
}

// ServeHTTP sends the events as server-sent events until the client leaves or the feed is closed: first those that it still keeps, or
// after the header Last-Event-ID those that follow. {"kind":"gap","data":{"missed":N}} stands for events that it no longer keeps, and
// {"kind":"restart"} says that the id is of an earlier run. With the query follow=0 it sends what it keeps and ends.
func (f *Feed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.listeners.Add(1) > maxListeners {
		f.listeners.Add(-1)
		http.Error(w, fmt.Sprintf("there are already %d listeners", maxListeners), http.StatusServiceUnavailable)
		return
	}
	defer f.listeners.Add(-1)
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	l := listener{feed: f, w: w, rc: http.NewResponseController(w)}
	last, restarted := f.lastID(r.Header.Get("Last-Event-ID"))
	if restarted {
		l.write("", 0, Event{At: f.now(), Kind: "restart"})
	}
	l.print("retry: %d\n\n", retryAfter.Milliseconds())
	follow := r.URL.Query().Get("follow") != "0"
	timer := time.NewTicker(interval)
	defer timer.Stop()
	for l.flush() {
		events, missed, changed := f.after(last)
		if missed > 0 {
			l.write("", 0, Event{At: f.now(), Kind: "gap", Data: map[string]int64{"missed": missed}})
		}
		for _, e := range events {
			l.write(f.run, e.ID, e)
			last = e.ID
		}
		if changed == nil {
			continue
		}
		if !follow {
			return
		}
		select {
		case <-changed:
		case <-timer.C:
			l.comment()
		case <-f.ended:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// lastID returns the number in a Last-Event-ID, and whether it is one of an earlier run.
func (f *Feed) lastID(text string) (id int64, restarted bool) {
	if text == "" {
		return 0, false
	}
	run, number, _ := strings.Cut(text, "-")
	id, err := strconv.ParseInt(number, 10, 64)
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil || run != f.run || id < 0 || id > f.last {
		return 0, true
	}
	return id, false
}

// A listener is one connection. After an error it writes nothing.
type listener struct {
	feed *Feed
	w    io.Writer
	rc   *http.ResponseController
	err  error
}

func (l *listener) write(run string, id int64, e Event) {
	data, err := json.Marshal(e)
	if err != nil {
		data = jsonhttp.Encode(Event{ID: e.ID, At: e.At, Kind: e.Kind}) // Data is not JSON: tell at least that it happened
	}
	if run != "" {
		l.print("id: %s-%d\n", run, id)
	}
	l.print("data: %s\n\n", Mask(string(data)))
}

func (l *listener) comment() { l.print(":\n\n") }

func (l *listener) print(format string, args ...any) {
	if l.err == nil {
		_ = l.rc.SetWriteDeadline(time.Now().Add(writeTimeout))
		_, l.err = fmt.Fprintf(l.w, format, args...)
	}
}

// flush sends what was written, and reports whether the listener still reads.
func (l *listener) flush() bool {
	if l.err == nil {
		_ = l.rc.SetWriteDeadline(time.Now().Add(writeTimeout))
		l.err = l.rc.Flush()
	}
	return l.err == nil
}
