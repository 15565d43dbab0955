"""The method against exact identities and slow, plain computations."""

import esm
import numpy as np
import pytest
import torch
from esm.model.esm2 import ESM2
from jaxtyping import Float
from torch import Tensor

import plmjac
from plmjac import jacobian as method
from plmjac.alphabet import encode
from plmjac.models import LanguageModel


def linear_logits(couplings: Float[Tensor, "L 20 L 20"], fields: Float[Tensor, "L 20"]) -> method.Logits:
    """A model whose logits are linear in its one-hot input: its Jacobian is known exactly."""

    def logits(tokens: Tensor) -> Tensor:
        one_hot = torch.nn.functional.one_hot(tokens, 20).to(couplings.dtype)
        return torch.einsum("nia,iajb->njb", one_hot, couplings) + fields

    return logits


def paper_contact_map(jacobian: np.ndarray) -> np.ndarray:
    """The reduction of the paper in its own order, numpy and float64, written out step by step."""
    J = jacobian.astype(np.float64)
    for axis in range(4):
        J = J - J.mean(axis, keepdims=True)
    J = (J + J.transpose(2, 3, 0, 1)) / 2
    for axis in range(4):
        J = J - J.mean(axis, keepdims=True)
    F = np.sqrt((J**2).sum((1, 3)))
    np.fill_diagonal(F, 0)
    C = F - F.sum(0, keepdims=True) * F.sum(1, keepdims=True) / F.sum()
    np.fill_diagonal(C, 0)
    return (C + C.T) / 2


def plain_jacobian(model: ESM2, sequence: str) -> np.ndarray:
    """The authors' loop: fair-esm's own tokens, the 20 substitutions of one position in a forward, one by one."""
    _, _, tokens = esm.data.Alphabet.from_architecture("ESM-1b").get_batch_converter()([("x", sequence)])
    length = len(sequence)
    with torch.no_grad():
        wild_type = model(tokens)["logits"][0, 1 : length + 1, 4:24]
        rows = []
        for position in range(length):
            mutants = tokens.repeat(20, 1)
            mutants[:, position + 1] = torch.arange(4, 24)
            rows.append(model(mutants)["logits"][:, 1 : length + 1, 4:24] - wild_type)
    return torch.stack(rows).numpy()


@pytest.mark.parametrize("max_tokens", [1, 50, 10_000])
def test_a_linear_model_returns_its_couplings(max_tokens: int) -> None:
    generator = torch.Generator().manual_seed(1)
    length = 7
    couplings = torch.randn(length, 20, length, 20, generator=generator, dtype=torch.float64).float()
    tokens = torch.randint(20, (length,), generator=generator)
    logits = linear_logits(couplings, torch.randn(length, 20, generator=generator))
    jacobian = method.categorical_jacobian(logits, tokens, max_tokens=max_tokens)
    expected = couplings - couplings[torch.arange(length), tokens][:, None]
    assert torch.allclose(jacobian, expected, atol=1e-5)
    assert torch.allclose(method.center(jacobian), method.center(couplings), atol=1e-5)


def test_the_wild_type_row_is_exactly_zero_and_is_not_run(debug_model: LanguageModel) -> None:
    sequence, run = "MKTAYIAKQR", []
    tokens = torch.from_numpy(encode(sequence))
    jacobian = method.categorical_jacobian(debug_model.logits, tokens, on_forward=run.append)
    assert sum(run) == 19 * len(sequence)
    assert (jacobian[torch.arange(10), tokens] == 0).all()
    assert (jacobian.abs().amax(dim=(2, 3)) > 0).sum() == 190


def test_each_mutant_differs_from_the_wild_type_at_its_own_position_alone() -> None:
    tokens = torch.tensor([3, 20, 0, 19])  # X at position 1
    positions, chosen = method.substitutions(tokens, 0, 4, method.all_letters(4))
    expected = [(i, a) for i in range(4) for a in range(20) if tokens[i] != a]
    assert list(zip(positions.tolist(), chosen.tolist(), strict=True)) == expected
    for (i, a), mutant in zip(expected, method.mutants(tokens, positions, chosen), strict=True):
        wanted = tokens.clone()
        wanted[i] = a
        assert torch.equal(mutant, wanted)


