"""The method: the categorical Jacobian, and its reduction to a contact map (Zhang et al., PNAS 2024).

`jacobian[i, a, j, b]` is the change of the logit of b at position j when position i is set to a (mutant - wild type).
The contact map is center, symmetrize, frobenius_norm, zero diagonal, APC, in that order (docs/method.md says why the
order matters). Everything here is arithmetic on tensors of any device: no model, no file, no framework.

Memory: the Jacobian itself, 1,600 L^2 bytes in float32 (105 MB at L = 256), is held once, and one block of rows beside
it; `contact_map` holds a second one unless it is told that it may overwrite its argument.
"""

from collections.abc import Callable, Iterator, Mapping

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from plmjac.alphabet import NUM_AMINO_ACIDS

Logits = Callable[[Int64[Tensor, "B L"]], Float[Tensor, "B L 20"]]
"""A model as the method needs it: tokens in, logits of the 20 amino acids at every position out."""

Read = Callable[[Int64[Tensor, "B L"]], Mapping[str, Tensor]]
"""The same for several readouts of one forward: `logits` (B, L, 20), `representation` (B, L, D)."""

BLOCK_BYTES = 16 * 2**20
"""Working memory of the reductions: rows are taken in blocks of about this size."""


def as_tensor(values: object) -> Tensor:
    """Real numbers as a tensor. Raises ValueError for anything else."""
    try:
        tensor = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(f"this is no array of numbers but of type {type(values).__name__}") from None
    if tensor.is_complex():
        raise ValueError("these are complex numbers; a map and a Jacobian are of real ones")
    return tensor


def all_letters(length: int) -> Int64[Tensor, "L 20"]:
    """The tokens each position is set to in the paper: each of the 20 amino acids."""
    return torch.arange(NUM_AMINO_ACIDS).expand(length, -1)


def substitutions(
    tokens: Int64[Tensor, " L"], start: int, stop: int, letters: Int64[Tensor, "L A"]
) -> tuple[Int64[Tensor, " M"], Int64[Tensor, " M"]]:
    """Every substitution at the positions start <= i < stop, in order, the wild type left out.

    Position i is set to letters[i]. Returns the position of each mutant and the index into its letters of the token it
    is set to. A position whose residue is not among its letters (X, B, U, Z, O) is set to all of them.
    """
    different = tokens[start:stop, None] != letters[start:stop]
    positions, chosen = different.nonzero(as_tuple=True)
    return positions + start, chosen


def mutants(
    tokens: Int64[Tensor, " L"], positions: Int64[Tensor, " B"], new: Int64[Tensor, " B"]
) -> Int64[Tensor, "B L"]:
    """One copy of the wild type per substitution, made where `tokens` lie (on the device)."""
    batch = tokens.repeat(len(positions), 1)
    batch[torch.arange(len(positions), device=tokens.device), positions] = new
    return batch


