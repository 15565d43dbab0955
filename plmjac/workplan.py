"""The plan of a run: from input records to manifest rows, from rows to work items, and each rank's share.

Pure: no model, no file, no framework and no clock, so resume, sharding and "every row exactly once" are tested in
milliseconds. The unit of sharding is the protein (one writer per protein), and its items stay together and in order;
but for a protein that costs more than a fair share, whose rows are shared.
"""

import heapq
import math
import re
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, Literal
from urllib.parse import quote

from plmjac.files import UsageError
from plmjac.records import Chains, Filtered, Protein, Rejected, WorkItem

CHUNK_BYTES = 16 * 2**20
"""About how large a chunk of the Jacobian is on disk (float16) when `rows_per_chunk` is left to plmjac."""

DEAR = 1.1
"""Fair shares of a rank or shard; a protein that costs more is cut, for it would keep the others waiting."""

MAX_KEY_BYTES = 120
_SAFE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?<!\.)", re.ASCII)
_RESERVED = re.compile(r"zarr\.json|(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


@dataclass(frozen=True)
class ManifestRow:
    """One record of the input and what became of it.

    `status` is pending, done, failed (with the reason), skipped (longer than `max_length`), filtered (left out by the
    dataset's own choice) or unfinished (of an earlier, interrupted run with other input). `alias_of` holds the key of
    the protein with the same sequence that is computed in its place. `chains` is `str` of `Chains`, empty for one.
    `residue_numbers` are the author's, put together with blanks and "-" for what has none; None without a structure.
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
        """The model's input: the same sequence in other chains, or with another index gap, is another one."""
        return self.sequence, self.chains


def key_of(identifier: str) -> str:
    """A folder name for an id: the id itself where that is a safe file name, else a percent-quoted form of it.

    Different ids give different keys. A key never holds a slash, a leading or trailing dot or a name that some system
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
    """A protein that a store already holds: under which key, for which id, and with which sequence and chains."""

    key: str
    id: str
    sequence: str
    alias_of: str = ""
    chains: str = ""

    @property
    def input(self) -> tuple[str, str]:
        """As that of a `ManifestRow`."""
        return self.sequence, self.chains


def parse_positions(text: str) -> tuple[int, int]:
    """From "120:180". Raises ValueError."""
    match = re.fullmatch(r"([0-9]{1,7}):([0-9]{1,7})", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise ValueError(
            f"positions={text}: write positions=START:STOP, residues counted from 0 and STOP not among them: "
            "the first 60 residues are 0:60 (in a YAML file between quotes)"
        )
    return int(match[1]), int(match[2])


@dataclass(frozen=True)
class Limit:
    """The part of a protein that is computed: how many residues the model sees, and which of them are mutated.

    `max_length`, of the settings, and `model_length` are the longest protein that is seen whole. `too_long` says what
    becomes of longer ones: skip (they are told in the manifest), error, crop (their first residues), or window:
    overlapping windows of the longest length, whose results are joined. `positions` are the residues that are mutated,
    half-open; None for all.
    """

    max_length: int | None = None
    model_length: int | None = None
    too_long: Literal["skip", "error", "crop", "window"] = "skip"
    positions: tuple[int, int] | None = None

    @property
    def length(self) -> int | None:
        """Residues of the longest protein, or window; None without a limit."""
        return min((each for each in (self.max_length, self.model_length) if each is not None), default=None)

    @property
    def window(self) -> int | None:
        """Residues of a window, None where longer proteins are not cut into windows."""
        return self.length if self.too_long == "window" else None

    def windows(self, length: int) -> list[tuple[int, int]]:
        """Half-open ranges that cover a protein, each sharing at least half of its residues with the next.

        One where the protein fits. They are spread evenly over longer ones.
        """
        size = self.window
        if size is None or length <= size:
            return [(0, length)]
        more = -(-(length - size) // max(1, size // 2))
        starts = [number * (length - size) // more for number in range(more + 1)]
        return [(start, start + size) for start in starts]

    def rows(self, length: int) -> tuple[int, int]:
        """The residues that are mutated, half-open: the rows of the Jacobian."""
        return self.positions or (0, length)

    def rows_of_windows(self, length: int) -> list[tuple[int, int]]:
        """Those of each of `windows`, as residues of the protein; empty ranges for windows without any."""
        first, last = self.rows(length)
        return [(max(first, start), max(first, start, min(last, stop))) for start, stop in self.windows(length)]

    def attributes(self, length: int) -> dict[str, Any]:
        """Attributes of a protein's group: windows where there are several, positions where not all are."""
        windows = self.windows(length)
        return {
            **({"windows": [list(window) for window in windows]} if len(windows) > 1 else {}),
            **({"positions": list(self.positions)} if self.positions else {}),
        }

    def identity(self) -> dict[str, Any]:
        """The part of a store's identity: named where it changes what a protein's arrays hold."""
        cuts = self.too_long in ("crop", "window")
        return {
            **({"too_long": {"name": self.too_long, "length": self.length}} if cuts else {}),
            **({"positions": list(self.positions)} if self.positions else {}),
        }

    def apply(self, protein: Protein) -> tuple[Protein, str]:
        """A protein as it is computed, and the reason to skip it or none. Raises UsageError for too_long=error."""
        protein, reason = self._fitted(protein)
        if reason or self.positions is None:
            return protein, reason
        start, stop = self.positions
        if stop > len(protein):
            return protein, f"positions={start}:{stop} end behind its {len(protein)} residues, which count from 0"
        part = f"mutated at {start}:{stop} of {len(protein)} residues"
        return replace(protein, note="; ".join(filter(None, (protein.note, part)))), ""

    def _fitted(self, protein: Protein) -> tuple[Protein, str]:
        """A protein as the model sees it, and the reason to skip it or none."""
        length, most = len(protein), self.length
        if most is None or length <= most:
            return protein, ""
        is_model = self.model_length is not None and most == self.model_length
        limit = f"the {most} residues that the model takes" if is_model else f"max_length={most}"
        over = f"length {length} is over {limit}"
        if self.too_long == "error":
            where = f"{protein.id} [{protein.source}]"
            raise UsageError(f"{where}: {over}; leave such out by too_long=skip, or take them in parts by window")
        if self.too_long == "window":
            parts = f"in {len(self.windows(length))} windows of {most} residues"
            return replace(protein, note="; ".join(filter(None, (protein.note, parts)))), ""
        if self.too_long == "crop" and protein.chains is None:
            note = "; ".join(filter(None, (protein.note, f"the first {most} of {length} residues")))
            numbers = protein.residue_numbers and protein.residue_numbers[:most]
            cut = replace(protein, sequence=protein.sequence[:most], note=note, residue_numbers=numbers, structure=None)
            return cut, ""
        if self.too_long == "crop":
            return protein, f"{over}, and a complex is not cropped; too_long=window"
        if is_model:
            return protein, f"{over}; too_long=window or crop computes it in parts"
        return protein, f"{over}; raise it (max_length=null for no limit)"


def manifest(
    records: Iterable[Protein | Rejected | Filtered],
    *,
    limit: Limit = Limit(),
    cost: Callable[[Protein], float] = lambda protein: float(forwards(len(protein)) * len(protein)),
    stored: Iterable[Stored] = (),
) -> list[ManifestRow]:
    """Give every input record exactly one row: done, to be computed, an alias, or why not.

    Identical sequences (of the same chains) are computed once, under the key of the first, or not at all where one in
    `stored` has the sequence. An id that comes again with the same sequence is an alias under a numbered key; an id
    that stands for another sequence, in the input or in the store, is a failure. `limit` says what becomes of long
    proteins. `cost` gives the work of one protein.
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
    """The rows of this run, then those of earlier runs whose records this run did not bring: nothing is forgotten.

    What an earlier run left undone, or somebody deleted since (`there` are the keys of the proteins in the store), and
    this run was not asked for is "unfinished", so that nobody computes it unasked.
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
    """Rows of the Jacobian that make a chunk of about CHUNK_BYTES in float16, at least 1 and at most L."""
    return max(1, min(length, CHUNK_BYTES // (max(1, letters) * length * 20 * 2)))


def work_items(
    row: ManifestRow, rows_per_chunk: int | None = None, letters: int = 20, rows: tuple[int, int] | None = None
) -> list[WorkItem]:
    """Cut one protein, or its rows first <= i < last, into blocks of rows, in order, that cover each exactly once."""
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
    """The proteins that still have to be computed: not an alias, not refused, and not in the store."""
    return [row for row in rows if row.status == "pending" and not row.alias_of and row.key not in done]


def planned(rows: Iterable[ManifestRow]) -> list[ManifestRow]:
    """The proteins that a plan is about, done or not: not an alias, and not refused."""
    return [row for row in rows if row.status in ("pending", "done") and not row.alias_of]


Blocks = Callable[[ManifestRow], list[WorkItem]]
"""The work items of a protein that may be computed apart; one where it may not be cut."""


@dataclass(frozen=True)
class Portion:
    """The part of a protein that a rank or shard computes: all of it, or where it is shared some of its blocks of rows.

    `starts` are the first rows of these blocks; none where it is all.
    """

    row: ManifestRow
    cost: float
    starts: tuple[int, ...] = ()

    @property
    def is_shared(self) -> bool:
        """True where others have the rest of the protein."""
        return bool(self.starts)

    def of(self, items: Iterable[WorkItem]) -> list[WorkItem]:
        """Those of the protein's items that are in it."""
        if not self.is_shared:
            return list(items)
        chosen = set(self.starts)
        return [replace(item, role="shared") for item in items if item.start in chosen]

    def cut(self, number: int, blocks: Blocks) -> "list[Portion]":
        """At most so many portions of about the same cost, between blocks."""
        items = self.of(blocks(self.row))
        number = min(number, len(items))
        if number < 2:
            return [self]
        parts = [items[at * len(items) // number : (at + 1) * len(items) // number] for at in range(number)]
        return [portion_of(self.row, part) for part in parts]


def portion_of(row: ManifestRow, items: Sequence[WorkItem]) -> Portion:
    """The portion of a shared protein that is these blocks."""
    return Portion(row, math.fsum(item.cost for item in items), tuple(item.start for item in items))


def whole(rows: Iterable[ManifestRow]) -> list[Portion]:
    """Each protein as one portion."""
    return [Portion(row, row.cost) for row in rows]


def shared_out(portions: Iterable[Portion], number: int, blocks: Blocks = lambda _: []) -> list[list[Portion]]:
    """The portions of each of so many ranks: the costliest first, each to the one with the least to do so far (LPT).

    A portion that costs more than `DEAR` fair shares is cut into as many as there are ranks, or blocks in it. Every
    rank comes to the same result, whatever the order of the portions; a rank may get none. Starting with the costliest
    means that what does not fit in memory is known in the first minute.
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
    """Each protein once: where a rank was given two parts of one, they are one portion."""
    found: dict[str, Portion] = {}
    for part in share:
        if (known := found.get(part.row.key)) is not None:
            part = Portion(part.row, known.cost + part.cost, tuple(sorted(known.starts + part.starts)))
        found[part.row.key] = part
    return list(found.values())


@dataclass(frozen=True)
class Shard:
    """One of `count` jobs that share a plan without talking to one another: which of its proteins are its own."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """From "3/16". Raises ValueError."""
        match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise ValueError(f"shard={text}: write shard=k/n, k counted from 1 to n, such as shard=3/16")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    @property
    def role(self) -> str:
        """Its role under the store's lock; a file name."""
        return f"{self.number}-of-{self.count}"

    def of(self, rows: Iterable[ManifestRow], blocks: Blocks = lambda _: []) -> list[Portion]:
        """This shard's portions, what is done already included: so all shards agree, whenever they start."""
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
    """Refuse a row whose id already stands for another sequence, in this input or in the store."""
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
    """Point a row to the protein that is computed for its sequence, if it is not the row itself."""
    row = replace(row, status="done") if primary in done else row
    return row if primary == row.key else replace(row, alias_of=primary, cost=0.0)


class _Keys:
    """Hands out keys, each once; names that differ only in the case of their letters count as one (macOS, Windows)."""

    def __init__(self, taken: Iterable[str]) -> None:
        self._taken = {key.casefold() for key in taken}
        self._number: dict[str, int] = {}

    def free(self, identifier: str) -> str:
        """The key of the id, or the first numbered one where that is taken; in constant time for any number of them."""
        key = candidate = key_of(identifier)
        folded = key.casefold()
        while candidate.casefold() in self._taken:
            number = self._number[folded] = self._number.get(folded, 1) + 1
            candidate = f"{key}%23{number}"
        self._taken.add(candidate.casefold())
        return candidate
