package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
)

func TestFlags_RejectWrongSettings(t *testing.T) {
	for _, test := range []struct {
		name string
		args []string
		want string
	}{
		{"plaintext for everybody", []string{"--listen=0.0.0.0:0"}, "--allow-plaintext"},
		{"no address", []string{"--listen=50051"}, "give HOST:PORT"},
		{"sandbox and a real account", []string{"--sandbox", "--serve-account=12345678"}, "leave --serve-account"},
		{"sandbox on the network", []string{"--sandbox", "--sandbox-listen=0.0.0.0:0"}, "loopback"},
		{"a CA for no sandbox", []string{"--sandbox-ca=x"}, "want --sandbox"},
		{"frames of no sandbox", []string{"--sandbox-frames=x"}, "want --sandbox"},
		{"frames nowhere", []string{"--sandbox", "--sandbox-frames=/dev/null/x"}, "--sandbox-frames"},
		{"a fault that is none", []string{"--sandbox", `--sandbox-fault={"status":503}`}, "--sandbox-fault"},
		{"webhooks of no sandbox", []string{"--sandbox-webhook=http://127.0.0.1:1/"}, "want --sandbox"},
		{"webhooks to somebody else", []string{"--sandbox", "--sandbox-webhook=http://example.com/hook"}, "not on loopback"},
		{"webhooks to nowhere", []string{"--sandbox", "--sandbox-webhook=hook"}, "http://HOST:PORT/PATH"},
		{"no room for a file", []string{"--memory-budget=1000000"}, "no room for one file"},
		{"nothing to fit", []string{"--fit-images", "--max-image-input=3MB"}, "fit as they are"},
		{"no room to fit", []string{"--fit-images", "--memory-budget=25MiB"}, "no room for one image of 25000000 bytes"},
		{"no room to strip", []string{"--memory-budget=4MB"}, "and for it stripped"},
		{"receive memory for less than a few messages", []string{"--receive-memory=20971519"}, "it must be at least 20971520"},
		{"nobody may connect", []string{"--max-connections=0"}, "--max-connections must be more than 0"},
		{"no uploads for anybody", []string{"--max-uploads-per-caller=0"}, "--max-uploads-per-caller must be more than 0"},
		{"a notice before the drain", []string{"--drain-notice=-1s"}, "must not be negative"},
		{"ids forgotten in mid-upload", []string{"--request-id-ttl=5m"}, "together 11m10s"},
		{"no time", []string{"--upload-idle-timeout=0s"}, "--upload-idle-timeout must be more than 0"},
		{"an account that is none", []string{"--serve-account=12/34"}, "not an account id"},
		{"half of TLS", []string{"--tls-cert=x"}, "--tls-cert and --tls-key go together"},
		{"callers' certificates without TLS", []string{"--tls-client-ca=x"}, "--tls-client-ca wants TLS"},
		{"TLS and plaintext", []string{"--tls-cert=x", "--tls-key=x", "--allow-plaintext"}, "exclude each other"},
		{"no certificate", []string{"--tls-cert=/nowhere", "--tls-key=/nowhere"}, "--tls-cert /nowhere"},
		{"two lists of accounts", []string{"--serve-account=1", "--accounts=x"}, "put the ids of --serve-account into x"},
		{"no accounts file", []string{"--accounts=/nowhere.yaml"}, "/nowhere.yaml: cannot be read: no such file"},
		{"no file to check", []string{"--check-accounts"}, "--accounts FILE"},
		{"a service that is none", []string{"--domain=foo=bar"}, "there is no such service"},
		{"a domain API that is none", []string{"--domain-api=notaurl"}, "is no URL"},
		{"plain HTTP to everybody", []string{"--lp-plain-http"}, "loopback only"},
		{"two LivePersons", []string{"--sandbox", "--domain-api=http://127.0.0.1:1"}, "--domain-api"},
		{"a size that is none", []string{"--memory-budget=lots"}, "is not a size"},
		{"a fault in no place", []string{"--sandbox", `--sandbox-fault={"on":"store:PTU","status":503}`}, "store:PUT"},
		{"profiles for everybody", []string{"--debug-listen=0.0.0.0:0"}, "loopback"},
		{"no key", []string{"--agent-token-key=/nowhere"}, "--agent-token-key"},
		{"webhooks in the clear", []string{"--webhook-listen=0.0.0.0:0"}, "--webhook-plaintext"},
		{"webhooks at no address", []string{"--webhook-listen=8443"}, "give HOST:PORT"},
		{"half of the webhooks' TLS", []string{"--webhook-listen=127.0.0.1:0", "--webhook-cert=x"}, "--webhook-cert and --webhook-key go together"},
		{"a certificate for no webhooks", []string{"--webhook-cert=x", "--webhook-key=x"}, "--webhook-listen"},
		{"no certificate for webhooks", []string{"--sandbox", "--webhook-listen=127.0.0.1:0", "--webhook-cert=/nowhere", "--webhook-key=/nowhere"}, "--webhook-cert"},
		{"no room for events", []string{"--event-bytes=1MB"}, "--event-bytes"},
		{"no patience", []string{"--event-gap=0s"}, "--event-gap"},
		{"an unknown flag", []string{"--sandpit"}, "unknown flag"},
		{"no certificates", []string{"--lp-ca=/nowhere.pem"}, "--lp-ca"},
		{"a plain domain API", []string{"--domain-api=http://api.liveperson.net"}, "https"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // what should not start would stop at once
			args := test.args
			if !strings.Contains(strings.Join(args, " "), "--listen=") {
				args = append(args, "--listen=127.0.0.1:0")
			}
			if code := run(ctx, args, &out, &errs); code == 0 {
				t.Error("it started")
			}
			if !strings.Contains(errs.String(), test.want) {
				t.Errorf("it says %q, and not %q", errs.String(), test.want)
			}
		})
	}
}

func TestFlags_HelpAndVersion(t *testing.T) {
	for _, arg := range []string{"--help", "--version"} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), []string{arg}, &out, &errs); code != 0 || out.Len() == 0 || errs.Len() != 0 {
			t.Errorf("%s: %d %q %q", arg, code, out.String(), errs.String())
		}
	}
}

func TestFlags_SizesHaveUnits(t *testing.T) {
	for text, want := range map[string]byteSize{"3000000": 3_000_000, "3MB": 3_000_000, "256MiB": 256 << 20, "1 GiB": 1 << 30, "64KiB": 64 << 10} {
		var got byteSize
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%s is %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "MB", "-1", "3mb", "9999999999GiB", "1.5MB"} {
		if err := new(byteSize).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was taken", text)
		}
	}
}
