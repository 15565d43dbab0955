"""Masks against a construction by sets, whatever the order they are asked for in; the paper's counts of steps."""

import json
from hashlib import sha256
from typing import Any

import numpy as np
import pytest
from jaxtyping import Bool
from support import SHARED

from plmjac.records import Segment
from plmjac.schedules import (
    END_OF_PROTEIN,
    TOO_FEW_LEFT,
    WINDOWS_MEET,
    Flanking,
    Random,
    RandomAvoiding,
    contexts,
    is_usable,
    num_contexts,
)
from plmjac.segments import Listed, close_pair, diagonal, pair_around

AnySchedule = Flanking | Random | RandomAvoiding

LENGTH = 150
SEGMENTS = [diagonal(30, 22), diagonal(1, 22), pair_around(40, 110, 11), close_pair(60, 11, 5)]
SETTINGS: dict[str, Any] = {"stride": 1, "max_step": None}
DRAWS: dict[str, Any] = {**SETTINGS, "draws": "fresh", "repeats": 1}


def flanking(direction: str = "outward", **settings: Any) -> Flanking:
    return Flanking(name="flanking", **{**SETTINGS, "direction": direction, **settings})


def random(**settings: Any) -> Random:
    return Random(name="random", **{**DRAWS, **settings})


def avoiding(distance: int = 30, **settings: Any) -> RandomAvoiding:
    return RandomAvoiding(name="random_avoiding_30", **{**DRAWS, "distance": distance, **settings})


def expected(
    schedule: Flanking | Random | RandomAvoiding, segment: Segment, step: int, repeat: int
) -> Bool[np.ndarray, " L"]:
    """Ten lines by sets, with the random numbers made from the key by hand."""
    first, second = (set(range(a, b)) for a, b in segment.windows)
    if isinstance(schedule, Flanking):
        left, right = set(range(segment.start1 - step, segment.start1)), set(range(segment.stop2, segment.stop2 + step))
        facing = set(range(segment.stop1, segment.stop1 + step)) | set(range(segment.start2 - step, segment.start2))
        sides = {"outward": left | right, "inward": facing, "both": left | right | facing, "left": left, "right": right}
        return np.isin(np.arange(LENGTH), list(first | second | sides[schedule.direction]))
    distance = schedule.distance if isinstance(schedule, RandomAvoiding) else 0
    allowed = [i for i in range(LENGTH) if min(abs(i - j) for j in first | second) > distance]
    key: list[Any] = [7, "1ABC_A", "visible", segment.start1, segment.start2, repeat]
    seed = sha256(json.dumps(key if schedule.draws == "nested" else [*key, step]).encode()).hexdigest()
    numbers = np.random.Generator(np.random.PCG64(int(seed, 16))).random(len(allowed))
    drawn = [i for _, i in sorted(zip(numbers, allowed, strict=True))][: 2 * step]
    return np.isin(np.arange(LENGTH), [*first, *second, *drawn])


@pytest.mark.parametrize(
    "schedule",
    [
        *(flanking(direction) for direction in ("outward", "left", "right")),
        random(), random(draws="nested", repeats=2), avoiding(), avoiding(12, draws="nested"), avoiding(5, stride=3),
    ],
)  # fmt: skip
def test_every_mask_is_the_one_made_by_sets(schedule: AnySchedule) -> None:
    made = contexts(schedule, SEGMENTS, length=LENGTH, key=(7, "1ABC_A"))
    assert len(made) == num_contexts(schedule, SEGMENTS, LENGTH) > 30
    for number, step, repeat, visible in zip(made.segment, made.step, made.repeat, made.visible, strict=True):
        np.testing.assert_array_equal(visible, expected(schedule, SEGMENTS[number], int(step), int(repeat)))


@pytest.mark.parametrize("direction", ["inward", "both"])
def test_directions_of_pairs(direction: str) -> None:
    schedule, pairs = flanking(direction), SEGMENTS[2:]
    made = contexts(schedule, pairs, length=LENGTH, key=(0, "a"))
    for number, step, visible in zip(made.segment, made.step, made.visible, strict=True):
        np.testing.assert_array_equal(visible, expected(schedule, pairs[number], int(step), 0))
    if direction == "inward":
        assert made.outcomes == (WINDOWS_MEET, WINDOWS_MEET)
        assert made.step[made.segment == 0].max() == 59 // 2 and made.step[made.segment == 1].max() == 2


def test_a_mask_does_not_depend_on_what_else_is_asked_for() -> None:
    schedule = random(repeats=3)
    whole = contexts(schedule, SEGMENTS, length=LENGTH, key=(1, "a"))
    backwards = contexts(schedule, SEGMENTS[::-1], length=LENGTH, key=(1, "a"))
    sparse = contexts(random(repeats=3, stride=4, max_step=20), SEGMENTS[:1], length=LENGTH, key=(1, "a"))
    rows = {
        (SEGMENTS[s], f, r): v
        for s, f, r, v in zip(whole.segment, whole.step, whole.repeat, whole.visible, strict=True)
    }
    for s, f, r, v in zip(backwards.segment, backwards.step, backwards.repeat, backwards.visible, strict=True):
        assert (rows[SEGMENTS[::-1][s], f, r] == v).all()
    assert sorted(set(sparse.step.tolist())) == [0, 4, 8, 12, 16, 20] and sparse.outcomes == ("max_step=20",)
    for f, r, v in zip(sparse.step, sparse.repeat, sparse.visible, strict=True):
        assert (rows[SEGMENTS[0], f, r] == v).all()
    for key in ((2, "a"), (1, "b")):
        other = contexts(schedule, SEGMENTS, length=LENGTH, key=key)
        assert (other.visible != whole.visible).any(axis=1)[whole.step > 0].mean() > 0.95


