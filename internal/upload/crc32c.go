package upload

import (
	"hash/crc32"
	"math/bits"
)

// addCRC32C returns the CRC-32C of bytes with a CRC-32C and those of a chunk. It does not read the chunk if its source has read it.
func addCRC32C(crc uint32, c Chunk) uint32 {
	if c.CRC32C != nil {
		return combineCRC32C(crc, *c.CRC32C, c.size())
	}
	for _, b := range c.Data {
		crc = crc32.Update(crc, castagnoli, b.ReadOnlyData())
	}
	return crc
}

// combineCRC32C returns the CRC-32C of two runs of bytes by theirs. The second one has size bytes.
//
// A CRC is the remainder of a polynomial over GF(2). To append n bytes multiplies the first one by x^8n.
func combineCRC32C(first, second uint32, size int64) uint32 {
	power := one
	for n := uint64(size) * 8; n != 0; n &= n - 1 {
		power = multiply(powers[bits.TrailingZeros64(n)], power)
	}
	return multiply(power, first) ^ second
}

// one is the polynomial 1: the most significant bit is the coefficient of x^0.
const one = uint32(1) << 31

// powers has x^(2^i) modulo the polynomial of CRC-32C.
var powers = func() (p [64]uint32) {
	p[0] = one >> 1
	for i := range p[1:] {
		p[i+1] = multiply(p[i], p[i])
	}
	return p
}()

// multiply returns a times b modulo the polynomial of CRC-32C.
func multiply(a, b uint32) (product uint32) {
	for ; a != 0; a <<= 1 {
		if a&one != 0 {
			product ^= b
		}
		b = b>>1 ^ crc32.Castagnoli&-(b&1)
	}
	return product
}
