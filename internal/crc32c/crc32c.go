// Package crc32c computes CRC-32C, and that of joined parts from those of the parts, so that no byte is summed twice.
package crc32c

import (
	"hash/crc32"
	"math/bits"
)

var table = crc32.MakeTable(crc32.Castagnoli)

// Update returns the CRC-32C of bytes whose sum is sum, followed by p. The sum of nothing is 0.
func Update(sum uint32, p []byte) uint32 { return crc32.Update(sum, table, p) }

// Combine returns the CRC-32C of a part A and the n bytes of a part B that follow it, of which a and b are the sums. It takes about a
// microsecond.
//
// Given the sum of both parts as b, it returns that of B alone.
func Combine(a, b uint32, n int64) uint32 { return multiply(zeros(n), a) ^ b }

// A sum is a polynomial over GF(2) modulo that of CRC-32C. The most significant bit is the constant term. n bytes multiply
// the sum of what precedes them by x to the power of 8n.

// one is the polynomial 1.
const one = 1 << 31

// powers[i] is x to the power of 8 * 2^i.
var powers = func() (p [63]uint32) {
	p[0] = one >> 8
	for i := 1; i < len(p); i++ {
		p[i] = multiply(p[i-1], p[i-1])
	}
	return p
}()

// zeros returns x to the power of 8n.
func zeros(n int64) uint32 {
	p := uint32(one)
	for left := uint64(n); left != 0; left &= left - 1 {
		p = multiply(powers[bits.TrailingZeros64(left)], p)
	}
	return p
}

// multiply returns the product of two polynomials.
func multiply(a, b uint32) uint32 {
	var product uint32
	for ; a != 0; a <<= 1 {
		if a&one != 0 {
			product ^= b
		}
		carry := b & 1
		b = b>>1 ^ crc32.Castagnoli*carry
	}
	return product
}
