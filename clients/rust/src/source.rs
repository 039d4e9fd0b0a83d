use std::{
    io::{self, SeekFrom},
    path::{Path, PathBuf},
    pin::Pin,
};

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};
use tokio::{
    fs::File,
    io::{AsyncRead, AsyncReadExt, AsyncSeek, AsyncSeekExt},
};
use tokio_stream::Stream;
use tokio_util::io::StreamReader;

use crate::{filetype::SNIFF_BYTES, proto::Checksums};

/// Source is the bytes of an upload: a path, bytes in memory, or something that is read.
///
/// A source that can be read twice (a path of a file, bytes, [`Source::seekable`]) is read once for size and checksums, which are
/// sent first, and once for each attempt. Any other source is read once, so an attempt can follow only if nothing was read yet.
pub struct Source {
    kind: Kind,
    size: Option<u64>,
}

enum Kind {
    Path(PathBuf),
    Seek(Pin<Box<dyn ReadSeek>>),
    Once(Pin<Box<dyn AsyncRead + Send>>),
}

trait ReadSeek: AsyncRead + AsyncSeek + Send {}
impl<T: AsyncRead + AsyncSeek + Send> ReadSeek for T {}

impl Source {
    /// A reader that can be read once.
    pub fn reader(reader: impl AsyncRead + Send + 'static) -> Self {
        Self { kind: Kind::Once(Box::pin(reader)), size: None }
    }

    /// A reader that can be read again, from its current position.
    pub fn seekable(reader: impl AsyncRead + AsyncSeek + Send + 'static) -> Self {
        Self { kind: Kind::Seek(Box::pin(reader)), size: None }
    }

    /// A stream of bytes, which can be read once.
    pub fn stream(stream: impl Stream<Item = io::Result<Bytes>> + Send + 'static) -> Self {
        Self::reader(StreamReader::new(stream))
    }

    /// Declares the size in bytes of a source that can be read once, if it is known: the server then stores while it receives. Other
    /// sources are measured. An upload of more or fewer bytes fails.
    pub fn with_size(mut self, bytes: u64) -> Self {
        self.size = Some(bytes);
        self
    }

    /// Returns the last element of a path.
    pub(crate) fn name(&self) -> Option<String> {
        match &self.kind {
            Kind::Path(path) => path.file_name().map(|n| n.to_string_lossy().into_owned()),
            _ => None,
        }
    }

    /// Opens and measures the source. `need_head`: the first bytes of a source that can be read once are read too.
    pub(crate) async fn open(self, need_head: bool) -> io::Result<Opened> {
        let reader = match self.kind {
            Kind::Path(path) => {
                let file = File::open(&path).await.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
                // A pipe has a path too, and cannot seek.
                if file.metadata().await?.is_file() { Reader::Seek(Box::pin(file), 0) } else { Reader::Once(Box::pin(file)) }
            }
            Kind::Seek(mut reader) => {
                let start = reader.stream_position().await?;
                Reader::Seek(reader, start)
            }
            Kind::Once(reader) => Reader::Once(reader),
        };
        let mut opened = Opened { reader, size: self.size, checksums: None, head: Bytes::new(), taken: 0, pending: Bytes::new() };
        match opened.reader {
            Reader::Seek(..) => opened.measure().await?,
            Reader::Once(_) if need_head => {
                opened.head = opened.read(SNIFF_BYTES).await?;
                opened.pending = opened.head.clone();
                opened.taken = 0;
            }
            Reader::Once(_) => {}
        }
        Ok(opened)
    }
}

impl From<Bytes> for Source {
    fn from(bytes: Bytes) -> Self {
        Self::seekable(io::Cursor::new(bytes))
    }
}

impl From<Vec<u8>> for Source {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<&'static [u8]> for Source {
    fn from(bytes: &'static [u8]) -> Self {
        Bytes::from_static(bytes).into()
    }
}

impl From<PathBuf> for Source {
    fn from(path: PathBuf) -> Self {
        Self { kind: Kind::Path(path), size: None }
    }
}

impl From<&Path> for Source {
    fn from(path: &Path) -> Self {
        path.to_owned().into()
    }
}

enum Reader {
    Seek(Pin<Box<dyn ReadSeek>>, u64),
    Once(Pin<Box<dyn AsyncRead + Send>>),
}

/// Opened is a source that is ready for the first attempt.
pub(crate) struct Opened {
    reader: Reader,
    pub size: Option<u64>,
    /// None: not known, because the source can be read once.
    pub checksums: Option<Checksums>,
    /// The first bytes, for the file type.
    pub head: Bytes,
    /// The number of bytes that were read since the last rewind.
    taken: u64,
    /// Bytes of a source that can be read once, which `read` returns first.
    pending: Bytes,
}

