"""The driver of the Python clients: see ../README.md. With --async it uses AsyncClient, and Client without."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import hashlib
import io
import json
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import lpfileshare as lp

ASYNC = "--async" in sys.argv
STEP = 64 << 10


class SourceFailed(Exception):
    pass


class SinkFailed(Exception):
    pass


class Driver:
    """Runs commands. Those of the synchronous client run in threads."""

    def __init__(self) -> None:
        self.clients: dict[str, Any] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.cancellations: dict[str, lp.Cancellation] = {}
        self.outcomes: dict[str, Any] = {}  # results and errors, for print
        self.commands: dict[str, list[str]] = {}  # of each open client and those made from it
        self.threads = ThreadPoolExecutor(1000)
        self.out = threading.Lock()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        lines: asyncio.Queue[str] = asyncio.Queue()

        def read() -> None:
            for line in sys.stdin:
                loop.call_soon_threadsafe(lines.put_nowait, line)
            loop.call_soon_threadsafe(lines.put_nowait, "")

        threading.Thread(target=read, daemon=True).start()
        while line := await lines.get():
            command = json.loads(line)
            task = asyncio.create_task(self.answer(command))
            self.tasks[command["id"]] = task
            if command["op"] != "close" and "client" in command:
                client = command["client"]
                ids = self.commands.get(command.get("from", client), [])
                self.commands.setdefault(client, ids).append(command["id"])
            if command["op"] in ("open", "as", "close", "cancel"):
                await task
        for call in self.tasks:
            self.stop(call)
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        for client in self.clients.values():
            await self.call(client.close)
        self.threads.shutdown()

    async def answer(self, c: dict[str, Any]) -> None:
        self.cancellations[c["id"]] = lp.Cancellation()
        try:
            result, keep = await getattr(self, c["op"])(c)
            self.outcomes[c["id"]] = keep
            self.write({"id": c["id"], "result": result})
        except BaseException as e:
            self.outcomes[c["id"]] = e
            self.write({"id": c["id"], "error": describe(e)})

    def write(self, line: dict[str, Any]) -> None:
        with self.out:
            sys.stdout.write(json.dumps(line) + "\n")
            sys.stdout.flush()

    def event(self, c: dict[str, Any], event: dict[str, Any]) -> None:
        self.write({"id": c["id"], "event": event})

    # How the two kinds of clients are called.

    async def call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if ASYNC:
            return await function(*args, **kwargs)
        return await asyncio.get_running_loop().run_in_executor(self.threads, lambda: function(*args, **kwargs))

    async def iterate(self, iterable: Any) -> AsyncIterator[Any]:
        if ASYNC:
            async for element in iterable:
                yield element
            return
        elements = iter(iterable)
        while (element := await self.call(next, elements, None)) is not None:
            yield element

    def limits(self, c: dict[str, Any]) -> dict[str, Any]:
        limits: dict[str, Any] = {} if ASYNC else {"cancel": self.cancellations[c["id"]]}
        if c.get("deadlineMs"):
            limits["timeout"] = c["deadlineMs"] / 1000
        return limits

    def stop(self, call: str) -> None:
        """Cancels a command, which may have ended."""
        if ASYNC and call in self.tasks:
            self.tasks[call].cancel()
        elif call in self.cancellations:
            self.cancellations[call].cancel()

    # Commands. They return the result, and what print formats.

    async def open(self, c: dict[str, Any]) -> Any:
        kind = lp.AsyncClient if ASYNC else lp.Client
        if c.get("fromEnvironment"):
            self.clients[c["client"]] = kind.from_env()
            return {}, None
        tls = c.get("tls") or {}
        self.clients[c["client"]] = kind(
            c["target"],
            account=c.get("account", ""),
            identity=identity(c.get("identity")),
            plaintext=tls.get("plaintext", False),
            tls_ca=tls.get("ca") or None,
            client_cert=tls.get("cert") or None,
            client_key=tls.get("key") or None,
        )
        return {}, None

    async def as_(self, c: dict[str, Any]) -> Any:
        self.clients[c["client"]] = self.clients[c["from"]].as_(identity(c.get("identity")))
        return {}, None

    async def close(self, c: dict[str, Any]) -> Any:
        await self.call(self.clients[c["client"]].close)
        # The errors keep the frames, and with them the bytes, of their commands.
        for call in self.commands.pop(c["client"], []):
            self.outcomes.pop(call, None)
        return {}, None

    async def cancel(self, c: dict[str, Any]) -> Any:
        self.stop(c["call"])
        return {}, None

    async def upload(self, c: dict[str, Any]) -> Any:
        o = c.get("options") or {}
        image = o.get("image") or []
        r = await self.call(
            self.clients[c["client"]].upload,
            source(c["source"]),
            conversation=o.get("conversation", ""),
            dialog_id=o.get("dialogId", ""),
            display_name=o.get("displayName", ""),
            file_type=lp.FileType[o["fileType"]] if o.get("fileType") else None,
            caption=o.get("caption", ""),
            preview=o.get("preview") or None,
            fit_image="fit" in image,
            strip_image="strip" in image,
            request_id=o.get("requestId", ""),
            store_only=o.get("publishMode") == "STORE_ONLY",
            validate_only=o.get("validateOnly", False),
            want_sha256="SHA256" in o.get("wantChecksums", []),
            on_progress=self.progress(c),
            **({"chunk_bytes": o["chunkBytes"]} if o.get("chunkBytes") else {}),
            **retry_for(o),
            **self.limits(c),
        )
        result = {
            "upload": r.upload,
            "requestId": r.request_id,
            "replayed": r.replayed,
            "previewOmitted": r.preview_omitted,
            "file": file(r.file),
            "image": r.image
            and {
                "inputSizeBytes": r.image.input_size_bytes,
                "recoded": r.image.recoded,
                "scaled": r.image.scaled,
                "removedMetadata": [enum(m) for m in r.image.removed_metadata],
            },
        }
        return result, r

    async def download(self, c: dict[str, Any]) -> Any:
        o, to = c.get("options") or {}, c.get("sink") or {}
        client, sink = self.clients[c["client"]], Sink(to)
        args = {
            "offset": o.get("offset", 0),
            "limit": o.get("limit", 0),
            "if_match_etag": o.get("ifMatchEtag", ""),
            "chunk_bytes": o.get("chunkBytes", 0),
            "on_progress": self.progress(c),
            **retry_for(o),
            **self.limits(c),
        }
        if to.get("kind") == "reader":
            stream = await self.call(client.open_download, c["file"], **args)
            try:
                while data := await self.call(stream.read, STEP):
                    if ASYNC and to.get("delayMs"):
                        await asyncio.sleep(to["delayMs"] / 1000)
                        sink.delay = 0.0
                    await asyncio.get_running_loop().run_in_executor(self.threads, sink.write, data)
            finally:
                await self.call(stream.close)
            r = stream.complete()
        elif to.get("kind") == "path":
            r = await self.call(client.download, c["file"], to["path"], **args)
            with open(to["path"], "rb") as f:  # noqa: ASYNC230
                sink.write(f.read())
        else:
            r = await self.call(client.download, c["file"], sink, **args)
        result = {
            "file": file(r.file),
            "bytes": sink.size,
            "sha256": sink.sha.hexdigest(),
            "start": r.start,
            "total": r.total,
        }
        return result, r

    async def files(self, c: dict[str, Any]) -> Any:
        o = c.get("options") or {}
        listing = self.clients[c["client"]].files(
            c["parent"],
            newest_first=o.get("newestFirst", False),
            page_size=o.get("pageSize", 0),
            dialog_id=o.get("dialogId", ""),
            sender_role=lp.ParticipantRole[o.get("senderRole") or "UNSPECIFIED"],
            **self.limits(c),
        )
        got = [f async for f in self.iterate(listing)]
        result = {
            "files": [file(f) for f in got],
            "watchToken": listing.watch_token,
            "unreadable": [u.name for u in listing.unreadable],
        }
        return result, got

    async def watch(self, c: dict[str, Any]) -> Any:
        watch = self.clients[c["client"]].watch(
            c["parent"],
            token=c.get("token", ""),
            max_silence=c["maxSilenceMs"] / 1000 if c.get("maxSilenceMs") else None,
            on_connection=lambda error: self.event(c, {"connection": "lost" if error else "open"}),
            **retry_for(c),
            **self.limits(c),
        )
        got: list[Any] = []
        try:
            async for f in self.iterate(watch):
                got.append(f)
                self.event(c, {"file": file(f), "token": watch.token})
                if c.get("delayMs"):
                    await asyncio.sleep(c["delayMs"] / 1000)
                if c.get("limit") and len(got) >= c["limit"]:
                    break
        finally:
            await self.call(watch.close)
        return {"files": [file(f) for f in got], "token": watch.token}, got

    async def stat(self, c: dict[str, Any]) -> Any:
        f = await self.call(self.clients[c["client"]].stat, c["file"], **self.limits(c))
        return {"file": file(f)}, f

    async def getUpload(self, c: dict[str, Any]) -> Any:
        u = await self.call(self.clients[c["client"]].get_upload, c["upload"], **self.limits(c))
        return {"upload": u.name, "state": enum(u.state)}, u

    async def publishUpload(self, c: dict[str, Any]) -> Any:
        r = await self.call(self.clients[c["client"]].publish_upload, c["upload"], **self.limits(c))
        return {"file": file(r.file), "replayed": r.replayed}, r

    async def capabilities(self, c: dict[str, Any]) -> Any:
        r = await self.call(self.clients[c["client"]].capabilities, **self.limits(c))
        result = {
            "maxFileBytes": r.max_file_bytes,
            "maxSmallFileBytes": r.max_small_file_bytes,
            "fileTypes": [enum(t) for t in r.file_types],
            "serverVersion": r.server_version,
        }
        return result, r

    async def signInConsumer(self, c: dict[str, Any]) -> Any:
        q = c["request"]
        s = await self.call(
            self.clients[c["client"]].sign_in_consumer,
            sign_up=q.get("signUp", False),
            connector_id=q.get("anonymous", ""),
            customer_jwt=q.get("customerJwt", ""),
            auth_code=q.get("authCode", ""),
            **self.limits(c),
        )
        result = {
            "token": s.token.reveal(),
            "renewalSecret": s.renewal_secret.reveal(),
            "consumerId": s.consumer_id,
            "expiresAtMs": int(s.expires.timestamp() * 1000) if s.expires else 0,
        }
        return result, s

    async def signInAgent(self, c: dict[str, Any]) -> Any:
        q = c["request"]
        s = await self.call(self.clients[c["client"]].sign_in_agent, q["userName"], q["password"], **self.limits(c))
        return {"token": s.token.reveal()}, s

    async def signOutAgent(self, c: dict[str, Any]) -> Any:
        await self.call(self.clients[c["client"]].sign_out_agent, **self.limits(c))
        return {}, None

    async def createConversation(self, c: dict[str, Any]) -> Any:
        r = await self.call(self.clients[c["client"]].create_conversation, request_id=c.get("requestId", ""), **self.limits(c))
        return {"conversation": r.name}, r

    async def closeConversation(self, c: dict[str, Any]) -> Any:
        r = await self.call(self.clients[c["client"]].close_conversation, c["conversation"], **self.limits(c))
        return {"state": enum(r.state)}, r

    async def conversations(self, c: dict[str, Any]) -> Any:
        listing = self.clients[c["client"]].conversations(**self.limits(c))
        got = [r async for r in self.iterate(listing)]
        return {"conversations": [r.name for r in got]}, got

    async def print(self, c: dict[str, Any]) -> Any:
        client = self.clients[c["client"]]
        text: list[str] = []
        for value in (client, client._identity, self.outcomes.get(c.get("call", ""))):
            text += printed(value)
        return {"text": text}, None

    def progress(self, c: dict[str, Any]) -> Callable[[int, int | None], None]:
        """Writes the first and last progress of an attempt, and one in each 256 KiB."""
        last = -1

        def report(n: int, total: int | None) -> None:
            nonlocal last
            if last < 0 or n < last or n == total or n >> 18 > last >> 18:
                last = n
                self.event(c, {"progress": [n, -1 if total is None else total]})

        return report


def identity(i: dict[str, Any] | None) -> lp.Identity | lp.ConsumerSession | None:
    kind = (i or {}).get("kind", "none")
    if i is None or kind == "none":
        return None
    if kind == "external":
        return lp.ExternalConsumerId(i["externalConsumerId"])
    if s := i.get("session"):
        return lp.ConsumerSession(
            token=lp.Secret(s["token"]),
            expires=datetime.fromtimestamp(s["expiresAtMs"] / 1000, UTC) if s.get("expiresAtMs") else None,
            renewal_secret=lp.Secret(s.get("renewalSecret", "")),
            consumer_id=s.get("consumerId", ""),
        )
    token: Any = i.get("token", "")
    if tokens := i.get("tokens"):

        def token(rejected: str | None) -> str:
            if rejected == tokens[0] and len(tokens) > 1:
                del tokens[0]
            return str(tokens[0])

    return lp.ConsumerToken(token) if kind == "consumer" else lp.AgentToken(token)


class Reader(io.RawIOBase):
    """A source that fails and waits as the runner asks. With several passes, each rewind moves to the next one; the last stays."""

    def __init__(self, passes: list[bytes], s: dict[str, Any], seekable: bool) -> None:
        self.passes, self.position, self._seekable = passes, 0, seekable
        self.fail_after, self.delay = s.get("failAfter", 0), s.get("delayMs", 0) / 1000

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._seekable

    def tell(self) -> int:
        return self.position

    def seek(self, offset: int, whence: int = 0) -> int:
        if self.position and len(self.passes) > 1:
            del self.passes[0]
        self.position = offset
        return offset

    def read(self, size: int = -1) -> bytes:
        if self.fail_after and self.position >= self.fail_after:
            raise SourceFailed("source failed")
        size = STEP if self.delay or size < 0 else size
        if self.fail_after:
            size = min(size, self.fail_after - self.position)
        data = self.passes[0][self.position : self.position + size]
        if self.delay and (self.position + len(data)) >> 16 > self.position >> 16:
            time.sleep(self.delay)
        self.position += len(data)
        return data


def source(s: dict[str, Any]) -> Any:
    if s["kind"] == "path":
        return s["path"]
    with open(s["path"], "rb") as f:
        data = f.read()
    if s["kind"] == "bytes":
        return data
    if s["kind"] == "seekable":
        declared = s.get("declaredBytes")
        passes = [data[:declared].ljust(declared, b"\0"), data] if declared else [data]
        return Reader(passes, s, seekable=True)
    reader = Reader([data], s, seekable=False)
    return pieces_async(reader) if ASYNC else pieces(reader)


def pieces(reader: Reader) -> Iterator[bytes]:
    while data := reader.read(STEP):
        yield data


async def pieces_async(reader: Reader) -> AsyncIterator[bytes]:
    delay, reader.delay = reader.delay, 0
    while data := reader.read(STEP):
        await asyncio.sleep(delay)
        yield data


class Sink:
    """A writer that fails and waits as the runner asks."""

    def __init__(self, s: dict[str, Any]) -> None:
        self.size, self.sha = 0, hashlib.sha256()
        self.fail_after, self.delay = s.get("failAfter", 0), s.get("delayMs", 0) / 1000

    def write(self, data: bytes) -> int:
        if self.fail_after and self.size + len(data) > self.fail_after:
            raise SinkFailed("sink failed")
        if self.delay and (self.size + len(data)) >> 16 > self.size >> 16:
            time.sleep(self.delay)
        self.size += len(data)
        self.sha.update(data)
        return len(data)


def retry_for(o: dict[str, Any]) -> dict[str, Any]:
    return {"retry_for": o["retryForMs"] / 1000} if o.get("retryForMs") else {}


def enum(value: Any) -> str | int:
    return value.value if value.name.startswith("UNKNOWN_") else value.name


def file(f: lp.File | None) -> dict[str, Any] | None:
    if f is None:
        return None
    described = {
        "name": f.name,
        "storagePath": f.storage_path,
        "fileType": enum(f.file_type),
        "contentType": f.content_type,
        "caption": f.caption,
        "displayName": f.display_name,
        "etag": f.etag,
        "senderRole": enum(f.sender_role),
        "sha256": f.uploaded_checksums.sha256.hex(),
    }
    if f.size_bytes is not None:
        described["sizeBytes"] = f.size_bytes
    if f.uploaded_checksums.crc32c is not None:
        described["crc32c"] = f.uploaded_checksums.crc32c
    return described


def describe(e: BaseException) -> dict[str, Any]:
    described = {"kind": "usage", "text": str(e), "message": str(e), "code": "", "reason": ""}
    if isinstance(e, lp.LpFileShareError):
        described |= {
            "kind": "call",
            "code": e.code.name,
            "reason": e.reason,
            "message": e.message,
            "metadata": e.metadata,
            "violations": [dataclasses.asdict(v) for v in e.violations],
            "retryAfterMs": int((e.retry_after or 0) * 1000),
            "requestId": e.request_id,
            "attempts": e.attempts,
            "finished": e.finished,
        }
    kinds: list[tuple[type[BaseException], str]] = [
        (lp.SourceError, "source"),
        (SinkFailed, "sink"),
        (lp.WatchResetError, "watchReset"),
        (lp.Cancelled, "cancelled"),
        (asyncio.CancelledError, "cancelled"),
        (lp.DeadlineExceeded, "deadline"),
    ]
    for kind, name in kinds:
        if isinstance(e, kind):
            described["kind"] = name
    return described


def printed(value: Any) -> list[str]:
    """Formats a value in every way that a program could log it."""
    text = [str(value), repr(value), f"{value}", json.dumps(value, default=repr)]
    for attempt in (lambda: json.dumps(vars(value), default=repr), lambda: repr(copy.copy(value)), lambda: str(value.__reduce_ex__(2))):
        try:
            text.append(attempt())
        except Exception as e:
            text.append(str(e))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        text.append(repr(dataclasses.asdict(value)))
    if isinstance(value, BaseException):
        # With the local variables of the package's frames. Those of this program have its own secrets.
        for locals_too in (False, True):
            t = traceback.TracebackException.from_exception(value, capture_locals=locals_too)
            while t is not None:
                for frame in t.stack:
                    if frame.filename == __file__:
                        frame.locals = None
                text.append("".join(t.format()))
                t = t.__cause__
    return text


setattr(Driver, "as", Driver.as_)

if __name__ == "__main__":
    asyncio.run(Driver().run())
