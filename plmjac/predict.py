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
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from plmjac import interruption

if __name__ == "__main__":
    interruption.install_for_start()  # before the imports below, which take their time
    # Threads that wait spin by default; with any other busy process on the machine (a second rank) that costs a factor
    # of three to five. Alone it makes no difference. Read by OpenMP when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from plmjac.config import DONE, SOME_FAILED, Config, UsageError, run
from plmjac.inference.settings import is_only_rank, is_rank_zero, under_torchrun
from plmjac.predict_settings import PredictConfig, parse_predict

if TYPE_CHECKING:
    from plmjac.attention import Head
    from plmjac.datasets import Dataset
    from plmjac.inference.datamodule import PlanDataModule
    from plmjac.inference.module import JacobianModule
    from plmjac.inference.preparation import Preparation, Request
    from plmjac.inference.progress import Progress
    from plmjac.inference.recovery import RecoveryModule, RecoveryWriter
    from plmjac.inference.writer import ChunkWriter
    from plmjac.models import LanguageModel, Precision

log = logging.getLogger("plmjac.predict")


def predict(config: Config) -> int:
    """Run one prediction to its end and return its exit code."""
    settings = parse_predict(config)
    log.info("dataset=%s model=%s store=%s", settings.dataset["name"], settings.model.name, settings.store)
    from plmjac.inference.device import processes
    from plmjac.inference.preparation import Preparation, summary

    if not is_rank_zero():
        logging.getLogger("plmjac").setLevel(logging.WARNING)
    with _user_errors():
        processes(settings.trainer)  # a launch that is refused leaves no store behind, and waits for no weights
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
    from plmjac.inference.progress import Progress
    from plmjac.inference.trainer import build_trainer

    data = PlanDataModule(preparation)
    progress = Progress(data)
    parts = _jacobian_loop if settings.recovery is None else _recovery_loop
    module, writer = parts(settings, model, data, progress)
    logger, code = None, 1
    if is_rank_zero():
        folder = Path(f"{settings.store.absolute()}-logs")
        logger = build_logger(settings.logger, run_config=_logged(config, preparation.request), default_dir=folder)
    try:
        trainer = build_trainer(settings.trainer, [writer, progress], logger, settings.store.absolute() / "pending")
        trainer.predict(module, datamodule=data, return_predictions=False)
        code = SOME_FAILED if module.failed else DONE
        return trainer.is_global_zero
    finally:
        if logger is not None:
            logger.close(code)


def _logged(config: Config, request: "Request") -> dict[str, Any]:
    """What a logger is told of a run: its configuration, versions, and what the store says of itself (weights hash)."""
    return {**config, "versions": request.details["versions"], "identity": request.identity}


def _jacobian_loop(
    settings: PredictConfig, model: "LanguageModel", data: "PlanDataModule", progress: "Progress"
) -> "tuple[JacobianModule, ChunkWriter]":
    """What computes chunks of Jacobians, and what writes them."""
    from plmjac.inference.module import JacobianModule
    from plmjac.inference.writer import ChunkWriter
    from plmjac.store import SavedRows

    module = JacobianModule(
        model,
        substitutions=settings.substitutions,
        readouts=set(settings.keep) - {"contacts", "jacobian"},
        heads=_heads(settings, model),
        max_tokens=settings.max_tokens,
        threads=settings.threads,
        saved=SavedRows(settings.store),
        on_forward=progress.advance,
    )
    return module, ChunkWriter(data, settings.keep)


def _recovery_loop(
    settings: PredictConfig, model: "LanguageModel", data: "PlanDataModule", progress: "Progress"
) -> "tuple[RecoveryModule, RecoveryWriter]":
    """What masks proteins and reads their contacts, and what writes them."""
    from plmjac.inference.annotations import annotations
    from plmjac.inference.masking import MaskingExperiment
    from plmjac.inference.recovery import RecoveryModule, RecoveryWriter

    assert settings.recovery is not None
    module = RecoveryModule(
        MaskingExperiment(model, settings.recovery),
        annotations=annotations(settings.recovery.segments, data.request.records()),
        max_tokens=settings.max_tokens,
        threads=settings.threads,
        on_forward=progress.advance_share,
    )
    return module, RecoveryWriter(data)


def build_dataset(settings: PredictConfig) -> "Dataset":
    """The dataset that the configuration names."""
    from plmjac.datasets import build

    return build(settings.dataset["name"], **{key: value for key, value in settings.dataset.items() if key != "name"})


def _model(settings: PredictConfig) -> "LanguageModel":
    """The model that the configuration names, able to give what is to be kept.

    On the CPU, from where Lightning moves it; if it is to be compiled, on the device that it is compiled for.
    """
    from plmjac.inference.device import local_device, threads_per_rank
    from plmjac.models import load_model

    if settings.model.compiled:
        import torch

        torch.set_num_threads(settings.threads or threads_per_rank())  # what is compiled holds for so many
    try:
        device = local_device(settings.trainer) if settings.model.compiled else "cpu"
        model = load_model(**_model_options(settings), device=device)
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error
    if settings.recovery is not None:
        try:
            settings.recovery.check_readouts(model.readouts, model.name)
        except ValueError as error:
            raise UsageError(str(error)) from error
        return model
    if missing := set(settings.keep) - {"contacts", "jacobian", "attention_heads"} - model.readouts:
        raise UsageError(
            f"keep={sorted(missing)}: model {model.name} has no such readout; it has {sorted(model.readouts)}"
        )
    return model


