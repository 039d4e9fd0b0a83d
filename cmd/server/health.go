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
)

// readiness sets the status of each name from the health of the ledger and from whether callers can be authenticated. LivePerson is not part of it: if it fails, another server
// helps nobody, and each call reports it.
type readiness struct {
	server      *health.Server
	needsEvents func() bool // whether an account uses the Connector API
	knowsKeys   func() bool // whether tokens of callers can be verified, if the server uses them

	mu     sync.Mutex
	ledger ledger.Health
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
	events := r.ledger.Events == nil || !r.needsEvents()
	callers := r.knowsKeys()
	for name, ok := range map[string]bool{
		ledgerHealth:  r.ledger.Ledger == nil,
		eventsHealth:  events,
		callersHealth: callers,
		readyHealth:   r.ledger.Ledger == nil && events && callers,
	} {
		status := healthpb.HealthCheckResponse_NOT_SERVING
		if ok {
			status = healthpb.HealthCheckResponse_SERVING
		}
		r.server.SetServingStatus(name, status) // no effect once the server drains
	}
}
