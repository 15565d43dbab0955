"""Loggers say what happened, each run to its own, and can neither fail nor stall a run."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from lightning.pytorch.loggers import CSVLogger, Logger

from plmjac.inference import loggers
from plmjac.inference.loggers import SafeLogger, build_logger, wandb_mode
from plmjac.inference.settings import WandbLogger
from plmjac.store import open_store

Predict = Callable[..., int]


def test_csv_has_the_throughput(predict: Predict, fasta: Path, tmp_path: Path) -> None:
    store = tmp_path / "run.zarr"
    assert (
        predict("+dataset=fasta", f"dataset.path={fasta}", "model=debug", "threads=1", f"store={store}", "logger=csv")
        == 0
    )
    (path,) = (tmp_path / "run.zarr-logs").rglob("metrics.csv")
    metrics = pd.read_csv(path)
    assert metrics["proteins"].iloc[-1] == 4 and metrics["residues_per_second"].iloc[-1] > 0


def test_wandb_offline_one_run_for_each_job(
    predict: Predict, fasta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("one", "two"):
        store = tmp_path / f"{name}.zarr"
        arguments = ("+dataset=fasta", f"dataset.path={fasta}", "model=debug", "threads=1", f"store={store}")
        assert predict(*arguments, "logger=wandb", "logger.mode=offline") == 0
        assert len(open_store(store)) == 5
        files = list((tmp_path / f"{name}.zarr-logs").rglob("run-*.wandb"))
        assert len(files) == 1 and files[0].stat().st_size > 0
        assert b"residues_per_second" in files[0].read_bytes()
    import wandb

    assert wandb.run is None


@pytest.mark.parametrize("what", ["start", "metrics"])
def test_a_logger_that_raises_is_dropped(
    what: str, predict: Predict, fasta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    def broken(*_: object, **__: object) -> None:
        raise ConnectionError("the network is gone")

    monkeypatch.setattr(CSVLogger, "__init__" if what == "start" else "log_metrics", broken)
    store = tmp_path / "run.zarr"
    assert (
        predict("+dataset=fasta", f"dataset.path={fasta}", "model=debug", "threads=1", f"store={store}", "logger=csv")
        == 0
    )
    assert "the network is gone" in caplog.text and "going on without it" in caplog.text


def test_a_logger_that_hangs_is_left_behind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(loggers, "DEADLINE_SECONDS", 0.2)
    monkeypatch.setattr(CSVLogger, "log_metrics", lambda *_: time.sleep(30))
    logger = SafeLogger(lambda: CSVLogger(tmp_path), {})
    assert logger.inner is not None
    began = time.monotonic()
    logger.log_metrics({"proteins": 1.0}, 1)
    logger.log_metrics({"proteins": 2.0}, 2)
    assert time.monotonic() - began < 5 and logger.inner is None


def test_without_the_package_a_run_goes_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    settings = WandbLogger(
        name="wandb", project="p", entity=None, group=None, tags=(), run_name=None, mode="auto", dir=None
    )
    logger = build_logger(settings, run_config={}, default_dir=tmp_path)
    assert isinstance(logger, Logger) and logger.inner is None


def test_auto_is_offline_without_a_key_or_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    assert wandb_mode("auto") == "offline"
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    assert wandb_mode("auto") == "offline"
    assert wandb_mode("online") == "online"
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert wandb_mode("auto") == "disabled"
