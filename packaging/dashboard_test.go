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
	if err := new(dashboard.Dashboard).UnmarshalJSONStrict(text); err != nil {
		t.Error(err)
	}
	for _, c := range []struct{ old, new, want string }{
		{`"legendFormat"`, `"legend"`, "legend"},
		{`"gridPos"`, `"grid"`, "grid"},
		{`"schemaVersion"`, `"schema"`, "schema"},
	} {
		changed := bytes.Replace(text, []byte(c.old), []byte(c.new), 1)
		if err := new(dashboard.Dashboard).UnmarshalJSONStrict(changed); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s for %s: %v", c.new, c.old, err)
		}
	}
}
