package traces

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/metadata"
)

// A program with gzip registered accepts compressed messages, which are larger than the limits of the server can know.
func TestClient_RegistersNoCompressor(t *testing.T) {
	t.Parallel()
	if encoding.GetCompressor("gzip") != nil {
		t.Error("a package that this one imports registers gzip")
	}
}

func TestEndpointOf(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		address string
		secure  bool
	}{
		"http://collector:4317":   {"collector:4317", false},
		"https://collector:14317": {"collector:14317", true},
		"http://collector":        {"collector:4317", false},
		"http://[::1]:4317/":      {"[::1]:4317", false},
	} {
		if address, secure, err := endpointOf(text); err != nil || address != want.address || secure != want.secure {
			t.Errorf("%s: %s, %t, %v", text, address, secure, err)
		}
	}
	for _, text := range []string{"", "collector:4317", "ftp://collector", "http://", "http://user:secret@collector:4317"} {
		if address, _, err := endpointOf(text); err == nil {
			t.Errorf("%q is accepted: %s", text, address)
		}
	}
}

func TestHeadersOf(t *testing.T) {
	t.Parallel()
	got, err := headersOf("authorization=Bearer%20abc, x-tenant = a ,")
	if want := (metadata.MD{"authorization": {"Bearer abc"}, "x-tenant": {"a"}}); err != nil || !cmp.Equal(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
	for _, text := range []string{"authorization", "=x", "a=%zz"} {
		if got, err := headersOf(text); err == nil {
			t.Errorf("%q is accepted: %v", text, got)
		}
	}
}
