"""The recovery kind of run in Lightning: a module that answers a protein with its contexts, a writer that commits them.

Failures stay with their protein, as in the Jacobian's loop. One answer is one commit, so nothing is kept between steps.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from plmjac.inference.annotations import Annotations
from plmjac.inference.datamodule import PlanDataModule
from plmjac.inference.masking import MaskingExperiment
from plmjac.inference.step import StepModule, failure
from plmjac.records import Failure, Recovery, WorkItem
from plmjac.store import StoreWriter

log = logging.getLogger(__name__)


class RecoveryModule(StepModule[Recovery]):
    """Runs the masking experiment on one protein a step."""

    def __init__(
        self,
        experiment: MaskingExperiment,
        *,
        annotations: Annotations,
        max_tokens: int | None = None,
        threads: int | None = None,
        on_forward: Callable[[WorkItem, float], None] = lambda _item, _share: None,
    ) -> None:
        super().__init__(max_tokens, threads)
        assert isinstance(experiment.model, torch.nn.Module)
        self.model = experiment.model  # registered, so that Lightning moves it
        self.experiment = experiment
        self.annotations = annotations
        self.on_forward = on_forward
        self.id_of: Mapping[str, str] = {}
        self.known: Mapping[str, Any] = {}

    def setup(self, stage: str) -> None:
        """Besides batch size and threads, read what is known of this rank's proteins."""
        super().setup(stage)
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        self.id_of = data.id_of
        self.known = self.annotations({self.id_of[item.key] for item in data.items})
        choice = self.experiment.choice
        if choice.name == "list" and data.items and not any(self.known.values()):
            log.warning(
                "segments.path names none of the %d proteins to be computed: they get no segment", len(data.items)
            )

    def compute(self, item: WorkItem) -> Recovery:
        """Every context of one protein."""
        identifier = self.id_of[item.key]
        return self.experiment.run(
            item,
            identifier,
            self.known.get(identifier),
            max_tokens=self.max_tokens,
            on_forward=lambda share: self.on_forward(item, share),
        )


class RecoveryWriter(BasePredictionWriter):
    """Writes each protein's contexts as soon as they are there, in one commit."""

    def __init__(self, data: PlanDataModule) -> None:
        super().__init__(write_interval="batch")
        self.data = data
        self.store = StoreWriter(data.request.store)

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Recovery | Failure,
        batch_indices: Sequence[int] | None,
        batch: WorkItem,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Take one answer of the module to the store."""
        assert isinstance(pl_module, RecoveryModule)
        if isinstance(prediction, Recovery):
            try:
                self._commit(prediction)
                return
            except ValueError as error:  # values that the store refuses
                prediction = failure(batch, error, str(error))
        pl_module.failed.add(batch.key)
        self.store.fail(batch.key, self.data.id_of[batch.key], prediction)
        log.warning("%s failed: %s", self.data.id_of[batch.key], prediction.reason)

    def _commit(self, recovery: Recovery) -> None:
        item = recovery.item
        pending = self.store.begin(
            item.key, sequence=item.sequence, identifier=self.data.id_of[item.key], chains=item.chains
        )
        pending.attributes |= {
            "outcomes": list(recovery.outcomes),
            "left_out": [[s.start1, s.stop1, s.start2, s.stop2] for s in recovery.left_out],
        }
        try:
            for name, values in sorted(recovery.arrays.items()):
                pending.write(name, values)
            pending.commit()
        except ValueError:
            pending.abandon()
            raise