@pytest.mark.parametrize("sequence", ["M", "MK", "MKTAYIAKQRQISFVKSHFSRQ", "MXBUZOKXA"])
@pytest.mark.parametrize("max_tokens", [1, 7 * 24, 100_000])
@pytest.mark.parametrize("fast", [False, True])
def test_debug_equals_the_plain_loop(sequence: str, max_tokens: int, fast: bool) -> None:
    model = plmjac.load_model("debug", fast=fast)
    ours = plmjac.categorical_jacobian(model, sequence, max_tokens=max_tokens).numpy()
    plain = plain_jacobian(plmjac.load_model("debug", fast=False).esm, sequence)  # type: ignore[attr-defined]
    np.testing.assert_allclose(ours, plain, atol=1e-4)
    theirs = paper_contact_map(plain) if len(sequence) > 1 else np.zeros((1, 1))
    _assert_relative(plmjac.contact_map(torch.from_numpy(ours)).numpy(), theirs, 1e-5)


def test_the_8m_architecture_equals_the_plain_loop(tmp_path) -> None:
    """A random checkpoint of the 8M architecture, written as Hugging Face writes it, against fair-esm's own module."""
    from transformers import EsmConfig, EsmForMaskedLM

    torch.manual_seed(3)
    config = EsmConfig(
        vocab_size=33, mask_token_id=32, pad_token_id=1, hidden_size=320, num_hidden_layers=6, num_attention_heads=20,
        intermediate_size=1280, position_embedding_type="rotary", token_dropout=True, emb_layer_norm_before=False,
        max_position_embeddings=1026, layer_norm_eps=1e-5,
    )  # fmt: skip
    EsmForMaskedLM(config).save_pretrained(tmp_path)
    # The plain path: these couplings are near rounding, and tests/models/test_esm2_fast.py judges the fast one.
    model = plmjac.load_model("esm2_8m", checkpoint=tmp_path, fast=False)
    sequence = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQ"
    ours = plmjac.categorical_jacobian(model, sequence)
    plain = plain_jacobian(model.esm, sequence)  # type: ignore[attr-defined]
    np.testing.assert_allclose(ours.numpy(), plain, atol=1e-4)
    _assert_relative(plmjac.contact_map(ours).numpy(), paper_contact_map(plain), 1e-5)


