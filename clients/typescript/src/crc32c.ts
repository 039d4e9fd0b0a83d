// CRC-32C (Castagnoli), eight bytes at a time. Node's zlib.crc32 is another polynomial.

const polynomial = 0x82f63b78;

const tables = Array.from({ length: 8 }, () => new Uint32Array(256));
const [t0, t1, t2, t3, t4, t5, t6, t7] = tables as [
  Uint32Array, Uint32Array, Uint32Array, Uint32Array, Uint32Array, Uint32Array, Uint32Array, Uint32Array,
];

for (let n = 0; n < 256; n++) {
  let crc = n;
  for (let bit = 0; bit < 8; bit++) {
    crc = crc & 1 ? (crc >>> 1) ^ polynomial : crc >>> 1;
  }
  t0[n] = crc;
}
for (let k = 1; k < 8; k++) {
  const table = tables[k]!, previous = tables[k - 1]!;
  for (let n = 0; n < 256; n++) {
    table[n] = (previous[n]! >>> 8) ^ t0[previous[n]! & 0xff]!;
  }
}

/** Returns the CRC-32C of data, or of what crc is the checksum of, followed by data. */
export function crc32c(data: Uint8Array, crc = 0): number {
  crc = ~crc;
  let i = 0;
  for (const end = data.length - 7; i < end; i += 8) {
    crc ^= data[i]! | (data[i + 1]! << 8) | (data[i + 2]! << 16) | (data[i + 3]! << 24);
    crc =
      t7[crc & 0xff]! ^ t6[(crc >>> 8) & 0xff]! ^ t5[(crc >>> 16) & 0xff]! ^ t4[crc >>> 24]! ^
      t3[data[i + 4]!]! ^ t2[data[i + 5]!]! ^ t1[data[i + 6]!]! ^ t0[data[i + 7]!]!;
  }
  for (; i < data.length; i++) {
    crc = (crc >>> 8) ^ t0[(crc ^ data[i]!) & 0xff]!;
  }
  return ~crc >>> 0;
}

/** Multiplies polynomials over GF(2), modulo that of CRC-32C. The highest bit is the coefficient of x^0. */
function multiply(a: number, b: number): number {
  let product = 0;
  for (; a !== 0; a <<= 1) {
    if (a < 0) {
      product ^= b;
    }
    b = b & 1 ? (b >>> 1) ^ polynomial : b >>> 1;
  }
  return product;
}

// powers[k] is x^(8 * 2^k).
const powers = [1 << 23];
for (let k = 1; k < 31; k++) {
  powers.push(multiply(powers[k - 1]!, powers[k - 1]!));
}

/**
 * Returns the CRC-32C of what first is the checksum of, followed by length bytes that second is the checksum of. It reads no bytes, so
 * it takes microseconds. length is below 2^31.
 */
export function combine(first: number, second: number, length: number): number {
  for (let k = 0; length !== 0; k++, length >>>= 1) {
    if (length & 1) {
      first = multiply(powers[k]!, first);
    }
  }
  return (first ^ second) >>> 0;
}
