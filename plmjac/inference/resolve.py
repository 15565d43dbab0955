"""From settings to a `Run`: the one place that decides device, rank, precision, batch size, threads, weights and store.

What the rest needs to know of a run is in the `Run`; nothing downstream asks the machine again.
"""

import importlib.metadata
import json
import logging
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch

from plmjac.alphabet import AMINO_ACIDS
from plmjac.config import Config
from plmjac.datasets import Dataset
from plmjac.files import UsageError
from plmjac.inference.batch_size import max_tokens_for
from plmjac.inference.launch import DEFAULT_MAX_TOKENS, Kind, Launch, LaunchError, threads_per_rank
from plmjac.inference.rates import compiling_saves
from plmjac.inference.settings import PredictSettings, TrainerSettings
from plmjac.inference.tasks import Task, build_task
from plmjac.limit import Limit
from plmjac.models import LanguageModel, Precision, load_model, registry
from plmjac.records import Filtered, Protein, Rejected

log = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Run:
    """One prediction with every decision made.

    `identity` is all that determines the bytes of a protein, `details` what the store records besides. `max_tokens` and
    `threads` are those of a store that is begun now.
    """

    settings: PredictSettings
    launch: Launch
    dataset: Dataset
    task: Task
    model: LanguageModel
    limit: Limit
    device: str
    threads: int
    max_tokens: int
    identity: dict[str, Any]
    details: dict[str, Any]

    @property
    def kind(self) -> Kind:
        """The kind of device: cpu or cuda."""
        return "cpu" if self.device == "cpu" else "cuda"

    def cost(self, protein: Protein) -> float:
        """Floating point operations of a protein."""
        return cost_of(protein, self.task, self.limit, self._flops)

    @cached_property
    def _flops(self) -> Callable[[int], int]:
        """Operations of one forward by length, asked of the model once a length: a plan may have 10^6 records."""
        return cache(self.model.flops)

    def details_of(self, records: Iterable[Protein | Rejected | Filtered]) -> dict[str, Any]:
        """The details of a store that is begun now with these records.

        On a GPU, where nobody chose, a run that is long enough to win back the time compiles its model, and takes what
        was measured to be faster on this card (models/esm2_fused.py); both are recorded.
        """
        if not (self.settings.compiles_itself and self.kind == "cuda"):
            return self.details
        flops = sum(self.cost(record) for record in records if isinstance(record, Protein))
        run = {**self.details["run"], "compiled": compiling_saves(flops) and self.model.use_compiled(True)}
        if candidates := self.model.take(None):
            run["candidates"] = candidates
        return {**self.details, "run": run}

    def limits(self, recorded: Mapping[str, Any]) -> tuple[int, int]:
        """Tokens of a forward and CPU threads as the store's first run recorded them, so that bytes stay the same.

        A model that the first run compiled, or did not, is compiled here or not, with the candidates that it took.

        Where this run is on another kind of device, or was told otherwise, its own: then results agree within the
        tolerance of float32 and no closer, which is said.
        """
        asked, kind = self.settings, self.kind
        threads = asked.threads or int(recorded["threads"])
        same_kind = recorded["device"] == kind
        tokens = asked.max_tokens or (int(recorded["max_tokens"]) if same_kind else DEFAULT_MAX_TOKENS[kind])
        here: dict[str, Any] = {"device": kind, "max_tokens": tokens, "threads": threads if kind == "cpu" else None}
        if "compiled" in recorded and same_kind:
            here["compiled"] = self.model.use_compiled(bool(recorded["compiled"]))
        if "candidates" in recorded and same_kind:
            here["candidates"] = self.model.take(recorded["candidates"])
        if changed := [f"{key}={value}" for key, value in here.items() if value not in (None, recorded[key])]:
            log.warning(
                "the store was begun with %s, this run goes on with %s: results agree to 1e-5, not to the last bit",
                ", ".join(f"{key}={value}" for key, value in recorded.items()), ", ".join(changed),
            )  # fmt: skip
        return tokens, threads


