package lpfileshare

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
)

// The environment variables of [DialEnv]. Those that are also flags of the command lpfileshare have the names of the flags.
const (
	EnvAddress            = "LPFILESHARE_ADDRESS"              // HOST:PORT, or several: see Dial
	EnvAccount            = "LPFILESHARE_ACCOUNT"              // id of the account: see Client.Account
	EnvToken              = "LPFILESHARE_TOKEN"                // a consumer token
	EnvAgentToken         = "LPFILESHARE_AGENT_TOKEN"          // an agent token
	EnvExternalConsumerID = "LPFILESHARE_EXTERNAL_CONSUMER_ID" // the brand's id of a consumer
	EnvTLSCA              = "LPFILESHARE_TLS_CA"               // PEM file with the only certificate authorities to trust
	EnvClientCert         = "LPFILESHARE_CLIENT_CERT"          // PEM file with the client certificate
	EnvClientKey          = "LPFILESHARE_CLIENT_KEY"           // PEM file with its key
	EnvPlaintext          = "LPFILESHARE_PLAINTEXT"            // true: no TLS, to any address
	EnvBearerTokenFile    = "LPFILESHARE_BEARER_TOKEN_FILE"    // file with the bearer token of the calling service: see TokenFile
)

// DialEnv is Dial with the settings of the environment. Options take precedence over it. LPFILESHARE_ADDRESS is required. At most
// one of LPFILESHARE_TOKEN, LPFILESHARE_AGENT_TOKEN and LPFILESHARE_EXTERNAL_CONSUMER_ID may be set, unless an option sets the identity.
func DialEnv(options ...Option) (*Client, error) {
	var s settings
	err := s.apply(options)
	if err == nil {
		err = s.fromEnvironment(os.Getenv)
	}
	target := os.Getenv(EnvAddress)
	if err == nil && target == "" {
		err = fmt.Errorf("%s is not set; set it to HOST:PORT", EnvAddress)
	}
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	return s.dialTarget(target)
}

// fromEnvironment sets what no option has set.
func (s *settings) fromEnvironment(getenv func(string) string) error {
	if s.identity.key == "" {
		for _, v := range []struct {
			name   string
			option func(string) Option
		}{
			{EnvToken, func(t string) Option { return WithConsumerToken(StaticToken(t)) }},
			{EnvAgentToken, func(t string) Option { return WithAgentToken(StaticToken(t)) }},
			{EnvExternalConsumerID, WithExternalConsumerID},
		} {
			if value := getenv(v.name); value != "" {
				if err := v.option(value)(s); err != nil {
					return fmt.Errorf("%s: %w", v.name, err)
				}
			}
		}
	}
	if s.account == "" {
		s.account = getenv(EnvAccount)
	}
	if file := getenv(EnvBearerTokenFile); file != "" && s.bearer == nil {
		s.bearer = hide(TokenFile(file))
	}
	if s.tls != nil || s.plaintext {
		return nil
	}
	switch text := strings.ToLower(getenv(EnvPlaintext)); text { // the same words as the flag of the command
	case "true", "1", "yes":
		s.plaintext = true
	case "false", "0", "no", "":
	default:
		return fmt.Errorf("%s is %q, must be true or false", EnvPlaintext, text)
	}
	config, err := TLSConfig(getenv(EnvTLSCA), getenv(EnvClientCert), getenv(EnvClientKey))
	if err == nil && config != nil && s.plaintext {
		err = fmt.Errorf("%s excludes %s and %s", EnvPlaintext, EnvTLSCA, EnvClientCert)
	}
	s.tls = config
	return err
}

// TLSConfig returns a configuration for [WithTLS] from PEM files: the only certificate authorities to trust, the client certificate
// and its key. Each may be empty, but certificate and key go together. If all are empty it returns nil.
func TLSConfig(caFile, certFile, keyFile string) (*tls.Config, error) {
	if (certFile == "") != (keyFile == "") {
		return nil, errors.New("client certificate and key must be set together")
	}
	if caFile == "" && certFile == "" {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, fmt.Errorf("certificate authorities: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("certificate authorities: %s contains no certificate in PEM", caFile)
		}
	}
	if certFile != "" {
		pair, err := tls.LoadX509KeyPair(certFile, keyFile)
		if err != nil {
			return nil, fmt.Errorf("client certificate %s with key %s: %w", certFile, keyFile, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
