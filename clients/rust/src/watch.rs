use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, timeout_at};
use tokio_stream::Stream;
use tonic::{Status, Streaming, codegen::http::uri::PathAndQuery};
use tonic_prost::ProstCodec;

use crate::{
    Client,
    call::{self, Attempt},
    error::Result,
    proto::{File, UnreadableConversation, WatchFilesRequest, WatchFilesResponse, watch_files_response::Event},
    retry::{Failure, Pacer},
    steps::Steps,
};

/// A watch without a message for this many intervals has lost its connection.
const MISSED_HEARTBEATS: u32 = 3;
/// The limit until the first heartbeat has reported the interval.
const FIRST_SILENCE: Duration = Duration::from_secs(90);
/// The lowest limit, however short the interval: a busy machine is not a lost connection.
const MIN_SILENCE: Duration = Duration::from_secs(1);
/// A watch is opened again after this time, so that every call has an end.
const MAX_AGE: Duration = Duration::from_secs(25 * 60);
/// A call that has sent messages for this long counts as progress.
const STEADY: Duration = Duration::from_secs(10);
/// As good as no limit.
const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// OnConnection is the callback of [`WatchOptions::on_connection`].
pub type OnConnection = Arc<dyn Fn(bool) + Send + Sync>;

/// OnUnreadable is the callback of [`WatchOptions::on_unreadable`].
pub type OnUnreadable = Arc<dyn Fn(&UnreadableConversation) + Send + Sync>;

/// WatchOptions selects the files of a watch. Only `parent` is required: end a literal with `..Default::default()`.
#[derive(Clone, Default)]
pub struct WatchOptions {
    /// `accounts/{account}/conversations/{conversation}`. "-" as `{conversation}`: all conversations of the caller.
    pub parent: String,
    /// Where the watch begins: [`Files::watch_token`](crate::Files::watch_token), or [`Watch::token`] of an earlier watch of the same
    /// parent. Empty: when the server opens the watch. If the connection breaks before the first message, it begins later than the
    /// first time; list the files first to have no such gap.
    pub token: String,
    /// Receives true when the watch is open (its first message has arrived, which is the heartbeat that the server sends at once), and
    /// false when the connection is lost and is about to be retried. It is called for changes only. It must return quickly.
    pub on_connection: Option<OnConnection>,
    /// Receives each conversation that the watch leaves out, because the server could not read it. Only a watch of all conversations
    /// does so. It must return quickly.
    pub on_unreadable: Option<OnUnreadable>,
    /// The time without any message after which the watch is opened again. None: three of the server's heartbeat intervals.
    pub max_silence: Option<Duration>,
    /// How long after the last progress another attempt may begin. None: for ever. Zero: one attempt, and two minutes for the
    /// connection.
    pub retry_for: Option<Duration>,
}

impl fmt::Debug for WatchOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchOptions").field("parent", &self.parent).finish_non_exhaustive()
    }
}

impl Client {
    /// Returns each file as it is published, by any sender. It makes no call before it is polled.
    ///
    /// The watch continues after its last message if the connection breaks or stays silent, the server shuts down, or it ends the call
    /// because the program was too slow. It ends only with an error, which is its last item; dropping it cancels it.
    pub fn watch(&self, options: WatchOptions) -> Watch {
        let token = Arc::new(Mutex::new(options.token.clone()));
        let watcher = Watcher {
            client: self.clone(),
            pace: Pacer::new("watch", options.retry_for.unwrap_or(FOREVER)),
            silence: options.max_silence.unwrap_or(FIRST_SILENCE),
            options,
            token: token.clone(),
            call: None,
            open: None,
            ended: false,
        };
        Watch { steps: Steps::Idle(Box::new(watcher)), token }
    }
}

/// Watch is a watch of files: a [`Stream`], or read by [`Watch::next`].
pub struct Watch {
    steps: Steps<Box<Watcher>, Option<Result<File>>>,
    token: Arc<Mutex<String>>,
}

impl Watch {
    /// Returns the next file. It can be used in `select!`: no file is lost if the future is dropped. None: the watch has ended, and the
    /// error before says why.
    pub async fn next(&mut self) -> Option<Result<File>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Returns the token that continues the watch, in this or another process, after the last file that `next` returned: store it when
    /// the file is processed. Heartbeats advance it too, so that it does not become too old while no file is published.
    pub fn token(&self) -> String {
        self.token.lock().expect("not poisoned").clone()
    }
}

impl Stream for Watch {
    type Item = Result<File>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.steps.poll(cx, |mut watcher| async {
            let next = watcher.next().await;
            (watcher, next)
        })
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watch").finish_non_exhaustive()
    }
}

struct Watcher {
    client: Client,
    options: WatchOptions,
    pace: Pacer,
    /// The time without any message after which a call is given up.
    silence: Duration,
    token: Arc<Mutex<String>>,
    call: Option<Call>,
    /// What `on_connection` was called with last.
    open: Option<bool>,
    ended: bool,
}

