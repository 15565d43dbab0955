"""From chunks to committed proteins: the callback that owns this rank's half of the store.

Chunks arrive in order, protein by protein. They are reduced to the contact map where they were made; only what `keep`
asks for travels to the host, and a thread of its own compresses it, writes it and commits, so that no forward waits for
a disk. Gives up nothing on a kill but the protein under way and the few that the thread still holds.
"""

import logging
from collections.abc import Callable, Mapping, Sequence

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter
from torch import Tensor

from plmjac.alphabet import NUM_AMINO_ACIDS, encode
from plmjac.inference.background import Background, HostArray, to_host
from plmjac.inference.datamodule import PlanDataModule
from plmjac.inference.module import JacobianChunk, JacobianModule
from plmjac.inference.step import is_fatal
from plmjac.interruption import Interrupted
from plmjac.jacobian import BLOCK_BYTES, Reduction, among_all, representation_map
from plmjac.records import Failure, WorkItem
from plmjac.store import PendingProtein, SavedRows, StoreWriter
from plmjac.workplan import rows_per_chunk_for

log = logging.getLogger(__name__)

INTERRUPTED_SECONDS = 1.5
"""What the thread may still finish after a signal; the process has to be gone within three."""
ERROR_SECONDS = 60.0


class ChunkWriter(BasePredictionWriter):
    """Writes what `predict_step` returns, one protein at a time, and commits each when its last chunk is there."""

    def __init__(self, data: PlanDataModule, keep: Sequence[str]) -> None:
        super().__init__(write_interval="batch")
        self.data = data
        self.keep = frozenset(keep)
        self.proteins: Proteins | None = None
        self.background: Background | None = None
        self._reduction: Reduction | None = None
        self._strength: Tensor | None = None
        self._letters: Tensor | None = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the thread that writes."""
        assert isinstance(pl_module, JacobianModule)
        self.proteins = Proteins(self.data, pl_module.failed)
        self.background = Background()

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
        """Take one answer of the module; raises what the thread has met in the meantime."""
        assert isinstance(pl_module, JacobianModule) and self.proteins is not None and self.background is not None
        if batch.key in pl_module.failed:
            return
        if isinstance(prediction, JacobianChunk):
            try:
                for task in self._tasks(self.proteins, prediction):
                    self.background.submit(task)
                return
            except RuntimeError as error:  # no memory for the map
                if is_fatal(error):
                    raise
                prediction = Failure(batch, str(error))
        pl_module.failed.add(batch.key)
        failure, proteins = prediction, self.proteins
        self._reduction = self._strength = None
        self.background.submit(lambda: proteins.fail(failure))

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Wait for the thread: what it wrote is what was done."""
        assert self.background is not None
        self.background.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Let the thread commit what is complete, as far as time allows."""
        if self.background is not None:
            self.background.give_up(INTERRUPTED_SECONDS if isinstance(exception, Interrupted) else ERROR_SECONDS)

    def _tasks(self, proteins: "Proteins", chunk: JacobianChunk) -> "list[Callable[[], None]]":
        """What the store has to be told of a chunk; reductions are made here, on the device."""
        item, tasks = chunk.item, []
        if item.is_first:
            names = sorted((self.keep | {"letters"}) & chunk.readouts.keys())
            readouts = {name: to_host(_storable(chunk.readouts[name])) for name in names}
            tasks.append(lambda: proteins.begin(item, readouts))
        if "jacobian" in self.keep:
            size = self.data.request.rows_per_chunk or rows_per_chunk_for(len(item.sequence), chunk.rows.shape[1])
            rows = to_host(chunk.rows.half())
            tasks.append(lambda: proteins.rows(item, rows, min(size, len(item.sequence))))
        if "contacts" in self.keep:
            self._reduce(chunk)
        if chunk.strength is not None:
            self._gather(item, chunk.strength)
        if item.is_last:
            maps = {name: to_host(values) for name, values in self._maps().items()}
            tasks.append(lambda: proteins.commit(item, maps))
        return tasks

    def _reduce(self, chunk: JacobianChunk) -> None:
        item = chunk.item
        if item.is_first:
            self._letters = chunk.readouts.get("letters")
        length, letters = len(item.sequence), self._letters
        if item.is_first:
            whole = item.is_last and letters is None
            number = chunk.rows.shape[1] if letters is None else NUM_AMINO_ACIDS
            shape = (length, number, *chunk.rows.shape[2:])
            self._reduction = Reduction(chunk.rows if whole else chunk.rows.new_empty(shape))
        assert self._reduction is not None
        if letters is None:
            self._reduction.add(item.start, chunk.rows)
            return
        tokens = torch.from_numpy(encode(item.sequence)).to(chunk.rows.device)
        step = max(1, BLOCK_BYTES // (4 * NUM_AMINO_ACIDS**2 * length))
        for start in range(item.start, item.stop, step):
            stop = min(start + step, item.stop)
            rows = chunk.rows[start - item.start : stop - item.start]
            self._reduction.add(start, among_all(rows, letters[start:stop], tokens[start:stop]))

    def _gather(self, item: WorkItem, strength: Tensor) -> None:
        if item.is_first:
            self._strength = strength.new_empty(len(item.sequence), len(item.sequence))
        assert self._strength is not None
        self._strength[item.start : item.stop] = strength

    def _maps(self) -> dict[str, Tensor]:
        """The contact maps of the protein that is complete."""
        maps = {}
        if self._reduction is not None:
            maps["contacts"] = self._reduction.contact_map()
        if self._strength is not None:
            maps["representation"] = representation_map(self._strength)
        self._reduction = self._strength = None
        return maps


class Proteins:
    """The thread's half: proteins in the store, each begun, filled and committed, or recorded as failed.

    Values that the store refuses fail their protein and no other; its key joins `failed`, which the module reads.
    """

    def __init__(self, data: PlanDataModule, failed: set[str]) -> None:
        self.data = data
        self.failed = failed
        self.store = StoreWriter(data.request.store)
        self.saved = SavedRows(data.request.store)
        self._pending: PendingProtein | None = None

    def begin(self, item: WorkItem, readouts: Mapping[str, HostArray]) -> None:
        """Start a protein with what its wild type gave."""
        self._pending = self.store.begin(
            item.key, sequence=item.sequence, identifier=self.data.id_of[item.key], chains=item.chains
        )
        self._write(item, readouts)

    def rows(self, item: WorkItem, rows: HostArray, rows_per_chunk: int) -> None:
        """Write one chunk of the Jacobian."""
        if self._pending is not None:
            with_rows = self._pending
            self._guarded(item, lambda: with_rows.write("jacobian", rows(), item.start))

    def commit(self, item: WorkItem, maps: Mapping[str, HostArray]) -> None:
        """Write the maps and make the protein appear."""
        self._write(item, maps)
        if self._pending is not None:
            self._guarded(item, self._pending.commit)
        if self._pending is not None:
            self.saved.drop(item.key)
        self._pending = None

    def fail(self, failure: Failure) -> None:
        """Record a failure, and drop what was written of its protein."""
        key = failure.item.key
        self.failed.add(key)
        if self._pending is not None:
            self._pending.abandon()
        self._pending = None
        self.store.fail(key, self.data.id_of[key], failure)
        log.warning("%s failed: %s", self.data.id_of[key], failure.reason)

    def _write(self, item: WorkItem, arrays: Mapping[str, HostArray]) -> None:
        pending = self._pending
        if pending is None:
            return

        def write_all() -> None:
            for name, array in arrays.items():
                pending.write(name, array())

        self._guarded(item, write_all)

    def _guarded(self, item: WorkItem, action: Callable[[], object]) -> None:
        try:
            action()
        except (ValueError, RuntimeError) as error:
            if is_fatal(error):
                raise
            self.fail(Failure(item, str(error)))


def _storable(values: Tensor) -> Tensor:
    return values.float() if values.dtype.is_floating_point else values
