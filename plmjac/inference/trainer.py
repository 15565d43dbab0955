"""The Lightning Trainer for a run: which device, how many ranks, and none of the defaults that lose results.

Several processes only under torchrun or srun: with Lightning's own launcher a rank that dies can leave holes and the
run still ends with code 0.
"""

import logging
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

from plmjac.inference.device import device_kind, processes
from plmjac.inference.settings import TrainerSettings, under_torchrun


def build_trainer(config: TrainerSettings, callbacks: list[Callback], logger: Logger | None, root: Path) -> Trainer:
    """A Trainer for prediction alone. Raises LaunchError where devices and processes do not fit together.

    `root` is a folder that nobody else writes to: Lightning would load any checkpoint that it finds in its own.
    """
    _silence()
    kind = device_kind(config)
    devices, nodes = processes(config)
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
        plugins=[_environment(config)],
        callbacks=callbacks,
        logger=logger or False,
        use_distributed_sampler=False,  # the plan has shared the work out
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=True,
        default_root_dir=root,
    )


def _environment(config: TrainerSettings) -> ClusterEnvironment:
    """What Lightning is to read ranks from."""
    if under_torchrun():
        return TorchElasticEnvironment()
    return SLURMEnvironment(auto_requeue=False) if config.name == "slurm" else LightningEnvironment()


def _silence() -> None:
    """Lightning's advice on training does not concern a run that only predicts."""
    for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"lightning(\.|_)")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*across ranks is zero.*")
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
