"""Compute a store of contact maps and Jacobians: `python -m plmjac.predict +dataset=pdb ...`.

Checks the configuration, builds the parts, runs the loop, and tells the truth by the exit code. Heavy imports wait
until the signals are in hand and the configuration is known to be good.
"""

import errno
import importlib.metadata
import json
import logging
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from plmjac import interruption

if __name__ == "__main__":
    interruption.install_for_start()  # before the imports below, which take their time

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator

from plmjac.config import DONE, SOME_FAILED, Config, UsageError, nearest, options, parse, run
from plmjac.inference.settings import LoggerSettings, TrainerSettings

if TYPE_CHECKING:
    from plmjac.datasets import Dataset
    from plmjac.inference.datamodule import Request
    from plmjac.inference.module import JacobianModule
    from plmjac.models import LanguageModel

log = logging.getLogger("plmjac.predict")

Keep = Literal["contacts", "logits", "jacobian", "contact_head"]


class SubstitutionsGroup(BaseModel):
    """What each position is set to; see conf/substitutions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["all"]


class ModelGroup(BaseModel):
    """The arguments of `plmjac.load_model` but for the device; see conf/model."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    checkpoint: Path | None = None
    seed: int = Field(0, ge=0)
    fast: bool = False
    token_dropout: bool | None = None
    bos_eos: Literal["keep", "mask"] = "keep"


