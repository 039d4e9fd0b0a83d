package main

import (
	"fmt"
	"time"

	"github.com/lpfileshare/lpfileshare/test/faults/proxy"
)

// A Rule is a fault on the connection between the driver and the server.
type Rule struct {
	// On is where it strikes: "up" and "down" after so many bytes of DATA frames in that direction of the connection, "header" before the
	// first response header of a call, "response" before the first message to the client that is longer than a health check's.
	On    string `json:"on"`
	After int64  `json:"after"`
	// Do is what happens: "reset", "finish", "stall", "lose", "delay" (for forMs), or "resetStream" with an HTTP/2 error code.
	Do    string `json:"do"`
	Code  uint32 `json:"code"`
	ForMs int    `json:"forMs"`
	// Conns is how many connections suffer, one after the other. 0: the first one.
	Conns int `json:"conns"`
	// Count is how often it strikes on each of them. 0: once.
	Count int `json:"count"`
}

// minResponse is longer than the message of a health check, in bytes of a DATA frame.
const minResponse = 40

// arm arms a rule on the next connections.
func (r Rule) arm(p *proxy.Proxy) error {
	kinds := map[string]proxy.Kind{
		"reset": proxy.Reset, "finish": proxy.Finish, "stall": proxy.Stall, "lose": proxy.Lose, "delay": proxy.Delay,
		"resetStream": proxy.Answer,
	}
	kind, ok := kinds[r.Do]
	if !ok {
		return fmt.Errorf("unknown rule %q", r.Do)
	}
	for i := range max(r.Conns, 1) {
		f := proxy.Fault{Kind: kind, Conn: i + 1, Count: r.Count, For: time.Duration(r.ForMs) * time.Millisecond}
		if r.Do == "resetStream" {
			f.Reply = func(m proxy.Message) []byte { return proxy.ResetStream(m.Stream, r.Code) }
		}
		if err := r.place(&f); err != nil {
			return err
		}
		p.Arm(f)
	}
	return nil
}

// place sets where a fault strikes.
func (r Rule) place(f *proxy.Fault) error {
	switch r.On {
	case "up", "down":
		if r.On == "down" {
			f.Dir = proxy.ToClient
		}
		seen, before := int64(0), int64(0)
		f.Match = func(m proxy.Message) bool {
			if m.Name != "DATA" {
				return false
			}
			before = seen
			seen += m.Length()
			return seen > r.After
		}
		f.At = func(int64) int64 { return max(r.After-before, 0) }
	case "header":
		f.Dir = proxy.ToClient
		f.Match = func(m proxy.Message) bool { return m.Name == "HEADERS" && m.Stream >= 1 }
	case "response":
		f.Dir = proxy.ToClient
		f.Match = func(m proxy.Message) bool { return m.Name == "DATA" && m.Length() > minResponse }
	default:
		return fmt.Errorf("unknown place %q", r.On)
	}
	return nil
}
