"""Proteins whose rows several ranks or shards compute, seen from one of them: what is left, and who joins it.

Each keeps its blocks under pending/. Whoever comes to the end of its own work and finds all blocks of a protein there
puts it together and commits it; a claim sees to it that only one does. Nobody is told anything: all is read from disk.
"""

import logging
import time
from collections.abc import Collection, Iterable
from itertools import dropwhile
from pathlib import Path

from plmjac.records import WorkItem
from plmjac.store import SavedRows, is_settled

log = logging.getLogger(__name__)

LOOK_SECONDS, SAY_SECONDS = 0.2, 60.0


class SharedProteins:
    """The shared proteins among the items of one process, which has this role under the store's lock.

    `awaited` are the keys of those whose completion this process waits for: on rank 0, all that its ranks share.
    """

    def __init__(self, store: Path, role: str, items: Iterable[WorkItem], awaited: Collection[str]) -> None:
        self._store, self._role = store, role
        self._saved = SavedRows(store)
        self._awaited = frozenset(awaited)
        self._blocks: dict[str, list[WorkItem]] = {}
        for item in items:
            if item.role == "joined":
                self._blocks.setdefault(item.key, []).append(item)
        self._joining = ""

    def concerns(self, item: WorkItem) -> bool:
        """False where nothing is to be done for an item: it was done, its protein failed, or others join it."""
        if item.role == "shared":
            return not (self._saved.has(item) or is_settled(self._store, item.key))
        if item.role == "joined" and item.is_first:
            self._joining = item.key if self._takes(item.key) else ""
        return item.role == "own" or self._joining == item.key

    def _takes(self, key: str) -> bool:
        """True if this process joins the protein: all blocks are there and no other process joins them."""
        said = time.monotonic()
        missing = self._blocks[key]
        while not is_settled(self._store, key):
            missing = list(dropwhile(self._saved.has, missing))
            if not missing and self._saved.claim(key, self._role):
                if not is_settled(self._store, key):
                    return True
                self._saved.drop(key)  # somebody had just done it, and gave up the claim
            if key not in self._awaited:
                return False
            if time.monotonic() - said > SAY_SECONDS:
                log.info("waiting for the rows of %s that other ranks compute", key)
                said = time.monotonic()
            time.sleep(LOOK_SECONDS)
        return False