def mutants_per_forward(length: int, max_tokens: int) -> int:
    """The number of mutants of one protein in a forward: `max_tokens` over L + 2 (BOS and EOS), at least one."""
    return max(1, max_tokens // (length + 2))


def jacobian_rows(
    logits: Logits,
    tokens: Int64[Tensor, " L"],
    start: int,
    stop: int,
    *,
    wild_type: Float[Tensor, "L 20"],
    letters: Int64[Tensor, "L A"],
    max_tokens: int,
    on_forward: Callable[[int], None] = lambda _: None,
) -> Float[Tensor, "R A L 20"]:
    """The rows start <= i < stop of the Jacobian: logits of each mutant minus those of the wild type.

    The wild-type substitution is not run: its row is exactly zero. `on_forward(n)` is called after each forward of n
    mutants. Peak memory: the rows in float32 plus one forward of at most `max_tokens` tokens.
    """
    return changes(
        lambda batch: {"logits": logits(batch)}, tokens, start, stop, wild_type={"logits": wild_type}, letters=letters,
        max_tokens=max_tokens, on_forward=on_forward,
    )["logits"]  # fmt: skip


def changes(
    read: Read,
    tokens: Int64[Tensor, " L"],
    start: int,
    stop: int,
    *,
    wild_type: Mapping[str, Tensor],
    letters: Int64[Tensor, "L A"],
    max_tokens: int,
    on_forward: Callable[[int], None] = lambda _: None,
) -> dict[str, Tensor]:
    """The changes by the substitutions at start <= i < stop, of every readout in `wild_type`, from the same forwards.

    `logits` (R, A, L, 20) is the block of rows of the Jacobian, `representation` (R, A, L) the norm over the channels
    of the change of the hidden state, which itself is never kept. float32; the wild-type substitution is zero.
    """
    length, num_letters = len(tokens), letters.shape[1]
    sizes = {"logits": (length, NUM_AMINO_ACIDS), "representation": (length,)}
    blocks = {
        name: torch.zeros(stop - start, num_letters, *sizes[name], dtype=torch.float32, device=tokens.device)
        for name in wild_type
    }
    positions, chosen = substitutions(tokens, start, stop, letters)
    new = letters[positions, chosen]
    size = mutants_per_forward(length, max_tokens)
    for at in range(0, len(positions), size):
        position, choice = positions[at : at + size], chosen[at : at + size]
        after = read(mutants(tokens, position, new[at : at + size]))
        for name, block in blocks.items():
            change = after[name].float() - wild_type[name]
            block[position - start, choice] = change if name == "logits" else change.norm(dim=-1)
        del after, change  # or they would be there beside the next forward
        on_forward(len(position))
    return blocks


def categorical_jacobian(
    logits: Logits,
    tokens: Int64[Tensor, " L"],
    *,
    letters: Int64[Tensor, "L A"] | None = None,
    rows: tuple[int, int] | None = None,
    max_tokens: int = 4096,
    on_forward: Callable[[int], None] = lambda _: None,
) -> Float[Tensor, "R A L 20"]:
    """The categorical Jacobian of one sequence, or its rows first <= i < last; float32, on the device of `tokens`.

    A = 20 by default.
    """
    if letters is None:
        letters = all_letters(len(tokens)).to(tokens.device)
    wild_type = logits(tokens[None])[0].float()
    first, last = rows or (0, len(tokens))
    return jacobian_rows(
        logits, tokens, first, last, wild_type=wild_type, letters=letters, max_tokens=max_tokens,
        on_forward=on_forward,
    )  # fmt: skip


def center(jacobian: Float[Tensor, "L A M B"]) -> Float[Tensor, "L A M B"]:
    """Subtract the mean along each of the four axes in turn; axes of size 1 (mask-only) are left alone.

    The four operations commute and are idempotent. The means include the blocks i = j and the zero wild-type rows, as
    in the paper. A mean over an axis of size 1 would leave nothing but zeros.
    """
    centered = jacobian.clone()
    for axis in range(4):
        if centered.shape[axis] > 1:
            centered -= centered.mean(dim=axis, keepdim=True)
    return centered


def symmetrize(jacobian: Float[Tensor, "L A L A"]) -> Float[Tensor, "L A L A"]:
    """(J[i, a, j, b] + J[j, b, i, a]) / 2."""
    return (jacobian + jacobian.permute(2, 3, 0, 1)) / 2


def frobenius_norm(couplings: Float[Tensor, "L A M B"]) -> Float[Tensor, "L M"]:
    """The norm of each A x B block: how strongly i and j are coupled."""
    return couplings.square().sum(dim=(1, 3)).sqrt()


def apc(scores: Float[Tensor, "R L"]) -> Float[Tensor, "R L"]:
    """Average product correction: F_ij - (sum_k F_ik)(sum_k F_kj) / sum_kl F_kl (Dunn et al. 2008).

    Sums run over all entries, so a diagonal that was set to zero stays in the means, as in the paper. Where all scores
    are zero (L = 1, a model that ignores its input) there is nothing to correct and zeros come back, not NaN.
    """
    # In float64, whose rounding leaves a float32 result the same whatever the number of threads that summed.
    wide = scores.double()
    row, column = wide.sum(dim=1, keepdim=True), wide.sum(dim=0, keepdim=True)
    total = row.sum()
    expected = torch.where(total == 0, torch.zeros_like(wide), row * column / total)
    return (wide - expected).to(scores.dtype)


def zero_diagonal(scores: Float[Tensor, "R L"], first: int = 0) -> Float[Tensor, "R L"]:
    """A copy with zeros where i = j; the rows are those from `first` on."""
    apart = scores.clone()
    apart.diagonal(first).zero_()
    return apart


def corrected(norms: Float[Tensor, "R L"], first: int = 0) -> Float[Tensor, "R L"]:
    """From coupling strengths to a contact map: zero diagonal, APC, zero diagonal, symmetric to the last bit."""
    return symmetrize_scores(zero_diagonal(apc(zero_diagonal(norms, first)), first), first)


def symmetrize_scores(scores: Float[Tensor, "R L"], first: int = 0) -> Float[Tensor, "R L"]:
    """The mean of (i, j) and (j, i) where both are there, of the rows from `first` on; the others as they are."""
    square = scores[:, first : first + len(scores)]
    mean = (square + square.T) / 2
    return torch.cat([scores[:, :first], mean, scores[:, first + len(scores) :]], dim=1)


def steps(rows: Float[Tensor, "R A L 20"]) -> Float[Tensor, "R L"]:
    """The step of each block (i, j) in int8: its largest absolute value over 127, as float16 has it."""
    return (rows.abs().amax(dim=(1, 3)) / 127).half().float()


def in_steps(rows: Float[Tensor, "R A L 20"]) -> Float[Tensor, "R A L 20"]:
    """Whole numbers from -127 to 127, to be multiplied with `steps`: half a step from the rows, or a hair more.

    Rounding the step to float16 can leave the largest value of a block 0.06 steps short. A block of zeros, and one too
    small for a step in float16 (6e-8), is zero.
    """
    step = steps(rows)[:, None, :, None]
    whole = (rows / torch.where(step > 0, step, torch.ones_like(step))).round().clamp(-127, 127)
    return torch.where(step > 0, whole, torch.zeros_like(whole))


MIN_SEPARATION = 6
"""Couplings of pairs nearer than this along the sequence are not among those that are kept."""


def pairs_by_score(scores: Float[Tensor, "L L"], per_residue: float) -> tuple[Int64[Tensor, " P"], Int64[Tensor, " P"]]:
    """The pairs i < j, |i - j| >= 6, of the highest scores: `num_pairs` of them, in the order of their scores."""
    first, second = torch.triu_indices(len(scores), len(scores), MIN_SEPARATION, device=scores.device)
    order = torch.argsort(scores[first, second], descending=True, stable=True)[: num_pairs(len(scores), per_residue)]
    return first[order], second[order]


def num_pairs(length: int, per_residue: float) -> int:
    """`per_residue` pairs a residue, or all that are |i - j| >= 6 apart."""
    apart = max(0, length - MIN_SEPARATION)
    return min(round(per_residue * length), apart * (apart + 1) // 2)


def among_all(
    rows: Float[Tensor, "R A L 20"], letters: Int64[Tensor, "R A"], tokens: Int64[Tensor, " R"]
) -> Float[Tensor, "R 20 L 20"]:
    """Rows of some amino acids in their places among all 20; `tokens` are the wild type's at these positions.

    A row that was not tried is the mean of those that were; the wild type's own is zero. docs/method.md compares it
    with other ways to fill them.
    """
    here = torch.arange(len(rows), device=rows.device)
    tried = (letters != tokens[:, None]).sum(dim=1).clamp(min=1)
    mean = rows.sum(dim=1) / tried[:, None, None]
    full = mean[:, None].expand(-1, NUM_AMINO_ACIDS, -1, -1).clone()
    full[here[:, None], letters] = rows
    known = tokens < NUM_AMINO_ACIDS
    full[here[known], tokens[known]] = 0
    return full


def contact_map(
    jacobian: Float[Tensor, "R A L 20"], first: int = 0, *, overwrite: bool = False
) -> Float[Tensor, "R L"]:
    """The paper's contact map of a raw Jacobian: center, symmetrize, frobenius_norm, zero diagonal, APC.

    Of some rows of a Jacobian, those from `first` on, it is that of `Reduction`. Rows of fewer amino acids go through
    `among_all` first. A tensor of other than 20 substitutions (MASK) has no transpose to be averaged with; then the
    norms are symmetrized instead, as ColabBio does for its mask-only mode. `overwrite=True` centers in place and saves
    the second copy of the Jacobian. Source: Zhang et al. 2024, `get_contacts` of the authors' code; docs/method.md.
    """
    reduction = Reduction(jacobian if overwrite else torch.empty_like(jacobian), first)
    for start, stop in _blocks(jacobian):
        reduction.add(start, jacobian[start:stop])
    return reduction.contact_map()


class Reduction:
    """From blocks of rows, as they are computed, to the contact map, in two passes over the tensor.

    The first centers each block along a, j and b as it arrives and adds it up; the second subtracts the mean over i
    from both directions of a pair, adds them and takes the norm. Projections commute, so this is exact.
    `buffer` (R, A, L, 20) is all that is held besides one block; it may be the tensor that the blocks are taken from.
    Rows of fewer amino acids go through `among_all` first.

    R is L, or the buffer holds the rows from `first` on, of residues that alone were mutated. Then pairs of two of
    these are symmetrized, all others are known in one direction, APC is that of the R x L scores, and the mean over i
    is the sum over L: the mean of a few rows is mostly the large change of a position's own logits.
    """

    def __init__(self, buffer: Float[Tensor, "R A L 20"], first: int = 0) -> None:
        self.buffer = buffer
        self.first = first
        self.total = torch.zeros_like(buffer[0])

    def add(self, start: int, rows: Float[Tensor, "N A L 20"]) -> None:
        """Take the rows from `start` of the buffer on; they are left alone unless they are part of the buffer."""
        block = self.buffer[start : start + len(rows)]
        if block.data_ptr() != rows.data_ptr():
            block.copy_(rows)
        for axis in (1, 2, 3):
            if block.shape[axis] > 1:
                block -= block.mean(dim=axis, keepdim=True)
        self.total += block.sum(dim=0)

    def contact_map(self) -> Float[Tensor, "R L"]:
        """The map, once every row was added; the buffer stays as it is."""
        return corrected(self.norms(), self.first)

    def couplings(self, first: Int64[Tensor, " P"], second: Int64[Tensor, " P"]) -> Float[Tensor, "P 20 20"]:
        """The centred, symmetrised blocks of pairs, amino acid of `first` down and of `second` across.

        Of a buffer that holds the rows of all residues.
        """
        there = self.buffer[first, :, second, :] - self._mean[:, second].transpose(0, 1)
        back = self.buffer[second, :, first, :] - self._mean[:, first].transpose(0, 1)
        return (there + back.transpose(1, 2)) / 2

    def norms(self) -> Float[Tensor, "R L"]:
        """The coupling strength of each pair, not yet corrected, the diagonal included."""
        centered, mean, first = self.buffer, self._mean, self.first
        both_ways = slice(first, first + len(centered))
        if centered.shape[1] != centered.shape[3]:
            norms = torch.cat([frobenius_norm(centered[start:stop] - mean) for start, stop in _blocks(centered)])
            return symmetrize_scores(norms, first)
        norms = centered.new_empty(len(centered), centered.shape[2])
        for start, stop in _blocks(centered):
            there = centered[start:stop] - mean
            columns = slice(first + start, first + stop)
            there[:, :, both_ways] += (centered[:, :, columns] - mean[:, columns]).permute(2, 3, 0, 1)
            there[:, :, both_ways] /= 2
            norms[start:stop] = frobenius_norm(there)
        return norms

    @property
    def _mean(self) -> Float[Tensor, "A L 20"]:
        """The mean over i, rows that were not computed counted as zero; zeros for a single residue."""
        length = self.buffer.shape[2]
        return self.total / length if length > 1 else torch.zeros_like(self.total)


def representation_map(strength: Float[Tensor, "R L"], first: int = 0) -> Float[Tensor, "R L"]:
    """The contact map of the representation Jacobian: symmetrize, APC, zero diagonal.

    `strength[i, j]` is the norm of the change of the hidden state at j, averaged over the substitutions at i; its rows
    are those from `first` on. Nothing is centered, and the diagonal stays in the sums of APC. Source: "repr-CJ" of
    Thorstenson, arXiv 2606.21876.
    """
    return symmetrize_scores(zero_diagonal(apc(symmetrize_scores(strength, first)), first), first)


def _blocks(jacobian: Float[Tensor, "L A M B"]) -> Iterator[tuple[int, int]]:
    """Ranges of rows that take about BLOCK_BYTES."""
    length = len(jacobian)
    rows = max(1, BLOCK_BYTES // max(1, jacobian[:1].numel() * jacobian.element_size()))
    return ((start, min(start + rows, length)) for start in range(0, length, rows))
