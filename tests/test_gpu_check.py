"""`make gpu` names what it cannot do here, outlives a part that fails, and gathers what its imports need."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import gpu_candidates
import gpu_check

import plmjac
from plmjac.models.debug import DEBUG_ARCHITECTURE as DEBUG
from plmjac.models.debug import random_tensors
from plmjac.models.esm2_fast import Esm2Fast


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, on which it takes minutes: make gpu")
def test_without_a_gpu_every_part_is_skipped_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_check.main(["--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    parts = json.loads((tmp_path / "gpu_check.json").read_text())["parts"]
    assert set(parts) == set(gpu_check.SHARES) == {"tests", "speed", "candidates", "run"}
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
         "candidates": gpu_check.Outcome("done", "", 1.0, {"text": "norm: 9.1 ms", "rows": []}),
         "run": gpu_check.Outcome("done", "", 3.0, run)}, "cpu", 6.0, tmp_path,
    )  # fmt: skip
    assert "norm: 9.1 ms" in said
    assert "FAILED a" in said and "busy 93% of that" in said and said.endswith("| the tables |\n")


def test_candidates_that_cannot_run_are_skipped_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here for want of a GPU; and where one seems to work, by what it says when it is tried."""
    for said in ("no CUDA device", ""):
        if not said:
            monkeypatch.setattr(gpu_candidates.Esm2Compiled, "why_not_taken", lambda *_: "")
        gpu_candidates.main(["--device", "cpu", "--cases", "debug:12", "--out", str(tmp_path)])
        fast, compiled = json.loads((tmp_path / "candidates.json").read_text())["rows"]
        assert fast["taken"] == [] and fast["plain"][0] > 0 and 0 < fast["plain"][1] < 0.1
        assert set(fast["skipped"]) == {"norm", "rotation", "gelu", "graph"}
        assert set(compiled["skipped"].values()) == {"no CUDA device"}
        assert all(why == said if said else why for why in fast["skipped"].values())


def test_a_forward_is_timed_with_and_without_each_candidate(monkeypatch: pytest.MonkeyPatch) -> None:
    """With stand-ins for the kernels and the clock: `norm` adds noise, `gelu` does not work, two others pay."""
    model = gpu_candidates.Esm2Compiled(
        name="x",
        architecture=DEBUG,
        tensors=random_tensors(DEBUG, 0),
        weights_sha256="",
        precision="fp16",
        in_use=False,
    )

    def stand_in(model: Esm2Fast, *arguments: Any) -> None:
        if "gelu" in model.taken:  # type: ignore[attr-defined]
            raise RuntimeError("not made for this card\nand a trace")
        Esm2Fast._without_maps(model, *arguments)
        arguments[1].add_(torch.randn(arguments[1].shape) * ("norm" in model.taken))  # type: ignore[attr-defined]

    monkeypatch.setattr(gpu_candidates.Esm2Compiled, "_without_maps", stand_in)
    monkeypatch.setattr(gpu_candidates.Esm2Compiled, "why_not_taken", lambda *_: "")
    times = {"": 10.0, "norm": 1.0, "rotation": 9.0, "graph": 8.0, "graph rotation": 7.5}
    tokens = torch.randint(20, (2, 12), generator=torch.Generator().manual_seed(0))
    exact = plmjac.load_model("debug").logits(tokens)
    row = gpu_candidates.measure(model, tokens, exact, lambda _: times[" ".join(sorted(model.taken))])
    assert row["taken"] == ["graph", "rotation"] and row["plain"][0] == 10.0
    assert row["skipped"] == {"gelu": "not made for this card"}
    lines = gpu_candidates.lines_of({"size": "debug", "length": 12, "sequences": 2, "way": "fast", **row})
    assert lines[0].startswith("debug, L = 12, 2 sequences, fast: 10000.0 ms")
    assert any(line.startswith("  rotation + graph: 7500.0 ms (1.33 x)") and line.endswith("taken") for line in lines)
    assert not any(line.endswith("taken") for line in lines if line.startswith(("  norm", "  graph", "  rotation:")))


def test_wheels_are_asked_for_in_the_tested_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda words, **_: asked.append(words))
    assert gpu_check.gather(tmp_path, "3.12") == 0
    assert "zarr==3.1.6" in asked[0] and "antlr4-python3-runtime==4.9.3" in asked[1] and len(asked) == 2
    (tmp_path / "a.whl").write_bytes(b"0" * 41_000_000)
    with pytest.raises(SystemExit, match=r"41.0 MB, over 40"):
        gpu_check.gather(tmp_path, "3.12")
