"""The method: substitutions, the categorical Jacobian, and its reduction to a contact map (Zhang et al., PNAS 2024).

`jacobian[i, a, j, b]` is the change of the logit of b at position j when position i is set to a (mutant - wild type).
The contact map is center, symmetrize, frobenius_norm, zero diagonal, APC, in that order (docs/method.md says why the
order matters). Everything here is arithmetic on tensors of any device: no model, no file, no framework.

Memory: the Jacobian itself, 1,600 L^2 bytes in float32 (105 MB at L = 256), is held once; `contact_map` adds one block
of rows at a time and leaves its argument alone unless it is told that it may overwrite it.
"""

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from plmjac.alphabet import NUM_AMINO_ACIDS

Logits = Callable[[Int64[Tensor, "B L"]], Float[Tensor, "B L 20"]]
"""What the method needs of a model: tokens in, logits of the 20 amino acids at every position out."""

BLOCK_BYTES = 64 * 2**20
"""Working memory of the reductions: rows are taken in blocks of about this size."""


def all_letters() -> Int64[Tensor, " A"]:
    """The tokens a position is set to in the paper: each of the 20 amino acids."""
    return torch.arange(NUM_AMINO_ACIDS)


def substitutions(
    tokens: Int64[Tensor, " L"], start: int, stop: int, letters: Int64[Tensor, " A"]
) -> tuple[Int64[Tensor, " M"], Int64[Tensor, " M"]]:
    """Every substitution at the positions start <= i < stop, in order, the wild type left out.

    Returns the position of each mutant and the index into `letters` of the token it is set to. A position whose residue
    is not among `letters` (X, B, U, Z, O) is set to all of them.
    """
    different = tokens[start:stop, None] != letters[None, :]
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
    """How many mutants of one protein share a forward: `max_tokens` over L + 2 (BOS and EOS), at least one."""
    return max(1, max_tokens // (length + 2))


def jacobian_rows(
    logits: Logits,
    tokens: Int64[Tensor, " L"],
    start: int,
    stop: int,
    *,
    wild_type: Float[Tensor, "L 20"],
    letters: Int64[Tensor, " A"],
    max_tokens: int,
    on_forward: Callable[[int], None] = lambda _: None,
) -> Float[Tensor, "R A L 20"]:
    """The rows start <= i < stop of the Jacobian: logits of each mutant minus those of the wild type.

    The wild-type substitution is not run: its row is exactly zero. `on_forward(n)` is called after each forward of n
    mutants. Peak memory: the rows in float32 plus one forward of at most `max_tokens` tokens.
    """
    length, num_letters = len(tokens), len(letters)
    rows = torch.zeros(stop - start, num_letters, length, NUM_AMINO_ACIDS, dtype=torch.float32, device=tokens.device)
    positions, chosen = substitutions(tokens, start, stop, letters)
    size = mutants_per_forward(length, max_tokens)
    for at in range(0, len(positions), size):
        position, choice = positions[at : at + size], chosen[at : at + size]
        change = logits(mutants(tokens, position, letters[choice])).float() - wild_type
        rows[position - start, choice] = change
        on_forward(len(position))
    return rows


def categorical_jacobian(
    logits: Logits,
    tokens: Int64[Tensor, " L"],
    *,
    letters: Int64[Tensor, " A"] | None = None,
    max_tokens: int = 4096,
    on_forward: Callable[[int], None] = lambda _: None,
) -> Float[Tensor, "L A L 20"]:
    """The whole categorical Jacobian of one sequence, float32, on the device of `tokens`; A = 20 by default."""
    if letters is None:
        letters = all_letters().to(tokens.device)
    wild_type = logits(tokens[None])[0].float()
    return jacobian_rows(
        logits, tokens, 0, len(tokens), wild_type=wild_type, letters=letters, max_tokens=max_tokens,
        on_forward=on_forward,
    )  # fmt: skip


def center(jacobian: Float[Tensor, "L A M B"]) -> Float[Tensor, "L A M B"]:
    """Subtract the mean along each of the four axes in turn; axes of size 1 (mask-only) are left alone.

    The four operations commute and are idempotent. The means include the blocks i = j and the zero wild-type rows, as
    in the paper. A mean over an axis of size 1 would leave nothing but zeros.
    """
    return center_(jacobian.clone())


def center_(jacobian: Float[Tensor, "L A M B"]) -> Float[Tensor, "L A M B"]:
    """`center` in place: the argument is overwritten and returned."""
    for axis in range(4):
        if jacobian.shape[axis] > 1:
            jacobian -= jacobian.mean(dim=axis, keepdim=True)
    return jacobian


def symmetrize(jacobian: Float[Tensor, "L A L A"]) -> Float[Tensor, "L A L A"]:
    """(J[i, a, j, b] + J[j, b, i, a]) / 2."""
    return (jacobian + jacobian.permute(2, 3, 0, 1)) / 2


def frobenius_norm(couplings: Float[Tensor, "L A M B"]) -> Float[Tensor, "L M"]:
    """The norm of each A x B block: how strongly i and j are coupled."""
    return couplings.square().sum(dim=(1, 3)).sqrt()


def apc(scores: Float[Tensor, "L L"]) -> Float[Tensor, "L L"]:
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


def zero_diagonal(scores: Float[Tensor, "L L"]) -> Float[Tensor, "L L"]:
    """A copy with zeros where i = j."""
    return scores * (1 - torch.eye(len(scores), dtype=scores.dtype, device=scores.device))


def corrected(norms: Float[Tensor, "L L"]) -> Float[Tensor, "L L"]:
    """From coupling strengths to a contact map: zero diagonal, APC, zero diagonal, symmetric to the last bit."""
    scores = zero_diagonal(apc(zero_diagonal(norms)))
    return (scores + scores.T) / 2


def contact_map(jacobian: Float[Tensor, "L A L 20"], *, overwrite: bool = False) -> Float[Tensor, "L L"]:
    """The paper's contact map of a raw Jacobian: center, symmetrize, frobenius_norm, zero diagonal, APC.

    With substitutions other than the 20 amino acids the tensor has no transpose to be averaged with; then the norms
    are symmetrized instead, as ColabBio does for its mask-only mode. `overwrite=True` centers in place and saves the
    second copy of the Jacobian. Source: Zhang et al. 2024, `get_contacts` of the authors' code; docs/method.md.
    """
    centered = center_(jacobian) if overwrite else center(jacobian)
    if centered.shape[1] != centered.shape[3]:
        norms = frobenius_norm(centered)
        return corrected((norms + norms.T) / 2)
    return corrected(torch.cat([frobenius_norm(block) for block in _symmetrized_blocks(centered)]))


def _symmetrized_blocks(jacobian: Float[Tensor, "L A L A"]) -> Iterator[Float[Tensor, "R A L A"]]:
    """`symmetrize` a block of rows at a time, so that no second tensor of the Jacobian's size is needed."""
    length = len(jacobian)
    rows = max(1, BLOCK_BYTES // max(1, jacobian[:1].numel() * jacobian.element_size()))
    for start in range(0, length, rows):
        mirror = jacobian[:, :, start : start + rows].permute(2, 3, 0, 1)
        yield (jacobian[start : start + rows] + mirror) / 2
