"""The layout of a store and the seals of its files: docs/format.md in code.

Everything that another process may look at appears by rename, after its bytes were forced to the disk. Costs two
`fsync`s a file, for a store that a power cut leaves readable.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import zarr.codecs

from plmjac.files import UsageError, sync

FORMAT_VERSION = 1
PROTEINS, PENDING, FAILED, MANIFEST = "proteins", "pending", "failed", "manifest.parquet"

COMPRESSORS = (zarr.codecs.ZstdCodec(level=1), zarr.codecs.Crc32cCodec())
"""zstd because every Zarr reader has it; the checksum last, so that it covers the bytes as they lie on the disk."""


class StoreError(UsageError):
    """A store that cannot be used as asked; the message says which, why, and what to do."""


class CorruptStoreError(StoreError):
    """Bytes of a store that are missing or not what was written."""


def sync_tree(folder: Path) -> None:
    """Force every file below a folder, and the folders themselves, to the disk."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            sync(Path(parent, name))
        sync(Path(parent))


def to_json(value: Any) -> bytes:
    """JSON with sorted keys, so that the same content is the same bytes; half characters (of file names) escaped."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).encode(errors="backslashreplace")


def digest(value: Any) -> str:
    """sha256 of a JSON value in its canonical form (sorted keys, no blanks)."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def file_digest(path: Path) -> str:
    """sha256 of a file's bytes, read in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def group_document(attributes: dict[str, Any]) -> bytes:
    """The zarr.json of a group whose attributes carry their own digest, so that no flipped byte in it goes unseen."""
    sealed = {**attributes, "digest": digest(attributes)}
    return to_json({"zarr_format": 3, "node_type": "group", "attributes": sealed})


def read_group_document(path: Path) -> dict[str, Any]:
    """The attributes of a group, without the digest, after checking it.

    Raises CorruptStoreError if the file is gone, or a byte of it is not as it was written.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CorruptStoreError(f"{path} cannot be read ({error.strerror})") from error
    try:
        attributes = dict(json.loads(data)["attributes"])
        attributes.pop("digest")
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise CorruptStoreError(f"{path} is damaged: {error!r}") from error
    if data != group_document(attributes):
        raise CorruptStoreError(f"{path} is damaged: its content does not match its digest")
    return attributes


def tree_digests(folder: Path) -> dict[str, str]:
    """sha256 of every file below a protein's group, by its path there, but for the group's own zarr.json."""
    return {
        path.relative_to(folder).as_posix(): file_digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path != folder / "zarr.json"
    }
