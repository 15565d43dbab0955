"""Rank 0's part of a run: the store's lock, the manifest before it (what is to be done) and after it (what was).

Knows no Lightning, so that a run with nothing left to do never waits for its import.
"""

import errno
import json
import logging
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from plmjac import interruption
from plmjac.files import write_whole
from plmjac.inference.resolve import Run
from plmjac.inference.tasks import blocks
from plmjac.records import Filtered, Protein, Rejected
from plmjac.store import (
    SavedRows,
    StoreError,
    StoreLock,
    StoreWriter,
    completed,
    create_or_check,
    is_settled,
    lock,
    read_manifest,
    stored_proteins,
    write_manifest,
)
from plmjac.store.layout import FAILED, MANIFEST, PENDING, digest, to_json
from plmjac.store.lock import RUN
from plmjac.store.under_way import LAST, REFUSED, count_deaths, refusal
from plmjac.workplan import ManifestRow, Portion, Shard, manifest, merge, planned, portion_of, remaining, whole

log = logging.getLogger(__name__)

PLAN = f"{PENDING}/plan.json"
"""The plan that all shards of a store share."""


class Session:
    """Holds the store for a run, from `prepare` to the end of the `with` block."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.store = run.settings.store
        self.rows: list[ManifestRow] = []
        self.shard = run.settings.shard
        self._mine: dict[str, Portion] = {}
        self._guard: StoreLock | None = None

    @property
    def plan_file(self) -> str:
        """The file of rows that the ranks of this run read their proteins from; shards have one each."""
        return f"{PENDING}/plan.{self.shard.role}.parquet" if self.shard else MANIFEST

    @property
    def role(self) -> str:
        """The role of this run under the store's lock."""
        return self.shard.role if self.shard else RUN

    def prepare(self) -> None:
        """Read the input, take the store, and write down what is to be done. Does nothing the second time."""
        if self._guard is not None:
            return
        if (self.store / "zarr.json").exists():  # refused at once, not after reading 20,000 structures
            self._take_store()
        records = [_without_structure(record) for record in self.run.dataset]
        for record in records:
            if isinstance(record, Protein):
                self.run.limit.apply(record)  # which refuses the input where too_long=error
        if self._guard is None:  # only now, so that bad input leaves no empty store behind
            self._take_store(records)
        assert self._guard is not None
        with self._guard.door():
            self._write_plan(records, self._guard.is_alone)

    def _write_plan(self, records: list[Protein | Rejected | Filtered], is_alone: bool) -> None:
        """Decide what is to be computed and write it down; clear what killed runs left, where no other shard writes."""
        store, shard = self.store, self.shard
        writer, earlier = StoreWriter(store), read_manifest(store)
        self.rows = manifest(
            records,
            limit=self.run.limit,
            cost=self.run.cost,
            stored=stored_proteins(store, earlier),
        )
        task = self.run.task
        mine = shard.of(self.rows, lambda row: blocks(task, row)) if shard else whole(planned(self.rows))
        self._mine = {portion.row.key: portion for portion in mine}
        open_keys = {row.key for row in self.to_compute}
        deaths = count_deaths(store, None if is_alone else self.role, open_keys)
        if shard and not is_alone:
            self._join(shard)
        else:
            writer.clear_pending()
            SavedRows(store).drop_all_but({row.key for row in remaining(self.rows, ())})
            if shard:
                write_whole(store / PLAN, self._plan(shard))
        self.rows = [_unless_it_kills(store, row, deaths.get(row.key, 0)) for row in self.rows]
        refused = [row for row in self.rows if row.status == "failed"]
        writer.forget_failures(self._mine.keys() | {row.key for row in refused} if shard else None)
        writer.record_refused(refused)
        SavedRows(store).free_claims(None if is_alone else self.role)
        if shard:
            starts = {row.key: self._mine[row.key].starts for row in self.to_compute}
            write_whole(self._starts_file, to_json({key: list(each) for key, each in starts.items() if each}))
            write_manifest(store, self.to_compute, self.plan_file)
        if is_alone:
            write_manifest(store, merge(self._outcomes() if shard else self.rows, earlier, completed(store)))

    @property
    def _starts_file(self) -> Path:
        """Says of the proteins in the plan's file that shards share which blocks of rows are this one's."""
        return (self.store / self.plan_file).with_suffix(".json")

    def read_plan(self) -> list[Portion]:
        """On every rank: what this run, or shard, has to compute, as rank 0 wrote it down."""
        shared: dict[str, list[int]] = json.loads(self._starts_file.read_bytes()) if self.shard else {}
        portions = {part.row.key: part for part in whole(remaining(read_manifest(self.store, self.plan_file), ()))}
        for key, starts in shared.items():
            row = portions[key].row
            portions[key] = portion_of(row, [item for item in blocks(self.run.task, row) if item.start in set(starts)])
        return list(portions.values())

    def _plan(self, shard: Shard) -> bytes:
        """The plan that shards must have in common: their number, and every row but its status."""
        rows = [[row.id, row.key, row.sequence, row.chains, row.alias_of, row.cost] for row in self.rows]
        return to_json({"shards": shard.count, "plan": digest(rows)})

    def _join(self, shard: Shard) -> None:
        """Come in beside other shards. Raises StoreError where these are not shards of the same plan."""
        path = self.store / PLAN
        if not path.exists() or path.read_bytes() != self._plan(shard):
            raise StoreError(
                f"shards of another plan are writing {self.store}: with another input, max_length or number of "
                "shards. Wait for them to end, give the arguments that they have, or use another store"
            )

    def _take_store(self, records: Iterable[Protein | Rejected | Filtered] = ()) -> None:
        try:
            self._guard = lock(self.store, self.role)
            is_new = not (self.store / "zarr.json").exists()
            details = self.run.details_of(records) if is_new else self.run.details
            create_or_check(self.store, self.run.identity, details)
        except OSError as error:
            if error.errno not in (errno.ENOENT, *interruption.TO_MEND):
                raise
            raise StoreError(f"{self.store} cannot be written: {error.strerror or error}") from error

    @property
    def to_compute(self) -> list[ManifestRow]:
        """The proteins that this run has to compute."""
        return [row for row in remaining(self.rows, ()) if row.key in self._mine]

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Release the store, for a later run in this process, and let an error of the disk name it."""
        if self._guard is not None:
            self._guard.release()
        if isinstance(error, OSError) and error.errno in interruption.PASSING and error.filename is None:
            error.filename = str(self.store)  # of a write to a file that is open, which names none

    def finish(self) -> list[ManifestRow]:
        """On rank 0, after its own share: wait for the others, then write what became of every record.

        No barrier: a rank may be hours behind, and one that dies is ended by the launcher together with this one. Of
        the plan that shards have in common each writes what is known when it ends, the last one all of it. Returns the
        rows that this run answers for; records that nobody computes are the first shard's.
        """
        store, shard = self.store, self.shard
        said = time.monotonic()
        waiting = [row for row in self.to_compute if not self._mine[row.key].is_shared]
        while waiting := [row for row in waiting if not is_settled(store, row.key)]:
            if time.monotonic() - said > 60:
                log.info("waiting for %d proteins of other ranks", len(waiting))
                said = time.monotonic()
            time.sleep(0.2)
        assert self._guard is not None
        with self._guard.door():
            all_planned = {row.key for row in planned(self.rows)}
            self.rows = self._outcomes()
            write_manifest(store, merge(self.rows, read_manifest(store), completed(store)))
            count_deaths(store, self.role, {row.key for row in self.rows if row.status != "done"})
        if shard is None:
            return self.rows
        for path in (store / self.plan_file, self._starts_file):
            path.unlink(missing_ok=True)
        primary = {row.key: row.alias_of or row.key for row in self.rows}
        is_first = shard.number == 1
        return [
            row
            for row in self.rows
            if primary[row.key] in self._mine or (is_first and primary[row.key] not in all_planned)
        ]

    def _outcomes(self) -> list[ManifestRow]:
        """The rows of this run's input with what became of each; still pending where another shard has to do it."""
        there = completed(self.store)
        failed = (self.store / FAILED).glob("*.json")
        reasons = {path.stem: json.loads(path.read_bytes())["reason"] for path in failed}
        return [_outcome(row, there, reasons) for row in self.rows]


