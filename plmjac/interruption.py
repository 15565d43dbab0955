"""The ends that a run does not choose: signals, and a disk or a file system that fails it.

Any of SIGNALS ends a run within seconds, wherever it is, with exit code 75 ("run the same command again").

The handler raises in the main thread: the store is made to be killed at any instant, so no place is unsafe. If a long
call keeps Python from getting there, a thread that C code wakes ends the process after some seconds.
"""

import contextlib
import errno
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

INTERRUPTED = 75
"""EX_TEMPFAIL: nothing is lost, run the same command again."""

GRACE_SECONDS = 3.0
NAMES = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
SIGNALS = tuple(getattr(signal, name) for name in NAMES if hasattr(signal, name))
"""Signals of clusters and terminals: SLURM's --signal, SGE USR1 and XCPU, a closed terminal HUP."""

TO_MEND = {
    errno.EACCES: "mend the permissions of that file or folder",
    errno.EPERM: "mend the permissions of that file or folder",
    errno.EROFS: "give store= a place that can be written to",
    errno.ENAMETOOLONG: "give store= a shorter path",
    errno.EXDEV: "all of a store must lie on one file system, pending/ and proteins/ too",
    errno.ENOTDIR: "a file is where a folder should be",
    errno.EISDIR: "a folder is where a file should be",
    errno.ELOOP: "mend the links in that path",
    errno.ENOSYS: "give store= a place on a POSIX file system",
    errno.EOPNOTSUPP: "give store= a place on a POSIX file system",
    errno.EINVAL: "give store= a place on a POSIX file system",
}
"""Errors that come again until the user mends something: exit code 2, so that no job is requeued for ever."""

PASSING = {
    errno.ENOSPC: "make room",
    errno.EDQUOT: "make room in your quota",
    errno.EFBIG: "raise the limit of file sizes (ulimit -f)",
    errno.EMFILE: "raise the limit of open files (ulimit -n)",
    errno.ENFILE: "wait for other programs to close their files",
    errno.ENOENT: "see who removed it",
    errno.EIO: "see that the disk is well",
    errno.ESTALE: "see that the network disk is there",
}
"""Errors after which the same command goes on, once this is done; others that are in neither table too."""


class Interrupted(BaseException):
    """Raised in the main thread by one of SIGNALS; no `except Exception` may swallow it."""


LAST_ACTS: list[Callable[[], None]] = []
"""Called before the process is ended from here, quick and without locks: removes notes of the proteins under way."""

_wakeup: list[socket.socket] = []
"""The end of the socket pair that C code writes to; held here so that it stays open."""


def install() -> None:
    """Take the signals over, also from a library that took them over before."""
    if not _wakeup:
        _watch()
    for number in _heard():
        signal.signal(number, _handle)


def uninstall() -> None:
    """Stop watching, for a process that goes on to something else; handlers are the caller's to set."""
    signal.set_wakeup_fd(-1)
    while _wakeup:
        _wakeup.pop().close()


def install_for_start() -> None:
    """Take them over before the slow imports, when there is nothing yet to put in order: the process just ends."""
    for number in _heard():
        signal.signal(number, lambda _number, _frame: end("interrupted; run the same command again"))


def _heard() -> list[signal.Signals]:
    """The signals that mean something here: not SIGHUP under nohup, which ignores it for the run."""
    return [each for each in SIGNALS if each.name != "SIGHUP" or signal.getsignal(each) != signal.SIG_IGN]


def _handle(number: int, _frame: FrameType | None) -> None:
    for each in _heard():
        signal.signal(each, _at_once)
    raise Interrupted(signal.Signals(number).name)


def _at_once(_number: int, _frame: FrameType | None) -> None:
    _exit(INTERRUPTED)


def _exit(code: int) -> NoReturn:
    for act in LAST_ACTS:
        with contextlib.suppress(Exception):
            act()
    os._exit(code)


def _watch() -> None:
    """Start a thread that C code wakes at a signal, for when the main thread is in a call that does not return."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    _wakeup.append(theirs)
    signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_end_after_grace, args=(ours,), daemon=True).start()


def _end_after_grace(told: socket.socket) -> None:
    with told:
        while (number := told.recv(1)) and number[0] not in SIGNALS:
            pass
    if number:
        time.sleep(GRACE_SECONDS)
        _exit(INTERRUPTED)


def failed_by_the_system(error: OSError) -> tuple[int, str]:
    """The exit code and the sentence for an error of the file system: 75, or 2 where it would come again."""
    said = f"{error.strerror or error}: {error.filename}" if error.filename else str(error)
    if error.errno in TO_MEND:
        return 2, f"stopped: {said}. Nothing is lost; {TO_MEND[error.errno]}, and run the same command again to resume"
    remedy = PASSING.get(error.errno or 0, "see what is wrong there")
    return INTERRUPTED, f"stopped: {said}. Nothing is lost; {remedy} and run the same command again to resume"


def end_with_parent() -> None:
    """End within a second of the launcher's end, however it ends: a rank that goes on alone would hold the store."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        _exit(INTERRUPTED)

    threading.Thread(target=watch, daemon=True).start()


def leave(code: int) -> NoReturn:
    """End a rank's process at once, with nothing torn down.

    Tearing down a process group at exit, with peers that come and go, can abort a process whose work is done, and with
    NCCL hang one that failed.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def end(message: str, code: int = INTERRUPTED) -> NoReturn:
    """Say why and end the process at once: nothing that a library does at exit may keep it or change its code."""
    with contextlib.suppress(OSError, ValueError):  # stderr may be closed
        sys.stdout.flush()
        print(f"\n{message}", file=sys.stderr, flush=True)
    _exit(code)
