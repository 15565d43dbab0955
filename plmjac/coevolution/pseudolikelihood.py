"""A Markov random field of an alignment by pseudolikelihood, in the manner of GREMLIN, and its couplings.

    log p(x_i = a | the rest) = v[i, a] + sum over j of W[i, a, j, x_j] - log of the sum of that over a

maximised over fields v and symmetric couplings W (no block i = j), each sequence with its weight, minus
0.01 |v|^2 and 0.2 (L - 1) times the squares of all couplings of pairs i < j. Those are the strengths of GREMLIN_TF
(0.01 * 0.5 * (L - 1) * (21 - 1) for i < j and i > j each) and CCMpred (`lambda_pair_factor` 0.2). Sources: Balakrishnan
et al. 2011; Kamisetty, Ovchinnikov & Baker 2013; Seemayer, Gruber & Soding 2014.

The gap is a state like the others while fitting, and its couplings are dropped from the result. L-BFGS on a strictly
convex function from a fixed start, in float32: the same numbers every time on one machine with one number of threads.
A sum over one-hot rows is a look-up (`embedding_bag`), 21 times less arithmetic than the matrix product it stands for.

The whole matrix is held: about `memory_needed(L, N)` bytes (0.8 GB at L = 200, 7.3 GB at L = 600).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32, Int8, Int64
from torch import Tensor

from plmjac.alphabet import NUM_AMINO_ACIDS
from plmjac.coevolution.alignment import NUM_STATES

IDENTITY = 0.8
"""Sequences that are identical in this share of the columns or more count as neighbours and share one weight."""

ITERATIONS = 30
FIELD_PENALTY = 0.01
COUPLING_PENALTY = 0.2

_HISTORY = 5

_BLOCK, _COLUMNS = 512, 4
"""Sequences and columns taken at once: what is looked up then stays in the processor's cache (2.5 times as fast)."""


@dataclass(frozen=True, eq=False)
class MarkovRandomField:
    """Fields and symmetric couplings between columns over 21 states, and how the fit went.

    `objective` is the penalised negative log pseudolikelihood that was reached after `evaluations` of it.
    """

    fields: Float[Tensor, "L 21"]
    pairs: Float[Tensor, "L 21 L 21"]
    objective: float
    evaluations: int

    @property
    def couplings(self) -> Float[Tensor, "L 20 L 20"]:
        """In the zero-sum gauge, the gap's rows and columns left out; axes, letters and sign as in the Jacobian."""
        return zero_sum(self.pairs)[:, :NUM_AMINO_ACIDS, :, :NUM_AMINO_ACIDS].contiguous()


def zero_sum(pairs: Float[Tensor, "L A L A"]) -> Float[Tensor, "L A L A"]:
    """The same model with couplings that sum to zero over either state of a pair (fields take up the rest)."""
    rows = pairs - pairs.mean(dim=1, keepdim=True)
    return rows - rows.mean(dim=3, keepdim=True)


def sequence_weights(alignment: Int8[np.ndarray, "N L"], identity: float = IDENTITY) -> Float32[np.ndarray, " N"]:
    """One over the number of sequences (itself included) with at least this share of equal columns, gaps counted.

    Their sum is Neff, the effective number of sequences. Source: GREMLIN_TF (`eff_cutoff`).
    """
    number, length = alignment.shape
    encoded = F.one_hot(torch.from_numpy(alignment.astype(np.int64)), NUM_STATES).float().reshape(number, -1)
    neighbours = torch.empty(number)
    for block in _blocks(number, _BLOCK):
        equal = encoded[block] @ encoded.T  # counts below 2^24: exact in float32
        neighbours[block] = (equal >= identity * length - 1e-6).sum(dim=1).float()
    weights: Float32[np.ndarray, " N"] = (1 / neighbours).numpy()
    return weights


