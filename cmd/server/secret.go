package main

import (
	"bytes"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"os"

	"github.com/lpfileshare/lpfileshare/internal/accounts"
)

// readSecret reads the file that a flag names, by the same rule as the secrets of accounts: other users must not be able to read it.
func readSecret(flag, path string) ([]byte, error) {
	text, err := accounts.ReadSecret(path)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", flag, path, err)
	}
	return text, nil
}

// readHexKey reads the file of a key that a flag names: 64 hex digits.
func readHexKey(flag, path string) (key [32]byte, err error) {
	text, err := readSecret(flag, path)
	if err != nil {
		return key, err
	}
	text = bytes.TrimSpace(text)
	if len(text) == hex.EncodedLen(len(key)) {
		_, err = hex.Decode(key[:], text)
	}
	if err != nil || len(text) != hex.EncodedLen(len(key)) {
		return key, fmt.Errorf("%s: %s does not contain 64 hex digits; write it with `umask 077; openssl rand -hex 32`", flag, path)
	}
	return key, nil
}

// readKeyPair reads a certificate and its private key, which is a secret.
func readKeyPair(certFlag, certPath, keyFlag, keyPath string) (tls.Certificate, error) {
	cert, err := os.ReadFile(certPath)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s %s: %w", certFlag, certPath, err)
	}
	key, err := readSecret(keyFlag, keyPath)
	if err != nil {
		return tls.Certificate{}, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("%s %s and %s %s: %w", certFlag, certPath, keyFlag, keyPath, err)
	}
	return pair, nil
}
