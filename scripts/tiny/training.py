"""Masked language modelling with Lightning: settings, loss curve, checkpoints that a killed run goes on from.

What it gives up: one CPU core, fp32, a model of less than a million parameters; nothing here scales.
"""

import csv
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning as pl
import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, IterableDataset

from tiny.data import Batch, Corpus, load_families
from tiny.network import (
    ColumnHead,
    Tables,
    masked_loss,
    new_model,
    rotary_tables,
    taught_losses,
    training_losses,
)
from tiny.optimizer import MuonAdam, parameter_groups, rate_factor
from tiny.teacher import Lesson, Teacher

ADJUSTABLE = {"steps", "decay_steps", "teacher_steps"}
"""Settings that a run may go on with other values of: each only says when something ends."""


@dataclass(frozen=True)
class Settings:
    """Everything that the loss curve depends on, besides the data; saved in the checkpoint and in the file's header."""

    families: list[str]
    layers: int
    width: int
    heads: int
    steps: int
    decay_steps: int
    batch_size: int
    mask_rate: float
    lr: float
    adam_lr: float
    weight_decay: float
    column_weight: float
    seed: int
    teacher_weight: float = 0.0
    teacher_steps: int = 0
    mutation_rate: float = 0.0
    """The last three as they were before there was a teacher, for checkpoints of then."""


class Steps(IterableDataset[tuple[Batch, Lesson | None]]):
    """Batches from step `start` on, and what the teacher says of those that it has a word in."""

    def __init__(self, corpus: Corpus, teacher: Teacher | None, settings: Settings, start: int) -> None:
        self.corpus, self.teacher, self.settings, self.start = corpus, teacher, settings, start

    def __iter__(self) -> Iterator[tuple[Batch, Lesson | None]]:
        for step in range(self.start, self.settings.steps):
            if self.teacher is None or step >= self.settings.teacher_steps:
                yield self.corpus.batch(step), None
                continue
            batch = self.corpus.batch(step, self.settings.mutation_rate)
            rng = np.random.default_rng((self.settings.seed, step, 1))
            group = self.corpus.groups[step % len(self.corpus.groups)]
            yield batch, self.teacher.lesson(batch, self.corpus.drawn(step), group, rng)


