"""The two ends of a run, on rank 0: from input to a manifest of what is to be done, and to one of what became of it.

Knows no Lightning, so a run that finds nothing left to do never waits for it.
"""

import errno
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from filelock import BaseFileLock

from plmjac.records import Filtered, Protein, Rejected
from plmjac.store import (
    SavedRows,
    StoreError,
    StoreWriter,
    completed,
    create_or_check,
    lock,
    read_manifest,
    stored_proteins,
    write_manifest,
)
from plmjac.workplan import ManifestRow, manifest, merge, remaining

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What a run is asked for: which records, into which store, cut how, and what that store must be a store of."""

    records: Callable[[], Iterable[Protein | Rejected | Filtered]]
    store: Path
    identity: dict[str, Any]
    details: dict[str, Any]
    cost: Callable[[Protein], float] = lambda protein: float(len(protein))
    max_length: int | None = None
    rows_per_chunk: int | None = None
    num_letters: int = 20
    forwards_per_residue: int = 19
    compiles: Callable[[float], bool] | None = None
    """Decides for a new store of so many FLOPs, as `cost` counts them, whether the model is compiled; None: settled."""


class Preparation:
    """Holds the store for a run, from `prepare` to `release`."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.asked: list[ManifestRow] = []
        self._guard: BaseFileLock | None = None

    def prepare(self) -> None:
        """Read the input, take the store, and write down what is to be done. Does nothing the second time."""
        if self._guard is not None:
            return
        store = self.request.store
        if (store / "zarr.json").exists():  # refused at once, not after reading 20,000 structures
            self._take_store()
        records = [_without_structure(record) for record in self.request.records()]
        if self._guard is None:  # only now, so that bad input leaves no empty store behind
            self._take_store(records)
        writer = StoreWriter(store)
        writer.clear_pending()
        writer.forget_failures()
        earlier = read_manifest(store)
        self.asked = manifest(
            records,
            max_length=self.request.max_length,
            cost=self.request.cost,
            stored=stored_proteins(store, earlier),
        )
        SavedRows(store).drop_all_but({row.key for row in remaining(self.asked, ())})
        for row in self.asked:
            if row.status == "failed":
                writer.record_failure(row.key, row.id, row.reason)
        write_manifest(store, merge(self.asked, earlier))

    def _take_store(self, records: Iterable[Protein | Rejected | Filtered] = ()) -> None:
        details = self.request.details
        try:
            self._guard = lock(self.request.store)
            if self.request.compiles is not None and not (self.request.store / "zarr.json").exists():
                flops = sum(self.request.cost(record) for record in records if isinstance(record, Protein))
                details = {**details, "run": {**details["run"], "compiled": self.request.compiles(flops)}}
            create_or_check(self.request.store, self.request.identity, details)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise StoreError(f"{self.request.store} cannot be written: {error.strerror or error}") from error

    @property
    def open_rows(self) -> list[ManifestRow]:
        """What this run has to compute."""
        return remaining(self.asked, ())

    def release(self) -> None:
        """Let go of the store, for a later run in this process."""
        if self._guard is not None:
            self._guard.release()

    def finish(self) -> list[ManifestRow]:
        """On rank 0, after its own share: wait for the others, then write what became of every record.

        No barrier: a rank may be hours behind, and one that dies is ended by the launcher together with this one.
        """
        store = self.request.store
        said = time.monotonic()
        while waiting := [row for row in self.open_rows if not _is_settled(store, row)]:
            if time.monotonic() - said > 60:
                log.info("waiting for %d proteins of other ranks", len(waiting))
                said = time.monotonic()
            time.sleep(0.2)
        there = completed(store)
        reasons = {path.stem: json.loads(path.read_bytes())["reason"] for path in (store / "failed").glob("*.json")}
        self.asked = [_outcome(row, there, reasons) for row in self.asked]
        write_manifest(store, merge(self.asked, read_manifest(store)))
        return self.asked


def summary(rows: list[ManifestRow]) -> str:
    """What became of the records, in a line, and the first of those that did not get there, with the reason."""
    counts = Counter(row.status for row in rows)
    aliases = sum(1 for row in rows if row.alias_of and row.status == "done")
    order = ("done", "failed", "skipped", "filtered")
    text = [", ".join(f"{counts[status]} {status}" for status in order if counts[status]) or "no records"]
    if aliases:
        text[0] += f" ({aliases} with the sequence of another)"
    unhappy = [row for row in rows if row.status in ("failed", "skipped")]
    text += [f"  {row.status} {row.id}: {row.reason} [{row.source}]" for row in unhappy[:50]]
    if len(unhappy) > 50:
        text.append(f"  ... and {len(unhappy) - 50} more; all are in the manifest")
    return "\n".join(text)


def _without_structure(record: Protein | Rejected | Filtered) -> Protein | Rejected | Filtered:
    """Coordinates of a whole data set are not needed here, and would be gigabytes."""
    return replace(record, structure=None) if isinstance(record, Protein) else record


def _is_settled(store: Path, row: ManifestRow) -> bool:
    return (store / "proteins" / row.key).exists() or (store / "failed" / f"{row.key}.json").exists()


def _outcome(row: ManifestRow, there: set[str], reasons: dict[str, str]) -> ManifestRow:
    if row.status != "pending":
        return row
    key = row.alias_of or row.key
    if key in there:
        return replace(row, status="done")
    reason = f"as {key}, which has its sequence: {reasons[key]}" if row.alias_of else reasons[key]
    return replace(row, status="failed", reason=reason)
