use std::{fmt, pin::pin, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, client::Grpc, codegen::http::uri::PathAndQuery, transport::Channel};
use tonic_prost::ProstCodec;

use crate::{
    Client,
    call::{self, Attempt, within},
    error::{Error, Result},
    filetype::detect_file_type,
    proto::{
        ChecksumKind, DataChunk, FileType, ImageOptions, Preview, PublishMode, UploadFinish, UploadRequest, UploadResponse, UploadSpec,
        UploadState, upload_request::FirstMessage,
    },
    retry::{Failure, Pacer, RETRY_FOR},
    source::{Opened, Source, Sums},
};

const DEFAULT_CHUNK_BYTES: usize = 64 << 10;
const MAX_CHUNK_BYTES: usize = 1 << 20;
/// The response header that means that the upload was accepted.
const ACCEPTED_KEY: &str = "lpfs-request-id";
/// How long an upload waits for that header. Some proxies hold headers back until the call ends.
const ACCEPT_TIMEOUT: Duration = Duration::from_secs(5);
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(600);
const SETTLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Progress receives the number of bytes that were transferred, and the total if it is known. It must return quickly.
pub type Progress = Arc<dyn Fn(u64, Option<u64>) + Send + Sync>;

/// UploadOptions says what is uploaded, and where to. Only `conversation` is required: end a literal with `..Default::default()`.
#[derive(Clone, Default)]
pub struct UploadOptions {
    /// `accounts/{account}/conversations/{conversation}`.
    pub conversation: String,
    /// A dialog of the conversation. Empty: the main dialog.
    pub dialog_id: String,
    /// A file name, up to `max_display_name_chars` (capabilities) characters. Empty: the last element of a path, nothing for other
    /// sources. It is not sent to LivePerson.
    pub display_name: String,
    /// The file type. None: [`detect_file_type`] of the first bytes and the display name.
    pub file_type: Option<FileType>,
    /// Text that is shown with the file, up to `max_caption_chars` (capabilities) characters.
    pub caption: String,
    /// A small image of the file, or the request that the server generates one.
    pub preview: Option<Preview>,
    /// What may be done to an image before it is stored. None: nothing. `UploadResponse::image` reports what was done.
    pub image: Option<ImageOptions>,
    /// A UUID. Empty: a new one. Set it to repeat an upload whose result is not known: the file is published once, however often it
    /// is sent.
    pub request_id: String,
    /// Whether the file is published. Unspecified: it is. See also [`Client::publish_upload`].
    pub publish_mode: PublishMode,
    /// Check what can be checked without the bytes, and change nothing. The response has no file.
    pub validate_only: bool,
    /// The checksums that the response must have in addition to CRC-32C.
    pub want_checksums: Vec<ChecksumKind>,
    /// Receives the number of bytes that were passed to the connection, which can be more than have arrived. It starts at 0 for each
    /// attempt.
    pub on_progress: Option<Progress>,
    /// The number of bytes in a message, 1 to 1,048,576. None: 65,536.
    pub chunk_bytes: Option<usize>,
    /// How long after the beginning another attempt may begin, and how long to wait for a connection. None: two minutes. Zero: one
    /// attempt, and two minutes for the connection.
    pub retry_for: Option<Duration>,
    /// The time limit of the whole upload, with all attempts. None: none, but each attempt is limited to 10 minutes. The error is
    /// [`Error::DeadlineExceeded`].
    pub timeout: Option<Duration>,
}

