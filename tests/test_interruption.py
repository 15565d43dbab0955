"""Signals end the process in seconds, with code 75, also during start-up and inside a call that does not come back."""

import errno
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support import ROOT, command

from plmjac import interruption

STUCK = """
    import hashlib
    from plmjac import interruption
    interruption.GRACE_SECONDS = 1.0
    interruption.install()
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # C code that never looks at signal handlers
"""
RAISED = """
    import time
    from plmjac import interruption
    interruption.install()
    try:
        try:
            print("ready", flush=True)
            time.sleep(60)
        except Exception:
            print("swallowed")
    except interruption.Interrupted as signal:
        interruption.end(f"ended by {signal}")
"""


def code_after(script: str, number: signal.Signals) -> tuple[int, str, float]:
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.5)  # to be inside the call after it
    began = time.monotonic()
    process.send_signal(number)
    out, errors = process.communicate(timeout=30)
    return process.returncode, out + errors, time.monotonic() - began


@pytest.mark.parametrize("number", interruption.SIGNALS)
def test_a_signal_is_raised_and_cannot_be_swallowed(number: signal.Signals) -> None:
    code, said, _ = code_after(RAISED, number)
    assert code == 75 and f"ended by {number.name}" in said and "swallowed" not in said


def test_under_nohup_a_closed_terminal_ends_nothing() -> None:
    ignored = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    process = subprocess.Popen(
        [sys.executable, "-c", ignored + textwrap.dedent(RAISED)], cwd=ROOT, stdout=subprocess.PIPE, text=True,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 75


@pytest.mark.parametrize(
    ("number", "code"),
    [
        ("ENOSPC", 75),
        ("EIO", 75),
        ("ESTALE", 75),
        ("ENOENT", 75),
        ("EACCES", 2),
        ("EROFS", 2),
        ("EXDEV", 2),
        ("EBUSY", 75),
    ],
)
def test_errors_of_the_system_are_a_sentence_and_a_code(number: str, code: int) -> None:
    error = OSError(getattr(errno, number), os.strerror(getattr(errno, number)), "/store/file")
    found, said = interruption.failed_by_the_system(error)
    assert found == code and "/store/file" in said and "same command again" in said


@pytest.mark.parametrize("number", ["ENOSPC", "EIO", "EPIPE"])
def test_an_error_of_a_file_that_is_open_names_the_store(
    number: str, predict: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system says which file only where it is opened; but for a pipe, which is not the store's."""

    def full(*_: object) -> None:
        raise OSError(getattr(errno, number), os.strerror(getattr(errno, number)))

    monkeypatch.setattr("plmjac.inference.session.Session.prepare", full)
    with pytest.raises(OSError) as caught:
        predict("+dataset=demo", "model=debug", f"store={tmp_path / 'run.zarr'}")
    _, said = interruption.failed_by_the_system(caught.value)
    assert (str(tmp_path / "run.zarr") in said) == (number != "EPIPE")


def test_a_call_that_does_not_come_back_is_ended_all_the_same() -> None:
    code, _, seconds = code_after(STUCK, signal.SIGTERM)
    assert code == 75 and seconds < 5


def test_during_start_up(tmp_path: Path) -> None:
    """As soon as Python runs our code: while the slow imports are still going on."""
    process = subprocess.Popen(
        command("+dataset=demo", "model=debug", f"store={tmp_path / 'run.zarr'}"), cwd=ROOT,
        env={**os.environ, "PYTHONVERBOSE": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("import 'pydantic"):
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 75
