"""evaluation=contact_recovery on stores whose curves are written by hand, so that every number is known beforehand."""

import itertools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from support import composed

from plmjac.evaluate import evaluate, parse_evaluate
from plmjac.evaluation.base import EvaluationError, Inputs, Outcome, Store
from plmjac.evaluation.contact_recovery import Settings
from plmjac.evaluation.contact_recovery import evaluate as contact_recovery
from plmjac.store import StoreWriter, create_or_check, open_store, write_manifest
from plmjac.workplan import ManifestRow

Curves = Mapping[str, Mapping[tuple[int, int, int, int], Sequence[Sequence[float]]]]
"""By protein and segment: one list of recoveries for each repeat."""

LENGTH = 60
DIRECTIONS = {"flanking": {"direction": "outward"}, "random": {"draws": "fresh"}}


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stores here are written to be read at once; that they outlive a power cut is tested elsewhere."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def write_store(
    path: Path, schedule: str, proteins: Curves, *, model: str = "debug", seed: int = 0, failed: Sequence[str] = (),
    **keys: Any,
) -> Path:  # fmt: skip
    """A recovery store whose recoveries are given; at step f the 2 f first residues outside the segment are visible."""
    identity = {
        "kind": "recovery", "model": {"name": model, "weights_sha256": model}, "readout": "contact_head", "seed": seed,
        "schedule": {"name": schedule, **DIRECTIONS.get(schedule, {}), **keys}, "segments": {"name": "single"},
    }  # fmt: skip
    create_or_check(path, identity, {"config": {"dataset": {"name": "fasta"}}})
    writer, rows = StoreWriter(path), []
    for number, (protein, segments) in enumerate(proteins.items()):
        sequence = "ACDEFGHIKL"[number % 10] * LENGTH
        pending = writer.begin(protein, sequence=sequence, identifier=protein)
        pending.attributes |= {"outcomes": ["end of the protein"] * len(segments)}
        for name, values in arrays_of(segments, keys.get("direction") in ("left", "right")).items():
            pending.write(name, values)
        pending.commit()
        rows.append(ManifestRow(protein, protein, LENGTH, sequence, status="done"))
    rows += [ManifestRow(name, name, LENGTH, "M" * LENGTH, status="failed", reason="not finite") for name in failed]
    write_manifest(path, rows)
    return path


def arrays_of(segments: Mapping[tuple[int, int, int, int], Sequence[Sequence[float]]], one_sided: bool) -> Any:
    contexts = [
        (s, step, repeat, value)
        for s, repeats in enumerate(segments.values())
        for repeat, curve in enumerate(repeats)
        for step, value in enumerate(curve)
    ]
    visible = np.zeros((len(contexts), LENGTH), dtype=bool)
    for row, (s, step, _, _) in zip(visible, contexts, strict=True):
        start1, stop1, start2, stop2 = list(segments)[s]
        row[start1:stop1] = row[start2:stop2] = True
        row[np.flatnonzero(~row)[: step if one_sided else 2 * step]] = True
    columns = [np.array([context[column] for context in contexts], dtype=np.int32) for column in range(3)]
    return {
        "segments": np.array(list(segments), dtype=np.int32).reshape(-1, 4),
        "segment": columns[0], "step": columns[1], "repeat": columns[2],
        "recovery": np.array([context[3] for context in contexts], dtype=np.float32),
        "visible": visible,
    }  # fmt: skip


def settings(**changes: Any) -> Settings:
    config = composed("evaluate", "+evaluation=contact_recovery", "store=x")
    return Settings.model_validate({**config["evaluation"], "resamples": 200, **changes})


def judged(*paths: Path, **changes: Any) -> Outcome:
    stores = tuple(Store(path.stem, open_store(path)) for path in paths)
    return contact_recovery(Inputs(stores, truth=lambda: iter(())), settings(**changes))


def ramp(rise: int, length: int, high: float = 0.9) -> list[list[float]]:
    """One repeat: nothing until the step `rise`, then `high`."""
    return [[0.0] * rise + [high] * (length - rise)]


W = (10, 20, 10, 20)
V = (5, 10, 30, 35)


