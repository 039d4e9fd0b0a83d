"""Files of the local disk that are written completely or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO

from ._target import StrPath


@contextmanager
def replacing(path: StrPath) -> Iterator[BinaryIO]:
    """Opens a temporary file in the directory of path. At the end of the with block it is flushed to the disk and renamed to path; if the
    block raises, it is removed. Only its owner can read the file. An existing file is replaced."""
    path = os.fspath(path)
    if os.path.isdir(path):
        raise IsADirectoryError(f"{path} is a directory")
    fd, temporary = tempfile.mkstemp(prefix=".lpfileshare-", suffix=".part", dir=os.path.dirname(path) or ".")
    try:
        with os.fdopen(fd, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
