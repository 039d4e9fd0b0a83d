"""What calls take and return. Times are aware datetimes in UTC, sizes and offsets are in bytes, durations are timedeltas."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from typing import Self

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from ._secret import Secret
from .v1 import conversation_service_pb2, error_reason_pb2, file_pb2, file_sharing_service_pb2, identity_service_pb2


class _OpenEnum(IntEnum):
    """An enum of the contract. A value that this version does not know is kept, as a member named UNKNOWN_{number}."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        if not isinstance(value, int):
            return None
        member = int.__new__(cls, value)
        member._name_, member._value_ = f"UNKNOWN_{value}", value
        return member


class FileType(_OpenEnum):
    """The type of a file."""

    UNSPECIFIED = 0
    JPEG = 1
    PNG = 2
    GIF = 3
    PDF = 4
    TXT = 5
    DOCX = 6
    XLSX = 7
    PPTX = 8


class ParticipantRole(_OpenEnum):
    """A participant's role in a conversation."""

    UNSPECIFIED = 0
    CONSUMER = 1
    ASSIGNED_AGENT = 2
    MANAGER = 3
    READER = 4
    CONTROLLER = 5
    AGENT = 6


class ConversationState(_OpenEnum):
    """The state of a conversation or dialog. The files of a closed one can still be read."""

    UNSPECIFIED = 0
    OPEN = 1
    CLOSED = 2


class UploadState(_OpenEnum):
    """The state of the latest attempt of an upload. PUBLISHING: its result is not known; repeat the upload to settle it."""

    UNSPECIFIED = 0
    RECEIVING = 1
    STORED = 2
    PUBLISHING = 3
    PUBLISHED = 4
    FAILED = 5


class ImageMetadata(_OpenEnum):
    """A kind of data in an image other than its pixels."""

    UNSPECIFIED = 0
    EXIF = 1
    XMP = 2
    IPTC = 3
    COMMENT = 4
    COLOR_PROFILE = 5
    OTHER = 6


@dataclass(frozen=True)
class Checksums:
    """Checksums of a file, or of a part of it."""

    crc32c: int | None = None
    """CRC-32C (Castagnoli). None: not known."""
    sha256: bytes = b""
    """32 bytes. Empty: not known."""

    @classmethod
    def of(cls, m: file_pb2.Checksums) -> Self:
        """Converts a message of the contract."""
        return cls(m.crc32c if m.HasField("crc32c") else None, m.sha256)


@dataclass(frozen=True)
class File:
    """A file of a conversation: sent in a message, or stored to be sent."""

    name: str
    """Resource name, accounts/{account}/conversations/{conversation}/files/{file}."""
    file_type: FileType = FileType.UNSPECIFIED
    content_type: str = ""
    """Media type, for example "image/jpeg". Empty if file_type is unspecified."""
    size_bytes: int | None = None
    """Size of the stored object. None: not known. LivePerson rebuilds files after the upload, so it can change."""
    display_name: str = ""
    """Only the uploader's own responses have it."""
    caption: str = ""
    create_time: datetime | None = None
    """When LivePerson accepted the message. For a file that is not published: when it was stored."""
    sender_role: ParticipantRole = ParticipantRole.UNSPECIFIED
    sender_id: str = ""
    """LivePerson's id of the sender."""
    dialog_id: str = ""
    message_sequence: int | None = None
    """Sequence number of the message in its dialog, from 0. None: the file is stored and not published."""
    etag: str = ""
    """The store's ETag, without quotes. Empty if not known."""
    uploaded_checksums: Checksums = field(default_factory=Checksums)
    """Checksums of the bytes that the server stored. Only the uploader's own responses have them."""
    preview_data_uri: str = field(default="", repr=False)
    """"data:image/...;base64,...". Empty: none, or not sent in this response."""
    storage_path: str = ""
    """LivePerson's relativePath, "/v1/AUTH_...", without host, signature or expiry."""
    lp_file_type: str = ""
    """The type as LivePerson's message spells it."""
    image_width: int = 0
    """Pixels, before any EXIF rotation. 0: not an image, or not known."""
    image_height: int = 0
    """Pixels, before any EXIF rotation. 0: not an image, or not known."""

    @classmethod
    def of(cls, m: file_pb2.File) -> Self:
        """Converts a message of the contract."""
        return cls(
            name=m.name,
            file_type=FileType(m.file_type),
            content_type=m.content_type,
            size_bytes=m.stored_size_bytes if m.HasField("stored_size_bytes") else None,
            display_name=m.display_name,
            caption=m.caption,
            create_time=_time(m.create_time) if m.HasField("create_time") else None,
            sender_role=ParticipantRole(m.sender_role),
            sender_id=m.sender_id,
            dialog_id=m.dialog_id,
            message_sequence=m.message_sequence if m.HasField("message_sequence") else None,
            etag=m.etag,
            uploaded_checksums=Checksums.of(m.uploaded_checksums),
            preview_data_uri=m.preview_data_uri,
            storage_path=m.storage_path,
            lp_file_type=m.lp_file_type,
            image_width=m.image_width,
            image_height=m.image_height,
        )


