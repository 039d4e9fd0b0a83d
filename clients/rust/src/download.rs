use std::{
    fmt, io,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Buf, Bytes};
use md5::{Digest, Md5};
use tokio::{
    fs::OpenOptions,
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::{Instant, timeout_at},
};
use tokio_stream::Stream;
use tonic::{Streaming, codegen::http::uri::PathAndQuery};
use tonic_prost::ProstCodec;

use crate::{
    Client, Progress,
    call::{self, Attempt, within},
    error::{Error, Result},
    proto::{
        ChecksumKind, Checksums, ContentRange, DataChunk, DownloadHeader, DownloadRequest, DownloadResponse, DownloadTrailer, File,
        StorageRef, download_request, download_response::Payload,
    },
    retry::{Failure, Pacer, RETRY_FOR},
    source::Sums,
    steps::Steps,
};

/// How long one call may take to open, and to bring the next message.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(600);

/// FileRef says which file is meant: by its resource name, or by its place in the store.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum FileRef {
    /// `accounts/{account}/conversations/{conversation}/files/{file}`.
    Name(String),
    /// The conversation and LivePerson's relativePath, "/v1/AUTH_...".
    Storage(StorageRef),
}

impl Default for FileRef {
    fn default() -> Self {
        Self::Name(String::new())
    }
}

/// DownloadOptions says which file to download, and which part of it. Only `file` is required: end a literal with
/// `..Default::default()`. A name of a file, and a [`File`], convert into it.
#[derive(Clone, Default)]
pub struct DownloadOptions {
    /// The file.
    pub file: FileRef,
    /// The first byte. Negative: this many bytes before the end.
    pub offset: i64,
    /// The maximum number of bytes. 0: to the end.
    pub limit: i64,
    /// The download fails with FILE_CHANGED unless the file has this ETag. Empty: any.
    pub if_match_etag: String,
    /// The maximum number of bytes in a message, 1 KiB to 1 MiB. 0: the server's default.
    pub chunk_bytes: i32,
    /// The checksums that the server must send in addition to CRC-32C. If they include SHA-256, it is verified too.
    pub want_checksums: Vec<ChecksumKind>,
    /// Receives the number of bytes that were verified, and the total.
    pub on_progress: Option<Progress>,
    /// How long after the last progress another attempt may begin, and how long to wait for a connection. None: two minutes. Zero:
    /// one attempt, and two minutes for the connection.
    pub retry_for: Option<Duration>,
    /// The time limit of the whole download, until the last byte. None: none. The error is [`Error::DeadlineExceeded`].
    pub timeout: Option<Duration>,
}

impl fmt::Debug for DownloadOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DownloadOptions")
            .field("file", &self.file)
            .field("offset", &self.offset)
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl<T: Into<String>> From<T> for DownloadOptions {
    fn from(name: T) -> Self {
        Self { file: FileRef::Name(name.into()), ..Default::default() }
    }
}

impl From<&File> for DownloadOptions {
    fn from(file: &File) -> Self {
        file.name.as_str().into()
    }
}

/// DownloadResult is the result of a complete download.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DownloadResult {
    /// What the server sent before the first byte: the file, and the range of its bytes.
    pub header: DownloadHeader,
    /// What the server sent after the last byte. Its checksums cover only the last attempt.
    pub trailer: DownloadTrailer,
    /// The number of bytes that were downloaded.
    pub bytes: u64,
    /// The checksums of all downloaded bytes, computed by this client.
    pub checksums: Checksums,
    /// The number of calls.
    pub attempts: u32,
}

impl Client {
    /// Opens a file, or a part of it. It returns when the header has arrived, so errors such as FILE_NOT_FOUND are returned here. Read
    /// the result as [`AsyncRead`], as a [`Stream`] or by [`Download::next`].
    ///
    /// Every chunk is verified before it is returned, and the whole against the trailer and, if the whole file is read, against the MD5
    /// that the store states. If the connection or the store breaks off, the download continues with the next byte of the same object.
    /// If the object was replaced, the error is FILE_CHANGED. Dropping the result cancels the download.
    pub async fn download(&self, options: impl Into<DownloadOptions>) -> Result<Download> {
        Download::open(self.clone(), options.into()).await
    }

