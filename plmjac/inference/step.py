"""What both kinds of run share: batch size and threads of the store, the retry after running out of memory, failures.

A kind of run adds what it computes of a work item. An error of the data ends its protein and no other; one of the
machine ends the run.
"""

import logging
import traceback
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, Generic, TypeVar

import torch
from lightning import LightningModule

from plmjac.inference.device import DEFAULT_MAX_TOKENS
from plmjac.jacobian import mutants_per_forward
from plmjac.models import LanguageModel
from plmjac.records import Failure, WorkItem

log = logging.getLogger(__name__)

Answer = TypeVar("Answer")


class StepModule(LightningModule, Generic[Answer]):
    """Answers one work item a step; after running out of memory it goes on with half the tokens, and says so."""

    model: LanguageModel

    def __init__(self, max_tokens: int | None, threads: int | None) -> None:
        super().__init__()
        self.max_tokens = max_tokens or DEFAULT_MAX_TOKENS["cpu"]
        self.max_tokens_given = max_tokens is not None
        self.threads = threads
        self.failed: set[str] = set()

    @abstractmethod
    def compute(self, item: WorkItem) -> Answer:
        """What this kind of run computes of an item, with forwards of at most `max_tokens` tokens."""

    def setup(self, stage: str) -> None:
        """Take the store's word for batch size and threads."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        self.repeat(data.attributes["run"], self.trainer.strategy.root_device.type)

    def repeat(self, run: Mapping[str, Any], device: str) -> None:
        """Go on with batch size, threads and compiled or not as the store's first run recorded: bytes stay the same.

        Only where this run is on the same kind of device and was not told otherwise; else results agree within the
        tolerance of float32 and no closer, which is said.
        """
        threads = self.threads or int(run["threads"])
        if device == "cpu":
            torch.set_num_threads(threads)
        if not self.max_tokens_given:
            known = DEFAULT_MAX_TOKENS.get(device, DEFAULT_MAX_TOKENS["cuda"])
            self.max_tokens = int(run["max_tokens"]) if run["device"] == device else known
        here = {"device": device, "max_tokens": self.max_tokens, "threads": threads if device == "cpu" else None}
        if "compiled" in run and run["device"] == device:  # the store's first run decided, on a GPU
            here["compiled"] = self.model.use_compiled(bool(run["compiled"]))
        if changed := [f"{key}={value}" for key, value in here.items() if value not in (None, run[key])]:
            log.warning(
                "the store was begun with %s, this run goes on with %s: results agree to 1e-5, not to the last bit",
                ", ".join(f"{key}={value}" for key, value in run.items()), ", ".join(changed),
            )  # fmt: skip

    def predict_step(self, batch: WorkItem, *_: Any) -> Answer | Failure:
        """Compute one item. Errors of the data come back as `Failure`; those of the machine are raised."""
        if batch.key in self.failed:
            return Failure(batch, "an earlier block of this protein failed")
        while True:
            try:
                return self.compute(batch)
            except torch.cuda.OutOfMemoryError as error:
                length = len(batch.sequence)
                if mutants_per_forward(length, self.max_tokens) == 1:
                    return failure(batch, error, f"out of memory with one sequence of {length} residues in a forward")
            except Exception as error:
                if is_fatal(error):
                    raise
                told = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
                return failure(batch, error, told)
            self.max_tokens //= 2
            torch.cuda.empty_cache()  # only here, where no traceback holds the tensors any more
            log.warning("%s: out of memory; going on with max_tokens=%d", batch.key, self.max_tokens)


def is_fatal(error: BaseException) -> bool:
    """Whether an error speaks of the machine and not of the protein: then the run must stop, not mark proteins."""
    if isinstance(error, OSError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and ("CUDA error" in str(error) or "NCCL" in str(error))


def failure(item: WorkItem, error: BaseException, reason: str) -> Failure:
    """The record of an error, with its trace for the file in failed/."""
    return Failure(item, reason, "".join(traceback.format_exception(error)))