@dataclass(frozen=True)
class StoredFile:
    """Identifies a file by its place in the store, if its resource name is not known."""

    conversation: str
    """accounts/{account}/conversations/{conversation}."""
    storage_path: str
    """LivePerson's relativePath, "/v1/AUTH_...": the whole path."""
    dialog_id: str = ""
    """Empty: any dialog of the conversation."""


FileRef = str | File | StoredFile
"""A file: its resource name, a File of another call, or its place in the store."""


@dataclass(frozen=True)
class ImageChange:
    """What was done to an image before it was stored."""

    input_size_bytes: int
    input_checksums: Checksums
    input_file_type: FileType
    """Type of the uploaded file, if the stored file has another type."""
    input_width: int
    input_height: int
    width: int
    height: int
    recoded: bool
    """The image was decoded and encoded again. False: only bytes that are not visible were removed."""
    rotated: bool
    scaled: bool
    jpeg_quality: int
    """1 to 100. 0: not a JPEG that was encoded again."""
    removed_metadata: tuple[ImageMetadata, ...]
    trailing_bytes_removed: int

    @classmethod
    def of(cls, m: file_sharing_service_pb2.ImageChange) -> Self:
        """Converts a message of the contract."""
        return cls(
            input_size_bytes=m.input_size_bytes,
            input_checksums=Checksums.of(m.input_checksums),
            input_file_type=FileType(m.input_file_type),
            input_width=m.input_width,
            input_height=m.input_height,
            width=m.width,
            height=m.height,
            recoded=m.recoded,
            rotated=m.rotated,
            scaled=m.scaled,
            jpeg_quality=m.jpeg_quality,
            removed_metadata=tuple(ImageMetadata(v) for v in m.removed_metadata),
            trailing_bytes_removed=m.trailing_bytes_removed,
        )


@dataclass(frozen=True)
class UploadResult:
    """The result of an upload: the file is stored, verified and, unless store_only was set, published exactly once."""

    file: File | None
    """The file. None only for validate_only."""
    request_id: str
    upload: str
    """Resource name of the upload, for get_upload and publish_upload. Empty for validate_only."""
    replayed: bool
    """An earlier attempt with this request id did the work, and this is its result."""
    preview_omitted: bool
    """A preview was to be generated and could not be. The file was published without one."""
    image: ImageChange | None
    """What was done to the image. None: it was stored unchanged."""
    attempts: int
    """Number of attempts that were made."""

    @classmethod
    def of(cls, m: file_sharing_service_pb2.UploadResponse, attempts: int) -> Self:
        """Converts a message of the contract."""
        return cls(
            file=File.of(m.file) if m.HasField("file") else None,
            request_id=m.request_id,
            upload=m.upload,
            replayed=m.replayed,
            preview_omitted=m.preview_omitted,
            image=ImageChange.of(m.image) if m.HasField("image") else None,
            attempts=attempts,
        )