def resolve(settings: PredictSettings, dataset: Dataset, config: Config, launch: Launch) -> Run:
    """Decide everything about a prediction and load its model. Raises UsageError for what cannot be done as asked.

    The model is on the CPU, from where Lightning moves it; if it is or may be compiled, on the device for that.
    """
    task = build_task(settings, dataset)
    device = device_of(settings.trainer, launch)
    kind: Kind = "cpu" if device == "cpu" else "cuda"
    threads = settings.threads or threads_per_rank(launch)
    model = _model(settings, kind, device, threads)
    limit = settings.limit(model.max_length)
    task.check(model)
    task.limit(limit)
    max_tokens = settings.max_tokens or _batch_size(settings, model, kind, launch, threads)
    identity = {
        "model": {
            "name": model.name,
            "weights_sha256": model.weights_sha256,
            **_variant(settings, kind),
            **model.facts,
        },
        "keep": list(settings.keep),
        "dtype": "float32",
        "alphabet": AMINO_ACIDS,
        **task.identity(),
        **limit.identity(),
    }
    facts = {"device": kind, "max_tokens": max_tokens, "threads": threads}
    details = {"run": facts, "config": json.loads(json.dumps(config, default=str)), "versions": versions()}
    return Run(settings, launch, dataset, task, model, limit, device, threads, max_tokens, identity, details)


def device_of(trainer: TrainerSettings, launch: Launch) -> str:
    """The device of this process, as Lightning will choose it: "cpu", or "cuda:N" with the local rank.

    Raises LaunchError where a GPU is asked for and there is none, or fewer than processes of this node.
    """
    if trainer.accelerator == "cpu":
        return "cpu"
    if not torch.cuda.is_available():
        if trainer.accelerator == "gpu":
            raise LaunchError(
                f"trainer={trainer.name} asks for a GPU, but PyTorch {torch.__version__} sees none; "
                "use trainer=cpu, or install a CUDA build of PyTorch"
            )
        return "cpu"
    if launch.local_size > (seen := torch.cuda.device_count()):
        raise LaunchError(
            f"{launch.launcher} started {launch.local_size} processes on this node, each of which sees {seen} GPUs; "
            "start as many as there are GPUs, all visible to all (with srun: --gpus-per-node, not --gpus-per-task)"
        )
    return f"cuda:{launch.local_rank}"


def cost_of(protein: Protein, task: Task, limit: Limit, flops: Callable[[int], int]) -> float:
    """Floating point operations of a protein, in windows where it is cut into these."""
    return float(task.forwards(protein.id, len(protein)) * flops(min(len(protein), limit.window or len(protein))))


def precision_on(kind: Kind, settings: PredictSettings) -> Precision:
    """The arithmetic of matrix products on a kind of device. Raises UsageError where that does not exist there."""
    try:
        return registry.precision_on(settings.model.name, settings.model.model_dump(), kind)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _model(settings: PredictSettings, kind: Kind, device: str, threads: int) -> LanguageModel:
    arguments = settings.model.model_dump()
    if "precision" in registry.options_of(settings.model.name):
        arguments["precision"] = precision_on(kind, settings)
    if settings.model.compiled:
        torch.set_num_threads(threads)  # what is compiled holds for so many
    try:
        compiles = settings.model.compiled or (settings.compiles_itself and kind == "cuda")
        return load_model(**arguments, device=device if compiles else "cpu")
    except (ValueError, OSError) as error:
        raise UsageError(str(error)) from error


def _variant(settings: PredictSettings, kind: Kind) -> dict[str, Any]:
    """The options that change the model's numbers."""
    try:
        return registry.identity(settings.model.name, settings.model.model_dump(), kind)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _batch_size(settings: PredictSettings, model: LanguageModel, kind: Kind, launch: Launch, threads: int) -> int:
    """Tokens of a forward for a store that is about to be begun; one that is there has them recorded."""
    if launch.rank or (settings.store / "zarr.json").exists():
        return DEFAULT_MAX_TOKENS[kind]
    return max_tokens_for(model, str(_variant(settings, kind)), kind, threads)


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    names = ("plmjac", "torch", "fair-esm", "numpy", "zarr", "lightning")
    return {"python": platform.python_version(), **{name: _version(name) for name in names}}


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
