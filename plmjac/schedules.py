"""Masks of a protein: a segment of it is visible, more residues with every step (Zhang et al. 2024, docs/method.md).

A schedule is a settings object that answers two questions of a segment: which steps are there, and which residues are
visible at one of them. Step f stands for f residues a side, 2 f in all. Pure: the same mask on any rank, in any batch.
A schedule knows the segment and the length, not the sequence or the contacts.
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int32, Int64
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt

from plmjac.draws import Key, shuffled
from plmjac.records import Segment

END_OF_PROTEIN, TOO_FEW_LEFT, WINDOWS_MEET = "end of the protein", "too few residues left", "the windows meet"

Direction = Literal["outward", "inward", "both", "left", "right"]


@runtime_checkable
class Schedule(Protocol):
    """The steps of a segment, and the visible residues at each."""

    @property
    def name(self) -> str:
        """Its name in the configuration."""
        ...

    @property
    def repeats(self) -> int:
        """Draws of every step."""
        ...

    def identity(self) -> dict[str, Any]:
        """The keys that determine the masks, for the store."""
        ...

    def steps(self, segment: Segment, length: int) -> tuple[range, str]:
        """The steps f of a segment in a protein of `length` residues, and why there is none after the last."""
        ...

    def visible(self, segment: Segment, step: int, repeat: int, *, length: int, key: Key) -> Bool[np.ndarray, " L"]:
        """True at the residues that are shown at a step; the segment always is. `key` is (seed, protein)."""
        ...


class Stepping(BaseModel):
    """The keys that every schedule has: every `stride`-th step, up to `max_step`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stride: PositiveInt
    max_step: NonNegativeInt | None

    def identity(self) -> dict[str, Any]:
        """Every key, for the store: all of them determine the masks."""
        return self.model_dump()

    def _cut(self, number: int, end: str) -> tuple[range, str]:
        """The steps 0 <= f < number that were asked for."""
        if self.max_step is not None and self.max_step < number - 1:
            number, end = self.max_step + 1, f"max_step={self.max_step}"
        return range(0, max(0, number), self.stride), end


class Flanking(Stepping):
    """Residues next to the segment: f to its left and f to its right, and other directions by choice.

    For two windows `outward` is left of the first and right of the second, `inward` the sides that face each other,
    `both` all four sides, `left` and `right` one outer side alone (f residues).
    """

    name: Literal["flanking"]
    direction: Direction
    repeats: ClassVar[int] = 1

    def steps(self, segment: Segment, length: int) -> tuple[range, str]:
        """As many steps as the protein has room for, by the paper's count of them."""
        if self.direction == "inward":
            return self._cut((segment.start2 - segment.stop1) // 2 + 1, WINDOWS_MEET)
        left, right = _room(segment, length)
        room = {"left": left, "right": right}.get(self.direction, min(left, right))
        return self._cut(room, END_OF_PROTEIN)

    def visible(self, segment: Segment, step: int, repeat: int, *, length: int, key: Key) -> Bool[np.ndarray, " L"]:
        """The segment and its flanks."""
        outer_left = step if self.direction in ("outward", "both", "left") else 0
        outer_right = step if self.direction in ("outward", "both", "right") else 0
        inner = step if self.direction in ("inward", "both") else 0
        shown = np.zeros(length, dtype=bool)
        shown[max(0, segment.start1 - outer_left) : segment.stop1 + inner] = True
        shown[max(0, segment.start2 - inner) : segment.stop2 + outer_right] = True
        return shown


class _Random(Stepping):
    """2 f residues drawn from those outside the segment and not within `distance` of it."""

    draws: Literal["fresh", "nested"]
    repeats: PositiveInt

    def steps(self, segment: Segment, length: int) -> tuple[range, str]:
        """The steps of flanking residues, as far as there are 2 f residues to draw from."""
        enough, number = len(self._candidates(segment, length)) // 2 + 1, min(_room(segment, length))
        return self._cut(enough, TOO_FEW_LEFT) if enough < number else self._cut(number, END_OF_PROTEIN)

    def visible(self, segment: Segment, step: int, repeat: int, *, length: int, key: Key) -> Bool[np.ndarray, " L"]:
        """The segment and the residues drawn; with `draws: nested` those of one step are among those of the next."""
        place = (segment.start1, segment.start2, repeat)
        draw = (*key, "visible", *place) if self.draws == "nested" else (*key, "visible", *place, step)
        shown = _near(segment, length, 0)
        shown[shuffled(self._candidates(segment, length), draw)[: 2 * step]] = True
        return shown

    def _candidates(self, segment: Segment, length: int) -> Int64[np.ndarray, " C"]:
        return np.flatnonzero(~_near(segment, length, self._distance()))

    def _distance(self) -> int:
        return 0


class Random(_Random):
    """Residues drawn from anywhere outside the segment."""

    name: Literal["random"]


class RandomAvoiding(_Random):
    """Residues drawn from those more than `distance` (30 in the paper) away from the segment; it ends where fewer than
    2 f are left."""

    name: Literal["random_avoiding", "random_avoiding_30"]
    distance: NonNegativeInt

    def identity(self) -> dict[str, Any]:
        """Its keys under its first name, so that older stores can be resumed."""
        return {**self.model_dump(), "name": "random_avoiding_30"}

    def _distance(self) -> int:
        return self.distance


@dataclass(frozen=True, eq=False)
class Contexts:
    """Every masked context of one protein, in the order segment, repeat, step; `outcomes` one for each segment."""

    segment: Int32[np.ndarray, " N"]
    step: Int32[np.ndarray, " N"]
    repeat: Int32[np.ndarray, " N"]
    visible: Bool[np.ndarray, "N L"]
    outcomes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.segment)


