use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, timeout};
use tonic::metadata::{AsciiMetadataValue, MetadataMap};

use crate::{
    Client,
    error::{Error, Result},
    proto::{RenewConsumerRequest, RenewConsumerResponse, SignInConsumerResponse},
};

/// How long before it expires a token is renewed.
const RENEW_BEFORE: Duration = Duration::from_secs(60);
/// How long one renewal may take.
const RENEW_TIMEOUT: Duration = Duration::from_secs(20);
/// How long after a failed renewal a token that has not expired is used without another try.
const RENEW_PAUSE: Duration = Duration::from_secs(5);

/// BoxFuture is what the methods of a [`TokenSource`] return: `Box::pin(async move { ... })`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Secret is a token or another secret text. It prints as `[secret]`. [`Secret::expose`] returns the text.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Returns the text. Do not log it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl<T: Into<String>> From<T> for Secret {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// TokenSource provides the token of each call. Texts are sources of one fixed token, and functions that return a future are sources.
///
/// A source that can get another token implements `renew`. Calls that run at the same time share one renewal, so an implementation
/// needs no lock for that. A renewal goes on if the call that asked for it is dropped.
pub trait TokenSource: Send + Sync + 'static {
    /// Returns the token to use now.
    fn token(&self) -> BoxFuture<'_, Result<Secret>>;

    /// Returns when the token expires. It is renewed a minute before. None: not known.
    fn expires(&self) -> Option<SystemTime> {
        None
    }

    /// Gets another token after the server rejected this one, or before it expires. Afterwards `token` returns the new one. None:
    /// there is no other one.
    fn renew(&self, rejected: Secret) -> BoxFuture<'_, Result<Option<Secret>>> {
        drop(rejected);
        Box::pin(async { Ok(None) })
    }
}

impl TokenSource for Secret {
    fn token(&self) -> BoxFuture<'_, Result<Secret>> {
        Box::pin(async { Ok(self.clone()) })
    }
}

impl TokenSource for String {
    fn token(&self) -> BoxFuture<'_, Result<Secret>> {
        Box::pin(async { Ok(self.as_str().into()) })
    }
}

impl TokenSource for &'static str {
    fn token(&self) -> BoxFuture<'_, Result<Secret>> {
        Box::pin(async { Ok((*self).into()) })
    }
}

/// A function is a source too. It is called for each call, and again if the server rejects the token: then it must return another one.
impl<F, R> TokenSource for F
where
    F: Fn() -> R + Send + Sync + 'static,
    R: Future<Output = Result<Secret>> + Send + 'static,
{
    fn token(&self) -> BoxFuture<'_, Result<Secret>> {
        Box::pin(self())
    }

    fn renew(&self, rejected: Secret) -> BoxFuture<'_, Result<Option<Secret>>> {
        let token = self();
        Box::pin(async move { Ok(Some(token.await?).filter(|t| *t != rejected)) })
    }
}

/// Identity is the caller of a call. Clones share the token and its renewal. It prints no token.
#[derive(Clone, Default)]
pub struct Identity(Option<Arc<Inner>>);

struct Inner {
    key: &'static str,
    source: Box<dyn TokenSource>,
    /// Held by the one renewal that runs.
    renewing: tokio::sync::Mutex<()>,
    failed: Mutex<Option<(Instant, String)>>,
}

impl Identity {
    /// A consumer with a LivePerson token: a text, a [`ConsumerTokens`] or another source.
    pub fn consumer(source: impl TokenSource) -> Self {
        Self::new("lp-consumer-token", source)
    }

    /// An agent or bot with a token from [`Client::sign_in_agent`].
    pub fn agent(source: impl TokenSource) -> Self {
        Self::new("lp-agent-token", source)
    }

    /// A consumer by the id that the brand knows, for accounts that the server has credentials of. The server accepts it only on
    /// connections that authenticate the caller: TLS with a client certificate, or loopback.
    pub fn external_consumer(id: impl Into<String>) -> Self {
        Self::new("lp-external-consumer-id", id.into())
    }

    /// No identity. Only signing in works without one.
    pub fn none() -> Self {
        Self(None)
    }

    fn new(key: &'static str, source: impl TokenSource) -> Self {
        let source = Box::new(source);
        Self(Some(Arc::new(Inner { key, source, renewing: tokio::sync::Mutex::new(()), failed: Mutex::new(None) })))
    }

    pub(crate) fn is_none(&self) -> bool {
        self.0.is_none()
    }