    /// Downloads to a writer, and flushes it. After an error the writer has received a correct beginning of the file, unless the error
    /// says that the file was damaged in the store or on the way from it. Errors of the writer are [`Error::Sink`].
    pub async fn download_into<W>(&self, options: impl Into<DownloadOptions>, writer: &mut W) -> Result<DownloadResult>
    where
        W: AsyncWrite + Unpin + ?Sized,
    {
        let mut download = self.download(options).await?;
        while let Some(data) = download.next().await? {
            writer.write_all(&data).await.map_err(Error::Sink)?;
        }
        writer.flush().await.map_err(Error::Sink)?;
        download.result().ok_or_else(|| Error::Sink(io::Error::other("the download has no result")))
    }

    /// Downloads to a file of the local disk, completely or not at all. The bytes are written to a temporary file in the same directory.
    /// When everything was verified, it is flushed to the disk and renamed to `path`, which replaces an existing file; otherwise it is
    /// removed. On Unix only its owner can read the file (mode 0600).
    pub async fn download_to(&self, options: impl Into<DownloadOptions>, path: impl AsRef<Path>) -> Result<DownloadResult> {
        let path = path.as_ref();
        let sink = |e: io::Error| Error::Sink(io::Error::new(e.kind(), format!("{}: {e}", path.display())));
        let part = Part(path.with_file_name(format!(".lpfileshare-{}.part", uuid::Uuid::new_v4())));
        let mut create = OpenOptions::new();
        create.write(true).create_new(true);
        #[cfg(unix)]
        create.mode(0o600);
        let mut file = create.open(&part.0).await.map_err(sink)?;
        let result = self.download_into(options, &mut file).await?;
        file.sync_all().await.map_err(sink)?;
        drop(file);
        tokio::fs::rename(&part.0, path).await.map_err(sink)?;
        Ok(result)
    }
}

/// Part is a temporary file that is removed when it is dropped, unless it was renamed.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Download is an open download. As a reader its errors are [`io::Error`]s that contain an [`Error`]. The end of the file is reported
/// only after the trailer and the MD5 that the store states were verified.
pub struct Download {
    header: DownloadHeader,
    steps: Steps<Box<Transfer>, Result<Option<Bytes>>>,
    /// Verified and not read yet.
    unread: Bytes,
}

impl Download {
    async fn open(client: Client, options: DownloadOptions) -> Result<Self> {
        let deadline = options.timeout.map(|limit| Instant::now() + limit);
        let pace = Pacer::new("download", options.retry_for.unwrap_or(RETRY_FOR));
        let mut transfer = Box::new(Transfer {
            client,
            options,
            pace,
            deadline,
            header: None,
            trailer: None,
            last: 0,
            sums: Sums::new(true),
            stored: None,
            call: None,
        });
        let unread = transfer.next().await?.unwrap_or_default();
        let header = transfer.header.clone().unwrap_or_default();
        Ok(Self { header, steps: Steps::Idle(transfer), unread })
    }

    /// Returns the file, and the range of its bytes.
    pub fn header(&self) -> &DownloadHeader {
        &self.header
    }

    /// Returns the next bytes. None: the download is complete, and the trailer and the MD5 that the store states were verified.
    pub async fn next(&mut self) -> Result<Option<Bytes>> {
        std::future::poll_fn(|cx| self.poll_bytes(cx)).await
    }

    /// Returns the result once the end was reached, and None before.
    pub fn result(&self) -> Option<DownloadResult> {
        let transfer = self.steps.idle()?;
        Some(DownloadResult {
            header: self.header.clone(),
            trailer: transfer.trailer.clone()?,
            bytes: transfer.sums.bytes,
            checksums: transfer.sums.clone().finish(),
            attempts: transfer.pace.attempts(),
        })
    }

    fn poll_bytes(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        if !self.unread.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.unread))));
        }
        self.steps.poll(cx, |mut transfer| async {
            let next = transfer.next().await;
            (transfer, next)
        })
    }
}

impl Stream for Download {
    type Item = Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_bytes(cx).map(Result::transpose)
    }
}

impl AsyncRead for Download {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            self.unread = ready!(self.poll_bytes(cx)).map_err(io::Error::other)?.unwrap_or_default();
        }
        let n = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread[..n]);
        self.unread.advance(n);
        Poll::Ready(Ok(()))
    }
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download").field("header", &self.header).finish_non_exhaustive()
    }
}

