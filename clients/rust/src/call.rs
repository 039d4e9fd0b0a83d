//! One call: its identity, its time limit, and the unary calls, which are repeated by the retry rule.

use std::{
    future::{Future, poll_fn},
    sync::Arc,
    time::Duration,
};

use tokio::time::timeout;
use tonic::{
    Request, Status,
    body::Body,
    client::Grpc,
    codegen::{
        Service,
        http::{self, uri::PathAndQuery},
    },
    metadata::MetadataMap,
    transport::Channel,
};
use tonic_prost::ProstCodec;

use crate::{
    Client,
    error::Result,
    identity::{Identity, Secret},
    retry::{Failure, Pacer},
    servers::{Server, Servers},
};

/// Method is a unary method of the contract.
pub(crate) struct Method {
    path: &'static str,
    /// The time limit of one attempt.
    timeout: Duration,
    /// Whether its calls carry an identity. Those that do may be repeated: they change nothing, are idempotent, or have a request
    /// id. Signing in and renewing are made once.
    identity: bool,
}

const fn method(path: &'static str, seconds: u64, identity: bool) -> Method {
    Method { path, timeout: Duration::from_secs(seconds), identity }
}

pub(crate) const SIGN_IN_CONSUMER: Method = method("/lpfileshare.v1.IdentityService/SignInConsumer", 30, false);
pub(crate) const RENEW_CONSUMER: Method = method("/lpfileshare.v1.IdentityService/RenewConsumer", 30, false);
pub(crate) const SIGN_IN_AGENT: Method = method("/lpfileshare.v1.IdentityService/SignInAgent", 30, false);
pub(crate) const SIGN_OUT_AGENT: Method = method("/lpfileshare.v1.IdentityService/SignOutAgent", 15, true);
pub(crate) const STAT_FILE: Method = method("/lpfileshare.v1.FileSharingService/StatFile", 15, true);
pub(crate) const GET_UPLOAD: Method = method("/lpfileshare.v1.FileSharingService/GetUpload", 15, true);
pub(crate) const PUBLISH_UPLOAD: Method = method("/lpfileshare.v1.FileSharingService/PublishUpload", 60, true);
pub(crate) const LIST_FILES: Method = method("/lpfileshare.v1.FileSharingService/ListFiles", 15, true);
pub(crate) const GET_CAPABILITIES: Method = method("/lpfileshare.v1.FileSharingService/GetCapabilities", 15, true);
pub(crate) const CREATE_CONVERSATION: Method = method("/lpfileshare.v1.ConversationService/CreateConversation", 15, true);
pub(crate) const GET_CONVERSATION: Method = method("/lpfileshare.v1.ConversationService/GetConversation", 15, true);
pub(crate) const LIST_CONVERSATIONS: Method = method("/lpfileshare.v1.ConversationService/ListConversations", 15, true);
pub(crate) const CLOSE_CONVERSATION: Method = method("/lpfileshare.v1.ConversationService/CloseConversation", 15, true);

pub(crate) const UPLOAD: &str = "/lpfileshare.v1.FileSharingService/Upload";
pub(crate) const DOWNLOAD: &str = "/lpfileshare.v1.FileSharingService/Download";
pub(crate) const WATCH_FILES: &str = "/lpfileshare.v1.FileSharingService/WatchFiles";

/// How long after the first attempt of a unary call another one may begin.
const UNARY_RETRY_FOR: Duration = Duration::from_secs(15);
const UNARY_ATTEMPTS: u32 = 4;

/// Attempt is one call: to one server, with one token.
pub(crate) struct Attempt {
    servers: Arc<Servers>,
    server: Arc<Server>,
    identity: Identity,
    token: Option<Secret>,
}

impl Attempt {
    pub fn grpc(&self) -> Grpc<Channel> {
        Grpc::new(self.server.channel.clone())
    }

