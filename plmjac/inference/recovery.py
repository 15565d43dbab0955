"""The recovery kind of run in Lightning: a module that answers a protein with its contexts, a writer that commits them.

Failures stay with their protein, as in the Jacobian's loop. One answer is one commit, so nothing is kept between steps.
"""

import logging
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from plmjac.inference.annotations import Annotations
from plmjac.inference.datamodule import PlanDataModule
from plmjac.inference.device import DEFAULT_MAX_TOKENS
from plmjac.inference.masking import MaskingExperiment
from plmjac.inference.module import is_fatal
from plmjac.jacobian import mutants_per_forward
from plmjac.records import Failure, Recovery, WorkItem
from plmjac.store import StoreWriter

log = logging.getLogger(__name__)


class RecoveryModule(LightningModule):
    """Runs the masking experiment on one protein a step.

    After running out of memory it goes on with half the tokens a forward, and says so.
    """

    def __init__(
        self,
        experiment: MaskingExperiment,
        *,
        annotations: Annotations,
        max_tokens: int | None = None,
        threads: int | None = None,
        on_forward: Callable[[WorkItem, float], None] = lambda _item, _share: None,
    ) -> None:
        super().__init__()
        assert isinstance(experiment.model, torch.nn.Module)
        self.model = experiment.model  # registered, so that Lightning moves it
        self.experiment = experiment
        self.annotations = annotations
        self.max_tokens = max_tokens or DEFAULT_MAX_TOKENS["cpu"]
        self.max_tokens_given = max_tokens is not None
        self.threads = threads
        self.on_forward = on_forward
        self.failed: set[str] = set()
        self.id_of: Mapping[str, str] = {}
        self.known: Mapping[str, Any] = {}

    def setup(self, stage: str) -> None:
        """Take the store's word for batch size and threads, and read what is known of this rank's proteins."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        self.repeat(data.attributes["run"], self.trainer.strategy.root_device.type)
        self.id_of = data.id_of
        self.known = self.annotations({self.id_of[item.key] for item in data.items})

    def repeat(self, run: Mapping[str, Any], device: str) -> None:
        """Go on with the batch size and threads of the store's first run; see `JacobianModule.repeat`."""
        threads = self.threads or int(run["threads"])
        if device == "cpu":
            torch.set_num_threads(threads)
        if not self.max_tokens_given:
            known = DEFAULT_MAX_TOKENS.get(device, DEFAULT_MAX_TOKENS["cuda"])
            self.max_tokens = int(run["max_tokens"]) if run["device"] == device else known
        here = {"device": device, "max_tokens": self.max_tokens, "threads": threads if device == "cpu" else None}
        if changed := [f"{key}={value}" for key, value in here.items() if value not in (None, run[key])]:
            log.warning(
                "the store was begun with %s, this run goes on with %s: results agree to 1e-5, not to the last bit",
                ", ".join(f"{key}={value}" for key, value in run.items()), ", ".join(changed),
            )  # fmt: skip

    def predict_step(self, batch: WorkItem, *_: Any) -> Recovery | Failure:
        """Compute one protein. Errors of the data come back as `Failure`; those of the machine are raised."""
        identifier = self.id_of[batch.key]
        while True:
            try:
                return self.experiment.run(
                    batch,
                    identifier,
                    self.known.get(identifier),
                    max_tokens=self.max_tokens,
                    on_forward=lambda share: self.on_forward(batch, share),
                )
            except torch.cuda.OutOfMemoryError as error:
                if mutants_per_forward(len(batch.sequence), self.max_tokens) == 1:
                    return _failure(batch, error, f"out of memory with one context of {len(batch.sequence)} residues")
                self.max_tokens //= 2
                torch.cuda.empty_cache()
                log.warning("%s: out of memory; going on with max_tokens=%d", batch.key, self.max_tokens)
            except ValueError as error:
                return _failure(batch, error, str(error))
            except Exception as error:
                if is_fatal(error):
                    raise
                return _failure(batch, error, f"{type(error).__name__}: {error}")


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
                prediction = _failure(batch, error, str(error))
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
                pending.write(name, values, rows_per_chunk=1 if name == "contacts" else None)
            pending.commit()
        except ValueError:
            pending.abandon()
            raise


def _failure(item: WorkItem, error: BaseException, reason: str) -> Failure:
    return Failure(item, reason, "".join(traceback.format_exception(error)))
