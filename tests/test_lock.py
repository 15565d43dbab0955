"""One run, or the shards of one plan, hold a store; a holder that died locks nobody out, with and without flock."""

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from plmjac.store import StoreError
from plmjac.store import lock as lock_function
from plmjac.store import lock as take
from plmjac.store.lock import StoreLock

module = sys.modules["plmjac.store.lock"]


@pytest.fixture(params=["flock", "no flock"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store's path, on a file system with flock or one that says it has none."""
    if request.param == "no flock":

        def refuse(*_: Any) -> None:
            raise OSError(errno.ENOSYS, "Function not implemented")

        monkeypatch.setattr(module.fcntl, "flock", refuse)
        monkeypatch.setattr(module, "SETTLE_SECONDS", 0.01)
    return tmp_path / "run.zarr"


def test_a_second_run_is_refused_until_the_first_ends(store: Path) -> None:
    first = lock_function(store)
    with pytest.raises(StoreError, match="being written"):
        lock_function(store)
    with pytest.raises(StoreError, match="being written"):
        take(store, "1-of-2")
    first.release()
    take(store).release()


def test_shards_come_in_together_each_once_and_a_run_waits_for_all(store: Path) -> None:
    one, two = take(store, "1-of-3"), take(store, "2-of-3")
    assert one.is_alone and not two.is_alone
    with pytest.raises(StoreError, match="being written"):
        take(store, "2-of-3")
    with pytest.raises(StoreError, match="being written"):
        take(store)
    one.release()
    with pytest.raises(StoreError, match="being written"):
        take(store)
    two.release()
    assert take(store).is_alone


def test_a_killed_holder_locks_nobody_out(store: Path, request: pytest.FixtureRequest) -> None:
    without = "no flock" in request.node.name
    script = (
        "import errno, os, sys, fcntl\n"
        "from pathlib import Path\n"
        "from plmjac.store import lock\n"
        + ("def refuse(*_): raise OSError(errno.ENOSYS, 'no')\nfcntl.flock = refuse\n" if without else "")
        + f"held = lock(Path({str(store)!r}))\nprint('held', flush=True)\nos.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.returncode == -9 and done.stdout == "held\n", done.stderr
    assert take(store).is_alone


@pytest.mark.parametrize("store", ["no flock"], indirect=True)
def test_the_lease_of_another_machine_is_named_and_taken_over_when_it_is_stale(store: Path) -> None:
    lease = store / "pending/lease.run"
    lease.parent.mkdir(parents=True)
    lease.write_text(json.dumps({"host": "elsewhere", "process": 7, "token": "0"}))
    with pytest.raises(StoreError, match=r"process 7 on elsewhere.*lease\.run.*delete that file"):
        take(store)
    old = time.time() - 3600
    os.utime(lease, (old, old))
    held = take(store)
    assert json.loads(lease.read_text())["process"] == os.getpid()
    held.release()
    assert not list(lease.parent.glob("lease*"))


@pytest.mark.parametrize("store", ["no flock"], indirect=True)
def test_a_lease_is_kept_fresh_and_its_loss_ends_the_run(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []
    monkeypatch.setattr(module, "HEARTBEAT_SECONDS", 0.05)
    monkeypatch.setattr(module, "end", lambda message: ended.append(message))
    held = take(store)
    lease = store / "pending/lease.run"
    old = time.time() - 3600
    os.utime(lease, (old, old))
    deadline = time.monotonic() + 10
    while lease.stat().st_mtime < old + 60:
        assert time.monotonic() < deadline, "nobody touches the lease"
        time.sleep(0.02)
    assert not ended
    lease.write_text(json.dumps({"host": "elsewhere", "process": 7, "token": "another"}))
    while not ended:
        assert time.monotonic() < deadline, "the loss of the lease went unseen"
        time.sleep(0.02)
    assert "taken over" in ended[0]
    held.release()
    assert lease.exists(), "the other's lease is not ours to remove"


def test_a_lock_names_what_it_is(store: Path) -> None:
    held = take(store, "3-of-16")
    assert isinstance(held, StoreLock)
    with pytest.raises(StoreError, match=r"3/16|3-of-16"):
        take(store, "3-of-16")
    held.release()
