"""What a recovery run is asked for, checked, and what follows from it: identity of the store, cost of a protein.

Apart from the loop, so that a forecast and a usage error need neither Lightning nor a model.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from plmjac.inference.annotations import Annotations, identity
from plmjac.records import Protein
from plmjac.schedules import AnySchedule, Flanking, num_contexts
from plmjac.segments import AnyChoice, Listed, Single

RecoveryReadout = Literal["contact_head", "jacobian"]

KEPT = frozenset({"blocks", "contacts"})
"""What a recovery run may keep besides the recoveries themselves."""


@dataclass(frozen=True)
class RecoverySettings:
    """Which residues are shown, which contacts are watched, and how they are read."""

    schedule: AnySchedule
    segments: AnyChoice
    readout: RecoveryReadout
    seed: int
    keep: tuple[str, ...]

    def check(self) -> None:
        """Refuse what has no effect. Raises ValueError with the remedy."""
        if others := sorted(set(self.keep) - KEPT):
            raise ValueError(f"keep={others}: with a schedule keep blocks or contacts (recoveries always are)")
        is_single = isinstance(self.segments, Single) or (
            isinstance(self.segments, Listed) and self.segments.kind == "single"
        )
        if isinstance(self.schedule, Flanking) and self.schedule.direction in ("inward", "both") and is_single:
            raise ValueError(f"schedule.direction={self.schedule.direction} needs pairs of windows; use outward")

    def check_readouts(self, readouts: frozenset[str], model: str) -> None:
        """Refuse a model that cannot give the contacts that are needed. Raises ValueError with the remedy."""
        if self.readout == "contact_head" and "contact_head" not in readouts:
            raise ValueError(
                f"model {model} has no trained contact head to read contacts with; use readout=jacobian segments=list"
            )
        if not isinstance(self.segments, Listed) and "contact_head" not in readouts:
            raise ValueError(f"model {model} has no trained contact head to choose segments by; use segments=list")

    def identity(self) -> dict[str, Any]:
        """What of these settings determines the store's bytes."""
        return {
            "schedule": self.schedule.model_dump(),
            "segments": identity(self.segments),
            "readout": self.readout,
            "seed": self.seed,
            "repeats": self.schedule.repeats,
        }

    def contexts_of(self, identifier: str, length: int, annotations: Annotations) -> int:
        """Contexts of one protein: exactly for a list, else at most, as if segments were found in the best places."""
        listed = annotations({identifier}).get(identifier) if self.is_exact else None
        try:
            return num_contexts(self.schedule, self.segments.possible(length, listed), length)
        except ValueError:  # an entry that is none; the protein will fail, and the reason be told
            return 0

    def forwards_of(self, length: int, contexts: int) -> int:
        """Forwards for the full sequence and so many contexts."""
        return (1 + contexts) * (1 if self.readout == "contact_head" else 1 + 19 * length)

    def stored_bytes(self, length: int, contexts: int) -> int:
        """Bytes of one protein's arrays before compression."""
        possible = self.segments.possible(length, None)
        width = possible[0].size if possible else 22
        per = {"blocks": 4 * width**2, "contacts": 4 * length**2}
        return contexts * (16 + length + sum(per[name] for name in self.keep))

    @property
    def is_exact(self) -> bool:
        """Whether the forwards can be known before the contacts are."""
        return isinstance(self.segments, Listed)

    def cost(self, flops: Callable[[int], int], annotations: Annotations) -> Callable[[Protein], float]:
        """Floating point operations of a protein, by those of one forward."""
        known: dict[int, int] = {}

        def contexts(protein: Protein) -> int:
            if self.is_exact:
                return self.contexts_of(protein.id, len(protein), annotations)
            if len(protein) not in known:
                known[len(protein)] = self.contexts_of(protein.id, len(protein), annotations)
            return known[len(protein)]

        return lambda protein: float(self.forwards_of(len(protein), contexts(protein)) * flops(len(protein)))
