"""Fail, die or be signalled at the n-th file operation under a folder: installed in a process before plmjac runs.

Only calls whose path lies under the watched folder are counted, so that a count means the same in every run. Covers
what Python code does through `os`, `open` and `shutil`, which is all that plmjac and zarr do to a store.
"""

import builtins
import errno
import fcntl
import io
import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any, NoReturn

OPERATIONS = ("open", "write", "rename", "mkdir", "remove", "fsync", "read", "list", "lock")
ERRORS = ("ENOSPC", "EDQUOT", "EIO", "EACCES", "EROFS", "ESTALE", "EMFILE", "ENAMETOOLONG", "EXDEV", "ENOENT")
DEATHS = ("kill", "kill after", "torn", "power cut")
SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1")


@dataclass(frozen=True)
class Fault:
    """Fault at the n-th call (from 1) of an operation under a folder; `lasting`: at every call from then on.

    `action` is the name of an error of the system, of a signal, or one of DEATHS: `torn` leaves rubbish in the file
    that was to be written, `power cut` empties every file that was not forced to the disk; both then kill.
    """

    operation: str
    number: int
    action: str
    under: str
    lasting: bool = False


class Injection:
    """Counts operations and strikes once, or from then on."""

    def __init__(self, fault: Fault | None, under: str) -> None:
        self.fault = fault
        self.under = os.path.abspath(under)
        self.counts: Counter[str] = Counter()
        self.unforced: set[str] = set()
        self.truncate = os.truncate
        self.kill = os.kill

    def is_watched(self, path: str | None) -> bool:
        return path is not None and (path == self.under or path.startswith(self.under + "/"))

    def strikes(self, operation: str) -> bool:
        """Count a call; whether it is the one."""
        self.counts[operation] += 1
        fault = self.fault
        if fault is None or fault.operation != operation:
            return False
        return self.counts[operation] == fault.number or (fault.lasting and self.counts[operation] > fault.number)

    def strike(self, path: str) -> None:
        """Do what the fault says, before the operation; a signal comes back, an error is raised."""
        assert self.fault is not None
        action = self.fault.action
        if action in SIGNALS:
            self.kill(os.getpid(), getattr(signal, action))
        elif action in ("kill", "torn"):
            self.die()
        elif action == "power cut":
            for name in self.unforced:
                if os.path.isfile(name):
                    self.truncate(name, 0)
            self.die()
        elif action != "kill after":
            number = getattr(errno, action)
            raise OSError(number, os.strerror(number), path)

    def die(self) -> NoReturn:
        self.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("still alive")

    def wrapped(self, operation: str, original: Callable[..., Any], paths: Callable[..., list[str]]) -> Any:
        """The function with the fault before it; `paths` says from its arguments which files it touches."""

        @wraps(original)
        def call(*args: Any, **kwargs: Any) -> Any:
            touched = [path for path in paths(*args, **kwargs) if self.is_watched(path)]
            struck = bool(touched) and self.strikes(operation)
            if struck:
                self.strike(touched[0])
            result = original(*args, **kwargs)
            if struck and self.fault is not None and self.fault.action == "kill after":
                self.die()
            if touched:
                self._remember(operation, touched)
            return result

        return call

    def _remember(self, operation: str, touched: list[str]) -> None:
        """Files with bytes that a power cut would lose."""
        if operation == "fsync":
            self.unforced.discard(touched[0])
        elif operation == "rename" and len(touched) == 2:
            old, new = touched
            moved = {name for name in self.unforced if name == old or name.startswith(old + "/")}
            self.unforced = (self.unforced - moved) | {new + name[len(old) :] for name in moved}

    def install(self) -> None:
        """Put the fault in the place of the system's calls."""
        os.rename = self.wrapped("rename", os.rename, _two)
        os.replace = self.wrapped("rename", os.replace, _two)
        os.mkdir = self.wrapped("mkdir", os.mkdir, _one)
        for name in ("unlink", "remove", "rmdir"):
            setattr(os, name, self.wrapped("remove", getattr(os, name), _one))
        os.fsync = self.wrapped("fsync", os.fsync, lambda handle: [_of_handle(handle)])
        for name in ("listdir", "scandir"):
            setattr(os, name, self.wrapped("list", getattr(os, name), _one))
        fcntl.flock = self.wrapped("lock", fcntl.flock, lambda handle, _flags: [_of_handle(handle)])
        self._install_open()

    def _install_open(self) -> None:
        by_handle, by_name = os.open, io.open

        def open_handle(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
            target = _path(path, kwargs.get("dir_fd"))
            writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
            if self.is_watched(target) and self.strikes("open" if writes else "read"):
                self.strike(target)
            return by_handle(path, flags, *args, **kwargs)

        def open_file(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            target = _path(file, None) if not isinstance(file, int) else None
            if target is None or not self.is_watched(target):
                return by_name(file, mode, *args, **kwargs)
            writes = any(letter in mode for letter in "wxa+")
            torn = self.fault is not None and self.fault.action == "torn"
            if self.strikes("open" if writes else "read"):
                if torn and writes:
                    with by_name(target, "wb") as half:
                        half.write(b"{\x00rubbish")
                self.strike(target)
            if not writes:
                return by_name(file, mode, *args, **kwargs)
            self.unforced.add(target)
            opened = by_name(file, mode, *args, **kwargs)
            return _Watched(opened, target, self) if "b" in mode else opened

        os.open = open_handle  # type: ignore[assignment]
        builtins.open = io.open = open_file  # type: ignore[assignment]


class _Watched:
    """A binary file whose writes are counted too."""

    def __init__(self, file: Any, path: str, injection: Injection) -> None:
        self._file, self._path, self._injection = file, path, injection

    def write(self, data: Any) -> int:
        if self._injection.strikes("write"):
            action = self._injection.fault.action if self._injection.fault else ""
            if action != "kill" and action not in SIGNALS:  # what a full disk or a torn write leaves: half
                self._file.write(bytes(data)[: len(bytes(data)) // 2])
                self._file.flush()
            self._injection.strike(self._path)
        return int(self._file.write(data))

    def __enter__(self) -> "_Watched":
        return self

    def __exit__(self, *error: Any) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def _path(path: Any, folder: int | None) -> str | None:
    """An absolute path, also of a name that is relative to an open folder (as shutil.rmtree uses them)."""
    if isinstance(path, int):
        return _of_handle(path)
    name = os.fsdecode(path)
    return os.path.abspath(os.path.join(_of_handle(folder) or "", name) if folder is not None else name)


def _of_handle(handle: Any) -> str | None:
    try:
        number = handle if isinstance(handle, int) else handle.fileno()
        return os.readlink(f"/proc/self/fd/{number}").removesuffix(" (deleted)")
    except OSError:
        return None


def _one(path: Any = ".", *_: Any, **kwargs: Any) -> list[str]:
    found = _path(path, kwargs.get("dir_fd"))
    return [found] if found else []


def _two(old: Any, new: Any, **_: Any) -> list[str]:
    return [path for path in (_path(old, None), _path(new, None)) if path]
