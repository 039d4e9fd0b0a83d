use std::{env, fmt, fs, path::Path, sync::Arc};

use crate::{
    call,
    error::{Error, Result},
    identity::{ConsumerSession, Identity},
    proto::{
        CloseConversationRequest, CloseConversationResponse, Conversation, CreateConversationRequest, CreateConversationResponse, File,
        GetCapabilitiesRequest, GetCapabilitiesResponse, GetConversationRequest, GetConversationResponse, GetUploadRequest,
        GetUploadResponse, PublishUploadRequest, PublishUploadResponse, SignInAgentRequest, SignInAgentResponse, SignInConsumerRequest,
        SignInConsumerResponse, SignOutAgentRequest, SignOutAgentResponse, StatFileRequest, StatFileResponse, Upload,
        sign_in_agent_request::Credentials, sign_in_consumer_request::Grant, stat_file_request,
    },
    servers::{Servers, Tls},
};

const ACCOUNT_PREFIX: &str = "accounts/";

/// Client is a connection to an lpfileshare server, or to several, with the identity that its calls carry.
///
/// Clones are cheap and share the connection, which is closed when the last clone, transfer, listing and watch is dropped. Dropping the
/// future of a call cancels the call.
#[derive(Clone)]
pub struct Client {
    pub(crate) servers: Arc<Servers>,
    pub(crate) identity: Identity,
    account: String,
}

/// ClientBuilder collects the settings of a [`Client`]. It prints no token and no key.
#[derive(Clone, Default)]
pub struct ClientBuilder {
    target: String,
    account: String,
    identity: Identity,
    tls: Tls,
    user_agent: String,
}

impl ClientBuilder {
    /// Sets the account of requests that do not name one, as `{account}` or `accounts/{account}`.
    pub fn account(mut self, account: impl Into<String>) -> Self {
        self.account = account.into();
        self
    }

    /// Sets the identity of the calls.
    pub fn identity(mut self, identity: Identity) -> Self {
        self.identity = identity;
        self
    }

    /// Connects without TLS to any target. Tokens and files are then readable on the network: use it only if something else protects
    /// the connection, for example a service mesh.
    pub fn plaintext(mut self) -> Self {
        self.tls = Tls::Plaintext;
        self
    }

    /// Connects over TLS, with PEM texts: the only certificate authorities to trust (None: the system's), and the client certificate
    /// with its key (None: no client certificate).
    pub fn tls(mut self, ca: Option<Vec<u8>>, client_certificate_and_key: Option<(Vec<u8>, Vec<u8>)>) -> Self {
        self.tls = Tls::Files { ca, identity: client_certificate_and_key };
        self
    }

    /// Does the same as `tls` with the contents of files, which are read now. Certificate and key go together.
    pub fn tls_files(self, ca: Option<&Path>, certificate: Option<&Path>, key: Option<&Path>) -> Result<Self> {
        let read = |path: &Path| fs::read(path).map_err(|e| Error::Usage(format!("{}: {e}", path.display())));
        let ca = ca.map(read).transpose()?;
        let identity = match (certificate, key) {
            (Some(certificate), Some(key)) => Some((read(certificate)?, read(key)?)),
            (None, None) => None,
            _ => return Err(Error::Usage("client certificate and key must be set together".to_owned())),
        };
        Ok(self.tls(ca, identity))
    }

    /// Adds the name and version of a program to the user agent, before those of this crate.
    pub fn user_agent(mut self, agent: impl Into<String>) -> Self {
        self.user_agent = agent.into();
        self
    }

    /// Returns the client. It connects when the first call is made. Call it inside a tokio runtime, which runs the connection.
    pub fn connect_lazy(self) -> Result<Client> {
        let own = concat!("lpfileshare-rust/", env!("CARGO_PKG_VERSION"));
        let user_agent = format!("{} {own}", self.user_agent);
        let servers = Servers::new(&self.target, &self.tls, user_agent.trim_start())?;
        Ok(Client { servers: servers.into(), identity: self.identity, account: account_name(&self.account) })
    }

