"""Best pairs of a map in the formats of other programs: CASP RR, EVcouplings, scripts for PyMOL and ChimeraX.

Residues of the sequence are counted from 1 in RR and EVcouplings files; scripts name the residues of the structure by
the author's numbers.
"""

import math
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass

COLORS = {1: ("right", "forest", "forest green"), 0: ("wrong", "firebrick", "firebrick"),
          None: ("unknown", "grey50", "gray")}  # fmt: skip
"""For a contact, none, and not known: the name of the group, PyMOL's colour, ChimeraX's colour."""


@dataclass(frozen=True)
class BestPair:
    """One pair i < j, counted from 0, of rank `rank` (from 1); `touches` is None where no structure is known.

    `fdr` is the false discovery rate, NaN where no null map tells.
    """

    i: int
    j: int
    rank: int
    score: float
    touches: bool | None = None
    fdr: float = math.nan


@dataclass(frozen=True)
class BestPairs:
    """The best pairs of one map of one protein, best first.

    `numbers` are the author's residue numbers of the structure (empty where a residue is missing), `chain` its name and
    `file` its path, as far as they are known.
    """

    protein: str
    map: str
    model: str
    sequence: str
    pairs: Sequence[BestPair]
    numbers: Sequence[str] | None = None
    chain: str = ""
    file: str = ""


def casp_rr(best: BestPairs) -> str:
    """CASP's format RR, C-beta below 8 A: scores as probabilities by their place between the lowest and the highest."""
    scores = [pair.score for pair in best.pairs]
    low, spread = min(scores, default=0.0), max(scores, default=1.0) - min(scores, default=0.0)
    origin = f"{_word(best.map)} of {_word(best.model)}: scores scaled to 0..1, no probabilities"
    lines = ["PFRMAT RR", f"TARGET {_word(best.protein)[:60]}", "AUTHOR plmjac", f"REMARK {origin}"[:80]]
    lines += ["METHOD categorical Jacobian", "MODEL 1", *textwrap.wrap(best.sequence, 50)]
    lines += [
        f"{pair.i + 1} {pair.j + 1} 0 8 {(pair.score - low) / spread if spread else 1.0:.6f}" for pair in best.pairs
    ]
    return "\n".join([*lines, "END", ""])


def evcouplings(best: BestPairs) -> str:
    """A couplings CSV as EVcouplings reads it: i, A_i, j, A_j, fn (0, as plmc writes it), cn, best first.

    Behind these fdr, where it is known.
    """
    letters, rated = best.sequence, not all(math.isnan(pair.fdr) for pair in best.pairs)
    rows = [
        f"{pair.i + 1},{letters[pair.i]},{pair.j + 1},{letters[pair.j]},0,{pair.score:.7g}"
        + (f",{pair.fdr:.4g}" if rated else "")
        for pair in best.pairs
    ]
    return "\n".join(["i,A_i,j,A_j,fn,cn" + ",fdr" * rated, *rows, ""])


def pymol(best: BestPairs) -> str:
    """A PyMOL script (.pml) that draws the pairs over the structure's cartoon."""
    lines = [f"# best pairs of {_word(best.protein)}, {_word(best.map)} of {_word(best.model)}"]
    lines.append(f"cmd.load({best.file!r}, 'structure')" if best.file else "# load the structure as `structure` first")
    lines += ["hide everything, structure", "show cartoon, structure", "color grey80, structure", "set dash_gap, 0"]
    chain = f" and chain {best.chain}" if best.chain else ""
    for group, first, second in _drawn(best):
        ends = [
            f"structure{chain} and resi {number.replace('-', chr(92) + '-')} and name CA" for number in (first, second)
        ]
        lines.append(f"distance {group}, ({ends[0]}), ({ends[1]})")
    for group, color, _ in COLORS.values():
        if any(name == group for name, *_ in _drawn(best)):
            lines += [f"hide labels, {group}", f"color {color}, {group}"]
    return "\n".join([*lines, "orient structure", ""])


def chimerax(best: BestPairs) -> str:
    """A ChimeraX script (.cxc) that draws the pairs as pseudobonds over the structure's cartoon."""
    lines = [f"# best pairs of {_word(best.protein)}, {_word(best.map)} of {_word(best.model)}"]
    lines.append(f'open "{best.file}"' if best.file else "# open the structure as model #1 first")
    lines += ["hide #1 atoms", "cartoon #1", "color #1 light gray"]
    colors = {group: color for group, _, color in COLORS.values()}
    for group, first, second in _drawn(best):
        ends = " ".join(f"#1{'/' + best.chain if best.chain else ''}:{number}@CA" for number in (first, second))
        lines.append(f'pbond {ends} color "{colors[group]}" radius 0.15 dashes 0 name {group}')
    return "\n".join([*lines, "view", ""])


FORMATS: dict[str, tuple[str, Callable[[BestPairs], str]]] = {
    "rr": ("rr", casp_rr),
    "evcouplings": ("evcouplings.csv", evcouplings),
    "pymol": ("pml", pymol),
    "chimerax": ("cxc", chimerax),
}
"""The ending of each format's file, and its writer. Scripts need the residue numbers of a structure."""

SCRIPTS = ("pymol", "chimerax")


def _drawn(best: BestPairs) -> list[tuple[str, str, str]]:
    """Group and both residue numbers of the pairs whose residues are in the structure."""
    numbers = best.numbers or [str(number + 1) for number in range(len(best.sequence))]
    named = [(COLORS[pair.touches][0], numbers[pair.i], numbers[pair.j]) for pair in best.pairs]
    return [(group, first, second) for group, first, second in named if first and second]


def _word(text: str) -> str:
    """A name on one line without blanks, so that it can be no command of its own."""
    return re.sub(r"[^\w.:|+-]+", "_", text)
