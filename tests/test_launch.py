"""Ranks, homes and folders as the environment has them, stale or malformed: an answer or a sentence, no traceback."""

import pwd
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import ROOT, run_command

from plmjac import config
from plmjac.files import UsageError, cache_folder
from plmjac.inference.launch import Launch, LaunchError, may_have_peers, read_launch
from plmjac.inference.settings import TrainerSettings

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "1"}
SRUN = {"SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NTASKS": "4", "SLURM_STEP_NUM_NODES": "2"}


def trainer(name: str, **keys: Any) -> TrainerSettings:
    return TrainerSettings(**{"name": name, "accelerator": "cpu", "devices": "auto", "num_nodes": "auto", **keys})


def test_ranks_are_those_of_the_launcher() -> None:
    assert read_launch(trainer("ddp"), dict(TORCHRUN)) == Launch("torchrun", 3, 4, 1, 2)
    launch = read_launch(trainer("slurm"), dict(SRUN))
    assert launch == Launch("srun", 3, 4, 1, 2) and launch.nodes == 2 and not launch.is_alone
    assert may_have_peers(TORCHRUN) and may_have_peers({"SLURM_STEP_NUM_TASKS": "4"}) and not may_have_peers({})


@pytest.mark.parametrize(
    "left_over",
    [
        {"RANK": "1"}, {"RANK": "1", "WORLD_SIZE": "8"}, {"LOCAL_RANK": "x"}, {"SLURM_PROCID": "5"},
        {"SLURM_PROCID": "abc", "SLURM_NTASKS": "many"}, {"SLURM_STEP_NUM_TASKS": "abc"},
    ],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("name", ["auto", "cpu", "gpu"])
def test_what_another_job_left_over_does_not_make_a_rank(name: str, left_over: dict[str, str]) -> None:
    environment = {**left_over, "HOME": "/root"}
    launch = read_launch(trainer(name), environment)
    assert launch == Launch() and launch.is_alone and launch.rank == 0
    assert not {"RANK", "LOCAL_RANK", "SLURM_PROCID"} & environment.keys()  # Lightning would believe them


@pytest.mark.parametrize(
    ("name", "environment", "says"),
    [
        ("slurm", {}, "needs srun"),
        ("slurm", {**SRUN, "SLURM_PROCID": "abc"}, "SLURM_PROCID='abc' is no number"),
        ("slurm", {**SRUN, "SLURM_NTASKS": "-1"}, "SLURM_NTASKS='-1' is no number"),
        ("slurm", {**SRUN, "SLURM_LOCALID": ""}, "SLURM_LOCALID='' is no number"),
        ("slurm", {**SRUN, "SLURM_STEP_NUM_NODES": "2(x"}, "SLURM_STEP_NUM_NODES"),
        ("slurm", {**SRUN, "SLURM_PROCID": "4"}, "cannot be"),
        ("slurm", {**SRUN, "SLURM_STEP_NUM_NODES": "9"}, "cannot be"),
        ("ddp", {**TORCHRUN, "RANK": "one"}, "RANK='one' is no number"),
        ("ddp", {**TORCHRUN, "LOCAL_WORLD_SIZE": "0"}, "cannot be"),
        ("ddp", {key: value for key, value in TORCHRUN.items() if key != "LOCAL_WORLD_SIZE"}, "LOCAL_WORLD_SIZE=''"),
    ],
)
def test_malformed_variables_are_a_sentence(name: str, environment: dict[str, str], says: str) -> None:
    with pytest.raises(LaunchError, match=says):
        read_launch(trainer(name), dict(environment))


def test_what_is_asked_for_is_what_was_started() -> None:
    with pytest.raises(LaunchError, match=r"trainer.devices=3, but torchrun started 2"):
        read_launch(trainer("ddp", devices=3), dict(TORCHRUN))
    with pytest.raises(LaunchError, match=r"torchrun --nproc-per-node 3 -m plmjac.predict"):
        read_launch(trainer("auto", devices=3), {})


def test_a_single_process_with_stale_variables_lists_its_failures(tmp_path: Path) -> None:
    path = tmp_path / "two.fasta"
    path.write_text(">a\nMKVLAA\n>b\nMK-VLAAW\n")
    done = run_command(
        "+dataset=fasta", f"dataset.path={path}", "model=debug", "store=run.zarr", cwd=tmp_path, PYTHONPATH=str(ROOT),
        RANK="1", SLURM_PROCID="abc", LOCAL_RANK="7",
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "1 done, 1 failed" in done.stderr and "failed b: " in done.stderr and "Traceback" not in done.stderr


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """No HOME, and a user whom the system does not know, as in many containers."""

    def unknown(_: int) -> None:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("PLMJAC_CACHE", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_without_a_home_the_cache_is_a_sentence(
    homeless: None, predict: Callable[..., int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(UsageError, match="PLMJAC_CACHE"):
        cache_folder("pdb")
    with pytest.raises(UsageError, match="PLMJAC_CACHE"):
        predict("+dataset=pdb", "dataset.ids=[1TEN]", "model=debug", f"store={tmp_path / 'pdb.zarr'}")
    # What is not needed is done without: the demo runs, and the batch size that was measured is not kept.
    arguments = ("+dataset=demo", "dataset.ids=[1GUU_A]", "model=debug", f"store={tmp_path / 'run.zarr'}")
    assert predict(*arguments) == 0


def test_without_a_home_a_tilde_is_a_sentence(
    homeless: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for argument in ("dataset.path=~/my.fasta", 'dataset.path=["~/my.fasta"]'):
        monkeypatch.setattr(sys, "argv", ["predict", "+dataset=fasta", argument])
        job = lambda found: len(str(Path(found["dataset"]["path"][0]).expanduser()))  # noqa: E731
        assert config.run("predict", job) == 2
        assert "home" in caplog.text
        caplog.clear()


@pytest.mark.parametrize("argument", ["+dataset=demo", "-m +dataset=demo"])
def test_a_folder_that_is_gone_is_a_sentence(tmp_path: Path, argument: str) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    line = f"cd {gone} && rmdir {gone} && exec {sys.executable} -m plmjac.predict {argument} model=debug"
    done = subprocess.run(
        ["sh", "-c", line], capture_output=True, text=True, timeout=120, env={"PYTHONPATH": str(ROOT), "HOME": "/root"}
    )
    assert done.returncode == 2, done.stderr
    assert "the current folder" in done.stderr and "Traceback" not in done.stderr, done.stderr
