"""Training with Lightning: settings, loss curve, checkpoints that a killed run goes on from.

What it gives up: one CPU core, fp32, a model of little more than a million parameters; nothing here scales.
"""

import csv
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import lightning as pl
import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, IterableDataset

from tiny.data import Batch, Corpus, load_families, load_strangers
from tiny.network import ColumnHead, Losses, Tables, Weights, masked_loss, new_model, rotary_tables, training_losses
from tiny.optimizer import MuonAdam, parameter_groups, rate_factor
from tiny.teacher import Lesson, Teacher

ADJUSTABLE = {
    "steps", "decay_steps", "per_family", "mutants", "mutations", "masked", "tokens", "flanked",
    "weights", "held_layers",
}  # fmt: skip
"""Settings that a run may go on with other values of: what may change along the way, sooner or later."""


@dataclass(frozen=True)
class Settings:
    """Everything that the loss curve depends on, besides the data; saved in the checkpoint and in the file's header."""

    families: list[str] = field(default_factory=list)
    layers: int = 5
    width: int = 160
    heads: int = 8
    steps: int = 2100
    decay_steps: int = 882
    per_family: int = 1
    mutants: int = 2
    mutations: int = 4
    masked: int = 4
    tokens: int = 104
    flanked: float = 0.67
    lr: float = 0.01
    adam_lr: float = 3e-3
    weight_decay: float = 0.02
    weights: list[float] = field(default_factory=lambda: [*Weights()])
    held_layers: int = 0
    seed: int = 0


class Steps(IterableDataset[tuple[Batch, Lesson]]):
    """Batches from step `start` on, and what the teacher says of them."""

    def __init__(self, corpus: Corpus, teacher: Teacher, settings: Settings, start: int) -> None:
        self.corpus, self.teacher, self.settings, self.start = corpus, teacher, settings, start

    def __iter__(self) -> Iterator[tuple[Batch, Lesson]]:
        for step in range(self.start, self.settings.steps):
            batch = self.corpus.batch(step)
            yield batch, self.teacher.lesson(batch, self.corpus.num_wild_types)


