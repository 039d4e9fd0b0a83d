package standin

import (
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// Delay serves a TCP proxy before a server that delays every byte by half of a round trip, in each direction. Its bandwidth is not
// limited.
func Delay(args []string) error {
	set := flag.NewFlagSet("delay", flag.ContinueOnError)
	target := set.String("target", "", "host and port of the server")
	rtt := set.Duration("rtt", 0, "round-trip time")
	if err := set.Parse(args); err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "ready addr=%s\n", l.Addr())
	for {
		near, err := l.Accept()
		if err != nil {
			return err
		}
		far, err := net.Dial("tcp", *target)
		if err != nil {
			return err
		}
		go late(near, far, *rtt/2)
		go late(far, near, *rtt/2)
	}
}

// A parcel is what was read at one moment.
type parcel struct {
	due  time.Time
	data []byte
}

// late copies from one connection to another. What was read is written after delay.
func late(to, from net.Conn, delay time.Duration) {
	queue := make(chan parcel, 1<<14)
	go func() {
		defer close(queue)
		for {
			buf := make([]byte, 64<<10)
			n, err := from.Read(buf)
			if n > 0 {
				queue <- parcel{time.Now().Add(delay), buf[:n]}
			}
			if err != nil {
				return
			}
		}
	}()
	var err error
	for p := range queue {
		if err != nil {
			continue // the reader must not wait
		}
		time.Sleep(time.Until(p.due))
		_, err = to.Write(p.data)
	}
	_ = to.Close()
	_, _ = io.Copy(io.Discard, from)
}
