"""Residue indices: the usual ones change nothing, a shift changes nothing, a gap is what rotary says it is."""

import pytest
import torch
from esm import rotary_embedding

from plmjac.alphabet import MASK
from plmjac.models import load_model
from plmjac.models.base import indices_of
from plmjac.models.debug import LinearModel

TOKENS = torch.randint(25, (3, 20), generator=torch.Generator().manual_seed(0))
TOKENS[1, 4] = MASK
READOUTS = ["logits", "contact_head", "attention", "representation"]
GAPPED = torch.cat([torch.arange(12), torch.arange(12, 20) + 50])


def with_gap(monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """fair-esm's module with a rotary embedding of our own: each token turned by its index, pair by pair."""
    angle_of = torch.cat([torch.tensor([0]), GAPPED + 1, GAPPED[-1:] + 2]) + 7  # any origin: only differences count

    def turned(module: rotary_embedding.RotaryEmbedding, x: torch.Tensor) -> torch.Tensor:
        half = x.shape[-1] // 2
        pairs = torch.complex(x[..., :half].double(), x[..., half:].double())
        pairs = pairs * torch.exp(1j * angle_of.double()[:, None] * module.inv_freq.double())
        return torch.cat([pairs.real, pairs.imag], dim=-1).float()

    monkeypatch.setattr(
        rotary_embedding.RotaryEmbedding, "forward", lambda self, q, k: (turned(self, q), turned(self, k))
    )
    return load_model("debug", fast=False).read(TOKENS, READOUTS)


@pytest.mark.parametrize("fast", [False, True])
def test_the_usual_indices_change_not_one_bit(fast: bool) -> None:
    model = load_model("debug", fast=fast)
    usual = model.read(TOKENS, READOUTS)
    for shift in (0, -5, 1000):
        shifted = model.read(TOKENS, READOUTS, torch.arange(20) + shift)
        assert all(torch.equal(shifted[name], usual[name]) for name in READOUTS)


@pytest.mark.parametrize("fast", [False, True])
def test_a_gap_between_chains_equals_a_direct_rotation(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load_model("debug", fast=fast)
    usual, gapped = model.read(TOKENS, READOUTS), model.read(TOKENS, READOUTS, GAPPED)
    after = model.read(TOKENS, READOUTS)
    expected = with_gap(monkeypatch)
    for name in READOUTS:
        torch.testing.assert_close(gapped[name], expected[name], atol=1e-4, rtol=0)
        assert not torch.allclose(gapped[name], usual[name], atol=1e-2)
        assert torch.equal(after[name], usual[name])  # the gap is forgotten


@pytest.mark.parametrize("fast", [False, True])
def test_representation_is_what_the_head_reads(fast: bool) -> None:
    esm = load_model("debug", fast=False).esm
    out = load_model("debug", fast=fast).read(TOKENS, ["representation", "logits"])
    assert out["representation"].shape == (3, 20, 32)
    with torch.no_grad():
        torch.testing.assert_close(esm.lm_head(out["representation"])[..., 4:24], out["logits"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("fast", [False, True])
def test_indices_that_make_no_chain_are_refused(fast: bool) -> None:
    model = load_model("debug", fast=fast)
    with pytest.raises(ValueError, match="20 residues need 20 positions, these are 19"):
        indices_of(20, torch.arange(19), model.device)  # the types of logits() say so first, in tests
    with pytest.raises(ValueError, match="must increase"):
        model.logits(TOKENS, torch.cat([torch.arange(10), torch.arange(10)]))


def test_the_linear_model_couples_places() -> None:
    model = LinearModel(torch.randn(20, 26, 20, 20, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(model.logits(TOKENS, GAPPED), model.logits(TOKENS))
