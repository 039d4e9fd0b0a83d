//! Uploads, downloads, listings and watches.

use std::{
    io::{self, SeekFrom},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use lpfileshare::{
    Client, DownloadOptions, Error, FilesOptions, Progress, Result, Source, UploadOptions, WatchOptions,
    proto::{self, ChecksumKind, FileType, ImageOptions, ParticipantRole, PublishMode},
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncSeek, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use crate::{
    Driver, event, lock,
    values::{self, file, hex, millis, number, text},
};

const PART: u64 = 64 << 10;

impl Driver {
    pub async fn upload(&self, id: &str, client: &Client, c: &Value) -> Result<Value> {
        let o = &c["options"];
        let list = |name: &str| o[name].as_array().cloned().unwrap_or_default();
        let preview = match o["preview"].as_str() {
            None | Some("") => None,
            Some("generate") => Some(proto::preview::Source::Generate(true)),
            Some(uri) => Some(proto::preview::Source::DataUri(uri.to_owned())),
        };
        let image = list("image");
        let has = |what: &str| image.iter().any(|v| v == what);
        let options = UploadOptions {
            conversation: text(&o["conversation"]),
            dialog_id: text(&o["dialogId"]),
            display_name: text(&o["displayName"]),
            file_type: FileType::from_str_name(&format!("FILE_TYPE_{}", text(&o["fileType"]))),
            caption: text(&o["caption"]),
            preview: preview.map(|source| proto::Preview { source: Some(source) }),
            image: (!image.is_empty()).then(|| ImageOptions { fit: has("fit"), strip_metadata: has("strip") }),
            request_id: text(&o["requestId"]),
            publish_mode: PublishMode::from_str_name(&format!("PUBLISH_MODE_{}", text(&o["publishMode"]))).unwrap_or_default(),
            validate_only: o["validateOnly"] == true,
            want_checksums: list("wantChecksums")
                .iter()
                .filter_map(|v| ChecksumKind::from_str_name(&format!("CHECKSUM_KIND_{}", text(v))))
                .collect(),
            on_progress: Some(progress(id)),
            chunk_bytes: Some(number(&o["chunkBytes"]) as usize).filter(|n| *n > 0),
            retry_for: millis(&o["retryForMs"]),
            timeout: millis(&c["deadlineMs"]),
        };
        let source = source(&c["source"]).await.map_err(Error::Source)?;
        let r = self.print(id, client.upload(options, source).await?);
        Ok(json!({
            "upload": r.upload, "requestId": r.request_id, "replayed": r.replayed, "previewOmitted": r.preview_omitted,
            "file": file(r.file.as_ref()), "image": values::image(r.image.as_ref()),
        }))
    }

    pub async fn download(&self, id: &str, client: &Client, c: &Value) -> Result<Value> {
        let o = &c["options"];
        let options = DownloadOptions {
            offset: number(&o["offset"]),
            limit: number(&o["limit"]),
            if_match_etag: text(&o["ifMatchEtag"]),
            chunk_bytes: number(&o["chunkBytes"]) as i32,
            on_progress: Some(progress(id)),
            retry_for: millis(&o["retryForMs"]),
            timeout: millis(&c["deadlineMs"]),
            ..text(&c["file"]).into()
        };
        let to = &c["sink"];
        let mut sink = Sink { fail_after: number(&to["failAfter"]) as u64, delay: Delay::new(&to["delayMs"]), ..Default::default() };
        let header = match to["kind"].as_str() {
            Some("path") => {
                let path = PathBuf::from(text(&to["path"]));
                let r = client.download_to(options, &path).await?;
                let mut written = tokio::fs::File::open(&path).await.map_err(Error::Sink)?;
                tokio::io::copy(&mut written, &mut sink).await.map_err(Error::Sink)?;
                r.header
            }
            Some("reader") => {
                let mut reader = client.download(options).await?;
                let copied = tokio::io::copy(&mut reader, &mut sink).await;
                copied.map_err(|e| e.downcast::<Error>().unwrap_or_else(Error::Sink))?;
                reader.header().clone()
            }
            _ => client.download_into(options, &mut sink).await?.header,
        };
        let header = self.print(id, header);
        let range = header.content_range.unwrap_or_default();
        Ok(json!({
            "file": file(header.file.as_ref()), "bytes": sink.n, "sha256": hex(&sink.hash.finalize()), "start": range.start_bytes,
            "total": range.total_bytes,
        }))
    }
}

/// Writes the first and last progress of an attempt, and one in each 256 KiB.
fn progress(id: &str) -> Progress {
    let id = id.to_owned();
    let last = Mutex::new(None);
    Arc::new(move |n, total| {
        let mut last = lock(&last);
        if last.is_none_or(|last| n < last || Some(n) == total || n >> 18 > last >> 18) {
            *last = Some(n);
            event(&id, json!({"progress": [n as i64, total.map_or(-1, |t| t as i64)]}));
        }
    })
}

async fn source(from: &Value) -> io::Result<Source> {
    let path = text(&from["path"]);
    if from["kind"] == "path" {
        return Ok(Path::new(&path).into());
    }
    let data = tokio::fs::read(path).await?;
    if from["kind"] == "bytes" {
        return Ok(data.into());
    }
    let mut first = data.clone();
    if let Some(n) = from["declaredBytes"].as_u64().filter(|n| *n > 0) {
        first.resize(n as usize, 0);
    }
    let passes = [first, data].map(Bytes::from);
    let reader = Slow { passes, pass: 0, n: 0, fail_after: number(&from["failAfter"]) as u64, delay: Delay::new(&from["delayMs"]) };
    if from["kind"] == "stream" {
        let stream = tokio_util::io::ReaderStream::with_capacity(reader.take(u64::MAX), 16 << 10);
        return Ok(Source::stream(stream));
    }
    Ok(Source::seekable(reader))
}

/// Delay waits after each 64 KiB.
#[derive(Default)]
struct Delay {
    time: Option<Duration>,
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Delay {
    fn new(ms: &Value) -> Self {
        Self { time: millis(ms), sleep: None }
    }

    /// Begins to wait if `after` is in another part than `before`.
    fn passed(&mut self, before: u64, after: u64) {
        if let Some(time) = self.time.filter(|_| after / PART > before / PART) {
            self.sleep = Some(Box::pin(sleep(time)));
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Some(sleep) = &mut self.sleep {
            ready!(sleep.as_mut().poll(cx));
            self.sleep = None;
        }
        Poll::Ready(())
    }
}

/// Slow is a source that fails and waits as the runner asks. Its first pass can have other bytes than later ones.
struct Slow {
    passes: [Bytes; 2],
    pass: usize,
    n: u64,
    fail_after: u64,
    delay: Delay,
}

impl AsyncRead for Slow {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.delay.poll(cx));
        let data = &this.passes[this.pass];
        let mut n = (data.len() as u64 - this.n).min(PART).min(buf.remaining() as u64);
        if this.fail_after > 0 {
            if this.n >= this.fail_after {
                return Poll::Ready(Err(io::Error::other("source failed")));
            }
            n = n.min(this.fail_after - this.n);
        }
        buf.put_slice(&data[this.n as usize..(this.n + n) as usize]);
        this.delay.passed(this.n, this.n + n);
        this.n += n;
        Poll::Ready(Ok(()))
    }
}

impl AsyncSeek for Slow {
    fn start_seek(mut self: Pin<&mut Self>, position: SeekFrom) -> io::Result<()> {
        match position {
            SeekFrom::Current(0) => Ok(()),
            SeekFrom::Start(0) => {
                if self.n > 0 {
                    self.pass = 1;
                }
                self.n = 0;
                Ok(())
            }
            _ => Err(io::Error::other("cannot seek there")),
        }
    }

    fn poll_complete(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<u64>> {
        Poll::Ready(Ok(self.n))
    }
}

/// Sink is a writer that fails and waits as the runner asks.
#[derive(Default)]
struct Sink {
    hash: Sha256,
    n: u64,
    fail_after: u64,
    delay: Delay,
}

impl AsyncWrite for Sink {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.delay.poll(cx));
        let (before, after) = (self.n, self.n + data.len() as u64);
        if self.fail_after > 0 && after > self.fail_after {
            return Poll::Ready(Err(io::Error::other("sink failed")));
        }
        self.hash.update(data);
        self.delay.passed(before, after);
        self.n = after;
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

pub async fn files(client: &Client, c: &Value) -> Result<Value> {
    let o = &c["options"];
    let role = ParticipantRole::from_str_name(&format!("PARTICIPANT_ROLE_{}", text(&o["senderRole"])));
    let mut list = client.files(FilesOptions {
        parent: text(&c["parent"]),
        newest_first: o["newestFirst"] == true,
        dialog_id: text(&o["dialogId"]),
        sender_role: role.unwrap_or_default(),
        page_size: number(&o["pageSize"]) as i32,
    });
    let all: Vec<_> = list.collect().await?.iter().map(|f| file(Some(f))).collect();
    let unreadable: Vec<_> = list.unreadable().iter().map(|u| u.name.clone()).collect();
    Ok(json!({"files": all, "watchToken": list.watch_token(), "unreadable": unreadable}))
}

pub async fn watch(id: &str, client: &Client, c: &Value) -> Result<Value> {
    let name = id.to_owned();
    let connection = move |open: bool| event(&name, json!({"connection": if open { "open" } else { "lost" }}));
    let mut watch = client.watch(WatchOptions {
        parent: text(&c["parent"]),
        token: text(&c["token"]),
        max_silence: millis(&c["maxSilenceMs"]),
        retry_for: millis(&c["retryForMs"]),
        on_connection: Some(Arc::new(connection)),
        ..Default::default()
    });
    let limit = number(&c["limit"]) as usize;
    let mut files = Vec::new();
    while let Some(f) = watch.next().await {
        let f = file(Some(&f?));
        event(id, json!({"file": f, "token": watch.token()}));
        files.push(f);
        if let Some(delay) = millis(&c["delayMs"]) {
            sleep(delay).await;
        }
        if limit > 0 && files.len() >= limit {
            break;
        }
    }
    Ok(json!({"files": files, "token": watch.token()}))
}
