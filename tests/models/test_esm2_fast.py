"""The fast path against fair-esm's own module: same weights, same protocol, same numbers."""

from typing import Any

import pytest
import torch

from plmjac.alphabet import MASK, NUM_AMINO_ACIDS
from plmjac.models import Architecture, load_model
from plmjac.models.debug import debug_model, random_tensors
from plmjac.models.esm2 import Esm2, Esm2Adapter
from plmjac.models.esm2_fast import Esm2Fast
from plmjac.models.layouts import rotary_frequencies

SIZES = [Architecture(2, 32, 4), Architecture(6, 320, 20), Architecture(3, 24, 1)]


def gentle(size: Architecture) -> dict[str, torch.Tensor]:
    """Random weights under which logits spread over a few units, as a trained ESM-2's do, at any width."""
    tensors = random_tensors(size, 1)
    tensors["embed_tokens.weight"] *= (32 / max(32, size.width)) ** 0.5
    for name, tensor in tensors.items():
        if tensor.ndim == 2 and size.width > 100 and name.startswith("layers"):
            tensor *= 0.5
    return tensors


def both(size: Architecture, **options: Any) -> tuple[Esm2Adapter, Esm2Adapter]:
    given: dict[str, Any] = {
        "name": "x", "architecture": size, "tensors": gentle(size), "weights_sha256": "", **options
    }  # fmt: skip
    return Esm2(**given), Esm2Fast(**given)


def random_tokens(batch: int, length: int, masks: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(length)
    tokens = torch.randint(25, (batch, length), generator=generator)
    if masks == "one each":
        tokens[torch.arange(batch), torch.randint(length, (batch,), generator=generator)] = MASK
    if masks == "some":  # a different number in each sequence
        tokens[torch.rand(batch, length, generator=generator) < torch.linspace(0, 0.9, batch)[:, None]] = MASK
    if masks == "all":
        tokens[:] = MASK
    return tokens


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("masks", ["none", "one each", "some", "all"])
@pytest.mark.parametrize("length", [1, 2, 3, 31, 64])
def test_fast_equals_plain(size: Architecture, masks: str, length: int) -> None:
    plain, fast = both(size)
    tokens = random_tokens(4, length, masks)
    readouts = ["logits", "contact_head", "attention"]
    expected, found = plain.read(tokens, readouts), fast.read(tokens, readouts)
    for name in readouts:
        torch.testing.assert_close(found[name], expected[name], atol=1e-4, rtol=0)
    torch.testing.assert_close(fast.logits(tokens), expected["logits"], atol=1e-4, rtol=0)
    if length > 2 and masks == "none":
        assert expected["logits"].std() > 0.5 and expected["contact_head"].std() > 0.005


@pytest.mark.parametrize("options", [{"token_dropout": False}, {"bos_eos": "mask"}])
def test_the_variants_are_the_same_too(options: dict[str, Any]) -> None:
    plain, fast = both(SIZES[0], **options)
    for masks in ("none", "one each", "some"):
        tokens = random_tokens(3, 20, masks)
        torch.testing.assert_close(fast.logits(tokens), plain.logits(tokens), atol=1e-4, rtol=0)


def test_files_frequencies_are_used_and_must_agree() -> None:
    size = SIZES[0]
    tensors = random_tensors(size, 1)
    rounded = rotary_frequencies(size).half().float()  # as in the published files
    for layer in range(2):
        tensors[f"layers.{layer}.self_attn.rot_emb.inv_freq"] = rounded
    plain, fast = both(size, tensors=tensors)
    tokens = random_tokens(2, 60, "none")
    torch.testing.assert_close(fast.logits(tokens), plain.logits(tokens), atol=1e-4, rtol=0)
    tensors["layers.1.self_attn.rot_emb.inv_freq"] = rotary_frequencies(size)
    with pytest.raises(ValueError, match="fast=false"):
        both(size, tensors=tensors)


def test_results_do_not_depend_on_the_batch() -> None:
    model = load_model("debug", fast=True)
    tokens = random_tokens(7, 25, "none")
    whole = model.logits(tokens)
    for size in (1, 3):
        parts = torch.cat([model.logits(part) for part in tokens.split(size)])
        torch.testing.assert_close(parts, whole, atol=1e-5, rtol=0)


def test_it_is_chosen_by_a_switch_and_has_the_same_weights() -> None:
    assert isinstance(load_model("debug", fast=True), Esm2Fast)
    assert isinstance(load_model("debug"), Esm2)
    assert load_model("debug", fast=True).weights_sha256 == load_model("debug").weights_sha256


def test_no_attention_map_is_formed_for_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    model = debug_model(fast=True)
    monkeypatch.setattr(torch, "softmax", lambda *_, **__: pytest.fail("an attention map was formed"))
    assert model.logits(random_tokens(2, 9, "none")).shape == (2, 9, NUM_AMINO_ACIDS)
