"""What many tests share: a debug model, small inputs, and predict runs in this process or in one of their own."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from support import composed

from plmjac import interruption
from plmjac.models import LanguageModel, load_model

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def debug_model() -> LanguageModel:
    """Two layers of random weights."""
    return load_model("debug")


@pytest.fixture
def keep_signals() -> Iterator[None]:
    """Give the signals back to pytest after a run in this process has taken them."""
    handlers = {number: signal.getsignal(number) for number in interruption.SIGNALS}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    interruption.uninstall()


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    """Five proteins of different lengths, one of them twice."""
    path = tmp_path / "five.fasta"
    records = {
        "a first": "MKTAYIAKQRQISFVKSH",
        "b": "GSHMLEDPVDAFKLAAQWERTY",
        "c": "MKV",
        "copy_of_a": "",
        "d": "ACDEFGHIKLM",
    }
    records["copy_of_a"] = records["a first"]
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in records.items()))
    return path


@pytest.fixture
def predict(keep_signals: None) -> Callable[..., int]:
    """`predict(*overrides)` in this process; returns the exit code, or raises what the command line would report."""
    from plmjac.predict import predict as run

    return lambda *overrides: run(composed("predict", *overrides))
