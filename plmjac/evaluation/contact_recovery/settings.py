"""The keys of conf/evaluation/contact_recovery.yaml, which explains them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt


class Jump(BaseModel):
    """When a curve jumps, and when for good; see plmjac.recovery.JumpRule."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    height: PositiveFloat
    drop: PositiveFloat
    window: PositiveInt
    exceptions: NonNegativeInt


class Settings(BaseModel):
    """What counts as recovered and as a jump, what is compared with what, and how sure the numbers are."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["contact_recovery"]
    recovered: float
    jump: Jump
    reference: Literal["flanking", "random", "random_avoiding_30"]
    resamples: PositiveInt
    coverage: float = Field(gt=0, lt=1)
    seed: NonNegativeInt
    panels: NonNegativeInt
