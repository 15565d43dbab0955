"""Who decides to compile on a GPU, and that it is written down and repeated; with fakes, as there need be no GPU."""

import json
from collections.abc import Callable, Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support import composed

from plmjac.inference import loop, rates, resolve
from plmjac.inference.resolve import Run
from plmjac.inference.settings import parse_predict
from plmjac.models import LanguageModel, registry
from plmjac.models.debug import debug_model
from plmjac.models.esm2_compiled import Esm2Compiled
from plmjac.models.loading import adapter

TOKENS = torch.randint(20, (3, 9), generator=torch.Generator().manual_seed(0))


def _undecided() -> Esm2Compiled:
    model = debug_model(adapter=adapter(fast=True, compiled=None, precision="fp32", kind="cuda"))
    assert isinstance(model, Esm2Compiled) and not model.in_use
    return model


def test_until_it_is_chosen_the_forward_is_the_fast_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    model, fast = _undecided(), debug_model(adapter=adapter(fast=True, compiled=None, precision="fp32", kind="cpu"))
    assert type(fast).__name__ == "Esm2Fast" and not fast.use_compiled(True)
    assert torch.equal(model.logits(TOKENS), fast.logits(TOKENS))
    assert model.use_compiled(True) and model.in_use
    torch.testing.assert_close(model.logits(TOKENS), fast.logits(TOKENS), atol=1e-4, rtol=1e-4)
    assert not model.use_compiled(False) and torch.equal(model.logits(TOKENS), fast.logits(TOKENS))


def test_where_the_compiler_does_not_work_a_line_says_so_and_the_fast_path_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no Triton here\nand a trace")

    monkeypatch.setattr(torch, "compile", lambda function, **_: broken)
    model = _undecided()
    before = model.logits(TOKENS)
    assert not model.use_compiled(True) and torch.equal(model.logits(TOKENS), before)
    assert "torch.compile does not work here (no Triton here): going on without" in caplog.text


class Fake(LanguageModel):
    """Notes what it is told."""

    def __init__(self, works: bool = True) -> None:
        super().__init__()
        self.asked: list[bool] = []
        self.works = works

    def take(self, names: Collection[str] | None) -> list[str]:
        return [name for name in sorted(names or ()) if self.works or name != "norm"]

    def use_compiled(self, wanted: bool) -> bool:
        self.asked.append(wanted)
        return wanted and self.works


@pytest.mark.parametrize(
    ("recorded", "works", "asked", "warned"),
    [
        ({"device": "cuda", "compiled": True}, True, [True], ""),
        ({"device": "cuda", "compiled": False}, True, [False], ""),
        ({"device": "cuda", "compiled": True}, False, [True], "compiled=False"),
        ({"device": "cuda"}, True, [], ""),
        ({"device": "cpu", "compiled": True}, True, [], "device=cuda"),
        ({"device": "cuda", "compiled": False, "candidates": ["graph", "norm"]}, True, [False], ""),
        (
            {"device": "cuda", "compiled": False, "candidates": ["graph", "norm"]},
            False,
            [False],
            "goes on with candidates=['graph']",
        ),
    ],
)
def test_a_run_that_resumes_does_as_the_first_did(
    recorded: dict[str, Any], works: bool, asked: list[bool], warned: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = Fake(works)
    settings = parse_predict(composed("predict", "+dataset=demo"))
    run: Any = SimpleNamespace(settings=settings, kind="cuda", model=model)
    assert Run.limits(run, {"max_tokens": 131072, "threads": 1, **recorded})[1] == 1
    assert model.asked == asked
    assert (warned in caplog.text) if warned else not caplog.text


@pytest.mark.parametrize(
    ("words", "itself"),
    [
        (("model=debug",), True),
        (("model=debug", "model.fast=false"), False),
        (("model=debug", "model.compiled=false"), False),
        (("model=debug", "model.compiled=true"), False),
        (("model=debug", "substitutions=none", "keep=[logits]"), False),
        (("model=tiny", "+experiment=single_segment"), False),
        (("model=tiny", "+experiment=single_segment", "readout=jacobian"), True),
    ],
)
def test_only_where_nobody_chose_and_it_would_matter(words: tuple[str, ...], itself: bool) -> None:
    settings = parse_predict(composed("predict", "+dataset=demo", *words))
    assert settings.compiles_itself == itself


def test_a_store_names_compiling_only_where_it_was_asked_for() -> None:
    """So that stores of before it was decided by the run go on."""
    told = [registry.identity("debug", {"compiled": value}, "cpu") for value in (None, False, True)]
    assert told[0] == told[1] and told[2] == {**told[0], "compiled": True}


def test_the_first_run_decides_by_its_length_and_records_it(
    predict: Callable[..., int], fasta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of predict up to its loop, with a GPU in name only: short runs do not compile, long ones do."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setattr(resolve, "device_of", lambda *_: "cuda:0")
    made: list[Esm2Compiled] = []
    monkeypatch.setattr(resolve, "_model", lambda *_: made.append(_undecided()) or made[-1])
    seen: list[bool] = []
    monkeypatch.setattr(loop, "execute", lambda *_: seen.append(made[-1].in_use))  # falsy: as another rank than 0
    for name, enough in (("short", False), ("long", True)):
        if enough:
            monkeypatch.setattr(rates, "FIRST_COMPILED_FORWARD", 0.0)
            monkeypatch.setattr(Esm2Compiled, "take", lambda *_: ["attention"])
        words = ("+dataset=fasta", f"dataset.path={fasta}", "model=debug", f"store={tmp_path / name}.zarr")
        assert predict(*words) == 0
        assert seen[-1] == enough
        attributes = json.loads((tmp_path / f"{name}.zarr/zarr.json").read_text())["attributes"]
        assert attributes["run"].get("candidates") == (["attention"] if enough else None)
        assert attributes["run"]["compiled"] == enough and "compiled" not in attributes["model"]
    assert predict(*words, "model.compiled=false") == 0  # settled: nothing is asked, and the store is the same
    assert json.loads((tmp_path / "long.zarr/zarr.json").read_text())["attributes"] == attributes
