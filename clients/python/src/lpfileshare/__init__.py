"""Sends files into LivePerson conversations and reads them back, through an lpfileshare server.

    with lpfileshare.Client("127.0.0.1:50051", identity=lpfileshare.ConsumerToken(token)) as client:
        client.upload("cat.jpg", conversation=name, caption="Hello Kitten")
        for file in client.files(name):
            print(file.name)

AsyncClient has the same methods as coroutines. Both apply the retry rule of the contract, verify every byte, and raise
LpFileShareError.
"""

from __future__ import annotations

from ._async.client import AsyncClient
from ._async.download import AsyncDownloadStream
from ._async.files import AsyncConversationList, AsyncFileList
from ._async.upload import AsyncSource
from ._async.watch import AsyncWatch
from ._cancellation import Cancellation
from ._filetype import detect_file_type
from ._secret import Secret
from ._source import Source
from ._sync.client import Client
from ._sync.download import DownloadStream
from ._sync.files import ConversationList, FileList
from ._sync.watch import Watch
from ._version import __version__
from .errors import (
    Cancelled,
    ConnectionLost,
    DeadlineExceeded,
    FieldViolation,
    LpFileShareError,
    SourceError,
    WatchResetError,
)
from .identity import AgentToken, ConsumerToken, ExternalConsumerId, Identity, RenewedSession, TokenSource
from .types import (
    AgentSession,
    Capabilities,
    Checksums,
    ConsumerSession,
    Conversation,
    ConversationState,
    Dialog,
    DownloadResult,
    File,
    FileRef,
    FileType,
    ImageChange,
    ImageMetadata,
    Participant,
    ParticipantRole,
    PublishResult,
    StoredFile,
    UnreadableConversation,
    UploadResult,
    UploadState,
    UploadStatus,
)

__all__ = [
    # Clients.
    "Client",
    "AsyncClient",
    "Cancellation",
    # What they return to iterate over or to read.
    "FileList",
    "AsyncFileList",
    "Watch",
    "AsyncWatch",
    "DownloadStream",
    "AsyncDownloadStream",
    "ConversationList",
    "AsyncConversationList",
    # Identities.
    "Identity",
    "ConsumerToken",
    "AgentToken",
    "ExternalConsumerId",
    "RenewedSession",
    "TokenSource",
    "ConsumerSession",
    "AgentSession",
    "Secret",
    # Errors.
    "LpFileShareError",
    "ConnectionLost",
    "WatchResetError",
    "SourceError",
    "DeadlineExceeded",
    "Cancelled",
    "FieldViolation",
    # Values.
    "AsyncSource",
    "Capabilities",
    "Checksums",
    "Conversation",
    "ConversationState",
    "Dialog",
    "DownloadResult",
    "File",
    "FileRef",
    "FileType",
    "ImageChange",
    "ImageMetadata",
    "Participant",
    "ParticipantRole",
    "PublishResult",
    "Source",
    "StoredFile",
    "UnreadableConversation",
    "UploadResult",
    "UploadState",
    "UploadStatus",
    "__version__",
    "detect_file_type",
]