    /// Takes settings from the environment.
    fn from_env(get: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let get = |name: &str| get(name).filter(|value| !value.is_empty());
        let Some(address) = get("LPFILESHARE_ADDRESS") else {
            return Err(Error::Usage("LPFILESHARE_ADDRESS is not set; set it to HOST:PORT".to_owned()));
        };
        let mut builder = Client::builder(address).account(get("LPFILESHARE_ACCOUNT").unwrap_or_default());

        for (name, identity) in [
            ("LPFILESHARE_TOKEN", get("LPFILESHARE_TOKEN").map(Identity::consumer)),
            ("LPFILESHARE_AGENT_TOKEN", get("LPFILESHARE_AGENT_TOKEN").map(Identity::agent)),
            ("LPFILESHARE_EXTERNAL_CONSUMER_ID", get("LPFILESHARE_EXTERNAL_CONSUMER_ID").map(Identity::external_consumer)),
        ] {
            let Some(identity) = identity else { continue };
            if !builder.identity.is_none() {
                return Err(Error::Usage(format!("{name} is a second identity; a call carries exactly one")));
            }
            builder.identity = identity;
        }

        let [ca, certificate, key] = ["LPFILESHARE_TLS_CA", "LPFILESHARE_CLIENT_CERT", "LPFILESHARE_CLIENT_KEY"].map(get);
        let tls = ca.is_some() || certificate.is_some() || key.is_some();
        let plaintext = get("LPFILESHARE_PLAINTEXT").unwrap_or_default().to_ascii_lowercase();
        match plaintext.as_str() {
            "true" | "1" | "yes" if tls => {
                Err(Error::Usage("LPFILESHARE_PLAINTEXT excludes LPFILESHARE_TLS_CA and LPFILESHARE_CLIENT_CERT".to_owned()))
            }
            "true" | "1" | "yes" => Ok(builder.plaintext()),
            "false" | "0" | "no" | "" if tls => {
                builder.tls_files(ca.as_deref().map(Path::new), certificate.as_deref().map(Path::new), key.as_deref().map(Path::new))
            }
            "false" | "0" | "no" | "" => Ok(builder),
            _ => Err(Error::Usage(format!("LPFILESHARE_PLAINTEXT is {plaintext:?}, must be true or false"))),
        }
    }
}

impl fmt::Debug for ClientBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientBuilder")
            .field("target", &self.target)
            .field("account", &self.account)
            .field("identity", &self.identity)
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Returns a builder for a target: "HOST:PORT", or several servers that share a ledger, "HOST:PORT,HOST:PORT". The port is 443
    /// if there is none.
    ///
    /// Calls take turns over several servers and avoid one that cannot be reached. An interrupted upload is repeated on the next one
    /// under the same request id. A host name with several addresses is one server: the connection goes to the first that answers.
    ///
    /// The connection uses TLS with the system's certificate authorities. To loopback addresses and Unix sockets ("unix:/path") it is
    /// plaintext. [`ClientBuilder::tls`] and [`ClientBuilder::plaintext`] change that.
    pub fn builder(target: impl Into<String>) -> ClientBuilder {
        ClientBuilder { target: target.into(), ..Default::default() }
    }

    /// Returns a builder with the settings of the environment:
    ///
    /// | variable | |
    /// | --- | --- |
    /// | `LPFILESHARE_ADDRESS` | the target; required |
    /// | `LPFILESHARE_ACCOUNT` | the account |
    /// | `LPFILESHARE_TOKEN` | a consumer token |
    /// | `LPFILESHARE_AGENT_TOKEN` | an agent token |
    /// | `LPFILESHARE_EXTERNAL_CONSUMER_ID` | the brand's id of a consumer |
    /// | `LPFILESHARE_TLS_CA` | PEM file with the only certificate authorities to trust |
    /// | `LPFILESHARE_CLIENT_CERT`, `LPFILESHARE_CLIENT_KEY` | PEM files of the client certificate |
    /// | `LPFILESHARE_PLAINTEXT` | `true`: no TLS, to any address |
    ///
    /// At most one identity may be set. The builder's methods take precedence.
    pub fn from_env() -> Result<ClientBuilder> {
        ClientBuilder::from_env(|name| env::var(name).ok())
    }

    /// Returns a client with another identity on the same connection.
    pub fn with_identity(&self, identity: Identity) -> Self {
        Self { identity, ..self.clone() }
    }

    /// Returns the resource name of the account that was set, `accounts/{account}`. Empty: none.
    pub fn account(&self) -> &str {
        &self.account
    }

    /// Signs in a consumer. It is never repeated after the request was sent: a second sign-in is another sign-in.
    ///
    /// [`ConsumerTokens`](crate::ConsumerTokens) makes an identity of the session.
    pub async fn sign_in_consumer(&self, grant: Grant) -> Result<ConsumerSession> {
        let request = SignInConsumerRequest { account: self.account.clone(), grant: Some(grant) };
        let response: SignInConsumerResponse = self.unary(call::SIGN_IN_CONSUMER, request).await?;
        Ok(ConsumerSession::signed_in(self.account.clone(), response))
    }

    /// Signs in an agent or a bot. It is never repeated after the request was sent. The token of the response is secret: the response
    /// prints without it.
    pub async fn sign_in_agent(&self, credentials: Credentials) -> Result<SignInAgentResponse> {
        let request = SignInAgentRequest { account: self.account.clone(), credentials: Some(credentials) };
        self.unary(call::SIGN_IN_AGENT, request).await
    }

    /// Ends the login of the agent or bot whose token this client carries. The token is invalid afterwards, on every connection. A
    /// repeat is not an error.
    pub async fn sign_out_agent(&self) -> Result<()> {
        let _: SignOutAgentResponse = self.unary(call::SIGN_OUT_AGENT, SignOutAgentRequest { account: self.account.clone() }).await?;
        Ok(())
    }

    /// Returns the limits, file types and times of the server for the client's account.
    pub async fn capabilities(&self) -> Result<GetCapabilitiesResponse> {
        self.unary(call::GET_CAPABILITIES, GetCapabilitiesRequest { account: self.account.clone() }).await
    }

    /// Returns the metadata of a file, including the store's size and ETag. `name` is its resource name.
    pub async fn stat(&self, name: impl Into<String>) -> Result<File> {
        let request = StatFileRequest { source: Some(stat_file_request::Source::Name(name.into())) };
        let response: StatFileResponse = self.unary(call::STAT_FILE, request).await?;
        Ok(response.file.unwrap_or_default())
    }

    /// Returns the state of an upload of this caller. `name` is `accounts/{account}/uploads/{request_id}`.
    pub async fn get_upload(&self, name: impl Into<String>) -> Result<Upload> {
        let response: GetUploadResponse = self.unary(call::GET_UPLOAD, GetUploadRequest { name: name.into() }).await?;
        Ok(response.upload.unwrap_or_default())
    }

    /// Publishes the file of an upload that was only stored, exactly once. `name` is `accounts/{account}/uploads/{request_id}`. A repeat
    /// returns the published file.
    pub async fn publish_upload(&self, name: impl Into<String>) -> Result<PublishUploadResponse> {
        self.unary(call::PUBLISH_UPLOAD, PublishUploadRequest { name: name.into() }).await
    }

    /// Opens a conversation for the calling consumer. An empty account is set to the client's, and an empty request id to a new one, so
    /// that a repeat after a lost response does not open a second conversation.
    pub async fn create_conversation(&self, mut request: CreateConversationRequest) -> Result<Conversation> {
        request.account = self.account_or(&request.account);
        if request.request_id.is_empty() {
            request.request_id = uuid::Uuid::new_v4().to_string();
        }
        let response: CreateConversationResponse = self.unary(call::CREATE_CONVERSATION, request).await?;
        Ok(response.conversation.unwrap_or_default())
    }

    /// Returns a conversation by its resource name.
    pub async fn get_conversation(&self, name: impl Into<String>) -> Result<Conversation> {
        let response: GetConversationResponse = self.unary(call::GET_CONVERSATION, GetConversationRequest { name: name.into() }).await?;
        Ok(response.conversation.unwrap_or_default())
    }

    /// Closes a conversation and all its dialogs. Closing a closed conversation is not an error.
    pub async fn close_conversation(&self, name: impl Into<String>) -> Result<Conversation> {
        let request = CloseConversationRequest { name: name.into() };
        let response: CloseConversationResponse = self.unary(call::CLOSE_CONVERSATION, request).await?;
        Ok(response.conversation.unwrap_or_default())
    }

    /// Returns the resource name of an account, or of the client's if it is empty.
    pub(crate) fn account_or(&self, account: &str) -> String {
        if account.is_empty() { self.account.clone() } else { account_name(account) }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("account", &self.account).field("identity", &self.identity).finish_non_exhaustive()
    }
}

