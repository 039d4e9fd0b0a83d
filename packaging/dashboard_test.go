package packaging

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/grafana/grafana-foundation-sdk/go/cog"
	"github.com/grafana/grafana-foundation-sdk/go/dashboard"
	"github.com/grafana/grafana-foundation-sdk/go/prometheus"
	"github.com/grafana/grafana-foundation-sdk/go/timeseries"
)

// TestDashboard decodes the dashboard strictly. test/monitoring runs its queries.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile("monitoring/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	cog.NewRuntime().RegisterPanelcfgVariant(timeseries.VariantConfig())
	cog.NewRuntime().RegisterDataqueryVariant(prometheus.VariantConfig())
	if got := dashboardFaults(text); got != "" {
		t.Error(got)
	}
	for _, c := range []struct{ old, new, want string }{
		{`"legendFormat"`, `"legend"`, "unexpected field 'legend'"},
		{`"gridPos"`, `"grid"`, "unexpected field 'grid'"},
		{`"schemaVersion"`, `"schema"`, "unexpected field 'schema'"},
	} {
		changed := bytes.Replace(text, []byte(c.old), []byte(c.new), 1)
		if got := dashboardFaults(changed); !strings.Contains(got, c.want) {
			t.Errorf("%s for %s: %q", c.new, c.old, got)
		}
	}
}

// dashboardFaults returns what is wrong with a dashboard. The decoder returns an error without text if nothing is.
func dashboardFaults(text []byte) string {
	if err := new(dashboard.Dashboard).UnmarshalJSONStrict(text); err != nil {
		return err.Error()
	}
	return ""
}
