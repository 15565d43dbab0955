"""The writing half of the store: one writer per protein, and a protein that is there is complete.

A protein is written under pending/, forced to the disk and renamed into proteins/, so a run may be killed at any
instant and leaves nothing half-visible. A second run on the same store is refused while the first holds the lock.
"""

import os
import shutil
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from jaxtyping import Shaped
from zarr.storage import LocalStore

from plmjac.files import is_temporary, nearest, sync, write_whole
from plmjac.readouts import READOUTS
from plmjac.records import Chains, Failure
from plmjac.store.layout import (
    COMPRESSORS,
    FAILED,
    FORMAT_VERSION,
    PENDING,
    PROTEINS,
    StoreError,
    digest,
    group_document,
    read_group_document,
    sync_tree,
    to_json,
    tree_digests,
)
from plmjac.store.lock import RUN, StoreLock
from plmjac.store.saved_rows import FOLDER
from plmjac.workplan import ManifestRow

LATER_KEYS = ("substitutions.symmetrized",)
"""Of the identity; what an earlier version wrote without them was made otherwise and is not continued."""

NAMED = "dimension_names"
"""The store's attribute that its arrays have them; one of before is continued without, so that all are alike."""


@dataclass
class PendingProtein:
    """A protein being written: arrays arrive in any order, `commit` makes them one visible group."""

    folder: Path
    target: Path
    attributes: dict[str, Any]
    is_named: bool = True
    """True in a store whose arrays have names for their dimensions: all of those begun since 2026-11-26."""
    arrays: dict[str, zarr.Array[Any]] = field(default_factory=dict)

    def write(self, name: str, values: Shaped[np.ndarray, "..."], start: int = 0) -> None:
        """Write a whole array, or of a readout in blocks of rows the block from residue `start` on, in order.

        Types and chunks are those of its readout. Raises ValueError for a name that is no readout, and where a value is
        not finite.
        """
        if name not in READOUTS:
            raise ValueError(f"there is no readout {name!r}; {nearest(name, READOUTS)}")
        spec = READOUTS[name]
        with np.errstate(over="ignore"):
            stored = values.astype(spec.dtype)
        # Of a protein in windows, pairs that no window has are NaN.
        is_known = ~np.isinf(stored) if "windows" in self.attributes else np.isfinite(stored)
        if not is_known.all():
            raise ValueError(f"{name} has values that are not finite, or too large for {stored.dtype}")
        first, last = self.attributes.get("positions", (0, self.attributes["length"]))
        shape = (last - first, *values.shape[1:]) if spec.is_in_blocks else values.shape
        if name not in self.arrays:
            self.arrays[name] = self._create(name, shape, spec.chunk_shape(shape, len(values)), stored.dtype)
        at = start - first if spec.is_in_blocks else 0
        self.arrays[name][at : at + len(values)] = stored

    def commit(self) -> None:
        """Seal the group with the checksum of each of its files and make it appear under proteins/."""
        attributes = {**self.attributes, "checksums": tree_digests(self.folder)}
        (self.folder / "zarr.json").write_bytes(group_document(attributes))
        sync_tree(self.folder)
        try:
            os.rename(self.folder, self.target)
        except OSError:
            if not self.target.exists():
                raise
            if (self.target / "zarr.json").read_bytes() != (self.folder / "zarr.json").read_bytes():
                raise ValueError(f"{self.target} is there already, with other content; run plmjac.verify") from None
            shutil.rmtree(self.folder)  # an earlier attempt got there first, with the same bytes
        sync(self.target.parent)

    def abandon(self) -> None:
        """Remove what was written so far."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _create(
        self, name: str, shape: tuple[int, ...], chunks: tuple[int, ...], dtype: "np.dtype[Any]"
    ) -> "zarr.Array[Any]":
        is_part = "positions" in self.attributes
        # What is missing reads as NaN, never as zero; other dtypes have no such value: there the files are counted.
        fill_value = float("nan") if dtype.kind == "f" else -1 if dtype.kind == "i" else False
        return zarr.create_array(
            LocalStore(self.folder),
            name=name,
            shape=shape,
            chunks=chunks,
            dtype=dtype,
            compressors=list(COMPRESSORS),
            dimension_names=READOUTS[name].dimensions(len(shape), is_part=is_part) if self.is_named else None,
            fill_value=fill_value,
            config={"write_empty_chunks": True},
            zarr_format=3,
        )


class StoreWriter:
    """A store opened for writing by one rank; many ranks may hold one, each with proteins of its own."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def _is_named(self) -> bool:
        return NAMED in read_group_document(self.path / "zarr.json")

    def begin(self, key: str, *, sequence: str, identifier: str, chains: Chains | None = None) -> PendingProtein:
        """Start a protein anew under pending/; what an earlier attempt left there is dropped."""
        folder = self.path / PENDING / key
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        attributes: dict[str, Any] = {"id": identifier, "sequence": sequence, "length": len(sequence)}
        if chains:
            attributes |= {
                "chain_breaks": list(chains.breaks),
                "linkers": [list(span) for span in chains.linkers],
                "index_gap": chains.index_gap,
            }
        (folder / "zarr.json").write_bytes(group_document(attributes))
        return PendingProtein(folder, self.path / PROTEINS / key, attributes, self._is_named)

    def fail(self, key: str, identifier: str, failure: Failure) -> None:
        """Record why a protein could not be computed: failed/<key>.json."""
        document = {"id": identifier, "key": key, "reason": failure.reason, "trace": failure.trace}
        write_whole(self.path / FAILED / f"{key}.json", to_json(document))

    def record_refused(self, rows: Iterable[ManifestRow]) -> None:
        """Write failed/<key>.json of input records that no run could compute.

        Not forced to the disk, for each start writes them anew: two waits for the disk a record are minutes where a
        large input is bad.
        """
        for row in rows:
            document = {"id": row.id, "key": row.key, "reason": row.reason, "trace": ""}
            write_whole(self.path / FAILED / f"{row.key}.json", to_json(document), durable=False)

    def forget_failures(self, keys: Collection[str] | None = None) -> None:
        """Drop the failures of earlier runs, of all proteins or of these: this run tries again and reports its own."""
        for path in (self.path / FAILED).glob("*.json"):
            if keys is None or path.name.removesuffix(".json") in keys:
                path.unlink()

    def clear_pending(self) -> None:
        """Remove what killed runs left behind, but for whole blocks of long proteins. Only under the lock."""
        for path in (self.path / PENDING).iterdir():
            if path.is_dir() and path.name != FOLDER:
                shutil.rmtree(path)
        proteins = self.path / PROTEINS
        for folder in (self.path, proteins, self.path / FAILED):
            for entry in list(os.scandir(folder)):  # plain strings: there may be 200,000 proteins
                if entry.is_dir():
                    # Half deleted. The store's own folder may be called proteins as well.
                    if folder is proteins and not os.path.isfile(f"{entry.path}/zarr.json"):
                        shutil.rmtree(entry.path)
                elif is_temporary(entry.name):
                    os.unlink(entry.path)

    def remove(self, key: str) -> None:
        """Take a protein out of the store; killed at any instant it is there whole, or gone."""
        doomed = self.path / PENDING / key
        shutil.rmtree(doomed, ignore_errors=True)
        os.rename(self.path / PROTEINS / key, doomed)
        sync(self.path / PROTEINS)
        if doomed.is_dir():
            shutil.rmtree(doomed)
        else:
            doomed.unlink()


