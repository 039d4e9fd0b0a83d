package service

import (
	"crypto/md5"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"hash"
	"hash/crc32"

	lpfilesharev1 "github.com/lpfileshare/lpfileshare/gen/go/lpfileshare/v1"
	"github.com/lpfileshare/lpfileshare/internal/share"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// sums are the checksums of bytes that pass.
type sums struct {
	crc32c uint32
	sha256 hash.Hash // nil: not wanted
	md5    hash.Hash // nil: not wanted
}

// sumKinds are the checksums to compute in addition to CRC-32C.
type sumKinds struct{ md5, sha256 bool }

func newSums(kinds sumKinds) *sums {
	s := &sums{}
	if kinds.md5 {
		s.md5 = md5.New()
	}
	if kinds.sha256 {
		s.sha256 = sha256.New()
	}
	return s
}

// Write takes in the next bytes. It never fails.
func (s *sums) Write(p []byte) (int, error) {
	s.crc32c = crc32.Update(s.crc32c, castagnoli, p)
	if s.sha256 != nil {
		s.sha256.Write(p)
	}
	if s.md5 != nil {
		s.md5.Write(p)
	}
	return len(p), nil
}

func (s *sums) checksums() share.Checksums {
	crc := s.crc32c
	sums := share.Checksums{CRC32C: &crc}
	if s.sha256 != nil {
		sums.SHA256 = s.sha256.Sum(nil)
	}
	return sums
}

// etag is what the store must answer; empty where MD5 was not wanted.
func (s *sums) etag() string {
	if s.md5 == nil {
		return ""
	}
	return hex.EncodeToString(s.md5.Sum(nil))
}

// disagree names the checksum in which two differ, of those that both have; empty where they agree.
func disagree(a, b share.Checksums) string {
	if a.CRC32C != nil && b.CRC32C != nil && *a.CRC32C != *b.CRC32C {
		return "crc32c"
	}
	if len(a.SHA256) > 0 && len(b.SHA256) > 0 && subtle.ConstantTimeCompare(a.SHA256, b.SHA256) == 0 {
		return "sha256"
	}
	return ""
}

func checksumsFromProto(c *lpfilesharev1.Checksums) share.Checksums {
	if c == nil {
		return share.Checksums{}
	}
	return share.Checksums{CRC32C: c.Crc32C, SHA256: c.GetSha256()}
}

func checksumsToProto(c share.Checksums) *lpfilesharev1.Checksums {
	if c.CRC32C == nil && len(c.SHA256) == 0 {
		return nil
	}
	return &lpfilesharev1.Checksums{Crc32C: c.CRC32C, Sha256: c.SHA256}
}