/// Returns the resource name of an account, given its id or its name.
fn account_name(account: &str) -> String {
    if account.is_empty() || account.starts_with(ACCOUNT_PREFIX) { account.to_owned() } else { format!("{ACCOUNT_PREFIX}{account}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(vars: &[(&str, &str)]) -> Result<ClientBuilder> {
        ClientBuilder::from_env(|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned()))
    }

    #[test]
    fn environment() {
        let address = ("LPFILESHARE_ADDRESS", "files.example.com:443");
        let b = from(&[address, ("LPFILESHARE_ACCOUNT", "1"), ("LPFILESHARE_TOKEN", "hidden")]).unwrap();
        assert_eq!(
            format!("{b:?}"),
            r#"ClientBuilder { target: "files.example.com:443", account: "1", identity: Identity(lp-consumer-token), .. }"#
        );
        assert!(matches!(from(&[address, ("LPFILESHARE_PLAINTEXT", "Yes")]).unwrap().tls, Tls::Plaintext));
        for wrong in [
            &[][..],
            &[address, ("LPFILESHARE_TOKEN", "a"), ("LPFILESHARE_AGENT_TOKEN", "b")],
            &[address, ("LPFILESHARE_PLAINTEXT", "perhaps")],
            &[address, ("LPFILESHARE_PLAINTEXT", "true"), ("LPFILESHARE_TLS_CA", "ca.pem")],
            &[address, ("LPFILESHARE_CLIENT_CERT", "client.pem")],
            &[address, ("LPFILESHARE_TLS_CA", "does-not-exist.pem")],
        ] {
            assert!(matches!(from(wrong), Err(Error::Usage(_))), "{wrong:?}");
        }
    }

    #[test]
    fn account_names() {
        assert_eq!([account_name("1"), account_name("accounts/1"), account_name("")], ["accounts/1", "accounts/1", ""]);
    }
}
