package service

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"

	"github.com/lpfileshare/lpfileshare/internal/share"
)

// An agentSeal creates agent tokens: the grant of a login, encrypted and authenticated with this service's own key. LivePerson
// checks the bearer in a grant when it opens the socket, but nothing checks the agent's id next to it. Without the seal, a caller
// with any valid bearer could write another agent's id into a token and act as that agent.
type agentSeal struct{ aead cipher.AEAD }

// newAgentSeal returns a seal with a key. Servers that share a ledger must have the same key.
func newAgentSeal(key [32]byte) agentSeal {
	block, err := aes.NewCipher(key[:])
	if err != nil { // only a key of another length causes it
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

// open returns the grant of a token; TokenInvalid if this service did not create it.
func (s agentSeal) open(token string) (string, error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err == nil {
		b, err = s.aead.Open(nil, nil, b, nil)
	}
	if err != nil {
		return "", share.Reject(share.TokenInvalid, "lp-agent-token was not issued by this service; sign in again")
	}
	return string(b), nil
}

// NewAgentTokenKey returns a random key.
func NewAgentTokenKey() (key [32]byte) {
	_, _ = rand.Read(key[:]) // never fails
	return key
}
