"""Listings."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable  # sync: from collections.abc import Callable, Iterator

from ..types import Conversation, File, UnreadableConversation
from ..v1.conversation_service_pb2 import ListConversationsResponse
from ..v1.file_sharing_service_pb2 import ListFilesResponse


class AsyncFileList:
    """The files of a listing. Iterating reads page after page, and starts from the beginning each time."""

    def __init__(self, fetch: Callable[[str], Awaitable[ListFilesResponse]]) -> None:
        self._fetch = fetch
        self._watch_token = ""
        self._unreadable: dict[tuple[str, str], UnreadableConversation] = {}

    async def __aiter__(self) -> AsyncIterator[File]:
        page = ""
        self._unreadable = {}
        while True:
            response = await self._fetch(page)
            self._watch_token = response.watch_token or self._watch_token
            for u in response.unreadable_conversations:
                self._unreadable.setdefault((u.name, u.dialog_id), UnreadableConversation.of(u))
            for file in response.files:
                yield File.of(file)
            page = response.next_page_token
            if not page:
                return

    @property
    def watch_token(self) -> str:
        """The token that starts a watch exactly where the listing ends, so that no file is missed or repeated. Known once the listing
        was read; empty before."""
        return self._watch_token

    @property
    def unreadable(self) -> list[UnreadableConversation]:
        """The conversations that are left out, in part or as a whole, because the server could not read them. Known once the listing
        was read."""
        return [*self._unreadable.values()]


class AsyncConversationList:
    """Conversations, newest first. Iterating reads page after page, and starts from the beginning each time."""

    def __init__(self, fetch: Callable[[str], Awaitable[ListConversationsResponse]]) -> None:
        self._fetch = fetch

    async def __aiter__(self) -> AsyncIterator[Conversation]:
        page = ""
        while True:
            response = await self._fetch(page)
            for conversation in response.conversations:
                yield Conversation.of(conversation)
            page = response.next_page_token
            if not page:
                return
