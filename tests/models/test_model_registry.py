"""A model from outside the package by one call of `register`, and options that have no effect."""

import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from support import composed
from torch import Tensor

import plmjac
from plmjac.config import DONE, USAGE, UsageError, run
from plmjac.inference.settings import parse_predict
from plmjac.models import LanguageModel, ModelSize, load_model, register, registry, size_of
from plmjac.plan import plan
from plmjac.store import open_store


class ToySize(ModelSize):
    """Of a model that is one table."""

    num_parameters = 26 * 20  # type: ignore[assignment]
    weights = 4 * 26 * 20  # type: ignore[assignment]

    def flops(self, length: int) -> int:
        return 1000 * length

    def of_logits(self, batch: int, length: int) -> int:
        return 3 * 80 * batch * length

    def of_maps(self, length: int, *, every_head: bool) -> int:
        return 0


class Toy(LanguageModel):
    """Logits that add a table's row of the residue and, times `strength`, those of its two neighbours."""

    table: Tensor

    def __init__(self, name: str, seed: int, strength: float) -> None:
        super().__init__()
        self.name, self.strength, self.weights_sha256 = name, strength, f"toy {seed}"
        self.readouts = frozenset({"logits"})
        self.register_buffer("table", torch.randn(26, 20, generator=torch.Generator().manual_seed(seed)))

    @property
    def size(self) -> ModelSize:
        return ToySize()

    def read(
        self,
        tokens: Tensor,
        readouts: Collection[str],
        positions: Tensor | None = None,
        heads: Sequence[tuple[int, int]] | None = None,
    ) -> dict[str, Tensor]:
        self.check_readouts(readouts)
        own = self.table[tokens]
        return {"logits": own + self.strength * (own.roll(1, 1) + own.roll(-1, 1))}


def load_toy(*, name: str, device: torch.device, seed: int, strength: float) -> LanguageModel:
    return Toy(name, seed, strength).to(device)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(registry, "_MODELS", dict(registry._MODELS))
    register("toy", load_toy, options={"seed": 0, "strength": 0.5})
    yield "toy"


def test_a_model_from_outside_runs_through_predict_and_plan(
    toy: str, predict: Callable[..., int], fasta: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "toy.zarr"
    line = ("+dataset=fasta", f"dataset.path={fasta}", "model=toy", "threads=1", f"store={store}", "keep=[jacobian]")
    assert predict(*line, "model.strength=2") == 0
    opened = open_store(store)
    assert opened.attributes["model"] == {"name": "toy", "weights_sha256": "toy 0", "strength": 2}
    expected = plmjac.categorical_jacobian(load_model("toy", strength=2), opened["c"].sequence)
    np.testing.assert_allclose(opened["c"].jacobian, expected, atol=1e-3 * float(expected.abs().max()))
    assert np.abs(opened["d"].jacobian[0, :, 3]).max() == 0 < np.abs(opened["d"].jacobian[0, :, 1]).max()
    with pytest.raises(UsageError, match="strength"):
        predict(*line, "model.strength=1")
    assert plan(composed("plan", *line, "model.strength=2")) == DONE
    assert "model     toy" in capsys.readouterr().out
    assert isinstance(size_of("toy"), ToySize)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("model=tiny model.seed=3", "model.seed has no effect on model=tiny: tiny takes bos_eos, checkpoint, compiled"),
        ("model=debug model.checkpoint=x.pt", "and no checkpoint; name the size with it: model=esm2_8m, or model=tiny"),
        ("model=toy model.fast=false", "model.fast has no effect on model=toy: toy takes seed, strength"),
        ("model=toy model.compiled=true", "model.compiled has no effect on model=toy"),
        ("model=tiny model.strength=3", "model.strength has no effect on model=tiny"),
        ("model=esm2_8m model.chekpoint=x", "there is no key 'model.chekpoint'; did you mean 'checkpoint'?"),
        ("model=tiny model.bos_eos=cut", "model.bos_eos='cut': input should be 'keep' or 'mask'"),
    ],
)
def test_an_option_without_effect_is_an_error(
    toy: str, words: str, message: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert command_line(monkeypatch, words)[0] == USAGE
    assert message in caplog.text and "Value error" not in caplog.text
    name, option = words.replace("model=", "").replace("model.", "").split()
    if "cut" not in words:
        with pytest.raises(ValueError, match=message[:20]):
            load_model(name, **yaml.safe_load(option.replace("=", ": ")))


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        ("model=tiny model.token_dropout=false", "token_dropout", False),
        ("model=tiny +model.token_dropout=false", "token_dropout", False),
        ("model=esm2_650m ++model.bos_eos=mask", "bos_eos", "mask"),
        ("model=tiny model.checkpoint=some.pt", "checkpoint", Path("some.pt")),
        ("model=debug model.seed=4", "seed", 4),
        ("model=debug seed=4", "seed", 4),
        ("model=toy seed=4", "seed", 4),
        ("model=toy model.strength=4", "strength", 4),
    ],
)
def test_keys_work_as_written(
    toy: str, words: str, key: str, value: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    code, model = command_line(monkeypatch, words)
    assert code == DONE and getattr(model, key) == value


def test_a_refused_checkpoint_advises_what_works(oracle: Any) -> None:
    with pytest.raises(ValueError, match=r"no published size is like that; use model=tiny with it"):
        size_of("esm2_8m", checkpoint=oracle.folder)
    settings = parse_predict(composed("predict", "+dataset=demo", "model=tiny", f"model.checkpoint={oracle.folder}"))
    model = load_model(**settings.model.model_dump())
    assert (
        model.size == size_of(**settings.model.model_dump()) and model.num_parameters != size_of("tiny").num_parameters
    )


def test_options_that_change_no_numbers_part_no_store() -> None:
    always = {"fast": True, "token_dropout": None, "bos_eos": "keep"}
    assert registry.identity("tiny", {"checkpoint": "x", "seed": 0}, "cpu") == {**always, "precision": "fp32"}
    assert registry.identity("debug", {"compiled": True, "seed": 3}, "cuda") == {
        **always, "compiled": True, "precision": "fp16",
    }  # fmt: skip


def command_line(monkeypatch: pytest.MonkeyPatch, words: str) -> tuple[int, Any]:
    """The exit code of a command line, and the model's settings that it comes to."""
    found: list[Any] = []

    def job(config: dict[str, Any]) -> int:
        found.append(parse_predict(config).model)
        return DONE

    monkeypatch.setattr(sys, "argv", ["predict", "+dataset=demo", "hydra.output_subdir=null", *words.split()])
    return run("predict", job), (found or [None])[0]