    /// Returns the token for a call. It is renewed first if it is about to expire. If that fails, the old one is used until it expires.
    pub(crate) async fn token(&self) -> Result<Option<Secret>> {
        let Some(inner) = &self.0 else { return Ok(None) };
        let current = inner.source.token().await?;
        let now = SystemTime::now();
        let Some(expires) = inner.source.expires().filter(|at| *at < now + RENEW_BEFORE) else {
            return Ok(Some(current));
        };
        let paused = Instant::now().checked_sub(RENEW_PAUSE).is_some_and(|since| inner.failure_since(since).is_some());
        if paused && now < expires {
            return Ok(Some(current));
        }
        match self.renew(&current).await {
            Err(e) if now >= expires => Err(e),
            Ok(Some(token)) => Ok(Some(token)),
            _ => Ok(Some(current)),
        }
    }

    /// Gets a token other than the rejected one. None: there is none.
    pub(crate) async fn renew(&self, rejected: &Secret) -> Result<Option<Secret>> {
        let Some(inner) = self.0.clone() else { return Ok(None) };
        let (rejected, since) = (rejected.clone(), Instant::now());
        // The task ends even if no call waits for it any more, because the server may have used up the old secret.
        let task = tokio::spawn(async move { inner.renew(rejected, since).await });
        task.await.unwrap_or_else(|e| Err(Error::Token(e.into())))
    }

    /// Adds the identity to the metadata of a call.
    pub(crate) fn attach(&self, token: Option<&Secret>, metadata: &mut MetadataMap) -> Result<()> {
        if let (Some(inner), Some(token)) = (&self.0, token) {
            let mut value = AsciiMetadataValue::try_from(token.expose())
                .map_err(|_| Error::Usage("the token has characters that are not valid in a header".to_owned()))?;
            value.set_sensitive(true);
            metadata.insert(inner.key, value);
        }
        Ok(())
    }
}

impl Inner {
    async fn renew(&self, rejected: Secret, since: Instant) -> Result<Option<Secret>> {
        let _running = self.renewing.lock().await;
        let current = self.source.token().await?;
        if current != rejected {
            return Ok(Some(current)); // another call has renewed it
        }
        if let Some(text) = self.failure_since(since) {
            return Err(Error::Token(text.into())); // another call has tried it meanwhile
        }
        let result = match timeout(RENEW_TIMEOUT, self.source.renew(rejected.clone())).await {
            Ok(result) => result.map(|token| token.filter(|t| *t != rejected)),
            Err(_) => Err(Error::Token(format!("the renewal took more than {RENEW_TIMEOUT:?}").into())),
        };
        if let Err(e) = &result {
            *self.failed.lock().expect("not poisoned") = Some((Instant::now(), e.to_string()));
        }
        result
    }

    fn failure_since(&self, since: Instant) -> Option<String> {
        let failed = self.failed.lock().expect("not poisoned");
        failed.as_ref().filter(|(at, _)| *at >= since).map(|(_, text)| text.clone())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.0.as_ref().map_or("none", |i| i.key))
    }
}

/// ConsumerSession is a signed-in consumer. It prints no secret. The client does not store it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConsumerSession {
    /// The account, `accounts/{account}`.
    pub account: String,
    /// The token for calls.
    pub token: Secret,
    /// When the token expires. None: not known.
    pub expires: Option<SystemTime>,
    /// Gets the next token. Empty: the session cannot be renewed.
    pub renewal_secret: Secret,
    /// LivePerson's id of the consumer.
    pub consumer_id: String,
}

impl ConsumerSession {
    pub(crate) fn signed_in(account: String, r: SignInConsumerResponse) -> Self {
        Self {
            account,
            token: r.consumer_token.into(),
            expires: r.expire_time.and_then(|t| t.try_into().ok()),
            renewal_secret: r.renewal_secret.into(),
            consumer_id: r.consumer_id,
        }
    }

    fn renewed(&self, r: RenewConsumerResponse) -> Self {
        Self {
            account: self.account.clone(),
            token: r.consumer_token.into(),
            expires: r.expire_time.and_then(|t| t.try_into().ok()),
            renewal_secret: r.renewal_secret.into(),
            consumer_id: r.consumer_id,
        }
    }
}

/// ConsumerTokens is a [`TokenSource`] that renews the token of a consumer a minute before it expires, and once when the server rejects
/// it. Clones share the session.
#[derive(Clone)]
pub struct ConsumerTokens(Arc<Tokens>);

struct Tokens {
    client: Client,
    session: Mutex<ConsumerSession>,
    on_renew: Box<dyn Fn(&ConsumerSession) + Send + Sync>,
}

impl ConsumerTokens {
    /// Returns a source for a session of [`Client::sign_in_consumer`]. It renews over the connection of `client`.
    pub fn new(client: &Client, session: ConsumerSession) -> Self {
        Self::with_callback(client, session, |_| {})
    }

