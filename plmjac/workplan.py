"""The plan of a run: from input records to manifest rows, from rows to work items, and to the share of each rank.

Uses no model, file, framework or clock, so that resuming, sharding and "every row exactly once" are tested in
milliseconds. Proteins are shared whole (one writer per protein) with their items in order, except for a protein that
costs more than a fair share: its rows are shared.
"""

import heapq
import math
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from urllib.parse import quote

from plmjac.limit import NO_LIMIT, Limit
from plmjac.records import Chains, Filtered, Protein, Rejected, WorkItem

CHUNK_BYTES = 16 * 2**20
"""Approximate bytes of a chunk of the Jacobian on disk (float16) if `rows_per_chunk` is null."""

DEAR = 1.1
"""Fair shares of a rank or shard above which a protein is cut, since the other ranks would wait for it."""

MAX_KEY_BYTES = 120
_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?<!\.)", re.ASCII)
_RESERVED = re.compile(r"zarr\.json|(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


@dataclass(frozen=True)
class ManifestRow:
    """One record of the input and its status.

    `status` is pending, done, failed (with the reason), skipped (longer than `max_length`), filtered (left out by the
    dataset) or unfinished (pending in an earlier run with other input). `alias_of` is the key of the protein with the
    same sequence that is computed instead. `chains` is `str(Chains)`, empty for a single chain. `residue_numbers` are
    the author's, separated by blanks, "-" for a residue without one; None without a structure.
    """

    id: str
    key: str
    length: int
    sequence: str
    alias_of: str = ""
    status: str = "pending"
    reason: str = ""
    cost: float = 0.0
    source: str = ""
    chains: str = ""
    residue_numbers: str | None = None

    @property
    def input(self) -> tuple[str, str]:
        """The model's input: a sequence and how it is divided into chains."""
        return self.sequence, self.chains


def key_of(identifier: str) -> str:
    """Folder name for an id: the id itself if it is a safe file name, else its percent-quoted form.

    Different ids have different keys. A key has no slash, no leading or trailing dot and no name that some system
    reserves; a very long one is cut and ends in a digest.
    """
    is_safe = _SAFE.fullmatch(identifier) and not _RESERVED.fullmatch(identifier)
    if is_safe and len(identifier) <= MAX_KEY_BYTES:
        return identifier
    quoted = quote(identifier.encode("utf-8", "surrogatepass"), safe="")
    if quoted.endswith("."):
        quoted = quoted[:-1] + "%2E"
    if "%" not in quoted or quoted.startswith("."):  # a reserved name such as "con", or a hidden file
        quoted = f"%{ord(quoted[0]):02X}{quoted[1:]}"
    if len(quoted) <= MAX_KEY_BYTES:
        return quoted
    return f"{quoted[:60]}%%{sha256(quoted.encode()).hexdigest()[:16]}"


@dataclass(frozen=True)
class Stored:
    """A protein that is already in a store: its key, id, sequence and chains."""

    key: str
    id: str
    sequence: str
    alias_of: str = ""
    chains: str = ""

    @property
    def input(self) -> tuple[str, str]:
        """The model's input, as in `ManifestRow`."""
        return self.sequence, self.chains


def manifest(
    records: Iterable[Protein | Rejected | Filtered],
    *,
    limit: Limit = NO_LIMIT,
    cost: Callable[[Protein], float] = lambda protein: float(forwards(len(protein)) * len(protein)),
    stored: Iterable[Stored] = (),
) -> list[ManifestRow]:
    """Make exactly one row for every input record: done, pending, an alias, or refused with a reason.

    Identical sequences (of the same chains) are computed once, under the key of the first, and not at all if `stored`
    has the sequence. A repeated id with the same sequence becomes an alias under a numbered key; an id that already
    stands for another sequence, in the input or in the store, fails. `limit` decides about long proteins, `cost`
    estimates the work for one protein.
    """
    there = {protein.id: protein for protein in stored}
    key_with = {protein.input: protein.alias_of or protein.key for protein in there.values()}
    done = set(key_with.values())
    keys = _Keys(protein.key for protein in there.values())
    first: dict[str, ManifestRow] = {}
    rows: list[ManifestRow] = []
    for record in records:
        row, known = _row(record, limit, cost), there.get(record.id)
        if row.status == "pending":
            row = _refuse_other_sequence(row, first.setdefault(row.id, row), known)
        if row.status == "pending" and known is not None and known is there.pop(row.id, None):
            row = replace(row, key=known.key)
        else:
            row = replace(row, key=keys.free(row.id))
        if row.status == "pending":
            row = _with_primary(row, key_with.setdefault(row.input, row.key), done)
        rows.append(row)
    return rows


def merge(now: Iterable[ManifestRow], earlier: Iterable[ManifestRow], there: Collection[str]) -> list[ManifestRow]:
    """The rows of this run, followed by those of earlier runs for records that are not in this run's input.

    Of the latter, proteins that were not computed, or were deleted since (`there` are the keys in the store), become
    "unfinished": they are not computed unless their input is given again.
    """
    current = list(now)
    keys = {row.key for row in current}
    others = (row for row in earlier if row.key not in keys)
    return current + [replace(row, status="unfinished") if _is_open(row, there) else row for row in others]


def _is_open(row: ManifestRow, there: Collection[str]) -> bool:
    return row.status == "pending" or (row.status == "done" and (row.alias_of or row.key) not in there)


def forwards(length: int, per_residue: int = 19) -> int:
    """Forward passes for one protein: the wild type, and `per_residue` mutants at every position."""
    return 1 + per_residue * length


def rows_per_chunk_for(length: int, letters: int = 20) -> int:
    """Number of Jacobian rows in a chunk of about CHUNK_BYTES in float16, from 1 to L."""
    return max(1, min(length, CHUNK_BYTES // (max(1, letters) * length * 20 * 2)))


def work_items(
    row: ManifestRow, rows_per_chunk: int | None = None, letters: int = 20, rows: tuple[int, int] | None = None
) -> list[WorkItem]:
    """Cut one protein, or its rows first <= i < last, into consecutive blocks of rows."""
    size = rows_per_chunk or rows_per_chunk_for(row.length, letters)
    chains = Chains.parse(row.chains)
    first, last = rows or (0, row.length)
    return [
        WorkItem(
            row.key, row.sequence, start, stop, row.cost * (stop - start) / (last - first), chains, row.id,
            rows=(first, last),
        )
        for start in range(first, last, size)
        for stop in [min(start + size, last)]
    ]  # fmt: skip


def remaining(rows: Iterable[ManifestRow], done: Collection[str]) -> list[ManifestRow]:
    """Rows of the proteins that remain to be computed: no alias, not refused, not in the store."""
    return [row for row in rows if row.status == "pending" and not row.alias_of and row.key not in done]


def planned(rows: Iterable[ManifestRow]) -> list[ManifestRow]:
    """Rows of all proteins of a plan, done or not: no alias, not refused."""
    return [row for row in rows if row.status in ("pending", "done") and not row.alias_of]


Blocks = Callable[[ManifestRow], list[WorkItem]]
"""Function from a protein to the work items that different processes may compute; none if it must not be cut."""


@dataclass(frozen=True)
class Portion:
    """The part of a protein that a rank or shard computes: the whole, or some blocks of rows of a shared protein.

    `starts` are the first rows of these blocks; empty for the whole.
    """

    row: ManifestRow
    cost: float
    starts: tuple[int, ...] = ()

    @property
    def is_shared(self) -> bool:
        """True if other ranks or shards have the rest of the protein."""
        return bool(self.starts)

    def of(self, items: Iterable[WorkItem]) -> list[WorkItem]:
        """The items of the protein that belong to the portion."""
        if not self.is_shared:
            return list(items)
        chosen = set(self.starts)
        return [replace(item, role="shared") for item in items if item.start in chosen]

    def cut(self, number: int, blocks: Blocks) -> "list[Portion]":
        """Cut into at most `number` portions of about equal cost, at boundaries of blocks."""
        items = self.of(blocks(self.row))
        number = min(number, len(items))
        if number < 2:
            return [self]
        parts = [items[at * len(items) // number : (at + 1) * len(items) // number] for at in range(number)]
        return [portion_of(self.row, part) for part in parts]


def portion_of(row: ManifestRow, items: Sequence[WorkItem]) -> Portion:
    """Portion of a shared protein that consists of these blocks."""
    return Portion(row, math.fsum(item.cost for item in items), tuple(item.start for item in items))


def whole(rows: Iterable[ManifestRow]) -> list[Portion]:
    """Each protein as one portion."""
    return [Portion(row, row.cost) for row in rows]


def shared_out(portions: Iterable[Portion], number: int, blocks: Blocks = lambda _: []) -> list[list[Portion]]:
    """Portions of each of `number` ranks: the costliest first, each to the least loaded rank (LPT).

    A portion that costs more than `DEAR` fair shares is cut into as many parts as there are ranks, or blocks in it.
    The result does not depend on the order of the portions; a rank may get none. Since the costliest come first, a
    protein that does not fit into memory shows in the first minute.
    """
    given = list(portions)
    fair = math.fsum(portion.cost for portion in given) / number
    parts: list[Portion] = []
    for portion in given:
        parts += portion.cut(number, blocks) if portion.cost > DEAR * fair and number > 1 else [portion]
    loads = [(0.0, rank) for rank in range(number)]
    shares: list[list[Portion]] = [[] for _ in range(number)]
    for part in sorted(parts, key=lambda part: (-part.cost, part.row.key, part.starts)):
        load, rank = heapq.heappop(loads)
        heapq.heappush(loads, (load + part.cost, rank))
        shares[rank].append(part)
    return [_merged(share) for share in shares]


def _merged(share: list[Portion]) -> list[Portion]:
    """Join the parts of one protein that went to the same rank."""
    found: dict[str, Portion] = {}
    for part in share:
        if (known := found.get(part.row.key)) is not None:
            part = Portion(part.row, known.cost + part.cost, tuple(sorted(known.starts + part.starts)))
        found[part.row.key] = part
    return list(found.values())


@dataclass(frozen=True)
class Shard:
    """One of `count` jobs that divide the proteins of a plan among them without communicating."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """Parse "3/16". Raises ValueError."""
        match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise ValueError(f"shard={text}: write shard=k/n, k counted from 1 to n, such as shard=3/16")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def role(self) -> str:
        """Name of the shard in the store's lock; usable as a file name."""
        return f"{self.number}-of-{self.count}"

    def of(self, rows: Iterable[ManifestRow], blocks: Blocks = lambda _: []) -> list[Portion]:
        """Portions of this shard. Finished proteins are counted too, so that all shards agree whenever they start."""
        return shared_out(whole(planned(rows)), self.count, blocks)[self.number - 1]


def _row(record: Protein | Rejected | Filtered, limit: Limit, cost: Callable[[Protein], float]) -> ManifestRow:
    if isinstance(record, Rejected):
        return ManifestRow(record.id, "", 0, "", status="failed", reason=record.reason, source=record.source)
    if isinstance(record, Filtered):
        return ManifestRow(
            record.id, "", record.length, "", status="filtered", reason=record.reason, source=record.source
        )
    record, reason = limit.apply(record)
    length = len(record)
    chains = str(record.chains or "")
    row = ManifestRow(
        record.id, "", length, record.sequence, reason=record.note, source=record.source, chains=chains,
        residue_numbers=" ".join(text or "-" for text in record.residue_numbers) if record.residue_numbers else None,
    )  # fmt: skip
    if reason:
        return replace(row, status="skipped", reason=reason)
    return replace(row, cost=cost(record))


def _refuse_other_sequence(row: ManifestRow, first: ManifestRow, known: Stored | None) -> ManifestRow:
    """Fail a row whose id already stands for another sequence, in this input or in the store."""
    if first.input != row.input:
        other = "another sequence" if first.sequence != row.sequence else "other chains"
        reason = f"the id {row.id!r} was used before for {other} ({first.source}); rename one of them"
        return replace(row, status="failed", reason=reason, cost=0.0)
    if known is not None and known.input != row.input:
        reason = (
            f"the store holds another sequence under the id {row.id!r}, or the same in other chains; "
            "rename this record or use another store"
        )
        return replace(row, status="failed", reason=reason, cost=0.0)
    return row


def _with_primary(row: ManifestRow, primary: str, done: set[str]) -> ManifestRow:
    """Make a row an alias of the protein that is computed for its sequence, unless that is the row itself."""
    row = replace(row, status="done") if primary in done else row
    return row if primary == row.key else replace(row, alias_of=primary, cost=0.0)


class _Keys:
    """Hands out unique keys; names that differ only in upper and lower case count as one (macOS, Windows)."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = {key.casefold() for key in taken}
        self._number: dict[str, int] = {}

    def free(self, identifier: str) -> str:
        """The key of the id, or the first free numbered one; in constant time however many are taken."""
        key = candidate = key_of(identifier)
        folded = key.casefold()
        while candidate.casefold() in self._taken:
            number = self._number[folded] = self._number.get(folded, 1) + 1
            candidate = f"{key}%23{number}"
        self._taken.add(candidate.casefold())
        return candidate
