package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"github.com/lpfileshare/lpfileshare/test/process"
)

// A rig has the stand-ins that all peers share, and the files that they need.
type rig struct {
	dir        string // removed at the end
	self       string // this program
	server     string // the program that is measured
	sink       *standIn
	liveperson *standIn
	more       []*standIn // others to be killed at the end
	cert, key  string     // PEM files for TLS, valid for localhost
}

// A standIn is a role in a process of its own.
type standIn struct {
	*process.Process
	addr, debug string
}

var readyLine = regexp.MustCompile(`^ready addr=(\S+)(?: debug=(\S+))?`)

// newRig starts the stand-ins. delay is the delay of LivePerson's answers and of the store's. An empty server is built.
func newRig(server string, liveperson, store time.Duration) (r *rig, err error) {
	r = &rig{server: server}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if r.self, err = os.Executable(); err != nil {
		return nil, err
	}
	if r.dir, err = os.MkdirTemp("", "rig"); err != nil {
		return nil, err
	}
	if err := r.newCertificate(); err != nil {
		return nil, err
	}
	if r.server == "" {
		r.server = filepath.Join(r.dir, "lpfileshare-server")
		if err := process.Build(r.server, "github.com/lpfileshare/lpfileshare/cmd/server"); err != nil {
			return nil, err
		}
	}
	if r.sink, err = r.start("sink", "-delay", store.String()); err != nil {
		return nil, err
	}
	r.liveperson, err = r.start("liveperson", "-store", "http://"+r.sink.addr, "-delay", liveperson.String())
	return r, err
}

// start starts a role.
func (r *rig) start(role string, args ...string) (*standIn, error) {
	p, found, err := process.Start(readyLine, r.self, append([]string{role}, args...)...)
	if err != nil {
		return nil, err
	}
	return &standIn{p, found[1], found[2]}, nil
}

func (r *rig) close() {
	for _, s := range append(r.more, r.sink, r.liveperson) {
		if s != nil {
			s.Kill()
		}
	}
	_ = os.RemoveAll(r.dir)
}

// newCertificate writes a certificate that signs itself.
func (r *rig) newCertificate() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(48 * time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	r.cert, r.key = filepath.Join(r.dir, "cert.pem"), filepath.Join(r.dir, "key.pem")
	return errors.Join(writePEM(r.cert, "CERTIFICATE", cert), writePEM(r.key, "PRIVATE KEY", private))
}

func writePEM(file, kind string, data []byte) error {
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: data}), 0o600); err != nil {
		return fmt.Errorf("the certificate: %w", err)
	}
	return nil
}
