package faults

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/sandbox"
	"github.com/lpfileshare/lpfileshare/internal/sandbox/liveperson"
	"github.com/lpfileshare/lpfileshare/test/faults/proxy"
)

// variants is how many cases each cell of the table has: byte positions, times, codes.
const variants = 9

// A leg is a way on which a proxy stands.
type leg int

const (
	lpLeg     leg = iota // gateway and LivePerson: the messaging socket, or the Connector API
	storeLeg             // gateway and store
	callerLeg            // caller and gateway
	hookLeg              // LivePerson's webhooks and gateway
)

// A place is where a fault strikes.
type place struct {
	leg   leg
	dir   proxy.Direction
	match func(proxy.Message) bool
	skip  int
	at    func(int64) int64
}

// A deed is what the caller of a case does.
type deed int

const (
	upload        deed = iota // Upload
	smallUpload               // UploadSmallFile
	publishUpload             // Upload that stores only, then PublishUpload, which meets the fault
	download
	watch
)

var deedNames = []string{"Upload", "UploadSmallFile", "PublishUpload", "Download", "WatchFiles"}

func (d deed) String() string { return deedNames[d] }

// repeats reports whether the deed is run in the states of Upload, in fewer variants.
func (d deed) repeats() bool { return d == smallUpload || d == publishUpload }

// A state is a row of the table: what an upload, a download or a watch is in the middle of.
type state struct {
	name string
	deed deed
	// fresh means that no session is open yet, or that the tokens are of no more use.
	fresh bool
	// unanswered means that LivePerson's answer to the first message is lost, so that only its webhook reports the message.
	unanswered bool
	// open means that a fault may leave it unknown whether the message was published, if LivePerson cannot be asked.
	open bool
	// place is where variant v strikes, and when the answer is to be lost where lost does not say otherwise.
	place func(v int) place
	lost  func(v int) place
	// status is where the peer answers with an error, and with which; final means that the error is no passing one.
	status func(v int) (at place, reply func(proxy.Message) []byte, hangup, final bool)
	// later means that the fault strikes the way to LivePerson, as soon as the place is reached on another leg.
	later bool
	// small is where variant v strikes UploadSmallFile, if that is another place.
	small func(v int) place
	// publish is where variant v strikes PublishUpload. Nil: PublishUpload is never in this state.
	publish func(v int) place
	// exact means that a place means its very byte; elsewhere the seed says where between it and the next variant's.
	exact bool
	// answers changes what the store or LivePerson answers in variant v. Nil: nothing.
	answers func(v int) sandbox.Fault
}

// answering returns the state st with answers of the store that are changed by f, during the whole case, as by a proxy before it.
func (st state) answering(name string, f sandbox.Fault) state {
	st.name, st.answers = name, func(int) sandbox.Fault { return f }
	return st
}

// misled is the state in which LivePerson has published a message, and answers with an error.
func (m *messenger) misled(by misleading) state {
	// Behind the frame's head: what spoils that makes its reader wait for the rest, which is what other states are for.
	behindHead := func(v int) func(int64) int64 { return func(length int64) int64 { return max(4, spread(v)(length)) } }
	answer := func(v int) place { return lpSays(proxy.ToClient, behindHead(v), liveperson.MadeUp) }
	code := func(v int) int { return by.codes[v%len(by.codes)] }
	return state{
		name: "published, answered " + by.name, place: answer, publish: answer,
		answers: func(v int) sandbox.Fault { return sandbox.Fault{On: "ms.PublishEvent", StatusAfter: code(v), Count: 1} },
		status: func(v int) (place, func(proxy.Message) []byte, bool, bool) { // the same error in another form
			return lpSays(proxy.ToClient, nil, liveperson.MadeUp), m.statusAfter(code(v)), false, false
		},
	}
}

// Places on the way to LivePerson. A message is picked by what stands in it.

func lpSays(dir proxy.Direction, at func(int64) int64, words ...string) place {
	return place{leg: lpLeg, dir: dir, at: at, match: func(m proxy.Message) bool { return m.Says(words...) }}
}

// Places on the way to the store.

func storeHead(dir proxy.Direction, at func(int64) int64, word string) place {
	return place{leg: storeLeg, dir: dir, at: at, match: func(m proxy.Message) bool { return m.Name == "head" && m.Says(word) }}
}

func storeBody(dir proxy.Direction, at func(int64) int64) place {
	return place{leg: storeLeg, dir: dir, at: at, match: func(m proxy.Message) bool { return m.Name == "body" || m.Name == "chunk" }}
}

// Places on the caller's connection. Its first stream is that of the health check.