def outcome_of(rows: list[ManifestRow]) -> str:
    """Counts of the records by status, in a line, and the first 50 that failed or were skipped, with the reason."""
    counts = Counter(row.status for row in rows)
    aliases = sum(1 for row in rows if row.alias_of and row.status == "done")
    order = ("done", "failed", "skipped", "filtered", "pending")
    text = [", ".join(f"{counts[status]} {status}" for status in order if counts[status]) or "no records"]
    if aliases:
        text[0] += f" ({aliases} with the sequence of another)"
    pending = [row for row in rows if row.status == "pending" and not row.alias_of]
    text += [f"  pending {row.id}: other shards have rows of it; the last to end completes it" for row in pending[:50]]
    unhappy = [row for row in rows if row.status in ("failed", "skipped")]
    text += [f"  {row.status} {row.id}: {row.reason} [{row.source}]" for row in unhappy[:50]]
    if len(unhappy) > 50:
        text.append(f"  ... and {len(unhappy) - 50} more; all are in the manifest")
    return "\n".join(text)


def _without_structure(record: Protein | Rejected | Filtered) -> Protein | Rejected | Filtered:
    """The record without coordinates, which for a whole data set would be gigabytes."""
    return replace(record, structure=None) if isinstance(record, Protein) and record.structure is not None else record


def _unless_it_kills(store: Path, row: ManifestRow, deaths: int) -> ManifestRow:
    """The row, as failed where too many processes died over its protein."""
    if deaths >= LAST:
        log.warning("%s: %d processes died while they computed it", row.id, deaths)
    return replace(row, status="failed", reason=refusal(store, deaths)) if deaths >= REFUSED else row


def _outcome(row: ManifestRow, there: set[str], reasons: dict[str, str]) -> ManifestRow:
    if row.status != "pending":
        return row
    key = row.alias_of or row.key
    if key in there:
        return replace(row, status="done")
    if key not in reasons:
        return row
    reason = f"as {key}, which has its sequence: {reasons[key]}" if row.alias_of else reasons[key]
    return replace(row, status="failed", reason=reason)
