"""The reading half of the store: proteins by id, arrays that are whole or an error.

Values come as numpy arrays in memory. Nothing is read before it is asked for, and nothing that is missing or damaged
ever comes back as a number.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from operator import index
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from jaxtyping import Bool, Float, Int64, Shaped
from zarr.storage import LocalStore

from plmjac.alphabet import NUM_AMINO_ACIDS, encode
from plmjac.files import nearest
from plmjac.metrics import square
from plmjac.readouts import READOUTS
from plmjac.records import Chains
from plmjac.store.layout import FAILED, FORMAT_VERSION, PROTEINS, CorruptStoreError, StoreError, read_group_document
from plmjac.store.manifest import read_manifest
from plmjac.workplan import ManifestRow, Stored


@dataclass(frozen=True, repr=False)
class StoredProtein:
    """One complete protein of a store: its sequence and the arrays that the run kept."""

    folder: Path
    id: str
    sequence: str
    chains: Chains | None = None
    is_completed: bool = False
    """True where the contact map is that of `completed` rows, as in stores of fewer amino acids since 2026-11-24."""
    residue_numbers: tuple[str, ...] | None = None
    """The author's number of every residue, with insertion codes ("52", "52A"), empty where it is not known.

    None for what was read without a structure, and in stores of before 2026-11-26.
    """
    windows: tuple[tuple[int, int], ...] = ()
    """Half-open ranges of a long protein that were computed apart; NaN stands for pairs that none of them has."""
    positions: tuple[int, int] | None = None
    """The residues that alone were mutated, half-open and counted from 0; None for all.

    `jacobian` and `letters` have these rows only; maps of the mutants are NaN for pairs without one of these residues.
    """

    def __len__(self) -> int:
        return len(self.sequence)

    def __repr__(self) -> str:
        return f"<protein {self.id}: {len(self)} residues; {', '.join(self.names) or 'no arrays'}>"

    @property
    def chain_breaks(self) -> tuple[int, ...]:
        """The first residues of the second chain of a complex and those after it (from 0); empty for a single chain."""
        return self.chains.breaks if self.chains else ()

    @cached_property
    def parts(self) -> tuple[tuple[range, range], ...]:
        """The rows and columns between which the Jacobian is known: one pair of ranges, or one for each window."""
        first, last = self.positions or (0, len(self))
        parts = [
            (range(max(first, start), min(last, stop)), range(start, stop))
            for start, stop in self.windows or [(0, len(self))]
        ]
        return tuple((rows, columns) for rows, columns in parts if rows)

    @property
    def partly(self) -> str:
        """Reason why the Jacobian does not cover all pairs of residues; empty if it does."""
        if self.windows:
            return f"its Jacobian is known within {len(self.windows)} windows only"
        return f"its Jacobian has the rows of the mutated residues {self._positions} only" if self.positions else ""

    @cached_property
    def is_known(self) -> Bool[np.ndarray, "L L"]:
        """The pairs that the maps of the mutants have a score for, in one direction or both; the others are NaN."""
        known: Bool[np.ndarray, "L L"] = np.zeros((len(self), len(self)), dtype=bool)
        for rows, columns in self.parts:
            known[rows.start : rows.stop, columns.start : columns.stop] = True
        both: Bool[np.ndarray, "L L"] = known | known.T
        return both

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The arrays: contacts, logits, ...; `jacobian` also where it is kept as jacobian_int8."""
        there = {path.parent.name for path in self.folder.glob("*/zarr.json")}
        return tuple(sorted(there | ({"jacobian"} if "jacobian_int8" in there else set())))

    def __getattr__(self, name: str) -> Shaped[np.ndarray, "..."]:
        """Any readout by its name: `contacts`, `logits`, the raw `jacobian` as stored (float16), ..."""
        if name in READOUTS:
            return self.array(name)
        raise AttributeError(f"a stored protein has no {name!r}; {nearest(name, READOUTS)}")

    @property
    def letters(self) -> Int64[np.ndarray, "R A"] | None:
        """Of a store of fewer amino acids: which one each row of the Jacobian was set to, as tokens; else None."""
        return self.array("letters").astype(np.int64) if "letters" in self.names else None

    @property
    def completed(self) -> Float[np.ndarray, "R A L 20"]:
        """The Jacobian in float32 as the contact map was made from it: fewer amino acids in their places among all."""
        jacobian = self.jacobian.astype(np.float32)
        if self.letters is None or not self.is_completed:
            return jacobian
        # 2 s that reading what is there need not wait for
        import torch  # noqa: PLC0415

        from plmjac.jacobian import among_all  # noqa: PLC0415

        tokens = encode(self.sequence)[slice(*self.positions) if self.positions else slice(None)]
        completed = among_all(*(torch.from_numpy(each) for each in (jacobian, self.letters, tokens)))
        return completed.numpy()

    @cached_property
    def outcomes(self) -> tuple[str, ...]:
        """Of a recovery store: why the steps of each segment end."""
        return tuple(read_group_document(self.folder / "zarr.json")["outcomes"])

    @cached_property
    def left_out(self) -> tuple[tuple[int, int, int, int], ...]:
        """Of a recovery store: segments that were chosen and have no step, as start1, stop1, start2, stop2."""
        return tuple(tuple(bounds) for bounds in read_group_document(self.folder / "zarr.json").get("left_out", []))

    def array(self, name: str) -> Shaped[np.ndarray, "..."]:
        """Any array by name, whole. Raises StoreError if it was not kept, CorruptStoreError if it is not whole.

        A `jacobian` that is kept as jacobian_int8 comes in float32, a map of some rows as (L, L) with NaN elsewhere.
        """
        if name == "jacobian" and self._jacobian == "jacobian_int8":
            return self._rows(slice(None))
        values = self._read(name, slice(None))
        if self.positions and name in READOUTS and READOUTS[name].is_map and READOUTS[name].needs_mutants:
            return square(values, self.positions[0])
        return values

    @cached_property
    def _jacobian(self) -> str:
        """The array that holds the Jacobian."""
        is_int8 = (self.folder / "jacobian_int8").exists() and not (self.folder / "jacobian").exists()
        return "jacobian_int8" if is_int8 else "jacobian"

    def _rows(self, rows: slice) -> Float[np.ndarray, "R A L 20"]:
        """Rows of the raw Jacobian in float32, whichever way it is kept."""
        values = self._read(self._jacobian, rows).astype(np.float32)
        if self._jacobian == "jacobian_int8":
            values *= self._read("jacobian_scale", rows).astype(np.float32)[:, None, :, None]
        return values

    def couplings(self, i: int, j: int) -> Float[np.ndarray, "20 20"]:
        """The centred, symmetrised coupling of residues i and j (from 0), rows amino acid at i, columns at j.

        From the Jacobian, or from the kept `couplings` of the best pairs. Of a protein in windows the mean over those
        that have both residues; where only one of the two was mutated, that direction alone. Raises IndexError for a
        pair outside the protein, StoreError for one that was not computed or kept, and where not every amino acid was
        substituted.
        """
        i, j, length = index(i), index(j), len(self)
        if not (0 <= i < length and 0 <= j < length):
            raise IndexError(f"{self.id}: the pair ({i}, {j}) is outside its {length} residues, counted from 0")
        if "jacobian" not in self.names and "couplings" in self.names:
            return self._kept_couplings(i, j)
        if (substituted := self._open(self._jacobian).shape[1]) != NUM_AMINO_ACIDS:
            raise StoreError(
                f"{self.id}: couplings need all 20 amino acids at each position; this store has {substituted}. "
                "Run predict with substitutions=all"
            )
        means = []
        for part in self.parts:
            there = [self._centered_block(part, i, j)] if i in part[0] and j in part[1] else []
            back = [self._centered_block(part, j, i).T] if j in part[0] and i in part[1] else []
            if both := there + back:
                means.append(np.mean(both, axis=0))
        if not means:
            why = "no window has both" if self.windows else f"neither is among the mutated positions {self._positions}"
            raise StoreError(f"{self.id}: the couplings of ({i}, {j}) were not computed: {why}")
        coupling: Float[np.ndarray, "20 20"] = np.mean(means, axis=0)
        return coupling

    @property
    def _positions(self) -> str:
        """The mutated positions as `positions` is written."""
        return "{}:{}".format(*(self.positions or (0, len(self))))

    def _kept_couplings(self, i: int, j: int) -> Float[np.ndarray, "20 20"]:
        pairs = self.array("coupled_pairs")
        found = np.flatnonzero((pairs == (min(i, j), max(i, j))).all(axis=1))
        if not len(found):
            raise StoreError(
                f"{self.id}: the couplings of ({i}, {j}) were not kept, only those of the best {len(pairs)} pairs "
                "(coupled_pairs). Run predict with a larger couplings_per_residue, or with keep=[jacobian]"
            )
        block: Float[np.ndarray, "20 20"] = self._read("couplings", slice(None))[found[0]].astype(np.float32)
        return block if i <= j else block.T

    def _centered_block(self, part: tuple[range, range], i: int, j: int) -> Float[np.ndarray, "20 20"]:
        row, column = self._centered_rows(part, range(i, i + 1))[0], j - part[1].start
        block: Float[np.ndarray, "20 20"] = (row[:, column] - self._mean_row(part)[:, column]).astype(np.float32)
        return block

    def _centered_rows(self, part: tuple[range, range], rows: range) -> Float[np.ndarray, "R A W 20"]:
        """Rows centred along a, j and b; the mean over i is one row for all and is subtracted last."""
        first = self.positions[0] if self.positions else 0
        values = self._rows(slice(rows.start - first, rows.stop - first))[:, :, part[1].start : part[1].stop]
        for axis in (1, 2, 3):
            if values.shape[axis] > 1:
                values -= values.mean(axis=axis, keepdims=True)
        return values

    def _mean_row(self, part: tuple[range, range]) -> Float[np.ndarray, "A W 20"]:
        """The mean over i of a part, rows that were not computed counted as zero (docs/method.md)."""
        if part not in self._mean_rows:
            rows, columns = part
            size = self._open(self._jacobian).chunks[0]
            total: Any = 0.0
            for start in range(rows.start, rows.stop, size):
                some = range(start, min(start + size, rows.stop))
                total = total + self._centered_rows(part, some).sum(axis=0, dtype=np.float64)
            self._mean_rows[part] = np.asarray(total / len(columns) if len(columns) > 1 else 0 * total)
        return self._mean_rows[part]

    @cached_property
    def _mean_rows(self) -> dict[tuple[range, range], Float[np.ndarray, "A W 20"]]:
        return {}

    def _open(self, name: str) -> "zarr.Array[Any]":
        if name not in READOUTS:
            raise StoreError(f"{self.id}: there is no array {name!r}; {nearest(name, READOUTS)}")
        if not (self.folder / name).exists():
            there = ", ".join(self.names)
            raise StoreError(f"{self.id}: {name!r} was not kept; there are {there}. Run predict with keep=[{name},...]")
        try:
            array = zarr.open_array(LocalStore(self.folder, read_only=True), path=name, mode="r")
        except Exception as error:
            raise CorruptStoreError(f"{self.folder / name}: cannot be read ({error!r}); run plmjac.verify") from error
        return array

    def _read(self, name: str, rows: slice) -> Shaped[np.ndarray, "..."]:
        array = self._open(name)
        try:
            values = np.asarray(array[rows])
            is_whole = array.nchunks_initialized == array.nchunks if values.dtype.kind != "f" or self.windows else True
            is_whole = is_whole and (bool(np.isfinite(values).all()) or bool(self.windows))
        except Exception as error:  # zarr and its codecs raise what they like on damaged bytes
            raise CorruptStoreError(f"{self.folder / name}: damaged ({error!r}); run plmjac.verify") from error
        if not is_whole:
            raise CorruptStoreError(f"{self.folder / name}: chunks are missing; run plmjac.verify")
        return values