func callerFrame(dir proxy.Direction, name string, skip int, at func(int64) int64) place {
	return place{leg: callerLeg, dir: dir, skip: skip, at: at, match: func(m proxy.Message) bool { return m.Stream >= 3 && m.Name == name }}
}

func callerTrailers(at func(int64) int64) place {
	return place{leg: callerLeg, dir: proxy.ToClient, at: at, match: func(m proxy.Message) bool { return m.Stream >= 3 && m.Name == "HEADERS" && m.Last }}
}

// spread is the position of variant v among all of a message's bytes.
func spread(v int) func(int64) int64 { return proxy.Part(float64(v) / variants) }

// statesOf is the table's rows over a messenger.
func statesOf(m *messenger) []state {
	putAnswer := state{
		name:  "PUT answer",
		place: func(v int) place { return storeHead(proxy.ToClient, spread(v), " 201 ") },
		status: func(v int) (place, func(proxy.Message) []byte, bool, bool) { // after it was stored
			code := [variants]int{500, 503, 502, 408, 499, 429, 401, 507, 403}[v]
			return storeHead(proxy.ToClient, nil, " 201 "), httpStatus(code), true, v > 6
		},
	}
	downloadBody := state{
		name: "download body", deed: download,
		place: func(v int) place {
			if v%3 == 2 {
				return callerFrame(proxy.ToClient, "DATA", 1+v%5, spread(v))
			}
			return storeBody(proxy.ToClient, spread(v))
		},
		status: func(v int) (place, func(proxy.Message) []byte, bool, bool) {
			return callerFrame(proxy.ToClient, "DATA", 1+v%5, nil), streamReset(v), false, keptReset(v)
		},
	}
	states := []state{
		m.opening,
		{
			name: "RECEIVING: URL request",
			place: func(v int) place {
				return [...]place{
					lpSays(proxy.ToServer, spread(v), "ms.GenerateURLForUploadFile"),
					lpSays(proxy.ToClient, spread(v), m.urlAnswer),
				}[v%2]
			},
			lost: func(v int) place { return lpSays(proxy.ToClient, spread(v), m.urlAnswer) },
			status: func(v int) (place, func(proxy.Message) []byte, bool, bool) {
				code := [variants]int{500, 502, 503, 504, 429, 501, 400, 413, 403}[v]
				return lpSays(proxy.ToServer, nil, "ms.GenerateURLForUploadFile"), m.status(code), false, code < 429
			},
		},
		{
			name: "RECEIVING: bytes in",
			// The first DATA frame is the spec, which nothing protects in the clear; the others are chunks and the finish.
			place: func(v int) place { return callerFrame(proxy.ToServer, "DATA", 1+v%6, spread(v)) },
			lost: func(v int) place {
				if v%2 == 0 {
					return callerFrame(proxy.ToClient, "HEADERS", 0, spread(v)) // the leave to send
				}
				return callerFrame(proxy.ToServer, "DATA", 1+v%6, nil)
			},
			status: func(v int) (place, func(proxy.Message) []byte, bool, bool) {
				return callerFrame(proxy.ToServer, "DATA", 1+v%6, nil), streamReset(v), false, false // what is not repeated is settled
			},
			// The request is two DATA frames. The first begins with the spec, which nothing protects in the clear.
			small: func(v int) place {
				if v%2 == 0 {
					return callerFrame(proxy.ToServer, "DATA", 0, func(length int64) int64 { return maxSpecBytes + spread(v)(length-2*maxSpecBytes) })
				}
				return callerFrame(proxy.ToServer, "DATA", 1, spread(v))
			},
		},
		{
			name: "PUT body",
			place: func(v int) place {
				if v == 0 {
					return storeHead(proxy.ToServer, proxy.Part(0.5), "PUT ")
				}
				return storeBody(proxy.ToServer, spread(v))
			},
			status: func(v int) (place, func(proxy.Message) []byte, bool, bool) {
				code := [variants]int{500, 503, 408, 429, 401, 507, 403, 413, 411}[v]
				return storeBody(proxy.ToServer, spread(v)), httpStatus(code), true, v > 4
			},
		},
		{
			name:  "hold-back, last byte",
			exact: true,
			place: func(v int) place { return storeBody(proxy.ToServer, nearEnd(v)) },
			status: func(v int) (place, func(proxy.Message) []byte, bool, bool) {
				code := [variants]int{500, 503, 502, 408, 429, 401, 507, 403, 400}[v]
				return storeBody(proxy.ToServer, nearEnd(v)), httpStatus(code), true, v > 5
			},
		},
		putAnswer,
		{
			name: "STORED", later: true, open: true,
			place: func(int) place { return storeHead(proxy.ToClient, proxy.Byte(-1), " 201 ") },
			status: func(v int) (place, func(proxy.Message) []byte, bool, bool) {
				code := [variants]int{503, 501, 429, 500, 502, 504, 400, 403, 404}[v]
				return publishRequest(nil), m.status(code), false, code < 429
			},
			// The file was stored before: the fault strikes whatever the server sends to LivePerson first.
			publish: func(v int) place {
				return place{leg: lpLeg, dir: proxy.ToServer, at: proxy.Byte(int64(7 * v))}
			},
		},
		{
			name: "PUBLISHING request", open: true,
			place:   func(v int) place { return publishRequest(proxy.Part(float64(v) / (variants - 1))) },
			publish: func(v int) place { return publishRequest(proxy.Part(float64(v) / (variants - 1))) },
			status: func(v int) (place, func(proxy.Message) []byte, bool, bool) { // nothing was published
				code := [variants]int{500, 502, 503, 504, 429, 501, 400, 413, 403}[v]
				return publishRequest(nil), m.status(code), false, code < 429
			},
		},
		{
			name:    "publish answer",
			place:   func(v int) place { return lpSays(proxy.ToClient, spread(v), m.publishAnswer) },
			publish: func(v int) place { return lpSays(proxy.ToClient, spread(v), m.publishAnswer) },
			status: func(v int) (place, func(proxy.Message) []byte, bool, bool) { // after it was published
				code := [variants]int{500, 502, 504, 505, 507, 508, 511, 599, 600}[v] // 600 is 200 with a bit flipped
				return lpSays(proxy.ToClient, nil, m.publishAnswer), m.statusAfter(code), false, false
			},
		},
		{
			name:  "PUBLISHED answer to the caller",
			place: answerToCaller, publish: answerToCaller,
			status: func(v int) (place, func(proxy.Message) []byte, bool, bool) {
				return callerFrame(proxy.ToClient, "DATA", 0, nil), streamReset(v), false, false
			},
		},
		{
			name: "download header", deed: download,
			place: func(v int) place {
				return [...]place{
					lpSays(proxy.ToServer, spread(v), "ms.GenerateURLForDownloadFile"),
					lpSays(proxy.ToClient, spread(v), m.urlAnswer),
					storeHead(proxy.ToServer, spread(v), "GET "),
					storeHead(proxy.ToClient, spread(v), " 200 "),
					callerFrame(proxy.ToClient, "DATA", 0, spread(v)),
				}[v%5]
			},
			status: func(v int) (place, func(proxy.Message) []byte, bool, bool) {
				if v < 4 {
					code := [...]int{500, 502, 503, 429}[v]
					return lpSays(proxy.ToServer, nil, "ms.GenerateURLForDownloadFile"), m.status(code), false, false
				}
				code := [variants]int{4: 500, 5: 503, 6: 401, 7: 404, 8: 403}[v]
				return storeHead(proxy.ToServer, nil, "GET "), httpStatus(code), true, code == 403
			},
		},
		downloadBody,
		{
			name: "watch", deed: watch, unanswered: m.hooked,
			place: func(v int) place {
				if v%2 == 0 {
					return m.news(spread(v))
				}
				return callerFrame(proxy.ToClient, "DATA", 0, spread(v))
			},
			status: func(v int) (place, func(proxy.Message) []byte, bool, bool) {
				return callerFrame(proxy.ToClient, "DATA", 0, nil), streamReset(v), false, keptReset(v)
			},
		},
		putAnswer.answering("201 without ETag", sandbox.Fault{On: "store:PUT", NoETag: true}),
		putAnswer.answering("201 with a weak ETag", sandbox.Fault{On: "store:PUT", WeakETag: true}),
		putAnswer.answering("201 with a suffixed ETag", sandbox.Fault{On: "store:PUT", ETagSuffix: "-gzip"}),
		downloadBody.answering("GET without length", sandbox.Fault{On: "store:GET", NoLength: true}),
	}
	for _, by := range m.misleading {
		states = append(states, m.misled(by))
	}
	return append(states, m.more...)
}

