"""What people can do about an error, by its reason or gRPC code. The comments of ErrorReason are for programmers."""

from __future__ import annotations

import grpc

BY_REASON = {
    "STREAM_PROTOCOL_VIOLATION": "This is a bug of the client; report it.",
    "INVALID_FIELD": "Correct the named fields and retry.",
    "UNSUPPORTED_FILE_TYPE": "Send a type that the account allows; the capabilities list them.",
    "FILE_TYPE_MISMATCH": "The first bytes do not match the file type. Check the file, or specify its real type.",
    "FILE_TOO_LARGE": "Send a smaller file, or set the option that makes images fit. The capabilities list the limits.",
    "PREVIEW_TOO_LARGE": "Use a smaller preview, or let the server generate one.",
    "FILE_EMPTY": "Send a file that is not empty.",
    "UPLOAD_INCOMPLETE": "The source was shorter than its declared size. Check the source.",
    "OFFSET_MISMATCH": "This is a bug of the client; report it.",
    "SIZE_EXCEEDED": ("The source was longer than its declared size. Check the source, and send the file when it no longer changes."),
    "CHUNK_CHECKSUM_MISMATCH": "Bytes were damaged in transit. Repeat the upload under the same request id.",
    "FILE_CHECKSUM_MISMATCH": "The file changed during the upload. Send it when it no longer changes.",
    "MESSAGE_TOO_LARGE": "Send smaller chunks.",
    "UPLOAD_NOT_FOUND": "Check the request id. The server keeps it for a limited time, and only for the caller that used it.",
    "UPLOAD_TAKEN_OVER": "Wait for the newer attempt under the same request id.",
    "UPLOAD_IDLE": "The upload was too slow. Repeat it under the same request id.",
    "REQUEST_ID_CONFLICT": "The request id belongs to another file, or to the same one with other settings. Use a new one.",
    "TOO_MANY_UPLOADS": "The server has too many uploads. Retry later, with fewer uploads at the same time.",
    "SERVER_DRAINING": "The server is shutting down. Retry later.",
    "TOKEN_INVALID": "Sign in again.",
    "NOT_ALLOWED": "Sign in with an identity that may do this, in the account that it belongs to.",
    "LP_UNAVAILABLE": "LivePerson is not available. Retry later.",
    "LP_IDENTITY_EXPIRED": "Sign in again.",
    "LP_CREDENTIALS_REJECTED": "Check the user name, password or keys. If they are configured on the server, ask its operator.",
    "FILE_SHARING_DISABLED": "Ask an administrator of the account to enable file sharing.",
    "LP_FORBIDDEN": "LivePerson does not allow this to the identity. Ask an administrator of the account.",
    "CONVERSATION_NOT_FOUND": "Check the name of the conversation, and that the caller takes part in it.",
    "CONVERSATION_TOO_LARGE": (
        "Its messages need more memory than the server's operator allows (--list-memory). Other conversations are not affected."
    ),
    "CONVERSATION_CLOSED": "Create another conversation.",
    "LP_REJECTED_FILE": "LivePerson rejects this file. Send another one.",
    "LP_RATE_LIMITED": "LivePerson asks for fewer requests. Retry later.",
    "LP_TIMEOUT": "LivePerson did not respond in time. Retry later, an upload under the same request id.",
    "LP_PUBLISH_UNCONFIRMED": "Repeat the upload under the same request id. It is never published twice.",
    "LP_PROTOCOL_ERROR": "Report this to the server's operator, with the request id.",
    "STORAGE_PROTOCOL_ERROR": "Report this to the server's operator, with the request id.",
    "STORAGE_URL_REJECTED": "Retry later. If it persists, the operator should check the server's clock.",
    "STORAGE_DENIED": "The server's operator must act: the store denies access.",
    "FILE_NOT_FOUND": "Check the name of the file, and that the caller takes part in its conversation.",
    "STORAGE_UNAVAILABLE": "The store is not available. Retry later.",
    "STORAGE_RATE_LIMITED": "The store asks for fewer requests. Retry later.",
    "RANGE_NOT_SATISFIABLE": "Use an offset inside the file.",
    "STORAGE_FULL": "The server's operator must act: the store is full.",
    "STORAGE_CORRUPTED": "Report this to the server's operator, with the request id.",
    "FILE_CHANGED": "The file was replaced during the download. Download it from the beginning.",
    "STORAGE_TRUNCATED": "The store ended the transfer early several times. Retry later.",
    "STORAGE_PATH_INVALID": "Use the name of the file, or its whole storage path, as the server returned it.",
    "IMAGE_INVALID": "The image is damaged. Open it in an image program, save it again, and send that.",
    "IMAGE_TOO_MANY_PIXELS": "Scale the image down and send that.",
    "IMAGE_CANNOT_FIT": "Make the image smaller in an image program and send that.",
    "PAGE_TOKEN_INVALID": "Start the listing or watch again without a token.",
    "LEDGER_UNAVAILABLE": "The server cannot reach its ledger. Retry later.",
    "WATCH_TOO_SLOW": "Read faster, and continue from the last token.",
    "SESSION_LIMIT": "The server has reached its limit of sessions. Retry later.",
    "TOO_MANY_STREAMS": "Too many downloads and watches are open. End some, or retry later.",
    "LEDGER_SHARE": "This caller has begun too many uploads or conversations. Retry when some request ids have expired.",
    "METHOD_NOT_IMPLEMENTED": "This server does not implement the method. Use a newer server.",
    "IDENTITY_NOT_CONFIGURED": ("Call with a consumer token, or ask the server's operator to configure an identity for the account."),
    "CALLER_NOT_PERMITTED": (
        "Ask the server's operator for a rule that permits the client certificate to call for this account and identity."
    ),
    "CALLER_NOT_AUTHENTICATED": ("Connect over TLS with a client certificate that the server trusts, or call with a consumer token."),
    "WEBHOOK_NOT_CONFIGURED": "The operator must register webhooks for the account. Until then, list the files.",
    "INTERNAL": "Report this to the server's operator, with the request id.",
    "WATCH_RESET": "List the files again, and watch from the token of the listing.",
    "UPLOAD_NOT_STORED": "Repeat the upload under the same request id.",
    "FILE_REJECTED_BY_SCANNER": "Do not send this file again: the server's malware scanner rejects it.",
    "SCANNER_UNAVAILABLE": "The server's malware scanner gave no verdict. Repeat the upload later under the same request id.",
    "CALLER_KEYS_UNAVAILABLE": "The server cannot verify bearer tokens now. Repeat the call later.",
}

# For errors without an ErrorInfo of the server.
BY_CODE = {
    grpc.StatusCode.UNAVAILABLE: "Check the address, that the server is running, and whether it requires TLS.",
    grpc.StatusCode.DEADLINE_EXCEEDED: "Allow more time. If that does not help, check that the server can be reached.",
    grpc.StatusCode.UNIMPLEMENTED: "The address is not an lpfileshare server, or an older one.",
    grpc.StatusCode.UNAUTHENTICATED: "Sign in.",
    grpc.StatusCode.INTERNAL: (
        "A proxy between client and server may have rejected the request. Check its limits, for "
        "example on body size (nginx: client_max_body_size 0)."
    ),
    grpc.StatusCode.RESOURCE_EXHAUSTED: "gRPC or a proxy rejected the size of a message. Send smaller messages.",
}
