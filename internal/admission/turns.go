package admission

import "slices"

// A waiter waits in a queue until admitted is closed.
type waiter struct {
	holder      Holder
	reservation *Reservation // what it waits for, if that is memory
	whole       int64        // bytes of the file that a download keeps in memory
	queued      bool         // it has one of the queue's places
	admitted    chan struct{}
}

func (w *waiter) isAdmitted() bool {
	select {
	case <-w.admitted:
		return true
	default:
		return false
	}
}

// turns is a queue in which groups take turns, and within a group its callers. Within a caller's line the order is kept. So a caller
// with many waiters waits behind its own, and so does a group with many callers.
type turns struct {
	groups  []*group // in the order of their turns
	byName  map[string]*group
	waiting int
}

type group struct {
	name  string
	lines []*line // in the order of their turns
}

type line struct {
	caller Caller
	queue  []*waiter
}

func newTurns() turns { return turns{byName: make(map[string]*group)} }

// A decision says what becomes of a waiter whose turn it is.
type decision int

const (
	admitted  decision = iota // it is removed from the queue, and others come before its line and group the next time
	pass                      // it waits for its own share, and others need not wait for it
	passGroup                 // so does its whole group
	stop                      // nothing overtakes it
)

// next offers a turn to the first waiter of each line, until decide admits one or stops. It reports whether one was admitted.
func (t *turns) next(decide func(*waiter) decision) bool {
	for _, g := range t.groups {
	lines:
		for i, l := range g.lines {
			w := l.queue[0]
			switch decide(w) {
			case pass:
			case passGroup:
				break lines
			case stop:
				return false
			case admitted:
				g.lines = append(slices.Delete(g.lines, i, i+1), l)
				t.groups = append(slices.DeleteFunc(t.groups, func(x *group) bool { return x == g }), g)
				t.remove(w)
				close(w.admitted)
				return true
			}
		}
	}
	return false
}

func (t *turns) push(w *waiter) {
	g := t.byName[w.holder.Group]
	if g == nil {
		g = &group{name: w.holder.Group}
		t.byName[g.name] = g
		t.groups = append(t.groups, g)
	}
	l := g.line(w.holder.Caller)
	if l == nil {
		l = &line{caller: w.holder.Caller}
		g.lines = append(g.lines, l)
	}
	l.queue = append(l.queue, w)
	t.waiting++
}

func (t *turns) remove(w *waiter) {
	g := t.byName[w.holder.Group]
	l := g.line(w.holder.Caller)
	l.queue = slices.DeleteFunc(l.queue, func(x *waiter) bool { return x == w })
	t.waiting--
	if len(l.queue) > 0 {
		return
	}
	g.lines = slices.DeleteFunc(g.lines, func(x *line) bool { return x == l })
	if len(g.lines) == 0 {
		delete(t.byName, g.name)
		t.groups = slices.DeleteFunc(t.groups, func(x *group) bool { return x == g })
	}
}

// length returns the length of a caller's line.
func (t *turns) length(h Holder) int {
	if g := t.byName[h.Group]; g != nil {
		if l := g.line(h.Caller); l != nil {
			return len(l.queue)
		}
	}
	return 0
}

func (g *group) line(c Caller) *line {
	for _, l := range g.lines {
		if l.caller == c {
			return l
		}
	}
	return nil
}
