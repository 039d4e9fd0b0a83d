package share

import (
	"strings"
	"testing"
)

func TestValidAccountID(t *testing.T) {
	for s, want := range map[string]bool{
		"12345678": true, "le79144597": true, "A": true, strings.Repeat("a", 32): true,
		"": false, strings.Repeat("a", 33): false, "12/34": false, "..": false, "12 34": false, "12-34": false, "é": false, "1\n": false,
	} {
		if got := ValidAccountID(s); got != want {
			t.Errorf("%q: %t, want %t", s, got, want)
		}
	}
}

func TestValidToken(t *testing.T) {
	for s, want := range map[string]bool{
		"a.b.c": true, "!~": true, strings.Repeat("x", MaxToken): true,
		"": false, strings.Repeat("x", MaxToken+1): false, "a b": false, "a\tb": false, "a\n": false, "a\x7f": false, "é": false, "\x00": false,
	} {
		if got := ValidToken(s); got != want {
			t.Errorf("%.20q (%d bytes): %t, want %t", s, len(s), got, want)
		}
	}
}

func TestPassing(t *testing.T) {
	for kind, want := range map[Kind]bool{
		LPTimeout: true, LPUnavailable: true, LPRateLimited: true, StorageUnavailable: true, StorageRateLimited: true, StorageURLRejected: true,
		StorageCorrupted: false, StorageDenied: false, FileNotFound: false, TokenInvalid: false, LPCredentialsRejected: false,
		LPPublishUnconfirmed: false, "": false,
	} {
		if got := Passing(kind); got != want {
			t.Errorf("%s: %t, want %t", kind, got, want)
		}
	}
}
