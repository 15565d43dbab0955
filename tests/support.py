"""Plain functions that several test files use: compose a configuration, run a command, hash a store."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any
from unittest.mock import patch

from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from plmjac import interruption
from plmjac.config import add_registered_models, config_dir
from plmjac.predict import predict
from plmjac.readouts import READOUTS

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"


def composed(name: str, *overrides: str) -> dict[str, object]:
    """A configuration as the command line would give it."""
    add_registered_models()
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = OmegaConf.to_container(compose(name, overrides=list(overrides)), resolve=True, throw_on_missing=True)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


def command(*arguments: str, module: str = "plmjac.predict") -> list[str]:
    """The command line of a module of plmjac."""
    return [sys.executable, "-m", module, *arguments]


def run_command(
    *arguments: str, module: str = "plmjac.predict", cwd: Path = ROOT, timeout: float = 240, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run a module of plmjac in a process of its own, with one thread, and wait for it."""
    return subprocess.run(
        command(*arguments, module=module), cwd=cwd, timeout=timeout, capture_output=True, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
    )  # fmt: skip


@contextmanager
def signals_kept() -> Iterator[None]:
    """Gives the signals back to pytest after a run in this process has taken them."""
    handlers = {number: signal.getsignal(number) for number in interruption.SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        interruption.uninstall()


def undisturbed_tree(store: Path, *arguments: str) -> dict[str, str]:
    """The bytes that every other run with these arguments has to come to: of one in this process, from end to end."""
    with signals_kept():
        assert predict(composed("predict", *arguments, f"store={store}")) == 0
    return tree(store)


def tree(store: Path) -> dict[str, str]:
    """sha256 of every file under a store's proteins/, by its path there."""
    folder = store / "proteins"
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def jacobian_in_float32() -> AbstractContextManager[Any]:
    """While this holds, a task keeps the Jacobian as it computes it, not in the float16 of the store."""
    return patch.dict(READOUTS, jacobian=replace(READOUTS["jacobian"], dtype="float32"))
