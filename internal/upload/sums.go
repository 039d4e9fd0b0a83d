package upload

import (
	"crypto/md5"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"hash"
	"io"

	"github.com/lpfileshare/lpfileshare/internal/crc32c"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

// SumKinds are the checksums to compute in addition to CRC-32C.
type SumKinds struct{ MD5, SHA256 bool }

// Sums are the checksums of bytes that pass.
type Sums struct {
	crc32c uint32
	sha256 hash.Hash // nil: not wanted
	md5    hash.Hash // nil: not wanted
}

// NewSums returns the Sums of no bytes.
func NewSums(kinds SumKinds) *Sums {
	s := &Sums{}
	if kinds.MD5 {
		s.md5 = md5.New()
	}
	if kinds.SHA256 {
		s.sha256 = sha256.New()
	}
	return s
}

// Write adds the next bytes. It never fails.
func (s *Sums) Write(p []byte) (int, error) {
	s.crc32c = crc32c.Update(s.crc32c, p)
	s.hash(p)
	return len(p), nil
}

// hashes reports whether other checksums than CRC-32C are wanted.
func (s *Sums) hashes() bool { return s.sha256 != nil || s.md5 != nil }

// hash adds the next bytes to the checksums other than CRC-32C.
func (s *Sums) hash(p []byte) {
	if s.sha256 != nil {
		s.sha256.Write(p)
	}
	if s.md5 != nil {
		s.md5.Write(p)
	}
}

// addSHA256 computes SHA-256 after all, of the whole file.
func (s *Sums) addSHA256(whole io.Reader) error {
	if s.sha256 != nil {
		return nil
	}
	s.sha256 = sha256.New()
	_, err := io.Copy(s.sha256, whole)
	return err
}

// CRC32C returns the CRC-32C of the bytes so far.
func (s *Sums) CRC32C() uint32 { return s.crc32c }

// Checksums returns CRC-32C, and SHA-256 if it was wanted.
func (s *Sums) Checksums() share.Checksums {
	crc := s.crc32c
	sums := share.Checksums{CRC32C: &crc}
	if s.sha256 != nil {
		sums.SHA256 = s.sha256.Sum(nil)
	}
	return sums
}

// MD5 returns the MD5 in hexadecimal, which is the ETag of a plain object; empty if it was not wanted.
func (s *Sums) MD5() string {
	if s.md5 == nil {
		return ""
	}
	return hex.EncodeToString(s.md5.Sum(nil))
}

// Differ names the first checksum that both have and that differs; empty if there is none.
func Differ(a, b share.Checksums) string {
	if a.CRC32C != nil && b.CRC32C != nil && *a.CRC32C != *b.CRC32C {
		return "crc32c"
	}
	if len(a.SHA256) > 0 && len(b.SHA256) > 0 && subtle.ConstantTimeCompare(a.SHA256, b.SHA256) == 0 {
		return "sha256"
	}
	return ""
}
