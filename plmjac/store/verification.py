"""Checks of a store: is every byte what was written, and, if asked, do the numbers agree with one another?

Shallow: sha256 of every file against the list that was sealed into its group at commit, nothing decoded. Deep: also
decodes every array and makes the contact map again from the stored Jacobian, or the recoveries from the stored blocks.
What is damaged can be put back to pending. Hidden files that a file browser leaves (.DS_Store) are no damage.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from plmjac.files import write_whole
from plmjac.readouts import READOUTS
from plmjac.segments import recoveries
from plmjac.store.layout import (
    MANIFEST,
    PROTEINS,
    CorruptStoreError,
    StoreError,
    file_digest,
    group_document,
    read_group_document,
)
from plmjac.store.manifest import read_manifest, write_manifest
from plmjac.store.reader import JacobianStore, StoredProtein, chains_of, extent_of, maps_are_completed
from plmjac.store.writer import StoreWriter
from plmjac.workplan import ManifestRow

CONTACT_TOLERANCE = 5e-3
"""Relative: the map was made from float32 rows, the check from the float16 ones that are stored."""
INT8_TOLERANCE = 0.1
"""The same where the Jacobian is in int8; another protein's map is away by about 1."""


RECOVERY_ARRAYS = frozenset({"segments", "reference", "segment", "step", "repeat", "visible", "recovery"})
"""The arrays that every protein of a recovery store has."""


UNKNOWN = "the manifest does not know it"


@dataclass(frozen=True)
class Damage:
    """One thing that is not as it should be, in words; `key` is empty where it concerns the whole store."""

    key: str
    problem: str


def verify(store: JacobianStore, *, deep: bool = False) -> Iterator[tuple[str, list[Damage]]]:
    """Check the store one protein at a time: yields each key with what is wrong with it, an empty list if nothing.

    Proteins that the manifest calls done but that are gone are yielded too, with that as their damage.
    """
    rows = {row.key: row for row in store.rows if not row.alias_of}
    folder = store.path / PROTEINS
    present = _present(folder)
    gone = {row.alias_of or row.key for row in store.rows if row.status == "done"} - present
    if own := list(_store_problems(store, present)):
        yield "", [Damage("", problem) for problem in own]
    for key in sorted(present | gone):
        if key in gone:
            yield key, [Damage(key, "marked as done, but its folder is gone")]
        else:
            yield key, [Damage(key, text) for text in _problems(store, key, rows.get(key), deep)]


def repair(store: JacobianStore, problems: Mapping[str, list[Damage]]) -> tuple[list[str], int]:
    """Put the damaged proteins of a store back to pending, and its manifest in order. Only under the store's lock.

    `problems` is what `verify` found. Whatever input a protein came from: the next run of it computes the protein
    again. Returns the keys put back, and how many whole proteins the manifest did not know and now does.
    """
    writer, folder = StoreWriter(store.path), store.path / PROTEINS
    write_whole(folder / "zarr.json", group_document({}))
    back = {key for key, found in problems.items() if key and any(damage.problem != UNKNOWN for damage in found)}
    for key in sorted(back & _present(folder)):
        writer.remove(key)
    rows = [
        replace(row, status="pending") if row.status == "done" and (row.alias_of or row.key) in back else row
        for row in store.rows
    ]
    unknown = sorted(_present(folder) - {row.key for row in rows})
    write_manifest(store.path, rows + [_row_of(folder / key) for key in unknown])
    return sorted(back), len(unknown)


def renew_manifest(store: Path) -> str:
    """Begin the manifest anew where it cannot be read, and return why; the proteins themselves say the rest."""
    try:
        read_manifest(store)
    except CorruptStoreError as error:
        write_manifest(store, [])
        return str(error)
    return ""


def _row_of(folder: Path) -> ManifestRow:
    """The manifest's row of a protein from its attributes; source and cost are not among them."""
    attributes = read_group_document(folder / "zarr.json")
    sequence = attributes["sequence"]
    chains = chains_of(attributes)
    return ManifestRow(attributes["id"], folder.name, len(sequence), sequence, status="done", chains=chains)


def _present(folder: Path) -> set[str]:
    """The names in proteins/ but for the group's own file and hidden ones."""
    if not folder.is_dir():
        return set()
    return {entry.name for entry in folder.iterdir() if not entry.name.startswith(".")} - {"zarr.json"}


