use std::{collections::BTreeMap, error::Error as StdError, fmt, io, time::Duration};

use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::{advice, proto::ErrorReason};

/// The domain of the server's `ErrorInfo`.
const ERROR_DOMAIN: &str = "lpfileshare";

/// Result is a [`std::result::Result`] whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Error is the error of every method of this crate. It prints on one line what happened and what to do. It has no token and no
/// other secret.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The server answered with an error, or the connection broke.
    Call(Box<CallError>),
    /// The time limit of the call has passed, whatever status the transport reported for that.
    DeadlineExceeded(Box<CallError>),
    /// The watch cannot continue from its token without missing or repeating a file. List the files again, and watch from
    /// [`Files::watch_token`](crate::Files::watch_token).
    WatchReset(Box<CallError>),
    /// The source of an upload failed. Nothing was stored, and the upload is not repeated.
    Source(io::Error),
    /// The writer or file that a download was written to failed.
    Sink(io::Error),
    /// The [`TokenSource`](crate::TokenSource) failed.
    Token(Box<dyn StdError + Send + Sync>),
    /// The client rejected the arguments. No call was made.
    Usage(String),
}

/// CallError is a call that failed, after its last attempt.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CallError {
    /// The operation, for example "upload cat.jpg".
    pub op: String,
    /// The gRPC code.
    pub code: Code,
    /// The named condition. Unspecified if the server did not create the error (a lost connection, a deadline), or if this crate
    /// does not know it: see `reason_name`.
    pub reason: ErrorReason,
    /// The name of the condition as the server wrote it, for example "FILE_TOO_LARGE". Empty if the server did not create the error.
    pub reason_name: String,
    /// The message of the status.
    pub message: String,
    /// The details that the comment of the reason promises, for example "maxBytes".
    pub metadata: BTreeMap<String, String>,
    /// The invalid fields of the request.
    pub violations: Vec<FieldViolation>,
    /// The delay that the server asks for before a repeat. None: it must not be repeated, or the server did not create the error.
    pub retry_after: Option<Duration>,
    /// The request id of a failed upload. Set [`UploadOptions::request_id`](crate::UploadOptions::request_id) to it to repeat the
    /// upload. Empty for other calls.
    pub request_id: String,
    /// The number of calls that were made.
    pub attempts: u32,
    /// Whether a failed upload was sent to its end at least once. If so, it may have been published; otherwise it was not.
    pub finished: bool,
    /// Why no further attempt was made, although the error permits one. Empty if that does not apply.
    pub not_repeated: String,
}

/// FieldViolation is an invalid field of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct FieldViolation {
    /// The path of the field, for example "spec.file_type".
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

impl Error {
    /// Returns the failed call. None if the error is the caller's own: of a source, a sink, a token source or an argument.
    pub fn call(&self) -> Option<&CallError> {
        match self {
            Self::Call(e) | Self::DeadlineExceeded(e) | Self::WatchReset(e) => Some(e),
            _ => None,
        }
    }

    /// Returns the named condition. Unspecified if the server did not create the error.
    pub fn reason(&self) -> ErrorReason {
        self.call().map_or(ErrorReason::Unspecified, |e| e.reason)
    }

    /// Returns what to do about the error, for people. Empty: there is no advice.
    pub fn advice(&self) -> &'static str {
        self.call().map_or("", CallError::advice)
    }

    pub(crate) fn call_mut(&mut self) -> Option<&mut CallError> {
        match self {
            Self::Call(e) | Self::DeadlineExceeded(e) | Self::WatchReset(e) => Some(e),
            _ => None,
        }
    }
}

impl From<CallError> for Error {
    fn from(e: CallError) -> Self {
        match (e.reason, e.code) {
            (ErrorReason::WatchReset, _) => Self::WatchReset(e.into()),
            (_, Code::DeadlineExceeded) if e.reason_name.is_empty() => Self::DeadlineExceeded(e.into()),
            _ => Self::Call(e.into()),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(e) | Self::DeadlineExceeded(e) | Self::WatchReset(e) => e.fmt(f),
            Self::Source(e) => write!(f, "read source: {e}"),
            Self::Sink(e) => write!(f, "write download: {e}"),
            Self::Token(e) => write!(f, "token source: {e}"),
            Self::Usage(text) => f.write_str(text),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Source(e) | Self::Sink(e) => Some(e),
            Self::Token(e) => Some(&**e),
            _ => None,
        }
    }
}

impl CallError {
    pub(crate) fn new(op: &str, code: Code, message: impl Into<String>) -> Self {
        Self {
            op: op.to_owned(),
            code,
            reason: ErrorReason::Unspecified,
            reason_name: String::new(),
            message: message.into(),
            metadata: BTreeMap::new(),
            violations: Vec::new(),
            retry_after: None,
            request_id: String::new(),
            attempts: 0,
            finished: false,
            not_repeated: String::new(),
        }
    }