def _heads(settings: PredictConfig, model: "LanguageModel") -> "tuple[Head, ...] | None":
    """The attention heads in the file that `heads` names, which must have been chosen for these weights."""
    from plmjac.attention import read_heads

    try:
        return read_heads(settings.heads, model.weights_sha256, model.name).heads if settings.heads else None
    except ValueError as error:
        raise UsageError(str(error)) from error


def _request(settings: PredictConfig, config: Config, model: "LanguageModel") -> "Request":
    """What determines the store's bytes (identity), what is written down besides (details), and the input."""
    from plmjac.alphabet import AMINO_ACIDS
    from plmjac.inference.device import device_kind, threads_per_rank
    from plmjac.inference.preparation import Request

    dataset = build_dataset(settings)
    device = device_kind(settings.trainer)
    identity = {
        "model": {"name": model.name, "weights_sha256": model.weights_sha256, **_variant(settings), **model.facts},
        "keep": list(settings.keep),
        "dtype": "float32",
        "alphabet": AMINO_ACIDS,
    }
    run_facts = {
        "device": device,
        "max_tokens": settings.max_tokens or _batch_size(settings, model, device),
        "threads": settings.threads or threads_per_rank(),
    }
    request = Request(
        records=lambda: dataset,
        store=settings.store,
        identity=identity,
        details={"run": run_facts, "config": _jsonable(config), "versions": versions()},
        max_length=min((each for each in (settings.max_length, model.max_length) if each is not None), default=None),
    )
    return (_jacobian_request if settings.recovery is None else _recovery_request)(request, settings, model)


def _jacobian_request(request: "Request", settings: PredictConfig, model: "LanguageModel") -> "Request":
    """What a run of Jacobians adds: what is substituted, and how a protein is cut into work items."""
    from plmjac.workplan import forwards

    per_residue, flops = settings.substitutions.forwards_per_residue, model.flops
    identity = {
        **request.identity,
        "kind": "jacobian",
        "substitutions": settings.substitutions.identity(),
        "rows_per_chunk": settings.rows_per_chunk,
        "sign": "mutant - wild type",
    }
    if heads := _heads(settings, model):
        identity["heads"] = [list(head) for head in heads]
    return replace(
        request,
        identity=identity,
        cost=lambda protein: float(forwards(len(protein), per_residue) * flops(len(protein))),
        rows_per_chunk=settings.rows_per_chunk,
        num_letters=settings.substitutions.num_letters,
        forwards_per_residue=per_residue,
    )


def _recovery_request(request: "Request", settings: PredictConfig, model: "LanguageModel") -> "Request":
    """What a recovery run adds: what is masked and watched. A protein is one work item."""
    from plmjac.inference.annotations import annotations

    assert settings.recovery is not None
    known = annotations(settings.recovery.segments, request.records())
    return replace(
        request,
        identity={**request.identity, "kind": "recovery", **settings.recovery.identity()},
        cost=settings.recovery.cost(model.flops, known),
        rows_per_chunk=sys.maxsize,
    )


def _batch_size(settings: PredictConfig, model: "LanguageModel", device: Literal["cpu", "cuda"]) -> int:
    """Tokens of a forward for a store that is about to be begun; one that is there says what it was begun with."""
    from plmjac.inference.batch_size import max_tokens_for
    from plmjac.inference.device import DEFAULT_MAX_TOKENS, threads_per_rank

    if not is_rank_zero() or (settings.store / "zarr.json").exists():
        return DEFAULT_MAX_TOKENS[device]
    return max_tokens_for(model, str(_variant(settings)), device, settings.threads or threads_per_rank())


def _variant(settings: PredictConfig) -> dict[str, Any]:
    """What else of the model's settings changes its numbers."""
    from plmjac.inference.device import device_kind
    from plmjac.models.registry import identity

    return identity(settings.model.name, settings.model.model_dump(), device_kind(settings.trainer))


def _model_options(settings: PredictConfig) -> dict[str, Any]:
    """The settings of the model, with its precision on the device of this run."""
    from plmjac.inference.device import device_kind
    from plmjac.models.registry import options_of

    chosen = settings.model.model_dump()
    if "precision" in options_of(settings.model.name):
        chosen["precision"] = precision_on(device_kind(settings.trainer), settings)
    return chosen


def precision_on(kind: Literal["cpu", "cuda"], settings: PredictConfig) -> "Precision":
    """The arithmetic of matrix products on a kind of device."""
    from plmjac.models import registry

    try:
        return registry.precision_on(settings.model.name, settings.model.model_dump(), kind)
    except ValueError as error:
        raise UsageError(str(error)) from error


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
        code = run("predict", predict, added_groups=["dataset", "experiment"])
    except interruption.Interrupted as signal:
        interruption.end(f"interrupted by {signal}; nothing is lost, run the same command again to resume")
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            interruption.end(f"stopped: {error}. Nothing is lost; make room and run the same command again to resume")
        if is_only_rank():
            raise
        traceback.print_exc()
        code = 1
    if not is_only_rank():
        # Tearing down a process group at exit, with peers that come and go, can abort a process whose work is done, and
        # with NCCL hang one that failed.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
