"""What a run computes on, known before there is a Trainer: kind of device, processes, threads, tokens of a forward."""

import os
import shlex
import sys
from typing import Literal

import torch

from plmjac.inference.settings import LaunchError, TrainerSettings, under_torchrun

DEFAULT_MAX_TOKENS = {"cpu": 4096, "cuda": 16384}
"""Tokens of one forward by kind of device: enough to keep it busy, few enough for a laptop's memory."""


def device_kind(config: TrainerSettings) -> Literal["cpu", "cuda"]:
    """The kind of device a run will be on. Raises LaunchError where a GPU is asked for and there is none."""
    if config.accelerator == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if config.accelerator == "gpu":
        raise LaunchError(
            f"trainer={config.name} asks for a GPU, but PyTorch {torch.__version__} sees none; "
            "use trainer=cpu, or install a CUDA build of PyTorch"
        )
    return "cpu"


def processes(config: TrainerSettings) -> tuple[int, int]:
    """Processes of each node, one for a device, and nodes, as their launcher set them.

    Raises LaunchError where these and what is asked for do not fit together.
    """
    if under_torchrun():
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        return _as_launched(config, local, int(os.environ["WORLD_SIZE"]) // local, "torchrun")
    if config.name == "slurm":
        if "SLURM_PROCID" not in os.environ:
            raise LaunchError("trainer=slurm needs srun: start it with scripts/predict.sbatch, or use trainer=auto")
        nodes = int(os.environ.get("SLURM_STEP_NUM_NODES", os.environ.get("SLURM_JOB_NUM_NODES", "1")))
        return _as_launched(config, int(os.environ.get("SLURM_NTASKS", "1")) // nodes, nodes, "srun")
    devices = 1 if config.devices == "auto" else config.devices
    nodes = 1 if config.num_nodes == "auto" else config.num_nodes
    if devices * nodes != 1 or config.name == "ddp":
        each = devices if devices > 1 else max(2, torch.cuda.device_count())
        others = [text for text in sys.argv[1:] if not text.startswith(("trainer=", "trainer.devices", "trainer.num_"))]
        command = f"torchrun --nproc-per-node {each} -m plmjac.predict {shlex.join(others)} trainer=ddp"
        raise LaunchError(f"several devices need a launcher that sees to every process; run\n  {command}")
    return 1, 1


def _as_launched(config: TrainerSettings, local: int, nodes: int, launcher: str) -> tuple[int, int]:
    """What a launcher started, held against what was asked for and against the GPUs that there are."""
    for name, asked, given in (("devices", config.devices, local), ("num_nodes", config.num_nodes, nodes)):
        if asked not in ("auto", given) and config.name in ("ddp", "slurm"):
            raise LaunchError(f"trainer.{name}={asked}, but {launcher} started {given}; leave it at auto")
    if device_kind(config) == "cuda" and local > (seen := torch.cuda.device_count()):
        raise LaunchError(
            f"{launcher} started {local} processes on this node, each of which sees {seen} GPUs; start as many as "
            "there are GPUs, all visible to all (with srun: --gpus-per-node, not --gpus-per-task)"
        )
    return local, nodes


def local_device(config: TrainerSettings) -> str:
    """The device of this process, as Lightning will choose it: each rank of a node has the GPU of its local rank."""
    if device_kind(config) == "cpu":
        return "cpu"
    alone = not under_torchrun() and config.name != "slurm"
    return f"cuda:{0 if alone else os.environ.get('LOCAL_RANK', os.environ.get('SLURM_LOCALID', '0'))}"


def threads_per_rank() -> int:
    """CPU threads for each process: OMP_NUM_THREADS where the user has set it, else this node's cores shared out."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if under_torchrun():  # which itself sets OMP_NUM_THREADS to 1
        return max(1, cores // int(os.environ["LOCAL_WORLD_SIZE"]))
    wanted = os.environ.get("OMP_NUM_THREADS", "")
    return int(wanted) if wanted.isdigit() and int(wanted) > 0 else cores
