package lpfileshare

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"google.golang.org/grpc/credentials"
)

// WithBearerToken sends a bearer token with each call, health checks included. It names the calling service to servers that know services
// by tokens, beside the Identity for whom the service calls. The source is asked for each call: see [TokenFile].
func WithBearerToken(source TokenSource) Option {
	return func(s *settings) error {
		if source == nil {
			return errors.New("WithBearerToken: the source is nil")
		}
		s.bearer = hide(source)
		return nil
	}
}

// A TokenFile is a TokenSource that reads a file for each call, without the spaces and line ends around the token. So another program
// can replace the token at any time, as Kubernetes does with projected service account tokens.
type TokenFile string

// maxTokenFile is the maximum size of a TokenFile. Servers accept smaller tokens only.
const maxTokenFile = 16 << 10

// Token returns the content of the file.
func (f TokenFile) Token(context.Context) (string, error) {
	file, err := os.Open(string(f))
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	defer file.Close()
	text, err := io.ReadAll(io.LimitReader(file, maxTokenFile+1))
	if err != nil {
		return "", fmt.Errorf("token file: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" || len(text) > maxTokenFile || strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return "", fmt.Errorf("token file %s does not contain one token of printable characters", string(f))
	}
	return token, nil
}

// bearer implements credentials.PerRPCCredentials.
type bearer struct {
	source    *hiddenSource
	plaintext bool // the connection may be without TLS
}

var _ credentials.PerRPCCredentials = bearer{}

// GetRequestMetadata returns the token. gRPC calls it for each call.
func (b bearer) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	token, err := b.source.get().Token(ctx)
	if err != nil {
		return nil, err
	}
	return map[string]string{"authorization": "Bearer " + token}, nil
}

// RequireTransportSecurity makes gRPC refuse to send the token in plaintext, unless plaintext was chosen or the server is on this
// machine.
func (b bearer) RequireTransportSecurity() bool { return !b.plaintext }