def lock(path: Path, role: str = RUN) -> StoreLock:
    """Keep the store, there already or not, for this run or shard until `release` or the end of the process.

    Raises StoreError while another run holds it, or where the path is something else than a store.
    """
    _check_is_ours(path)
    return StoreLock(path, role)


def create_or_check(path: Path, identity: dict[str, Any], details: dict[str, Any]) -> dict[str, Any]:
    """Make a store for a run of this identity, or check that an existing one is of the same.

    `identity` is all that determines the bytes of a protein; `details` is recorded by the first run and not compared
    (resolved configuration, versions, batch size). Returns the store's attributes. Raises StoreError naming the keys
    that differ.
    """
    _check_is_ours(path)
    for folder in (PROTEINS, PENDING, FAILED):
        (path / folder).mkdir(parents=True, exist_ok=True)
    if not (path / PROTEINS / "zarr.json").exists():
        write_whole(path / PROTEINS / "zarr.json", group_document({}))
    if not (path / "zarr.json").exists():
        attributes = {
            "format_version": FORMAT_VERSION, NAMED: True, **identity, "config_hash": digest(identity), **details
        }  # fmt: skip
        write_whole(path / "zarr.json", group_document(attributes))
    attributes = read_group_document(path / "zarr.json")
    _compare(path, attributes, identity)
    return attributes


def _check_is_ours(path: Path) -> None:
    """Raise StoreError for a path that is a file, or a folder of something else."""
    if path.exists() and not path.is_dir():
        raise StoreError(f"{path} is a file; give store= the name of a folder, such as runs/my.zarr")
    strangers = {entry.name for entry in path.iterdir()} if path.exists() else set()
    if not (path / "zarr.json").exists() and strangers - {PROTEINS, PENDING, FAILED}:
        if all(is_temporary(name) for name in strangers - {PROTEINS, PENDING, FAILED}):
            return
        raise StoreError(f"{path} holds other files and is no plmjac store; give store= the name of a new folder")


def _compare(path: Path, attributes: dict[str, Any], identity: dict[str, Any]) -> None:
    version = attributes.get("format_version")
    if version != FORMAT_VERSION:
        raise StoreError(f"{path} has format version {version}; this plmjac writes version {FORMAT_VERSION}")
    theirs, ours = (flatten({key: side.get(key) for key in identity}) for side in (attributes, identity))
    differences = [
        f"  {key}: the store has {theirs.get(key)!r}, this run {ours.get(key)!r}"
        for key in sorted(theirs.keys() | ours.keys())
        if theirs.get(key) != ours.get(key)
    ]
    if differences:
        text = "\n".join(differences)
        raise StoreError(
            f"{path} was made with another configuration:\n{text}\n{_earlier(theirs, ours)}"
            "Use another store=, or these values."
        )


def _earlier(theirs: dict[str, Any], ours: dict[str, Any]) -> str:
    """Reason why a key is missing in a store whose substitutions are otherwise of the same kind."""
    same = theirs.get("substitutions.name") == ours.get("substitutions.name")
    later = [key for key in LATER_KEYS if key in ours and key not in theirs and same]
    return f"An earlier plmjac made it, which had no {', '.join(later)}. " if later else ""


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one with dotted keys."""
    if not isinstance(value, dict):
        return {prefix: value}
    flat: dict[str, Any] = {}
    for key, inner in value.items():
        flat |= flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    return flat
