"""The settings of a prediction, checked: the keys of conf/predict.yaml and of its groups.

The only schema; `--help`, the sentences about mistakes and the tests of conf/ come from it. Imports no torch, so that a
mistake is answered at once. Each kind of run checks which keys go together (`_check_jacobian`, `_check_recovery`).
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, PositiveFloat, PositiveInt, field_validator, model_validator

from plmjac import readouts
from plmjac.config import Config, Keys, options, parse
from plmjac.files import UsageError, nearest
from plmjac.inference.tasks import TASKS, TaskSpec, register_task
from plmjac.limit import Limit, parse_positions
from plmjac.models.registry import check_options
from plmjac.readouts import READOUTS
from plmjac.schedules import Flanking, Random, RandomAvoiding
from plmjac.segments import AnySegments, Listed, Single
from plmjac.substitutions import Substitutions
from plmjac.workplan import Shard


class ModelSettings(Keys):
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
    def _declared(self) -> "ModelSettings":
        check_options(self.name, self.model_dump(exclude={"name"}))
        return self


class TrainerSettings(Keys):
    """Devices and processes; conf/trainer says what each choice is for."""

    name: Literal["auto", "cpu", "gpu", "ddp", "slurm"]
    accelerator: Literal["auto", "cpu", "gpu"]
    devices: PositiveInt | Literal["auto"]
    num_nodes: PositiveInt | Literal["auto"]


class NoLogger(Keys):
    """`logger=none`."""

    name: Literal["none"]


class CsvLogger(Keys):
    """`logger=csv`."""

    name: Literal["csv"]
    dir: Path | None


class WandbLogger(Keys):
    """`logger=wandb`."""

    name: Literal["wandb"]
    project: str
    entity: str | None
    group: str | None
    tags: tuple[str, ...]
    run_name: str | None
    mode: Literal["auto", "online", "offline", "disabled"]
    dir: Path | None


LoggerSettings = NoLogger | CsvLogger | WandbLogger


class FullSchedule(Keys):
    """Nothing is masked: the ordinary run; see conf/schedule."""

    name: Literal["full"]


class PredictSettings(Keys):
    """All settings of a prediction; conf/predict.yaml documents them."""

    dataset: dict[str, Any]
    model: ModelSettings
    substitutions: Substitutions = Field(discriminator="name")
    schedule: Any
    segments: AnySegments | None = Field(None, discriminator="name")
    readout: Literal["contact_head", "jacobian"] | None
    trainer: TrainerSettings
    logger: LoggerSettings = Field(discriminator="name")
    store: Path
    shard: Shard | None = None
    keep: tuple[str, ...]
    heads: Path | None
    max_length: PositiveInt | None
    too_long: Literal["skip", "error", "crop", "window"] = "skip"
    positions: tuple[int, int] | None = None
    seed: int = Field(ge=0)
    max_tokens: PositiveInt | None
    threads: PositiveInt | None
    rows_per_chunk: PositiveInt | None
    couplings_per_residue: PositiveFloat | None = None

    @field_validator("schedule", mode="plain")
    @classmethod
    def _by_its_task(cls, schedule: Any) -> Any:
        """The schedule, checked by the schema of its kind of run."""
        name = schedule.get("name") if isinstance(schedule, dict) else None
        if name not in TASKS:
            raise ValueError(f"there is no such schedule; {nearest(str(name), TASKS)}")
        return TASKS[name].schema.model_validate(schedule)

    @field_validator("shard", mode="before")
    @classmethod
    def _one_of_several(cls, shard: Any) -> Any:
        return Shard.parse(str(shard)) if shard is not None else None

    @field_validator("positions", mode="before")
    @classmethod
    def _a_range(cls, positions: Any) -> Any:
        return parse_positions(str(positions)) if positions is not None else None

    @field_validator("store", mode="before")
    @classmethod
    def _a_folder(cls, store: Any) -> Any:
        if scheme := re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", str(store)):
            raise ValueError(
                f"a store is a folder of this machine, not {scheme[0]}...: its files are put in place by renaming, "
                "which object stores do not have. Write it to a disk and copy it when it is complete"
            )
        return store

    @field_validator("keep", mode="before")
    @classmethod
    def _one_or_several(cls, keep: Any) -> Any:
        return (keep,) if isinstance(keep, str) else keep

    @field_validator("keep")
    @classmethod
    def _known(cls, keep: tuple[str, ...]) -> tuple[str, ...]:
        known = [name for name, spec in READOUTS.items() if spec.kinds]
        for name in sorted(set(keep).difference(known)):
            raise ValueError(f"there is no readout {name!r}; {nearest(name, known)}")
        return tuple(sorted(set(keep)))

    @model_validator(mode="after")
    def _go_together(self) -> "PredictSettings":
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
        if self.couplings_per_residue is not None and "couplings" not in self.keep:
            raise ValueError("couplings_per_residue has no effect; add couplings to keep")
        if "couplings" in self.keep and self.substitutions.name != "all":
            raise ValueError("keep=couplings needs all 20 amino acids at each position; use substitutions=all")
        TASKS[self.schedule.name].check(self)
        return self

    @property
    def compiles_itself(self) -> bool:
        """True where a run on a GPU decides whether to compile: `model.compiled` is unset and forwards read no maps."""
        return self.model.fast and self.model.compiled is None and TASKS[self.schedule.name].may_compile(self)

    def limit(self, model_length: int | None) -> Limit:
        """The part of a protein that is computed, given the model's limit. Raises UsageError with none to cut at."""
        limit = Limit(self.max_length, model_length, self.too_long, self.positions)
        if limit.length is None and self.too_long != "skip":
            raise UsageError(
                f"too_long={self.too_long} has no effect without a limit; give max_length=1022, for instance"
            )
        return limit


