"""SIGTERM and SIGINT end a run within seconds, wherever it is, with exit code 75 ("run the same command again").

The handler raises in the main thread: the store is made to be killed at any instant, so no place is unsafe. If a long
call keeps Python from getting there, a thread that C code wakes ends the process after some seconds. Gives up a tidy
shutdown for a certain one.
"""

import os
import signal
import socket
import sys
import threading
import time
from types import FrameType
from typing import NoReturn

INTERRUPTED = 75
"""EX_TEMPFAIL: nothing is lost, run the same command again."""

GRACE_SECONDS = 3.0
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(BaseException):
    """Raised in the main thread by SIGTERM or SIGINT; no `except Exception` may swallow it."""


_wakeup: list[socket.socket] = []
"""The end of the socket pair that C code writes to; held here so that it stays open."""


def install() -> None:
    """Take SIGTERM and SIGINT over, also from a library that took them over before."""
    if not _wakeup:
        _watch()
    for number in SIGNALS:
        signal.signal(number, _handle)


def uninstall() -> None:
    """Stop watching, for a process that goes on to something else; handlers are the caller's to set."""
    signal.set_wakeup_fd(-1)
    while _wakeup:
        _wakeup.pop().close()


def install_for_start() -> None:
    """Take them over before the slow imports, when there is nothing yet to put in order: the process just ends."""
    for number in SIGNALS:
        signal.signal(number, lambda _number, _frame: end("interrupted; run the same command again"))


def _handle(number: int, _frame: FrameType | None) -> None:
    for each in SIGNALS:
        signal.signal(each, _at_once)
    raise Interrupted(signal.Signals(number).name)


def _at_once(_number: int, _frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)


def _watch() -> None:
    """Have a thread told of signals by C code, for when the main thread is in a call that does not come back."""
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
        os._exit(INTERRUPTED)


def end_with_parent() -> None:
    """End within a second of the launcher's end, however it ends: a rank that goes on alone would hold the store."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(INTERRUPTED)

    threading.Thread(target=watch, daemon=True).start()


def end(message: str) -> NoReturn:
    """Say why and end the process at once: nothing that a library does at exit may keep it or change its code."""
    sys.stdout.flush()
    print(f"\n{message}", file=sys.stderr, flush=True)
    os._exit(INTERRUPTED)
