package main

import (
	"sync"

	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/lpfileshare/lpfileshare/internal/ledger"
)

// The names of the health service; docs/health.md has their meanings. The name "" reports whether the process accepts calls. When the
// server drains, all of them report NOT_SERVING.
const (
	// readyHealth reports whether this server can do all that an upload needs.
	readyHealth = "lpfileshare.v1.FileSharingService"
	// ledgerHealth reports whether the ledger accepts new request ids.
	ledgerHealth = "lpfileshare.ledger"
	// eventsHealth reports whether the event log of the Connector API can be used. It is SERVING if no account needs the log.
	eventsHealth = "lpfileshare.events"
	// callersHealth reports whether callers can be authenticated: the keys of --jwt-issuer have been fetched, or tokens are not used.
	callersHealth = "lpfileshare.callers"
	// scannerHealth reports whether the malware scanner answers. It is SERVING if there is none.
	scannerHealth = "lpfileshare.scanner"
	// auditHealth reports whether the audit stream is written, or calls are accepted although it is not. It is SERVING if there is none.
	auditHealth = "lpfileshare.audit"
)

// readiness sets the status of each name. LivePerson is not part of it: if it fails, another server helps nobody, and each call reports it.
// The scanner has only a name of its own: downloads and lists work without it, and several servers may share it.
type readiness struct {
	server      *health.Server
	needsEvents func() bool // whether an account uses the Connector API
	knowsKeys   func() bool // whether tokens of callers can be verified, if the server uses them
	refuses     func() bool // whether all calls are refused, because the audit stream cannot be written

	mu      sync.Mutex
	ledger  ledger.Health
	scanner error // why it does not answer
}

// scannerChanged is called with the health of the scanner at each change; nil: it answers.
func (r *readiness) scannerChanged(err error) {
	r.mu.Lock()
	r.scanner = err
	r.mu.Unlock()
	r.update()
}

// ledgerChanged is called with the health of the ledger at the start and at each change.
func (r *readiness) ledgerChanged(now ledger.Health) {
	r.mu.Lock()
	r.ledger = now
	r.mu.Unlock()
	r.update()
}

// update sets the status of all names. It must be called when an account was added or removed, and when
// keys of tokens have been fetched.
func (r *readiness) update() {
	r.mu.Lock()
	defer r.mu.Unlock()
	events, callers, accepts := r.ledger.Events == nil || !r.needsEvents(), r.knowsKeys(), !r.refuses()
	for name, ok := range map[string]bool{
		"":            accepts,
		ledgerHealth:  r.ledger.Ledger == nil,
		eventsHealth:  events,
		callersHealth: callers,
		readyHealth:   r.ledger.Ledger == nil && events && callers && accepts,
		scannerHealth: r.scanner == nil,
		auditHealth:   accepts,
	} {
		status := healthpb.HealthCheckResponse_NOT_SERVING
		if ok {
			status = healthpb.HealthCheckResponse_SERVING
		}
		r.server.SetServingStatus(name, status) // no effect once the server drains
	}
}