impl fmt::Debug for UploadOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UploadOptions")
            .field("conversation", &self.conversation)
            .field("display_name", &self.display_name)
            .field("request_id", &self.request_id)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Sends a file. It returns once the file is stored, verified and, unless `publish_mode` says otherwise, published exactly once.
    ///
    /// The source is read to its end and not kept in memory. The upload is repeated by the retry rule of the contract, under the same
    /// request id, until `retry_for` or `timeout` ends. A rejected token is renewed once, if its source can. Errors of the call have
    /// `request_id` and `finished` set. If the source fails nothing is stored.
    ///
    /// Dropping the future cancels the upload. If that happens after the last byte, the file may have been published: set
    /// `request_id` to be able to ask [`Client::get_upload`], or to repeat the upload.
    pub async fn upload(&self, options: UploadOptions, source: impl Into<Source>) -> Result<UploadResponse> {
        self.upload_source(options, source.into()).await
    }

    async fn upload_source(&self, mut options: UploadOptions, source: Source) -> Result<UploadResponse> {
        let chunk_bytes = options.chunk_bytes.unwrap_or(DEFAULT_CHUNK_BYTES);
        if !(1..=MAX_CHUNK_BYTES).contains(&chunk_bytes) {
            return Err(Error::Usage(format!("chunk_bytes is {chunk_bytes}, must be 1 to {MAX_CHUNK_BYTES}")));
        }
        if options.display_name.is_empty() {
            options.display_name = source.name().unwrap_or_default();
        }
        if options.request_id.is_empty() {
            options.request_id = uuid::Uuid::new_v4().to_string();
        }
        let op = format!("upload {}", options.display_name);
        let mut pace = Pacer::new(op.trim_end(), options.retry_for.unwrap_or(RETRY_FOR));
        let mut finished = false;
        let (limit, request_id) = (options.timeout, options.request_id.clone());
        let run = async {
            let need_head = options.file_type.is_none();
            let source = source.open(need_head).await.map_err(Error::Source)?;
            let spec = spec(&options, &source)?;
            Upload { client: self, spec, source, chunk_bytes, options: &options, finished: &mut finished }.run(&mut pace).await
        };
        let result = match limit {
            Some(limit) => timeout(limit, run).await.ok(),
            None => Some(run.await),
        };
        let mut result = result.unwrap_or_else(|| Err(pace.deadline()));
        if let Some(e) = result.as_mut().err().and_then(Error::call_mut) {
            e.request_id = request_id;
            e.finished = finished;
        }
        result
    }
}

fn spec(o: &UploadOptions, source: &Opened) -> Result<UploadSpec> {
    let file_type = match o.file_type {
        Some(file_type) => file_type,
        None => detect_file_type(&o.display_name, &source.head).map_err(|why| Error::Usage(format!("upload {}: {why}", o.display_name)))?,
    };
    Ok(UploadSpec {
        conversation: o.conversation.clone(),
        dialog_id: o.dialog_id.clone(),
        display_name: o.display_name.clone(),
        file_type: file_type.into(),
        size_bytes: source.size.and_then(|n| n.try_into().ok()),
        checksums: source.checksums.clone(),
        caption: o.caption.clone(),
        preview: o.preview.clone(),
        publish_mode: o.publish_mode.into(),
        request_id: o.request_id.clone(),
        validate_only: o.validate_only,
        image: o.image,
        want_checksums: o.want_checksums.iter().map(|kind| (*kind).into()).collect(),
    })
}

/// Upload is one file over any number of attempts.
struct Upload<'a> {
    client: &'a Client,
    options: &'a UploadOptions,
    spec: UploadSpec,
    source: Opened,
    chunk_bytes: usize,
    /// At least one attempt has begun to send finish: the file may have been published.
    finished: &'a mut bool,
}

