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

// maxSecret bounds a secret: a key of 16,384 bits in PEM has some 13 KB.
const maxSecret = 64 << 10

// minKeyBits is the shortest RSA key that signs for a brand.
const minKeyBits = 2048

// A secretSource says where a secret is. What stands there is never shown, since people write the secret itself there.
type secretSource struct{ fileNode, envNode ast.Node }

func (s *secretSource) file(n ast.Node) { s.fileNode = n }
func (s *secretSource) env(n ast.Node)  { s.envNode = n }

// at is the node that names the secret, or else the one that should.
func (s *secretSource) at(otherwise ast.Node) ast.Node {
	if s.fileNode != nil {
		return s.fileNode
	}
	if s.envNode != nil {
		return s.envNode
	}
	return otherwise
}

var envName = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)

// secret reads one from its file or the environment. stem is "key" or "secret".
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
		data, err := readSecret(r.inFolder(path))
		if err != nil {
			r.bad(from.fileNode, "%s.%s_file cannot be used: %v", where, stem, err)
			return nil, false
		}
		return data, true
	case from.envNode != nil:
		name, ok := scalar(from.envNode)
		if !ok || !envName.MatchString(name) {
			r.bad(from.envNode, "%s.%s_env must be the name of an environment variable, not what is in it", where, stem)
			return nil, false
		}
		value, ok := r.rules.LookupEnv(name)
		if !ok || value == "" {
			r.bad(from.envNode, "%s.%s_env: the server's environment has no such variable, or it is empty; set it and start the server again", where, stem)
			return nil, false
		}
		return []byte(value), true
	}
	r.bad(n, "%s needs %s_file or %s_env: where its secret is", where, stem, stem)
	return nil, false
}

// readSecret reads a file that nobody but its owner and group may use.
func readSecret(path string) ([]byte, error) {
	info, err := os.Stat(path) // before it is opened, which would wait at a pipe
	if err != nil {
		return nil, withoutPath(err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o007 != 0 { // there the bits say nothing
		return nil, fmt.Errorf("everybody on this machine may use it (mode %04o); take that away: chmod o-rwx, in Kubernetes defaultMode: 0440", info.Mode().Perm())
	}
	data, err := readBounded(path, maxSecret)
	if err == nil && len(data) == 0 {
		err = errors.New("it is empty")
	}
	return data, err
}

// readBounded reads a regular file of at most so many bytes. Its errors do not show the path.
func readBounded(path string, most int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, withoutPath(err)
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("it is no regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, withoutPath(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, withoutPath(err)
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("it has more than %d bytes", most)
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
	const howTo = "; make one with `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048`"
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("the key is not PEM" + howTo)
	}
	var key any
	var err error
	switch block.Type {
	case "RSA PRIVATE KEY":
		if block.Headers["DEK-Info"] != "" {
			return nil, errors.New("the key is encrypted; give it without a passphrase")
		}
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "ENCRYPTED PRIVATE KEY":
		return nil, errors.New("the key is encrypted; give it without a passphrase")
	case "EC PRIVATE KEY":
		return nil, errors.New("the key must be RSA, for RS256" + howTo)
	default:
		return nil, errors.New("the PEM holds no private key" + howTo)
	}
	if err != nil {
		return nil, errors.New("the private key cannot be read; it may be damaged" + howTo)
	}
	signer, ok := key.(*rsa.PrivateKey)
	if !ok {
		return nil, errors.New("the key must be RSA, for RS256" + howTo)
	}
	if signer.N.BitLen() < minKeyBits {
		return nil, fmt.Errorf("the key has %d bits, and needs %d"+howTo, signer.N.BitLen(), minKeyBits)
	}
	return signer, nil
}
