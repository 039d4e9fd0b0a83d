use std::task::{Context, Poll};

use tonic::{
    Status,
    body::Body,
    codegen::{Service, http},
    metadata::MetadataMap,
};

use crate::{
    BoxFuture, Client,
    proto::{
        account_service_client::AccountServiceClient, conversation_service_client::ConversationServiceClient,
        file_sharing_service_client::FileSharingServiceClient, identity_service_client::IdentityServiceClient,
    },
};

/// Raw makes the generated clients, for calls and fields that this crate has no method for. Their calls carry the identity of the
/// [`Client`], are made once, and return the plain status. Its clones share the connection.
#[derive(Clone, Debug)]
pub struct Raw(Client);

impl Client {
    /// Returns the generated clients.
    pub fn raw(&self) -> Raw {
        Raw(self.clone())
    }
}

impl Raw {
    /// Returns the client of `FileSharingService`.
    pub fn files(&self) -> FileSharingServiceClient<Raw> {
        FileSharingServiceClient::new(self.clone())
    }

    /// Returns the client of `ConversationService`.
    pub fn conversations(&self) -> ConversationServiceClient<Raw> {
        ConversationServiceClient::new(self.clone())
    }

    /// Returns the client of `IdentityService`. Of its calls only `sign_out_agent` carries an identity.
    pub fn identity(&self) -> IdentityServiceClient<Raw> {
        IdentityServiceClient::new(self.clone())
    }

    /// Returns the client of `AccountService`.
    pub fn accounts(&self) -> AccountServiceClient<Raw> {
        AccountServiceClient::new(self.clone())
    }
}

impl Service<http::Request<Body>> for Raw {
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = BoxFuture<'static, Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let client = self.0.clone();
        Box::pin(async move {
            let attempt = client.attempt().await.map_err(|e| Status::unauthenticated(e.to_string()))?;
            let path = request.uri().path();
            if !path.contains("IdentityService/") || path.ends_with("/SignOutAgent") {
                let mut identity = MetadataMap::new();
                attempt.attach(&mut identity).map_err(|e| Status::unauthenticated(e.to_string()))?;
                request.headers_mut().extend(identity.into_headers());
            }
            attempt.http(request).await
        })
    }
}
