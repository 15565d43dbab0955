"""Compute a store of contact maps and Jacobians: `python -m plmjac.predict +dataset=pdb ...`.

Checks the configuration, builds the parts, runs the loop, and tells the truth by the exit code. Heavy imports wait
until the signals are in hand and the configuration is known to be good.
"""

import errno
import importlib.metadata
import json
import logging
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from plmjac import interruption

if __name__ == "__main__":
    interruption.install_for_start()  # before the imports below, which take their time
    # Threads that wait spin by default; with any other busy process on the machine (a second rank) that costs a factor
    # of three to five. Alone it makes no difference. Read by OpenMP when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator

from plmjac.config import DONE, SOME_FAILED, Config, UsageError, nearest, options, parse, run
from plmjac.inference.settings import LoggerSettings, TrainerSettings, is_only_rank, is_rank_zero, under_torchrun

if TYPE_CHECKING:
    from plmjac.datasets import Dataset
    from plmjac.inference.preparation import Preparation, Request
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
    from plmjac.inference.preparation import Preparation, summary

    if not is_rank_zero():
        logging.getLogger("plmjac").setLevel(logging.WARNING)
    with _user_errors():
        model = _model(settings)
        preparation = Preparation(_request(settings, config, model))
        try:
            if is_only_rank():
                preparation.prepare()
            if is_only_rank() and not preparation.open_rows:
                log.info("nothing left to compute")
            elif not _compute(settings, config, model, preparation):
                return DONE  # rank 0 speaks for all
            rows = preparation.finish()
        finally:
            preparation.release()
    log.info("%s: %s", settings.store, summary(rows))
    return SOME_FAILED if any(row.status in ("failed", "skipped") for row in rows) else DONE


def _compute(settings: PredictConfig, config: Config, model: "LanguageModel", preparation: "Preparation") -> bool:
    """This process's share of the forward passes, through Lightning; whether it is rank 0 that comes back."""
    from plmjac.inference.datamodule import PlanDataModule
    from plmjac.inference.loggers import build_logger
    from plmjac.inference.module import JacobianModule
    from plmjac.inference.progress import Progress
    from plmjac.inference.trainer import build_trainer
    from plmjac.inference.writer import ChunkWriter
    from plmjac.jacobian import all_letters
    from plmjac.store import SavedRows

    data = PlanDataModule(preparation)
    progress = Progress(data)
    module = JacobianModule(
        model,
        letters=all_letters(),
        readouts=set(settings.keep) - {"contacts", "jacobian"},
        max_tokens=settings.max_tokens,
        threads=settings.threads,
        saved=SavedRows(settings.store),
        on_forward=progress.advance,
    )
    logger, code = None, 1
    if is_rank_zero():
        folder = Path(f"{settings.store.absolute()}-logs")
        logger = build_logger(settings.logger, run_config=config, default_dir=folder)
    try:
        callbacks = [ChunkWriter(data, settings.keep), progress]
        trainer = build_trainer(settings.trainer, callbacks, logger, settings.store.absolute() / "pending")
        trainer.predict(module, datamodule=data, return_predictions=False)
        code = SOME_FAILED if module.failed else DONE
        return trainer.is_global_zero
    finally:
        if logger is not None:
            logger.close(code)


def build_dataset(settings: PredictConfig) -> "Dataset":
    """The dataset that the configuration names."""
    from plmjac.datasets import build

    return build(settings.dataset["name"], **{key: value for key, value in settings.dataset.items() if key != "name"})


def _model(settings: PredictConfig) -> "LanguageModel":
    """The model that the configuration names, on the CPU (Lightning moves it), able to give what is to be kept."""
    from plmjac.models import load_model

    try:
        model = load_model(**settings.model.model_dump())
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    if missing := set(settings.keep) - {"contacts", "jacobian"} - model.readouts:
        raise UsageError(
            f"keep={sorted(missing)}: model {model.name} has no such readout; it has {sorted(model.readouts)}"
        )
    return model


def _request(settings: PredictConfig, config: Config, model: "LanguageModel") -> "Request":
    """What determines the store's bytes (identity), what is written down besides (details), and the input."""
    from plmjac.alphabet import AMINO_ACIDS
    from plmjac.inference.device import DEFAULT_MAX_TOKENS, device_kind, threads_per_rank
    from plmjac.inference.preparation import Request
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
    if under_torchrun():
        interruption.end_with_parent()
    try:
        code = run("predict", predict, added_groups=["dataset"])
    except interruption.Interrupted as signal:
        interruption.end(f"interrupted by {signal}; nothing is lost, run the same command again to resume")
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        interruption.end(f"stopped: {error}. Nothing is lost; make room and run the same command again to resume")
    if under_torchrun():
        # Tearing down a process group at exit, with peers that come and go, can abort a process whose work is done.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
