"""The proteins of one organism: a UniProt proteome by its id, or a FASTA file of one, filtered by length.

Canonical sequences only, as UniProt gives them; no isoforms. Identical sequences stay separate records (the plan
computes a sequence once). The cache keeps the proteome as it was when first fetched; delete the file to renew it.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from plmjac.datasets.base import InputError, Record
from plmjac.datasets.compressed import open_bytes
from plmjac.datasets.fasta import FastaDataset
from plmjac.files import Unreachable, cache_folder, download
from plmjac.records import Filtered, Protein

UNIPROT = "https://rest.uniprot.org/uniprotkb/stream"


class ProteomeDataset:
    """A proteome's sequences within a range of lengths; the others are `Filtered` and listed as left out.

    Parameters
    ----------
    proteome: a UniProt proteome id, e.g. UP000000625 (E. coli K12), fetched once into the cache.
    path: a FASTA file instead.
    min_length, max_length: in residues, both included; None for no limit.
    ids: only these records, an accession or the first word of the header.
    cache: folder for fetched proteomes; default PLMJAC_CACHE/proteome or ~/.cache/plmjac/proteome.
    url: UniProt's stream service.

    Raises InputError for an id that is no proteome id or that UniProt does not know, and where there is no network.
    """

    def __init__(
        self,
        proteome: str | None = None,
        path: str | None = None,
        min_length: int | None = 30,
        max_length: int | None = 1022,
        ids: str | list[str] | None = None,
        cache: str | None = None,
        url: str = UNIPROT,
    ) -> None:
        if (proteome is None) == (path is None):
            raise InputError(
                "dataset=proteome needs one of dataset.proteome=UP000000625 (fetched from UniProt) and "
                "dataset.path=FILE.fasta"
            )
        if proteome is not None and not re.fullmatch(r"UP\d{9}", proteome.upper()):
            raise InputError(f"dataset.proteome: {proteome!r} is not a UniProt proteome id such as UP000000625")
        if min_length is not None and max_length is not None and min_length > max_length:
            raise InputError(f"dataset.min_length={min_length} is above dataset.max_length={max_length}")
        self._proteome = proteome.upper() if proteome is not None else None
        self._fasta = FastaDataset(path, ids) if path is not None else None
        self._min, self._max = min_length or 0, max_length
        self._ids, self._cache, self._url = ids, cache, url

    def __iter__(self) -> Iterator[Record]:
        for record in self._fasta or FastaDataset(str(self._download()), self._ids):
            yield self._filter(record) if isinstance(record, Protein) else record

    def _filter(self, protein: Protein) -> Protein | Filtered:
        length = len(protein)
        if length < self._min:
            reason = f"{length} residues, fewer than dataset.min_length={self._min}"
        elif self._max is not None and length > self._max:
            reason = f"{length} residues, more than dataset.max_length={self._max}"
        else:
            return protein
        return Filtered(protein.id, reason, protein.source, length)

    def _download(self) -> Path:
        url = f"{self._url}?query=proteome:{self._proteome}&format=fasta&compressed=true"
        target = Path(self._cache or cache_folder("proteome")).expanduser() / f"{self._proteome}.fasta.gz"
        try:
            return download(url, target, check=_check_fasta)
        except _Empty:
            raise InputError(f"UniProt knows no proteins of {self._proteome}; check dataset.proteome") from None
        except Unreachable as error:
            raise InputError(f"{error} Without network, give a file: dataset.path=FILE.fasta") from None


class _Empty(InputError):
    """UniProt answers an unknown proteome with an empty file and HTTP 200."""


def _check_fasta(path: Path) -> None:
    """Read a download to its end; raises ValueError if it is cut, or if UniProt wrote an error message into it."""
    tail = b""
    with open_bytes(path) as file:
        head = file.read(1)
        while block := file.read(1 << 20):
            # UniProt reports a failure in mid-stream as text at the end of the file, with HTTP 200.
            if b"Error encountered" in tail + block:
                raise ValueError("UniProt broke off with an error message")
            tail = block[-32:]
    if not head:
        raise _Empty("no proteins")
    if head != b">":
        raise ValueError("it is not FASTA")