def _check_jacobian(settings: PredictSettings) -> None:
    """Every forward needs a use, and no key may be without effect. Raises ValueError with the remedy."""
    keep, substitutes = settings.keep, settings.substitutions.name != "none"
    others = set(keep).difference(readouts.keepable("jacobian"))
    if settings.segments is not None or settings.readout is not None or others:
        names = ", ".join(["segments", "readout", *(f"keep={name}" for name in sorted(others or {"blocks"}))])
        raise ValueError(f"{names} have no effect with schedule=full; add schedule=flanking")
    if settings.too_long == "window" and (whole := sorted({"couplings", "jacobian_int8"}.intersection(keep))):
        raise ValueError(f"keep={whole} works on whole proteins only; with too_long=window keep contacts or jacobian")
    if settings.positions and "couplings" in keep:
        raise ValueError("keep=couplings works on whole proteins only; with positions keep contacts or jacobian")
    if settings.positions and not substitutes:
        raise ValueError("positions has no effect with substitutions=none, which mutates none")
    of_maps = [name for name in keep if {"contact_head", "attention"} & set(READOUTS[name].reads)]
    if settings.model.compiled and not substitutes and of_maps:
        raise ValueError(f"model.compiled has no effect where {', '.join(of_maps)} is read and no mutant made")
    of_mutants = [name for name in keep if READOUTS[name].needs_mutants]
    if not substitutes and of_mutants:
        names = ", ".join(of_mutants)
        raise ValueError(f"substitutions=none makes no mutants, and {names} need them; keep=[logits], for instance")
    if substitutes and not of_mutants:
        raise ValueError(
            "keep must hold contacts or jacobian (or representation), which is what the forward passes are for; "
            "for what the wild type alone can give add substitutions=none"
        )


def _check_recovery(settings: PredictSettings) -> None:
    """Recovery has keys of its own, and the Jacobian's have no effect on it. Raises ValueError with the remedy."""
    name, segments = settings.schedule.name, settings.segments
    if segments is None:
        raise ValueError(f"which segments? Add one of: {'  '.join(f'segments={o}' for o in options('segments'))}")
    if settings.model.compiled and settings.readout != "jacobian":
        raise ValueError("model.compiled has no effect on readout=contact_head, which reads attention maps")
    if others := sorted(set(settings.keep).difference(readouts.keepable("recovery"))):
        raise ValueError(f"keep={others}: with a schedule keep blocks or contacts (recoveries always are)")
    is_single = isinstance(segments, Single) or (isinstance(segments, Listed) and segments.kind == "single")
    if is_single and getattr(settings.schedule, "direction", "") in ("inward", "both"):
        raise ValueError(f"schedule.direction={settings.schedule.direction} needs pairs of windows; use outward")
    if settings.too_long == "window":
        raise ValueError(f"too_long=window has no effect with schedule={name}; use skip, error or crop")
    if settings.rows_per_chunk is not None or settings.substitutions.name != "all" or settings.positions:
        raise ValueError(f"rows_per_chunk, substitutions and positions have no effect with schedule={name}")


_JACOBIAN = "plmjac.inference.jacobian_task:build"
_RECOVERY = "plmjac.inference.recovery_task:build"
_FULL = TaskSpec(FullSchedule, _JACOBIAN, "jacobian", ("contacts", "logits"), _check_jacobian,
                 may_compile=lambda settings: settings.substitutions.name != "none")  # fmt: skip
_MASKED = TaskSpec(RandomAvoiding, _RECOVERY, "recovery", ("blocks",), _check_recovery,
                   may_compile=lambda settings: settings.readout == "jacobian")  # fmt: skip
register_task("full", _FULL)
register_task("flanking", replace(_MASKED, schema=Flanking))
register_task("random", replace(_MASKED, schema=Random))
register_task("random_avoiding", _MASKED)
register_task("random_avoiding_30", _MASKED)  # what it was called until 2026-11-26


def parse_predict(config: Config) -> PredictSettings:
    """Check a prediction's configuration. Raises UsageError; without a dataset it lists those there are."""
    names = options("dataset")
    listed = "  ".join(f"+dataset={name}" for name in names)
    if "dataset" not in config:
        wrong = [key for key in config if key not in PredictSettings.model_fields]
        hint = f" ({wrong[0]!r} is no key; {nearest(wrong[0], PredictSettings.model_fields)})" if wrong else ""
        raise UsageError(f"which dataset?{hint} Add one of: {listed}")
    if not isinstance(config["dataset"], dict):
        raise UsageError(f"there is no dataset {config['dataset']!r}; {nearest(str(config['dataset']), names)}")
    if "name" not in config["dataset"]:
        raise UsageError(f"which dataset do these keys belong to? Add one of: {listed}")
    task = TASKS.get(_option(config, "schedule"), TASKS["full"])
    keep = config.get("keep") if config.get("keep") is not None else list(task.default_keep)
    store = config.get("store") or _default_store(config)
    return parse(PredictSettings, {**config, "store": store, "keep": keep})


def _default_store(config: Config) -> str:
    """runs/<dataset>_<model>.zarr, with schedule, segments and seed where they are set, as in sweeps."""
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