def memory_needed(length: int, number: int) -> int:
    """Bytes that a fit of this many columns and sequences takes at its peak, within a fifth.

    What L-BFGS keeps of W, W itself, and the one-hot sequences that the weights are counted with.
    """
    pairs = length * (length - 1) // 2 * NUM_STATES**2
    # Of the pairs: point, gradient, step, their copies in the line search, and two vectors a step of history.
    vectors = (2 * _HISTORY + 7) * 4 * pairs
    square = 4 * (length * NUM_STATES) ** 2
    return vectors + 3 * square + 4 * NUM_STATES * length * number


def fit_pseudolikelihood(
    alignment: Int8[np.ndarray, "N L"],
    weights: Float32[np.ndarray, " N"],
    *,
    iterations: int = ITERATIONS,
    field_penalty: float = FIELD_PENALTY,
    coupling_penalty: float = COUPLING_PENALTY,
) -> MarkovRandomField:
    """The Markov random field of an alignment of states 0 to 20; `coupling_penalty` is multiplied by L - 1.

    At most `iterations` steps of L-BFGS from the fields of the profile and no couplings. Raises ValueError for fewer
    than two sequences.
    """
    number, length = alignment.shape
    if number < 2:
        raise ValueError(f"couplings need two sequences or more; the alignment has {number}")
    objective = Pseudolikelihood(alignment, weights, field_penalty, coupling_penalty * (length - 1))
    point = objective.start().requires_grad_()
    point.grad = torch.zeros_like(point)
    optimizer = torch.optim.LBFGS(
        [point], max_iter=iterations, max_eval=2 * iterations, history_size=_HISTORY, line_search_fn="strong_wolfe"
    )
    values: list[float] = []

    @torch.no_grad()
    def closure() -> float:
        assert point.grad is not None
        values.append(objective(point, point.grad))
        return values[-1]

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    fields, pairs = objective.unpack(point.detach())
    shape = (length, NUM_STATES, length, NUM_STATES)
    return MarkovRandomField(fields, pairs.reshape(shape), min(values), len(values))


class Pseudolikelihood:
    """The penalised negative log pseudolikelihood of an alignment and its gradient.

    A point is one vector: the fields (L, 21), then the blocks (21, 21) of the pairs i < j in order. float32, or the
    type of the points it is asked for.
    """

    def __init__(
        self,
        alignment: Int8[np.ndarray, "N L"],
        weights: Float32[np.ndarray, " N"],
        field_penalty: float,
        coupling_penalty: float,
    ) -> None:
        self.states = torch.from_numpy(alignment.astype(np.int64))
        self.weights = torch.from_numpy(weights)
        self.length = alignment.shape[1]
        self.first, self.second = torch.triu_indices(self.length, self.length, 1)
        self.field_penalty, self.coupling_penalty = field_penalty, coupling_penalty
        self._batches = [
            _Batch.of(self.states[block], self.weights[block]) for block in _blocks(len(self.states), _BLOCK)
        ]
        self._square: Tensor | None = None

    def start(self) -> Float32[Tensor, " P"]:
        """Fields that give each column its (weighted) profile with 0.01 log Neff pseudocounts, and no couplings."""
        counts = torch.zeros(self.length, NUM_STATES)
        for batch in self._batches:
            counts += (F.one_hot(batch.states, NUM_STATES) * batch.weights[:, None, None]).sum(dim=0)
        # At least a thousandth of a sequence, for an alignment so small that log Neff is zero.
        profile = (counts + max(1e-3, 0.01 * float(self.weights.sum().log()))).log()
        point = torch.zeros(self.length * NUM_STATES + len(self.first) * NUM_STATES**2)
        point[: self.length * NUM_STATES] = (profile - profile.mean(dim=1, keepdim=True)).flatten()
        return point

    def unpack(self, point: Float[Tensor, " P"]) -> tuple[Float[Tensor, "L 21"], Float[Tensor, "M M"]]:
        """The fields, and the couplings as a symmetric matrix of side 21 L; it is overwritten by the next call."""
        split = self.length * NUM_STATES
        if self._square is None or self._square.dtype != point.dtype:
            self._square = torch.zeros(split, split, dtype=point.dtype)
        blocks = self._by_pair(self._square)
        upper = point[split:].reshape(-1, NUM_STATES, NUM_STATES)
        blocks[self.first, self.second] = upper
        blocks[self.second, self.first] = upper.transpose(1, 2)
        return point[:split].reshape(self.length, NUM_STATES), self._square

    def _by_pair(self, square: Float[Tensor, "M M"]) -> Float[Tensor, "L L 21 21"]:
        """A view in which [i, j] is the block of the pair."""
        return square.view(self.length, NUM_STATES, self.length, NUM_STATES).permute(0, 2, 1, 3)

    def __call__(self, point: Float[Tensor, " P"], gradient: Float[Tensor, " P"]) -> float:
        """The value at a point; its gradient is written into the second argument."""
        fields, square = self.unpack(point)
        split = self.length * NUM_STATES
        of_fields = torch.zeros_like(fields)
        of_square = torch.empty_like(square)
        value = 0.0
        for columns in _blocks(self.length, _COLUMNS):
            part = slice(NUM_STATES * columns.start, NUM_STATES * columns.stop)
            table = square[:, part].contiguous()
            of_table = torch.zeros_like(table)
            for batch in self._batches:
                value += batch.add(columns, fields[columns], table, of_fields[columns], of_table)
            of_square[:, part] = of_table
        blocks = self._by_pair(of_square)
        gradient[:split] = of_fields.flatten()
        both = blocks[self.first, self.second]
        both += blocks[self.second, self.first].transpose(1, 2)
        gradient[split:] = both.flatten()
        for half, penalty in ((slice(0, split), self.field_penalty), (slice(split, None), self.coupling_penalty)):
            value += penalty * float(point[half].dot(point[half]))
            gradient[half].add_(point[half], alpha=2 * penalty)
        return value