def extent_of(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """The windows and mutated positions of a protein's group, as a `StoredProtein` takes them."""
    windows = tuple((int(start), int(stop)) for start, stop in attributes.get("windows", ()))
    positions = tuple(int(bound) for bound in attributes.get("positions", ()))
    return {"windows": windows, "positions": positions or None}


class JacobianStore:
    """A store opened for reading: `store["1TEN_A"].contacts`. Proteins that are not complete are not in it."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not (self.path / "zarr.json").is_file():
            raise StoreError(f"{self.path} is no plmjac store: there is no zarr.json in it")
        self.attributes = read_group_document(self.path / "zarr.json")
        if self.attributes.get("format_version") != FORMAT_VERSION:
            raise StoreError(
                f"{self.path} has format version {self.attributes.get('format_version')}; "
                f"this plmjac reads version {FORMAT_VERSION}"
            )

    def __repr__(self) -> str:
        model = self.attributes.get("model", {}).get("name")
        keep = ", ".join(self.attributes.get("keep", ()))
        return f"<store {self.path}: {len(self)} proteins of {len(self.rows)} records; {model}; {keep}>"

    @cached_property
    def rows(self) -> list[ManifestRow]:
        """The manifest: every record that was asked for, and what became of it."""
        return read_manifest(self.path)

    @cached_property
    def _row_of(self) -> dict[str, ManifestRow]:
        """The row of each id; where an id stands twice, the one that can be read."""
        best: dict[str, ManifestRow] = {}
        for row in self.rows:
            if row.id not in best or (not self._folder(best[row.id]).exists() and self._folder(row).exists()):
                best[row.id] = row
        return best

    def __getitem__(self, identifier: str) -> StoredProtein:
        row = self._row_of.get(identifier)
        if row is None:
            raise KeyError(f"{identifier!r} is not in {self.path}; it holds {len(self)} proteins")
        folder = self._folder(row)
        if not folder.exists():
            state = {
                "pending": "not computed yet",
                "unfinished": "not computed yet",
                "done": "marked as done but missing",
            }.get(row.status, row.status)
            raise KeyError(f"{identifier!r} has no result in {self.path}: {state}. {row.reason}".rstrip())
        attributes = read_group_document(folder / "zarr.json")
        if (attributes.get("sequence"), chains_of(attributes)) != row.input:
            raise CorruptStoreError(f"{folder} holds another sequence than the manifest says; run plmjac.verify")
        numbers = row.residue_numbers.split(" ") if row.residue_numbers else None
        return StoredProtein(
            folder,
            identifier,
            row.sequence,
            Chains.parse(row.chains),
            maps_are_completed(self.attributes),
            tuple("" if text == "-" else text for text in numbers) if numbers else None,
            **extent_of(attributes),
        )

    def __contains__(self, identifier: object) -> bool:
        row = self._row_of.get(identifier) if isinstance(identifier, str) else None
        return row is not None and self._folder(row).exists()

    def __iter__(self) -> Iterator[str]:
        """Ids with a result, aliases included, in input order."""
        return (identifier for identifier in self._row_of if identifier in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _folder(self, row: ManifestRow) -> Path:
        return self.path / PROTEINS / (row.alias_of or row.key)


def open_store(path: str | Path) -> JacobianStore:
    """Open a store for reading. Raises StoreError where there is none, or one of another format version."""
    return JacobianStore(path)


def maps_are_completed(attributes: dict[str, Any]) -> bool:
    """True for a store that made its contact maps of completed rows (docs/format.md)."""
    return "symmetrized" in attributes.get("substitutions", {})


def chains_of(attributes: dict[str, Any]) -> str:
    """The chains in a protein's attributes as the manifest writes them; empty for a single chain."""
    if "chain_breaks" not in attributes:
        return ""
    names = ("length", "chain_breaks", "linkers", "index_gap")
    return str(Chains.of(*(attributes[name] for name in names)))


def completed(path: Path) -> set[str]:
    """Keys of the proteins that are in a store, by one listing of proteins/."""
    folder = path / PROTEINS
    if not folder.exists():
        return set()
    # 20,000 of them at the start of every run: plain strings are four times as quick as paths.
    return {name for name in os.listdir(folder) if os.path.isfile(f"{folder}/{name}/zarr.json")}


def is_settled(store: Path, key: str) -> bool:
    """True where a protein is in the store, or recorded as failed."""
    return (store / PROTEINS / key).exists() or (store / FAILED / f"{key}.json").exists()


def stored_proteins(path: Path, rows: Iterable[ManifestRow]) -> list[Stored]:
    """The proteins in a store, as its manifest has them, or as they say themselves where it does not.

    Raises CorruptStoreError where neither can be read.
    """
    rows, there = list(rows), completed(path)
    known = {row.key: row for row in rows if row.sequence and not row.alias_of}
    found = [
        Stored(row.key, row.id, row.sequence, row.alias_of, row.chains)
        for row in rows
        if row.alias_of in there and row.sequence
    ]
    for key in sorted(there):
        if key in known:
            found.append(Stored(key, known[key].id, known[key].sequence, chains=known[key].chains))
        else:
            attributes = read_group_document(path / PROTEINS / key / "zarr.json")
            found.append(Stored(key, attributes["id"], attributes["sequence"], chains=chains_of(attributes)))
    return found