def test_curves_have_the_known_fractions_and_their_denominators(tmp_path: Path) -> None:
    """Three segments that end at steps 2, 4 and 6 and rise at 1, 3 and never: every fraction by hand."""
    path = write_store(
        tmp_path / "f.zarr", "flanking",
        {"p": {W: ramp(1, 3), V: ramp(3, 5)}, "q": {W: ramp(7, 7)}, "nothing": {}}, failed=["bad"],
    )  # fmt: skip
    found = judged(path)
    curve = found.tables["curves"]
    assert curve["step"].tolist() == list(range(7)) and curve["unmasked"].tolist() == [2 * f for f in range(7)]
    assert curve["segments"].tolist() == [3, 3, 3, 2, 2, 1, 1]
    assert curve["proteins"].tolist() == [2, 2, 2, 2, 2, 1, 1]
    assert curve["recovered"].tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 2, 1 / 2, 0, 0])
    assert curve["mean_recovery"].tolist() == pytest.approx([0, 0.3, 0.3, 0.45, 0.45, 0, 0])
    assert curve[["low", "high"]].isna().all(axis=None)  # two proteins say nothing of others
    segments = found.tables["segments"]
    reasons = dict(zip(segments["protein"], segments["reason"], strict=True))
    assert reasons["bad"] == "failed: not finite" and "no segment" in reasons["nothing"]
    assert segments.loc[segments["protein"].isin(["bad", "nothing"]), "highest"].isna().all()
    assert "66%" not in found.text and "6: 50% (2)" in found.text and "not finite" in found.text
    summary = found.tables["summary"].iloc[0]
    assert (summary["proteins"], summary["segments"], summary["curves"], summary["without_segment"]) == (2, 3, 3, 2)
    assert math.isnan(summary["half_unmasked"]) and "never" in found.text  # 50 % is not above 50 %


def test_kinds_of_curves_add_up_as_the_authors_do(tmp_path: Path) -> None:
    """total = low + recoverable, recoverable = stable + no_stable + single, as 4022 = 758 + (2625 + 637 + 2)."""
    drops = [[0.0, 0.9, 0.0, 0.0, 0.0, 0.6]]  # jumps, falls back, and jumps again at the very end
    slow = [[0.0, 0.2, 0.4, 0.6, 0.8]]
    curves = {
        "stable": {W: ramp(3, 14)}, "spike": {W: [[0.0, 0.9, *[0.0] * 9, 0.4]]}, "slow": {W: slow},
        "low": {W: [[0.1, 0.5]]}, "single": {W: [[0.8]]}, "twice": {W: drops},
    }  # fmt: skip
    found = judged(write_store(tmp_path / "f.zarr", "flanking", curves))
    row = found.tables["summary"].iloc[0]
    kinds = {name: int(row[name]) for name in ("curves", "low", "recoverable", "jump", "stable", "single", "no_stable")}
    assert kinds == {"curves": 6, "low": 1, "recoverable": 5, "jump": 3, "stable": 2, "single": 1, "no_stable": 2}
    assert row["started_high"] == 1
    table = found.tables["segments"].set_index("protein")
    assert table.loc["stable", ["first_step", "jump_step", "stable_step"]].tolist() == [3, 3, 3]
    assert table.loc["twice", ["jump_step", "stable_step", "stable_unmasked"]].tolist() == [1, 5, 10]
    assert table.loc["slow", "first_unmasked"] == 6 and math.isnan(table.loc["slow", "jump_step"])


def test_repeats_of_a_segment_are_one_segment(tmp_path: Path) -> None:
    """Two repeats of which one is recovered: the segment counts once, as half."""
    path = write_store(tmp_path / "r.zarr", "random", {"p": {W: [[0.0, 0.9], [0.0, 0.1]]}, "q": {W: ramp(1, 2)}})
    curve = judged(path).tables["curves"]
    assert curve["segments"].tolist() == [2, 2] and curve["recovered"].tolist() == [0, 0.75]
    assert len(judged(path).tables["segments"]) == 3