@dataclass(frozen=True, eq=False)
class _Batch:
    """Some sequences, as rows of the one-hot matrix to look up, forwards and backwards.

    `rows[n, j]` is 21 j + the state of sequence n at j. `sequences` lists the sequences that have each of the 21 L
    rows, one row after the other from `offsets`.
    """

    states: Int64[Tensor, "N L"]
    rows: Int64[Tensor, "N L"]
    weights: Float32[Tensor, " N"]
    sequences: Int64[Tensor, " NL"]
    offsets: Int64[Tensor, " M"]

    @classmethod
    def of(cls, states: Int64[Tensor, "N L"], weights: Float32[Tensor, " N"]) -> "_Batch":
        number, length = states.shape
        rows = states + NUM_STATES * torch.arange(length)
        flat, order = rows.T.reshape(-1).sort(stable=True)
        offsets = torch.searchsorted(flat, torch.arange(NUM_STATES * length))
        return cls(states, rows, weights, order % number, offsets)

    def add(
        self,
        columns: slice,
        fields: Float[Tensor, "C 21"],
        table: Float[Tensor, "M C_21"],
        of_fields: Float[Tensor, "C 21"],
        of_table: Float[Tensor, "M C_21"],
    ) -> float:
        """The negative log pseudolikelihood of some columns; adds its gradient to the last two arguments.

        `table[21 j + b, 21 i + a]` is W[i, a, j, b] for the columns i; `of_table` is given the derivative by it through
        the conditionals of these columns alone, blocks i = j included.
        """
        number = len(self.states)
        logits = F.embedding_bag(self.rows, table, mode="sum").view(number, -1, NUM_STATES) + fields
        normalizer = logits.logsumexp(dim=2, keepdim=True)
        chosen = self.states[:, columns, None]
        weights = self.weights.to(logits.dtype)[:, None, None]
        value = float((weights * (normalizer - logits.gather(2, chosen))).sum(dtype=torch.float64))
        residual = logits.sub_(normalizer).exp_()
        residual.scatter_add_(2, chosen, torch.full_like(residual[:, :, :1], -1.0))
        residual *= weights
        of_fields += residual.sum(dim=0)
        of_table += F.embedding_bag(self.sequences, residual.view(number, -1), self.offsets, mode="sum")
        return value


def _blocks(number: int, size: int) -> Iterator[slice]:
    """Half-open ranges of up to `size` of a number of things."""
    return (slice(start, min(number, start + size)) for start in range(0, number, size))
