"""Finished blocks of a protein that takes long, kept until the protein is committed.

A protein of a thousand residues under a large model is hours of work on a small machine; without this a kill would lose
all of it. Blocks are exact (float32), so a resumed protein has the bytes of an undisturbed one. Gives up disk space:
1,600 L bytes a row, until the commit.
"""

import hashlib
import shutil
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from plmjac.records import WorkItem
from plmjac.store.layout import PENDING, write_whole

FOLDER = "saved"


class SavedRows:
    """Blocks by the work item that they answer, under pending/ of a store."""

    def __init__(self, store: Path) -> None:
        self.folder = store / PENDING / FOLDER

    def save(self, item: WorkItem, rows: Float32[np.ndarray, "R A L 20"]) -> None:
        """Keep a finished block."""
        path = self._path(item)
        path.parent.mkdir(parents=True, exist_ok=True)
        data = rows.tobytes()
        write_whole(path, _seal(item, data) + data)

    def load(self, item: WorkItem, num_letters: int) -> Float32[np.ndarray, "R A L 20"] | None:
        """A block kept earlier, or None where there is none, or none that is whole and of this very sequence."""
        path = self._path(item)
        if not path.exists():
            return None
        content = path.read_bytes()
        seal, data = content[:32], content[32:]
        shape = (item.stop - item.start, num_letters, len(item.sequence), 20)
        if seal != _seal(item, data) or len(data) != 4 * int(np.prod(shape)):
            return None
        return np.frombuffer(data, dtype=np.float32).reshape(shape).copy()

    def drop(self, key: str) -> None:
        """Let go of a protein's blocks: it is in the store now."""
        shutil.rmtree(self.folder / key, ignore_errors=True)

    def drop_all_but(self, keys: set[str]) -> None:
        """Let go of the blocks of every protein that is not to be computed any more."""
        if self.folder.exists():
            for path in self.folder.iterdir():
                if path.name not in keys:
                    self.drop(path.name)

    def _path(self, item: WorkItem) -> Path:
        return self.folder / item.key / f"{item.start}-{item.stop}"


def _seal(item: WorkItem, data: bytes) -> bytes:
    return hashlib.sha256(item.sequence.encode() + b"\0" + data).digest()
