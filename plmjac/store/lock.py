"""Who may write a store: one run, or the shards of one plan together.

Held by `flock` under pending/, which the system releases however a process ends. Where a file system has no flock, a
lease does it: a file with the holder's name in it, touched every few seconds, and taken over once it is stale. A run
that was stopped for minutes and goes on finds its lease gone, and ends.
"""

import contextlib
import errno
import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from plmjac.files import read_object
from plmjac.interruption import end
from plmjac.store.layout import PENDING, StoreError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

HEARTBEAT_SECONDS = 15.0
STALE_SECONDS = 120.0
"""A lease that was not touched for so long is nobody's: eight heartbeats, for disks that answer late."""
SETTLE_SECONDS = 1.0
"""Seconds for which a new lease is watched before it counts: whoever took it at the same moment is seen by then."""
DOOR_SECONDS = 600.0

RUN = "run"
"""The role of a run that wants the store for itself; that of a shard is "k-of-n"."""

_NO_FLOCK = (errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL)


class StoreLock:
    """Keeps a store for one role, from its making to `release`.

    `is_alone`: nobody else held the store when it was taken. Raises StoreError, which names the file, where somebody
    holds it whom this role cannot join.
    """

    def __init__(self, store: Path, role: str = RUN) -> None:
        self._store, self._role = store, role
        self._folder = store / PENDING
        self._folder.mkdir(parents=True, exist_ok=True)
        self._handles: list[int] = []
        self._lease: Lease | None = None
        self.is_alone = True
        try:
            with self.door():
                self._take()
        except BaseException:
            self.release()
            raise

    @contextmanager
    def door(self) -> Iterator[None]:
        """A context in which no other run takes the store, and no other shard is in the same context."""
        handle = os.open(self._folder / "door", os.O_RDWR | os.O_CREAT, 0o666)
        try:
            if _has_flock(handle):
                deadline = time.monotonic() + DOOR_SECONDS
                while not _flock(handle, exclusive=True):
                    if time.monotonic() > deadline:
                        raise StoreError(f"{self._folder / 'door'} is locked by another run for {DOOR_SECONDS:.0f} s")
                    time.sleep(0.05)
            yield
        finally:
            os.close(handle)

    def release(self) -> None:
        """Release the store, for a later run in this process."""
        while self._handles:
            os.close(self._handles.pop())
        if self._lease is not None:
            self._lease.release()
            self._lease = None

    def _take(self) -> None:
        handle = self._open("lock")
        if not _has_flock(handle):
            self._lease = Lease(self._store, self._role)
            self.is_alone = self._lease.is_alone
            return
        self.is_alone = _flock(handle, exclusive=True)
        if self._role == RUN:
            if not self.is_alone:
                raise StoreError(
                    f"{self._store} is being written by another run; wait for it to end, or use another store"
                )
            return
        if not _flock(handle, exclusive=False):  # also makes the lock that it got alone one that others can join
            raise StoreError(
                f"{self._store} is being written by a run without shard=; wait for it to end, or use another store"
            )
        if not _flock(self._open(f"lock.{self._role}"), exclusive=True):
            raise StoreError(
                f"shard {self._role.replace('-of-', '/')} of {self._store} is being written by another run"
            )

    def _open(self, name: str) -> int:
        self._handles.append(os.open(self._folder / name, os.O_RDWR | os.O_CREAT, 0o666))
        return self._handles[-1]


class Lease:
    """A file that says who holds the store, kept fresh by a thread; for file systems without flock."""

    def __init__(self, store: Path, role: str) -> None:
        self._folder = store / PENDING
        self.path = self._folder / f"lease.{role}"
        self._token = f"{time.time():.6f}-{secrets.token_hex(8)}"
        self._ended = threading.Event()
        self.is_alone = not self._refuse_others(store)
        said = {"host": socket.gethostname(), "process": os.getpid(), "token": self._token}
        try:
            with open(self.path, "x") as file:
                json.dump(said, file)
        except FileExistsError:
            raise StoreError(f"{store} is being written by another run (see {self.path})") from None
        time.sleep(SETTLE_SECONDS)
        if not self._is_mine():
            raise StoreError(f"{store} was taken by another run at the same moment (see {self.path})")
        if min(self._tokens_against(), default=self._token) < self._token:
            self.path.unlink()
            raise StoreError(f"{store} was taken by another run at the same moment")
        threading.Thread(target=self._keep, name="plmjac-lease", daemon=True).start()

    def release(self) -> None:
        """End the heartbeat and give the lease back."""
        self._ended.set()
        if self._is_mine():
            self.path.unlink(missing_ok=True)

    def _keep(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS):
            if not self._is_mine():
                end(f"stopped: {self.path} was taken over by another run. Nothing is lost")
            with contextlib.suppress(OSError):
                os.utime(self.path)

    def _is_mine(self) -> bool:
        return read_object(self.path).get("token") == self._token

    def _against(self) -> list[Path]:
        """Leases of roles that cannot be held together with this one, and that of the same role."""
        all_of_them = [path for path in self._folder.glob("lease.*") if not path.name.endswith(".stale")]
        is_run = self.path.name == f"lease.{RUN}"
        return [path for path in all_of_them if is_run or path == self.path or path.name == f"lease.{RUN}"]

    def _tokens_against(self) -> list[str]:
        return [
            str(read_object(path).get("token", "")) for path in self._against() if path != self.path and path.exists()
        ]

    def _refuse_others(self, store: Path) -> bool:
        """Remove stale leases; raises StoreError for a fresh one. Returns True where another shard holds the store."""
        probe = self._folder / f"lease-clock.{self._token}"
        probe.touch()  # the clock of the disk's server, not this machine's, says how old a lease is
        now = probe.stat().st_mtime
        probe.unlink()
        for path in self._against():
            holder = read_object(path)
            with contextlib.suppress(FileNotFoundError):
                age = now - path.stat().st_mtime
                if age < STALE_SECONDS and not _has_died(holder):
                    who = f"process {holder.get('process', '?')} on {holder.get('host', '?')}"
                    raise StoreError(
                        f"{store} is being written by {who}, says {path}, {max(0.0, age):.0f} s ago; wait for it to "
                        f"end. If it was killed, its place is free {STALE_SECONDS:.0f} s after its last sign of life, "
                        "or at once if you delete that file"
                    )
                path.rename(path.with_name(f"{path.name}.{self._token}.stale"))
        for stale in self._folder.glob("lease.*.stale"):
            stale.unlink(missing_ok=True)
        return any(path.name != f"lease.{RUN}" for path in self._folder.glob("lease.*"))


def _has_died(holder: dict[str, object]) -> bool:
    """True if the holder was a process of this machine that is no more."""
    process = holder.get("process")
    if holder.get("host") != socket.gethostname() or not isinstance(process, int):
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _has_flock(handle: int) -> bool:
    """True if the file system of an open file knows flock."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        fcntl.flock(handle, fcntl.LOCK_UN)
    except OSError as error:
        if error.errno in _NO_FLOCK:
            return False
        if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK):
            raise
    return True


def _flock(handle: int, *, exclusive: bool) -> bool:
    """Take the lock, or change from one kind to the other. Returns True if it is held then."""
    try:
        fcntl.flock(handle, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EAGAIN, errno.EACCES, errno.EWOULDBLOCK):
            raise
        return False
    return True
