"""This process's rank, threads and launcher: the only place that reads the environment variables for them.

Several processes only under torchrun or srun: with Lightning's own launcher a rank that dies can leave holes and the
run still ends with code 0.
"""

import os
import shlex
import sys
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Literal

from plmjac.files import UsageError
from plmjac.inference.settings import TrainerSettings

Kind = Literal["cpu", "cuda"]

DEFAULT_MAX_TOKENS = {"cpu": 4096, "cuda": 16384}
"""Tokens of one forward by kind of device: enough to keep it busy, few enough for a laptop's memory."""

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "GROUP_RANK")
BELIEVED = (*TORCHRUN, "NODE_RANK", "SLURM_PROCID", "SLURM_LOCALID", "JSM_NAMESPACE_RANK")
"""Variables that Lightning takes for a rank as soon as it is imported."""


class LaunchError(UsageError):
    """A run that cannot be started as asked for; the message says what to do instead."""


@dataclass(frozen=True)
class Launch:
    """The processes of a run and this one's place among them; ranks count from 0 over all nodes, and on this node."""

    launcher: Literal["", "torchrun", "srun"] = ""
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def nodes(self) -> int:
        """Machines that take part."""
        return self.world_size // self.local_size

    @property
    def is_alone(self) -> bool:
        """True where this process is the whole run."""
        return self.world_size == 1


def under_torchrun(environment: Mapping[str, str] = os.environ) -> bool:
    """True where torchrun started this process; a single RANK left over from another job is not enough."""
    return set(TORCHRUN) <= environment.keys()


def may_have_peers(environment: Mapping[str, str] = os.environ) -> bool:
    """True where a launcher may have started other processes of this run; known before its settings are."""
    return under_torchrun(environment) or environment.get("SLURM_STEP_NUM_TASKS", "1") not in ("", "1")


def read_launch(trainer: TrainerSettings, environment: MutableMapping[str, str] = os.environ) -> Launch:
    """This process's place in the run, from what its launcher set.

    Variables that were left over from another job are taken out of the environment. Raises LaunchError where they make
    no sense, and where they do not fit what is asked for.
    """
    if under_torchrun(environment):
        launch = Launch(
            "torchrun",
            rank=_number(environment, "RANK"),
            world_size=_number(environment, "WORLD_SIZE"),
            local_rank=_number(environment, "LOCAL_RANK"),
            local_size=_number(environment, "LOCAL_WORLD_SIZE"),
        )
    elif trainer.name == "slurm":
        if "SLURM_PROCID" not in environment:
            raise LaunchError(
                "trainer=slurm needs srun: start it with predict.sbatch, which `plmjac examples FOLDER` has, or use "
                "trainer=auto"
            )
        tasks = _number(environment, "SLURM_NTASKS", "1")
        nodes = _number(environment, "SLURM_STEP_NUM_NODES", environment.get("SLURM_JOB_NUM_NODES", "1"))
        rank, local_rank = _number(environment, "SLURM_PROCID"), _number(environment, "SLURM_LOCALID", "0")
        launch = Launch("srun", rank, tasks, local_rank, tasks // max(1, nodes))
    else:
        _refuse_several_devices(trainer)
        for name in BELIEVED:
            environment.pop(name, None)
        return Launch()
    if not (launch.rank < launch.world_size and launch.local_rank < launch.local_size <= launch.world_size):
        raise LaunchError(f"{launch.launcher} says that this is {launch}, which cannot be; start the run anew with it")
    for name, asked, given in (
        ("devices", trainer.devices, launch.local_size), ("num_nodes", trainer.num_nodes, launch.nodes)
    ):  # fmt: skip
        if asked not in ("auto", given) and trainer.name in ("ddp", "slurm"):
            raise LaunchError(f"trainer.{name}={asked}, but {launch.launcher} started {given}; leave it at auto")
    return launch


def _number(environment: Mapping[str, str], name: str, default: str = "") -> int:
    text = environment.get(name, default)
    if not text.strip().isdecimal():
        raise LaunchError(
            f"the environment variable {name}={text!r} is no number; unset it, or start with its launcher"
        )
    return int(text)


def _refuse_several_devices(trainer: TrainerSettings) -> None:
    """Raises LaunchError, with the command to use, where more than one process is asked for and none was launched."""
    devices = 1 if trainer.devices == "auto" else trainer.devices
    nodes = 1 if trainer.num_nodes == "auto" else trainer.num_nodes
    if devices * nodes == 1 and trainer.name != "ddp":
        return
    import torch  # noqa: PLC0415 - 2 s, only to count GPUs for the message

    each = devices if devices > 1 else max(2, torch.cuda.device_count())
    others = [text for text in sys.argv[1:] if not text.startswith(("trainer=", "trainer.devices", "trainer.num_"))]
    command = f"torchrun --nproc-per-node {each} -m plmjac.predict {shlex.join(others)} trainer=ddp"
    raise LaunchError(f"several devices need a launcher that sees to every process; run\n  {command}")


def threads_per_rank(launch: Launch) -> int:
    """CPU threads for each process: OMP_NUM_THREADS where the user has set it, else this node's cores shared out."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if launch.launcher == "torchrun":  # which itself sets OMP_NUM_THREADS to 1
        return max(1, cores // launch.local_size)
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdecimal() and int(wanted) > 0 else cores
