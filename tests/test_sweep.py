"""The sweep of conf/sweep as wandb's agent would run it, the same grid by -m, and what W&B is told; all offline.

The agent's command lines come from wandb's own code. One is run as the agent runs it, in a process of its own; the
others by the same entry point in this process, which saves a minute of imports.
"""

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from support import composed, tree
from wandb.proto.wandb_internal_pb2 import Record
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from plmjac import interruption
from plmjac.config import config_dir, options, run
from plmjac.evaluate import evaluate
from plmjac.inference.settings import parse_predict
from plmjac.predict import main
from plmjac.store import open_store

SCHEDULES = ["flanking", "random", "random_avoiding_30"]
MODELS = ["debug", "tiny"]
PAPER = {
    "single_segment": ({"name": "single", "size": 22, "margin": 10, "threshold": 15, "per_protein": 3}, "keep"),
    "pairs_50_100": ({"name": "pairs", "size": 11, "min_separation": 50, "max_separation": 100, "margin": 10}, "keep"),
    "pairs_over_100": ({"name": "pairs", "size": 11, "min_separation": 100, "max_separation": None}, "keep"),
    "close_pairs": ({"name": "close_pairs", "size": 11, "gap": 5, "threshold": 10, "per_protein": 3}, "mask"),
}
"""The paper's runs, and whether they show BOS and EOS (Zhang et al. 2024 and their repository)."""


@pytest.mark.parametrize("experiment", sorted(set(options("experiment")) - set(PAPER)))
def test_other_experiments_are_runs(experiment: str) -> None:
    needed = ["segments.path=pairs.json"] if experiment == "named_pairs" else []
    settings = parse_predict(composed("predict", "+dataset=demo", f"+experiment={experiment}", *needed))
    assert settings.model.bos_eos == "keep"


@pytest.mark.parametrize("experiment", PAPER)
@pytest.mark.parametrize("schedule", [None, *SCHEDULES])
def test_experiments_are_the_papers_runs(experiment: str, schedule: str | None) -> None:
    chosen = [] if schedule is None else [f"schedule={schedule}"]
    config = composed("predict", "+dataset=zhang2024", f"+experiment={experiment}", "model=esm2_3b", *chosen)
    segments, bos_eos = PAPER[experiment]
    assert isinstance(config["segments"], dict) and segments.items() <= config["segments"].items()
    settings = parse_predict(config)
    assert settings.segments is not None and settings.readout in (None, "contact_head")
    assert settings.schedule.name == (schedule or "flanking") and settings.model.bos_eos == bos_eos
    assert settings.model.name == "esm2_3b" and getattr(settings.schedule, "distance", 30) == 30
    assert getattr(settings.schedule, "draws", "fresh") == "fresh"


