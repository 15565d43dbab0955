"""Sizes and costs: the numbers of performance tables, held against a counting profiler and real parameter counts."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from plmjac.alphabet import encode
from plmjac.models import Architecture, LanguageModel, names, size_of
from plmjac.models.debug import LinearModel, debug_model


@pytest.mark.parametrize("length", [1, 7, 40])
def test_flops_are_those_of_the_matrix_products(length: int) -> None:
    model = debug_model()
    tokens = torch.zeros((1, length), dtype=torch.int64)
    model.logits(tokens)  # fills the rotary tables, which are kept
    with FlopCounterMode(display=False) as counter:
        model.logits(tokens)
    assert counter.get_total_flops() == model.flops(length)


def test_number_of_parameters() -> None:
    model = debug_model()
    assert model.num_parameters == sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("name", "millions", "gigaflops"),
    [
        ("esm2_8m", 7.5, 4.37),
        ("esm2_35m", 33.5, 18.8),
        ("esm2_150m", 148, 81.4),
        ("esm2_650m", 651, 347),
        ("esm2_3b", 2840, 1489),
        ("esm2_15b", 15100, 7870),
    ],
)
def test_published_sizes(name: str, millions: float, gigaflops: float) -> None:
    size = size_of(name)
    assert size.num_parameters / 1e6 == pytest.approx(millions, rel=5e-3)
    assert size.flops(256) / 1e9 == pytest.approx(gigaflops, rel=2e-3)


def test_sizes_grow_in_the_order_of_the_list() -> None:
    published = [size_of(name).num_parameters for name in names() if name.startswith("esm2")]
    assert published == sorted(published) and len(published) == 6


@pytest.mark.parametrize(("numbers", "message"), [((0, 32, 4), "at least one"), ((2, 32, 5), "even multiple")])
def test_impossible_architectures(numbers: tuple[int, int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Architecture(*numbers)


def test_debug_is_the_same_for_a_seed_and_leaves_random_numbers_alone() -> None:
    tokens = torch.from_numpy(encode("MKTAYIAKQR"))[None]
    before = torch.random.get_rng_state()
    first = debug_model(3)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(1)
    second, other = debug_model(3), debug_model(4)
    assert first.weights_sha256 == second.weights_sha256 != other.weights_sha256
    for readout, value in first.read(tokens, first.readouts).items():
        assert torch.equal(value, second.read(tokens, [readout])[readout])
        assert not torch.equal(value, other.read(tokens, [readout])[readout])


def test_debug_depends_on_every_residue() -> None:
    model = debug_model()
    tokens = torch.from_numpy(encode("MKTAYIAKQR"))[None]
    mutant = tokens.clone()
    mutant[0, 4] = 0
    change = (model.logits(mutant) - model.logits(tokens)).abs().amax(-1)
    assert (change > 1e-3).all()


def test_linear_model_is_linear_in_its_one_hot_input() -> None:
    couplings = torch.randn((5, 26, 5, 20), generator=torch.Generator().manual_seed(0))
    model = LinearModel(couplings)
    assert isinstance(model, LanguageModel)
    tokens = torch.tensor([[0, 25, 3, 19, 21], [1, 25, 3, 19, 21]])
    one_hot = torch.nn.functional.one_hot(tokens, 26).float()
    expected = torch.einsum("zia,iajb->zjb", one_hot, couplings)
    torch.testing.assert_close(model.logits(tokens), expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(model.read(tokens, ["logits"])["logits"], model.logits(tokens))
    with pytest.raises(ValueError, match="has logits only, not attention"):
        model.read(tokens, ["attention"])
