package connector

import "testing"

// TestSignWebhook has the examples of the documentation.
func TestSignWebhook(t *testing.T) {
	for digest, want := range map[string]string{
		"":       "sha1=TCzexuF9aNZl2WNZEW4Kk8so3HY=",
		"sha1":   "sha1=TCzexuF9aNZl2WNZEW4Kk8so3HY=",
		"sha256": "sha256=5s6sdS2g/mmI+lD3EYf0MfxQmD1lvlr5rzZgajo9skg=",
	} {
		if got := signWebhook(digest, "example-secret", []byte(`{"kind":"notification"}`)); got != want {
			t.Errorf("%q: %s, want %s", digest, got, want)
		}
	}
}
