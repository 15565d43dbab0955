"""The `trainer` and `logger` config groups as types, apart from what they configure, so that checking them is quick."""

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, PositiveInt

from plmjac.files import UsageError


def under_torchrun() -> bool:
    """Whether torchrun started this process."""
    return {"RANK", "WORLD_SIZE", "LOCAL_RANK", "GROUP_RANK"} <= os.environ.keys()


def is_rank_zero() -> bool:
    """Whether this process is the one that speaks, before there is a Trainer to ask."""
    return int(os.environ.get("RANK", os.environ.get("SLURM_PROCID", "0"))) == 0


def is_only_rank() -> bool:
    """Whether no launcher has started others beside this process."""
    return not under_torchrun() and int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) == 1


class LaunchError(UsageError):
    """A run that cannot be started as asked for; the message says what to do instead."""


class TrainerSettings(BaseModel):
    """Where a run computes; conf/trainer says what each choice is for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["auto", "cpu", "gpu", "ddp", "slurm"]
    accelerator: Literal["auto", "cpu", "gpu"]
    devices: PositiveInt | Literal["auto"]
    num_nodes: PositiveInt | Literal["auto"]


class NoLogger(BaseModel):
    """`logger=none`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["none"]


class CsvLogger(BaseModel):
    """`logger=csv`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["csv"]
    dir: Path | None


class WandbLogger(BaseModel):
    """`logger=wandb`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["wandb"]
    project: str
    entity: str | None
    group: str | None
    tags: tuple[str, ...]
    run_name: str | None
    mode: Literal["auto", "online", "offline", "disabled"]
    dir: Path | None


LoggerSettings = NoLogger | CsvLogger | WandbLogger
