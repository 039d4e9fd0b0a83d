package accounts

import (
	"crypto"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"regexp"
	"runtime"

	"github.com/goccy/go-yaml/ast"
)

// maxSecret is the maximum size of a secret, in bytes: a key of 16,384 bits in PEM has about 13 KB.
const maxSecret = 64 << 10

// minKeyBits is the length of the shortest RSA key that is accepted.
const minKeyBits = 2048

// A secretSource names the place of a secret. The name is never shown, since people write the secret itself in its place.
type secretSource struct{ fileNode, envNode ast.Node }

func (s *secretSource) file(n ast.Node) { s.fileNode = n }
func (s *secretSource) env(n ast.Node)  { s.envNode = n }

// at returns the node that names the secret, or fallback if there is none.
func (s *secretSource) at(fallback ast.Node) ast.Node {
	if s.fileNode != nil {
		return s.fileNode
	}
	if s.envNode != nil {
		return s.envNode
	}
	return fallback
}

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// secret reads a secret from its file or the environment. stem is "key" or "secret".
func (r *reader) secret(n ast.Node, where, stem string, from secretSource) ([]byte, bool) {
	switch {
	case from.fileNode != nil && from.envNode != nil:
		r.bad(from.envNode, "%s has both %s_file and %s_env; keep one", where, stem, stem)
		return nil, false
	case from.fileNode != nil:
		path, ok := scalar(from.fileNode)
		if !ok || path == "" {
			r.bad(from.fileNode, "%s.%s_file must be the path of a file", where, stem)
			return nil, false
		}
		if r.rules.NoSecrets {
			return nil, false
		}
		file := r.inFolder(path)
		r.rules.Reads(file)
		data, err := ReadSecret(file)
		if err != nil {
			r.bad(from.fileNode, "%s.%s_file cannot be used: %v", where, stem, err)
			return nil, false
		}
		return data, true
	case from.envNode != nil:
		name, ok := scalar(from.envNode)
		if !ok || !envName.MatchString(name) {
			r.bad(from.envNode, "%s.%s_env must be the name of an environment variable, not its value", where, stem)
			return nil, false
		}
		if r.rules.NoSecrets {
			return nil, false
		}
		value, ok := r.rules.LookupEnv(name)
		if !ok || value == "" {
			r.bad(from.envNode, "%s.%s_env: the server's environment has no such variable, or it is empty; set it and restart the server", where, stem)
			return nil, false
		}
		return []byte(value), true
	}
	r.bad(n, "%s needs %s_file or %s_env, the place of its secret", where, stem, stem)
	return nil, false
}

// ReadSecret reads a file with a secret, of at most 64 KiB, which only its owner and group may access. Its errors do not show the path.
func ReadSecret(path string) ([]byte, error) {
	info, err := os.Stat(path) // before opening it, which would block for a named pipe
	if err != nil {
		return nil, withoutPath(err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o007 != 0 { // Windows does not have these permissions
		return nil, fmt.Errorf("every user of this machine can access it (mode %04o); restrict it with chmod o-rwx, in Kubernetes with defaultMode: 0440", info.Mode().Perm())
	}
	data, err := readBounded(path, maxSecret)
	if err == nil && len(data) == 0 {
		err = errors.New("it is empty")
	}
	return data, err
}

// readBounded reads a regular file of at most limit bytes. Its errors do not show the path.
func readBounded(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, withoutPath(err)
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, withoutPath(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, withoutPath(err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("it has more than %d bytes", limit)
	}
	return data, nil
}

func withoutPath(err error) error {
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return p.Err
	}
	return err
}

// parseKey reads an RSA private key in PEM, PKCS #1 or PKCS #8.
func parseKey(text []byte) (crypto.Signer, error) {
	const howTo = "; create one with `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048`"
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("the key is not PEM" + howTo)
	}
	var key any
	var err error
	switch block.Type {
	case "RSA PRIVATE KEY":
		if block.Headers["DEK-Info"] != "" {
			return nil, errors.New("the key is encrypted; store it without a passphrase")
		}
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "ENCRYPTED PRIVATE KEY":
		return nil, errors.New("the key is encrypted; store it without a passphrase")
	case "EC PRIVATE KEY":
		return nil, errors.New("the key must be RSA, for RS256" + howTo)
	default:
		return nil, errors.New("the PEM has no private key" + howTo)
	}
	if err != nil {
		return nil, errors.New("the private key cannot be read; it may be damaged" + howTo)
	}
	signer, ok := key.(*rsa.PrivateKey)
	if !ok {
		return nil, errors.New("the key must be RSA, for RS256" + howTo)
	}
	if signer.N.BitLen() < minKeyBits {
		return nil, fmt.Errorf("the key has %d bits, the minimum is %d"+howTo, signer.N.BitLen(), minKeyBits)
	}
	return signer, nil
}
