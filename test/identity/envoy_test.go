package identity

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lpfileshare/lpfileshare/test/harness"
)

// envoyFile names the program. make test-identity installs it.
const envoyFile = "LPFILESHARE_ENVOY"

// envoyConfig is Envoy's configuration. docs/callers.md has its parts that matter.
const envoyConfig = `
admin:
  address: {socket_address: {address: 127.0.0.1, port_value: 0}}
static_resources:
  listeners:
  - name: grpc
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context:
            alpn_protocols: [h2]
            tls_certificates: [{certificate_chain: {filename: DIR/edge.pem}, private_key: {filename: DIR/edge.key}}]
            validation_context: {trusted_ca: {filename: DIR/ca.pem}}
      filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: grpc
          codec_type: HTTP2
          stream_idle_timeout: 0s
          forward_client_cert_details: SANITIZE_SET
          set_current_client_cert_details: {uri: true, dns: true, subject: true}
          route_config:
            virtual_hosts:
            - name: lpfileshare
              domains: ["*"]
              routes: [{match: {prefix: "/"}, route: {cluster: lpfileshare, timeout: 0s}}]
          http_filters:
          - name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
  clusters:
  - name: lpfileshare
    type: STATIC
    connect_timeout: 5s
    load_assignment:
      cluster_name: lpfileshare
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: PORT}}}}]}]
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}
    transport_socket:
      name: tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        common_tls_context:
          alpn_protocols: [h2]
          tls_certificates: [{certificate_chain: {filename: DIR/edge.pem}, private_key: {filename: DIR/edge.key}}]
          validation_context: {trusted_ca: {filename: DIR/ca.pem}}
`

// startEnvoy starts Envoy before a server, with the certificates in dir, and returns its address. It ends with the test.
func startEnvoy(t *testing.T, dir, server string) string {
	t.Helper()
	program := os.Getenv(envoyFile)
	if program == "" {
		t.Fatalf("%s is not set; run make test-identity, which installs Envoy", envoyFile)
	}
	_, port, err := net.SplitHostPort(server)
	if err != nil {
		t.Fatal(err)
	}
	config, admin := filepath.Join(dir, "envoy.yaml"), filepath.Join(dir, "admin")
	text := strings.NewReplacer("DIR", dir, "PORT", port).Replace(envoyConfig)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "envoy.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(program, "-c", config, "--admin-address-path", admin, "--concurrency", "1", "--use-dynamic-base-id", "--log-level", "warning")
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-ended
	})
	address := ""
	harness.Eventually(t, "Envoy listens", func() bool {
		select {
		case <-ended:
			text, _ := os.ReadFile(log.Name())
			t.Fatalf("Envoy has ended:\n%s", text)
		default:
		}
		address = listenerOf(admin)
		return address != ""
	})
	return address
}

// listenerOf asks Envoy for the address of its listener; empty: there is none yet.
func listenerOf(adminFile string) string {
	admin, err := os.ReadFile(adminFile)
	if err != nil {
		return ""
	}
	resp, err := http.Get(fmt.Sprintf("http://%s/listeners?format=json", strings.TrimSpace(string(admin))))
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	var listeners struct {
		Statuses []struct {
			Address struct {
				Socket struct {
					Address string
					Port    int `json:"port_value"`
				} `json:"socket_address"`
			} `json:"local_address"`
		} `json:"listener_statuses"`
	}
	if json.NewDecoder(resp.Body).Decode(&listeners) != nil || len(listeners.Statuses) == 0 || listeners.Statuses[0].Address.Socket.Port == 0 {
		return ""
	}
	at := listeners.Statuses[0].Address.Socket
	return net.JoinHostPort(at.Address, fmt.Sprint(at.Port))
}
