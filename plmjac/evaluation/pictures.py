"""The picture of one protein's contact map beside its structure, as evaluations and `plmjac.plot_contacts` draw it."""

from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from plmjac import plots
from plmjac.alphabet import clean
from plmjac.datasets import build
from plmjac.evaluation.structures import Labelled, Structures, touching
from plmjac.jacobian import as_tensor
from plmjac.metrics import best_pairs, chance, precision_at, ranked_hits
from plmjac.plots.maps import MIN_SEPARATION
from plmjac.records import Atom, Protein
from plmjac.store import StoredProtein


def plot_contacts(
    protein: StoredProtein | Tensor | np.ndarray,
    structure: str | Path | Protein | None = None,
    *,
    sequence: str | None = None,
    name: str = "contacts",
    pairs: float = 1.0,
    atom: Atom = "cb",
    cutoff: float = 8.0,
    title: str | None = None,
    path: str | Path | None = None,
) -> plots.Figure:
    """Draw a contact map: scores above, below them the structure's contacts and the best `pairs` x L pairs.

    `protein` is one of a store (`name` says which of its maps), or a map (L, L) with its `sequence`. `structure` is a
    PDB or mmCIF file, a folder of these, or a `Protein` with a structure; its chain is found by id or sequence as in
    evaluations. Contacts are `atom`s closer than `cutoff` angstrom. With `path` the figure is written there as well.
    Raises ValueError where the structure has no chain of this sequence.
    """
    if isinstance(protein, StoredProtein):
        stored, scores = protein, protein.array(name)
    else:
        scores = as_tensor(protein).detach().cpu().numpy()
        if scores.ndim != 2 or scores.shape[0] != scores.shape[1]:
            raise ValueError(f"a contact map has the shape (L, L), this has {scores.shape}")
        stored = StoredProtein(Path(), "protein", clean(sequence)[0] if sequence else "X" * len(scores))
    if len(stored) != len(scores):
        raise ValueError(f"a map of {len(scores)} residues and a sequence of {len(stored)}")
    found = None
    if structure is not None:
        read = [structure] if isinstance(structure, Protein) else build("pdb", path=str(structure))
        structures = Structures(each for each in read if isinstance(each, Protein))
        answer = structures.find(stored)
        if isinstance(answer, str):
            raise ValueError(f"{structure}: {answer}; give the protein's sequence=...")
        found = answer
    figure = picture(stored, scores, found, pairs=pairs, atom=atom, cutoff=cutoff, title=title)
    if path is not None:
        plots.save(figure, Path(path))
    return figure


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
