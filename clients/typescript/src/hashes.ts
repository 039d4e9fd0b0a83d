/** A hash of bytes that come in pieces. */
export interface Hash {
  update(data: Uint8Array): unknown;
  digest(): Uint8Array;
}

/** The hashes of a platform. Browsers have none that take pieces. A function returns undefined if there is no such hash. */
export interface Hashes {
  sha256(): Hash | undefined;
  md5(): Hash | undefined;
}

/** Reports whether two digests are equal. */
export function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}
