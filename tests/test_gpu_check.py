"""`make gpu` names what it cannot do here, outlives a part that fails, and gathers what its imports need."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import gpu_check


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, on which it takes minutes: make gpu")
def test_without_a_gpu_every_part_is_skipped_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main(["--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    parts = json.loads((tmp_path / "gpu_check.json").read_text())["parts"]
    assert set(parts) == set(gpu_check.SHARES) == {"tests", "speed", "run"}
    for name, part in parts.items():
        assert part["state"] == "skipped" and "sees no CUDA device" in part["said"]
        assert any(line.startswith(name) and "skipped" in line for line in said.splitlines())


def test_a_part_that_fails_or_takes_too_long_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu_check, "why_not", lambda *_: "")
    for code, state in (
        ("print('17 passed')", "done"),
        ("print('FAILED tests/a.py'); raise SystemExit(1)", "failed"),
        ("import time; time.sleep(60)", "out of time"),
    ):
        monkeypatch.setattr(gpu_check, "words", lambda *_, code=code: ["-c", code])
        outcome = gpu_check.carried_out("tests", "cpu", tmp_path, 2.0 if state == "out of time" else 60.0, "")
        assert outcome.state == state
        assert outcome.said.startswith({"done": "17 passed", "failed": "FAILED tests/a.py"}.get(state, "after"))


def test_the_share_of_time_that_anything_ran() -> None:
    spans = [(2e6, 3e6), (0.0, 1e6), (0.5e6, 1.5e6), (0.6e6, 0.7e6)]
    assert gpu_check.busy(spans) == {"loop_seconds": pytest.approx(3.0), "busy": pytest.approx(2.5 / 3)}


def test_the_page_has_the_run_and_the_tables(tmp_path: Path) -> None:
    (tmp_path / "benchmark.md").write_text("| the tables |\n")
    done = gpu_check.Outcome("done", "", 1.0, {"cases": []})
    run = {"proteins": 6, "length": 256, "seconds": 20.0, "loop_seconds": 10.0, "busy": 0.93}
    said = gpu_check.page(
        {"tests": gpu_check.Outcome("failed", "FAILED a\n1 failed", 2.0, {}), "speed": done,
         "run": gpu_check.Outcome("done", "", 3.0, run)}, "cpu", 6.0, tmp_path,
    )  # fmt: skip
    assert "FAILED a" in said and "busy 93% of that" in said and said.endswith("| the tables |\n")


def test_wheels_are_asked_for_in_the_tested_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda words, **_: asked.append(words))
    assert gpu_check.gather(tmp_path, "3.12") == 0
    assert "zarr==3.1.6" in asked[0] and "antlr4-python3-runtime==4.9.3" in asked[1] and len(asked) == 2
    (tmp_path / "a.whl").write_bytes(b"0" * 41_000_000)
    with pytest.raises(SystemExit, match=r"41.0 MB, over 40"):
        gpu_check.gather(tmp_path, "3.12")
