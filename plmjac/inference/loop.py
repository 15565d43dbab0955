"""The forward passes of a run, through Lightning: this rank's work items, the module that computes them, the Trainer.

The only place, with its two callbacks, that knows Lightning. A failure stays with its protein; an error of the machine
ends the run. None of Lightning's defaults that lose results is left on.
"""

import logging
import time
import warnings
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule, LightningModule, Trainer
from lightning.fabric.plugins.environments import (  # type: ignore[attr-defined]
    LightningEnvironment,
    SLURMEnvironment,
    TorchElasticEnvironment,
)
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy
from torch.utils.data import DataLoader

from plmjac import interruption
from plmjac.config import DONE, SOME_FAILED, Config
from plmjac.inference.forecast import in_bytes
from plmjac.inference.launch import Kind
from plmjac.inference.loggers import build_logger
from plmjac.inference.memory import Peaks, at_hand
from plmjac.inference.progress import Progress
from plmjac.inference.resolve import Run
from plmjac.inference.session import Session
from plmjac.inference.sharing import SharedProteins
from plmjac.inference.tasks import Answer, Passed, Shareable, Task, blocks
from plmjac.inference.writer import StoreCallback, failure, is_fatal
from plmjac.jacobian import mutants_per_forward
from plmjac.models import LanguageModel
from plmjac.records import Failure, WorkItem
from plmjac.store import UnderWay, open_store
from plmjac.store.under_way import goes_last
from plmjac.workplan import Portion, shared_out

log = logging.getLogger(__name__)

WRITING_SECONDS = 10.0
"""Time for the writing of one protein to give back the memory that the next one needs."""


def execute(session: Session, config: Config) -> bool:
    """Run this rank's share. Returns True on rank 0."""
    run, data = session.run, PlanDataModule(session)
    progress = Progress(data.items)
    module = PredictModule(run.model, run.task, run.max_tokens, progress.advance)
    store = run.settings.store.absolute()
    logger, code = None, 1
    if run.launch.rank == 0:
        logged = {**config, "versions": run.details["versions"], "identity": run.identity}
        logger = build_logger(run.settings.logger, run_config=logged, default_dir=Path(f"{store}-logs"))
    try:
        # The root is a folder of plmjac's own: Lightning would load any checkpoint that it finds there.
        trainer = build_trainer(run, [StoreCallback(store), progress], logger, store / "pending")
        trainer.predict(module, datamodule=data, return_predictions=False)
        code = SOME_FAILED if module.failed else DONE
        return trainer.is_global_zero
    finally:
        if data.under_way is not None:  # whatever ended it; a process that is killed never gets here
            data.under_way.clear()
        if logger is not None:
            logger.close(code)


