"""Progress of a run: a bar on a terminal, a line every half minute in a log file, and metrics for the loggers.

Progress is measured in the plan's own cost, so the ETA holds when short proteins follow long ones. Rank 0 reports its
own proteins, whose cost is about that of every other rank's.
"""

import logging
import sys
import time
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from tqdm import tqdm

from plmjac import interruption
from plmjac.inference.tasks import Passed
from plmjac.records import WorkItem

log = logging.getLogger(__name__)

LINE_SECONDS = 30.0
METRIC_SECONDS = 5.0


def count(proteins: int) -> str:
    """A number of proteins in words."""
    return f"{proteins} protein" if proteins == 1 else f"{proteins} proteins"


class Progress(Callback):
    """Counts residues as their mutants are run, on rank 0."""

    def __init__(self, items: list[WorkItem]) -> None:
        """`items` are those of this rank, once they are known."""
        self.items = items
        self.residues = 0.0
        self.proteins = 0
        self.total = self.done = 0.0
        self._bar: tqdm[Any] | None = None
        self._began = self._line = self._metric = time.monotonic()

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar; also take the signals back, which Lightning has just made its own."""
        interruption.install()
        self._began = self._line = self._metric = time.monotonic()
        if not trainer.is_global_zero:
            return
        proteins = len({item.key for item in self.items})
        residues = sum(item.stop - item.start for item in self.items if item.role != "joined")
        threads = f" with threads={torch.get_num_threads()}" if pl_module.device.type == "cpu" else ""
        share = f" (this rank's share of {trainer.world_size})" if trainer.world_size > 1 else ""
        log.info("to compute: %s, %d residues, on %s%s%s", count(proteins), residues, pl_module.device, threads, share)
        self.total = sum(item.cost for item in self.items)
        self._bar = tqdm(
            total=self.total,
            bar_format="{percentage:3.0f}% |{bar}| {postfix} [{elapsed}, {remaining} left]",
            disable=not sys.stderr.isatty(),
        )

    def advance(self, item: WorkItem, share: float) -> None:
        """Note that this share of an item's forwards was run."""
        if item.role == "joined":  # these forwards were counted
            return
        rows = item.stop - item.start
        step = min(share * item.cost, self.total - self.done)
        self.residues += share * rows
        self.done += step
        if self._bar is None:
            return
        self._bar.update(step)
        self._bar.set_postfix_str(f"{self.rate:.1f} residues/s, {self.proteins} proteins done", refresh=False)
        now = time.monotonic()
        if self._bar.disable and now - self._line > LINE_SECONDS:
            self._line = now
            self._say(now)

    @property
    def rate(self) -> float:
        """Residues whose substitutions were run, a second, on this rank since the start."""
        return self.residues / max(1e-9, time.monotonic() - self._began)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: WorkItem,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count proteins, and tell the logger now and then."""
        if not batch.is_last or isinstance(outputs, Passed):
            return
        self.proteins += 1
        now = time.monotonic()
        if trainer.logger is not None and now - self._metric > METRIC_SECONDS:
            self._metric = now
            self._log_metrics(trainer)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar and log the last numbers."""
        if self._bar is not None:
            self._bar.close()
            seconds = time.monotonic() - self._began
            log.info("%s in %.1f s, %.1f residues/s", count(self.proteins), seconds, self.rate)
        if trainer.logger is not None:
            self._log_metrics(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the terminal as it was."""
        if self._bar is not None:
            self._bar.close()

    def _log_metrics(self, trainer: Trainer) -> None:
        assert trainer.logger is not None
        metrics = {"proteins": float(self.proteins), "residues_per_second": self.rate}
        trainer.logger.log_metrics(metrics, step=self.proteins)

    def _say(self, now: float) -> None:
        share = self.done / max(self.total, 1e-9)
        left = (now - self._began) * (1 - share) / max(share, 1e-9)
        log.info(
            "%3.0f%%, %d proteins done, %.1f residues/s, about %.0f s left", 100 * share, self.proteins, self.rate, left
        )
