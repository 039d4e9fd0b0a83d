"""The client."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, Self

import grpc

# sync: from .._cancellation import Cancellation
from .._local import replacing
from .._parts import Download, DownloadOptions
from .._retry import RETRY_FOR
from .._secret import HiddenMetadata, Secret
from .._sync import connection as blocking  # sync:
from .._target import StrPath, environment, make_settings
from .._uploads import CHUNK_BYTES, UploadOptions
from ..errors import LpFileShareError
from ..identity import Identity, RenewedSession
from ..types import (
    AgentSession,
    Capabilities,
    ConsumerSession,
    Conversation,
    ConversationState,
    DownloadResult,
    File,
    FileRef,
    FileType,
    ParticipantRole,
    PublishResult,
    UnreadableConversation,
    UploadResult,
    UploadStatus,
    account_name,
    set_source,
)
from ..v1 import (
    conversation_service_pb2 as conversations_pb,
    file_sharing_service_pb2 as files_pb,
    identity_service_pb2 as identity_pb,
)
from ..v1.conversation_service_pb2 import ConversationState as ConversationStateValue
from ..v1.file_pb2 import ParticipantRole as ParticipantRoleValue
from .caller import AsyncCaller
from .connection import AsyncConnection, AsyncServer
from .download import AsyncDownloadStream
from .files import AsyncConversationList, AsyncFileList
from .identity import BoundIdentity
from .io import Operation
from .upload import AsyncSource, run_upload
from .watch import AsyncWatch

_SIGN_IN_LIMIT = 30.0  # seconds
_RENEW_LIMIT = 20.0  # seconds
_PUBLISH_LIMIT = 60.0  # seconds for one attempt


class AsyncClient:
    """A client of an lpfileshare server, or of several that share a ledger, with the identity that its calls carry.

    target is HOST:PORT, several with commas between them, or a target of gRPC such as "dns:///files.example.com:443". Calls are
    spread over the servers. One that was not reached is tried after the others; one that stops responding is given up after 40 seconds.

    The connection uses TLS with gRPC's built-in certificate authorities. To loopback addresses it is plaintext. tls_ca is a PEM file
    with the only authorities to trust; client_cert and client_key are PEM files too. plaintext is for networks where something else
    protects the connection. credentials replaces all of these. user_agent is put before that of this package, and options are added
    to gRPC's channel options.

    Methods take timeout, the seconds for the whole operation with all its attempts, and raise DeadlineExceeded after it. To cancel
    an asynchronous method, cancel its task. The synchronous ones take cancel: see Cancellation. All errors of calls are LpFileShareError.

    The client connects on demand. The synchronous one can be used by any number of threads, the asynchronous one by the tasks of one
    event loop. The caller closes it, for example by a with block.
    """

    def __init__(
        self,
        target: str,
        *,
        identity: Identity | ConsumerSession | None = None,
        account: str = "",
        tls_ca: StrPath | None = None,
        client_cert: StrPath | None = None,
        client_key: StrPath | None = None,
        plaintext: bool = False,
        credentials: grpc.ChannelCredentials | None = None,
        user_agent: str = "",
        options: Sequence[tuple[str, Any]] = (),
    ) -> None:
        settings = make_settings(
            target,
            tls_ca=tls_ca,
            client_cert=client_cert,
            client_key=client_key,
            plaintext=plaintext,
            credentials=credentials,
            user_agent=user_agent,
            options=options,
        )
        self._target, self._account = target, account_name(account)
        self._connection = AsyncConnection(settings)
        self._uploads = blocking.Connection(settings)  # sync:
        self._identify(identity)

    @classmethod
    def from_env(cls, **overrides: Any) -> Self:
        """Returns a client with the settings of the environment: LPFILESHARE_ADDRESS, LPFILESHARE_ACCOUNT, one of LPFILESHARE_TOKEN,
        LPFILESHARE_AGENT_TOKEN and LPFILESHARE_EXTERNAL_CONSUMER_ID, and LPFILESHARE_TLS_CA, LPFILESHARE_CLIENT_CERT,
        LPFILESHARE_CLIENT_KEY, LPFILESHARE_PLAINTEXT. overrides are arguments of the class and take precedence."""
        return cls(**environment(os.environ, overrides))

    def as_(self, identity: Identity | ConsumerSession | None) -> Self:
        """Returns a client with another identity on the same connection. Closing either closes both. None: no identity."""
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        other._identify(identity)
        return other

    def _identify(self, identity: Identity | ConsumerSession | None) -> None:
        if isinstance(identity, ConsumerSession):
            identity = RenewedSession(identity)
        self._identity = identity
        self._bound = BoundIdentity(identity, self._renew)
        self._caller = AsyncCaller(self._connection, self._bound)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._target!r}, identity={self._identity!r})"

    def __reduce__(self) -> str | tuple[Any, ...]:
        raise TypeError("a client cannot be pickled; make one in each process")

    @property
    def account(self) -> str:
        """Resource name of the account that calls use by default, accounts/{account}. Empty: none."""
        return self._account

    async def close(self) -> None:
        """Ends the connections and every call on them."""
        await self._connection.close()
        self._uploads.close()  # sync:

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def raw(self) -> AsyncServer:
        """The generated stubs of one server: raw.files, raw.conversations, raw.identity and raw.accounts. Their calls raise gRPC's own
        errors, are not repeated, and need metadata."""
        return self._connection.pick()

    async def metadata(self) -> HiddenMetadata:
        """Returns the identity of a call of raw: raw.files.StatFile(request, metadata=...)."""
        return self._bound.metadata(await self._bound.token(Operation("metadata", None)))

    async def upload(
        self,
        source: AsyncSource,
        *,
        conversation: str,
        dialog_id: str = "",
        display_name: str = "",
        file_type: FileType | None = None,
        caption: str = "",
        preview: str | None = None,
        fit_image: bool = False,
        strip_image: bool = False,
        request_id: str = "",
        store_only: bool = False,
        validate_only: bool = False,
        want_sha256: bool = False,
        on_progress: Callable[[int, int | None], object] | None = None,
        on_accepted: Callable[[str], object] | None = None,
        chunk_bytes: int = CHUNK_BYTES,
        retry_for: float = RETRY_FOR,
        timeout: float | None = None,
        # sync: cancel: Cancellation | None = None,
    ) -> UploadResult:
        """Sends a file into a conversation. Returns once it is stored, verified and, unless store_only is set, published exactly once.

        source is the path of a file, bytes, a binary file, or an iterable of bytes. It is read to its end, from a thread, and is not
        kept in memory. It is not closed, unless it is a path. A source that can be read twice (a path, bytes, a file that can seek,
        from its current position) is read once for size and checksums, which are sent first, and once for each attempt. Any other is
        read once, so an attempt can follow only if nothing was read yet.

        conversation: accounts/{account}/conversations/{conversation}.
        dialog_id: a dialog of the conversation; by default the main dialog.
        display_name: a file name; by default that of a path. It is not sent to LivePerson.
        file_type: by default detected from the first bytes and the name: see detect_file_type.
        caption: text that is shown with the file.
        preview: "generate", or a data URI of a small image, "data:image/jpeg;base64,...".
        fit_image: makes an image fit the size limit. strip_image: removes data that is not visible, such as the location.
        request_id: a UUID; by default a new one. Set it to repeat an upload whose result is not known: the file is published once,
        however often it is sent.
        store_only: the file is not published: see publish_upload.
        validate_only: checks what can be checked without the bytes, and changes nothing.
        want_sha256: the result has the SHA-256 of the file.
        on_progress(sent, total): bytes that were passed to the connection, which can be more than have arrived, and of all (None: not
        known). It starts at 0 for each attempt. on_accepted(request_id): the server has accepted the upload. Both must return quickly.
        The synchronous client calls on_progress from another thread.
        chunk_bytes: bytes in a message, up to 1 MiB.
        retry_for: seconds after the beginning in which another attempt may begin. Negative: one attempt.

        Raises SourceError if the source fails, and LpFileShareError, with request_id set, if the call fails. finished says whether the
        file may have been published nevertheless. ValueError and TypeError: the arguments are wrong.
        """
        options = UploadOptions(
            conversation=conversation,
            dialog_id=dialog_id,
            display_name=display_name,
            file_type=file_type,
            caption=caption,
            preview=preview,
            fit_image=fit_image,
            strip_image=strip_image,
            request_id=request_id,
            store_only=store_only,
            validate_only=validate_only,
            want_sha256=want_sha256,
            on_progress=on_progress,
            on_accepted=on_accepted,
            chunk_bytes=chunk_bytes,
            retry_for=retry_for,
        )
        # sync: return run_upload(self._caller, source, options, timeout, cancel)
        return await run_upload(self._uploads, self._bound, source, options, timeout)  # sync:

    async def download(
        self,
        file: FileRef,
        dest: StrPath | BinaryIO,
        *,
        offset: int = 0,
        limit: int = 0,
        if_match_etag: str = "",
        chunk_bytes: int = 0,
        verify_sha256: bool = False,
        on_progress: Callable[[int, int], object] | None = None,
        retry_for: float = RETRY_FOR,
        timeout: float | None = None,
        # sync: cancel: Cancellation | None = None,
    ) -> DownloadResult:
        """Downloads a file, or a part of it, to a path or a binary file.

        The bytes are verified, and a whole file also against the MD5 that the store states. A path is written completely or not at all,
        through a temporary file in the same directory (mode 0600). An existing file is replaced. A binary file is written to and not
        closed; after an error it has received a correct beginning of the file, unless the error says that the file was damaged in the
        store or on the way from it. Its own errors are raised unchanged.

        file: a resource name, a File, or a StoredFile.
        offset: the first byte. Negative: this many bytes before the end. limit: the maximum number of bytes; 0: to the end.
        if_match_etag: fails with FILE_CHANGED unless the file has this ETag.
        chunk_bytes: the maximum number of bytes in a message, 1 KiB to 1 MiB; 0: the server's default.
        verify_sha256: verifies SHA-256 too; CRC-32C always is.
        on_progress(received, total): bytes that were verified, and of all. It must return quickly.
        retry_for: seconds after the last progress in which another attempt may begin. Negative: one attempt.
        """
        if isinstance(dest, (str, os.PathLike)):
            with replacing(dest) as writer:
                return await self.download(
                    file,
                    writer,
                    offset=offset,
                    limit=limit,
                    if_match_etag=if_match_etag,
                    chunk_bytes=chunk_bytes,
                    verify_sha256=verify_sha256,
                    on_progress=on_progress,
                    retry_for=retry_for,
                    timeout=timeout,
                    # sync: cancel=cancel,
                )
        stream = await self.open_download(
            file,
            offset=offset,
            limit=limit,
            if_match_etag=if_match_etag,
            chunk_bytes=chunk_bytes,
            verify_sha256=verify_sha256,
            on_progress=on_progress,
            retry_for=retry_for,
            timeout=timeout,
            # sync: cancel=cancel,
        )
        async with stream:
            async for data in stream:
                dest.write(data)
            return stream.complete()

    async def open_download(
        self,
        file: FileRef,
        *,
        offset: int = 0,
        limit: int = 0,
        if_match_etag: str = "",
        chunk_bytes: int = 0,
        verify_sha256: bool = False,
        on_progress: Callable[[int, int], object] | None = None,
        retry_for: float = RETRY_FOR,
        timeout: float | None = None,
        # sync: cancel: Cancellation | None = None,
    ) -> AsyncDownloadStream:
        """Opens a file, or a part of it, for reading. Returns when the first bytes have arrived, so errors such as FILE_NOT_FOUND are
        raised here. timeout limits the whole download. The arguments are those of download. The caller closes the stream."""
        options = DownloadOptions(file, offset, limit, if_match_etag, chunk_bytes, verify_sha256)
        op = Operation("download", timeout)  # sync: op = Operation("download", timeout, cancel)
        stream = AsyncDownloadStream(self._caller, op, Download(options, on_progress), retry_for)
        return await stream.start()

    def files(
        self,
        parent: str,
        *,
        newest_first: bool = False,
        dialog_id: str = "",
        sender_role: ParticipantRole = ParticipantRole.UNSPECIFIED,
        page_size: int = 0,
        timeout: float | None = None,
        # sync: cancel: Cancellation | None = None,
    ) -> AsyncFileList:
        """Returns the files of a conversation: iterate over the result. It makes no call before.

        parent: accounts/{account}/conversations/{conversation}; "-" as {conversation}: all conversations of the caller.
        newest_first: sorts by creation time. Otherwise the oldest comes first, by conversation and dialog.
        sender_role: only files of senders with this role; UNSPECIFIED: all. page_size: files in a request; 0: the server's default.
        timeout: seconds for each page.
        """

        async def fetch(page: str) -> files_pb.ListFilesResponse:
            op = Operation("list files", timeout)  # sync: op = Operation("list files", timeout, cancel)
            request = files_pb.ListFilesRequest(
                parent=parent,
                page_size=page_size,
                page_token=page,
                newest_first=newest_first,
                dialog_id=dialog_id,
                sender_role=ParticipantRoleValue.ValueType(sender_role),
            )
            return await self._caller.unary(op, lambda s: s.files.ListFiles, request)

        return AsyncFileList(fetch)

    def watch(
        self,
        parent: str,
        *,
        token: str = "",
        on_connection: Callable[[LpFileShareError | None], object] | None = None,
        on_unreadable: Callable[[UnreadableConversation], object] | None = None,
        max_silence: float | None = None,
        retry_for: float = float("inf"),
        timeout: float | None = None,
        # sync: cancel: Cancellation | None = None,
    ) -> AsyncWatch:
        """Returns each file as it is published, by any sender: iterate over the result. It continues from its last message if the
        connection breaks or stays silent, or the server shuts down. It raises WatchResetError if it cannot.

        parent: as for files.
        token: where the watch begins: watch_token of a listing, or token of an earlier watch of the same parent. By default when the
        server opens the watch; list the files first to miss none.
        on_connection(None): the watch is open. on_connection(error): the connection is lost and is about to be retried. It is called
        for changes only. on_unreadable receives each conversation that a watch of all conversations leaves out.
        max_silence: seconds without any message after which the watch is opened again; by default three heartbeat intervals.
        retry_for: seconds after the last progress in which another attempt may begin. Negative: one attempt.
        timeout: seconds for the whole watch.
        """
        op = Operation("watch", timeout)  # sync: op = Operation("watch", timeout, cancel)
        return AsyncWatch(
            self._caller,
            op,
            parent,
            token,
            on_connection=on_connection,
            on_unreadable=on_unreadable,
            max_silence=max_silence,
            retry_for=retry_for,
        )

    async def stat(
        self,
        file: FileRef,
        *,
        timeout: float | None = None,
        # sync: cancel: Cancellation | None = None,
    ) -> File:
        """Returns the metadata of a file, with the store's size and ETag."""
        op = Operation("stat", timeout)  # sync: op = Operation("stat", timeout, cancel)
        request = files_pb.StatFileRequest()
        set_source(request, file)
        response = await self._caller.unary(op, lambda s: s.files.StatFile, request)
        return File.of(response.file)

    async def get_upload(
        self,
        name: str,
        *,
        timeout: float | None = None,
        # sync: cancel: Cancellation | None = None,
    ) -> UploadStatus:
        """Returns the state of an upload of this caller. name is UploadResult.upload: accounts/{account}/uploads/{request_id}."""
        op = Operation("get upload", timeout)  # sync: op = Operation("get upload", timeout, cancel)
        request = files_pb.GetUploadRequest(name=name)
        response = await self._caller.unary(op, lambda s: s.files.GetUpload, request)
        return UploadStatus.of(response.upload)

    async def publish_upload(
        self,
        name: str,
        *,
        timeout: float | None = None,
        # sync: cancel: Cancellation | None = None,
    ) -> PublishResult:
        """Publishes the file of an upload that was stored with store_only, exactly once. A repeat returns the published file. name is
        UploadResult.upload."""
        op = Operation("publish upload", timeout)  # sync: op = Operation("publish upload", timeout, cancel)
        request = files_pb.PublishUploadRequest(name=name)
        response = await self._caller.unary(op, lambda s: s.files.PublishUpload, request, _PUBLISH_LIMIT)
        return PublishResult(File.of(response.file), response.replayed)

    async def capabilities(
        self,
        account: str = "",
        *,
        timeout: float | None = None,
        # sync: cancel: Cancellation | None = None,
    ) -> Capabilities:
        """Returns the limits, file types and times of the server for an account; by default the client's."""
        op = Operation("get capabilities", timeout)  # sync: op = Operation("get capabilities", timeout, cancel)
        request = files_pb.GetCapabilitiesRequest(account=self._account_name(account))
        return Capabilities.of(await self._caller.unary(op, lambda s: s.files.GetCapabilities, request))

    async def create_conversation(
        self,
        account: str = "",
        *,
        request_id: str = "",
        skill_id: str = "",
        campaign: conversations_pb.Campaign | None = None,
        context: conversations_pb.ConversationContext | None = None,
        timeout: float | None = None,
        # sync: cancel: Cancellation | None = None,
    ) -> Conversation:
        """Opens a conversation for the calling consumer. request_id is a UUID, by default a new one, under which the call is repeated:
        a repeat returns the conversation that the first one created."""
        op = Operation("create conversation", timeout)  # sync: op = Operation("create conversation", timeout, cancel)
        request = conversations_pb.CreateConversationRequest(
            account=self._account_name(account),
            request_id=request_id or str(uuid.uuid4()),
            skill_id=skill_id,
            campaign=campaign,
            context=context,
        )
        response = await self._caller.unary(op, lambda s: s.conversations.CreateConversation, request)
        return Conversation.of(response.conversation)

    async def get_conversation(
        self,
        name: str,
        *,
        timeout: float | None = None,
        # sync: cancel: Cancellation | None = None,
    ) -> Conversation:
        """Returns a conversation that the caller takes part in."""
        op = Operation("get conversation", timeout)  # sync: op = Operation("get conversation", timeout, cancel)
        request = conversations_pb.GetConversationRequest(name=name)
        response = await self._caller.unary(op, lambda s: s.conversations.GetConversation, request)
        return Conversation.of(response.conversation)

    async def close_conversation(
        self,
        name: str,
        *,
        timeout: float | None = None,
        # sync: cancel: Cancellation | None = None,
    ) -> Conversation:
        """Closes a conversation and all its dialogs. Closing a closed conversation is not an error."""
        op = Operation("close conversation", timeout)  # sync: op = Operation("close conversation", timeout, cancel)
        request = conversations_pb.CloseConversationRequest(name=name)
        response = await self._caller.unary(op, lambda s: s.conversations.CloseConversation, request)
        return Conversation.of(response.conversation)

    def conversations(
        self,
        account: str = "",
        *,
        state: ConversationState = ConversationState.UNSPECIFIED,
        page_size: int = 0,
        timeout: float | None = None,
        # sync: cancel: Cancellation | None = None,
    ) -> AsyncConversationList:
        """Returns the conversations that the caller takes part in, newest first: iterate over the result. timeout: seconds for each
        page."""

        async def fetch(page: str) -> conversations_pb.ListConversationsResponse:
            op = Operation("list conversations", timeout)  # sync: op = Operation("list conversations", timeout, cancel)
            request = conversations_pb.ListConversationsRequest(
                account=self._account_name(account),
                page_size=page_size,
                page_token=page,
                state=ConversationStateValue.ValueType(state),
            )
            return await self._caller.unary(op, lambda s: s.conversations.ListConversations, request)

        return AsyncConversationList(fetch)

    async def sign_in_consumer(
        self,
        account: str = "",
        *,
        sign_up: bool = False,
        connector_id: str = "",
        customer_jwt: str = "",
        auth_code: str = "",
        timeout: float | None = None,
        # sync: cancel: Cancellation | None = None,
    ) -> ConsumerSession:
        """Signs in a consumer, in one of four ways: as a new consumer (sign_up, for trials), as an unauthenticated one (connector_id), or
        with a JWT or an authorization code of the brand. The call is never repeated: a second sign-in is another sign-in. The client
        does not keep the session: pass it to as_."""
        if [sign_up, bool(connector_id), bool(customer_jwt), bool(auth_code)].count(True) != 1:
            raise ValueError("set one of sign_up, connector_id, customer_jwt and auth_code")
        op = Operation("sign in consumer", timeout)  # sync: op = Operation("sign in consumer", timeout, cancel)
        jwt, code, name = Secret(customer_jwt), Secret(auth_code), self._account_name(account)
        del customer_jwt, auth_code

        def request() -> identity_pb.SignInConsumerRequest:
            if jwt:
                return identity_pb.SignInConsumerRequest(account=name, customer_jwt=jwt.reveal())
            if code:
                return identity_pb.SignInConsumerRequest(account=name, auth_code=code.reveal())
            if connector_id:
                anonymous = identity_pb.AnonymousSignIn(connector_id=connector_id)
                return identity_pb.SignInConsumerRequest(account=name, anonymous=anonymous)
            return identity_pb.SignInConsumerRequest(account=name, sign_up=identity_pb.SignUp())

        response = await self._caller.once(op, lambda s: s.identity.SignInConsumer, request, _SIGN_IN_LIMIT)
        return ConsumerSession.of(response)

    async def sign_in_agent(
        self,
        username: str,
        password: str = "",
        *,
        account: str = "",
        bot_keys: identity_pb.BotKeys | None = None,
        timeout: float | None = None,
        # sync: cancel: Cancellation | None = None,
    ) -> AgentSession:
        """Signs in an agent with a password, or a bot with bot_keys, whose user name is set. The call is never repeated. Pass
        AgentToken(session.token) to as_."""
        op = Operation("sign in agent", timeout)  # sync: op = Operation("sign in agent", timeout, cancel)
        request = identity_pb.SignInAgentRequest(account=self._account_name(account))
        if bot_keys is not None:
            request.bot_keys.CopyFrom(bot_keys)
            request.bot_keys.username = username
        else:
            request.password.username, request.password.password = username, password
        hidden = request.SerializeToString
        del password, bot_keys, request
        response = await self._caller.once(
            op, lambda s: s.identity.SignInAgent, lambda: identity_pb.SignInAgentRequest.FromString(hidden()), _SIGN_IN_LIMIT
        )
        return AgentSession.of(response)

    async def sign_out_agent(
        self,
        account: str = "",
        *,
        timeout: float | None = None,
        # sync: cancel: Cancellation | None = None,
    ) -> None:
        """Ends the login of the agent or bot whose token this client carries. The token is invalid afterwards. A repeat is not an
        error."""
        op = Operation("sign out agent", timeout)  # sync: op = Operation("sign out agent", timeout, cancel)
        request = identity_pb.SignOutAgentRequest(account=self._account_name(account))
        await self._caller.unary(op, lambda s: s.identity.SignOutAgent, request)

    async def renew_consumer(
        self,
        session: ConsumerSession,
        *,
        account: str = "",
        timeout: float | None = None,
        # sync: cancel: Cancellation | None = None,
    ) -> ConsumerSession:
        """Returns a new session of the same consumer. session cannot be renewed afterwards. A client with a session as its identity
        renews it by itself. The call is never repeated."""
        if not session.renewal_secret:
            raise ValueError("this session cannot be renewed; sign in again")
        op = Operation("renew consumer", timeout)  # sync: op = Operation("renew consumer", timeout, cancel)
        name = self._account_name(account)

        def request() -> identity_pb.RenewConsumerRequest:
            return identity_pb.RenewConsumerRequest(account=name, renewal_secret=session.renewal_secret.reveal())

        response = await self._caller.once(op, lambda s: s.identity.RenewConsumer, request, _RENEW_LIMIT)
        return ConsumerSession.of(response)

    async def _renew(self, session: ConsumerSession) -> ConsumerSession:
        """Renews the session of this client's identity."""
        renewed = await self.renew_consumer(session)
        if not renewed.token:
            raise LpFileShareError("the server's response has no token", op="renew consumer")
        if isinstance(self._identity, RenewedSession) and self._identity.on_renew is not None:
            self._identity.on_renew(renewed)
        return renewed

    def _account_name(self, account: str) -> str:
        return account_name(account) or self._account
