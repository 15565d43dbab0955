"""On a CUDA device: the numbers of the CPU. What writes a store there is in test_gpu_runs.py."""

import copy

import pytest
import torch
from torch import Tensor

import plmjac
from plmjac.alphabet import encode
from plmjac.jacobian import all_letters, mutants, substitutions
from plmjac.models.esm2 import Esm2

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch sees no CUDA device here"),
]
SEQUENCE = "MKTAYIAKQRQISFVKSHFSRQLEERLGLIEVQXB"


def _exact_jacobian(model: Esm2) -> Tensor:
    """The Jacobian in float64 throughout, from fair-esm's module with the weights of `model`."""
    wide, tokens = copy.deepcopy(model.esm).double(), torch.from_numpy(encode(SEQUENCE))
    positions, letters = substitutions(tokens, 0, len(tokens), all_letters(len(tokens)))
    jacobian = torch.zeros(len(tokens), 20, len(tokens), 20, dtype=torch.float64)

    def logits(batch: Tensor) -> Tensor:
        with torch.no_grad():
            return torch.as_tensor(wide(model._to_esm(batch))["logits"][:, 1:-1, 4:24])

    wild_type = logits(tokens[None])[0]
    for at in range(0, len(positions), 128):
        some = slice(at, at + 128)
        jacobian[positions[some], letters[some]] = logits(mutants(tokens, positions[some], letters[some])) - wild_type
    return jacobian


@pytest.mark.parametrize(("fast", "compiled"), [(False, False), (True, False), (True, True)])
def test_the_jacobian_is_as_near_the_exact_one_as_that_of_the_cpu(fast: bool, compiled: bool) -> None:
    """Two devices add up in another order, so they differ by the rounding of both, and agree with neither's.

    Of logits up to 20 float32 rounds 1e-6 in each of some hundred steps: a root mean square of 6.5e-6 on a CPU, and
    1.2e-4 at the worst of 490,000 entries. Twice and four times that leave room for another order of the sums and none
    for another number: TF32 is a thousand times coarser.
    """
    plain = plmjac.load_model("debug", fast=False)
    assert isinstance(plain, Esm2)
    exact = _exact_jacobian(plain)
    on_cpu = plmjac.categorical_jacobian(plain, SEQUENCE) - exact
    model = plmjac.load_model("debug", fast=fast, compiled=compiled, precision="fp32", device="cuda")
    on_gpu = plmjac.categorical_jacobian(model, SEQUENCE)
    assert on_gpu.device.type == "cuda"
    off = on_gpu.cpu() - exact
    assert off.square().mean().sqrt() <= 2 * on_cpu.square().mean().sqrt() and off.abs().max() <= 4 * on_cpu.abs().max()
    ours, theirs = plmjac.contact_map(on_gpu).cpu(), plmjac.contact_map(exact)
    assert (ours - theirs).abs().max() <= 5e-5 * theirs.abs().max()  # rounding alone is up to 3e-5 (docs/benchmarks.md)


@pytest.mark.parametrize("precision", ["fp16", "tf32"])
def test_lower_precision_keeps_the_map(precision: str) -> None:
    full, lower = (
        plmjac.contact_map(
            plmjac.categorical_jacobian(plmjac.load_model("tiny", precision=each, device="cuda"), SEQUENCE)
        )
        for each in ("fp32", precision)
    )
    assert torch.corrcoef(torch.stack([full.flatten(), lower.flatten()]))[0, 1] >= 0.9999
