"""Place the residues of a model in the columns of the sequence that its file gives it (SEQRES).

An alignment that knows what the file knows: residues that are bonded stand in neighbouring columns, so that a mismatch
is always preferred to a gap within a bonded stretch; where the chain is broken the residue numbers say how many are
missing, if the distance allows that. Costs are whole numbers, so that placements that fit equally well are told apart
from those that do not.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Int, Int64

from plmjac.datasets.atom_table import NO_NUMBER
from plmjac.datasets.residues import RISE, Residue, joints_of

_MISMATCH = 10
_UNKNOWN = 4
"""Of X against a letter."""
_NUMBER = 12
"""Of a gap of another length than the residue numbers say; more than a mismatch, which one residue alone may be."""
_TOUCHING = 20
"""Of neighbouring columns for residues that are not bonded, and of a gap too short for the distance it spans."""
_TORN = 60
"""Of a gap between bonded residues."""
_LEFT_OUT = 70
"""Of a residue without a column."""
_START = 1
"""Of a first residue whose number is not its column, counted from 1: decides only where nothing else does."""
_NEVER = 10**8


@dataclass(frozen=True)
class Placement:
    """The column of each residue, -1 where it has none, and how sure that is.

    `is_uncertain`: residues that fit elsewhere as well. `by_number`: those that only their numbers place.
    """

    columns: Int64[np.ndarray, " R"]
    is_uncertain: Bool[np.ndarray, " R"]
    by_number: Bool[np.ndarray, " R"]
    cost: int = 0


def place(residues: Sequence[Residue], letters: str, names: Sequence[Sequence[str]]) -> Placement:
    """The best placement of the residues, in their order, in a sequence of these letters and residue names."""
    certain = np.zeros(len(residues), dtype=bool)
    steps = _steps(residues)
    columns = _by_numbers(residues, letters, steps)
    if columns is not None:
        first, last = (_exact(residues, letters, steps, is_last) for is_last in (False, True))
        return Placement(columns, certain, (first != columns) | (last != columns))
    costs = _mismatches(residues, letters, names)
    numbered = _Alignment(costs, steps, residues[0].number - 1 if residues[0].number != NO_NUMBER else None)
    lowest, highest = numbered.columns(last=False), numbered.columns(last=True)
    plain = _Alignment(costs, [step.without_number() for step in steps], None)
    by_number = (plain.columns(last=False) != lowest) | (plain.columns(last=True) != lowest)
    return Placement(lowest, lowest != highest, by_number & (lowest == highest), numbered.cost)


@dataclass(frozen=True)
class _Step:
    """From one residue to the next: whether they are bonded, columns between them by number, and by distance."""

    is_bonded: bool
    by_number: int | None
    least: int

    def without_number(self) -> "_Step":
        return _Step(self.is_bonded, None, self.least)

    def cost(self, columns: int) -> int:
        """Of moving on by so many columns."""
        return int(self.costs(np.array([columns]))[0])

    def costs(self, columns: Int[np.ndarray, " M"]) -> Int[np.ndarray, " M"]:
        """Of moving on by each of these numbers of columns."""
        if self.is_bonded:
            return np.where(columns == 1, 0, _TORN)
        is_off = columns != self.by_number if self.by_number is not None else np.zeros(len(columns), dtype=bool)
        costs: Int[np.ndarray, " M"] = _NUMBER * is_off + _TOUCHING * (columns < self.least)
        return costs


def _steps(residues: Sequence[Residue]) -> list[_Step]:
    joints = joints_of(residues)
    steps = [_Step(True, None, 1)] * len(joints.is_bonded)
    for place in np.flatnonzero(~joints.is_bonded).tolist():
        first, second = residues[place], residues[place + 1]
        is_known = NO_NUMBER not in (first.number, second.number) and not (first.insertion or second.insertion)
        difference = second.number - first.number
        distance = joints.distance[place]
        reach = int(np.ceil((distance - 1.0) / RISE)) if np.isfinite(distance) else 2
        least = (
            max(2, reach) if joints.is_break[place] else 1
        )  # near but not bonded: a poor model, or a loop's two ends
        steps[place] = _Step(False, difference if is_known and difference > 0 else None, least)
    return steps


def _by_numbers(residues: Sequence[Residue], letters: str, steps: Sequence[_Step]) -> Int64[np.ndarray, " R"] | None:
    """Columns where every letter agrees and every gap has the length of its numbers: nothing can fit better.

    Where the whole could be shifted, the numbers must be the columns, counted from 1.
    """
    numbers = np.array([residue.number for residue in residues])
    if NO_NUMBER in numbers or any(residue.insertion for residue in residues):
        return None
    moved: Int64[np.ndarray, " J"] = np.diff(numbers)
    for step, by in zip(steps, moved.tolist(), strict=True):
        if by != 1 if step.is_bonded else by < 1 or step.cost(by):
            return None
    model = np.array([residue.letter for residue in residues])
    if (model == "X").any():
        return None
    table = np.array(list(letters))
    relative: Int64[np.ndarray, " R"] = numbers - numbers[0]

    def fits(start: int) -> bool:
        columns = relative + start
        return start >= 0 and int(columns[-1]) < len(table) and bool((table[columns] == model).all())

    if fits(int(numbers[0]) - 1):
        return relative + int(numbers[0]) - 1
    starts = [start for start in range(len(table) - int(relative[-1])) if fits(start)]
    return relative + starts[0] if len(starts) == 1 else None


def _exact(residues: Sequence[Residue], letters: str, steps: Sequence[_Step], last: bool) -> Int[np.ndarray, " R"]:
    """The first or last columns in which every letter agrees, whatever the residue numbers say; there are some."""
    model = "".join(residue.letter for residue in residues)
    broken = [place for place, step in enumerate(steps) if not step.is_bonded]
    bounds = [0, *(place + 1 for place in broken), len(residues)]
    least = [steps[place].least for place in broken]
    stretches = list(pairwise(bounds))
    columns = np.zeros(len(residues), dtype=np.int64)
    edge = len(letters) if last else 0
    for number in range(len(stretches) - 1, -1, -1) if last else range(len(stretches)):
        start, stop = stretches[number]
        at = letters.rfind(model[start:stop], 0, edge) if last else letters.find(model[start:stop], edge)
        columns[start:stop] = np.arange(at, at + stop - start)
        if last:
            edge = at - least[number - 1] + 1 if number else 0
        elif number < len(least):
            edge = at + stop - start - 1 + least[number]
    return columns


def _mismatches(residues: Sequence[Residue], letters: str, names: Sequence[Sequence[str]]) -> Int[np.ndarray, "R L"]:
    """The cost of every residue in every column."""
    table = np.array(list(letters))
    unknown = table == "X"
    by_letter = {
        letter: np.where(table == letter, 0, np.where(unknown | (letter == "X"), _UNKNOWN, _MISMATCH))
        for letter in {residue.letter for residue in residues}
    }
    costs = np.stack([by_letter[residue.letter] for residue in residues])
    for row, residue in enumerate(residues):
        if residue.letter == "X" or len(residue.names) > 1:
            costs[row, [bool(set(residue.names) & set(each)) for each in names]] = 0
            if residue.letter == "X" and set(residue.names) != {"UNK"}:
                costs[row, unknown & (costs[row] > 0)] = _UNKNOWN
    return costs.astype(np.int32)


class _Alignment:
    """Costs of the best placement up to each residue, by the column of the last residue that has one.

    `placed[i, j]`: residue i stands in column j; `skipped[i, j]`: it has no column, and the one before it that has
    stands in j. Column 0 is before the sequence, so that column j here is j - 1 of the sequence.
    """

    def __init__(self, mismatches: Int[np.ndarray, "R L"], steps: Sequence[_Step], expected_start: int | None) -> None:
        count, length = mismatches.shape
        self._mismatches, self._steps = mismatches, steps
        start = np.zeros(length, dtype=np.int32)
        if expected_start is not None:
            start += _START
            if 0 <= expected_start < length:
                start[expected_start] = 0
        self._placed = np.full((count, length + 1), _NEVER, dtype=np.int32)
        self._skipped = np.full((count, length + 1), _NEVER, dtype=np.int32)
        self._placed[0, 1:] = mismatches[0] + start
        self._skipped[0, 0] = _LEFT_OUT
        for row, step in enumerate(steps, start=1):
            self._skipped[row] = np.minimum(self._placed[row - 1], self._skipped[row - 1]) + _LEFT_OUT
            self._placed[row, 1:] = self._arrivals(row, step) + mismatches[row]
        self.cost = int(min(self._placed[-1].min(), self._skipped[-1].min()))

    def _arrivals(self, row: int, step: _Step) -> Int[np.ndarray, " L"]:
        """The least cost of arriving at each column from the residue before."""
        before, skipped = self._placed[row - 1], self._skipped[row - 1]
        best_before = np.minimum.accumulate(before)
        arrivals: Int[np.ndarray, " L"] = np.minimum(
            _shifted(before, 1) + step.cost(1), np.minimum.accumulate(skipped)[:-1]
        )
        if step.is_bonded:
            torn: Int[np.ndarray, " L"] = np.minimum(arrivals, _shifted(best_before, 2) + _TORN)
            return torn
        off = _NUMBER if step.by_number is not None else 0
        arrivals = np.minimum(arrivals, _shifted(best_before, 2) + off + (_TOUCHING if step.least > 2 else 0))
        arrivals = np.minimum(arrivals, _shifted(best_before, step.least) + off)
        if step.by_number is not None:
            arrivals = np.minimum(arrivals, _shifted(before, step.by_number) + step.cost(step.by_number))
        return arrivals

    def columns(self, last: bool) -> Int64[np.ndarray, " R"]:
        """One best placement: of several the one in the first columns from the right, or in the last."""
        count = len(self._mismatches)
        columns = np.full(count, -1)
        is_placed, column = self._end(last)
        for row in range(count - 1, -1, -1):
            if is_placed:
                columns[row] = column - 1
            if row == 0:
                break
            is_placed, column = self._before(row, is_placed, column, last)
        return columns

    def _end(self, last: bool) -> tuple[bool, int]:
        ends = [(row[-1] == self.cost) for row in (self._placed, self._skipped)]
        is_placed = bool(ends[0].any())
        where = np.flatnonzero(ends[0] if is_placed else ends[1])
        return is_placed, int(where[-1 if last else 0])

    def _before(self, row: int, is_placed: bool, column: int, last: bool) -> tuple[bool, int]:
        """Column of the residue before `row` in a best placement with `row` in this column."""
        placed, skipped = self._placed[row - 1], self._skipped[row - 1]
        if not is_placed:
            return bool(placed[column] <= skipped[column]), column
        wanted = int(self._placed[row, column] - self._mismatches[row, column - 1])
        moves = self._steps[row - 1].costs(np.arange(column, 0, -1))
        where = np.flatnonzero(placed[:column] + moves == wanted)
        if len(where):
            return True, int(where[-1 if last else 0])
        where = np.flatnonzero(skipped[:column] == wanted)
        return False, int(where[-1 if last else 0])


def _shifted(costs: Int[np.ndarray, " K"], by: int) -> Int[np.ndarray, " L"]:
    """The entry `by` columns to the left of each column of the sequence."""
    shifted = np.full(len(costs) - 1, _NEVER, dtype=np.int32)
    if by <= len(shifted):
        shifted[by - 1 :] = costs[: len(costs) - by]
    return shifted
