"""The benchmark runs, compares like with like, and its four ways agree; what it says follows from what it timed."""

import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import bench_tables
import benchmark
import benchmark_runs

pytest.importorskip("transformers")


def test_a_quick_run_agrees_and_writes_its_tables(tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"
    document.write_text(f"before\n{bench_tables.BEGIN}\nold\n{bench_tables.END}\nafter\n")
    words = ["--quick", "--cases", "debug:24", "--out", str(tmp_path), "--docs", str(document)]
    found = benchmark.main(words)
    case = found["cases"][0]
    assert case["map_error"]["authors"] == 0 and 0 < max(case["map_error"].values()) < 2e-4
    assert len(case["rounds"]) == 2 and set(case["rounds"][0]) == set(benchmark.KINDS)
    assert case["tokens"] == (19 * 24 + 1) * 26
    text = document.read_text()
    assert (
        text.startswith("before") and text.endswith("after\n") and "old" not in text and "| debug | 24 | fast |" in text
    )
    assert (tmp_path / "benchmark.json").stat().st_size > 500


def test_ratios_are_taken_within_a_round() -> None:
    result = {
        "size": "8m", "length": 10, "flops": 100, "tokens": 50, "map_error": dict.fromkeys(benchmark.KINDS, 0.0),
        "start_up_s": dict.fromkeys(benchmark.KINDS, 0.1),
        "rounds": [
            {"authors": 10.0, "transformers": 8.0, "plain": 10.0, "fast": 4.0},
            {"authors": 30.0, "transformers": 24.0, "plain": 30.0, "fast": 10.0},
            {"authors": 20.0, "transformers": 10.0, "plain": 20.0, "fast": 10.0},
        ],
    }  # fmt: skip
    found = benchmark.summary(result, rate=50.0)
    assert found["rows"]["fast"]["ratio"] == 2.5 and found["rows"]["fast"]["ratio_range"] == [2.0, 3.0]
    assert found["rows"]["fast"]["seconds"] == 10.0 and found["rows"]["fast"]["tokens_per_s"] == 5.0
    assert found["rows"]["fast"]["share_of_matrix_rate"] == 0.2 and found["fast_over_transformers"] == 2.0


@pytest.mark.parametrize(("words", "message"), [(["--cases", "9m:64"], "sizes are"), (["--cases", "8m"], "SIZE:L")])
def test_cases_that_cannot_be_measured(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        benchmark.parse(words)
    assert message in capsys.readouterr().err


def test_a_document_without_marks_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("text")
    with pytest.raises(SystemExit, match="needs the lines"):
        bench_tables.replace_section(path, "new")
    assert path.read_text() == "text"


def test_it_is_a_command() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "benchmark.py", "--help"], capture_output=True, text=True, check=True
    )
    assert "authors" in done.stdout


def test_whole_runs_are_timed_by_what_they_print(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Two real runs of a tiny case; the ratio is that of the same round."""
    benchmark_runs.main(["writer", "--cases", "debug:64", "--proteins", "3", "--rounds", "1", "--threads", "1"])
    row = capsys.readouterr().out.splitlines()[-1]
    assert row.startswith("| debug, 3 x L = 64 | ") and "nan" not in row
    with pytest.raises(SystemExit, match="cannot be timed"):
        benchmark_runs._row("n", [[1.0, 0.0]], lambda one, two: two / one)
    rounds = [[1.0, 2.0], [2.0, 3.0], [1.0, 4.0]]
    assert benchmark_runs._row("n", rounds, lambda one, two: two / one) == "| n | 1.0 | 3.0 | 2.00 (1.50 to 4.00) |"


def test_a_failed_run_is_no_measurement() -> None:
    with pytest.raises(SystemExit, match="ended with 2"):
        benchmark_runs.ran("-m", "plmjac.predict", "model=nosuch", threads=1)