    /// Returns a request with the identity. The limit tells the server when the client gives up. It is a second longer than the
    /// client's own timer: if the server's fired first, the call would end as CANCELLED or UNKNOWN instead of by the deadline.
    pub fn request<T>(&self, message: T, limit: Option<Duration>) -> Result<Request<T>> {
        let mut request = Request::new(message);
        if let Some(limit) = limit {
            request.set_timeout(limit + Duration::from_secs(1));
        }
        self.attach(request.metadata_mut())?;
        Ok(request)
    }

    /// Adds the identity to the metadata of a call.
    pub fn attach(&self, metadata: &mut MetadataMap) -> Result<()> {
        self.identity.attach(self.token.as_ref(), metadata)
    }

    /// Makes a call of a generated client.
    pub async fn http(&self, request: http::Request<Body>) -> Result<http::Response<Body>, Status> {
        let mut channel = self.server.channel.clone();
        poll_fn(|cx| channel.poll_ready(cx)).await.map_err(|e| Status::from_error(e.into()))?;
        channel.call(request).await.map_err(|e| Status::from_error(e.into()))
    }

    /// Notes a failure. avoid: calls should go to other servers for a while. It reports whether there is another server.
    pub fn failed(&self, avoid: bool) -> bool {
        if avoid {
            self.server.avoid();
        }
        self.servers.any_left()
    }

    /// Reports whether a rejected token could be replaced.
    pub async fn renew(&self) -> bool {
        match &self.token {
            Some(token) => matches!(self.identity.renew(token).await, Ok(Some(_))),
            None => false,
        }
    }
}

/// Limits the time of one attempt.
pub(crate) async fn within<T, E>(limit: Duration, attempt: impl Future<Output = Result<T, E>>) -> Result<T, E>
where
    E: From<Status>,
{
    timeout(limit, attempt).await.unwrap_or_else(|_| Err(Status::deadline_exceeded(format!("an attempt took more than {limit:?}")).into()))
}

pub(crate) async fn send<Q, R>(attempt: &Attempt, path: &'static str, request: Request<Q>) -> Result<R, Status>
where
    Q: prost::Message + 'static,
    R: prost::Message + Default + 'static,
{
    let mut grpc = attempt.grpc();
    ready(&mut grpc).await?;
    let codec = ProstCodec::<Q, R>::default();
    Ok(grpc.unary(request, PathAndQuery::from_static(path), codec).await?.into_inner())
}

/// Waits until a call can be made.
pub(crate) async fn ready(grpc: &mut Grpc<Channel>) -> Result<(), Status> {
    grpc.ready().await.map_err(|e| Status::from_error(e.into()))
}

impl Client {
    /// Chooses the server and the token of a call.
    pub(crate) async fn attempt(&self) -> Result<Attempt> {
        self.attempt_as(self.identity.clone()).await
    }

    async fn attempt_as(&self, identity: Identity) -> Result<Attempt> {
        let token = identity.token().await?;
        Ok(Attempt { servers: self.servers.clone(), server: self.servers.pick(), identity, token })
    }

    /// Makes a unary call. gRPC's own retry policy is not used: it does not read `RetryInfo`.
    pub(crate) async fn unary<Q, R>(&self, method: Method, request: Q) -> Result<R>
    where
        Q: prost::Message + Clone + 'static,
        R: prost::Message + Default + 'static,
    {
        let op = method.path.rsplit('/').next().unwrap_or_default();
        let mut pace = Pacer::new(op, UNARY_RETRY_FOR).max_attempts(UNARY_ATTEMPTS).repeatable(method.identity);
        loop {
            pace.begin();
            let identity = if method.identity { self.identity.clone() } else { Identity::none() };
            let attempt = self.attempt_as(identity).await?;
            let request = attempt.request(request.clone(), Some(method.timeout))?;
            let failure: Failure = match within(method.timeout, send(&attempt, method.path, request)).await {
                Ok(response) => return Ok(response),
                Err(status) => status.into(),
            };
            let next = pace.next(failure, &attempt).await?;
            pace.wait(next).await?;
        }
    }
}
