"""What a run computes on, known before there is a Trainer: kind of device, threads, tokens of a forward."""

import os
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
