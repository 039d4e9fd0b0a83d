import { createHash } from "node:crypto";

import type { Hash, Hashes } from "./hashes.js";

/** The hashes of Node. */
export const nodeHashes: Hashes = {
  sha256: () => createHash("sha256"),
  md5,
};

/** Returns a new MD5, or undefined if OpenSSL has none, as in FIPS mode: then there is nothing to compare. */
function md5(): Hash | undefined {
  try {
    return createHash("md5");
  } catch {
    return undefined;
  }
}
