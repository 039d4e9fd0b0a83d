//! What people can do about an error. The comments of [`ErrorReason`] are for programmers.

use tonic::Code;

use crate::proto::ErrorReason;

/// Returns the advice for a reason, or for a code if the server did not create the error. Empty: none.
#[rustfmt::skip]
pub(crate) fn advice(reason: ErrorReason, code: Code) -> &'static str {
    match reason {
        ErrorReason::Unspecified => by_code(code),
        ErrorReason::StreamProtocolViolation | ErrorReason::OffsetMismatch => "This is a bug of the client; report it.",
        ErrorReason::InvalidField => "Correct the named fields and retry.",
        ErrorReason::UnsupportedFileType => "Send a type that the account allows; the capabilities list them.",
        ErrorReason::FileTypeMismatch => "The first bytes do not match the file type. Check the file, or specify its real type.",
        ErrorReason::FileTooLarge => "Send a smaller file, or set the option that makes images fit. The capabilities list the limits.",
        ErrorReason::PreviewTooLarge => "Use a smaller preview, or let the server generate one.",
        ErrorReason::FileEmpty => "Send a file that is not empty.",
        ErrorReason::UploadIncomplete => "The source was shorter than its declared size. Check the source.",
        ErrorReason::SizeExceeded => "The source was longer than its declared size. Check the source, and send the file when it no longer changes.",
        ErrorReason::ChunkChecksumMismatch => "Bytes were damaged in transit. Repeat the upload under the same request id.",
        ErrorReason::FileChecksumMismatch => "The file changed during the upload. Send it when it no longer changes.",
        ErrorReason::MessageTooLarge => "Send smaller chunks.",
        ErrorReason::UploadNotFound => "Check the request id. The server keeps it for a limited time, and only for the caller that used it.",
        ErrorReason::UploadTakenOver => "Wait for the newer attempt under the same request id.",
        ErrorReason::UploadIdle => "The upload was too slow. Repeat it under the same request id.",
        ErrorReason::RequestIdConflict => "The request id belongs to another file, or to the same one with other settings. Use a new one.",
        ErrorReason::TooManyUploads => "The server has too many uploads. Retry later, with fewer uploads at the same time.",
        ErrorReason::ServerDraining => "The server is shutting down. Retry later.",
        ErrorReason::TokenInvalid | ErrorReason::LpIdentityExpired => "Sign in again.",
        ErrorReason::NotAllowed => "Sign in with an identity that may do this, in the account that it belongs to.",
        ErrorReason::LpUnavailable => "LivePerson is not available. Retry later.",
        ErrorReason::LpCredentialsRejected => "Check the user name, password or keys. If they are configured on the server, ask its operator.",
        ErrorReason::FileSharingDisabled => "Ask an administrator of the account to enable file sharing.",
        ErrorReason::LpForbidden => "LivePerson does not allow this to the identity. Ask an administrator of the account.",
        ErrorReason::ConversationNotFound => "Check the name of the conversation, and that the caller takes part in it.",
        ErrorReason::ConversationTooLarge => "Its messages need more memory than the server's operator allows (--list-memory). Other conversations are not affected.",
        ErrorReason::ConversationClosed => "Create another conversation.",
        ErrorReason::LpRejectedFile => "LivePerson rejects this file. Send another one.",
        ErrorReason::LpRateLimited => "LivePerson asks for fewer requests. Retry later.",
        ErrorReason::LpTimeout => "LivePerson did not respond in time. Retry later, an upload under the same request id.",
        ErrorReason::LpPublishUnconfirmed => "Repeat the upload under the same request id. It is never published twice.",
        ErrorReason::LpProtocolError | ErrorReason::StorageProtocolError | ErrorReason::StorageCorrupted | ErrorReason::Internal => "Report this to the server's operator, with the request id.",
        ErrorReason::StorageUrlRejected => "Retry later. If it persists, the operator should check the server's clock.",
        ErrorReason::StorageDenied => "The server's operator must act: the store denies access.",
        ErrorReason::FileNotFound => "Check the name of the file, and that the caller takes part in its conversation.",
        ErrorReason::StorageUnavailable => "The store is not available. Retry later.",
        ErrorReason::StorageRateLimited => "The store asks for fewer requests. Retry later.",
        ErrorReason::RangeNotSatisfiable => "Use an offset inside the file.",
        ErrorReason::StorageFull => "The server's operator must act: the store is full.",
        ErrorReason::FileChanged => "The file was replaced during the download. Download it from the beginning.",
        ErrorReason::StorageTruncated => "The store ended the transfer early several times. Retry later.",
        ErrorReason::StoragePathInvalid => "Use the name of the file, or its whole storage path, as the server returned it.",
        ErrorReason::ImageInvalid => "The image is damaged. Open it in an image program, save it again, and send that.",
        ErrorReason::ImageTooManyPixels => "Scale the image down and send that.",
        ErrorReason::ImageCannotFit => "Make the image smaller in an image program and send that.",
        ErrorReason::PageTokenInvalid => "Start the listing or watch again without a token.",
        ErrorReason::LedgerUnavailable => "The server cannot reach its ledger. Retry later.",
        ErrorReason::WatchTooSlow => "Read faster, and continue from the last token.",
        ErrorReason::SessionLimit => "The server has reached its limit of sessions. Retry later.",
        ErrorReason::TooManyStreams => "Too many downloads and watches are open. End some, or retry later.",
        ErrorReason::LedgerShare => "This caller has begun too many uploads or conversations. Retry when some request ids have expired.",
        ErrorReason::MethodNotImplemented => "This server does not implement the method. Use a newer server.",
        ErrorReason::IdentityNotConfigured => "Call with a consumer token, or ask the server's operator to configure an identity for the account.",
        ErrorReason::CallerNotPermitted => "Ask the server's operator for a rule that permits the client certificate to call for this account and identity.",
        ErrorReason::CallerNotAuthenticated => "Connect over TLS with a client certificate that the server trusts, or call with a consumer token.",
        ErrorReason::WebhookNotConfigured => "The operator must register webhooks for the account. Until then, list the files.",
        ErrorReason::WatchReset => "List the files again, and watch from the token of the listing.",
        ErrorReason::UploadNotStored => "Repeat the upload under the same request id.",
        ErrorReason::FileRejectedByScanner => "Do not send this file again: the server's malware scanner rejects it.",
        ErrorReason::ScannerUnavailable => "The server's malware scanner gave no verdict. Repeat the upload later under the same request id.",
        ErrorReason::CallerKeysUnavailable => "The server cannot verify bearer tokens now. Repeat the call later.",
    }
}

fn by_code(code: Code) -> &'static str {
    match code {
        Code::Unavailable => "Check the address, that the server is running, and whether it requires TLS.",
        Code::DeadlineExceeded => "Allow more time. If that does not help, check that the server can be reached.",
        Code::Unimplemented => "The address is not an lpfileshare server, or an older one.",
        Code::Unauthenticated => "Sign in.",
        Code::Internal => {
            "A proxy between client and server may have rejected the request. Check its limits, for example on body size (nginx: client_max_body_size 0)."
        }
        Code::ResourceExhausted => "gRPC or a proxy rejected the size of a message. Send smaller messages.",
        _ => "",
    }
}