/// Transfer is one file over any number of calls.
struct Transfer {
    client: Client,
    options: DownloadOptions,
    pace: Pacer,
    deadline: Option<Instant>,
    /// Of the first call. None: not received yet.
    header: Option<DownloadHeader>,
    trailer: Option<DownloadTrailer>,
    /// The last byte that was returned.
    last: u8,
    sums: Sums,
    /// None: the store states no MD5, or only a part is read.
    stored: Option<StoredMd5>,
    call: Option<Call>,
}

/// Call is the open call of a transfer.
struct Call {
    attempt: Attempt,
    messages: Streaming<DownloadResponse>,
    check: Check,
}

impl Transfer {
    /// Returns the next bytes, verified. None: the download is complete.
    async fn next(&mut self) -> Result<Option<Bytes>> {
        match self.deadline {
            None => self.next_without_deadline().await,
            Some(deadline) => match timeout_at(deadline, self.next_without_deadline()).await {
                Ok(next) => next,
                Err(_) => {
                    self.call = None;
                    Err(self.pace.deadline())
                }
            },
        }
    }

    async fn next_without_deadline(&mut self) -> Result<Option<Bytes>> {
        while self.trailer.is_none() {
            let mut call = match self.call.take() {
                Some(call) => call,
                None => match self.open().await? {
                    Some(call) => call,
                    None => continue,
                },
            };
            match self.receive(&mut call).await {
                Ok(data) => {
                    self.call = Some(call);
                    if let Some(last) = data.last() {
                        self.last = *last;
                        self.sums.update(&data);
                        if let Some(stored) = &mut self.stored {
                            stored.sum.update(&data);
                        }
                        self.pace.progress();
                        self.report();
                        return Ok(Some(data));
                    }
                }
                Err(failure) => self.retry(failure, &call.attempt).await?,
            }
        }
        self.call = None;
        Ok(None)
    }

    /// Waits until the rest can be requested.
    async fn retry(&mut self, failure: Failure, attempt: &Attempt) -> Result<()> {
        let next = self.pace.next(failure, attempt).await?;
        if self.sums.bytes > 0 && self.etag().is_empty() {
            return Err(next.error.not_repeated("the server sent no ETag, so the rest could be of another file"));
        }
        self.pace.wait(next).await
    }

    /// Makes a call. None: it failed, and another one can be made.
    async fn open(&mut self) -> Result<Option<Call>> {
        self.pace.begin();
        let attempt = self.client.attempt().await?;
        let (message, skip) = self.request();
        let request = attempt.request(message, None)?;
        let mut grpc = attempt.grpc();
        let messages = within(ATTEMPT_TIMEOUT, async {
            call::ready(&mut grpc).await?;
            let codec = ProstCodec::<DownloadRequest, DownloadResponse>::default();
            grpc.server_streaming(request, PathAndQuery::from_static(call::DOWNLOAD), codec).await
        });
        match messages.await {
            Ok(response) => {
                let sha256 = self.options.want_checksums.contains(&ChecksumKind::Sha256);
                Ok(Some(Call { attempt, messages: response.into_inner(), check: Check::new(skip, sha256) }))
            }
            Err(status) => {
                self.retry(status.into(), &attempt).await?;
                Ok(None)
            }
        }
    }

    /// Returns the request for the missing bytes, and how many bytes of the answer to skip. If only the trailer is missing, it requests
    /// the last byte again, because a download without a trailer is not complete.
    fn request(&self) -> (DownloadRequest, u64) {
        let o = &self.options;
        let mut request = DownloadRequest {
            source: Some(match &o.file {
                FileRef::Name(name) => download_request::Source::Name(name.clone()),
                FileRef::Storage(storage) => download_request::Source::Storage(storage.clone()),
            }),
            read_offset: o.offset,
            read_limit: o.limit,
            if_match_etag: o.if_match_etag.clone(),
            max_chunk_bytes: o.chunk_bytes,
            want_checksums: o.want_checksums.iter().map(|kind| (*kind).into()).collect(),
        };
        let Some(range) = self.range().filter(|_| !self.etag().is_empty()) else {
            return (request, 0);
        };
        let mut next = range.start_bytes + self.sums.bytes as i64;
        let mut skip = 0;
        if next == range.end_bytes && self.sums.bytes > 0 {
            next -= 1;
            skip = 1;
        }
        request.read_offset = next;
        request.read_limit = range.end_bytes - next;
        request.if_match_etag = self.etag().to_owned();
        (request, skip)
    }

