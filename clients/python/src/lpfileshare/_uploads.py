"""What both clients know about uploads, without any input or output."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass

from . import _filetype
from ._source import Bytes
from .types import FileType
from .v1 import file_pb2, file_sharing_service_pb2 as pb

CHUNK_BYTES = 64 << 10
_MAX_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class UploadOptions:
    """The arguments of an upload: see Client.upload."""

    conversation: str
    dialog_id: str
    display_name: str
    file_type: FileType | None
    caption: str
    preview: str | None
    fit_image: bool
    strip_image: bool
    request_id: str
    store_only: bool
    validate_only: bool
    want_sha256: bool
    on_progress: Callable[[int, int | None], object] | None
    on_accepted: Callable[[str], object] | None
    chunk_bytes: int
    retry_for: float

    def __post_init__(self) -> None:
        if not 1 <= self.chunk_bytes <= _MAX_CHUNK_BYTES:
            raise ValueError(f"chunk_bytes is {self.chunk_bytes}, must be 1 to {_MAX_CHUNK_BYTES}")
        if self.preview is not None and self.preview != "generate" and not self.preview.startswith("data:"):
            raise ValueError('preview must be "generate" or a data URI, "data:image/jpeg;base64,..."')

    def spec(self, source: Bytes) -> pb.UploadSpec:
        """Returns the spec of a source that was prepared. Raises ValueError if its type cannot be detected."""
        name = self.display_name or source.name
        file_type = self.file_type or _filetype.detect_file_type(name, source.head)
        if not file_type:
            raise ValueError(_filetype.undetected(source.head))
        spec = pb.UploadSpec(
            conversation=self.conversation,
            dialog_id=self.dialog_id,
            display_name=name,
            file_type=file_pb2.FileType.ValueType(file_type),
            caption=self.caption,
            request_id=self.request_id or str(uuid.uuid4()),
            publish_mode=pb.PUBLISH_MODE_STORE_ONLY if self.store_only else pb.PUBLISH_MODE_UNSPECIFIED,
            validate_only=self.validate_only,
            want_checksums=[file_pb2.CHECKSUM_KIND_SHA256] if self.want_sha256 else [],
        )
        if source.checksums is not None:
            spec.size_bytes = source.size
            spec.checksums.CopyFrom(file_pb2.Checksums(crc32c=source.checksums.crc32c, sha256=source.checksums.sha256))
        if self.preview is not None:
            spec.preview.CopyFrom(pb.Preview(generate=True) if self.preview == "generate" else pb.Preview(data_uri=self.preview))
        if self.fit_image or self.strip_image:
            spec.image.CopyFrom(pb.ImageOptions(fit=self.fit_image, strip_metadata=self.strip_image))
        return spec


def upload_name(conversation: str, request_id: str) -> str:
    """Returns the resource name of an upload into a conversation."""
    return "/".join([*conversation.split("/")[:2], "uploads", request_id])