def test_experiments_give_way_to_the_command_line() -> None:
    settings = parse_predict(
        composed("predict", "+dataset=demo", "+experiment=close_pairs", "segments.size=5", "model.bos_eos=keep",
                 "schedule=random", "schedule.repeats=3")
    )  # fmt: skip
    assert settings.segments is not None and settings.segments.size == 5
    assert settings.model.bos_eos == "keep" and settings.schedule.repeats == 3


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keep_signals: None) -> Path:
    """A folder to be in, no W&B account, and no waiting for the disk; returns a FASTA file of two short proteins."""
    for name in ("WANDB_API_KEY", "WANDB_SWEEP_ID", "WANDB_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(os, "fsync", lambda _: None)
    path = tmp_path / "two.fasta"
    path.write_text(">a\nMKTAYIAKQRQISFVKSHGSHMLEDPVDA\n>b\nGSHMLEDPVDAFKLAAQWERTYACD\n")
    return path


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """`command(*arguments)`: the entry point of plmjac.predict in this process; returns its exit code."""

    def started(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["predict", *arguments])
        with pytest.raises(SystemExit) as end:
            main()
        return int(end.value.code or 0)

    return started


def small_sweep(fasta: Path) -> dict[str, Any]:
    """The sweep as it is shipped, on other models and two short proteins."""
    sweep: dict[str, Any] = yaml.safe_load((config_dir() / "sweep/unmasking.yaml").read_text())
    sweep["parameters"] |= {
        "+dataset": {"value": "fasta"}, "dataset.path": {"value": str(fasta)}, "model": {"values": MODELS},
        "seed": {"values": [1]}, "segments.size": {"value": 6}, "segments.margin": {"value": 2},
        "segments.threshold": {"value": 0}, "threads": {"value": 1}, "max_tokens": {"value": 1000},
    }  # fmt: skip
    return sweep


def agent_commands(sweep: dict[str, Any]) -> Iterator[list[str]]:
    """The command line of each point of the grid, put together as wandb's agent does (`Agent._command_run`)."""
    parameters = sweep["parameters"]
    grid = itertools.product(*(each.get("values", [each.get("value")]) for each in parameters.values()))
    for values in grid:
        arguments = {name: {"value": value} for name, value in zip(parameters, values, strict=True)}
        known = create_sweep_command_args({"args": arguments})
        known |= {"interpreter": ["python"], "program": [sweep["program"]], "env": ["/usr/bin/env"]}
        words = (str(word) for word in create_sweep_command(list(sweep["command"])))
        yield [
            part
            for word in words
            for part in (known[word[2:-1]] if word.startswith("${") and word[-1] == "}" else [word])
        ]


def as_agent(words: list[str]) -> None:
    """Run a command line as the agent does: in a process of its own that is told which run of which sweep it is."""
    told = {"WANDB_SWEEP_ID": "sweep123", "WANDB_RUN_ID": "run0", "OMP_NUM_THREADS": "1"}
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(words, env={**os.environ, **told, "PATH": path}, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr


def offline_run(store: Path) -> dict[str, Any]:
    """Record of the one offline W&B run beside a store: id, sweep, config, last value of each metric, exit code."""
    (path,) = Path(f"{store}-logs").rglob("run-*.wandb")
    found: dict[str, Any] = {"config": {}, "history": {}, "files": path.parent / "files"}
    for record in wandb_records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            found |= {"id": record.run.run_id, "sweep": record.run.sweep_id}
        elif kind == "config":
            found["config"] |= {item.key: json.loads(item.value_json) for item in record.config.update}
        elif kind == "history":
            found["history"] |= {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
        elif kind == "exit":
            found["exit"] = record.exit.exit_code
    return found


def wandb_records(path: Path) -> Iterator[Record]:
    """The records of an offline run's file: LevelDB's log format after seven bytes of header."""
    data, at, parts = path.read_bytes(), 7, b""
    assert data.startswith(b":W&B")
    while at + 7 <= len(data):
        if (left := 32768 - at % 32768) < 7:
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last of several
            yield Record.FromString(parts)
            parts = b""


@pytest.mark.slow
@pytest.mark.timeout(900)  # twelve runs and one process: 45 s of one core
def test_the_sweep_runs_as_the_agent_runs_it_and_by_multirun_alike(
    offline: Path, tmp_path: Path, command: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    by_agent, by_multirun = tmp_path / "agent", tmp_path / "multirun"
    names = [f"fasta_{model}_{schedule}_seed1" for model in MODELS for schedule in SCHEDULES]
    commands = list(agent_commands(small_sweep(offline)))
    assert len(commands) == 6
    for folder in (by_agent, by_multirun):
        folder.mkdir()
    monkeypatch.chdir(by_agent)
    for number, words in enumerate(commands):
        assert words[:4] == ["/usr/bin/env", "python", "-m", "plmjac.predict"] and "+dataset=fasta" in words
        if number == 0:
            as_agent(words)
        else:
            assert command(*words[4:]) == 0
    seen = offline_run(by_agent / f"runs/{names[0]}.zarr")
    assert (seen["id"], seen["sweep"], seen["exit"]) == ("run0", "sweep123", 0)

    monkeypatch.chdir(by_multirun)
    (grid,) = {
        tuple(word for word in words[4:] if word.split("=")[0] not in ("model", "schedule")) for words in commands
    }
    assert command("-m", *grid, f"model={','.join(MODELS)}", f"schedule={','.join(SCHEDULES)}") == 0
    runs = {name: offline_run(by_multirun / f"runs/{name}.zarr") for name in names}
    assert len({seen["id"] for seen in runs.values()}) == 6
    for name, seen in runs.items():
        store = open_store(by_multirun / f"runs/{name}.zarr")
        assert seen["config"]["identity"]["model"]["weights_sha256"] == store.attributes["model"]["weights_sha256"]
        assert seen["config"]["schedule"]["name"] == store.attributes["schedule"]["name"]
        assert seen["config"]["versions"] == store.attributes["versions"] and seen["config"]["seed"] == 1
        assert float(seen["history"]["residues_per_second"]) > 0 and seen["exit"] == 0
        assert list(store) == ["a", "b"] and tree(store.path) == tree(by_agent / f"runs/{name}.zarr")

    stores = ",".join(str(by_multirun / f"runs/{name}.zarr") for name in names)
    out = tmp_path / "together"
    judged = composed("evaluate", "+evaluation=contact_recovery", f"store=[{stores}]", f"out={out}", "logger=wandb")
    assert evaluate(judged) == 0
    summary = pd.read_parquet(out / "summary.parquet")
    assert summary[["model", "schedule"]].to_numpy().tolist() == [[m, s] for m in MODELS for s in SCHEDULES]
    assert len(pd.read_parquet(out / "paired.parquet")) == 4
    seen = offline_run(out)
    assert {"summary", "curves", "paired", "recovery"} <= {key.split("/")[0] for key in seen["history"]}
    media = {file.name.split("_")[0] for file in (seen["files"] / "media").rglob("*") if file.is_file()}
    assert {"recovery", "curves", "summary"} <= media
    assert [file for file in (seen["files"] / "media").rglob("*.png") if file.name.startswith("recovery")]


def test_every_experiment_has_a_store_of_its_own() -> None:
    stores = [parse_predict(composed("predict", "+dataset=demo", f"+experiment={name}")).store for name in PAPER]
    assert len(set(stores)) == len(PAPER)
    assert {"demo_tiny_flanking_pairs_50_100.zarr", "demo_tiny_flanking_pairs_over_100.zarr"} <= {
        p.name for p in stores
    }


def test_a_multirun_goes_on_after_a_job_that_fails(
    offline: Path, tmp_path: Path, command: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of two jobs is refused (it needs a checkpoint): exit code 2, and the second is done."""
    monkeypatch.chdir(tmp_path)
    code = command(
        "-m", "+dataset=fasta", f"dataset.path={offline}", "threads=1", "schedule=flanking", "segments.size=6",
        "segments.margin=2", "segments.threshold=0", "model=esm2_15b,debug", "max_tokens=1000",
    )  # fmt: skip
    assert code == 2
    assert list(open_store(tmp_path / "runs/fasta_debug_flanking.zarr")) == ["a", "b"]
    assert not (tmp_path / "runs/fasta_esm2_15b_flanking.zarr").exists()


def test_a_signal_ends_a_multirun_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The jobs after the one that is interrupted are not begun; the entry point makes exit code 75 of it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["predict", "-m", "+dataset=demo", "seed=1,2,3"])
    seen: list[int] = []

    def job(config: dict[str, Any]) -> int:
        seen.append(config["seed"])
        raise interruption.Interrupted("SIGTERM")

    with pytest.raises(interruption.Interrupted):
        run("predict", job)
    assert seen == [1]
