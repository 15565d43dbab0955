"""The Lightning Trainer for a run: which device, how many ranks, and none of the defaults that lose results.

Several processes only under torchrun or srun: with Lightning's own launcher a rank that dies can leave holes and the
run still ends with code 0.
"""

import logging
import os
import shlex
import sys
import warnings
from datetime import timedelta
from pathlib import Path

import torch
from lightning import Trainer
from lightning.fabric.plugins.environments import (  # type: ignore[attr-defined]
    ClusterEnvironment,
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy

from plmjac.inference.device import device_kind
from plmjac.inference.settings import LaunchError, TrainerSettings


def build_trainer(config: TrainerSettings, callbacks: list[Callback], logger: Logger | None, root: Path) -> Trainer:
    """A Trainer for prediction alone. Raises LaunchError where devices and processes do not fit together.

    `root` is a folder that nobody else writes to: Lightning would load any checkpoint that it finds in its own.
    """
    _silence()
    kind = device_kind(config)
    environment, devices, nodes = _processes(config, kind)
    strategy: Strategy
    if devices * nodes == 1:
        device = torch.device("cuda", 0) if kind == "cuda" else torch.device("cpu")
        strategy = SingleDeviceStrategy(device=device)
    else:
        backend = "nccl" if kind == "cuda" else "gloo"
        # No collective between proteins; the timeout only bounds the wait for rank 0 to read the input.
        strategy = DDPStrategy(process_group_backend=backend, timeout=timedelta(days=7))
    return Trainer(
        accelerator="gpu" if kind == "cuda" else "cpu",
        devices=devices,
        num_nodes=nodes,
        strategy=strategy,
        plugins=[environment],
        callbacks=callbacks,
        logger=logger or False,
        use_distributed_sampler=False,  # the plan has shared the work out
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=True,
        default_root_dir=root,
    )


def _processes(config: TrainerSettings, kind: str) -> tuple[ClusterEnvironment, int, int]:
    """The environment to trust, and devices and nodes as its launcher set them."""
    if TorchElasticEnvironment.detect():
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        nodes = int(os.environ["WORLD_SIZE"]) // local
        _check_launcher(config, local, nodes, "torchrun")
        _check_devices(kind, local, "torchrun")
        return TorchElasticEnvironment(), local, nodes
    if config.name == "slurm":
        if "SLURM_PROCID" not in os.environ:
            raise LaunchError("trainer=slurm needs srun: start it with scripts/predict.sbatch, or use trainer=auto")
        nodes = int(os.environ.get("SLURM_STEP_NUM_NODES", os.environ.get("SLURM_JOB_NUM_NODES", "1")))
        local = int(os.environ.get("SLURM_NTASKS", "1")) // nodes
        _check_launcher(config, local, nodes, "srun")
        _check_devices(kind, local, "srun")
        return SLURMEnvironment(auto_requeue=False), local, nodes
    devices = 1 if config.devices == "auto" else config.devices
    nodes = 1 if config.num_nodes == "auto" else config.num_nodes
    if devices * nodes != 1 or config.name == "ddp":
        each = devices if devices > 1 else max(2, torch.cuda.device_count())
        others = [text for text in sys.argv[1:] if not text.startswith(("trainer=", "trainer.devices", "trainer.num_"))]
        command = f"torchrun --nproc-per-node {each} -m plmjac.predict {shlex.join(others)} trainer=ddp"
        raise LaunchError(f"several devices need a launcher that sees to every process; run\n  {command}")
    return LightningEnvironment(), 1, 1


def _check_launcher(config: TrainerSettings, local: int, nodes: int, launcher: str) -> None:
    for name, asked, given in (("devices", config.devices, local), ("num_nodes", config.num_nodes, nodes)):
        if asked not in ("auto", given) and config.name in ("ddp", "slurm"):
            raise LaunchError(f"trainer.{name}={asked}, but {launcher} started {given}; leave it at auto")


def _check_devices(kind: str, local: int, launcher: str) -> None:
    seen = torch.cuda.device_count()
    if kind == "cuda" and local > seen:
        raise LaunchError(
            f"{launcher} started {local} processes on this node, each of which sees {seen} GPUs; start as many as "
            "there are GPUs, all visible to all (with srun: --gpus-per-node, not --gpus-per-task)"
        )


def _silence() -> None:
    """Lightning's advice on training does not concern a run that only predicts."""
    for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"lightning(\.|_)")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*across ranks is zero.*")
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
