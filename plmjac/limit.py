"""Limits of length and position: proteins that are skipped, cropped or cut into windows, and residues to mutate."""

import re
from dataclasses import dataclass, replace
from typing import Any, Literal

from plmjac.files import UsageError
from plmjac.records import Protein


def parse_positions(text: str) -> tuple[int, int]:
    """Parse "120:180" to a half-open range. Raises ValueError."""
    match = re.fullmatch(r"([0-9]{1,7}):([0-9]{1,7})", text)
    if match is None or int(match[1]) >= int(match[2]):
        raise ValueError(
            f"positions={text}: write positions=START:STOP, residues counted from 0 and STOP not among them: "
            "the first 60 residues are 0:60 (in a YAML file between quotes)"
        )
    return int(match[1]), int(match[2])


@dataclass(frozen=True)
class Limit:
    """The part of a protein that is computed: the residues that the model sees, and those that are mutated.

    A protein of at most `max_length` (of the settings) and `model_length` residues is seen whole. `too_long` decides
    about longer ones: skip (with a reason in the manifest), error, crop to their first residues, or window: overlapping
    windows of the largest length, whose results are joined. `positions` are the mutated residues, half-open; None: all.
    """

    max_length: int | None = None
    model_length: int | None = None
    too_long: Literal["skip", "error", "crop", "window"] = "skip"
    positions: tuple[int, int] | None = None

    @property
    def length(self) -> int | None:
        """Residues of the longest protein or window; None without a limit."""
        return min((each for each in (self.max_length, self.model_length) if each is not None), default=None)

    @property
    def window(self) -> int | None:
        """Residues of a window; None unless longer proteins are cut into windows."""
        return self.length if self.too_long == "window" else None

    def windows(self, length: int) -> list[tuple[int, int]]:
        """Half-open ranges that cover a protein, each sharing at least half of its residues with the next.

        A single range if the protein fits; otherwise spread evenly.
        """
        size = self.window
        if size is None or length <= size:
            return [(0, length)]
        more = -(-(length - size) // max(1, size // 2))
        starts = [number * (length - size) // more for number in range(more + 1)]
        return [(start, start + size) for start in starts]

    def rows(self, length: int) -> tuple[int, int]:
        """The mutated residues (rows of the Jacobian), half-open."""
        return self.positions or (0, length)

    def rows_of_windows(self, length: int) -> list[tuple[int, int]]:
        """The mutated residues of each window, numbered as in the protein; an empty range for a window without any."""
        first, last = self.rows(length)
        return [(max(first, start), max(first, start, min(last, stop))) for start, stop in self.windows(length)]

    def attributes(self, length: int) -> dict[str, Any]:
        """Attributes of a protein's group: windows if there are several, positions if not all residues are mutated."""
        windows = self.windows(length)
        return {
            **({"windows": [list(window) for window in windows]} if len(windows) > 1 else {}),
            **({"positions": list(self.positions)} if self.positions else {}),
        }

    def identity(self) -> dict[str, Any]:
        """Entries of a store's identity; empty if the limit changes no array."""
        cuts = self.too_long in ("crop", "window")
        return {
            **({"too_long": {"name": self.too_long, "length": self.length}} if cuts else {}),
            **({"positions": list(self.positions)} if self.positions else {}),
        }

    def apply(self, protein: Protein) -> tuple[Protein, str]:
        """The protein as it is computed, and the reason to skip it, if any. Raises UsageError for too_long=error."""
        protein, reason = self._fitted(protein)
        if reason or self.positions is None:
            return protein, reason
        start, stop = self.positions
        if stop > len(protein):
            return protein, f"positions={start}:{stop} end behind its {len(protein)} residues, which count from 0"
        part = f"mutated at {start}:{stop} of {len(protein)} residues"
        return replace(protein, note="; ".join(filter(None, (protein.note, part)))), ""

    def _fitted(self, protein: Protein) -> tuple[Protein, str]:
        """The protein as the model sees it, and the reason to skip it, if any."""
        length, most = len(protein), self.length
        if most is None or length <= most:
            return protein, ""
        is_model = self.model_length is not None and most == self.model_length
        limit = f"the {most} residues that the model takes" if is_model else f"max_length={most}"
        over = f"length {length} is over {limit}"
        if self.too_long == "error":
            where = f"{protein.id} [{protein.source}]"
            raise UsageError(f"{where}: {over}; leave such out by too_long=skip, or take them in parts by window")
        if self.too_long == "window":
            parts = f"in {len(self.windows(length))} windows of {most} residues"
            return replace(protein, note="; ".join(filter(None, (protein.note, parts)))), ""
        if self.too_long == "crop" and protein.chains is None:
            note = "; ".join(filter(None, (protein.note, f"the first {most} of {length} residues")))
            numbers = protein.residue_numbers and protein.residue_numbers[:most]
            cut = replace(protein, sequence=protein.sequence[:most], note=note, residue_numbers=numbers, structure=None)
            return cut, ""
        if self.too_long == "crop":
            return protein, f"{over}, and a complex is not cropped; too_long=window"
        if is_model:
            return protein, f"{over}; too_long=window or crop computes it in parts"
        return protein, f"{over}; raise it (max_length=null for no limit)"


NO_LIMIT = Limit()