def brute_force_difference(first: Curves, second: Curves) -> tuple[float, dict[str, float]]:
    """Share recovered over common steps, first minus second: of common segments, and by protein."""
    of_segments: dict[str, list[float]] = {}
    for protein in first.keys() & second.keys():
        for segment in first[protein].keys() & second[protein].keys():
            ours, theirs = (
                [np.mean([y[f] > 0.5 for y in side[protein][segment]]) for f in range(len(side[protein][segment][0]))]
                for side in (first, second)
            )
            common = min(len(ours), len(theirs))
            difference = [ours[f] - theirs[f] for f in range(common)]
            of_segments.setdefault(protein, []).append(float(np.mean(difference)))
    everything = [value for values in of_segments.values() for value in values]
    return float(np.mean(everything)), {protein: float(np.mean(values)) for protein, values in of_segments.items()}


def random_curves(seed: int, rise: int, repeats: int = 1, other: tuple[int, int, int, int] = V) -> Curves:
    generator = np.random.default_rng(seed)
    return {
        f"p{number}": {
            segment: [ramp(int(generator.integers(rise, rise + 6)), int(generator.integers(12, 18)))[0]] * repeats
            for segment in (W, other)
        }
        for number in range(8)
    }


def test_the_paired_comparison_is_the_brute_force_on_the_common_segments(tmp_path: Path) -> None:
    first, second = random_curves(0, 1), random_curves(1, 5, repeats=2, other=(5, 10, 31, 36))
    second = {**second, "p3": first["p3"], "p4": {V: [[0.9] * 14] * 2}, "alone": {W: ramp(1, 5)}}
    paths = [write_store(tmp_path / f"{name}.zarr", name, c) for name, c in (("flanking", first), ("random", second))]
    found = judged(*paths)
    (row,) = found.tables["paired"].to_dict("records")
    expected, by_protein = brute_force_difference(first, second)
    assert row["segments"] == 6 + 2 + 1 and row["proteins"] == 8
    assert (row["only_first"], row["only_second"]) == (16 - 9, 6 + 1)
    assert row["difference"] == pytest.approx(expected) and row["low"] <= expected <= row["high"]
    wins, losses = (sum(sign * value > 0 for value in by_protein.values()) for sign in (1, -1))
    assert (row["better"], row["worse"]) == (wins, losses)
    values = list(by_protein.values())
    sums = [abs(np.dot(signs, values)) for signs in itertools.product((1, -1), repeat=len(values))]
    assert row["p"] == pytest.approx(np.mean([each >= abs(sum(values)) - 1e-9 for each in sums]))
    assert (
        "only in the first 7, only in the second 7" in found.text and f"sign-flip test p = {row['p']:.2g}" in found.text
    )
    assert row["ratio"] == pytest.approx(row["half_second"] / row["half_first"])


def test_residues_to_half_and_their_ratio(tmp_path: Path) -> None:
    """Flanking rises at step 2 everywhere, random at 5: half at 4 and 10 residues, the ratio 2.5 in every resample."""
    curves = {rise: {f"p{n}": {W: ramp(rise, 12)} for n in range(6)} for rise in (2, 5)}
    paths = [
        write_store(tmp_path / "flanking.zarr", "flanking", curves[2]),
        write_store(tmp_path / "random.zarr", "random", curves[5]),
    ]
    found = judged(*paths)
    assert found.tables["summary"]["half_unmasked"].tolist() == [4, 10]
    assert found.tables["summary"][["half_low", "half_high"]].to_numpy().tolist() == [[4, 4], [10, 10]]
    (row,) = found.tables["paired"].to_dict("records")
    assert (row["half_first"], row["half_second"], row["ratio"]) == (4, 10, 2.5)
    assert (row["ratio_low"], row["ratio_high"]) == (2.5, 2.5)
    assert row["difference"] == row["low"] == row["high"] == 3 / 12
    assert found.metrics["flanking/half_unmasked"] == 4 and found.metrics["flanking against random/ratio"] == 2.5


