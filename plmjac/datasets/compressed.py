"""Open a file that may be compressed, going by its first bytes and not by its name.

People rename `.fasta.gz` to `.fasta`, and servers unpack on the way. Reads gzip, bzip2, xz and zstd through xopen;
archives of several files (zip, tar) are not opened.
"""

import io
from pathlib import Path
from typing import Any, cast

from xopen import xopen

_MAGIC = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zst"}


class DamagedFile(ValueError):
    """Compressed data that end too early or do not unpack."""


def open_bytes(path: Path) -> io.BufferedReader:
    """Open for reading, unpacked; in this process, so that a reader that stops early leaves none behind.

    Raises OSError where the file cannot be opened; reading raises DamagedFile where it does not unpack.
    """
    with path.open("rb") as file:
        head = file.read(8)
    kind = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)
    if kind is None:
        return path.open("rb")
    unpacked = cast(io.BufferedIOBase, xopen(path, "rb", threads=0, format=kind))
    return io.BufferedReader(_Unpacked(unpacked, kind))


class _Unpacked(io.RawIOBase):
    """The unpacked bytes, with the error types of four libraries made one."""

    def __init__(self, file: io.BufferedIOBase, kind: str) -> None:
        self._file, self._kind = file, kind

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        try:
            data = self._file.read(len(buffer))
        except Exception as error:
            raise DamagedFile(f"the {self._kind} data are cut or damaged ({error})") from error
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
