"""Every registered adapter, and one from outside, passes the conformance checks; a broken one does not."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import pytest
import torch
from random_checkpoints import Reference, bert, esm1, fair_esm_forward, hf_esm, roberta
from torch import Tensor

from plmjac.models import Architecture, LanguageModel, load_model, names
from plmjac.models.base import kernels
from plmjac.models.conformance import faults
from plmjac.models.debug import random_tensors
from plmjac.models.esm2 import Esm2
from plmjac.models.esm2_fast import Esm2Fast
from plmjac.models.masked_lm import MaskedLM

Case = Callable[[Path], tuple[LanguageModel, Reference]]


def of_masked_lm(make: Callable[..., Reference], **changes: object) -> Case:
    def case(folder: Path) -> tuple[LanguageModel, Reference]:
        reference = make(folder / "model", **changes)
        return load_model("masked_lm", checkpoint=folder / "model"), reference

    return case


def of_esm1(name: str, *, norm_before: bool) -> Case:
    def case(folder: Path) -> tuple[LanguageModel, Reference]:
        reference = esm1(folder / f"{name}.pt", norm_before=norm_before)
        return load_model(name, checkpoint=folder / f"{name}.pt"), reference

    return case


def of_esm2(name: str, *, fast: bool) -> Case:
    def case(_: Path) -> tuple[LanguageModel, Reference]:
        return load_model(name, fast=fast), fair_esm_forward(load_model(name, fast=False).esm)

    return case


def of_fast_esm2(_: Path) -> tuple[LanguageModel, Reference]:
    """Deep enough that what the fast path saves at its two ends is under a tenth."""
    size = Architecture(8, 96, 6)
    options = {"name": "debug", "architecture": size, "tensors": random_tensors(size, 0), "weights_sha256": "0"}
    return Esm2Fast(**options), fair_esm_forward(Esm2(**options).esm)


CASES = {
    "debug fast": of_fast_esm2,
    "debug": of_esm2("debug", fast=False),
    "tiny": of_esm2("tiny", fast=False),
    "esm1b": of_esm1("esm1b", norm_before=True),
    "esm1v": of_esm1("esm1v", norm_before=False),
    "masked_lm bert": of_masked_lm(bert),
    "masked_lm roberta": of_masked_lm(roberta),
    "masked_lm esm2": of_masked_lm(hf_esm),
    "masked_lm esm1b": of_masked_lm(hf_esm, position_embedding_type="absolute", emb_layer_norm_before=True),
}


@pytest.mark.parametrize("case", CASES)
def test_a_model_conforms(case: str, tmp_path: Path) -> None:
    model, reference = CASES[case](tmp_path)
    assert faults(model, reference) == []


def test_every_registered_model_has_a_case() -> None:
    of_a_size = {name for name in names() if name.startswith("esm2_")}  # the adapter of tiny with other weights
    assert set(names()) - of_a_size == {case.split()[0] for case in CASES}


class Broken(LanguageModel):
    """A model with one fault of each kind that a quick adapter has."""

    name, weights_sha256, readouts, fault = "broken", "0", frozenset({"logits"}), ""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault, self.inner = fault, load_model("debug", fast=False)
        self.eval().requires_grad_(False)
        self.beside = torch.zeros(3) if fault == "stays behind" else None

    @property
    def size(self):  # type: ignore[no-untyped-def]
        return self.inner.size

    def read(
        self,
        tokens: Tensor,
        readouts: Collection[str],
        positions: Tensor | None = None,
        heads: Sequence[tuple[int, int]] | None = None,
    ) -> dict[str, Tensor]:
        if self.fault != "does not refuse":
            self.check_readouts(readouts)
        if self.fault == "depends on the others":
            return {"logits": self.inner.logits(tokens, positions) + tokens.float().mean()}
        if self.fault == "gap":
            positions = None
        if self.fault == "random":
            return {"logits": self.inner.logits(tokens, positions) + torch.rand(1)}
        if self.fault == "changes its tokens":
            tokens[0, 0] = 0
        if self.fault == "MASK":
            tokens = torch.where(tokens == 25, tokens.roll(1, 1), tokens) if (tokens == 25).any() else tokens
            return {"logits": self.inner.logits(torch.where(tokens < 0, 30, tokens), positions) * 0 + 1.0}
        with torch.inference_mode(), kernels("fp32", tokens.device):
            made = self.inner.logits(tokens, positions) * 1
        if self.fault == "inference":
            return {"logits": made}
        made = made.clone()
        return {"logits": made + 0.01 if self.fault == "reference" else made}


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("", ""),
        ("depends on the others", "depends on the others of its batch"),
        ("gap", "gap in the residue indices changes nothing"),
        ("random", "draws from the global random numbers"),
        ("changes its tokens", "changes its tokens"),
        ("MASK", "MASK in the place of a residue changes nothing"),
        ("stays behind", "stays behind when the model is moved"),
        ("does not refuse", "does not refuse contact_head"),
        ("reference", "from the reference's"),
    ],
)
def test_a_fault_is_found(fault: str, message: str) -> None:
    model = Broken(fault)
    found = faults(model, fair_esm_forward(model.inner.esm), costs=False)
    assert any(message in sentence for sentence in found) if fault else found == []


def test_masked_lm_with_masks_at_its_ends_reads_other_ends(tmp_path: Path) -> None:
    bert(tmp_path)
    keep, mask = (load_model("masked_lm", checkpoint=tmp_path, bos_eos=ends) for ends in ("keep", "mask"))
    assert isinstance(mask, MaskedLM) and not torch.equal(*(m.logits(torch.arange(9)[None]) for m in (keep, mask)))
