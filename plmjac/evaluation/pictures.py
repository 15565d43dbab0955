"""The picture of one protein's contact map beside its structure, as evaluations and `plmjac.plot_contacts` draw it."""

import numpy as np
from jaxtyping import Float

from plmjac import plots
from plmjac.evaluation.scoring import Labelled, touching
from plmjac.metrics import best_pairs, chance, precision_at, ranked_hits
from plmjac.plots.maps import MIN_SEPARATION
from plmjac.records import Atom
from plmjac.store import StoredProtein


def picture(
    protein: StoredProtein,
    scores: Float[np.ndarray, "L L"],
    found: Labelled | None,
    *,
    pairs: float = 1.0,
    atom: Atom = "cb",
    cutoff: float = 8.0,
    title: str | None = None,
) -> plots.Figure:
    """Draw the map with its best `pairs` x L pairs; `found` is the structure, if there is one."""
    length = len(protein)
    best = best_pairs(scores, max(1, round(pairs * length)), MIN_SEPARATION)
    numbers = getattr(protein, "residue_numbers", None) or (found.residue_numbers if found else None)
    if found is None:
        legend = f"above: scores of the map; no structure; pairs |i-j| >= {MIN_SEPARATION}"
        unknown = np.full(len(best[0]), np.nan)
        return plots.protein_map(scores, best, unknown, numbers=numbers, title=title or protein.id, legend=legend)
    contacts = found.contacts(atom, cutoff)
    hits = ranked_hits(scores, contacts, MIN_SEPARATION)
    score = f"P@L/2 {precision_at(hits, length // 2):.2f} (chance {chance(hits):.2f})"
    legend = (
        f"above: scores of the map; below, grey: {atom} < {cutoff:g} A in {found.match.structure}\n"
        f"P@L/2: share of contacts among the {length // 2} best pairs |i-j| >= {MIN_SEPARATION}; chance: among all"
    )
    return plots.protein_map(
        scores, best, touching(found, best, atom, cutoff), contacts=contacts, numbers=numbers,
        title=title or f"{protein.id}: {score}", legend=legend,
    )  # fmt: skip
