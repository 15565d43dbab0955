"""What many tests share: a debug model, small inputs, and predict runs in this process or in one of their own."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from plmjac.config import config_dir
from plmjac.models import LanguageModel, load_model

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "data"

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def debug_model() -> LanguageModel:
    """Two layers of random weights."""
    return load_model("debug")


@pytest.fixture
def keep_signals() -> Iterator[None]:
    """Give SIGTERM and SIGINT back to pytest after a run in this process has taken them."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    """Five proteins of different lengths, one of them twice."""
    path = tmp_path / "five.fasta"
    path.write_text(
        ">a first\nMKTAYIAKQRQISFVKSH\n>b\nGSHMLEDPVDAFKLAAQWERTY\n>c\nMKV\n>copy_of_a\nMKTAYIAKQRQISFVKSH\n>d\nACDEFGHIKLM\n"
    )
    return path


def composed(name: str, *overrides: str) -> dict[str, object]:
    """A configuration as the command line would give it."""
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = OmegaConf.to_container(compose(name, overrides=list(overrides)), resolve=True, throw_on_missing=True)
    assert isinstance(config, dict)
    return {str(key): value for key, value in config.items()}


@pytest.fixture
def predict(keep_signals: None) -> Callable[..., int]:
    """`predict(*overrides)` in this process; returns the exit code, or raises what the command line would report."""
    from plmjac.predict import predict as run

    return lambda *overrides: run(composed("predict", *overrides))


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


def tree(store: Path) -> dict[str, str]:
    """sha256 of every file under a store's proteins/, by its path there."""
    folder = store / "proteins"
    return {
        path.relative_to(folder).as_posix(): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
