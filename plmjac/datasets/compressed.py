"""Open a file that may be compressed, going by its first bytes and not by its name.

People rename `.fasta.gz` to `.fasta`, and servers unpack on the way. Reads gzip, bzip2, xz and zstd through xopen;
archives of several files (zip, tar) are not opened.
"""

import errno
import io
from pathlib import Path
from typing import Any, cast

from xopen import xopen

_MAGIC = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zst"}


MAX_BYTES = 2 << 30
"""Longest file that is read whole, unpacked; the largest entries of the PDB have a quarter of it."""

MAX_RATIO = 100
"""Most that a structure unpacks to, in multiples of its packed size (mmCIF: 4 to 12); beyond it, it is a bomb."""

_ALWAYS_BYTES = 32 << 20


class DamagedFile(ValueError):
    """Compressed data that end too early or do not unpack."""


class TooLarge(ValueError):
    """A file that unpacks to more than may be held in memory."""


def read_bytes(path: Path, limit: int = MAX_BYTES) -> bytes:
    """A whole file, unpacked, and never more of it than a structure of its packed size has.

    Raises OSError and DamagedFile as `open_bytes`, and TooLarge.
    """
    with open_bytes(path) as file:
        packed = path.stat().st_size
        is_packed = isinstance(file.raw, _Unpacked)
        allowed = min(limit, max(_ALWAYS_BYTES, MAX_RATIO * packed)) if is_packed else limit
        content = file.read(allowed + 1) if is_packed or packed <= limit else b" " * (allowed + 1)
    if len(content) > allowed:
        raise TooLarge(f"it has more than {allowed / 2**20:,.0f} MB"
                       + (f" when unpacked, from {packed / 2**20:,.1f} MB" if is_packed else ""))  # fmt: skip
    return content


def open_bytes(path: Path) -> io.BufferedReader:
    """Open for reading, unpacked; in this process, so that a reader that stops early leaves none behind.

    Raises OSError where the file cannot be opened; reading raises DamagedFile where it does not unpack.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "a named pipe, a device or a folder, which cannot be read twice; give a file")
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