// maxSpecBytes is more than the spec of a case takes in a frame.
const maxSpecBytes = 700

func answerToCaller(v int) place {
	if v%3 == 2 {
		return callerTrailers(spread(v))
	}
	return callerFrame(proxy.ToClient, "DATA", 0, spread(v))
}

func publishRequest(at func(int64) int64) place {
	return lpSays(proxy.ToServer, at, "ms.PublishEvent", "hosted/file")
}

// nearEnd is before one of the last bytes, or behind them all.
func nearEnd(v int) func(int64) int64 {
	if v == variants-1 {
		return proxy.End
	}
	return proxy.Byte(int64(-1 - v/2))
}

// httpStatus is an HTTP answer of nothing but a status.
func httpStatus(code int) func(proxy.Message) []byte {
	return func(proxy.Message) []byte {
		return fmt.Appendf(nil, "HTTP/1.1 %d Made Up\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", code)
	}
}

// socketStatus answers a request on the socket with an error, instead of LivePerson.
func socketStatus(code int) func(proxy.Message) []byte {
	return func(m proxy.Message) []byte {
		var request struct {
			ID string `json:"id"`
		}
		_ = json.Unmarshal(m.Text, &request)
		return socketError(request.ID, code)
	}
}

// socketStatusAfter puts an error in the place of LivePerson's answer.
func socketStatusAfter(code int) func(proxy.Message) []byte {
	return func(m proxy.Message) []byte {
		var answer struct {
			ID string `json:"reqId"`
		}
		_ = json.Unmarshal(m.Text, &answer)
		return socketError(answer.ID, code)
	}
}

