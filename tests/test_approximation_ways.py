"""The comparison of ways to a map: its designs, and its solve where the answer is known."""

import sys

import numpy as np
import torch
from support import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import approximation_ways as ways

from plmjac.jacobian import contact_map

TOKENS = torch.tensor([3, 7, 0, 19, 12, 4])


def test_every_forward_has_its_substitutions_and_every_letter_its_turn() -> None:
    for together in (1, 2, 3):
        design = ways.designed(TOKENS, together, 19 * 6 // together, np.random.default_rng(0))
        assert (design.sum(dim=(1, 2)) == together).all() and (design.sum(dim=2) <= 1).all()
        counts = design.sum(dim=0)
        assert (counts[torch.arange(6), TOKENS] == 0).all() and counts.sum() == 19 * 6
        assert counts.max() - counts[counts > 0].min() <= 1


def test_the_solve_finds_sparse_couplings_of_an_additive_model() -> None:
    """Each position is coupled to one other; a third of the forwards that rows one by one would take."""
    couplings = torch.zeros(6, 20, 6, 20)
    for i, j in ((0, 4), (1, 3), (2, 5)):
        block = torch.randn(20, 20, generator=torch.Generator().manual_seed(i))
        couplings[i, :, j], couplings[j, :, i] = block, block.T
    couplings -= couplings[torch.arange(6), TOKENS][:, None].clone()
    design = ways.designed(TOKENS, 2, 40, np.random.default_rng(0))
    changes = torch.einsum("nia,iajb->njb", design.float(), couplings)
    found, full = contact_map(ways.solved(design, changes)), contact_map(couplings)
    first, second = torch.triu_indices(6, 6, 1)
    best = found[first, second].topk(3).indices.sort().values
    assert torch.equal(best, full[first, second].topk(3).indices.sort().values)


def test_the_ways_agree_where_every_letter_was_tried() -> None:
    full = torch.randn(6, 20, 6, 20, generator=torch.Generator().manual_seed(0))
    full[torch.arange(6), TOKENS] = 0
    choice = ways.drawn(TOKENS, 19, np.random.default_rng(0))
    rows = full[torch.arange(6)[:, None], choice]
    for way in (ways.zero_filled, ways.mean_filled):
        torch.testing.assert_close(way(rows, choice, TOKENS), contact_map(full))