class TinyModule(pl.LightningModule):
    """A masked language model with the fast forward, and the column head that only training has.

    The last `held_layers` layers stay as they are, and then the embedding and what follows the layers as well.
    """

    parts: tuple[str, ...] = Losses._fields

    def __init__(self, settings: Settings, corpus: Corpus) -> None:
        super().__init__()
        self.settings, self.first_columns = settings, corpus.first_columns
        self.model = new_model(settings.layers, settings.width, settings.heads, settings.seed)
        self.column_head = ColumnHead(settings.width, corpus.num_columns)
        self._tables: dict[int, Tables] = {}
        if settings.held_layers:
            for name, value in self.named_parameters():
                value.requires_grad_(name.startswith("column_head"))
            self.model.layers[: -settings.held_layers].requires_grad_(True)

    def training_step(self, given: tuple[Batch, Lesson], batch_index: int) -> dict[str, Tensor]:
        """The loss, and its parts for the journal."""
        batch, lesson = given
        tables = self.tables(batch.tokens.shape[1])
        losses = training_losses(self.model, self.column_head, batch, lesson, self.first_columns, tables)
        total = sum(weight * loss for weight, loss in zip(self.settings.weights, losses, strict=False))
        assert isinstance(total, Tensor)
        return {"loss": total, "parts": torch.stack(losses).detach()}

    def tables(self, length: int) -> Tables:
        """Those of the rotary embedding, made once a length."""
        if length not in self._tables:
            self._tables[length] = rotary_tables(length, self.settings.width // self.settings.heads)
        return self._tables[length]

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
        self.out, self.every = out, every
        self.held_out = corpus.held_out()
        self.parts: list[Tensor] = []
        self.began = 0.0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Drop rows of the CSV that are later than the checkpoint: they will be written again."""
        self.began, self.first = time.monotonic(), trainer.global_step
        path = self.out / "loss.csv"
        rows = list(csv.reader(path.open(encoding="utf-8"))) if path.exists() and self.first else []
        kept = [row for row in rows[1:] if int(row[0]) <= self.first]
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([["step", *pl_module.parts, "held_out"], *kept])  # type: ignore[misc]

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Every `every` steps: mean losses since the last row, held-out loss, checkpoint."""
        self.parts.append(outputs["parts"])
        step = trainer.global_step
        if step % self.every == 0 or step == trainer.max_steps:
            self._row(trainer, pl_module, step)
            self.parts.clear()

    def _row(self, trainer: pl.Trainer, pl_module: pl.LightningModule, step: int) -> None:
        with torch.no_grad():
            held_out = float(masked_loss(pl_module.model, *self.held_out))
        means = torch.stack(self.parts).mean(dim=0).tolist()
        save_checkpoint(trainer, self.out / "last.ckpt")
        with (self.out / "loss.csv").open("a", encoding="utf-8", newline="") as file:
            csv.writer(file).writerow([step, *(f"{mean:.6f}" for mean in means), f"{held_out:.6f}"])
        seconds = (time.monotonic() - self.began) / max(1, step - self.first)
        told = "  ".join(f"{name} {mean:.3f}" for name, mean in zip(pl_module.parts, means, strict=True))  # type: ignore[arg-type]
        print(f"step {step:6d}  {told}  held out {held_out:.3f}  {seconds * 1e3:.0f} ms/step  "
              f"{(trainer.max_steps - step) * seconds / 60:.0f} min left", flush=True)  # fmt: skip


def save_checkpoint(trainer: pl.Trainer, path: Path) -> None:
    """Write beside, then rename: a kill at any instant leaves the old checkpoint or the new one."""
    temporary = path.with_suffix(".part")
    trainer.save_checkpoint(temporary)
    os.replace(temporary, path)


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint of this script, tensors and plain values only."""
    if not path.is_file():
        raise SystemExit(f"train_tiny: there is no {path}; `train` writes it to its --out")
    checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return checkpoint


def corpus_of(folder: Path, settings: Settings) -> Corpus:
    """The data as these settings see it."""
    s = settings
    families = load_families(folder, s.families)
    for family in families:
        if len(family.query) > s.tokens - 2:
            raise SystemExit(
                f"train_tiny: {family.name} has {len(family.query)} residues, too many for {s.tokens} tokens"
            )
    strangers = load_strangers(folder, [family.name for family in families])
    return Corpus(families, strangers, s.per_family, s.mutants, s.mutations, s.masked, s.tokens, s.flanked, s.seed)


def train(
    folder: Path, out: Path, settings: Settings, *, every: int = 100, start_from: Path | None = None,
    module_of: Callable[[Settings, Corpus], TinyModule] = TinyModule,
) -> None:  # fmt: skip
    """Train to `settings.steps`, going on from `out/last.ckpt` where there is one.

    `ADJUSTABLE` settings may differ from those of the checkpoint; any other difference ends the program, for the curve
    would be that of no settings at all.
    """
    if settings.layers < 4 or settings.mutants < 1:
        raise SystemExit("train_tiny: there must be 4 layers or more, and a mutant of each wild type")
    out.mkdir(parents=True, exist_ok=True)
    last = out / "last.ckpt"
    start = 0
    if last.exists():
        checkpoint = load_checkpoint(last)
        start = int(checkpoint["global_step"])
        then, now = checkpoint["settings"], asdict(settings)
        changed = {key for key in then.keys() | now.keys() if then.get(key) != now.get(key)} - ADJUSTABLE
        if changed:
            raise SystemExit(f"train_tiny: {last} was made with other {', '.join(sorted(changed))}; take another --out")
    if start >= settings.steps:
        print(f"{last} has {start} steps already")
        return
    corpus = corpus_of(folder, settings)
    trainer = pl.Trainer(
        max_steps=settings.steps, max_epochs=-1, accelerator="cpu", devices=1, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[Journal(corpus, out, every)], default_root_dir=out,
    )  # fmt: skip
    teacher = Teacher(corpus.families, out / "teacher", settings.heads)
    loader = DataLoader(Steps(corpus, teacher, settings, start), batch_size=None)
    module = module_of(settings, corpus)
    if start_from is not None and not last.exists():
        module.load_state_dict(load_checkpoint(start_from)["state_dict"])
    trainer.fit(module, loader, ckpt_path=last if last.exists() else None)