@dataclass(frozen=True)
class UploadStatus:
    """What the server remembers of an upload."""

    name: str
    """Resource name, accounts/{account}/uploads/{request_id}."""
    request_id: str
    state: UploadState
    file: File | None
    """The file, once it is stored."""
    failure_reason: str
    """Why it failed, as LpFileShareError.reason. Empty: it did not fail."""
    failure_message: str
    attempt_time: datetime | None
    """When the latest attempt began."""
    expire_time: datetime | None
    """When the server forgets the upload."""
    image: ImageChange | None

    @classmethod
    def of(cls, m: file_sharing_service_pb2.Upload) -> Self:
        """Converts a message of the contract."""
        return cls(
            name=m.name,
            request_id=m.request_id,
            state=UploadState(m.state),
            file=File.of(m.file) if m.HasField("file") else None,
            failure_reason=_reason(m.failure.reason),
            failure_message=m.failure.message,
            attempt_time=_time(m.attempt_time) if m.HasField("attempt_time") else None,
            expire_time=_time(m.expire_time) if m.HasField("expire_time") else None,
            image=ImageChange.of(m.image) if m.HasField("image") else None,
        )


@dataclass(frozen=True)
class PublishResult:
    """The result of publish_upload."""

    file: File
    replayed: bool
    """An earlier call published the file, and this is its result."""


@dataclass(frozen=True)
class DownloadResult:
    """The result of a complete download."""

    file: File
    start: int
    """Position of the first byte in the file."""
    total: int
    """Size of the whole file."""
    size: int
    """Number of bytes that were downloaded."""
    checksums: Checksums
    """Checksums of the downloaded bytes, computed by this client."""
    attempts: int
    """Number of calls."""


@dataclass(frozen=True)
class UnreadableConversation:
    """A conversation that a listing or a watch leaves out, because the server could not read it."""

    name: str
    dialog_id: str
    reason: str
    """As LpFileShareError.reason."""
    message: str

    @classmethod
    def of(cls, m: file_sharing_service_pb2.UnreadableConversation) -> Self:
        """Converts a message of the contract."""
        return cls(m.name, m.dialog_id, _reason(m.reason), m.message)


@dataclass(frozen=True)
class Capabilities:
    """The limits, file types and times of a server for an account."""

    max_file_bytes: int
    max_small_file_bytes: int
    max_image_input_bytes: int
    """Largest image that fit_image accepts. 0: images are not fitted."""
    max_image_pixels: int
    max_preview_chars: int
    max_caption_chars: int
    max_display_name_chars: int
    max_chunk_bytes: int
    recommended_chunk_bytes: int
    max_message_bytes: int
    strips_images: bool
    """Every image is stripped as with strip_image, whether requested or not."""
    file_types: tuple[FileType, ...]
    upload_idle_timeout: timedelta
    upload_timeout: timedelta
    request_id_ttl: timedelta
    heartbeat_interval: timedelta
    min_ping_interval: timedelta
    server_version: str

    @classmethod
    def of(cls, m: file_sharing_service_pb2.GetCapabilitiesResponse) -> Self:
        """Converts a message of the contract."""
        return cls(
            max_file_bytes=m.max_file_bytes,
            max_small_file_bytes=m.max_small_file_bytes,
            max_image_input_bytes=m.max_image_input_bytes,
            max_image_pixels=m.max_image_pixels,
            max_preview_chars=m.max_preview_chars,
            max_caption_chars=m.max_caption_chars,
            max_display_name_chars=m.max_display_name_chars,
            max_chunk_bytes=m.max_chunk_bytes,
            recommended_chunk_bytes=m.recommended_chunk_bytes,
            max_message_bytes=m.max_message_bytes,
            strips_images=m.strips_images,
            file_types=tuple(FileType(t) for t in m.file_types),
            upload_idle_timeout=_duration(m.upload_idle_timeout),
            upload_timeout=_duration(m.upload_timeout),
            request_id_ttl=_duration(m.request_id_ttl),
            heartbeat_interval=_duration(m.heartbeat_interval),
            min_ping_interval=_duration(m.min_ping_interval),
            server_version=m.server_version,
        )


