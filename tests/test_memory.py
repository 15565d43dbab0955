"""The forecast of memory against what PyTorch allocates in a run, tensor by tensor."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support import composed
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from plmjac.inference.memory import Memory, forecast
from plmjac.inference.settings import parse_predict
from plmjac.models import Architecture, debug, esm2_fast, size_of
from plmjac.models.architecture import Esm2Size

SIZE = Architecture(2, 96, 6)
"""Large enough that forwards weigh, small enough to run in a second."""


class Allocated(TorchDispatchMode):
    """The most bytes that tensors held at once, looked at after every operation of this thread."""

    def __init__(self) -> None:
        super().__init__()
        self.most = 0
        self._known: dict[int, tuple[StorageWeakRef, int]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "cpu":
                storage = tensor.untyped_storage()
                reference = StorageWeakRef(storage)
                self._known[reference.cdata] = (reference, storage.nbytes())
        self._known = {key: each for key, each in self._known.items() if not each[0].expired()}
        self.most = max(self.most, sum(size for _, size in self._known.values()))
        return made


@pytest.mark.slow
@pytest.mark.parametrize("as_on_a_gpu", [False, True])
@pytest.mark.parametrize(
    "keys",
    [
        ("max_tokens=4096",),
        ("max_tokens=4096", "rows_per_chunk=30"),
        ("max_tokens=4096", "rows_per_chunk=30", "model.fast=false"),
        ("max_tokens=8192", "rows_per_chunk=60", "model.precision=fp16"),
        ("max_tokens=2048", "keep=[jacobian,representation]"),
        ("max_tokens=4096", "substitutions=subset"),
        ("max_tokens=4096", "substitutions=mask"),
        ("max_tokens=4096", "substitutions=none", "keep=[attention_heads]"),
        ("max_tokens=4096", "substitutions=none", "keep=[contact_head]", "model.fast=false"),
    ],
    ids=" ".join,
)
def test_the_forecast_is_what_is_allocated(
    keys: tuple[str, ...],
    as_on_a_gpu: bool,
    predict: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Within a tenth; on a GPU all mutants of a forward go through a layer together."""
    monkeypatch.setattr(debug, "DEBUG_ARCHITECTURE", SIZE)
    kind = "cuda" if as_on_a_gpu else "cpu"
    if as_on_a_gpu:
        monkeypatch.setattr(esm2_fast, "CPU_TOKENS", 10**9)
    length = 70 if "substitutions=none" not in keys else 250
    fasta = tmp_path / "one.fasta"
    fasta.write_text(">a\n" + "".join("ACDEFGHIKLMNPQRSTVWY"[k * k % 19] for k in range(length)) + "\n")
    words = ("+dataset=fasta", f"dataset.path={fasta}", "model=debug", "trainer=cpu", f"store={tmp_path}/a.zarr")
    words = (*words, *(["keep=[contacts]"] if not any(key.startswith("keep") for key in keys) else []), *keys)
    with Allocated() as found:
        assert predict(*words) == 0
    settings = parse_predict(composed("predict", *words))
    size = size_of(**settings.model.model_dump() | {"precision": settings.model.precision or "fp32"}, kind=kind)
    told = forecast(
        size, length, settings.substitutions, settings.keep, settings.max_tokens or 0, settings.rows_per_chunk,
        kind=kind,
    )  # fmt: skip
    assert told.peak == pytest.approx(found.most, rel=0.1)
    assert told.weights == pytest.approx(4 * SIZE.num_parameters, rel=0.01) or settings.model.precision == "fp16"


def test_memory_grows_with_the_largest_protein_and_not_with_the_budget_beyond_its_mutants() -> None:
    settings = parse_predict(composed("predict", "+dataset=demo", "keep=[contacts,jacobian]"))
    size = Esm2Size(Architecture(33, 1280, 20), True, "fp16", "cuda")

    def at(length: int, tokens: int) -> Memory:
        return forecast(size, length, settings.substitutions, settings.keep, tokens, kind="cuda")

    assert at(1022, 65536).peak > at(256, 65536).peak
    assert at(20, 10**6) == at(20, 10**7)
    assert at(256, 65536).weights == pytest.approx(2 * 651.0e6, rel=0.01)
