//! Sends files into LivePerson conversations and reads them back, through an lpfileshare server.
//!
//! ```no_run
//! # async fn example() -> lpfileshare::Result<()> {
//! use lpfileshare::{Client, UploadOptions};
//!
//! let client = Client::from_env()?.connect_lazy()?;
//! let options = UploadOptions { conversation: "accounts/1/conversations/2".into(), ..Default::default() };
//! let sent = client.upload(options, std::path::Path::new("cat.jpg")).await?;
//! client.download_to(sent.file.unwrap_or_default().name, "copy.jpg").await?;
//! # Ok(())
//! # }
//! ```
//!
//! What it adds to the generated clients, which [`Client::raw`] returns:
//!
//! - It adds the identity of the caller, exactly one metadata key, to the calls that need one and to no others.
//! - It sends the size and checksums of a file before the file, if the source can be read twice, and a checksum with every chunk.
//! - It waits up to 5 seconds for the server to accept an upload before it sends bytes.
//! - It applies the retry rule of the contract. An upload is repeated under one request id, so it is never published twice. A download
//!   continues with the next byte, and a watch from its last token.
//! - It verifies every byte of a download, and reports its end only after the trailer.
//! - Its errors say what happened and what to do: see [`Error`]. Nothing that it prints has a token in it.
//!
//! It does not keep files in memory, resume an upload in the middle of a file (the contract cannot), or store tokens.
//!
//! Every future can be dropped: that cancels the call. All methods run inside a tokio runtime with time and I/O enabled.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod advice;
mod call;
mod client;
mod download;
mod error;
mod filetype;
mod identity;
mod list;
mod raw;
mod redact;
mod retry;
mod servers;
mod source;
mod steps;
mod upload;
mod watch;

/// The messages and clients that are generated from the contract, `lpfileshare.v1`. Enums are `i32` fields, so that a value that this
/// version does not know is kept; the methods of the same names return such a value as unspecified.
#[allow(missing_docs, clippy::all, rustdoc::all)]
pub mod proto {
    include!("generated/lpfileshare.v1.rs");
}

pub use client::{Client, ClientBuilder};
pub use download::{Download, DownloadOptions, DownloadResult, FileRef};
pub use error::{CallError, Error, FieldViolation, Result};
pub use filetype::detect_file_type;
pub use identity::{BoxFuture, ConsumerSession, ConsumerTokens, Identity, Secret, TokenSource};
pub use list::{Conversations, ConversationsOptions, Files, FilesOptions};
pub use proto::{ErrorReason, FileType};
pub use raw::Raw;
pub use source::Source;
pub use tonic::Code;
pub use upload::{Progress, UploadOptions};
pub use watch::{OnConnection, OnUnreadable, Watch, WatchOptions};
