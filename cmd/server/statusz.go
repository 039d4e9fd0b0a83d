package main

import (
	"cmp"
	"fmt"
	"html/template"
	"maps"
	"net/http"
	"net/http/pprof"
	"runtime/debug"
	rtmetrics "runtime/metrics"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"google.golang.org/grpc/health"

	"github.com/lpfileshare/lpfileshare/internal/buildinfo"
	"github.com/lpfileshare/lpfileshare/internal/metrics"
)

// secretFlags are the flags that name or contain secrets. /config says only whether they are set.
var secretFlags = []string{
	"agent-token-key", "audit-key-file", "ledger-creds", "ledger-key", "ledger-password-file", "sandbox-password", "tls-key", "web-key", "webhook-key",
}

// settings returns the values of flags by name, as they are in effect.
func settings(of []*kong.Flag) map[string]string {
	values := map[string]string{}
	for _, flag := range of {
		if flag.Name == "help" || flag.Name == "version" {
			continue
		}
		text := fmt.Sprint(flag.Target.Interface())
		if slices.Contains(secretFlags, flag.Name) {
			text = map[bool]string{true: "set", false: "unset"}[text != ""]
		}
		values[flag.Name] = text
	}
	return values
}

// inspected is what the guarded pages show.
type inspected struct {
	flags    *flags
	parts    *parts
	counters *counters
	metrics  *metrics.Metrics // nil without --admin-listen
	serving  *health.Server
}

// addPages adds the guarded pages. It may be called while the server serves. a may be nil.
func (a *adminServer) addPages(i *inspected) {
	if a == nil {
		return
	}
	page := func(pattern string, handler http.HandlerFunc) { a.page(pattern, guardedPages, handler) }
	page("GET /statusz", i.writeStatus)
	page("GET /config", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, i.flags.settings) })
	page("GET /log-level", i.counters.log.writeLevel)
	page("PUT /log-level", i.counters.log.setLevel)
	page("GET /channelz", writeChannelz(newChannelz()))
	page("GET /debug/pprof/", pprof.Index)
	page("GET /debug/pprof/profile", pprof.Profile)
	page("GET /debug/pprof/trace", pprof.Trace)
	page("GET /debug/vars", i.counters.writeVars)
	page("GET /debug/webhooks", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, i.counters.webhooks.Counts()) })
	page("GET /debug/gc", collectGarbage)
}

// A section is a part of the status page.
type section struct {
	Name string
	Rows []row
}

type row struct{ Name, Value string }

var statusPage = template.Must(template.New("statusz").Parse(`<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>lpfileshare</title>
<style>body{font:14px sans-serif;margin:2em}td,th{padding:2px 1em 2px 0;text-align:left;vertical-align:top}h2{font-size:16px}</style>
<h1>lpfileshare</h1>
{{range .}}<h2>{{.Name}}</h2>
<table>{{range .Rows}}
<tr><th>{{.Name}}</th><td>{{.Value}}</td></tr>{{else}}
<tr><td>none</td></tr>{{end}}
</table>
{{end}}</html>
`))

// writeStatus answers /statusz.
func (i *inspected) writeStatus(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	sections := []section{
		{"Server", i.serverRows()},
		{"Accounts", i.accountRows()},
		{"Ledger", i.ledgerRows()},
		{"LivePerson", i.sessionRows()},
		{"Memory", i.memoryRows()},
		{"Malware scanner", i.scannerRows()},
		{"Rejections by limit", countRows(i.counters.rejections())},
	}
	if i.metrics != nil {
		sections = append(sections, section{"Failed calls by reason", countRows(i.metrics.Failed())})
	}
	_ = statusPage.Execute(w, sections)
}

// started is when this process started.
var started = time.Now()

func (i *inspected) serverRows() []row {
	rows := []row{
		{"version", buildinfo.Version()}, {"revision", buildinfo.Revision()},
		{"running for", time.Since(started).Round(time.Second).String()}, {"log level", strings.ToLower(i.counters.log.level.Level().String())},
	}
	for _, part := range healthParts {
		rows = append(rows, row{part.name, map[bool]string{true: "serving", false: "not serving"}[isServing(i.serving, part.health)]})
	}
	return rows
}

func (i *inspected) accountRows() []row {
	set := i.parts.accounts.Set()
	others := "are rejected"
	if set.Others != nil {
		others = "are served"
	}
	return []row{
		{"file", cmp.Or(i.flags.LivePerson.Accounts, "none; the flags name them")},
		{"read at", i.parts.accounts.ReadAt().UTC().Format(time.RFC3339)},
		{"named accounts", fmt.Sprint(len(set.Named))}, {"names", someOf(slices.Sorted(maps.Keys(set.Named)))}, {"other accounts", others},
	}
}

func (i *inspected) ledgerRows() []row {
	u := i.parts.ledger.Usage()
	return []row{
		{"place", i.parts.ledgerPlace}, {"records", fmt.Sprint(u.Records)}, {"size", ofLimit(u.Bytes, u.LimitBytes)},
		{"reserved for running uploads", fmt.Sprintf("%d bytes", u.ReservedBytes)},
	}
}

func (i *inspected) sessionRows() []row {
	openings := i.parts.service.Usage().Openings
	return []row{
		{"sessions", fmt.Sprintf("%d of %d", i.parts.sessions.Len(), i.flags.LivePerson.MaxSessions)},
		{"sessions being opened", fmt.Sprint(openings.InFlight)}, {"sessions that wait to be opened", fmt.Sprint(openings.Queued)},
	}
}

func (i *inspected) memoryRows() []row {
	u := i.parts.service.Usage()
	uploads, downloads := int64(i.flags.Limits.MemoryBudget), int64(i.flags.Limits.DownloadMemory)
	return []row{
		{"uploads", ofLimit(uploads-u.Uploads.FreeBytes, uploads)}, {"uploads that wait for memory", fmt.Sprint(u.Uploads.Queued)},
		{"downloads", ofLimit(downloads-u.Downloads.FreeBytes, downloads)}, {"downloads that run", fmt.Sprint(u.Downloads.Running)},
		{"downloads that wait for memory", fmt.Sprint(u.Downloads.Queued)},
		{"process", ofLimit(processBytes(), debug.SetMemoryLimit(-1))},
	}
}

func (i *inspected) scannerRows() []row {
	if i.parts.scanner == nil {
		return nil
	}
	return append([]row{{"clamd", i.flags.Scan.Scanner}, {"files that wait", fmt.Sprint(i.parts.scanner.Waiting())}}, countRows(i.parts.scanner.Counts())...)
}

// countRows returns the counters that are not 0, by name.
func countRows(counts map[string]int64) (rows []row) {
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		if counts[name] != 0 {
			rows = append(rows, row{name, fmt.Sprint(counts[name])})
		}
	}
	return rows
}

// ofLimit formats a number of bytes against its limit.
func ofLimit(bytes, limit int64) string {
	const none = 1 << 60 // the garbage collector's limit is the largest int64 if there is none
	if limit > none {
		return fmt.Sprintf("%d bytes, no limit", bytes)
	}
	return fmt.Sprintf("%d of %d bytes (%d %%)", bytes, limit, 100*bytes/max(limit, 1))
}

// processBytes returns the memory that counts against the limit of the garbage collector.
func processBytes() int64 {
	samples := []rtmetrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	rtmetrics.Read(samples)
	return int64(samples[0].Value.Uint64() - samples[1].Value.Uint64())
}
