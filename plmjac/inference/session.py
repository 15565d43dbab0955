"""A run's hold on its store: the lock, the manifest of what is to be done, and that of what became of it.

Rank 0 alone has one. Knows no Lightning, so a run that finds nothing left to do never waits for it.
"""

import errno
import json
import logging
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

from filelock import BaseFileLock

from plmjac.inference.resolve import Run
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


class Session:
    """Holds the store for a run, from `prepare` to `release`."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.store = run.settings.store
        self.rows: list[ManifestRow] = []
        self._guard: BaseFileLock | None = None

    def prepare(self) -> None:
        """Read the input, take the store, and write down what is to be done. Does nothing the second time."""
        if self._guard is not None:
            return
        if (self.store / "zarr.json").exists():  # refused at once, not after reading 20,000 structures
            self._take_store()
        records = [_without_structure(record) for record in self.run.dataset]
        if self._guard is None:  # only now, so that bad input leaves no empty store behind
            self._take_store()
        writer = StoreWriter(self.store)
        writer.clear_pending()
        writer.forget_failures()
        earlier = read_manifest(self.store)
        self.rows = manifest(
            records,
            max_length=self.run.settings.max_length,
            cost=self.run.cost,
            stored=stored_proteins(self.store, earlier),
        )
        SavedRows(self.store).drop_all_but({row.key for row in self.to_compute})
        for row in self.rows:
            if row.status == "failed":
                writer.record_failure(row.key, row.id, row.reason)
        write_manifest(self.store, merge(self.rows, earlier))

    def _take_store(self) -> None:
        try:
            self._guard = lock(self.store)
            create_or_check(self.store, self.run.identity, self.run.details)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise StoreError(f"{self.store} cannot be written: {error.strerror or error}") from error

    @property
    def to_compute(self) -> list[ManifestRow]:
        """The proteins that this run has to compute."""
        return remaining(self.rows, ())

    def release(self) -> None:
        """Let go of the store, for a later run in this process."""
        if self._guard is not None:
            self._guard.release()

    def finish(self) -> list[ManifestRow]:
        """On rank 0, after its own share: wait for the others, then write what became of every record.

        No barrier: a rank may be hours behind, and one that dies is ended by the launcher together with this one.
        """
        store = self.store
        said = time.monotonic()
        while waiting := [row for row in self.to_compute if not _is_settled(store, row)]:
            if time.monotonic() - said > 60:
                log.info("waiting for %d proteins of other ranks", len(waiting))
                said = time.monotonic()
            time.sleep(0.2)
        there = completed(store)
        reasons = {path.stem: json.loads(path.read_bytes())["reason"] for path in (store / "failed").glob("*.json")}
        self.rows = [_outcome(row, there, reasons) for row in self.rows]
        write_manifest(store, merge(self.rows, read_manifest(store)))
        return self.rows


def outcome_of(rows: list[ManifestRow]) -> str:
    """Counts of the records by status, in a line, and the first 50 that failed or were skipped, with the reason."""
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
