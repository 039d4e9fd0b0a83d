package main

import (
	"runtime"

	"google.golang.org/grpc/health"

	"github.com/lpfileshare/lpfileshare/internal/audit"
	"github.com/lpfileshare/lpfileshare/internal/buildinfo"
	"github.com/lpfileshare/lpfileshare/internal/ledger"
	"github.com/lpfileshare/lpfileshare/internal/metrics"
)

// newMetrics returns the metrics of this process.
func newMetrics() *metrics.Metrics {
	return metrics.New(buildinfo.Version(), buildinfo.Revision(), runtime.Version())
}

// addGauges adds the metrics that the parts count themselves.
func addGauges(m *metrics.Metrics, f *flags, p *parts, c *counters, trail *audit.Log, serving *health.Server) {
	m.Counts("lpfs_rejections_total", "Calls, connections and messages that a limit rejected, by limit.", "limit", c.rejections)
	m.Counts("lpfs_webhook_events_total", "Events and deliveries of webhooks, by result.", "result", func() map[string]int64 {
		n := c.webhooks.Counts()
		return map[string]int64{"kept": n.Kept, "repeated": n.Repeated, "rejected": n.Rejected, "failed": n.Failed, "late": n.Late}
	})

	const used, limit = "Memory that files use now.", "Maximum memory of files."
	uploads, downloads := int64(f.Limits.MemoryBudget), int64(f.Limits.DownloadMemory)
	m.Gauge("lpfs_memory_bytes", used, func() float64 { return float64(uploads - p.service.Usage().Uploads.FreeBytes) }, "use", "uploads")
	m.Gauge("lpfs_memory_bytes", used, func() float64 { return float64(downloads - p.service.Usage().Downloads.FreeBytes) }, "use", "downloads")
	m.Gauge("lpfs_memory_limit_bytes", limit, func() float64 { return float64(uploads) }, "use", "uploads")
	m.Gauge("lpfs_memory_limit_bytes", limit, func() float64 { return float64(downloads) }, "use", "downloads")
	const waiting = "Calls that wait for memory, sessions that wait to be opened, and files that wait for a connection to the malware scanner."
	m.Gauge("lpfs_waiting", waiting, func() float64 { return float64(p.service.Usage().Uploads.Queued) }, "for", "uploads")
	m.Gauge("lpfs_waiting", waiting, func() float64 { return float64(p.service.Usage().Downloads.Queued) }, "for", "downloads")
	m.Gauge("lpfs_waiting", waiting, func() float64 { return float64(p.service.Usage().Openings.Queued) }, "for", "sessions")
	if p.scanner != nil {
		m.Counts("lpfs_scans_total", "Scans for malware, by result.", "result", p.scanner.Counts)
		m.Gauge("lpfs_waiting", waiting, func() float64 { return float64(p.scanner.Waiting()) }, "for", "scans")
		m.Gauge("lpfs_scanner_up", "1 if the malware scanner answered last, else 0.", func() float64 { return oneIf(p.scanner.Up()) })
	}
	if trail != nil {
		m.Count("lpfs_audit_lost_total", "Lines of the audit stream that could not be written and were not kept.", func() float64 { return float64(trail.Lost()) })
		m.Gauge("lpfs_audit_usable", "1 if the audit stream is written, else 0.", func() float64 { return oneIf(trail.Usable()) })
	}
	m.Gauge("lpfs_downloads", "Downloads that run.", func() float64 { return float64(p.service.Usage().Downloads.Running) })
	m.Gauge("lpfs_sessions", "Messaging sessions with LivePerson.", func() float64 { return float64(p.sessions.Len()) })
	m.Gauge("lpfs_sessions_limit", "Maximum number of messaging sessions.", func() float64 { return float64(f.LivePerson.MaxSessions) })

	ofLedger := func(read func(ledger.Usage) int64) func() float64 {
		return func() float64 { return float64(read(p.ledger.Usage())) }
	}
	m.Gauge("lpfs_ledger_bytes", "Size of all records of the ledger.", ofLedger(func(u ledger.Usage) int64 { return u.Bytes }))
	m.Gauge("lpfs_ledger_reserved_bytes", "What running uploads may need of the ledger in addition.", ofLedger(func(u ledger.Usage) int64 { return u.ReservedBytes }))
	m.Gauge("lpfs_ledger_limit_bytes", "Maximum size of the ledger.", ofLedger(func(u ledger.Usage) int64 { return u.LimitBytes }))
	m.Gauge("lpfs_ledger_records", "Records of the ledger.", ofLedger(func(u ledger.Usage) int64 { return int64(u.Records) }))

	const healthy = "1 if the health service reports SERVING, else 0. The empty name is that of the server; it is 0 while it drains."
	for _, name := range []string{"", ledgerHealth, eventsHealth, callersHealth, readyHealth, scannerHealth, auditHealth} {
		m.Gauge("lpfs_serving", healthy, func() float64 { return oneIf(isServing(serving, name)) }, "name", name)
	}
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
