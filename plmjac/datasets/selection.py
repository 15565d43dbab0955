"""The chains and entries that were asked for, and those of them that were never met.

Entries are the same in upper and lower case, chains are not: large assemblies have a chain A and a chain a.
"""

from plmjac.datasets.base import InputError
from plmjac.datasets.structure_file import ChainRecord
from plmjac.files import nearest, shorten


class Selection:
    """The `ids` and `chains` of one reading of a dataset; a record is taken if it answers both."""

    def __init__(self, ids: list[str], chains: list[str]) -> None:
        self._ids, self._chains = ids, chains
        self._open_ids, self._open_chains = set(ids), set(chains)
        self._there: list[str] = []

    def may_be_in(self, stem: str) -> bool:
        """True for a file whose name may hold what was asked for; spares a large folder when a few chains are.

        The file `1ten_A.pdb` may hold 1TEN, and `1ten.pdb` holds 1TEN_A.
        """
        in_ids = not self._ids or any(_forms(stem) & _forms(wanted) for wanted in self._ids)
        in_chains = not self._chains or any("_" not in c or _forms(stem) & _forms(c) for c in self._chains)
        return in_ids and in_chains

    def take(self, records: list[ChainRecord]) -> list[ChainRecord]:
        """Those of one file's records that were asked for."""
        taken = []
        chains = {record.chain for record in records}
        for record in records:
            if record.chain is not None:
                self._there.append(record.record.id)
            ids = {wanted for wanted in self._ids if _answers_id(wanted, record, chains)}
            names = {wanted for wanted in self._chains if _answers_chain(wanted, record)}
            if (self._ids and not ids) or (self._chains and not names):
                continue
            self._open_ids -= ids
            # A broken file is reported when chain A of every file is asked for, but it does not show that A exists.
            self._open_chains -= {name for name in names if record.chain is not None or "_" in name}
            taken.append(record)
        return taken

    def check(self) -> None:
        """After the last file: InputError naming what was asked for and met nowhere."""
        if self._open_ids:
            hint = nearest(min(self._open_ids), self._there, 40)
            raise InputError(f"dataset.ids: nothing found for {shorten(sorted(self._open_ids))}; {hint}")
        if self._open_chains and self._there:
            hint = nearest(min(self._open_chains), self._there, 40)
            raise InputError(f"dataset.chains: no chain {shorten(sorted(self._open_chains))}; {hint}")


def _forms(name: str) -> set[str]:
    """A name, and the entry it belongs to if its last part is a chain, in lower case."""
    return {name.lower(), name.lower().rpartition("_")[0]} - {""}


def _answers_id(wanted: str, record: ChainRecord, chains: set[str | None]) -> bool:
    if record.chain is None:
        return bool(_forms(wanted) & _forms(record.entry))
    if wanted.lower() == record.entry.lower():
        return True
    entry, _, chain = wanted.rpartition("_")
    if entry.lower() != record.entry.lower():
        return False
    return chain == record.chain or (chain not in chains and chain.lower() == record.chain.lower())


def _answers_chain(wanted: str, record: ChainRecord) -> bool:
    entry, _, chain = wanted.rpartition("_")
    if record.chain is None:
        return not entry or bool(_forms(wanted) & _forms(record.entry))
    return chain == record.chain and entry.lower() in {"", record.entry.lower()}