def _assert_relative(ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> None:
    scale = np.abs(theirs).max()
    assert np.abs(ours - theirs).max() <= tolerance * max(scale, 1e-12)


@pytest.mark.parametrize("length", [2, 3, 17])
def test_contact_map_is_the_papers(length: int) -> None:
    jacobian = torch.randn(length, 20, length, 20, generator=torch.Generator().manual_seed(length))
    before = jacobian.clone()
    contacts = plmjac.contact_map(jacobian)
    _assert_relative(contacts.numpy(), paper_contact_map(jacobian.numpy()), 1e-5)
    assert torch.equal(jacobian, before)
    assert torch.equal(contacts, contacts.T)
    assert (contacts.diagonal() == 0).all()
    assert torch.equal(method.contact_map(before, overwrite=True), contacts)


def test_contact_map_takes_what_a_store_gives_and_nothing_of_another_shape() -> None:
    jacobian = 300 * torch.randn(6, 20, 6, 20, generator=torch.Generator().manual_seed(6))
    half = jacobian.half()
    exact = plmjac.contact_map(half.float())
    assert torch.equal(plmjac.contact_map(half), exact) and torch.equal(plmjac.contact_map(half.numpy()), exact)
    for wrong in (torch.zeros(20, 5, 20, 5), torch.zeros(5, 20, 6, 20), torch.zeros(5, 5)):
        with pytest.raises(ValueError, match="has the shape"):
            plmjac.contact_map(wrong)


def test_contact_map_in_blocks_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    jacobian = torch.randn(9, 20, 9, 20, generator=torch.Generator().manual_seed(0))
    whole = plmjac.contact_map(jacobian)
    monkeypatch.setattr(method, "BLOCK_BYTES", 2 * 9 * 20 * 20 * 4)  # two rows at a time
    assert (plmjac.contact_map(jacobian) - whole).abs().max() <= 1e-6 * whole.abs().max()
    reduction = method.Reduction(torch.empty_like(jacobian))
    for start, stop in ((0, 4), (4, 5), (5, 9)):  # as a store's chunks arrive
        reduction.add(start, jacobian[start:stop])
    assert (reduction.contact_map() - whole).abs().max() <= 1e-6 * whole.abs().max()


def test_what_does_not_change_a_contact_map() -> None:
    generator = torch.Generator().manual_seed(5)
    jacobian = torch.randn(8, 20, 8, 20, generator=generator, dtype=torch.float64)
    contacts = plmjac.contact_map(jacobian)
    letters = torch.randperm(20, generator=generator)
    for same in (
        -jacobian,
        jacobian[:, letters][..., letters],
        jacobian + torch.randn(8, 1, 8, 20, generator=generator),
    ):
        assert torch.allclose(plmjac.contact_map(same), contacts, atol=1e-12)
    assert torch.allclose(plmjac.contact_map(3 * jacobian), 3 * contacts, atol=1e-12)


def test_center_leaves_no_mean_and_does_nothing_twice() -> None:
    jacobian = torch.randn(5, 20, 5, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    centered = method.center(jacobian)
    for axis in range(4):
        assert centered.mean(dim=axis).abs().max() < 1e-13
    assert torch.allclose(method.center(centered), centered, atol=1e-14)


def test_mask_only_jacobians_are_not_centred_away() -> None:
    jacobian = torch.randn(6, 1, 6, 20, generator=torch.Generator().manual_seed(4))
    contacts = plmjac.contact_map(jacobian)
    J = jacobian.double().numpy()
    for axis in (0, 2, 3):
        J = J - J.mean(axis, keepdims=True)
    F = np.sqrt((J**2).sum((1, 3)))
    F = (F + F.T) / 2
    np.fill_diagonal(F, 0)
    C = F - F.sum(0, keepdims=True) * F.sum(1, keepdims=True) / F.sum()
    np.fill_diagonal(C, 0)
    _assert_relative(contacts.numpy(), C, 1e-5)
    assert contacts.abs().max() > 0


def test_apc_of_a_rank_one_matrix_is_zero_and_zeros_stay_zeros() -> None:
    values = torch.rand(6, dtype=torch.float64, generator=torch.Generator().manual_seed(8))
    assert method.apc(values[:, None] * values[None, :]).abs().max() < 1e-12
    assert torch.equal(method.apc(torch.zeros(4, 4)), torch.zeros(4, 4))


def test_a_constant_model_gives_zeros_not_nan() -> None:
    jacobian = method.categorical_jacobian(lambda tokens: torch.ones(*tokens.shape, 20), torch.tensor([1, 2, 3]))
    assert torch.equal(plmjac.contact_map(jacobian), torch.zeros(3, 3))


def test_the_api_refuses_what_is_no_sequence(debug_model: LanguageModel) -> None:
    with pytest.raises(ValueError, match="position 2 holds"):
        plmjac.categorical_jacobian(debug_model, "A-C")


def test_couplings_in_memory_are_the_symmetrised_blocks() -> None:
    jacobian = torch.randn(7, 20, 7, 20, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    brute = jacobian.clone()
    for axis in range(4):
        brute = brute - brute.mean(dim=axis, keepdim=True)
    brute = (brute + brute.permute(2, 3, 0, 1)) / 2
    for i, j in ((0, 6), (6, 0), (2, 2)):
        torch.testing.assert_close(plmjac.couplings(jacobian, i, j), brute[i, :, j])
    torch.testing.assert_close(
        plmjac.couplings(jacobian.half().numpy(), 1, 4).double(), brute[1, :, 4], atol=2e-3, rtol=0
    )
    with pytest.raises(IndexError, match="outside the 7 residues"):
        plmjac.couplings(jacobian, 0, 7)
    with pytest.raises(ValueError, match="all 20 amino acids"):
        plmjac.couplings(jacobian[:, :4], 0, 1)