    /// Returns a source that calls `on_renew` with each new session before a call uses it, for example to store it. The callback must
    /// return quickly.
    pub fn with_callback(
        client: &Client,
        mut session: ConsumerSession,
        on_renew: impl Fn(&ConsumerSession) + Send + Sync + 'static,
    ) -> Self {
        session.account = client.account_or(&session.account);
        let client = client.with_identity(Identity::none());
        Self(Arc::new(Tokens { client, session: Mutex::new(session), on_renew: Box::new(on_renew) }))
    }

    /// Returns the current session.
    pub fn session(&self) -> ConsumerSession {
        self.0.session.lock().expect("not poisoned").clone()
    }
}

impl TokenSource for ConsumerTokens {
    fn token(&self) -> BoxFuture<'_, Result<Secret>> {
        Box::pin(async { Ok(self.session().token) })
    }

    fn expires(&self) -> Option<SystemTime> {
        let session = self.session();
        session.expires.filter(|_| !session.renewal_secret.expose().is_empty())
    }

    fn renew(&self, _rejected: Secret) -> BoxFuture<'_, Result<Option<Secret>>> {
        Box::pin(async {
            let old = self.session();
            if old.renewal_secret.expose().is_empty() {
                return Ok(None);
            }
            let request = RenewConsumerRequest { account: old.account.clone(), renewal_secret: old.renewal_secret.expose().to_owned() };
            let response: RenewConsumerResponse = self.0.client.unary(crate::call::RENEW_CONSUMER, request).await?;
            if response.consumer_token.is_empty() {
                return Err(Error::Token("the response to the renewal has no token".into()));
            }
            let new = old.renewed(response);
            (self.0.on_renew)(&new);
            let token = new.token.clone();
            *self.0.session.lock().expect("not poisoned") = new;
            Ok(Some(token))
        })
    }
}

impl fmt::Debug for ConsumerTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ConsumerTokens").field(&self.session()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    struct Counting {
        renewals: Arc<AtomicUsize>,
        fails: bool,
    }

    impl TokenSource for Counting {
        fn token(&self) -> BoxFuture<'_, Result<Secret>> {
            Box::pin(async { Ok(format!("token-{}", self.renewals.load(Ordering::SeqCst)).into()) })
        }

        fn renew(&self, _: Secret) -> BoxFuture<'_, Result<Option<Secret>>> {
            Box::pin(async {
                tokio::task::yield_now().await;
                if self.fails {
                    return Err(Error::Token("no".into()));
                }
                self.renewals.fetch_add(1, Ordering::SeqCst);
                Ok(Some(self.token().await?))
            })
        }
    }

    #[tokio::test]
    async fn concurrent_calls_share_one_renewal() {
        let renewals = Arc::new(AtomicUsize::new(0));
        let identity = Identity::consumer(Counting { renewals: renewals.clone(), fails: false });
        let rejected = identity.token().await.unwrap().unwrap();
        let calls = (0..10).map(|_| {
            let (identity, rejected) = (identity.clone(), rejected.clone());
            tokio::spawn(async move { identity.renew(&rejected).await.unwrap().unwrap() })
        });
        for call in calls.collect::<Vec<_>>() {
            assert_eq!(call.await.unwrap().expose(), "token-1");
        }
        assert_eq!(renewals.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_function_is_a_source() {
        let calls = Arc::new(AtomicUsize::new(0));
        let identity = Identity::consumer(move || {
            let n = calls.fetch_add(1, Ordering::SeqCst);
            async move { Ok(Secret::from(format!("token-{}", n / 2))) }
        });
        assert_eq!(identity.token().await.unwrap().unwrap().expose(), "token-0");
        // Called twice: token-0 is still the one that was rejected, so it is asked for another one.
        assert_eq!(identity.renew(&"token-0".into()).await.unwrap().unwrap().expose(), "token-1");
    }

    #[tokio::test]
    async fn secrets_do_not_print() {
        let session = ConsumerSession { token: "hidden-1".into(), renewal_secret: "hidden-2".into(), ..Default::default() };
        let identity = Identity::consumer("hidden-3");
        let text = format!("{session:?} {session:#?} {identity:?} {:?}", Secret::from("hidden-4"));
        assert!(!text.contains("hidden"), "{text}");
    }

    #[tokio::test]
    async fn a_fixed_token_cannot_be_renewed() {
        let identity = Identity::consumer("t");
        assert!(identity.renew(&"t".into()).await.unwrap().is_none());
        let failing = Identity::consumer(Counting { renewals: Arc::default(), fails: true });
        assert!(failing.renew(&"token-0".into()).await.is_err());
    }
}
