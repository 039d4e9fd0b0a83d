package audit

import (
	"encoding/hex"
	"encoding/json"
	"net"
	"strconv"
	"time"

	"github.com/lpfileshare/lpfileshare/internal/policy"
)

// A line appends the fields of one line. Fields without a value are left out.
type line struct {
	to *[]byte
	l  *Log
}

func (n line) start(at time.Time, event string) {
	b := append(*n.to, `{"ts":"`...)
	b = at.UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z")
	*n.to = append(b, '"')
	n.text("event", event)
}

// finish adds what every line has, and its end.
func (n line) finish() {
	n.text("server", n.l.Server)
	n.text("version", n.l.Version)
	*n.to = append(*n.to, "}\n"...)
}

// key begins a field. Keys are constants.
func (n line) key(key string) {
	b := append(*n.to, `,"`...)
	b = append(b, key...)
	*n.to = append(b, `":`...)
}

func (n line) text(key, value string) {
	if value != "" {
		n.key(key)
		*n.to = appendString(*n.to, value)
	}
}

func (n line) number(key string, value int64) {
	n.key(key)
	*n.to = strconv.AppendInt(*n.to, value, 10)
}

func (n line) flag(key string, value bool) {
	if value {
		n.key(key)
		*n.to = append(*n.to, "true"...)
	}
}

func (n line) hex(value []byte) {
	b := append(*n.to, '"')
	b = hex.AppendEncode(b, value)
	*n.to = append(b, '"')
}

// person adds an identifier of a person or a conversation: its HMAC if there is a key.
func (n line) person(key, value string) {
	if len(n.l.Key) == 0 {
		n.text(key, value)
		return
	}
	n.digest(key, value)
}

// digest adds the HMAC of a text, or its SHA-256 if there is no key.
func (n line) digest(key, value string) {
	if value != "" {
		n.key(key)
		n.hex(n.l.digestOf(value))
	}
}

// peer adds the IP address of HOST:PORT.
func (n line) peer(address string) {
	if host, _, err := net.SplitHostPort(address); err == nil {
		address = host
	}
	n.text("peer_ip", address)
}

// caller adds the calling service and how it is known.
func (n line) caller(c policy.Caller) {
	n.name("caller", c.Name)
	n.text("caller_via", c.Via.String())
	n.name("proxy", c.Proxy)
}

// name adds the name of a service, unless it is empty.
func (n line) name(key string, name policy.Name) {
	if name == (policy.Name{}) {
		return
	}
	n.key(key)
	b := append(*n.to, '"')
	b = append(b, name.Kind...)
	b = append(b, ':')
	*n.to = append(appendEscaped(b, name.Value), '"')
}

// appendString appends a JSON string.
func appendString(b []byte, s string) []byte {
	return append(appendEscaped(append(b, '"'), s), '"')
}

// appendEscaped appends the content of a JSON string.
func appendEscaped(b []byte, s string) []byte {
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(s) // cannot fail: it is a string
			return append(b, quoted[1:len(quoted)-1]...)
		}
	}
	return append(b, s...)
}
