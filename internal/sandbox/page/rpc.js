// @ts-check
// Connect's protocol with JSON, without a library.

/** An error of a call. */
export class CallError extends Error {
  /** @param {{code?: string, message?: string, details?: {type: string, value: string}[]}} body */
  constructor(body) {
    super(body.message || body.code || "the call failed");
    this.code = body.code ?? "unknown";
    const info = (body.details ?? []).find((d) => d.type === "google.rpc.ErrorInfo");
    /** The ErrorReason, or the code. @type {string} */
    this.reason = (info && firstField(info.value)) || this.code;
    /** Whether the call may be repeated: the contract's rule. */
    this.retry = (body.details ?? []).some((d) => d.type === "google.rpc.RetryInfo");
  }
}

/** Returns field 1 of a message, which is a short ASCII text: the reason of an ErrorInfo. @param {string} base64 */
function firstField(base64) {
  const bytes = atob(base64);
  return bytes.charCodeAt(0) === 10 ? bytes.slice(2, 2 + bytes.charCodeAt(1)) : "";
}

/** @param {string} method SERVICE/METHOD */
const url = (method) => "/lpfileshare.v1." + method;

/**
 * Makes a unary call.
 * @param {string} method SERVICE/METHOD
 * @param {object} request
 * @param {Record<string, string>} [metadata]
 * @returns {Promise<any>}
 */
export async function unary(method, request, metadata = {}) {
  const response = await fetch(url(method), {
    method: "POST",
    headers: { "content-type": "application/json", "connect-protocol-version": "1", ...metadata },
    body: JSON.stringify(request),
  }).catch(() => { throw new CallError({ code: "unavailable", message: "the server cannot be reached" }); });
  const body = await response.json().catch(() => ({ code: "unavailable", message: "HTTP " + response.status }));
  if (!response.ok) throw new CallError(body);
  return body;
}

/**
 * Makes a call whose responses are a stream.
 * @param {string} method SERVICE/METHOD
 * @param {object} request
 * @param {Record<string, string>} metadata
 */
export async function* stream(method, request, metadata) {
  const text = new TextEncoder().encode(JSON.stringify(request));
  const envelope = new Uint8Array(5 + text.length);
  new DataView(envelope.buffer).setUint32(1, text.length);
  envelope.set(text, 5);
  const response = await fetch(url(method), {
    method: "POST",
    headers: { "content-type": "application/connect+json", "connect-protocol-version": "1", ...metadata },
    body: envelope,
  });
  if (!response.ok || !response.body) throw new CallError({ code: "unavailable", message: "HTTP " + response.status });
  const reader = response.body.getReader();
  let rest = new Uint8Array(0);
  for (;;) {
    const { done, value } = await reader.read();
    if (done) throw new CallError({ code: "unavailable", message: "the stream ended early" });
    const all = new Uint8Array(rest.length + value.length);
    all.set(rest);
    all.set(value, rest.length);
    rest = all;
    while (rest.length >= 5) {
      const size = new DataView(rest.buffer, rest.byteOffset).getUint32(1);
      if (rest.length < 5 + size) break;
      const message = JSON.parse(new TextDecoder().decode(rest.subarray(5, 5 + size)));
      const last = (rest[0] ?? 0) & 2;
      rest = rest.slice(5 + size);
      if (last) {
        if (message.error) throw new CallError(message.error);
        return;
      }
      yield message;
    }
  }
}