def test_draws_fresh_and_nested() -> None:
    nested = contexts(random(draws="nested"), SEGMENTS[:1], length=LENGTH, key=(0, "a")).visible
    assert (nested[:-1] <= nested[1:]).all()
    fresh = contexts(random(), SEGMENTS[:1], length=LENGTH, key=(0, "a")).visible
    assert not (fresh[:-1] <= fresh[1:]).all()
    assert (nested.sum(1) == fresh.sum(1)).all() and (nested.sum(1) == 22 + 2 * np.arange(len(nested))).all()


def test_draws_are_uniform() -> None:
    """Each of 128 residues is drawn in 4 of 128 of the draws: 1,000 draws of 4, within five standard deviations."""
    schedule, segment = random(), SEGMENTS[0]
    masks = [schedule.visible(segment, 2, repeat, length=LENGTH, key=(0, "a")) for repeat in range(1000)]
    times = np.delete(np.sum(masks, axis=0), range(30, 52))
    assert len(times) == 128 and np.abs(times - 31.25).max() < 5 * (31.25 * (1 - 4 / 128)) ** 0.5


def test_too_few_residues_left_is_an_outcome() -> None:
    length, segment = 100, diagonal(40, 22)  # 40 residues to the left of it, 38 to the right
    steps, outcome = avoiding(30).steps(segment, length)
    assert (list(steps), outcome) == (list(range(10)), TOO_FEW_LEFT)  # 10 + 8 are farther than 30: enough for f = 9
    assert avoiding(60).steps(segment, length) == (range(1), TOO_FEW_LEFT)
    assert random().steps(segment, length) == flanking().steps(segment, length) == (range(39), END_OF_PROTEIN)
    made = contexts(avoiding(30), [segment], length=length, key=(0, "a"))
    assert len(made) == 10 and made.visible[-1].sum() == 22 + 18 and made.outcomes == (TOO_FEW_LEFT,)


def test_no_segment_and_no_room() -> None:
    made = contexts(flanking(), [], length=50, key=(0, "a"))
    assert len(made) == 0 and made.visible.shape == (0, 50) and made.outcomes == ()
    assert not is_usable(
        flanking(), diagonal(0, 22), 100
    )  # the authors' count of steps gives none at the first residue
    assert not is_usable(flanking(), close_pair(80, 11, 5), 100)  # past the C-terminus
    assert is_usable(flanking(), diagonal(78, 22), 100) and is_usable(flanking("inward"), close_pair(0, 11, 5), 27)


# ---------------------------------------------------------------- the authors' lists, where they are at hand


def authors_list(name: str, kind: str) -> tuple[list[tuple[str, Segment]], dict[str, str]]:
    """Every segment of a released list with its chain, and the sequences of the chains."""
    folder = SHARED / "zhang2024"
    if not folder.exists():
        pytest.skip(f"the authors' lists are not here ({folder})")
    listed = json.loads((folder / name).read_text())
    choice = Listed(name="list", path=name, kind=kind, size=None, gap=None)  # type: ignore[arg-type]
    return [(chain, s) for chain, entries in listed.items() for s in choice.possible(0, entries)], json.loads(
        (folder / "full_seq_dict.json").read_text()
    )


@pytest.mark.parametrize(
    ("name", "kind", "number", "forwards"),
    [
        ("reproduce_single_recovery_w_bos_eos.json", "single", 4293, 335_765),
        ("reproduce_pair_recovery_50_100_w_bos_eos.json", "pairs", 1273, 82_095),
        ("reproduce_pair_recovery_100_w_bos_eos.json", "pairs", 304, 14_483),
    ],
)
def test_counts_of_the_paper(name: str, kind: str, number: int, forwards: int) -> None:
    segments, sequences = authors_list(name, kind)
    assert len(segments) == number
    every = [num_contexts(flanking(), [segment], len(sequences[chain])) for chain, segment in segments]
    assert sum(every) == forwards and min(every) > 0
    for (chain, segment), contexts_of_flanking in list(zip(segments, every, strict=True))[::40]:
        length = len(sequences[chain])
        assert num_contexts(random(), [segment], length) == contexts_of_flanking
        assert 0 < num_contexts(avoiding(), [segment], length) <= contexts_of_flanking


def test_close_pairs_of_the_paper() -> None:
    segments, sequences = authors_list("revision_close_distance_seg_reproduce.json", "close_pairs")
    assert len(segments) == 4277
    assert sum(is_usable(flanking(), segment, len(sequences[chain])) for chain, segment in segments) == 4022