def contexts(schedule: Schedule, segments: list[Segment], *, length: int, key: Key) -> Contexts:
    """The contexts of a protein's segments under a schedule; `key` is (seed, protein), on which random draws depend."""
    rows: list[tuple[int, int, int]] = []
    shown: list[Bool[np.ndarray, " L"]] = []
    outcomes = []
    for number, segment in enumerate(segments):
        steps, outcome = schedule.steps(segment, length)
        outcomes.append(outcome)
        for repeat in range(schedule.repeats):
            rows += [(number, step, repeat) for step in steps]
            shown += [schedule.visible(segment, step, repeat, length=length, key=key) for step in steps]
    columns = np.array(rows, dtype=np.int32).reshape(-1, 3)
    visible = np.array(shown, dtype=bool).reshape(-1, length)
    return Contexts(columns[:, 0], columns[:, 1], columns[:, 2], visible, tuple(outcomes))


def is_usable(schedule: Schedule, segment: Segment, length: int) -> bool:
    """True for a segment that lies within the protein and has a step at all; listed segments need not."""
    return segment.start1 >= 0 and segment.stop2 <= length and len(schedule.steps(segment, length)[0]) > 0


def _room(segment: Segment, length: int) -> tuple[int, int]:
    """The numbers of steps to the left and to the right, counted as the authors count them.

    One residue before the first is never shown; after a pair's second window two are not, after a single window none.
    """
    right = length - segment.stop2 + 1 if segment.is_diagonal else length - segment.stop2 - 1
    return segment.start1, right


def _near(segment: Segment, length: int, distance: int) -> Bool[np.ndarray, " L"]:
    """True within a segment's windows and up to `distance` residues on each side of either."""
    near = np.zeros(length, dtype=bool)
    for start, stop in segment.windows:
        near[max(0, start - distance) : stop + distance] = True
    return near


def num_contexts(schedule: Schedule, segments: list[Segment], length: int) -> int:
    """The number of contexts that `contexts` gives for the usable ones among the segments."""
    usable = [segment for segment in segments if is_usable(schedule, segment, length)]
    return schedule.repeats * sum(len(schedule.steps(segment, length)[0]) for segment in usable)
