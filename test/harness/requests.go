package harness

import (
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
)

// Requests keeps what the requests to a sandbox contained, if its Add is the sandbox's OnRequest. The zero value is ready.
type Requests struct {
	mu      sync.Mutex
	secrets map[string]bool
	traced  []string
}

// leastSecret is the length of the shortest value that is taken for a secret. Shorter ones are names of features and the like.
const leastSecret = 12

// Add adds a request.
func (l *Requests) Add(r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.secrets == nil {
		l.secrets = map[string]bool{}
	}
	var values []string
	for _, v := range r.URL.Query() {
		values = append(values, v...)
	}
	for _, name := range []string{"Authorization", "Cookie", "Sec-Websocket-Protocol"} {
		values = append(values, strings.Fields(r.Header.Get(name))...)
	}
	for _, v := range values {
		if len(v) >= leastSecret {
			l.secrets[v] = true
		}
	}
	for _, name := range []string{"Traceparent", "Tracestate", "Baggage", "B3", "X-B3-Traceid", "Uber-Trace-Id"} {
		if r.Header.Get(name) != "" {
			l.traced = append(l.traced, r.Method+" "+r.URL.Path+": "+name)
		}
	}
}

// Secrets returns the signatures and tokens of all requests, and the other long values of their queries.
func (l *Requests) Secrets() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Sorted(maps.Keys(l.secrets))
}

// Traced returns the requests with headers of traces.
func (l *Requests) Traced() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.traced)
}