    /// Receives one message, and returns the bytes of a chunk.
    async fn receive(&mut self, call: &mut Call) -> Result<Bytes, Failure> {
        let check = &mut call.check;
        let Some(message) = within(ATTEMPT_TIMEOUT, call.messages.message()).await? else {
            let Some(trailer) = check.trailer.take() else {
                return Err(Failure::Damaged(format!(
                    "the download ended without a trailer, {} bytes before its end",
                    check.end - check.offset
                )));
            };
            if let Some(stored) = &self.stored {
                stored.verify()?;
            }
            self.trailer = Some(trailer);
            return Ok(Bytes::new());
        };
        match message.payload {
            Some(Payload::Header(header)) => {
                check.begin(&header)?;
                match &self.header {
                    None => {
                        self.stored = StoredMd5::of(&header);
                        self.header = Some(header);
                    }
                    Some(first) => same_object(first, &header, self.sums.bytes - check.skip)?,
                }
                if self.sums.bytes == 0 {
                    self.report();
                }
                Ok(Bytes::new())
            }
            Some(Payload::Chunk(chunk)) => check.chunk(chunk, self.last),
            Some(Payload::Trailer(trailer)) => check.finish(trailer).map(|()| Bytes::new()),
            None => Err(Failure::Violation("the server sent a message of an unknown kind".to_owned())),
        }
    }

    fn range(&self) -> Option<ContentRange> {
        self.header.as_ref().map(|h| h.content_range.unwrap_or_default())
    }

    fn etag(&self) -> &str {
        self.header.as_ref().map_or("", etag)
    }

    fn report(&self) {
        if let (Some(f), Some(range)) = (&self.options.on_progress, self.range()) {
            f(self.sums.bytes, u64::try_from(range.end_bytes - range.start_bytes).ok());
        }
    }
}

fn etag(header: &DownloadHeader) -> &str {
    header.file.as_ref().map_or("", |f| &f.etag)
}

/// Checks that a call continues the object of the first call, after a number of bytes.
fn same_object(first: &DownloadHeader, header: &DownloadHeader, after: u64) -> Result<(), Failure> {
    let (want, got) = (first.content_range.unwrap_or_default(), header.content_range.unwrap_or_default());
    let same = got.start_bytes == want.start_bytes + after as i64
        && (got.end_bytes, got.total_bytes) == (want.end_bytes, want.total_bytes)
        && etag(header) == etag(first);
    if same { Ok(()) } else { Err(Failure::Violation(format!("the server continued with other bytes than requested: {got:?}"))) }
}

/// StoredMd5 compares a whole file with what the store states of it, over any number of calls.
struct StoredMd5 {
    stated: Vec<u8>,
    sum: Md5,
}

impl StoredMd5 {
    fn of(header: &DownloadHeader) -> Option<Self> {
        let r = header.content_range.unwrap_or_default();
        let whole = r.start_bytes == 0 && r.end_bytes == r.total_bytes;
        (whole && !header.stored_md5.is_empty()).then(|| Self { stated: header.stored_md5.clone(), sum: Md5::new() })
    }

    fn verify(&self) -> Result<(), Failure> {
        if self.sum.clone().finalize()[..] == self.stated[..] {
            return Ok(());
        }
        let text = "the file does not have the MD5 that the store states: it was damaged in the store, or on the way from it to the \
                    server; discard it";
        Err(Failure::Violation(text.to_owned()))
    }
}

/// Check verifies the messages of one call.
struct Check {
    /// The number of bytes at the beginning that an earlier call has returned.
    skip: u64,
    /// The announced range, and the position of the next chunk in it.
    start: i64,
    offset: i64,
    end: i64,
    begun: bool,
    sums: Sums,
    sha256: bool,
    trailer: Option<DownloadTrailer>,
}

impl Check {
    fn new(skip: u64, sha256: bool) -> Self {
        Self { skip, start: 0, offset: 0, end: 0, begun: false, sums: Sums::new(sha256), sha256, trailer: None }
    }

    fn begin(&mut self, header: &DownloadHeader) -> Result<(), Failure> {
        let r = header.content_range.unwrap_or_default();
        if self.begun {
            return Err(Failure::Violation("the server sent a second header".to_owned()));
        }
        if r.start_bytes < 0 || r.start_bytes > r.end_bytes || r.end_bytes > r.total_bytes {
            return Err(Failure::Violation(format!("the server sent an impossible range: {r:?}")));
        }
        self.begun = true;
        (self.start, self.offset, self.end) = (r.start_bytes, r.start_bytes, r.end_bytes);
        Ok(())
    }

