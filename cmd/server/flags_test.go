package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
)

func TestFlags_RejectWrongSettings(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name string
		args []string
		want string
	}{
		{"plaintext on the network", []string{"--listen=0.0.0.0:0"}, "--allow-plaintext"},
		{"not an address", []string{"--listen=50051"}, "give HOST:PORT"},
		{"sandbox and a real account", []string{"--sandbox", "--serve-account=12345678"}, "leave out --serve-account"},
		{"sandbox on the network", []string{"--sandbox", "--sandbox-listen=0.0.0.0:0"}, "loopback"},
		{"a CA without the sandbox", []string{"--sandbox-ca=x"}, "add --sandbox"},
		{"one login without the sandbox", []string{"--sandbox-one-login"}, "add --sandbox"},
		{"a fault on an unknown request", []string{"--sandbox", `--sandbox-fault={"on":"ms.PublishEvents","status":503}`}, "ms.PublishEvent"},
		{"a fault with an invalid delay", []string{"--sandbox", `--sandbox-fault={"on":"GetClock","delay":"3 s"}`}, "duration"},
		{"frames without the sandbox", []string{"--sandbox-frames=x"}, "add --sandbox"},
		{"frames in an impossible folder", []string{"--sandbox", "--sandbox-frames=/dev/null/x"}, "--sandbox-frames"},
		{"an incomplete fault", []string{"--sandbox", `--sandbox-fault={"status":503}`}, "--sandbox-fault"},
		{"sandbox webhooks without the sandbox", []string{"--sandbox-webhook=http://127.0.0.1:1/"}, "add --sandbox"},
		{"sandbox webhooks to another host", []string{"--sandbox", "--sandbox-webhook=http://example.com/hook"}, "not on loopback"},
		{"sandbox webhooks to a path", []string{"--sandbox", "--sandbox-webhook=hook"}, "http://HOST:PORT/PATH"},
		{"a budget smaller than a file", []string{"--memory-budget=1000000"}, "too small for one file of 3000000 bytes"},
		{"nothing to reduce", []string{"--fit-images", "--max-image-input=3MB"}, "need no reduction"},
		{"a budget too small to reduce images", []string{"--fit-images", "--memory-budget=25MiB"}, "too small for one image of 25000000 bytes"},
		{"a budget too small to strip images", []string{"--memory-budget=4MB"}, "and its stripped copy"},
		{"receive memory for less than a few messages", []string{"--receive-memory=20971519"}, "set it to at least 20971520"},
		{"no connections", []string{"--max-connections=0"}, "--max-connections is 0; it must be more than 0"},
		{"no uploads", []string{"--max-uploads-per-caller=0"}, "--max-uploads-per-caller is 0; it must be more than 0"},
		{"a notice before the drain", []string{"--drain-notice=-1s"}, "--drain-notice is -1s; it must not be negative"},
		{"ids that expire during an upload", []string{"--request-id-ttl=5m"}, "set it to at least 11m10s"},
		{"no idle time", []string{"--upload-idle-timeout=0s"}, "--upload-idle-timeout is 0s; it must be more than 0"},
		{"an invalid account id", []string{"--serve-account=12/34"}, "not an account id"},
		{"half of TLS", []string{"--tls-cert=x"}, "--tls-cert and --tls-key belong together"},
		{"client certificates without TLS", []string{"--tls-client-ca=x"}, "--tls-client-ca requires TLS"},
		{"TLS and plaintext", []string{"--tls-cert=x", "--tls-key=x", "--allow-plaintext"}, "exclude each other"},
		{"no certificate", []string{"--tls-cert=/nowhere", "--tls-key=/nowhere"}, "--tls-cert /nowhere"},
		{"two lists of accounts", []string{"--serve-account=1", "--accounts=x"}, "move the ids of --serve-account to x"},
		{"no accounts file", []string{"--accounts=/nowhere.yaml"}, "/nowhere.yaml: cannot be read: no such file"},
		{"no file to check", []string{"--check-accounts"}, "--accounts FILE"},
		{"an unknown service", []string{"--domain=foo=bar"}, "there is no service foo"},
		{"an invalid domain API", []string{"--domain-api=notaurl"}, "is not a URL"},
		{"plain HTTP on the network", []string{"--lp-plain-http"}, "loopback only"},
		{"two LivePersons", []string{"--sandbox", "--domain-api=http://127.0.0.1:1"}, "--domain-api"},
		{"an invalid size", []string{"--memory-budget=lots"}, "is not a size"},
		{"a fault at an unknown point", []string{"--sandbox", `--sandbox-fault={"on":"store:PTU","status":503}`}, "store:PUT"},
		{"profiles on the network", []string{"--debug-listen=0.0.0.0:0"}, "loopback"},
		{"certificates of operators without an address", []string{"--tls-cert=x", "--tls-key=x", "--admin-client-ca=x"}, "no effect without --admin-listen"},
		{"certificates of operators without TLS", []string{"--admin-listen=127.0.0.1:0", "--admin-client-ca=x"}, "--admin-client-ca requires TLS"},
		{"pages that cannot be opened", []string{"--admin-open=config"}, "must be one of"},
		{"pages and none", []string{"--admin-open=none,health"}, "leave one of them out"},
		{"no key", []string{"--agent-token-key=/nowhere"}, "--agent-token-key"},
		{"webhooks without TLS", []string{"--webhook-listen=0.0.0.0:0"}, "--webhook-plaintext"},
		{"webhooks at an invalid address", []string{"--webhook-listen=8443"}, "give HOST:PORT"},
		{"half of the webhooks' TLS", []string{"--webhook-listen=127.0.0.1:0", "--webhook-cert=x"}, "--webhook-cert and --webhook-key belong together"},
		{"a certificate without webhooks", []string{"--webhook-cert=x", "--webhook-key=x"}, "--webhook-listen"},
		{"no certificate for webhooks", []string{"--sandbox", "--webhook-listen=127.0.0.1:0", "--webhook-cert=/nowhere", "--webhook-key=/nowhere"}, "--webhook-cert"},
		{"too little memory for events", []string{"--event-bytes=1MB"}, "--event-bytes"},
		{"no time for missing events", []string{"--event-gap=0s"}, "--event-gap"},
		{"an invalid scanner", []string{"--scan=/run/clamd.ctl"}, "give clamd://HOST:PORT or clamd:///PATH"},
		{"nothing to fail open", []string{"--scan-fail-open"}, "add --scan"},
		{"an unknown flag", []string{"--sandpit"}, "unknown flag"},
		{"no certificates", []string{"--lp-ca=/nowhere.pem"}, "--lp-ca"},
		{"a plain domain API", []string{"--domain-api=http://api.liveperson.net"}, "https"},
		{"a NATS flag for an embedded ledger", []string{"--ledger-user=x"}, "--ledger-user applies to NATS servers"},
		{"a small ledger", []string{"--ledger-bytes=1KB"}, "--ledger-bytes is 1000"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // a server that starts by mistake stops at once
			args := test.args
			if !strings.Contains(strings.Join(args, " "), "--listen=") {
				args = append(args, "--listen=127.0.0.1:0")
			}
			if code := run(ctx, args, &out, &errs); code == 0 {
				t.Error("the server started")
			}
			if !strings.Contains(errs.String(), test.want) {
				t.Errorf("the error is %q, want %q in it", errs.String(), test.want)
			}
		})
	}
}

