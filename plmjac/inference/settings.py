"""The `trainer` config group as a type, apart from the Trainer so that checking it does not wait for Lightning."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, PositiveInt


class TrainerSettings(BaseModel):
    """Where a run computes; conf/trainer says what each choice is for."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["auto", "cpu", "gpu", "ddp", "slurm"]
    accelerator: Literal["auto", "cpu", "gpu"]
    devices: PositiveInt | Literal["auto"]
    num_nodes: PositiveInt | Literal["auto"]