class PredictConfig(BaseModel):
    """Everything a prediction run can be told, as conf/predict.yaml documents it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: dict[str, Any]
    model: ModelGroup
    substitutions: SubstitutionsGroup
    trainer: TrainerSettings
    logger: LoggerSettings = Field(discriminator="name")
    store: Path
    keep: tuple[Keep, ...]
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
    def _something_of_the_jacobian(cls, keep: tuple[Keep, ...]) -> tuple[Keep, ...]:
        if not {"contacts", "jacobian"} & set(keep):
            raise ValueError("keep must hold contacts or jacobian, which is what the forward passes are for")
        return tuple(sorted(set(keep)))


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
    return parse(PredictConfig, {**config, "store": config.get("store") or _default_store(config)})


def _default_store(config: Config) -> str:
    """runs/<dataset>_<model>.zarr, with the seed where that is not 0, so that the jobs of a sweep keep apart."""
    model = config.get("model")
    name = model.get("name") if isinstance(model, dict) else model
    seed = f"_seed{config['seed']}" if config.get("seed") else ""
    return f"runs/{config['dataset']['name']}_{name}{seed}.zarr"


def predict(config: Config) -> int:
    """Run one prediction to its end and return its exit code."""
    settings = parse_predict(config)
    log.info("dataset=%s model=%s store=%s", settings.dataset["name"], settings.model.name, settings.store)
    from plmjac.inference.datamodule import PlanDataModule, summary
    from plmjac.inference.loggers import build_logger
    from plmjac.inference.progress import Progress
    from plmjac.inference.trainer import build_trainer, is_rank_zero
    from plmjac.inference.writer import ChunkWriter

    if not is_rank_zero():
        logging.getLogger("plmjac").setLevel(logging.WARNING)
    with _user_errors():
        module, model = _module(settings)
        data = PlanDataModule(_request(settings, config, model, module))
        progress = Progress(data)
        module.on_forward = progress.advance
        logger = None
        if is_rank_zero():
            folder = Path(f"{settings.store.absolute()}-logs")
            logger = build_logger(settings.logger, run_config=config, default_dir=folder)
        code = 1
        try:
            callbacks = [ChunkWriter(data, settings.keep), progress]
            trainer = build_trainer(settings.trainer, callbacks, logger, settings.store.absolute() / "pending")
            trainer.predict(module, datamodule=data, return_predictions=False)
            if not trainer.is_global_zero:
                code = DONE
                return code
            if not data.items:
                log.info("nothing left to compute" + (" for this rank" if trainer.world_size > 1 else ""))
            rows = data.finish()
            log.info("%s: %s", settings.store, summary(rows))
            code = SOME_FAILED if any(row.status in ("failed", "skipped") for row in rows) else DONE
            return code
        finally:
            data.release()
            if logger is not None:
                logger.close(code)


def build_dataset(settings: PredictConfig) -> "Dataset":
    """The dataset that the configuration names."""
    from plmjac.datasets import build

    return build(settings.dataset["name"], **{key: value for key, value in settings.dataset.items() if key != "name"})


def _module(settings: PredictConfig) -> "tuple[JacobianModule, LanguageModel]":
    """The model that the configuration names, on the CPU (Lightning moves it), in the module that runs it."""
    from plmjac.inference.module import JacobianModule
    from plmjac.jacobian import all_letters
    from plmjac.models import load_model
    from plmjac.store import SavedRows

    try:
        model = load_model(**settings.model.model_dump())
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    readouts = set(settings.keep) - {"contacts", "jacobian"}
    if missing := readouts - model.readouts:
        raise UsageError(
            f"keep={sorted(missing)}: model {model.name} has no such readout; it has {sorted(model.readouts)}"
        )
    module = JacobianModule(
        model,
        letters=all_letters(),
        readouts=readouts,
        max_tokens=settings.max_tokens,
        threads=settings.threads,
        saved=SavedRows(settings.store),
    )
    return module, model


def _request(settings: PredictConfig, config: Config, model: "LanguageModel", module: "JacobianModule") -> "Request":
    """What determines the store's bytes (identity), what is written down besides (details), and the input."""
    from plmjac.alphabet import AMINO_ACIDS
    from plmjac.inference.datamodule import Request
    from plmjac.inference.module import DEFAULT_MAX_TOKENS
    from plmjac.inference.trainer import device_kind, threads_per_rank
    from plmjac.workplan import forwards

    dataset = build_dataset(settings)
    device = device_kind(settings.trainer)
    identity = {
        "kind": "jacobian",
        "model": {"name": model.name, "weights_sha256": model.weights_sha256, **_variant(settings)},
        "keep": list(settings.keep),
        "substitutions": settings.substitutions.name,
        "rows_per_chunk": settings.rows_per_chunk,
        "dtype": "float32",
        "alphabet": AMINO_ACIDS,
        "sign": "mutant - wild type",
    }
    run_facts = {
        "device": device,
        "max_tokens": settings.max_tokens or DEFAULT_MAX_TOKENS[device],
        "threads": settings.threads or threads_per_rank(),
    }
    architecture = model.architecture
    return Request(
        records=lambda: dataset,
        store=settings.store,
        identity=identity,
        details={"run": run_facts, "config": _jsonable(config), "versions": versions()},
        cost=lambda length: float(forwards(length) * architecture.flops(length)),
        max_length=settings.max_length,
        rows_per_chunk=settings.rows_per_chunk,
    )


def _variant(settings: PredictConfig) -> dict[str, Any]:
    """What else of the model's settings changes its numbers."""
    return settings.model.model_dump(include={"fast", "token_dropout", "bos_eos"})


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    names = ("plmjac", "torch", "fair-esm", "numpy", "zarr", "lightning")
    return {"python": platform.python_version(), **{name: _version(name) for name in names}}


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _jsonable(config: Config) -> Config:
    return dict(json.loads(json.dumps(config, default=str)))


@contextmanager
def _user_errors() -> Iterator[None]:
    """Errors that are the user's to mend, raised anywhere below, become one sentence and exit code 2."""
    from plmjac.datasets import InputError
    from plmjac.inference.settings import LaunchError
    from plmjac.store import StoreError

    try:
        yield
    except (InputError, StoreError, LaunchError) as error:
        raise UsageError(str(error)) from error


def main() -> None:
    """The entry point; ends the process with the exit code of design.md section 2."""
    interruption.install()
    try:
        code = run("predict", predict, added_groups=["dataset"])
    except interruption.Interrupted as signal:
        interruption.end(f"interrupted by {signal}; nothing is lost, run the same command again to resume")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        interruption.end(f"stopped: {error}. Nothing is lost; make room and run the same command again to resume")
    sys.exit(code)


if __name__ == "__main__":
    main()