@dataclass(frozen=True)
class Dialog:
    """A part of a conversation: the main dialog, or a survey after it."""

    dialog_id: str
    dialog_type: str
    state: ConversationState


@dataclass(frozen=True)
class Participant:
    """A participant of a conversation."""

    participant_id: str
    role: ParticipantRole


@dataclass(frozen=True)
class Conversation:
    """A LivePerson messaging conversation."""

    name: str
    """Resource name, accounts/{account}/conversations/{conversation}."""
    state: ConversationState
    create_time: datetime | None
    close_time: datetime | None
    """None: it is open."""
    dialogs: tuple[Dialog, ...]
    """The main dialog first."""
    participants: tuple[Participant, ...]
    skill_id: str
    """"-1": any skill."""

    @classmethod
    def of(cls, m: conversation_service_pb2.Conversation) -> Self:
        """Converts a message of the contract."""
        return cls(
            name=m.name,
            state=ConversationState(m.state),
            create_time=_time(m.create_time) if m.HasField("create_time") else None,
            close_time=_time(m.close_time) if m.HasField("close_time") else None,
            dialogs=tuple(Dialog(d.dialog_id, d.dialog_type, ConversationState(d.state)) for d in m.dialogs),
            participants=tuple(Participant(p.participant_id, ParticipantRole(p.role)) for p in m.participants),
            skill_id=m.skill_id,
        )


@dataclass(frozen=True)
class ConsumerSession:
    """The result of signing in a consumer. It is an identity too: a client with it renews the token by itself."""

    token: Secret
    """Token for calls."""
    expires: datetime | None = None
    """When token expires. None: not known."""
    renewal_secret: Secret = field(default_factory=lambda: Secret(""))
    """Gets the next token. Empty: this session cannot be renewed."""
    consumer_id: str = ""
    """LivePerson's id of the consumer."""

    @classmethod
    def of(cls, m: identity_service_pb2.SignInConsumerResponse | identity_service_pb2.RenewConsumerResponse) -> Self:
        """Converts a message of the contract."""
        return cls(
            token=Secret(m.consumer_token),
            expires=_time(m.expire_time) if m.HasField("expire_time") else None,
            renewal_secret=Secret(m.renewal_secret),
            consumer_id=m.consumer_id,
        )


@dataclass(frozen=True)
class AgentSession:
    """The result of signing in an agent or bot."""

    token: Secret
    expires: datetime | None
    """When the login ends if no call uses the token."""
    agent_id: str

    @classmethod
    def of(cls, m: identity_service_pb2.SignInAgentResponse) -> Self:
        """Converts a message of the contract."""
        return cls(Secret(m.agent_token), _time(m.expire_time) if m.HasField("expire_time") else None, m.agent_id)


def set_source(request: file_sharing_service_pb2.DownloadRequest | file_sharing_service_pb2.StatFileRequest, file: FileRef) -> None:
    """Sets the file of a request."""
    if isinstance(file, StoredFile):
        request.storage.conversation, request.storage.storage_path = file.conversation, file.storage_path
        request.storage.dialog_id = file.dialog_id
    else:
        request.name = file if isinstance(file, str) else file.name


def account_name(account: str) -> str:
    """Returns the resource name of an account, accounts/{account}, given either the id or the name. Empty stays empty."""
    return account if not account or account.startswith("accounts/") else "accounts/" + account


def _time(t: Timestamp) -> datetime:
    return t.ToDatetime(tzinfo=UTC)


def _duration(d: Duration) -> timedelta:
    return d.ToTimedelta()


def _reason(value: int) -> str:
    """Returns the name of a reason as ErrorInfo spells it. Empty for none, a number for one that this version does not know."""
    name = error_reason_pb2.ErrorReason.DESCRIPTOR.values_by_number.get(value)
    if name is None:
        return str(value)
    return "" if value == 0 else name.name.removeprefix("ERROR_REASON_")