class PlanDataModule(LightningDataModule):
    """Hands every rank its share of what is not in the store yet.

    Every rank reads the manifest that rank 0 wrote, so all plan from one snapshot of what is done and no two ranks ever
    take the same protein, or the same rows of one that they share.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.prepare_data_per_node = False
        self.allow_zero_length_dataloader_with_multiple_devices = True  # fewer proteins left than ranks
        self.run, self.session = session.run, session
        self.items: list[WorkItem] = []
        self.limits = session.run.max_tokens, session.run.threads
        self.under_way: UnderWay | None = None
        self.shared: SharedProteins | None = None

    def prepare_data(self) -> None:
        """On rank 0: read the input, take the store, write the manifest."""
        self.session.prepare()

    def setup(self, stage: str) -> None:
        """On every rank: this rank's work items, and the batch size and threads that the store's first run recorded."""
        assert self.trainer is not None
        store = self.run.settings.store
        self.limits = self.run.limits(open_store(store).attributes["run"])
        task, role, rank = self.run.task, self.session.role, self.trainer.global_rank
        portions = self.session.read_plan()
        shares = shared_out(portions, self.trainer.world_size, lambda row: blocks(task, row))
        mine = shares[rank]
        last = goes_last(store) | self._too_large(mine)
        mine.sort(key=lambda portion: portion.row.key in last)
        self.under_way = UnderWay(store, role, rank)
        interruption.LAST_ACTS.append(self.under_way.clear)
        self.items[:] = [item for portion in mine for item in portion.of(task.items(portion.row))]
        # Put together at the end, when the others have had time for theirs; what its own ranks share, rank 0 waits for.
        cut = {part.row.key: part for share in shares for part in share if part.is_shared}
        ours = {portion.row.key for portion in portions if not portion.is_shared}
        awaited = cut.keys() & ours if rank == 0 else set()
        joined = {part.row.key: part.row for part in mine if part.is_shared}
        joined |= {key: cut[key].row for key in sorted(awaited)}
        self.items += [replace(item, role="joined", cost=0.0) for row in joined.values() for item in task.items(row)]
        self.shared = SharedProteins(store, role, self.items, awaited)

    def _too_large(self, mine: list[Portion]) -> set[str]:
        """The proteins that do not fit into this rank's share of the memory at hand; when the others are done they may.

        On a GPU none: out of memory is an error there that ends one protein, and not the process.
        """
        run, here = self.run, at_hand(torch.device(self.run.device))
        if run.kind != "cpu" or here is None:
            return set()
        peaks = Peaks(lambda length: run.task.peak(length, self.limits[0], run.model.size, "cpu"))
        share = here // run.launch.local_size
        return {portion.row.key for portion in mine if peaks.over(share, portion.row.length)}

    def predict_dataloader(self) -> DataLoader[WorkItem]:
        """One work item a batch; nothing is collated, padded or sent to another process."""
        return DataLoader(self.items, batch_size=None, collate_fn=lambda item: item)  # type: ignore[arg-type]

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        """Work items are addresses; the task makes the tensors on the device."""
        return batch


class PredictModule(LightningModule):
    """Computes one work item a step; after running out of memory it goes on with half the tokens, and logs that."""

    def __init__(
        self,
        model: LanguageModel,
        task: Task,
        max_tokens: int,
        on_forward: Callable[[WorkItem, float], None] = lambda _item, _share: None,
    ) -> None:
        super().__init__()
        assert isinstance(model, torch.nn.Module)
        self.model = model  # registered, so that Lightning moves it
        self.task = task
        self.max_tokens = max_tokens
        self.on_forward = on_forward
        self.failed: set[str] = set()
        self.under_way: UnderWay | None = None
        self.shared: SharedProteins | None = None
        self._begun = ""
        self._peaks: Peaks | None = None
        self._most_at_hand = 0

    def setup(self, stage: str) -> None:
        """Reuse the batch size and thread count recorded in the store, and get the task ready for this rank's items."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        self.max_tokens, threads = data.limits
        if data.run.kind == "cpu":
            torch.set_num_threads(threads)
        self.under_way, self.shared = data.under_way, data.shared
        self.task.setup(data.items)

    def predict_step(self, batch: WorkItem, *_: Any) -> Answer | Failure | Passed:
        """Compute one item. Errors of the data come back as `Failure`; those of the machine are raised."""
        if batch.key in self.failed:
            return Failure(batch, "an earlier block of this protein failed")
        if self.shared is not None and not self.shared.concerns(batch):
            return Passed(batch)
        if batch.key != self._begun:
            self._begun = batch.key
            if too_large := self._too_large(len(batch.sequence)):
                return Failure(batch, too_large)
        if self.under_way is not None:
            self.under_way.begin(batch)
        while True:
            try:
                return self._compute(batch)
            except torch.cuda.OutOfMemoryError as error:
                length = len(batch.sequence)
                if mutants_per_forward(length, self.max_tokens) == 1:
                    return failure(batch, error, f"out of memory with one sequence of {length} residues in a forward")
            except Exception as error:
                if is_fatal(error):
                    raise
                return failure(batch, error)
            self.max_tokens //= 2
            torch.cuda.empty_cache()  # only here, where no traceback holds the tensors any more
            log.warning("%s: out of memory; going on with max_tokens=%d", batch.key, self.max_tokens)

    def _compute(self, item: WorkItem) -> Answer | Passed:
        def told(share: float) -> None:
            self.on_forward(item, share)

        if item.role == "shared":
            assert isinstance(self.task, Shareable)
            self.task.compute_apart(self.model, item, self.max_tokens, told)
            return Passed(item)
        return self.task.compute(self.model, item, self.max_tokens, told)

    def _too_large(self, length: int) -> str:
        """The reason not to begin a protein, with the remedy, where it would not fit into the memory at hand."""
        here = at_hand(self.device)
        if here is None:
            return ""
        if self._peaks is None:
            size = self.model.size
            kind: Kind = "cpu" if self.device.type == "cpu" else "cuda"
            tokens = self.max_tokens if kind == "cpu" else 1  # out of memory, a GPU goes on with smaller forwards
            self._peaks = Peaks(lambda length: self.task.peak(length, tokens, size, kind) - size.weights)
        self._most_at_hand = max(self._most_at_hand, here)
        deadline = time.monotonic() + WRITING_SECONDS
        while needed := self._peaks.over(here, length):
            if needed > self._most_at_hand or time.monotonic() > deadline:
                break
            time.sleep(0.5)  # what the protein before it held is still being written
            here = at_hand(self.device) or 0
        else:
            return ""
        return (
            f"{length} residues need {in_bytes(needed)} of memory besides the model, and {in_bytes(here)} are at hand: "
            "run the same command where there is more, take long proteins in windows "
            "(too_long=window max_length=1022, in another store), or leave them out (max_length)"
        )


def build_trainer(run: Run, callbacks: list[Callback], logger: Logger | None, root: Path) -> Trainer:
    """A Trainer for prediction alone, on the device and the processes of the run."""
    _silence()
    launch = run.launch
    strategy: Strategy
    if launch.is_alone:
        strategy = SingleDeviceStrategy(device=torch.device(run.device))
    else:
        backend = "nccl" if run.kind == "cuda" else "gloo"
        # No collective between proteins; the timeout only bounds the wait for rank 0 to read the input.
        strategy = DDPStrategy(process_group_backend=backend, timeout=timedelta(days=7))
    environments = {"": LightningEnvironment, "torchrun": TorchElasticEnvironment}
    environment = environments[launch.launcher]() if launch.launcher != "srun" else SLURMEnvironment(auto_requeue=False)
    return Trainer(
        accelerator="gpu" if run.kind == "cuda" else "cpu",
        devices=launch.local_size,
        num_nodes=launch.nodes,
        strategy=strategy,
        plugins=[environment],
        callbacks=callbacks,
        logger=logger or False,
        use_distributed_sampler=False,  # the plan has shared the work out
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        inference_mode=True,
        default_root_dir=root,
    )


def _silence() -> None:
    """Lightning's advice on training does not concern a run that only predicts."""
    for name in ("lightning.pytorch", "lightning.fabric", "pytorch_lightning", "lightning"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", category=UserWarning, module=r"lightning(\.|_)")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*across ranks is zero.*")
    warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")
