"""The store: the only place that knows Zarr, and the on-disk format (docs/format.md).

Read with `open_store`; the writing half is for plmjac.inference.
"""

from plmjac.store.layout import CorruptStoreError, StoreError
from plmjac.store.lock import StoreLock
from plmjac.store.manifest import read_manifest, write_manifest
from plmjac.store.reader import JacobianStore, StoredProtein, completed, is_settled, open_store, stored_proteins
from plmjac.store.saved_rows import SavedRows
from plmjac.store.under_way import UnderWay
from plmjac.store.verification import Damage, renew_manifest, repair, verify
from plmjac.store.writer import PendingProtein, StoreWriter, create_or_check, lock

__all__ = [
    "CorruptStoreError",
    "Damage",
    "JacobianStore",
    "PendingProtein",
    "SavedRows",
    "StoreError",
    "StoreLock",
    "StoreWriter",
    "StoredProtein",
    "UnderWay",
    "completed",
    "create_or_check",
    "is_settled",
    "lock",
    "open_store",
    "read_manifest",
    "renew_manifest",
    "repair",
    "stored_proteins",
    "verify",
    "write_manifest",
]
