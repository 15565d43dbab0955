"""What a prediction run can be told: the keys of conf/predict.yaml as a checked type, and which of them go together.

Knows no model and no data; a wrong key, value or combination ends here, before anything heavy is imported.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator, model_validator

from plmjac.config import Config, options, parse
from plmjac.files import UsageError, nearest
from plmjac.inference.recovery_settings import RecoverySettings
from plmjac.inference.settings import LoggerSettings, TrainerSettings
from plmjac.models.registry import check_options
from plmjac.readouts import READOUTS
from plmjac.schedules import AnySchedule
from plmjac.segments import AnyChoice
from plmjac.substitutions import Substitutions


class ModelGroup(BaseModel):
    """The arguments of `plmjac.load_model` but for the device; see conf/model. The registry knows who takes which."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str
    checkpoint: Path | None = None
    seed: int = Field(0, ge=0)
    fast: bool = True
    compiled: bool | None = None
    precision: Literal["fp32", "tf32", "fp16"] | None = None
    token_dropout: bool | None = None
    bos_eos: Literal["keep", "mask"] = "keep"

    @model_validator(mode="after")
    def _declared(self) -> "ModelGroup":
        check_options(self.name, self.model_dump(exclude={"name"}))
        return self


class FullSchedule(BaseModel):
    """Nothing is masked: the ordinary run; see conf/schedule."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["full"]


class PredictConfig(BaseModel):
    """Everything a prediction run can be told, as conf/predict.yaml documents it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: dict[str, Any]
    model: ModelGroup
    substitutions: Substitutions = Field(discriminator="name")
    schedule: FullSchedule | AnySchedule = Field(discriminator="name")
    segments: AnyChoice | None = Field(None, discriminator="name")
    readout: Literal["contact_head", "jacobian"] | None
    trainer: TrainerSettings
    logger: LoggerSettings = Field(discriminator="name")
    store: Path
    keep: tuple[str, ...]
    heads: Path | None
    max_length: PositiveInt | None
    seed: int = Field(ge=0)
    max_tokens: PositiveInt | None
    threads: PositiveInt | None
    rows_per_chunk: PositiveInt | None

    @field_validator("keep", mode="before")
    @classmethod
    def _one_or_several(cls, keep: Any) -> Any:
        return (keep,) if isinstance(keep, str) else keep

    @field_validator("keep")
    @classmethod
    def _in_order(cls, keep: tuple[str, ...]) -> tuple[str, ...]:
        known = [name for name, spec in READOUTS.items() if spec.kinds]
        for name in set(keep).difference(known):
            raise ValueError(f"there is no readout {name!r}; {nearest(name, known)}")
        return tuple(sorted(set(keep)))

    @model_validator(mode="after")
    def _every_forward_has_a_use(self) -> "PredictConfig":
        of_maps = {name for name in self.keep if {"contact_head", "attention"} & set(READOUTS[name].reads)}
        if self.recovery is not None:
            if self.model.compiled and self.recovery.readout == "contact_head":
                raise ValueError("model.compiled has no effect on readout=contact_head, which reads attention maps")
            return self
        if self.model.compiled and self.substitutions.name == "none" and of_maps:
            read = ", ".join(sorted(of_maps))
            raise ValueError(f"model.compiled has no effect where {read} is read and no mutant made")
        of_mutants = sorted(name for name in self.keep if READOUTS[name].needs_mutants)
        if self.substitutions.name == "none" and of_mutants:
            names = ", ".join(of_mutants)
            raise ValueError(f"substitutions=none makes no mutants, and {names} need them; keep=[logits], for instance")
        if self.substitutions.name != "none" and not of_mutants:
            raise ValueError(
                "keep must hold contacts or jacobian (or representation), which is what the forward passes are for; "
                "for what the wild type alone can give add substitutions=none"
            )
        return self

    @property
    def compiles_itself(self) -> bool:
        """Whether a run on a GPU may choose to compile: nobody chose, and forwards are made that read no maps."""
        if not self.model.fast or self.model.compiled is not None:
            return False
        return self.substitutions.name != "none" if self.recovery is None else self.recovery.readout == "jacobian"

    @model_validator(mode="after")
    def _heads_for_attention(self) -> "PredictConfig":
        if {"attention", "attention_heads"} <= set(self.keep):
            raise ValueError("keep attention_heads (to choose heads from) or attention (of those chosen), not both")
        if "attention" in self.keep and self.heads is None:
            raise ValueError(
                "keep=attention is the mean of the heads that a file names: heads=FILE.json. Make one from proteins "
                "with structures: keep=attention_heads substitutions=none, then "
                "`python -m plmjac.evaluate +evaluation=attention_heads store=...`"
            )
        if self.heads is not None and "attention" not in self.keep:
            raise ValueError(f"heads={self.heads} has no effect; add attention to keep")
        return self

    @model_validator(mode="after")
    def _of_one_kind(self) -> "PredictConfig":
        """Recovery has keys of its own, and the Jacobian's have no effect on it."""
        name = self.schedule.name
        if self.recovery is not None:
            self.recovery.check()
            if self.rows_per_chunk is not None or self.substitutions.name != "all":
                raise ValueError(f"rows_per_chunk and substitutions have no effect with schedule={name}")
        elif name != "full":
            raise ValueError(f"which segments? Add one of: {'  '.join(f'segments={o}' for o in options('segments'))}")
        elif self.segments is not None or self.readout is not None or "blocks" in self.keep:
            raise ValueError("segments, readout, keep=blocks have no effect with schedule=full; add schedule=flanking")
        return self

    @property
    def recovery(self) -> RecoverySettings | None:
        """What a recovery run is asked for; None where this is none."""
        if isinstance(self.schedule, FullSchedule) or self.segments is None:
            return None
        return RecoverySettings(self.schedule, self.segments, self.readout or "contact_head", self.seed, self.keep)


