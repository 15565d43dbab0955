"""From answers to committed proteins: the callback that writes this rank's proteins to the store.

Answers arrive in order, protein by protein. What they hold travels to the host beside the next forward, and a thread of
its own compresses it, writes it and commits, so that no forward waits for a disk. Knows no kind of run. A kill loses
the protein under way and the few answers that the thread still holds, and nothing else.
"""

import logging
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor

from plmjac.inference.background import Background, HostArray, to_host
from plmjac.inference.tasks import Answer, Passed
from plmjac.interruption import Interrupted
from plmjac.readouts import READOUTS
from plmjac.records import Failure, WorkItem
from plmjac.store import PendingProtein, SavedRows, StoreWriter

log = logging.getLogger(__name__)

INTERRUPTED_SECONDS = 1.5
"""Time for the thread to finish after a signal; the process has to be gone within three."""
ERROR_SECONDS = 60.0


class StoreCallback(BasePredictionWriter):
    """Begins a protein with its first answer, writes the arrays of each, and commits it with the last.

    Values that the store refuses, and any error that is not the machine's, fail their protein and no other.
    """

    def __init__(self, store: Path) -> None:
        super().__init__(write_interval="batch")
        self.store = StoreWriter(store)
        self.saved = SavedRows(store)
        self.background: Background | None = None
        self.failed: set[str] = set()
        self._pending: PendingProtein | None = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the thread that writes; what it fails, the module need not go on with."""
        self.failed = pl_module.failed  # type: ignore[assignment]
        self.background = Background()

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Answer | Failure | Passed,
        batch_indices: Sequence[int] | None,
        batch: WorkItem,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Hand one answer of the module to the thread; raises what the thread has met in the meantime."""
        assert self.background is not None
        if batch.key in self.failed or isinstance(prediction, Passed):
            return
        if isinstance(prediction, Answer):
            answer = prediction
            try:
                arrays = {name: _on_its_way(name, values) for name, values in sorted(answer.arrays.items())}
                self.background.submit(lambda: self._take(answer.item, arrays, answer.attributes))
                return
            except RuntimeError as error:  # no memory for the copy
                if is_fatal(error):
                    raise
                prediction = failure(batch, error)
        self.failed.add(batch.key)
        failed = prediction
        self.background.submit(lambda: self._fail(failed))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for the thread: what it wrote is what was done."""
        assert self.background is not None
        self.background.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let the thread commit what is complete, as far as time allows."""
        if self.background is not None:
            self.background.give_up(INTERRUPTED_SECONDS if isinstance(exception, Interrupted) else ERROR_SECONDS)

    def _take(self, item: WorkItem, arrays: Mapping[str, HostArray], attributes: Mapping[str, Any]) -> None:
        """Runs on the writer thread: begins, fills and commits proteins."""
        try:
            if item.is_first:
                self._pending = self.store.begin(
                    item.key, sequence=item.sequence, identifier=item.id, chains=item.chains
                )  # fmt: skip
            if self._pending is None:  # it has failed
                return
            self._pending.attributes |= attributes
            for name, array in arrays.items():
                self._pending.write(name, array(), item.start)
            if item.is_last:
                self._pending.commit()
                self._pending = None
                self.saved.drop(item.key)
        except Exception as error:
            if is_fatal(error):
                raise
            self._fail(failure(item, error))

    def _fail(self, failed: Failure) -> None:
        """Runs on the writer thread: records a failure, and drops what was written of its protein."""
        item = failed.item
        self.failed.add(item.key)
        if self._pending is not None:
            self._pending.abandon()
        self._pending = None
        self.store.fail(item.key, item.id, failed)
        log.warning("%s failed: %s", item.id, failed.reason)


def _on_its_way(name: str, values: Any) -> HostArray:
    """An array that is being copied to the host, in the type that it is stored in where that is smaller."""
    if not isinstance(values, Tensor):
        return lambda: values
    spec = READOUTS.get(name)
    is_half = spec is not None and spec.dtype == "float16"
    return to_host(values.half() if is_half else values.float() if values.is_floating_point() else values)


def is_fatal(error: BaseException) -> bool:
    """True for an error of the machine and not of the protein: the run must stop, not mark proteins as failed."""
    if isinstance(error, OSError):
        return True
    return isinstance(error, RuntimeError) and ("CUDA error" in str(error) or "NCCL" in str(error))


def failure(item: WorkItem, error: BaseException, reason: str = "") -> Failure:
    """The record of an error: a sentence, and the trace for the file in failed/."""
    told = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    return Failure(item, reason or told, "".join(traceback.format_exception(error)))
