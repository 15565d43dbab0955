"""From the manifest that rank 0 wrote to this rank's work items.

Every rank reads the same manifest, so all plan from one snapshot of what is done and no two ranks ever take the same
protein.
"""

from typing import Any

from lightning import LightningDataModule
from torch.utils.data import DataLoader

from plmjac.inference.preparation import Preparation
from plmjac.records import WorkItem
from plmjac.store import open_store, read_manifest
from plmjac.workplan import remaining, shard, work_items


class PlanDataModule(LightningDataModule):
    """Hands every rank its share of what is not in the store yet."""

    def __init__(self, preparation: Preparation) -> None:
        super().__init__()
        self.prepare_data_per_node = False
        self.allow_zero_length_dataloader_with_multiple_devices = True  # fewer proteins left than ranks
        self.preparation = preparation
        self.request = preparation.request
        self.attributes: dict[str, Any] = {}
        self.items: list[WorkItem] = []
        self.id_of: dict[str, str] = {}

    def prepare_data(self) -> None:
        """On rank 0: read the input, take the store, write the manifest."""
        self.preparation.prepare()

    def setup(self, stage: str) -> None:
        """On every rank: this rank's work items."""
        assert self.trainer is not None
        self.attributes = open_store(self.request.store).attributes
        rows = read_manifest(self.request.store, self.request.plan_file)
        self.id_of = {row.key: row.id for row in rows}
        mine = shard(remaining(rows, ()), self.trainer.global_rank, self.trainer.world_size)
        size, letters = self.request.rows_per_chunk, self.request.num_letters
        self.items = [item for row in mine for item in work_items(row, size, letters)]

    def predict_dataloader(self) -> DataLoader[WorkItem]:
        """One work item a batch; nothing is collated, padded or sent to another process."""
        return DataLoader(self.items, batch_size=None, collate_fn=lambda item: item)  # type: ignore[arg-type]

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        """Work items are addresses; the module makes the tensors on the device."""
        return batch
