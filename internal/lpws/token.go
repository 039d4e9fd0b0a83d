package lpws

import "github.com/lpfileshare/lpfileshare/internal/share"

// checkToken rejects strings that cannot be a token. It prevents injection into headers and paths.
func checkToken(secret string) error {
	if !share.ValidToken(secret) {
		return share.Errorf(share.TokenInvalid, "the token is empty, too long or contains invalid characters", nil)
	}
	return nil
}

// errOtherAccount returns the error for a credential of another account than the requested one.
func errOtherAccount() error {
	return share.Errorf(share.NotAllowed, "the identity belongs to another account than the requested resource", nil)
}

// errExpired returns the error for an expired credential.
func errExpired() error {
	return share.Errorf(share.TokenInvalid, "the token has expired; renew it or sign in again", nil)
}
