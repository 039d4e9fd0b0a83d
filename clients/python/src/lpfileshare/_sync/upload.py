"""Uploads, for both clients: AsyncClient runs this code in a thread, because grpc.aio can lose the status of an upload that the server
rejects early (grpc/grpc#36066)."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import grpc

from .._cancellation import Cancellation
from .._parts import crc32c
from .._retry import Pacer
from .._secret import Secret
from .._source import Bytes, Source as Source
from .._uploads import UploadOptions, upload_name
from ..errors import CallFailed, LpFileShareError, SourceError
from ..types import File, ImageChange, UploadResult, UploadState
from ..v1 import file_pb2, file_sharing_service_pb2 as pb
from .caller import Caller
from .connection import Server
from .io import Operation

_ACCEPTED = "lpfs-request-id"  # the key of the response header that means that the upload was accepted
_ACCEPT_TIMEOUT = 5.0  # seconds to wait for it: some proxies hold headers back until the call ends
_CALL_LIMIT = 600.0  # seconds for one attempt
_SETTLE_TIMEOUT = 10.0


def run_upload(caller: Caller, source: Source, options: UploadOptions, timeout: float | None, cancel: Cancellation | None) -> UploadResult:
    """Uploads a source: see Client.upload."""
    op = Operation("upload", timeout, cancel)
    data = Bytes(source)
    op.name = f"upload {options.display_name or data.name}".strip()
    upload: Upload | None = None
    try:
        data.prepare(op.check, need_head=not options.file_type)
        upload = Upload(caller, op, data, options)
        return upload.run()
    except LpFileShareError as e:
        e.op = op.name
        if upload is not None:
            e.request_id, e.finished, e.attempts = upload.request_id, upload.finished, upload.pace.attempts
        raise
    finally:
        data.close()


class Upload:
    """A file over any number of attempts."""

    def __init__(self, caller: Caller, op: Operation, source: Bytes, options: UploadOptions) -> None:
        self._caller, self._op, self._source, self._options = caller, op, source, options
        self._spec = options.spec(source)
        self.request_id = self._spec.request_id
        self.pace = Pacer(op.name, options.retry_for)
        self.finished = False  # at least one attempt has begun to send finish: the file may have been published

    def run(self) -> UploadResult:
        """Sends the file until an attempt succeeds or none can follow."""
        while True:
            self._op.check()
            self.pace.attempts += 1
            server, token = self._caller.connection.pick(), self._caller.identity.token(self._op)
            sending = Sending(self._spec, self._source, self._options)
            try:
                response = self._attempt(server, token, sending)
                return UploadResult.of(response, self.pace.attempts)
            except CallFailed as e:
                error = e.error
            finally:
                self.finished |= sending.finished
            try:
                self._caller.again(self._op, self.pace, error, server, token, sending.obstacle)
            except LpFileShareError:
                settled = self._settle() if sending.read_once else None
                if settled is None:
                    raise
                return settled

    def _attempt(self, server: Server, token: Secret | None, sending: Sending) -> pb.UploadResponse:
        """Sends the file once. The status of the call is the result, whatever happened to the bytes."""
        call: Any = server.files.Upload.future(
            sending.messages(), timeout=self._op.remaining(_CALL_LIMIT), metadata=self._caller.identity.metadata(token)
        )
        sending.call.set_result(call)
        try:
            with self._op.on_cancel(call.cancel):
                header = call.initial_metadata()  # waits for the header or the end of the call
                accepted = next((value for key, value in header if key == _ACCEPTED), None)
                if accepted is not None:
                    sending.proceed()
                    if self._options.on_accepted is not None:
                        self._options.on_accepted(accepted)
                code = call.code()  # waits for the end of the call
        except BaseException:  # KeyboardInterrupt
            call.cancel()
            raise
        finally:
            sending.end()
        if code is grpc.StatusCode.OK:
            response: pb.UploadResponse = call.result()
            return response
        self._op.check()
        failure, sending.failure = sending.failure, None
        try:
            if failure is not None:
                raise failure
        finally:
            del failure  # its traceback has this frame: see LpFileShareError.fresh
        raise CallFailed.of(code, call.details(), call.trailing_metadata())

    def _settle(self) -> UploadResult | None:
        """Asks for the result of an upload whose response was lost and that cannot be sent again. None: it is not known to be done."""
        if not self.finished:
            return None
        name = upload_name(self._spec.conversation, self.request_id)
        op = Operation("get upload", self._op.remaining(_SETTLE_TIMEOUT))
        try:
            found = self._caller.unary(op, lambda s: s.files.GetUpload, pb.GetUploadRequest(name=name)).upload
        except LpFileShareError:
            return None
        state = UploadState(found.state)
        if state is not UploadState.PUBLISHED and not (state is UploadState.STORED and self._options.store_only):
            return None
        return UploadResult(
            file=File.of(found.file),
            request_id=self.request_id,
            upload=name,
            replayed=True,
            preview_omitted=False,
            image=ImageChange.of(found.image) if found.HasField("image") else None,
            attempts=self.pace.attempts,
        )


class Sending:
    """One attempt. gRPC iterates over its messages in a thread of its own, as fast as the connection takes them."""

    def __init__(self, spec: pb.UploadSpec, source: Bytes, options: UploadOptions) -> None:
        self._spec, self._source, self._options = spec, source, options
        self.call: Future[Any] = Future()  # of gRPC, which begins to iterate before it returns the call
        self.finished = False  # finish is about to be sent, or was
        self.failure: BaseException | None = None  # of the source or a callback
        self.read_once = False  # obstacle has found that the source cannot be read again
        self._go = threading.Event()  # the upload was accepted, or has ended
        self._ended = False
        self._reading = threading.Lock()  # held while gRPC waits for the next message

    def proceed(self) -> None:
        """Reports that the server has accepted the upload."""
        self._go.set()

    def end(self) -> None:
        """Reports that the call has ended. No further message is made."""
        self._ended = True
        self._go.set()

    def obstacle(self) -> str:
        """Waits until the source is not read any more, and prepares it for the next attempt. Returns why that is not possible."""
        with self._reading:
            why = self._source.begin()
        self.read_once = bool(why)
        return why

    def messages(self) -> Iterator[pb.UploadRequest]:
        """Yields the messages. Nothing here keeps the iterator, so that the source is released when gRPC's thread ends."""
        messages = self._generate()
        while True:
            with self._reading:
                try:
                    message = next(messages, None)
                except BaseException as e:  # gRPC would log it and lose it
                    self.failure = e
                    break
            if message is None:
                return
            yield message
        self.call.result().cancel()

    def _generate(self) -> Iterator[pb.UploadRequest]:
        yield pb.UploadRequest(spec=self._spec)
        if self._options.validate_only:
            return
        self._go.wait(_ACCEPT_TIMEOUT)
        if self._ended:
            return
        total = self._source.size if self._source.size >= 0 else None
        crc, sha, sent = 0, hashlib.sha256(), 0
        self._report(0, total)
        for data in self._source.chunks(self._options.chunk_bytes):
            if self._ended:
                return
            checksum = crc32c(data)
            if self._source.checksums is None:
                crc = crc32c(data, crc)
                sha.update(data)
            yield pb.UploadRequest(chunk=file_pb2.DataChunk(offset=sent, data=data, crc32c=checksum))
            sent += len(data)
            self._report(sent, total)
        if total is not None and sent != total:
            raise SourceError(f"read source: it had {total} bytes first and {sent} now; send it when it no longer changes")
        finish = pb.UploadFinish()
        if self._source.checksums is None:
            finish.checksums.CopyFrom(file_pb2.Checksums(crc32c=crc, sha256=sha.digest()))
        self.finished = True
        yield pb.UploadRequest(finish=finish)

    def _report(self, sent: int, total: int | None) -> None:
        if self._options.on_progress is not None:
            self._options.on_progress(sent, total)