    fn chunk(&mut self, chunk: DataChunk, last: u8) -> Result<Bytes, Failure> {
        let mut data = chunk.data;
        let violation = if !self.begun || self.trailer.is_some() {
            "the server sent bytes before the header or after the trailer".to_owned()
        } else if chunk.offset != self.offset {
            format!("the server sent byte {} instead of byte {}", chunk.offset, self.offset)
        } else if data.len() as i64 > self.end - self.offset {
            format!("the server sent more bytes than the {} that it announced", self.end)
        } else if let Some(crc32c) = chunk.crc32c {
            if crc32c::crc32c(&data) != crc32c {
                return Err(Failure::Damaged(format!("the bytes from offset {} on were damaged in transit", self.offset)));
            }
            String::new()
        } else {
            "the server sent bytes without a checksum".to_owned()
        };
        if !violation.is_empty() {
            return Err(Failure::Violation(violation));
        }
        self.offset += data.len() as i64;
        self.sums.update(&data);
        if self.skip > 0 && !data.is_empty() {
            if data[0] != last {
                return Err(Failure::Violation("the file has changed, although its ETag has not".to_owned()));
            }
            self.skip = 0;
            data.advance(1);
        }
        Ok(data)
    }

    fn finish(&mut self, trailer: DownloadTrailer) -> Result<(), Failure> {
        let got = self.sums.clone().finish();
        let want = trailer.sent_checksums.clone().unwrap_or_default();
        let missing = self.end - self.offset;
        if !self.begun || self.trailer.is_some() {
            return Err(Failure::Violation("the server sent a trailer before the header, or a second one".to_owned()));
        }
        if missing != 0 {
            return Err(Failure::Damaged(format!("the server ended the download {missing} bytes before its end")));
        }
        if trailer.sent_bytes != self.offset - self.start {
            return Err(Failure::Damaged(format!("{} bytes arrived of {} that were sent", self.offset - self.start, trailer.sent_bytes)));
        }
        if want.crc32c.is_none() || self.sha256 && want.sha256.is_empty() {
            return Err(Failure::Violation("the server sent a trailer without a requested checksum".to_owned()));
        }
        if want.crc32c != got.crc32c || self.sha256 && want.sha256 != got.sha256 {
            let text = "the checksums of the sent and the received bytes differ, although each chunk was correct; download the file again";
            return Err(Failure::Violation(text.to_owned()));
        }
        self.trailer = Some(trailer);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use tonic::{
        Code,
        codec::{Codec, EncodeBody},
        codegen::http::StatusCode,
    };

    use super::*;

    fn header(start: i64, end: i64) -> DownloadHeader {
        let content_range = Some(ContentRange { start_bytes: start, end_bytes: end, total_bytes: 10 });
        DownloadHeader { content_range, file: Some(File { etag: "e".to_owned(), ..Default::default() }), stored_md5: Vec::new() }
    }

    fn chunk(offset: i64, data: &'static [u8]) -> DataChunk {
        DataChunk { offset, data: Bytes::from_static(data), crc32c: Some(crc32c::crc32c(data)) }
    }

    fn begun() -> Check {
        let mut check = Check::new(0, false);
        check.begin(&header(0, 5)).unwrap_or_else(|_| panic!("the header is valid"));
        check
    }

    #[test]
    fn verifies_chunks() {
        assert!(begun().chunk(chunk(0, b"hello"), 0).is_ok());
        let mut damaged = chunk(0, b"hello");
        damaged.crc32c = Some(1);
        assert!(matches!(begun().chunk(damaged, 0), Err(Failure::Damaged(_))));
        let without = DataChunk { crc32c: None, ..chunk(0, b"hello") };
        for wrong in [chunk(1, b"hello"), chunk(0, b"hello!"), without] {
            assert!(matches!(begun().chunk(wrong, 0), Err(Failure::Violation(_))));
        }
        assert!(matches!(Check::new(0, false).chunk(chunk(0, b"hello"), 0), Err(Failure::Violation(_))), "no header");
    }

    #[test]
    fn verifies_trailer() {
        let sums = |crc32c| Some(Checksums { crc32c: Some(crc32c), ..Default::default() });
        let right = DownloadTrailer { sent_bytes: 5, sent_checksums: sums(0x9a71_bb4c) };
        let mut check = begun();
        assert!(matches!(check.finish(right.clone()), Err(Failure::Damaged(_))), "bytes are missing");
        assert!(check.chunk(chunk(0, b"hello"), 0).is_ok());
        let wrong = DownloadTrailer { sent_checksums: sums(1), ..right.clone() };
        assert!(matches!(check.finish(wrong), Err(Failure::Violation(_))));
        assert!(check.finish(right.clone()).is_ok());
        assert!(matches!(check.finish(right), Err(Failure::Violation(_))), "a second trailer");
    }

    #[test]
    fn skips_the_byte_that_was_received() {
        let mut check = Check::new(1, false);
        assert!(check.begin(&header(4, 5)).is_ok());
        assert!(check.chunk(chunk(4, b"o"), b'o').is_ok_and(|data| data.is_empty()));
    }

    #[test]
    fn continues_only_the_same_object() {
        assert!(same_object(&header(0, 5), &header(3, 5), 3).is_ok());
        assert!(same_object(&header(0, 5), &header(2, 5), 3).is_err());
        let mut other = header(3, 5);
        other.file = None;
        assert!(same_object(&header(0, 5), &other, 3).is_err());
    }

    /// Returns a transfer whose open call will send these bytes of "helloworld", after a number of bytes that were received before.
    async fn transfer(first: DownloadHeader, stored: Option<StoredMd5>, sums: Sums, data: &'static [u8]) -> Transfer {
        let range = first.content_range.unwrap_or_default();
        let from = range.start_bytes + sums.bytes as i64;
        let mut header = header(from, range.end_bytes);
        header.stored_md5 = first.stored_md5.clone();
        let trailer = DownloadTrailer {
            sent_bytes: data.len() as i64,
            sent_checksums: Some(Checksums { crc32c: Some(crc32c::crc32c(data)), ..Default::default() }),
        };
        let messages = [Payload::Header(header), Payload::Chunk(chunk(from, data)), Payload::Trailer(trailer)]
            .map(|payload| Ok(DownloadResponse { payload: Some(payload) }));
        let mut codec = ProstCodec::<DownloadResponse, DownloadResponse>::default();
        let body = EncodeBody::new_server(codec.encoder(), tokio_stream::iter(messages), None, Default::default(), None);
        let messages = Streaming::new_response(codec.decoder(), body, StatusCode::OK, None, None);

        let client = Client::builder("127.0.0.1:1").connect_lazy().unwrap();
        let call = Call { attempt: client.attempt().await.unwrap(), messages, check: Check::new(0, false) };
        Transfer {
            client,
            options: DownloadOptions::default(),
            pace: Pacer::new("download", RETRY_FOR),
            deadline: None,
            header: (sums.bytes > 0).then_some(first),
            trailer: None,
            last: 0,
            sums,
            stored,
            call: Some(call),
        }
    }

    #[tokio::test]
    async fn compares_a_whole_file_with_the_md5_that_the_store_states() {
        let right = Md5::digest(b"helloworld").to_vec();
        let wrong = Md5::digest(b"").to_vec();
        for (name, start, stated, before, data, damaged) in [
            ("right", 0, right.clone(), 0, &b"helloworld"[..], false),
            ("wrong", 0, wrong.clone(), 0, b"helloworld", true),
            ("none", 0, Vec::new(), 0, b"helloworld", false),
            ("wrong, of a part", 1, wrong.clone(), 0, b"elloworld", false),
            ("right, in two pieces", 0, right.clone(), 5, b"world", false),
            ("wrong, in two pieces", 0, wrong.clone(), 5, b"world", true),
        ] {
            let first = DownloadHeader { stored_md5: stated, ..header(start, 10) };
            let mut sums = Sums::new(true);
            let mut stored = None;
            if before > 0 {
                sums.update(b"hello");
                stored = StoredMd5::of(&first);
                stored.as_mut().unwrap().sum.update(b"hello");
            }
            let mut transfer = transfer(first, stored, sums, data).await;
            assert_eq!(transfer.next().await.unwrap().unwrap(), data, "{name}");
            match transfer.next().await {
                Ok(end) => assert!(end.is_none() && !damaged, "{name}"),
                Err(Error::Call(e)) => {
                    assert!(damaged, "{name}: {e}");
                    assert_eq!((e.code, e.reason_name.as_str(), e.attempts), (Code::DataLoss, "", 0), "{name}");
                    assert!(e.message.contains("the MD5 that the store states"), "{e}");
                }
                Err(e) => panic!("{name}: {e}"),
            }
        }
    }
}
