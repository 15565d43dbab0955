"""The Markov random field: its objective against one written out, its gradient, and couplings that are known."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from plmjac.coevolution import fit_pseudolikelihood, sequence_weights
from plmjac.coevolution.baselines import BASELINES, Limits
from plmjac.coevolution.pseudolikelihood import Pseudolikelihood, zero_sum
from plmjac.jacobian import contact_map

RNG = np.random.default_rng(0)
ALIGNMENT = RNG.integers(0, 21, (9, 3)).astype(np.int8)
WEIGHTS = RNG.random(9).astype(np.float32)


def _written_out(point: Tensor, alignment: np.ndarray, weights: np.ndarray, penalties: tuple[float, float]) -> Tensor:
    """The penalised negative log pseudolikelihood as loops over sequences, columns and pairs, for autograd."""
    length = alignment.shape[1]
    fields = point[: length * 21].reshape(length, 21)
    blocks = dict(zip(itertools.combinations(range(length), 2), point[length * 21 :].reshape(-1, 21, 21), strict=True))
    value = penalties[0] * (fields**2).sum() + penalties[1] * sum((block**2).sum() for block in blocks.values())
    for row, weight in zip(alignment, weights, strict=True):
        for i in range(length):
            energies = fields[i]
            for j in range(length):
                if i < j:
                    energies = energies + blocks[i, j][:, row[j]]
                elif j < i:
                    energies = energies + blocks[j, i][row[j], :]
            value = value - float(weight) * (energies[row[i]] - energies.exp().sum().log())
    return value


def test_value_and_gradient_are_those_of_the_formula() -> None:
    objective = Pseudolikelihood(ALIGNMENT, WEIGHTS, 0.01, 0.4)
    point = torch.from_numpy(RNG.normal(size=3 * 21 + 3 * 441)).requires_grad_()
    expected = _written_out(point, ALIGNMENT, WEIGHTS, (0.01, 0.4))
    expected.backward()
    gradient = torch.zeros_like(point.detach())
    assert objective(point.detach(), gradient) == pytest.approx(float(expected), rel=1e-12)
    assert point.grad is not None
    np.testing.assert_allclose(gradient.numpy(), point.grad.numpy(), atol=1e-10)


def test_gradient_is_the_slope() -> None:
    objective = Pseudolikelihood(ALIGNMENT, WEIGHTS, 0.01, 0.4)
    point, direction = (torch.from_numpy(RNG.normal(size=3 * 21 + 3 * 441)) for _ in range(2))
    gradient, unused = torch.zeros_like(point), torch.zeros_like(point)
    objective(point, gradient)
    slope = (objective(point + 1e-5 * direction, unused) - objective(point - 1e-5 * direction, unused)) / 2e-5
    assert slope == pytest.approx(float(gradient.dot(direction)), rel=1e-7)


def test_sequences_in_several_batches_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    point = torch.from_numpy(RNG.normal(size=3 * 21 + 3 * 441))
    gradients = [torch.zeros_like(point), torch.zeros_like(point)]
    whole = Pseudolikelihood(ALIGNMENT, WEIGHTS, 0.01, 0.4)(point, gradients[0])
    monkeypatch.setattr("plmjac.coevolution.pseudolikelihood._BLOCK", 4)
    assert Pseudolikelihood(ALIGNMENT, WEIGHTS, 0.01, 0.4)(point, gradients[1]) == pytest.approx(whole, rel=1e-12)
    np.testing.assert_allclose(gradients[0].numpy(), gradients[1].numpy(), atol=1e-12)


def test_weights_count_neighbours() -> None:
    alignment = np.array([[0, 1, 2, 3, 20], [0, 1, 2, 3, 4], [0, 1, 2, 5, 6], [7, 8, 9, 10, 11]], dtype=np.int8)
    # The first two share 4 of 5 columns, no other pair more than 3.
    assert sequence_weights(alignment).tolist() == [0.5, 0.5, 1.0, 1.0]
    assert sequence_weights(alignment, identity=0.6).tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 1])


def _sampled(letters: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Sequences drawn exactly from a random field over a few letters in a chain of four columns, and its couplings."""
    rng = np.random.default_rng(1)
    couplings = np.zeros((4, letters, 4, letters))
    for i, j in [(0, 1), (1, 2), (2, 3)]:
        block = rng.normal(size=(letters, letters))
        couplings[i, :, j, :] = block - block.mean(0) - block.mean(1)[:, None] + block.mean()
        couplings[j, :, i, :] = couplings[i, :, j, :].T
    states = np.array(list(itertools.product(range(letters), repeat=4)))
    energies = sum(couplings[i, states[:, i], j, states[:, j]] for i, j in itertools.combinations(range(4), 2))
    weights = np.exp(np.asarray(energies))
    return states[rng.choice(len(states), number, p=weights / weights.sum())].astype(np.int8), couplings


def test_known_couplings_come_back() -> None:
    alignment, truth = _sampled(letters=5, number=8_000)
    weights = np.ones(len(alignment), dtype=np.float32)
    field = fit_pseudolikelihood(alignment, weights, iterations=60, coupling_penalty=1e-3)
    found = zero_sum(field.pairs[:, :5, :, :5]).double().numpy()
    linked = truth != 0
    assert np.corrcoef(found[linked], truth[linked])[0, 1] > 0.99
    assert np.abs(found - truth).max() < 0.4
    norms = np.sqrt((found**2).sum(axis=(1, 3)))
    assert min(norms[0, 1], norms[1, 2], norms[2, 3]) > 5 * max(norms[0, 2], norms[0, 3], norms[1, 3])


def test_couplings_are_symmetric_centred_and_the_same_every_time() -> None:
    alignment = RNG.integers(0, 21, (200, 7)).astype(np.int8)
    first, second = (fit_pseudolikelihood(alignment, sequence_weights(alignment)) for _ in range(2))
    assert torch.equal(first.pairs, second.pairs)
    assert torch.equal(first.pairs, first.pairs.permute(2, 3, 0, 1))
    assert not first.pairs.diagonal(dim1=0, dim2=2).any()
    assert first.couplings.shape == (7, 20, 7, 20)
    np.testing.assert_allclose(zero_sum(first.pairs).sum(dim=1).numpy(), 0, atol=1e-5)


def test_the_map_is_made_by_the_code_of_the_jacobian() -> None:
    alignment = RNG.integers(0, 21, (50, 6)).astype(np.int8)
    contacts, _ = BASELINES["mrf"](alignment, Limits(memory=1e9, iterations=5))
    field = fit_pseudolikelihood(alignment, sequence_weights(alignment), iterations=5)
    np.testing.assert_array_equal(contacts, contact_map(field.couplings).numpy())


def test_one_sequence_is_refused() -> None:
    with pytest.raises(ValueError, match="two sequences"):
        fit_pseudolikelihood(np.zeros((1, 3), dtype=np.int8), np.ones(1, dtype=np.float32))