    /// Reads a status and its details.
    pub(crate) fn from_status(op: &str, status: &Status) -> Self {
        // tonic says CANCELLED for a connection that was closed below a call. A status of the server has no source.
        let code = match status.code() {
            Code::Cancelled if std::error::Error::source(status).is_some() => Code::Unavailable,
            code => code,
        };
        let mut e = Self::new(op, code, message_with_causes(status));
        let details = status.get_error_details();
        if let Some(info) = details.error_info().filter(|i| i.domain == ERROR_DOMAIN) {
            e.reason = ErrorReason::from_str_name(&format!("ERROR_REASON_{}", info.reason)).unwrap_or_default();
            e.reason_name.clone_from(&info.reason);
            e.metadata = info.metadata.clone().into_iter().collect();
        }
        e.retry_after = details.retry_info().map(|r| r.retry_delay.unwrap_or_default());
        for v in details.bad_request().map_or(&[][..], |b| &b.field_violations) {
            e.violations.push(FieldViolation { field: v.field.clone(), description: v.description.clone() });
        }
        e
    }

    /// Returns what to do about the error, for people. Empty: there is no advice.
    pub fn advice(&self) -> &'static str {
        match self.reason {
            ErrorReason::Unspecified if !self.reason_name.is_empty() => "", // the code alone would say something else
            reason => advice::advice(reason, self.code),
        }
    }

    pub(crate) fn not_repeated(mut self, why: impl Into<String>) -> Error {
        if self.not_repeated.is_empty() {
            self.not_repeated = why.into();
        }
        self.into()
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.op, self.message)?;
        let mut separator = ": ";
        for v in &self.violations {
            let text = format!("{}: {}", v.field, v.description);
            if !self.message.contains(&text) {
                write!(f, "{separator}{text}")?;
                separator = "; ";
            }
        }
        if self.reason_name.is_empty() {
            write!(f, " [{:?}]", self.code)?;
        } else {
            write!(f, " [{}]", self.reason_name)?;
        }
        if self.attempts > 1 {
            write!(f, " (after {} attempts)", self.attempts)?;
        }
        if !self.not_repeated.is_empty() {
            write!(f, "; not repeated: {}", self.not_repeated)?;
        }
        match self.advice() {
            "" => Ok(()),
            advice => write!(f, ". {advice}"),
        }
    }
}

impl StdError for CallError {}

/// Returns the message of a status. That of an error of the transport is "transport error" or the like, so its causes are added.
fn message_with_causes(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = status.source();
    while let Some(e) = cause {
        let part = e.to_string();
        if !text.contains(&part) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&part);
        }
        cause = e.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    fn status(code: Code, reason: &str, domain: &str) -> Status {
        let mut details = ErrorDetails::with_error_info(reason, domain, [("maxBytes".to_owned(), "5".to_owned())]);
        details.add_bad_request_violation("spec.caption", "is too long");
        details.set_retry_info(Some(Duration::from_secs(3)));
        Status::with_error_details(code, "it failed", details)
    }

    #[test]
    fn reads_details() {
        let e = CallError::from_status("upload", &status(Code::InvalidArgument, "FILE_TOO_LARGE", ERROR_DOMAIN));
        assert_eq!(e.reason, ErrorReason::FileTooLarge);
        assert_eq!(e.metadata["maxBytes"], "5");
        assert_eq!(e.retry_after, Some(Duration::from_secs(3)));
        let text = e.to_string();
        assert!(text.starts_with("upload: it failed: spec.caption: is too long [FILE_TOO_LARGE]. Send a smaller file"), "{text}");
    }

    #[test]
    fn a_closed_connection_is_not_a_cancellation() {
        let mut closed = Status::cancelled("operation was canceled");
        closed.set_source(std::sync::Arc::new(std::io::Error::other("connection closed")));
        assert_eq!(CallError::from_status("upload", &closed).code, Code::Unavailable);
        assert_eq!(CallError::from_status("upload", &Status::cancelled("by the server")).code, Code::Cancelled);
    }

    #[test]
    fn keeps_unknown_reason_and_ignores_other_domain() {
        let e = CallError::from_status("upload", &status(Code::Aborted, "FROM_THE_FUTURE", ERROR_DOMAIN));
        assert_eq!((e.reason, e.reason_name.as_str(), e.advice()), (ErrorReason::Unspecified, "FROM_THE_FUTURE", ""));
        let e = CallError::from_status("upload", &status(Code::Aborted, "FILE_EMPTY", "example.com"));
        assert_eq!((e.reason, e.reason_name.as_str()), (ErrorReason::Unspecified, ""));
    }

    #[test]
    fn variants() {
        let reset = CallError::from_status("watch", &status(Code::OutOfRange, "WATCH_RESET", ERROR_DOMAIN));
        assert!(matches!(reset.into(), Error::WatchReset(_)));
        let late = CallError::new("upload", Code::DeadlineExceeded, "");
        assert!(matches!(late.into(), Error::DeadlineExceeded(_)));
    }
}
