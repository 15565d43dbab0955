"""Compute a store of contact maps and Jacobians: `python -m plmjac.predict +dataset=pdb ...`.

Checks the configuration, builds the parts, runs the loop, and tells the truth by the exit code. Heavy imports wait
until the signals are in hand and the configuration is known to be good.
"""

import errno
import importlib.metadata
import inspect
import json
import logging
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, field_validator

from plmjac import interruption
from plmjac.config import DONE, SOME_FAILED, Config, UsageError, nearest, options, parse, run
from plmjac.inference.settings import TrainerSettings

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


class PredictConfig(BaseModel):
    """Everything a prediction run can be told, as conf/predict.yaml documents it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dataset: dict[str, Any]
    model: dict[str, Any]
    substitutions: SubstitutionsGroup
    trainer: TrainerSettings
    logger: dict[str, Any]
    store: Path
    keep: tuple[Keep, ...]
    max_length: PositiveInt | None
    seed: int = Field(ge=0)
    max_tokens: PositiveInt | None
    threads: PositiveInt | None
    rows_per_chunk: PositiveInt | None

    @field_validator("keep")
    @classmethod
    def _something_of_the_jacobian(cls, keep: tuple[Keep, ...]) -> tuple[Keep, ...]:
        if not {"contacts", "jacobian"} & set(keep):
            raise ValueError("keep must hold contacts or jacobian, which is what the forward passes are for")
        return tuple(sorted(set(keep)))


def parse_predict(config: Config) -> PredictConfig:
    """Check a prediction's configuration. Raises UsageError; without a dataset it lists those there are."""
    names = options("dataset")
    if "dataset" not in config:
        wrong = [key for key in config if key not in PredictConfig.model_fields]
        hint = f" ({wrong[0]!r} is no key; {nearest(wrong[0], PredictConfig.model_fields)})" if wrong else ""
        raise UsageError(f"which dataset?{hint} Add one of: " + "  ".join(f"+dataset={name}" for name in names))
    if not isinstance(config["dataset"], dict):
        raise UsageError(f"there is no dataset {config['dataset']!r}; {nearest(str(config['dataset']), names)}")
    store = config["store"] or f"runs/{config['dataset'].get('name')}_{config['model'].get('name')}.zarr"
    return parse(PredictConfig, {**config, "store": store})


def predict(config: Config) -> int:
    """Run one prediction to its end and return its exit code."""
    settings = parse_predict(config)
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
            folder = settings.store.with_name(f"{settings.store.name}-logs").absolute()
            logger = build_logger(settings.logger, run_config=config, default_dir=folder)
        code = 1
        try:
            callbacks = [ChunkWriter(data, settings.keep), progress]
            trainer = build_trainer(settings.trainer, callbacks, logger, settings.store.absolute() / "pending")
            trainer.predict(module, datamodule=data, return_predictions=False)
            if not trainer.is_global_zero:
                code = DONE
                return code
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

    known = inspect.signature(load_model).parameters.keys() - {"device"}
    for key in settings.model:
        if key not in known:
            raise UsageError(f"there is no key model.{key}; {nearest(key, known)}")
    try:
        model = load_model(**settings.model)
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
    variant = {key: value for key, value in settings.model.items() if key in ("fast", "token_dropout", "bos_eos")}
    identity = {
        "kind": "jacobian",
        "model": {"name": model.name, "weights_sha256": model.weights_sha256, **variant},
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
    from plmjac.store import StoreError

    try:
        yield
    except (InputError, StoreError) as error:
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