def _store_problems(store: JacobianStore, present: set[str]) -> Iterator[str]:
    """Problems of the store's own files; its zarr.json and manifest were read already."""
    try:
        if read_group_document(store.path / PROTEINS / "zarr.json") != {}:
            yield "proteins/zarr.json is not as it was written"
    except CorruptStoreError as error:
        yield str(error)
    if present and not (store.path / MANIFEST).exists():
        yield f"{MANIFEST} is gone; run the same predict command again to have it written anew"


def _problems(store: JacobianStore, key: str, row: ManifestRow | None, deep: bool) -> list[str]:
    folder = store.path / PROTEINS / key
    try:
        attributes = read_group_document(folder / "zarr.json")
        expected: dict[str, str] = attributes["checksums"]
        sequence: str = attributes["sequence"]
    except (CorruptStoreError, KeyError) as error:
        return [f"its zarr.json is damaged or gone ({error})"]
    problems = list(_differences(folder, expected))
    if row is None and store.rows:
        problems.append(UNKNOWN)
    if row is not None and (row.id, *row.input) != (attributes["id"], sequence, chains_of(attributes)):
        problems.append("its id, sequence or chains are not those of the manifest")
    is_recovery = store.attributes["kind"] == "recovery"
    kept = set(store.attributes["keep"]) | (RECOVERY_ARRAYS if is_recovery else set())
    kept |= {READOUTS[name].beside for name in kept if name in READOUTS} - {""}
    missing = kept - {name.split("/")[0] for name in expected}
    problems += [f"{name} was to be kept and is not there" for name in sorted(missing)]
    if deep and not problems:
        check = _recovery_disagreements if is_recovery else _disagreements
        completed = maps_are_completed(store.attributes)
        problems += check(
            StoredProtein(folder, attributes["id"], sequence, is_completed=completed, **extent_of(attributes))
        )
    return problems


def _differences(folder: Path, expected: dict[str, str]) -> Iterator[str]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    present = {path.relative_to(folder).as_posix() for path in files} - {"zarr.json"}
    for name in sorted(expected.keys() | present):
        if name not in present:
            yield f"{name} is gone"
        elif name not in expected:
            yield f"{name} does not belong there"
        elif file_digest(folder / name) != expected[name]:
            yield f"{name} has changed since it was written"


def _disagreements(protein: StoredProtein) -> list[str]:
    """Contradictions between the arrays of a protein whose bytes are as written."""
    problems = []
    try:
        arrays = {name: protein.array(name) for name in protein.names}
    except StoreError as error:
        return [str(error)]
    contacts = arrays.get("contacts")
    if contacts is not None and (
        not np.array_equal(contacts, contacts.T, equal_nan=True) or np.nan_to_num(np.diag(contacts)).any()
    ):
        problems.append("contacts is not symmetric with a zero diagonal")
    if contacts is not None and not np.array_equal(protein.is_known, np.isfinite(contacts)):
        problems.append("contacts is not NaN for exactly the pairs that were not computed")
    elif contacts is not None and "jacobian" in arrays and not protein.windows:
        # 2 s that opening a store need not wait for
        import torch  # noqa: PLC0415

        from plmjac.jacobian import contact_map  # noqa: PLC0415

        first, last = protein.positions or (0, len(protein))
        again = contact_map(torch.from_numpy(protein.completed), first, overwrite=True).numpy()
        stored = contacts[first:last]
        tolerance = INT8_TOLERANCE if "jacobian_int8" in arrays else CONTACT_TOLERANCE
        if np.linalg.norm(again - stored) > tolerance * np.linalg.norm(stored) + 1e-6:
            problems.append("contacts does not follow from the stored jacobian")
    return problems


def _recovery_disagreements(protein: StoredProtein) -> list[str]:
    """The same for a recovery store: what is shown, and how much of the contacts came back."""
    try:
        arrays = {name: protein.array(name) for name in protein.names}
    except StoreError as error:
        return [str(error)]
    segment, visible = arrays["segment"], arrays["visible"]
    number = len(arrays["segments"])
    if {len(arrays["reference"]), len(protein.outcomes)} != {number} or (segment >= number).any():
        return ["its segments, reference, outcomes and contexts do not belong together"]
    problems = []
    windows = [[*range(a, b), *range(c, d)] for a, b, c, d in arrays["segments"].tolist()]
    if not all(shown[windows[row]].all() for shown, row in zip(visible, segment.tolist(), strict=True)):
        problems.append("visible does not show the segment")
    if "blocks" in arrays and not np.allclose(
        recoveries(arrays["reference"], arrays["blocks"], segment), arrays["recovery"], rtol=1e-6, atol=1e-6
    ):
        problems.append("recovery does not follow from the stored blocks")
    return problems