def parse_predict(config: Config) -> PredictConfig:
    """Check a prediction's configuration. Raises UsageError; without a dataset it lists those there are."""
    names = options("dataset")
    listed = "  ".join(f"+dataset={name}" for name in names)
    if "dataset" not in config:
        wrong = [key for key in config if key not in PredictConfig.model_fields]
        hint = f" ({wrong[0]!r} is no key; {nearest(wrong[0], PredictConfig.model_fields)})" if wrong else ""
        raise UsageError(f"which dataset?{hint} Add one of: {listed}")
    if not isinstance(config["dataset"], dict):
        raise UsageError(f"there is no dataset {config['dataset']!r}; {nearest(str(config['dataset']), names)}")
    if "name" not in config["dataset"]:
        raise UsageError(f"which dataset do these keys belong to? Add one of: {listed}")
    is_full = _option(config, "schedule") == "full"
    keep = config.get("keep") if config.get("keep") is not None else ["contacts", "logits"] if is_full else ["blocks"]
    return parse(PredictConfig, {**config, "store": config.get("store") or _default_store(config), "keep": keep})


def _default_store(config: Config) -> str:
    """runs/<dataset>_<model>.zarr, with what else tells the jobs of a sweep apart: schedule, segments, seed."""
    parts = [_option(config, "dataset"), _option(config, "model")]
    if _option(config, "schedule") != "full":
        parts.append(_option(config, "schedule"))
        parts += [name for name in (_segments_name(config),) if name != "single"]
    if config.get("seed"):
        parts.append(f"seed{config['seed']}")
    return f"runs/{'_'.join(parts)}.zarr"


def _segments_name(config: Config) -> str:
    """The option of `segments`, with the separations of pairs, so that near and far pairs have stores of their own."""
    name, segments = _option(config, "segments"), config.get("segments")
    if name != "pairs" or not isinstance(segments, dict):
        return name
    low, high = segments.get("min_separation"), segments.get("max_separation")
    return f"pairs_over_{low}" if high is None else f"pairs_{low}_{high}"


def _option(config: Config, group: str) -> str:
    """The chosen option of a config group."""
    chosen = config.get(group)
    return str(chosen.get("name") if isinstance(chosen, dict) else chosen)
