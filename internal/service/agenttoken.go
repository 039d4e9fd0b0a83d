package service

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// An agentSeal makes the agent tokens that callers hold: the grant of a login, encrypted and authenticated with this service's
// own key. LivePerson vouches for the bearer in it when it opens the socket, but for the agent's id beside it nobody would: without
// the seal, whoever has any valid bearer could write another agent's id into a token and be taken for that agent.
type agentSeal struct{ aead cipher.AEAD }

// newAgentSeal takes a key of 32 bytes. Servers that answer for each other must have the same.
func newAgentSeal(key [32]byte) agentSeal {
	block, err := aes.NewCipher(key[:])
	if err != nil { // only a key of another length could do that
		panic(err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		panic(err)
	}
	return agentSeal{aead}
}

func (s agentSeal) close(grant string) string {
	return base64.RawURLEncoding.EncodeToString(s.aead.Seal(nil, nil, []byte(grant), nil))
}

// open gives the grant of a token; TokenInvalid if this service did not make it.
func (s agentSeal) open(token string) (string, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err == nil {
		b, err = s.aead.Open(nil, nil, b, nil)
	}
	if err != nil {
		return "", share.Reject(share.TokenInvalid, "lp-agent-token is not one that this service gave out; sign in again")
	}
	return string(b), nil
}

// NewAgentTokenKey makes a random key.
func NewAgentTokenKey() (key [32]byte) {
	_, _ = rand.Read(key[:]) // never fails
	return key
}
