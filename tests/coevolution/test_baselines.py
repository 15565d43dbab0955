"""Maps by name: kept by content, made again where they are damaged, refused where they are too large."""

from pathlib import Path

import numpy as np
import pytest

from plmjac.coevolution import baselines
from plmjac.coevolution.baselines import BASELINES, Limits, TooLarge, baseline_map, effective_sequences

ALIGNMENT = np.random.default_rng(0).integers(0, 21, (40, 8)).astype(np.int8)
LIMITS = Limits(memory=1e9, iterations=3)


@pytest.mark.parametrize("name", BASELINES)
def test_a_kept_map_is_found_by_its_content_only(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = baseline_map(name, ALIGNMENT, LIMITS, tmp_path)
    np.testing.assert_array_equal(made.contacts, baseline_map(name, ALIGNMENT, LIMITS).contacts)
    monkeypatch.setitem(BASELINES, name, lambda *_: (np.zeros((8, 8), dtype=np.float32), "anew"))
    kept = baseline_map(name, ALIGNMENT.copy(), LIMITS, tmp_path)
    assert (kept.precision, kept.seconds) == (made.precision, made.seconds)
    np.testing.assert_array_equal(kept.contacts, made.contacts)
    other = ALIGNMENT.copy()
    other[0, 0] = (other[0, 0] + 1) % 21
    assert baseline_map(name, other, LIMITS, tmp_path).precision == "anew"
    assert baseline_map(name, ALIGNMENT.reshape(80, 4), LIMITS, tmp_path).precision == "anew"
    more = baseline_map(name, ALIGNMENT, Limits(memory=1e9, iterations=4), tmp_path)
    assert (more.precision == "anew") is (name == "mrf")


def test_a_damaged_or_half_written_map_is_made_again(tmp_path: Path) -> None:
    made = baseline_map("inverse_covariance", ALIGNMENT, LIMITS, tmp_path)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    for damaged in (content[: len(content) // 2], b"", content[:200] + b"\xff" * 40 + content[240:]):
        path.write_bytes(damaged)
        again = baseline_map("inverse_covariance", ALIGNMENT, LIMITS, tmp_path)
        np.testing.assert_array_equal(again.contacts, made.contacts)
        assert path.read_bytes()[:4] == content[:4]


def test_memory_decides_over_type_and_refusal() -> None:
    side = float((8 * 21) ** 2)
    assert baseline_map("inverse_covariance", ALIGNMENT, Limits(32 * side, 3)).precision == "float64"
    assert baseline_map("inverse_covariance", ALIGNMENT, Limits(32 * side - 1, 3)).precision == "float32"
    for name in BASELINES:
        with pytest.raises(TooLarge, match=r"8 columns need 0.00[0-9]* GB, above memory_limit="):
            baseline_map(name, ALIGNMENT, Limits(12 * side, 3))


def test_effective_sequences_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alignment = ALIGNMENT[[0, 0, 1, 2]]
    assert effective_sequences(alignment, tmp_path) == pytest.approx(3)
    monkeypatch.setattr(baselines, "sequence_weights", lambda _: np.full(4, 9, dtype=np.float32))
    assert effective_sequences(alignment, tmp_path) == pytest.approx(3)
    assert effective_sequences(alignment) == 36