def test_models_and_seeds_are_told_apart_and_compared_with_their_own(tmp_path: Path) -> None:
    curves = {"p": {W: ramp(2, 9)}}
    paths = [
        write_store(tmp_path / f"{model}_{schedule}_{seed}.zarr", schedule, curves, model=model, seed=seed)
        for model in ("tiny", "debug")
        for schedule, seed in (("flanking", 0), ("random", 0), ("random", 1))
    ]
    found = judged(*paths)
    labels = found.tables["summary"]["label"].tolist()
    assert labels[:3] == ["flanking tiny seed=0", "random tiny seed=0", "random tiny seed=1"]
    assert len(set(labels)) == 6
    pairs = found.tables["paired"]
    assert list(zip(pairs["first"], pairs["second"], strict=True)) == [
        (f"flanking {model} seed=0", f"random {model} seed={seed}") for model in ("tiny", "debug") for seed in (0, 1)
    ]
    assert (pairs["difference"] == 0).all() and pairs["p"].isna().all()


def test_stores_without_a_common_segment_say_so(tmp_path: Path) -> None:
    one = write_store(tmp_path / "a.zarr", "flanking", {"p": {W: ramp(1, 4)}})
    two = write_store(tmp_path / "b.zarr", "random", {"p": {V: ramp(1, 4)}})
    found = judged(one, two)
    assert "no segment in common" in found.text
    assert found.tables["paired"]["reason"].tolist() == ["the stores have no segment in common"]


def test_minimal_segments_count_what_was_visible(tmp_path: Path) -> None:
    """A pair of windows of 5 residues: both flanks at 6, left alone at 4, right alone never for good."""
    outward = {"p": {V: ramp(6, 16)}, "q": {V: ramp(3, 16)}, "never": {V: ramp(16, 16)}}
    left = {"p": {V: ramp(4, 16)}, "q": {V: ramp(16, 16)}}
    right = {"p": {V: [[0.0, 0.9, *[0.0] * 14]]}, "q": {V: ramp(9, 16)}}
    paths = [
        write_store(tmp_path / f"{name}.zarr", "flanking", curves, direction=name)
        for name, curves in (("outward", outward), ("left", left), ("right", right))
    ]
    table = judged(*paths).tables["minimal_segments"].set_index("protein")
    assert table[["both", "symmetric", "fewest", "zhang2024"]].to_dict("index") == {
        "p": {"both": 6, "symmetric": 10 + 12, "fewest": 10 + 4, "zhang2024": 10 + (4 + 1) + (6 + 1)},
        "q": {"both": 3, "symmetric": 10 + 6, "fewest": 10 + 6, "zhang2024": 10 + (9 + 1) + (3 + 1)},
    }
    alone = judged(paths[0]).tables["minimal_segments"]
    assert alone["zhang2024"].isna().all() and alone["fewest"].tolist() == alone["symmetric"].tolist()


def test_the_bootstrap_does_not_depend_on_what_else_is_read(tmp_path: Path) -> None:
    curves = random_curves(3, 2)
    flanking = write_store(tmp_path / "flanking.zarr", "flanking", curves)
    random = write_store(tmp_path / "random.zarr", "random", random_curves(4, 4))
    alone, together = judged(flanking).tables["curves"], judged(random, flanking).tables["curves"]
    pd.testing.assert_frame_equal(alone, together[together["store"] == "flanking"].reset_index(drop=True))
    one, other = (judged(flanking, seed=seed, resamples=50).tables["curves"] for seed in (0, 1))
    assert not other[["low", "high"]].equals(one[["low", "high"]])
    assert np.array_equal(other["recovered"], alone["recovered"])


def test_what_is_never_half_recovered_has_words_and_no_nan(tmp_path: Path) -> None:
    never = {f"p{n}": {W: ramp(12, 12)} for n in range(6)}
    paths = [write_store(tmp_path / f"{name}.zarr", name, never) for name in ("flanking", "random")]
    text = judged(*paths).text
    assert "neither recovers half of these segments" in text and "nan" not in text and "inf" not in text
    early = write_store(tmp_path / "early.zarr", "flanking", {f"p{n}": {W: ramp(2, 12)} for n in range(6)})
    assert "half recovered at 4 residues by flanking, never by random" in judged(early, paths[1]).text


def test_a_protein_that_stands_twice_counts_once(tmp_path: Path) -> None:
    path = write_store(tmp_path / "f.zarr", "flanking", {"p": {W: ramp(1, 3)}, "q": {W: ramp(2, 3)}})
    rows = open_store(path).rows
    write_manifest(path, [*rows, replace(rows[0], id="copy", key="copy", alias_of="p"), replace(rows[0], alias_of="p")])
    found = judged(path)
    assert found.tables["curves"]["proteins"].tolist() == [2, 2, 2]
    segments = found.tables["segments"]
    assert "which counts for both" in segments.set_index("protein").loc["copy", "reason"] and len(segments) == 3


