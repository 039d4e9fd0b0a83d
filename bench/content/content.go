// Package content has the files that are sent: the generator, the store and the checks derive the same bytes from a size.
package content

import (
	"crypto/md5"
	"encoding/hex"
	"hash/crc32"
	"math/rand/v2"
	"sync"
)

// A File is what every file of one size contains. Its fields must not be changed.
type File struct {
	Data   []byte // begins as a PDF, and is noise
	MD5    string // in hex, as a store's ETag
	CRC32C uint32
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	mu    sync.Mutex
	files = map[int]*File{}
)

// Of returns the file of size bytes.
func Of(size int) *File {
	mu.Lock()
	defer mu.Unlock()
	if f := files[size]; f != nil {
		return f
	}
	data := make([]byte, size)
	seed := [32]byte{byte(size), byte(size >> 8), byte(size >> 16), byte(size >> 24)}
	_, _ = rand.NewChaCha8(seed).Read(data)
	copy(data, "%PDF-1.7\n")
	sum := md5.Sum(data)
	f := &File{Data: data, MD5: hex.EncodeToString(sum[:]), CRC32C: crc32.Checksum(data, castagnoli)}
	files[size] = f
	return f
}

// Sum returns the CRC-32C of data.
func Sum(data []byte) uint32 { return crc32.Checksum(data, castagnoli) }