impl Opened {
    /// Reads `n` bytes, and fewer only at the end of the source. If the future is dropped, its bytes count as read, so that `rewind`
    /// does not continue after them.
    pub async fn read(&mut self, n: usize) -> io::Result<Bytes> {
        let mut data = BytesMut::zeroed(n);
        let mut filled = self.pending.len().min(n);
        data[..filled].copy_from_slice(&self.pending.split_to(filled));
        self.taken += filled as u64;
        while filled < n {
            let got = match &mut self.reader {
                Reader::Seek(r, _) => r.read(&mut data[filled..]).await?,
                Reader::Once(r) => r.read(&mut data[filled..]).await?,
            };
            if got == 0 {
                break;
            }
            filled += got;
            self.taken += got as u64;
        }
        data.truncate(filled);
        Ok(data.freeze())
    }

    /// Prepares the source for another attempt. The error says why that is not possible.
    pub async fn rewind(&mut self) -> Result<(), String> {
        if self.taken == 0 {
            return Ok(());
        }
        match &mut self.reader {
            Reader::Seek(r, start) => {
                r.seek(SeekFrom::Start(*start)).await.map_err(|e| format!("the source cannot be rewound: {e}"))?;
                self.taken = 0;
                Ok(())
            }
            Reader::Once(_) => Err(format!(
                "the source can be read only once, and {} bytes of it were read; use a source that can seek, or send the whole file again \
                 under the same request id",
                self.taken
            )),
        }
    }

    async fn measure(&mut self) -> io::Result<()> {
        let mut sums = Sums::new(true);
        loop {
            let data = self.read(64 << 10).await?;
            if data.is_empty() {
                break;
            }
            if sums.bytes == 0 {
                self.head = data.slice(..data.len().min(SNIFF_BYTES));
            }
            sums.update(&data);
        }
        self.rewind().await.map_err(io::Error::other)?;
        if self.size.is_some_and(|declared| declared != sums.bytes) {
            return Err(io::Error::other(format!("it has {} bytes, declared were {}", sums.bytes, self.size.unwrap_or_default())));
        }
        self.size = Some(sums.bytes);
        self.checksums = Some(sums.finish());
        Ok(())
    }
}

/// Sums are the checksums of bytes that pass by.
#[derive(Clone, Default)]
pub(crate) struct Sums {
    pub bytes: u64,
    crc32c: u32,
    /// None: only the CRC-32C is computed.
    sha256: Option<Sha256>,
}

impl Sums {
    pub fn new(sha256: bool) -> Self {
        Self { sha256: sha256.then(Sha256::new), ..Default::default() }
    }

    pub fn update(&mut self, data: &[u8]) {
        self.bytes += data.len() as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, data);
        if let Some(sha256) = &mut self.sha256 {
            sha256.update(data);
        }
    }

    pub fn finish(self) -> Checksums {
        Checksums { crc32c: Some(self.crc32c), sha256: self.sha256.map_or(Vec::new(), |s| s.finalize().to_vec()) }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn seekable_is_measured_and_rewound() {
        let mut reader = io::Cursor::new(b"--hello".to_vec());
        reader.set_position(2);
        let mut s = Source::seekable(reader).open(true).await.unwrap();
        assert_eq!((s.size, &s.head[..]), (Some(5), &b"hello"[..]));
        assert_eq!(s.checksums.as_ref().unwrap().crc32c, Some(0x9a71_bb4c), "CRC-32C of hello");
        for _ in 0..2 {
            assert_eq!(s.read(100).await.unwrap(), "hello");
            s.rewind().await.unwrap();
        }
    }

    #[tokio::test]
    async fn stream_is_read_once() {
        let mut s = Source::reader(&b"hello"[..]).open(true).await.unwrap();
        assert_eq!((s.size, &s.head[..]), (None, &b"hello"[..]));
        s.rewind().await.expect("nothing was taken yet");
        assert_eq!(s.read(3).await.unwrap(), "hel");
        assert_eq!(s.read(3).await.unwrap(), "lo");
        assert!(s.rewind().await.unwrap_err().contains("5 bytes of it were read"));
    }

    #[tokio::test]
    async fn bytes_of_a_dropped_read_count() {
        let (mut writer, reader) = tokio::io::duplex(16);
        writer.write_all(b"hello").await.unwrap();
        let mut s = Source::reader(reader).open(false).await.unwrap();
        // The read gets five bytes and waits for more, as at the end of an attempt that breaks.
        tokio::select! {
            biased;
            _ = s.read(10) => panic!("there are not 10 bytes"),
            () = std::future::ready(()) => {}
        }
        assert!(s.rewind().await.unwrap_err().contains("5 bytes of it were read"));
    }

    #[tokio::test]
    async fn wrong_declared_size() {
        let e = Source::from(b"hello".as_slice()).with_size(6).open(false).await.err().unwrap();
        assert_eq!(e.to_string(), "it has 5 bytes, declared were 6");
    }
}
