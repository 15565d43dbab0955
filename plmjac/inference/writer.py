"""From chunks to committed proteins: the callback that owns this rank's half of the store.

Chunks arrive in order, protein by protein. The Jacobian is gathered where it was made and reduced to the contact map
there; only what `keep` asks for travels to the host. Gives up nothing on a kill but the protein under way.
"""

import logging
from collections.abc import Sequence

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor

from plmjac.inference.datamodule import PlanDataModule
from plmjac.inference.module import JacobianModule, is_fatal
from plmjac.jacobian import contact_map
from plmjac.records import Failure, JacobianChunk, WorkItem
from plmjac.store import PendingProtein, SavedRows, StoreWriter
from plmjac.workplan import rows_per_chunk_for

log = logging.getLogger(__name__)


class ChunkWriter(BasePredictionWriter):
    """Writes what `predict_step` returns, one protein at a time, and commits each when its last chunk is there."""

    def __init__(self, data: PlanDataModule, keep: Sequence[str]) -> None:
        super().__init__(write_interval="batch")
        self.data = data
        self.keep = frozenset(keep)
        self.store = StoreWriter(data.request.store)
        self.saved = SavedRows(data.request.store)
        self.proteins = 0
        self._pending: PendingProtein | None = None
        self._jacobian: Tensor | None = None

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: JacobianChunk | Failure,
        batch_indices: Sequence[int] | None,
        batch: WorkItem,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Take one answer of the module to the store."""
        assert isinstance(pl_module, JacobianModule)
        if batch.key in pl_module.failed:
            return
        if isinstance(prediction, JacobianChunk):
            try:
                self._take(prediction)
                return
            except (ValueError, RuntimeError) as error:  # values that the store refuses; no memory for the map
                if is_fatal(error):
                    raise
                prediction = Failure(batch, str(error))
        pl_module.failed.add(batch.key)
        self._fail(prediction)

    def _take(self, chunk: JacobianChunk) -> None:
        item = chunk.item
        if item.is_first:
            self._pending = self.store.begin(item.key, sequence=item.sequence, identifier=self.data.id_of[item.key])
            for name in sorted(self.keep & chunk.readouts.keys()):
                self._pending.write(name, chunk.readouts[name].float().cpu().numpy())
        assert self._pending is not None
        if "jacobian" in self.keep:
            size = self.data.request.rows_per_chunk or rows_per_chunk_for(len(item.sequence), chunk.rows.shape[1])
            rows_per_chunk = min(size, len(item.sequence))
            self._pending.write_rows(item.start, chunk.rows.half().cpu().numpy(), rows_per_chunk)
        if "contacts" in self.keep:
            self._gather(chunk)
        if item.is_last:
            self._commit()

    def _gather(self, chunk: JacobianChunk) -> None:
        item = chunk.item
        if item.is_first and item.is_last:
            self._jacobian = chunk.rows
            return
        if item.is_first:
            self._jacobian = torch.empty((len(item.sequence), *chunk.rows.shape[1:]), device=chunk.rows.device)
        assert self._jacobian is not None
        self._jacobian[item.start : item.stop] = chunk.rows

    def _commit(self) -> None:
        assert self._pending is not None
        if self._jacobian is not None:
            self._pending.write("contacts", contact_map(self._jacobian, overwrite=True).cpu().numpy())
        self._jacobian = None
        self._pending.commit()
        self.saved.drop(self._pending.target.name)
        self._pending = None
        self.proteins += 1

    def _fail(self, failure: Failure) -> None:
        key = failure.item.key
        if self._pending is not None:
            self._pending.abandon()
        self._pending = self._jacobian = None
        self.store.fail(key, self.data.id_of[key], failure)
        log.warning("%s failed: %s", self.data.id_of[key], failure.reason)
