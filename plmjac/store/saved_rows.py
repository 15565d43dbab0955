"""Finished blocks of a protein that takes long, or that several processes share, kept until the protein is committed.

A protein of a thousand residues under a large model is hours of work on a small machine; without this a kill would lose
all of it. Blocks are exact (float32), so a resumed protein has the bytes of an undisturbed one. They take 1,600 L
bytes a row, until the commit.
"""

import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from plmjac.files import replacing
from plmjac.records import WorkItem
from plmjac.store.layout import PENDING

FOLDER = "saved"
CLAIM = "claim"


class SavedRows:
    """Blocks by the work item that they answer, under pending/ of a store."""

    def __init__(self, store: Path) -> None:
        self.folder = store / PENDING / FOLDER

    def save(self, item: WorkItem, *blocks: Float32[np.ndarray, "..."]) -> None:
        """Keep a finished block: its rows, and what else was made with them."""
        path = self._path(item)
        path.parent.mkdir(parents=True, exist_ok=True)
        data = b"".join(block.tobytes() for block in blocks)
        # Not forced to the disk: what a power cut leaves of it fails its seal.
        with replacing(path, durable=False) as temporary, temporary.open("wb") as file:
            file.write(_seal(item, data))
            file.write(data)

    def load(self, item: WorkItem, shapes: Sequence[tuple[int, ...]]) -> list[Float32[np.ndarray, "..."]] | None:
        """The blocks that were kept earlier, in these shapes; None where there are none whole and of this input."""
        path = self._path(item)
        if not path.exists():
            return None
        content = path.read_bytes()
        seal, data = content[:32], content[32:]
        sizes = [int(np.prod(shape)) for shape in shapes]
        if seal != _seal(item, data) or len(data) != 4 * sum(sizes):
            return None
        flat = np.frombuffer(data, dtype=np.float32).copy()
        parts = np.split(flat, np.cumsum(sizes)[:-1])
        return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]

    def has(self, item: WorkItem) -> bool:
        """True where a block was kept for this item; whether it is whole is seen when it is loaded."""
        return self._path(item).exists()

    def claim(self, key: str, role: str) -> bool:
        """Take it upon this process, of a role under the store's lock, to put a protein together. False if one does."""
        try:
            with (self.folder / key / CLAIM).open("x") as file:
                file.write(role)
        except (FileExistsError, FileNotFoundError):  # claimed; or put together, and its blocks dropped
            return False
        return True

    def free_claims(self, role: str | None) -> None:
        """Let others put together what a dead process of this role, or (None) of any, had claimed."""
        for path in self.folder.glob(f"*/{CLAIM}"):
            if role is None or path.read_text() == role:
                path.unlink()

    def drop(self, key: str) -> None:
        """Delete a protein's blocks: it is in the store now."""
        shutil.rmtree(self.folder / key, ignore_errors=True)

    def drop_all_but(self, keys: set[str]) -> None:
        """Delete the blocks of every protein that is not to be computed any more."""
        if self.folder.exists():
            for path in self.folder.iterdir():
                if path.name not in keys:
                    self.drop(path.name)

    def _path(self, item: WorkItem) -> Path:
        return self.folder / item.key / f"{item.start}-{item.stop}"


def _seal(item: WorkItem, data: bytes) -> bytes:
    return hashlib.sha256(f"{item.sequence}{item.chains or ''}\0".encode() + data).digest()