// TestFlags_ReportsAllErrors has one error in each group of flags, and one between groups.
func TestFlags_ReportsAllErrors(t *testing.T) {
	t.Parallel()
	var out, errs bytes.Buffer
	_, code, done := parse([]string{
		"--listen=50051", "--tls-key=x", "--sandbox-ca=x", "--settle=-1s", "--max-connections=0", "--drain-time=-1s", "--request-id-ttl=1s", "--scan-timeout=0s",
		"--ledger-bytes=1KB", "--event-gap=0s", "--debug-listen=x", "--admin-listen=9090",
	}, &out, &errs)
	if !done || code != 2 {
		t.Errorf("done %v, code %d", done, code)
	}
	for _, want := range []string{
		"--listen ", "--tls-cert and --tls-key", "add --sandbox", "--settle is -1s", "--max-connections is 0", "--drain-time is -1s", "--request-id-ttl is 1s", "--scan-timeout is 0s",
		"--ledger-bytes is 1000", "--event-gap is 0s", "--debug-listen x", "--admin-listen 9090",
	} {
		if strings.Count(errs.String(), want) != 1 {
			t.Errorf("%q is not there once:\n%s", want, errs.String())
		}
	}
}

func TestFlags_HelpAndVersion(t *testing.T) {
	t.Parallel()
	for _, arg := range []string{"--help", "--version"} {
		var out, errs bytes.Buffer
		if code := run(t.Context(), []string{arg}, &out, &errs); code != 0 || out.Len() == 0 || errs.Len() != 0 {
			t.Errorf("%s: %d %q %q", arg, code, out.String(), errs.String())
		}
	}
}

func TestFlags_SizesHaveUnits(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]byteSize{"3000000": 3_000_000, "3MB": 3_000_000, "256MiB": 256 << 20, "1 GiB": 1 << 30, "64KiB": 64 << 10} {
		var got byteSize
		if err := got.UnmarshalText([]byte(text)); err != nil || got != want {
			t.Errorf("%s is %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", "MB", "-1", "3mb", "9999999999GiB", "1.5MB"} {
		if err := new(byteSize).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

func TestFlags_KeepBytesOfNames(t *testing.T) {
	var stdout, stderr bytes.Buffer
	f, code, done := parse([]string{"--sandbox", "--data-dir=lat\xe9"}, &stdout, &stderr)
	if done || f.Ledger.DataDir != "lat\xe9" {
		t.Errorf("exit code %d, --data-dir is %q: %s", code, f.Ledger.DataDir, &stderr)
	}
}
