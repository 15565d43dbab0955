"""SIGTERM and SIGINT end a run within seconds, wherever it is, with exit code 75 ("run the same command again").

The handler raises in the main thread: the store is made to be killed at any instant, so no place is unsafe. If a long
call keeps Python from getting there, a timer ends the process. Gives up a tidy shutdown for a certain one.
"""

import os
import signal
import sys
import threading
from types import FrameType
from typing import NoReturn

INTERRUPTED = 75
"""EX_TEMPFAIL: nothing is lost, run the same command again."""

GRACE_SECONDS = 3.0
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(BaseException):
    """Raised in the main thread by SIGTERM or SIGINT; no `except Exception` may swallow it."""


def _handle(number: int, _frame: FrameType | None) -> None:
    for each in SIGNALS:
        signal.signal(each, _at_once)
    threading.Thread(target=_end_after_grace, daemon=True).start()
    raise Interrupted(signal.Signals(number).name)


def _at_once(_number: int, _frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)


def _end_after_grace() -> None:
    threading.Event().wait(GRACE_SECONDS)
    os._exit(INTERRUPTED)


def install() -> None:
    """Take SIGTERM and SIGINT over, also from a library that took them over before."""
    for number in SIGNALS:
        signal.signal(number, _handle)


def end(message: str) -> NoReturn:
    """Say why and end the process at once: nothing that a library does at exit may keep it or change its code."""
    sys.stdout.flush()
    print(f"\n{message}", file=sys.stderr, flush=True)
    os._exit(INTERRUPTED)
