"""Readouts of attention: equal to fair-esm's, and without a stack of every map."""

import pytest
import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from plmjac.models import Architecture, load_model
from plmjac.models.debug import random_tensors
from plmjac.models.esm2 import Esm2, Esm2Adapter
from plmjac.models.esm2_fast import Esm2Fast

LENGTH, HEADS = 200, 8
MAP = 4 * (LENGTH + 2) ** 2
"""Bytes of one attention map with BOS and EOS."""


class Held(TorchDispatchMode):
    """The most bytes that tensors made by operators held at one time; views of one storage count once."""

    def __init__(self) -> None:
        super().__init__()
        self.live: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                reference = StorageWeakRef(storage)
                self.live[reference.cdata] = (reference, storage.nbytes())
        self.live = {key: (ref, size) for key, (ref, size) in self.live.items() if not ref.expired()}
        self.peak = max(self.peak, sum(size for _, size in self.live.values()))
        return out


def model_of(adapter: type[Esm2Adapter], layers: int) -> Esm2Adapter:
    size = Architecture(layers, 32, HEADS)
    return adapter(name="x", architecture=size, tensors=random_tensors(size, 0), weights_sha256="")


def peak(model: Esm2Adapter, readout: str, heads: list[tuple[int, int]] | None = None) -> int:
    """Bytes held at the peak of one forward."""
    tokens = torch.randint(20, (1, LENGTH), generator=torch.Generator().manual_seed(0))
    with Held() as held:
        model.read(tokens, [readout], None, heads)
    return held.peak


@pytest.mark.parametrize("length", [2, 17, 60])
def test_contact_head_is_fair_esms_own(length: int) -> None:
    plain, fast = model_of(Esm2, 5), model_of(Esm2Fast, 5)
    tokens = torch.randint(25, (2, length), generator=torch.Generator().manual_seed(length))
    assert isinstance(plain, Esm2)
    with torch.no_grad():
        expected = plain.esm.predict_contacts(plain._to_esm(tokens))
    assert length == 2 or expected.std() > 0.01
    for model in (plain, fast):
        torch.testing.assert_close(model.read(tokens, ["contact_head"])["contact_head"], expected, atol=1e-5, rtol=0)


def test_contact_head_holds_the_maps_of_one_layer_however_many_there_are() -> None:
    few, many = peak(model_of(Esm2Fast, 3), "contact_head"), peak(model_of(Esm2Fast, 12), "contact_head")
    assert HEADS * MAP < many < 6 * HEADS * MAP and many < 1.5 * few
    assert peak(model_of(Esm2, 12), "contact_head") > 12 * HEADS * MAP  # the plain path has them all: the test can fail


def test_chosen_heads_are_all_that_is_kept_of_a_layer() -> None:
    few = peak(model_of(Esm2Fast, 3), "attention", [(0, 3), (2, 7), (1, 0)])
    many = peak(model_of(Esm2Fast, 12), "attention", [(0, 3), (11, 7), (5, 0)])
    assert 3 * MAP < many < 6 * HEADS * MAP and many < 1.5 * few
    assert peak(model_of(Esm2Fast, 12), "attention") > 12 * HEADS * MAP


@pytest.mark.parametrize("fast", [False, True])
@pytest.mark.parametrize("readouts", [["attention"], ["attention", "contact_head", "logits"]])
def test_chosen_heads_are_those_of_the_whole(fast: bool, readouts: list[str]) -> None:
    model, tokens = load_model("debug", fast=fast), torch.randint(20, (2, 15))
    everything = load_model("debug", fast=False).read(tokens, ["attention"])["attention"]
    heads = [(1, 3), (0, 2), (1, 0)]
    found = model.read(tokens, readouts, None, heads)["attention"]
    expected = torch.stack([everything[:, layer, head] for layer, head in heads], dim=1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    for wrong in ((2, 0), (0, 4), (-1, 0)):
        with pytest.raises(ValueError, match="has no head"):
            model.read(tokens, readouts, None, [(0, 0), wrong])
