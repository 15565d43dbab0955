"""Protein chains from structures: files of one's own, or PDB entries fetched from RCSB into a cache.

Every chain is a record of its own, also where several share a sequence (the plan computes a sequence once). What the
structure does not show is NaN, never guessed. Biological assemblies and all models but the first are left out.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from plmjac.datasets.base import InputError, Record, as_list
from plmjac.datasets.selection import Selection
from plmjac.datasets.structure_file import SUFFIXES, ChainRecord, entry_name, read_chains
from plmjac.files import BadDownload, NotFound, Unreachable, cache_folder, download, is_fasta, shorten
from plmjac.records import Filtered, Protein, Rejected

RCSB = "https://files.rcsb.org/download"
_PDB_ID = re.compile(r"([0-9][A-Za-z0-9]{3})(_[A-Za-z0-9]+(\.\d+)?)?")


class PdbDataset:
    """Chains of structure files with their sequences and coordinates.

    Two files that give the same id: the first is kept. The same sequence again (an entry in two formats) is left out
    as `Filtered`, another sequence under the same id is `Rejected`; both carry the file in their id, so that no two
    records share one.

    Parameters
    ----------
    path: a folder (its files, not those of folders within), a file, or a list of these; .pdb .ent .cif .mmcif, each
        also gzipped. Without it the entries in `ids` are fetched.
    ids: entries or chains to take, `1TEN` or `1TEN_A`, in upper or lower case.
    chains: `A` for that chain of every entry, `1TEN_A` for that one; the author's names, as in papers and on the web,
        where A and a are different chains.
    cache: folder for fetched entries; default PLMJAC_CACHE/pdb or ~/.cache/plmjac/pdb.
    url: where `<ID>.cif.gz` is fetched from.

    Raises InputError where the path does not exist or holds no structure file, an id or chain is nowhere found, or the
    server cannot be reached.
    """

    def __init__(
        self,
        path: str | list[str] | None = None,
        ids: str | list[str] | None = None,
        chains: str | list[str] | None = None,
        cache: str | None = None,
        url: str = RCSB,
    ) -> None:
        self._ids, self._chains = as_list(ids), as_list(chains)
        self._cache, self._url = cache, url.rstrip("/")
        self._files: list[Path] | None = None
        self._entries: list[str] = []
        if path:
            self._files = [file for name in as_list(path) for file in files_of(Path(name).expanduser())]
            if sequences := [file for file in self._files if is_fasta(file)]:
                raise InputError(f"{sequences[0]} is a FASTA file, without structures; use dataset=fasta")
        else:
            self._entries = _entries_to_fetch(self._ids or [chain for chain in self._chains if "_" in chain])

    def __iter__(self) -> Iterator[Record]:
        selection = Selection(self._ids, self._chains)
        kept: dict[str, Protein] = {}
        for records in self._read(selection):
            for chain in selection.take(records):
                record = chain.record
                first = kept.get(record.id)
                if first is not None:
                    yield _again(record, first)
                    continue
                if isinstance(record, Protein):
                    # Without its coordinates: kept only to compare.
                    kept[record.id] = Protein(record.id, record.sequence, record.source)
                yield record
        selection.check()

    def _read(self, selection: Selection) -> Iterator[list[ChainRecord]]:
        """The records of one file after the other."""
        for file in self._files or []:
            if selection.may_be_in(entry_name(file)):
                yield read_chains(file)
        # disable=None: no bar where stderr is a file or a log.
        for entry in tqdm(self._entries, desc="PDB entries", unit="entry", leave=False, disable=None):
            yield self._fetch(entry)

    def _fetch(self, entry: str) -> list[ChainRecord]:
        target = Path(self._cache or cache_folder("pdb")).expanduser() / f"{entry}.cif.gz"
        try:
            return read_chains(download(f"{self._url}/{target.name}", target, check=_check_structure, progress=False))
        except NotFound:
            reason = f"no such entry: {entry} is not in the PDB at {self._url}"
        except BadDownload as error:
            reason = str(error)
        except Unreachable as error:
            raise InputError(f"{error} Without network, give files: dataset.path=FOLDER") from None
        return [ChainRecord(entry, None, Rejected(entry, reason, f"{self._url}/{target.name}"))]


def files_of(path: Path) -> list[Path]:
    """The structure files of a folder in the order of their names; a file is taken whatever its name."""
    if not path.is_dir():
        if not path.exists():
            raise InputError(f"{path} does not exist; check dataset.path")
        return [path]
    try:
        # A dangling link is a file too: it is reported as unreadable.
        names = sorted(file for file in path.iterdir() if not file.is_dir() and not file.name.startswith("."))
    except OSError as error:
        raise InputError(f"{path} cannot be listed: {error.strerror}") from None
    files = [file for file in names if file.name.lower().removesuffix(".gz").endswith(SUFFIXES)]
    if not files:
        there = f"it holds {shorten((file.name for file in names), 3)}" if names else "it is empty"
        raise InputError(f"{path}: no structure files ({' '.join(SUFFIXES)}, each also .gz); {there}")
    return files


def _entries_to_fetch(names: list[str]) -> list[str]:
    """PDB ids in the order asked for, each once."""
    if not names:
        raise InputError("dataset=pdb needs structures: dataset.path=FOLDER or FILE, or dataset.ids=[1TEN,5P21_A]")
    entries = []
    for name in names:
        match = _PDB_ID.fullmatch(name)
        if match is None:
            raise InputError(
                f"dataset.ids: {name!r} is not a PDB id such as 1TEN or 1TEN_A; for files of your own give dataset.path"
            )
        entries.append(match[1].upper())
    return list(dict.fromkeys(entries))


def _check_structure(path: Path) -> None:
    """Raises ValueError if a download is no structure; one without protein passes, and is rejected by name later."""
    record = read_chains(path)[0].record
    if isinstance(record, Rejected) and "no protein chain" not in record.reason:
        raise ValueError(record.reason)


def _again(record: Protein | Rejected, first: Protein) -> Rejected | Filtered:
    """The outcome for a second record with the id of one already given."""
    record_id = f"{record.id}@{record.source}"
    if isinstance(record, Rejected):
        return Rejected(record_id, record.reason, record.source)
    if record.sequence == first.sequence:
        return Filtered(record_id, f"the same chain as in {first.source}", record.source, len(record))
    reason = f"{record.id} was already read from {first.source}, with another sequence; rename one of the files"
    return Rejected(record_id, reason, record.source)