struct Call {
    attempt: Attempt,
    messages: Streaming<WatchFilesResponse>,
    opened: Instant,
    first: Option<Instant>,
}

impl Watcher {
    /// Returns the next file, over any number of calls.
    async fn next(&mut self) -> Option<Result<File>> {
        while !self.ended {
            let (failure, attempt) = match self.step().await {
                Ok(Some(file)) => return Some(Ok(file)),
                Ok(None) => continue,
                Err(Broken { failure, attempt }) => (failure, attempt),
            };
            if let Err(e) = self.retry(failure, attempt).await {
                self.ended = true;
                return Some(Err(e));
            }
        }
        None
    }

    async fn retry(&mut self, failure: Failure, attempt: Option<Attempt>) -> Result<()> {
        let next = match (failure, attempt) {
            (failure, Some(attempt)) => self.pace.next(failure, &attempt).await?,
            (Failure::Own(e), None) => return Err(e),
            _ => return Ok(()),
        };
        self.connection(false);
        self.pace.wait(next).await
    }

    /// Opens a call or receives one message. None: it was no file.
    async fn step(&mut self) -> Result<Option<File>, Broken> {
        let mut call = match self.call.take() {
            Some(call) => call,
            None => self.open().await?,
        };
        let silent_at = Instant::now() + self.silence;
        let aged_at = call.opened + MAX_AGE;
        let message = match timeout_at(silent_at.min(aged_at), call.messages.message()).await {
            Ok(Ok(Some(message))) => message,
            Ok(Ok(None)) => return Err(call.attempt.broken(Status::unavailable("the server ended the watch"))),
            Ok(Err(status)) => return Err(call.attempt.broken(status)),
            Err(_) if aged_at <= silent_at => return Ok(None), // the next step opens it again
            Err(_) => return Err(call.attempt.broken(self.silent())),
        };
        let first = *call.first.get_or_insert_with(Instant::now);
        self.call = Some(call);
        Ok(self.message(message, first))
    }

    async fn open(&mut self) -> Result<Call, Broken> {
        self.pace.begin();
        let own = |e| Broken { failure: Failure::Own(e), attempt: None };
        let attempt = self.client.attempt().await.map_err(own)?;
        let resume_token = self.token.lock().expect("not poisoned").clone();
        let request = WatchFilesRequest { parent: self.options.parent.clone(), resume_token };
        let request = attempt.request(request, None).map_err(own)?;
        let mut grpc = attempt.grpc();
        let opening = async {
            call::ready(&mut grpc).await?;
            let codec = ProstCodec::<WatchFilesRequest, WatchFilesResponse>::default();
            grpc.server_streaming(request, PathAndQuery::from_static(call::WATCH_FILES), codec).await
        };
        match timeout_at(Instant::now() + self.silence, opening).await {
            Ok(Ok(response)) => Ok(Call { attempt, messages: response.into_inner(), opened: Instant::now(), first: None }),
            Ok(Err(status)) => Err(attempt.broken(status)),
            Err(_) => Err(attempt.broken(self.silent())),
        }
    }

    fn silent(&self) -> Status {
        Status::unavailable(format!("no message for {:?}", self.silence))
    }

    fn message(&mut self, message: WatchFilesResponse, first: Instant) -> Option<File> {
        self.connection(true);
        if !message.resume_token.is_empty() {
            *self.token.lock().expect("not poisoned") = message.resume_token;
        }
        match message.event {
            Some(Event::File(file)) => {
                self.pace.progress();
                return Some(file);
            }
            Some(Event::Heartbeat(heartbeat)) => {
                let interval = heartbeat.interval.and_then(|d| Duration::try_from(d).ok()).unwrap_or_default();
                if !interval.is_zero() && self.options.max_silence.is_none() {
                    self.silence = (interval * MISSED_HEARTBEATS).max(MIN_SILENCE);
                }
                // The first heartbeat is no progress: a server or proxy that ends each call right after it would be called without
                // backoff.
                if first.elapsed() >= STEADY {
                    self.pace.progress();
                }
            }
            Some(Event::UnreadableConversation(conversation)) => {
                if let Some(f) = &self.options.on_unreadable {
                    f(&conversation);
                }
            }
            None => {} // an event that this version does not know
        }
        None
    }

    fn connection(&mut self, open: bool) {
        if self.open.replace(open) != Some(open) {
            if let Some(f) = &self.options.on_connection {
                f(open);
            }
        }
    }
}

/// Broken is the end of a call.
struct Broken {
    failure: Failure,
    attempt: Option<Attempt>,
}

impl Attempt {
    fn broken(self, status: Status) -> Broken {
        Broken { failure: status.into(), attempt: Some(self) }
    }
}
