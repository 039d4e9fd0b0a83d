package share

import (
	"strings"
	"testing"
)

func TestParseETag(t *testing.T) {
	const sum = "5afc25f598515c50b6626c11ad838d93"
	for _, c := range []struct {
		header  string
		want    ETag
		md5     string
		suffix  string
		ifMatch string
	}{
		{sum, sum, sum, "", `"` + sum + `"`},
		{`"` + sum + `"`, sum, sum, "", `"` + sum + `"`},
		{" \t" + sum + " ", sum, sum, "", `"` + sum + `"`},
		{strings.ToUpper(sum), ETag(strings.ToUpper(sum)), sum, "", `"` + strings.ToUpper(sum) + `"`},
		{`W/"` + sum + `"`, `W/"` + sum + `"`, sum, "", ""},
		{`W/` + sum, `W/"` + sum + `"`, sum, "", ""},
		{`"` + sum + `-gzip"`, sum + "-gzip", sum, "-gzip", ""},
		{`"` + sum + `;br"`, sum + ";br", sum, ";br", ""},
		{`W/"` + sum + `-3"`, `W/"` + sum + `-3"`, "", "", ""},
		{`"` + sum + `-12"`, sum + "-12", "", "", `"` + sum + `-12"`},
		{`"` + sum + `--gzip"`, sum + "--gzip", sum, "--gzip", ""},
		{`"` + sum + `-"`, sum + "-", "", "", `"` + sum + `-"`},
		{`"` + sum + `.1"`, sum + ".1", "", "", `"` + sum + `.1"`},
		{`"` + sum + `0"`, sum + "0", "", "", `"` + sum + `0"`}, // longer than an MD5
		{sum[1:], ETag(sum[1:]), "", "", `"` + sum[1:] + `"`},
		{`"` + sum[1:] + `g"`, ETag(sum[1:] + "g"), "", "", `"` + sum[1:] + `g"`},
		{`"opaque-1"`, "opaque-1", "", "", `"opaque-1"`},
		{`W/"0"`, `W/"0"`, "", "", ""},
		{`w/"0"`, "", "", "", ""}, // W/ is case-sensitive
		{`"W/0"`, `"W/0"`, "", "", `"W/0"`},
		{"*", "*", "", "", `"*"`},
		{"", "", "", "", ""},
		{`""`, "", "", "", ""},
		{"W/", "", "", "", ""},
		{`W/""`, "", "", "", ""},
		{`"`, "", "", "", ""},
		{`"a`, "", "", "", ""},
		{`a"b`, "", "", "", ""},
		{`"a", "b"`, "", "", "", ""},
		{"a b", "", "", "", ""},
		{"a\x7f", "", "", "", ""},
		{"é", "", "", "", ""},
		{strings.Repeat("a", maxETag+1), "", "", "", ""},
	} {
		t.Run(c.header, func(t *testing.T) {
			e := ParseETag(c.header)
			sum, suffix := e.MD5()
			if e != c.want || sum != c.md5 || suffix != c.suffix || e.IfMatch() != c.ifMatch {
				t.Errorf("got %q, MD5 %q, suffix %q, If-Match %q; want %q, %q, %q, %q", e, sum, suffix, e.IfMatch(), c.want, c.md5, c.suffix, c.ifMatch)
			}
			if again := ParseETag(string(e)); again != e {
				t.Errorf("sent back, %q becomes %q", e, again)
			}
			if len(e) > maxETag {
				t.Errorf("%d characters", len(e))
			}
		})
	}
}

func TestETag_Matches(t *testing.T) {
	const sum = "5afc25f598515c50b6626c11ad838d93"
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{sum, `"` + sum + `"`, true},
		{sum, `W/"` + sum + `"`, true},
		{sum, strings.ToUpper(sum), true},
		{sum + "-gzip", `"` + strings.ToUpper(sum) + `-gzip"`, true},
		{"opaque", `W/"opaque"`, true},
		{"opaque", "OPAQUE", false},
		{sum, sum + "-gzip", false},
		{sum, strings.Repeat("0", 32), false},
		{"", "", false},
		{"", sum, false},
	} {
		a, b := ParseETag(c.a), ParseETag(c.b)
		if a.Matches(b) != c.want || b.Matches(a) != c.want {
			t.Errorf("%q and %q: want %t", a, b, c.want)
		}
	}
}