def test_the_thresholds_are_those_of_the_configuration(tmp_path: Path) -> None:
    path = write_store(tmp_path / "f.zarr", "flanking", {"p": {W: ramp(2, 6, high=0.45)}})
    assert judged(path).tables["summary"]["recoverable"].item() == 0
    rule = {**settings().jump.model_dump(), "height": 0.4}
    found = judged(path, recovered=0.4, jump=rule).tables["summary"].iloc[0]
    assert (found["recoverable"], found["jump"], found["half_unmasked"]) == (1, 1, 4)


def test_nothing_to_read_is_a_sentence(tmp_path: Path) -> None:
    empty = write_store(tmp_path / "e.zarr", "flanking", {"p": {}}, failed=["bad"])
    outcome = judged(empty)
    assert outcome.scored == 0 and "run predict with a lower segments.threshold" in outcome.text
    assert "no segment was chosen in this protein" in outcome.text and "bad: failed: " in outcome.text
    jacobian = tmp_path / "j.zarr"
    create_or_check(jacobian, {"kind": "jacobian"}, {})
    with pytest.raises(EvaluationError, match="kind"):
        judged(jacobian)


def test_the_command_writes_tables_and_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [
        write_store(tmp_path / f"{name}.zarr", name, random_curves(rise, rise, repeats), **keys)
        for name, rise, repeats, keys in (
            ("flanking", 1, 1, {}),
            ("random", 4, 2, {}),
            ("random_avoiding_30", 5, 1, {"distance": 30}),
        )
    ]
    listed = ",".join(str(path) for path in paths)
    out = tmp_path / "out"
    config = composed("evaluate", "+evaluation=contact_recovery", f"store=[{listed}]", f"out={out}")
    assert evaluate(config) == 0
    assert "flanking against random, " in capsys.readouterr().out
    assert {path.stem for path in out.glob("*.png")} == {
        "recovery_curves", "recovery_of_segments", "minimal_segments_histogram"
    }  # fmt: skip
    assert all(path.stat().st_size > 10_000 for path in out.glob("*.png"))
    names = {"summary", "curves", "paired", "minimal_segments", "segments", "recovery"}
    assert {path.stem for path in out.glob("*.parquet")} == {path.stem for path in out.glob("*.csv")} == names
    rows = pd.read_parquet(out / "recovery.parquet")
    assert len(rows) == sum(
        len(pd.read_parquet(out / "recovery.parquet")[rows["store"] == path.stem]) for path in paths
    )
    assert {"store", "schedule", "protein", "step", "unmasked", "recovery"} <= set(rows.columns)


def test_a_wrong_key_is_named() -> None:
    from plmjac.config import UsageError

    with pytest.raises(UsageError, match="hight"):
        parse_evaluate(composed("evaluate", "+evaluation=contact_recovery", "store=x", "+evaluation.jump.hight=1"))


def test_labels_of_equal_runs_end_with_their_stores(tmp_path: Path) -> None:
    from plmjac.evaluation.contact_recovery.runs import labels

    path = write_store(tmp_path / "a.zarr", "flanking", {"p": {W: ramp(1, 3)}})
    store = Store("a", open_store(path))
    assert labels([store, replace(store, name="b")]) == [("flanking (a)", ""), ("flanking (b)", "")]
    near = write_store(tmp_path / "n.zarr", "random_avoiding_30", {"p": {W: ramp(1, 3)}}, distance=10)
    assert labels([store, Store("n", open_store(near))])[1] == ("random_avoiding_30 distance=10", "")


def test_curves_that_start_high_are_called_what_they_are(tmp_path: Path) -> None:
    path = write_store(tmp_path / "f.zarr", "flanking", {"p": {W: ramp(0, 5), V: ramp(0, 5)}, "q": {W: ramp(2, 5)}})
    assert "nothing but the segment shown: flanking (2 of 3);" in judged(path).text