func socketError(id string, code int) []byte {
	return proxy.TextFrame(fmt.Sprintf(`{"kind":"resp","reqId":%q,"code":%d,"body":{"errorCode":%d,"msg":"made up"}}`, id, code, 100*code))
}

// resets are some of HTTP/2's error codes.
var resets = [variants]uint32{0x0, 0x1, 0x2, 0x3, 0x5, 0x7, 0x8, 0xb, 0xc}

// streamReset resets the caller's stream with one of them.
func streamReset(v int) func(proxy.Message) []byte {
	return func(m proxy.Message) []byte { return proxy.ResetStream(m.Stream, resets[v]) }
}

// keptReset reports whether gRPC turns the reset into an error that is not repeated: FLOW_CONTROL_ERROR and
// ENHANCE_YOUR_CALM into RESOURCE_EXHAUSTED, INADEQUATE_SECURITY into PERMISSION_DENIED. An upload's outcome is not known by them.
func keptReset(v int) bool { return resets[v] == 0x3 || resets[v] == 0xb || resets[v] == 0xc }

// kinds are the columns of the table.
var kinds = []string{"RST", "FIN", "delay", "stall", "truncate", "corrupt", "answer lost", "status", "caller cut"}

// A trial is one case of the table.
type trial struct {
	over           *messenger
	row, column, v int
	*state
	deed  deed
	later bool
	place place
	fault proxy.Fault
	// cutCaller cuts the caller's connections instead of carrying out the fault.
	cutCaller bool
	// sure means that the caller must succeed in the end: what went wrong passes, and spoils nothing.
	sure bool
	// spoiled means that bytes are changed where nothing protects them in the clear.
	spoiled bool
}

// name is unique in the table.
func (t *trial) name() string {
	name := fmt.Sprintf("%s/%s/%s/%d", t.over.name, t.state.name, kinds[t.column], t.v)
	if t.deed.repeats() {
		name += "/" + t.deed.String()
	}
	return name
}

// seed is the trial's own.
func (t *trial) seed() uint64 {
	n := uint64((t.row*len(kinds)+t.column)*variants + t.v + 1)
	if t.deed.repeats() {
		n += uint64(t.deed) << 16
	}
	return n
}

// trials is the whole table over a messenger, the same each time for a seed.
func trials(m *messenger, seed uint64) []*trial {
	var all []*trial
	states := statesOf(m)
	for s := range states {
		for k := range kinds {
			for v := range variants {
				all = append(all, newTrial(m, &states[s], states[s].deed, seed, s, k, v))
			}
			if states[s].deed != upload {
				continue
			}
			for i := range fewest {
				v := (s + 2*k + 4*i) % variants
				all = append(all, newTrial(m, &states[s], smallUpload, seed, s, k, v))
				if states[s].publish != nil {
					all = append(all, newTrial(m, &states[s], publishUpload, seed, s, k, v))
				}
			}
		}
	}
	return all
}