class TinyModule(pl.LightningModule):
    """A masked language model with the fast forward, and the column head that only training has."""

    def __init__(self, settings: Settings, num_columns: int, *, compiled: bool) -> None:
        super().__init__()
        self.settings = settings
        self.model = new_model(settings.layers, settings.width, settings.heads, settings.seed)
        self.column_head = ColumnHead(settings.width, num_columns)
        self._tables: dict[int, Tables] = {}
        compiler: Any = partial(torch.compile, dynamic=False) if compiled else lambda function: function
        self._losses, self._taught_losses = compiler(training_losses), compiler(taught_losses)

    def training_step(self, given: tuple[Batch, Lesson | None], batch_index: int) -> dict[str, Tensor]:
        """What is minimised, and the cross-entropy at the selected positions for the journal."""
        batch, lesson = given
        length = batch.tokens.shape[1]
        if length not in self._tables:
            self._tables[length] = rotary_tables(length, self.settings.width // self.settings.heads)
        tables, masked_tokens = self._tables[length], batch[:4]
        weight, teacher_weight = self.settings.column_weight, self.settings.teacher_weight
        if lesson is None:
            total, masked = self._losses(self.model, self.column_head, weight, tables, *masked_tokens)
        else:
            total, masked = self._taught_losses(
                self.model, self.column_head, weight, teacher_weight, tables, *masked_tokens, *lesson
            )
        return {"loss": total, "masked": masked.detach()}

    def configure_optimizers(self) -> Any:
        """The optimiser of the settings under the schedule of `rate_factor`."""
        s = self.settings
        optimizer = MuonAdam(parameter_groups(self, s.lr, s.adam_lr, s.weight_decay))
        schedule = LambdaLR(optimizer, lambda step: rate_factor(step, s.steps, s.decay_steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """The checkpoint's learning rate is that of its own `steps`, which may have changed since."""
        for group in self.trainer.optimizers[0].param_groups:
            factor = rate_factor(self.global_step, self.settings.steps, self.settings.decay_steps)
            group["lr"] = group["initial_lr"] * factor

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the settings beside the weights, for `finish`."""
        checkpoint["settings"] = asdict(self.settings)


class Journal(pl.Callback):
    """The loss curve as CSV, a line on the screen, and the checkpoint that a new start goes on from."""

    def __init__(self, corpus: Corpus, out: Path, every: int) -> None:
        self.corpus, self.out, self.every = corpus, out, every
        self.held_out = corpus.held_out()
        self.losses: list[float] = []
        self.began = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drop rows of the CSV that are later than the checkpoint: they will be written again."""
        self.began, self.first = time.monotonic(), trainer.global_step
        path = self.out / "loss.csv"
        rows = list(csv.reader(path.open(encoding="utf-8"))) if path.exists() and self.first else []
        kept = [row for row in rows[1:] if int(row[0]) <= self.first]
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["step", "train_loss", "held_out_loss"], *kept])

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Every `every` steps: mean training loss since the last row, held-out loss, checkpoint."""
        self.losses.append(float(outputs["masked"]))
        step = trainer.global_step
        if step % self.every == 0 or step == trainer.max_steps:
            self._row(trainer, pl_module, step)
            self.losses.clear()

    def _row(self, trainer: pl.Trainer, pl_module: pl.LightningModule, step: int) -> None:
        with torch.no_grad():
            held_out = float(masked_loss(pl_module.model, *self.held_out[:3]))
        train = sum(self.losses) / len(self.losses)
        save_checkpoint(trainer, self.out / "last.ckpt")
        with (self.out / "loss.csv").open("a", encoding="utf-8", newline="") as file:
            csv.writer(file).writerow([step, f"{train:.6f}", f"{held_out:.6f}"])
        seconds = (time.monotonic() - self.began) / max(1, step - self.first)
        left = (trainer.max_steps - step) * seconds / 60
        print(f"step {step:6d}  train {train:.4f}  held out {held_out:.4f}  {seconds * 1e3:.0f} ms/step  "
              f"{left:.0f} min left", flush=True)  # fmt: skip


def save_checkpoint(trainer: pl.Trainer, path: Path) -> None:
    """Write beside, then rename: a kill at any instant leaves the old checkpoint or the new one."""
    temporary = path.with_suffix(".part")
    trainer.save_checkpoint(temporary)
    os.replace(temporary, path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of this script, tensors and plain values only."""
    checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return checkpoint


def corpus_of(folder: Path, settings: Settings) -> Corpus:
    """The data as these settings see it."""
    families = load_families(folder, settings.families)
    return Corpus(families, settings.batch_size, settings.mask_rate, settings.seed)


def train(folder: Path, out: Path, settings: Settings, *, every: int = 200, compiled: bool = True) -> None:
    """Train to `settings.steps`, going on from `out/last.ckpt` where there is one.

    `ADJUSTABLE` settings may differ from those of the checkpoint; any other difference ends the program, for the curve
    would be that of no settings at all. So does an end of the teacher that is changed once one of the two is past.
    """
    out.mkdir(parents=True, exist_ok=True)
    corpus = corpus_of(folder, settings)
    last = out / "last.ckpt"
    start = 0
    if last.exists():
        checkpoint = load_checkpoint(last)
        start = int(checkpoint["global_step"])
        then, now = checkpoint["settings"], asdict(settings)
        then = asdict(Settings(**then))
        changed = {key for key in now if then[key] != now[key]} - ADJUSTABLE
        if then["teacher_steps"] != now["teacher_steps"] and min(then["teacher_steps"], now["teacher_steps"]) < start:
            changed.add("teacher_steps")
        if changed:
            raise SystemExit(f"train_tiny: {last} was made with other {', '.join(sorted(changed))}; take another --out")
    if start >= settings.steps:
        print(f"{last} has {start} steps already")
        return
    trainer = pl.Trainer(
        max_steps=settings.steps, max_epochs=-1, accelerator="cpu", devices=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[Journal(corpus, out, every)], default_root_dir=out,
    )  # fmt: skip
    teacher = Teacher(corpus.families, out / "teacher") if start < settings.teacher_steps else None
    loader = DataLoader(Steps(corpus, teacher, settings, start), batch_size=None)
    trainer.fit(
        TinyModule(settings, corpus.num_columns, compiled=compiled), loader, ckpt_path=last if last.exists() else None
    )