impl Upload<'_> {
    async fn run(&mut self, pace: &mut Pacer) -> Result<UploadResponse> {
        loop {
            pace.begin();
            let attempt = self.client.attempt().await?;
            let failure = match within(ATTEMPT_TIMEOUT, self.attempt(&attempt)).await {
                Ok(response) => return Ok(response),
                Err(failure) => failure,
            };
            let next = pace.next(failure, &attempt).await?;
            if let Err(why) = self.source.rewind().await {
                return match self.settle().await {
                    Some(response) => Ok(response),
                    None => Err(next.error.not_repeated(why)),
                };
            }
            pace.wait(next).await?;
        }
    }

    /// Sends the file once. Sending and receiving run at the same time, because the server may end the call at any moment, with an
    /// error or with OK. The answer is the result, not a failed send.
    async fn attempt(&mut self, attempt: &Attempt) -> Result<UploadResponse, Failure> {
        let (sender, receiver) = mpsc::channel(1);
        let (accept, accepted) = oneshot::channel();
        let request = attempt.request(ReceiverStream::new(receiver), Some(ATTEMPT_TIMEOUT))?;
        let mut answer = pin!(receive(attempt.grpc(), request, accept));
        tokio::select! {
            biased;
            answer = &mut answer => Ok(answer?),
            sent = self.send(sender, accepted) => {
                sent?;
                Ok(answer.await?)
            }
        }
    }

    /// Sends the messages. It returns early if the server has ended the call.
    async fn send(&mut self, sender: mpsc::Sender<UploadRequest>, accepted: oneshot::Receiver<()>) -> Result<()> {
        let first = UploadRequest { first_message: Some(FirstMessage::Spec(self.spec.clone())), ..Default::default() };
        if sender.send(first).await.is_err() || self.options.validate_only {
            return Ok(());
        }
        let _ = timeout(ACCEPT_TIMEOUT, accepted).await;

        let total = self.source.size;
        let mut sums = Sums::new(self.spec.checksums.is_none());
        self.report(0, total);
        loop {
            let data = self.source.read(self.chunk_bytes).await.map_err(Error::Source)?;
            if data.is_empty() {
                break;
            }
            let chunk = DataChunk { offset: sums.bytes as i64, crc32c: Some(crc32c::crc32c(&data)), data: data.clone() };
            sums.update(&data);
            if sender.send(UploadRequest { chunk: Some(chunk), ..Default::default() }).await.is_err() {
                return Ok(());
            }
            self.report(sums.bytes, total);
        }
        if let Some(total) = total.filter(|total| *total != sums.bytes) {
            let text = format!("it had {total} bytes first or as declared, and {} now; send it when it no longer changes", sums.bytes);
            return Err(Error::Source(std::io::Error::other(text)));
        }
        *self.finished = true; // even if it does not arrive
        let checksums = self.spec.checksums.is_none().then(|| sums.finish());
        let _ = sender.send(UploadRequest { finish: Some(UploadFinish { checksums }), ..Default::default() }).await;
        Ok(())
    }

    fn report(&self, sent: u64, total: Option<u64>) {
        if let Some(f) = &self.options.on_progress {
            f(sent, total);
        }
    }

    /// Asks for the result of an upload whose response was lost and that cannot be sent again. None: it is not known to be done.
    async fn settle(&mut self) -> Option<UploadResponse> {
        if !*self.finished {
            return None;
        }
        let (account, _) = self.spec.conversation.split_once("/conversations/")?;
        let name = format!("{account}/uploads/{}", self.spec.request_id);
        let upload = timeout(SETTLE_TIMEOUT, self.client.get_upload(&name)).await.ok()?.ok()?;
        let store_only = self.options.publish_mode == PublishMode::StoreOnly;
        match upload.state() {
            UploadState::Published => {}
            UploadState::Stored if store_only => {}
            _ => return None,
        }
        Some(UploadResponse {
            file: upload.file,
            request_id: self.spec.request_id.clone(),
            replayed: true,
            image: upload.image,
            upload: name,
            ..Default::default()
        })
    }
}

/// Makes the call and returns its answer. `accept` is used once the server has accepted the upload. tonic's generated client cannot do
/// that: it returns the header only with the response, so the method is called as if it streamed in both directions.
async fn receive(
    mut grpc: Grpc<Channel>,
    request: Request<ReceiverStream<UploadRequest>>,
    accept: oneshot::Sender<()>,
) -> Result<UploadResponse, Status> {
    call::ready(&mut grpc).await?;
    let codec = ProstCodec::<UploadRequest, UploadResponse>::default();
    let response = grpc.streaming(request, PathAndQuery::from_static(call::UPLOAD), codec).await?;
    // Without the key the sender goes on after its timeout: that the header has arrived does not mean that the upload was accepted.
    let mut accept = Some(accept);
    if response.metadata().contains_key(ACCEPTED_KEY) {
        let _ = accept.take().map(|accept| accept.send(()));
    }
    let mut messages = response.into_inner();
    let message = messages.message().await?;
    messages.trailers().await?; // the status
    message.ok_or_else(|| Status::internal("the server sent no response"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn futures_are_send() {
        fn send<T: Send>(_: T) {}
        let client = Client::builder("127.0.0.1:1").connect_lazy().unwrap_or_else(|e| panic!("{e}"));
        send(client.upload(UploadOptions::default(), Source::reader(&b""[..])));
        send(client.download("name"));
        send(client.download_to("name", "path"));
        send(client.files("parent").collect());
        send(client.watch(crate::WatchOptions::default()).next());
    }
}