func newTrial(m *messenger, st *state, d deed, seed uint64, s, k, v int) *trial {
	t := &trial{over: m, row: s, column: k, v: v, state: st, deed: d, later: st.later, sure: true}
	at, lost := st.place, st.lost
	switch {
	case d == publishUpload:
		at, lost, t.later = st.publish, nil, false
	case d == smallUpload && st.small != nil:
		at, lost = st.small, nil
	}
	t.place = at(v)
	rng := rand.New(rand.NewPCG(seed, t.seed()))
	f := &t.fault
	switch kinds[k] {
	case "RST":
		f.Kind = proxy.Reset
	case "FIN":
		f.Kind = proxy.Finish
	case "delay":
		f.Kind, f.For = proxy.Delay, time.Duration(50+50*v)*time.Millisecond
	case "stall": // shorter and longer than the server's timeout
		f.Kind, f.For = proxy.Stall, [...]time.Duration{600 * time.Millisecond, lpTimeout + 200*time.Millisecond, lpTimeout + settle}[v%3]
	case "truncate":
		f.Kind, f.Length = proxy.Truncate, [...]int64{1, 2, 5, 100, 0}[v%5]
		t.sure, t.spoiled = false, true
	case "corrupt":
		f.Kind, f.Bit = proxy.Corrupt, uint8(rng.UintN(8))
		t.sure, t.spoiled = false, true
	case "answer lost":
		f.Kind, f.For = proxy.Lose, [...]time.Duration{0, 200 * time.Millisecond, lpTimeout + 200*time.Millisecond}[v%3]
		if lost != nil {
			t.place = lost(v)
		}
	case "status":
		where, reply, hangup, final := st.status(v)
		f.Kind, f.Reply, f.Hangup = proxy.Answer, reply, hangup
		t.sure = !final
		if d != smallUpload || st.small == nil {
			t.place = where
		}
	case "caller cut":
		t.cutCaller = true
		f.Kind = [...]proxy.Kind{proxy.Reset, proxy.Finish}[v%2]
	}
	if at := t.place.at; at != nil && !st.exact && !t.later {
		jitter := rng.Float64() / variants
		t.place.at = func(length int64) int64 { return at(length) + int64(jitter*float64(length)) }
	}
	if t.place.leg == storeLeg && !t.later {
		// The store's side has the ETag to go by, so nothing of an upload or a download may be spoiled; what was in the body is
		// repaired by another PUT or GET, unless the head that describes it was spoiled.
		t.spoiled = false
		if t.place.match(proxy.Message{Name: "body"}) && t.deed != download {
			t.sure = t.sure || kinds[k] == "truncate" || kinds[k] == "corrupt"
		}
	}
	if t.place.leg == hookLeg {
		// The signature has the body to go by, and LivePerson delivers again what is not taken.
		t.spoiled, t.sure = false, true
		if f.Kind == proxy.Stall {
			f.For += 2 * settle // some arrive after LP_PUBLISH_UNCONFIRMED
		}
	}
	return t
}

// spoilsFrames reports whether the trial changes bytes on the way to LivePerson.
func (t *trial) spoilsFrames() bool {
	return (t.fault.Kind == proxy.Truncate || t.fault.Kind == proxy.Corrupt) && (t.place.leg == lpLeg || t.later)
}

// silent is 1 for a trial that may leave the caller without an answer, else 0.
func (t *trial) silent() int {
	if t.place.leg == callerLeg && t.spoiled {
		return 1
	}
	return 0
}

// arm arms the trial's fault, and returns what reports whether it has struck.
func (t *trial) arm(l *lane) (struck func() bool) {
	on := [...]*proxy.Proxy{l.lp, l.store, l.caller, l.hooks}
	f := t.fault
	f.Dir, f.Match, f.Skip, f.At = t.place.dir, t.place.match, t.place.skip, t.place.at
	switch {
	case t.cutCaller:
		kind := f.Kind
		f.Kind = proxy.Pass
		f.Before = func() { l.caller.Cut(kind) }
	case t.later && t.place.leg == storeLeg:
		return t.armLater(l, f)
	}
	a := on[t.place.leg].Arm(f)
	return func() bool { return a.Struck() > 0 }
}

// armLater arms a fault that strikes the way to LivePerson between the store's answer and the message.
func (t *trial) armLater(l *lane, f proxy.Fault) (struck func() bool) {
	then := f
	then.Dir, then.Match, then.Skip, then.At = proxy.ToServer, nil, 0, proxy.Byte(int64(7*t.v))
	second := make(chan *proxy.Armed, 1)
	first := l.store.Arm(proxy.Fault{Dir: f.Dir, Match: f.Match, At: f.At, Before: func() {
		// The gateway does not know yet that the file is stored; it may or may not notice the socket's end first.
		switch then.Kind {
		case proxy.Reset, proxy.Finish:
			l.lp.Cut(then.Kind)
			time.Sleep(time.Duration(t.v) * time.Millisecond)
		default:
			second <- l.lp.Arm(then)
		}
	}})
	return func() bool {
		select {
		case a := <-second:
			second <- a
			return a.Struck() > 0
		default:
			return first.Struck() > 0
		}
	}
}
