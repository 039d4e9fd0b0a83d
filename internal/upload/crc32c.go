package upload

import (
	"github.com/lpfileshare/lpfileshare/internal/crc32c"
)

// addCRC32C returns the CRC-32C of bytes with a CRC-32C and those of a chunk. It does not read the chunk if its source has read it.
func addCRC32C(crc uint32, c Chunk) uint32 {
	if c.CRC32C != nil {
		return crc32c.Combine(crc, *c.CRC32C, c.size())
	}
	for _, b := range c.Data {
		crc = crc32c.Update(crc, b.ReadOnlyData())
	}
	return crc
}
