"""Times on GPUs: those that were measured come back, the others are scaled and say by what."""

import pytest

from plmjac.inference.rates import FIRST_COMPILED_FORWARD, MEASURED, PEAK, Measured, compiling_saves, gpu_times
from plmjac.models import Architecture

ESM2_650M = Architecture(33, 1280, 20)
ONE = (19 * 256 + 1) * ESM2_650M.flops(256)


@pytest.mark.parametrize("row", MEASURED, ids=lambda row: f"{row.precision} {row.way}")
def test_what_was_measured_comes_back(row: Measured) -> None:
    """Whatever else is in the table: ten such proteins take ten times the seconds of one."""
    assert row.flops == pytest.approx(ONE, rel=1e-3) and row.parameters * 1e6 == pytest.approx(
        ESM2_650M.num_parameters, rel=1e-3
    )
    (found,) = (
        each
        for each in gpu_times(10 * ONE, ESM2_650M.num_parameters, 256, row.precision, row.way)
        if each.card == row.card
    )
    assert found.seconds == pytest.approx(10 * row.seconds, rel=1e-3)
    assert row.day in found.source and "scaled" not in found.source


def test_another_size_is_scaled_by_flops_and_another_card_by_its_peak() -> None:
    small = Architecture(6, 320, 20)
    flops = (19 * 100 + 1) * small.flops(100)
    times = {each.card: each for each in gpu_times(flops, small.num_parameters, 100, "fp16", "compiled")}
    assert times["H100"].seconds == pytest.approx(4.11 * flops / ONE, rel=1e-3)
    assert times["A100"].seconds == pytest.approx(times["H100"].seconds * 989 / 312, rel=1e-3)
    assert times["H100"].source.endswith("651M, L = 256, torch.compile; scaled by FLOPs")
    assert times["A100"].source.endswith("on one H100, torch.compile; scaled by FLOPs and peak rates")
    assert set(times) == set(PEAK)


def test_a_way_that_was_not_measured_in_a_precision_says_what_it_took_instead() -> None:
    for each in gpu_times(ONE, ESM2_650M.num_parameters, 256, "fp32", "fast"):
        assert "the authors' loop" in each.source and each.seconds > 50


def test_compiling_pays_once_it_has_won_back_its_own_time() -> None:
    """0.91 s a Jacobian of 650M at L = 256, so seven of them and not six."""
    assert FIRST_COMPILED_FORWARD == 5.7
    assert not compiling_saves(6 * ONE) and compiling_saves(7 * ONE)
