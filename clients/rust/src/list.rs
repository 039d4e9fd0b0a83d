use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio_stream::Stream;

use crate::{
    BoxFuture, Client, call,
    error::Result,
    proto::{
        Conversation, ConversationState, File, ListConversationsRequest, ListConversationsResponse, ListFilesRequest, ListFilesResponse,
        ParticipantRole, UnreadableConversation,
    },
};

/// FilesOptions selects files. Only `parent` is required: end a literal with `..Default::default()`. A name of a parent converts into it.
#[derive(Clone, Debug, Default)]
pub struct FilesOptions {
    /// `accounts/{account}/conversations/{conversation}`. "-" as `{conversation}`: all conversations of the caller.
    pub parent: String,
    /// The newest file first, by creation time. Otherwise the oldest message first, by conversation and dialog.
    pub newest_first: bool,
    /// Only files of this dialog. Empty: of all dialogs.
    pub dialog_id: String,
    /// Only files of senders with this role. Unspecified: of all senders.
    pub sender_role: ParticipantRole,
    /// The maximum number of files in a request. 0: the server's default.
    pub page_size: i32,
}

impl<T: Into<String>> From<T> for FilesOptions {
    fn from(parent: T) -> Self {
        Self { parent: parent.into(), ..Default::default() }
    }
}

/// ConversationsOptions selects conversations.
#[derive(Clone, Debug, Default)]
pub struct ConversationsOptions {
    /// The account, as `{account}` or `accounts/{account}`. Empty: the client's.
    pub account: String,
    /// Only conversations in this state. Unspecified: all.
    pub state: ConversationState,
}

impl Client {
    /// Returns the files of a conversation, or of all conversations of the caller. It reads page after page as it is polled. The stream
    /// ends after an error.
    pub fn files(&self, options: impl Into<FilesOptions>) -> Files {
        let (client, o) = (self.clone(), options.into());
        let mut request = ListFilesRequest {
            parent: o.parent,
            page_size: o.page_size,
            page_token: String::new(),
            newest_first: o.newest_first,
            dialog_id: o.dialog_id,
            sender_role: o.sender_role.into(),
        };
        let fetch = move |page_token| -> BoxFuture<'static, Result<ListFilesResponse>> {
            request.page_token = page_token;
            let (client, request) = (client.clone(), request.clone());
            Box::pin(async move { client.unary(call::LIST_FILES, request).await })
        };
        Files { pages: Pages::new(fetch), watch_token: String::new(), unreadable: Vec::new() }
    }

    /// Returns the conversations that the caller takes part in, the newest first. It reads page after page as it is polled. The stream
    /// ends after an error.
    pub fn conversations(&self, options: ConversationsOptions) -> Conversations {
        let client = self.clone();
        let mut request =
            ListConversationsRequest { account: self.account_or(&options.account), state: options.state.into(), ..Default::default() };
        let fetch = move |page_token| -> BoxFuture<'static, Result<ListConversationsResponse>> {
            request.page_token = page_token;
            let (client, request) = (client.clone(), request.clone());
            Box::pin(async move { client.unary(call::LIST_CONVERSATIONS, request).await })
        };
        Conversations { pages: Pages::new(fetch) }
    }
}

/// Files is a listing of files: a [`Stream`], or read by [`Files::next`] and [`Files::collect`]. It makes no call before it is polled.
pub struct Files {
    pages: Pages<ListFilesResponse, File>,
    watch_token: String,
    unreadable: Vec<UnreadableConversation>,
}

impl Files {
    /// Returns the next file. None: the listing has ended.
    pub async fn next(&mut self) -> Option<Result<File>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Returns all files that follow.
    pub async fn collect(&mut self) -> Result<Vec<File>> {
        let mut files = Vec::new();
        while let Some(file) = self.next().await {
            files.push(file?);
        }
        Ok(files)
    }

    /// Returns the token that starts a watch exactly where the listing ends, so that no file is missed or repeated. Empty: the listing was
    /// not read yet.
    pub fn watch_token(&self) -> &str {
        &self.watch_token
    }

    /// Returns the conversations that the listing leaves out, in part or as a whole, because the server could not read them. They are
    /// known at the end of the listing.
    pub fn unreadable(&self) -> &[UnreadableConversation] {
        &self.unreadable
    }
}

impl Stream for Files {
    type Item = Result<File>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        this.pages.poll_next(cx, |page| {
            if !page.watch_token.is_empty() {
                this.watch_token = page.watch_token;
            }
            for u in page.unreadable_conversations {
                if !this.unreadable.iter().any(|known| (&known.name, &known.dialog_id) == (&u.name, &u.dialog_id)) {
                    this.unreadable.push(u);
                }
            }
            (page.files, page.next_page_token)
        })
    }
}

impl fmt::Debug for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Files").finish_non_exhaustive()
    }
}

/// Conversations is a listing of conversations: a [`Stream`], or read by [`Conversations::next`]. It makes no call before it is polled.
pub struct Conversations {
    pages: Pages<ListConversationsResponse, Conversation>,
}

impl Conversations {
    /// Returns the next conversation. None: the listing has ended.
    pub async fn next(&mut self) -> Option<Result<Conversation>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for Conversations {
    type Item = Result<Conversation>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.pages.poll_next(cx, |page| (page.conversations, page.next_page_token))
    }
}

impl fmt::Debug for Conversations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conversations").finish_non_exhaustive()
    }
}

/// Pages reads a listing page after page.
struct Pages<P, T> {
    fetch: Box<dyn FnMut(String) -> BoxFuture<'static, Result<P>> + Send>,
    /// The page that is being read.
    page: Option<BoxFuture<'static, Result<P>>>,
    /// The token of the page after it. None: there is none.
    next: Option<String>,
    items: VecDeque<T>,
}

impl<P, T> Pages<P, T> {
    fn new(fetch: impl FnMut(String) -> BoxFuture<'static, Result<P>> + Send + 'static) -> Self {
        Self { fetch: Box::new(fetch), page: None, next: Some(String::new()), items: VecDeque::new() }
    }

    /// Returns the next item. `split` returns the items of a page and the token of the next one.
    fn poll_next(&mut self, cx: &mut Context<'_>, mut split: impl FnMut(P) -> (Vec<T>, String)) -> Poll<Option<Result<T>>> {
        loop {
            if let Some(item) = self.items.pop_front() {
                return Poll::Ready(Some(Ok(item)));
            }
            if self.page.is_none() {
                let Some(token) = self.next.take() else { return Poll::Ready(None) };
                self.page = Some((self.fetch)(token));
            }
            let Some(page) = &mut self.page else { return Poll::Ready(None) };
            let result = ready!(page.as_mut().poll(cx));
            self.page = None;
            match result {
                Ok(page) => {
                    let (items, token) = split(page);
                    self.items = items.into();
                    self.next = Some(token).filter(|token| !token.is_empty());
                }
                Err(e) => return Poll::Ready(Some(Err(e))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pages() {
        // Page n has n items, the last page is the third. An empty page is not the end.
        let fetch = |token: String| -> BoxFuture<'static, Result<i32>> { Box::pin(async move { Ok(token.parse().unwrap_or(0)) }) };
        let mut pages = Pages::<i32, i32>::new(fetch);
        let split = |n: i32| (vec![n; n as usize], if n == 2 { String::new() } else { (n + 1).to_string() });
        let mut all = Vec::new();
        while let Some(item) = poll_fn(|cx| pages.poll_next(cx, split)).await {
            all.push(item.unwrap());
        }
        assert_eq!(all, [1, 2, 2]);
    }
}
