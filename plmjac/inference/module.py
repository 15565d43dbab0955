"""The LightningModule: one work item in, one chunk of the Jacobian out, and a failure that stays with its protein.

Forward passes are grouped by a token budget here and nowhere else. Keeps one thing between steps: the wild type of the
protein under way, so that its forward is made once and not once a chunk.
"""

import logging
import time
import traceback
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from jaxtyping import Float, Int64
from lightning import LightningModule
from torch import Tensor

from plmjac.alphabet import encode
from plmjac.inference.device import DEFAULT_MAX_TOKENS
from plmjac.jacobian import jacobian_rows, mutants_per_forward
from plmjac.models import LanguageModel
from plmjac.records import Failure, JacobianChunk, WorkItem
from plmjac.store import SavedRows

log = logging.getLogger(__name__)

SAVE_SECONDS = 20.0
"""A block that took longer is kept on disk until its protein is complete."""


class JacobianModule(LightningModule):
    """Computes chunks of categorical Jacobians with a language model.

    Peak device memory: weights, one forward of `max_tokens` tokens, one chunk in float32; the writer adds the whole
    Jacobian of one protein where a contact map is kept. After running out of memory it goes on with half the tokens a
    forward, and says so.
    """

    def __init__(
        self,
        model: LanguageModel,
        *,
        letters: Int64[Tensor, " A"],
        readouts: Collection[str],
        max_tokens: int | None = None,
        threads: int | None = None,
        saved: SavedRows | None = None,
        on_forward: Callable[[WorkItem, int], None] = lambda _item, _count: None,
    ) -> None:
        super().__init__()
        self.model = model
        self.letters: Tensor
        self.register_buffer("letters", letters)
        self.readouts = sorted({"logits", *readouts})
        self.max_tokens = max_tokens or DEFAULT_MAX_TOKENS["cpu"]
        self.max_tokens_given = max_tokens is not None
        self.threads = threads
        self.saved = saved
        self.on_forward = on_forward
        self.failed: set[str] = set()
        self._wild_type: tuple[str, Float[Tensor, "L 20"]] | None = None

    def setup(self, stage: str) -> None:
        """Take the store's word for batch size and threads."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        self.repeat(data.attributes["run"], self.trainer.strategy.root_device.type)

    def repeat(self, run: Mapping[str, Any], device: str) -> None:
        """Go on with the batch size and threads that the store's first run recorded, so that bytes stay the same.

        Only where this run is on the same kind of device and was not told otherwise; else results agree within the
        tolerance of float32 and no closer, which is said.
        """
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

    def predict_step(self, batch: WorkItem, *_: Any) -> JacobianChunk | Failure:
        """Compute one block of rows. Errors of the data come back as `Failure`; those of the machine are raised."""
        if batch.key in self.failed:
            return Failure(batch, "an earlier block of this protein failed")
        while True:
            try:
                return self._chunk(batch)
            except torch.cuda.OutOfMemoryError as error:
                if mutants_per_forward(len(batch.sequence), self.max_tokens) == 1:
                    return _failure(batch, error, f"out of memory with one mutant of {len(batch.sequence)} residues")
                self.max_tokens //= 2
                torch.cuda.empty_cache()
                log.warning("%s: out of memory; going on with max_tokens=%d", batch.key, self.max_tokens)
            except Exception as error:
                if is_fatal(error):
                    raise
                return _failure(batch, error, f"{type(error).__name__}: {error}")

    def _chunk(self, item: WorkItem) -> JacobianChunk:
        tokens = torch.from_numpy(encode(item.sequence)).to(self.device)
        readouts: dict[str, Tensor] = {}
        if item.is_first or self._wild_type is None or self._wild_type[0] != item.key:
            readouts = {name: value[0] for name, value in self.model.read(tokens[None], self.readouts).items()}
            self._wild_type = (item.key, readouts["logits"].float())
            self.on_forward(item, 1)
        return JacobianChunk(item, self._rows(item, tokens, self._wild_type[1]), readouts)

    def _rows(
        self, item: WorkItem, tokens: Int64[Tensor, " L"], wild_type: Float[Tensor, "L 20"]
    ) -> Float[Tensor, "R A L 20"]:
        """The block itself: from an earlier run that was killed after it, or computed, and kept if that took long."""
        earlier = self.saved.load(item, len(self.letters)) if self.saved else None
        if earlier is not None:
            self.on_forward(item, 19 * (item.stop - item.start))
            return torch.from_numpy(earlier).to(self.device)
        began = time.monotonic()
        rows = jacobian_rows(
            self.model.logits,
            tokens,
            item.start,
            item.stop,
            wild_type=wild_type,
            letters=self.letters,
            max_tokens=self.max_tokens,
            on_forward=lambda count: self.on_forward(item, count),
        )
        if not bool(torch.isfinite(rows).all()):
            raise FloatingPointError("the model gave logits that are not finite; try a higher precision")
        if self.saved and not (item.is_first and item.is_last) and time.monotonic() - began > SAVE_SECONDS:
            self.saved.save(item, rows.cpu().numpy())
        return rows


def is_fatal(error: BaseException) -> bool:
    """Whether an error speaks of the machine and not of the protein: then the run must stop, not mark proteins."""
    if isinstance(error, OSError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and ("CUDA error" in str(error) or "NCCL" in str(error))


def _failure(item: WorkItem, error: BaseException, reason: str) -> Failure:
    return Failure(item, reason, "".join(traceback.format_exception(error)))
