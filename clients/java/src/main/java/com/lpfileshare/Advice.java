package com.lpfileshare;

import io.grpc.Status;
import java.util.Map;

/**
 * What people can do about an error. The comments on ErrorReason in the contract are for
 * programmers.
 */
final class Advice {
  private static final Map<String, String> BY_REASON =
      Map.ofEntries(
          Map.entry("STREAM_PROTOCOL_VIOLATION", "This is a bug of the client; report it."),
          Map.entry("INVALID_FIELD", "Correct the named fields and retry."),
          Map.entry(
              "UNSUPPORTED_FILE_TYPE",
              "Send a type that the account allows; the capabilities list them."),
          Map.entry(
              "FILE_TYPE_MISMATCH",
              "The first bytes do not match the file type. Check the file, or specify its real type."),
          Map.entry(
              "FILE_TOO_LARGE",
              "Send a smaller file, or set the option that makes images fit. The capabilities list the limits."),
          Map.entry("PREVIEW_TOO_LARGE", "Use a smaller preview, or let the server generate one."),
          Map.entry("FILE_EMPTY", "Send a file that is not empty."),
          Map.entry(
              "UPLOAD_INCOMPLETE",
              "The source was shorter than its declared size. Check the source."),
          Map.entry("OFFSET_MISMATCH", "This is a bug of the client; report it."),
          Map.entry(
              "SIZE_EXCEEDED",
              "The source was longer than its declared size. Check the source, and send the file when it no longer changes."),
          Map.entry(
              "CHUNK_CHECKSUM_MISMATCH",
              "Bytes were damaged in transit. Repeat the upload under the same request id."),
          Map.entry(
              "FILE_CHECKSUM_MISMATCH",
              "The file changed during the upload. Send it when it no longer changes."),
          Map.entry("MESSAGE_TOO_LARGE", "Send smaller chunks."),
          Map.entry(
              "UPLOAD_NOT_FOUND",
              "Check the request id. The server keeps it for a limited time, and only for the caller that used it."),
          Map.entry("UPLOAD_TAKEN_OVER", "Wait for the newer attempt under the same request id."),
          Map.entry("UPLOAD_IDLE", "The upload was too slow. Repeat it under the same request id."),
          Map.entry(
              "REQUEST_ID_CONFLICT",
              "The request id belongs to another file, or to the same one with other settings. Use a new one."),
          Map.entry(
              "TOO_MANY_UPLOADS",
              "The server has too many uploads. Retry later, with fewer uploads at the same time."),
          Map.entry("SERVER_DRAINING", "The server is shutting down. Retry later."),
          Map.entry("TOKEN_INVALID", "Sign in again."),
          Map.entry(
              "NOT_ALLOWED",
              "Sign in with an identity that may do this, in the account that it belongs to."),
          Map.entry("LP_UNAVAILABLE", "LivePerson is not available. Retry later."),
          Map.entry("LP_IDENTITY_EXPIRED", "Sign in again."),
          Map.entry(
              "LP_CREDENTIALS_REJECTED",
              "Check the user name, password or keys. If they are configured on the server, ask its operator."),
          Map.entry(
              "FILE_SHARING_DISABLED",
              "Ask an administrator of the account to enable file sharing."),
          Map.entry(
              "LP_FORBIDDEN",
              "LivePerson does not allow this to the identity. Ask an administrator of the account."),
          Map.entry(
              "CONVERSATION_NOT_FOUND",
              "Check the name of the conversation, and that the caller takes part in it."),
          Map.entry(
              "CONVERSATION_TOO_LARGE",
              "Its messages need more memory than the server's operator allows (--list-memory). Other conversations are not affected."),
          Map.entry("CONVERSATION_CLOSED", "Create another conversation."),
          Map.entry("LP_REJECTED_FILE", "LivePerson rejects this file. Send another one."),
          Map.entry("LP_RATE_LIMITED", "LivePerson asks for fewer requests. Retry later."),
          Map.entry(
              "LP_TIMEOUT",
              "LivePerson did not respond in time. Retry later, an upload under the same request id."),
          Map.entry(
              "LP_PUBLISH_UNCONFIRMED",
              "Repeat the upload under the same request id. It is never published twice."),
          Map.entry(
              "LP_PROTOCOL_ERROR", "Report this to the server's operator, with the request id."),
          Map.entry(
              "STORAGE_PROTOCOL_ERROR",
              "Report this to the server's operator, with the request id."),
          Map.entry(
              "STORAGE_URL_REJECTED",
              "Retry later. If it persists, the operator should check the server's clock."),
          Map.entry("STORAGE_DENIED", "The server's operator must act: the store denies access."),
          Map.entry(
              "FILE_NOT_FOUND",
              "Check the name of the file, and that the caller takes part in its conversation."),
          Map.entry("STORAGE_UNAVAILABLE", "The store is not available. Retry later."),
          Map.entry("STORAGE_RATE_LIMITED", "The store asks for fewer requests. Retry later."),
          Map.entry("RANGE_NOT_SATISFIABLE", "Use an offset inside the file."),
          Map.entry("STORAGE_FULL", "The server's operator must act: the store is full."),
          Map.entry(
              "STORAGE_CORRUPTED", "Report this to the server's operator, with the request id."),
          Map.entry(
              "FILE_CHANGED",
              "The file was replaced during the download. Download it from the beginning."),
          Map.entry(
              "STORAGE_TRUNCATED",
              "The store ended the transfer early several times. Retry later."),
          Map.entry(
              "STORAGE_PATH_INVALID",
              "Use the name of the file, or its whole storage path, as the server returned it."),
          Map.entry(
              "IMAGE_INVALID",
              "The image is damaged. Open it in an image program, save it again, and send that."),
          Map.entry("IMAGE_TOO_MANY_PIXELS", "Scale the image down and send that."),
          Map.entry(
              "IMAGE_CANNOT_FIT", "Make the image smaller in an image program and send that."),
          Map.entry("PAGE_TOKEN_INVALID", "Start the listing or watch again without a token."),
          Map.entry("LEDGER_UNAVAILABLE", "The server cannot reach its ledger. Retry later."),
          Map.entry("WATCH_TOO_SLOW", "Read faster, and continue from the last token."),
          Map.entry("SESSION_LIMIT", "The server has reached its limit of sessions. Retry later."),
          Map.entry(
              "TOO_MANY_STREAMS",
              "Too many downloads and watches are open. End some, or retry later."),
          Map.entry(
              "LEDGER_SHARE",
              "This caller has begun too many uploads or conversations. Retry when some request ids have expired."),
          Map.entry(
              "METHOD_NOT_IMPLEMENTED",
              "This server does not implement the method. Use a newer server."),
          Map.entry(
              "IDENTITY_NOT_CONFIGURED",
              "Call with a consumer token, or ask the server's operator to configure an identity for the account."),
          Map.entry(
              "CALLER_NOT_PERMITTED",
              "Ask the server's operator for a rule that permits the client certificate to call for this account and identity."),
          Map.entry(
              "CALLER_NOT_AUTHENTICATED",
              "Connect over TLS with a client certificate that the server trusts, or call with a consumer token."),
          Map.entry(
              "WEBHOOK_NOT_CONFIGURED",
              "The operator must register webhooks for the account. Until then, list the files."),
          Map.entry("INTERNAL", "Report this to the server's operator, with the request id."),
          Map.entry(
              "WATCH_RESET", "List the files again, and watch from the token of the listing."),
          Map.entry("UPLOAD_NOT_STORED", "Repeat the upload under the same request id."),
          Map.entry(
              "FILE_REJECTED_BY_SCANNER",
              "Do not send this file again: the server's malware scanner rejects it."),
          Map.entry(
              "SCANNER_UNAVAILABLE",
              "The server's malware scanner gave no verdict. Repeat the upload later under the same"
                  + " request id."),
          Map.entry(
              "CALLER_KEYS_UNAVAILABLE",
              "The server cannot verify bearer tokens now. Repeat the call later."));

  private Advice() {}

  /** Returns the advice. Empty: there is none. */
  static String of(Status.Code code, String reason) {
    if (!reason.isEmpty()) {
      return BY_REASON.getOrDefault(reason, "");
    }
    return switch (code) {
      case UNAVAILABLE ->
          "Check the address, that the server is running, and whether it requires TLS.";
      case DEADLINE_EXCEEDED ->
          "Allow more time. If that does not help, check that the server can be reached.";
      case UNIMPLEMENTED -> "The address is not an lpfileshare server, or an older one.";
      case UNAUTHENTICATED -> "Sign in.";
      case INTERNAL ->
          "A proxy between client and server may have rejected the request. Check its limits, for example on body size"
              + " (nginx: client_max_body_size 0).";
      case RESOURCE_EXHAUSTED ->
          "gRPC or a proxy rejected the size of a message. Send smaller messages.";
      default -> "";
    };
  }
}
