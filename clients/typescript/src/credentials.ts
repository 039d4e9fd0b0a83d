import { type ChannelCredentials, credentials } from "@grpc/grpc-js";

import type { LpFileShareOptions } from "./client.js";
import { isLoopback } from "./targets.js";

/** Returns how to connect. Throws a TypeError if the options are not valid. */
export function channelCredentials({ target, tls }: LpFileShareOptions): ChannelCredentials {
  if (tls === false || (tls === undefined && isLoopback(target))) {
    return credentials.createInsecure();
  }
  const { ca, cert, key } = tls ?? {};
  if ((cert === undefined) !== (key === undefined)) {
    throw new TypeError("client certificate and key must be set together");
  }
  const bytes = (pem: string | Buffer | undefined) => (pem === undefined ? null : Buffer.from(pem as string));
  return closingSockets(credentials.createSsl(bytes(ca), bytes(key), bytes(cert)));
}

/**
 * grpc-js 1.14 forgets to close the socket of a connection that fails between the TLS and the HTTP/2 handshake, as when a server rejects
 * that there is no client certificate: each attempt would leave one open.
 */
function closingSockets(secure: ChannelCredentials): ChannelCredentials {
  const create = secure._createSecureConnector.bind(secure);
  secure._createSecureConnector = (...args) => {
    const connector = create(...args);
    const connect = connector.connect.bind(connector);
    connector.connect = async (tcp) => {
      const connected = await connect(tcp);
      connected.socket.once("error", () => {
        connected.socket.destroy();
        tcp.destroy();
      });
      return connected;
    };
    return connector;
  };
  return secure;
}
