"""Candidates for a faster forward: equal to the plain one, taken only where measured so, and recorded."""

import os
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from plmjac.models import Architecture, esm2_fused
from plmjac.models.debug import random_tensors
from plmjac.models.esm2_compiled import Esm2Compiled
from plmjac.models.esm2_fused import CANDIDATES, Esm2Fused, Graph, choose

ON_GPU = torch.cuda.is_available()
TRITON = ("norm", "rotation", "gelu")


def model_of(size: Architecture, *taken: str, kind: type[Esm2Fused] = Esm2Fused, **options: Any) -> Esm2Fused:
    """Random weights in half precision, with candidates whether or not they can be taken here."""
    tensors = random_tensors(size, 0)
    model = kind(name="x", architecture=size, tensors=tensors, weights_sha256="", precision="fp16", **options)
    model.taken = frozenset(taken)
    return model


IN_INTERPRETER = """
import torch, torch.nn.functional as F
from plmjac.models import Architecture
from plmjac.models import fused_triton as fused
from test_esm2_fused import model_of, TRITON
draw = torch.Generator().manual_seed(0)
half = lambda *shape: torch.randn(*shape, generator=draw).half()
for width in (24, 80, 128):
    stream, change = 3 * torch.randn(2, 3, width, generator=draw) + 1, half(2, 3, width)
    total = stream + change.float()
    found = fused.add_norm(stream, change, 1e-5)
    assert torch.equal(stream, total) and found.dtype == torch.float16
    torch.testing.assert_close(found.float(), F.layer_norm(total, (width,), eps=1e-5), atol=1e-3, rtol=1e-3)
for batch, tokens, heads, head_width in ((2, 5, 3, 8), (1, 3, 2, 24)):
    pairs = head_width // 2
    qkv, angles = half(batch, tokens, 3 * heads * head_width), torch.randn(tokens, pairs, generator=draw)
    parts = qkv.float().view(batch, tokens, 3, heads, pairs, 2)
    cos, sin = angles.cos()[None, :, None, None], angles.sin()[None, :, None, None]
    even, odd = parts[:, :, :2, ..., 0], parts[:, :, :2, ..., 1]
    turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], -1)
    expected = torch.cat([turned, parts[:, :, 2:]], 2).reshape(qkv.shape)
    fused.rotate(qkv, angles.cos().contiguous(), angles.sin().contiguous())
    torch.testing.assert_close(qkv.float(), expected, atol=1e-3, rtol=1e-3)
    assert torch.equal(qkv[..., 2 * heads * head_width :].float(), parts[:, :, 2].reshape(batch, tokens, -1))
fused.TILE.update(M=16, N=16, K=16, GROUP=2)  # many tiles, rows and columns that fill none
for rows, inner, columns in ((3, 20, 40), (70, 33, 50)):
    left, weight, bias = half(1, rows, inner), half(columns, inner), half(columns)
    expected = F.gelu(F.linear(left.float(), weight.float(), bias.float()))
    found = fused.linear_gelu(left, weight, bias)
    assert found.shape == expected.shape
    torch.testing.assert_close(found.float(), expected, atol=2e-3, rtol=2e-3)
size, tokens = Architecture(2, 48, 2), torch.randint(20, (2, 9), generator=draw)
expected = model_of(size).logits(tokens)
for taken in ([], *([name] for name in TRITON), TRITON):
    model = model_of(size, *taken)
    model.taken |= {"nothing"}  # the fused layers, with none of the kernels
    off = (model.logits(tokens) - expected).square().mean().sqrt() / expected.std()
    print(*taken, float(off))
    assert off < 3e-3, (taken, off)
"""


def test_the_triton_kernels_are_what_they_replace() -> None:
    """Alone and in whole forwards, in Triton's interpreter, which has to be told before anything imports Triton."""
    pytest.importorskip("triton")
    where = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    done = subprocess.run(
        [sys.executable, "-c", IN_INTERPRETER],
        env={**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": where}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 5, done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPU, reason="PyTorch sees no CUDA device here")
@pytest.mark.parametrize("taken", [(name,) for name in CANDIDATES["fast"]] + [tuple(CANDIDATES["fast"])])
def test_on_a_gpu_every_candidate_is_right(taken: tuple[str, ...]) -> None:
    if set(taken) & set(TRITON):
        pytest.importorskip("triton")
    size = Architecture(3, 320, 20)
    for number in (2, 3):  # two shapes, and each again from its graph
        tokens = torch.randint(20, (number, 50), generator=torch.Generator().manual_seed(number)).cuda()
        plain, model = model_of(size).cuda(), model_of(size, *taken).cuda()
        expected = plain.logits(tokens)
        for _ in range(4):
            off = (model.logits(tokens) - expected).square().mean().sqrt()
            assert off <= 3e-3 * expected.std(), taken


class Captured:
    """Stands for a CUDA graph: the work that was captured, to be done again."""

    def __init__(self) -> None:
        self.replay: Callable[[], None] = lambda: None


def test_a_graph_works_on_what_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """With stand-ins for CUDA: copies in and out, and one graph a shape that is met three times, four at the most."""
    nothing = SimpleNamespace(wait_stream=lambda _: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: nothing)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: nothing)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", Captured)
    monkeypatch.setattr(torch.cuda, "graph", lambda _: nullcontext())

    class Repeated(Graph):
        def __init__(self, work: Callable[[Tensor, Tensor], None], x: Tensor, turn: Tensor) -> None:
            super().__init__(work, x, turn)
            self.graph.replay = lambda: work(self.x, self.turn)

    monkeypatch.setattr(esm2_fused, "Graph", Repeated)
    size = Architecture(2, 32, 4)
    plain, model = model_of(size), model_of(size, "graph")
    for length in (5, 6, 7, 8, 9, 5):
        for seed in range(4):
            tokens = torch.randint(20, (2, length), generator=torch.Generator().manual_seed(seed))
            positions = torch.arange(length) * (1 + seed)
            torch.testing.assert_close(
                model.logits(tokens, positions), plain.logits(tokens, positions), atol=2e-2, rtol=1e-2
            )
        model.logits(torch.zeros(1, length, dtype=torch.int64))  # met once or twice
    assert [shape[1] for shape in model._graphs] == [9, 10, 11, 7]  # tokens: residues and both ends


def test_the_faster_that_are_right_are_taken_and_no_others() -> None:
    plain = (10.0, 1e-3)
    alone = {
        "a": (9.0, 1e-3),
        "b": (8.0, 1.05e-3),
        "wrong": (1.0, 2e-3),
        "nan": (1.0, float("nan")),
        "same": (9.8, 0.0),
    }

    def measured(together: tuple[float, float]) -> Callable[[frozenset[str]], tuple[float, float]]:
        return lambda names: alone[next(iter(names))] if len(names) == 1 else together

    best, found = choose(list(alone), plain, measured((7.0, 1e-3)))
    assert best == {"a", "b"} and found["a + b"] == (7.0, 1e-3) and set(found) == {*alone, "a + b"}
    assert choose(list(alone), plain, measured((8.5, 1e-3)))[0] == {"b"}
    assert choose(list(alone), plain, measured((7.0, 5e-3)))[0] == {"b"}
    assert choose(["wrong", "nan", "same"], plain, measured(plain))[0] == frozenset()
    assert choose([], plain, measured(plain)) == (frozenset(), {})


def test_a_choice_is_kept_by_card_and_way_and_taken_where_it_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PLMJAC_CACHE", str(tmp_path))
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    model = model_of(Architecture(2, 32, 4), kind=Esm2Compiled, in_use=False)
    assert model.take(["norm", "graph"]) == [] and model.take(None) == []
    assert model.why_not_taken("norm") == "no CUDA device"
    monkeypatch.setattr(Esm2Compiled, "device", property(lambda _: torch.device("cuda")))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "a card")
    monkeypatch.setattr(esm2_fused.importlib.util, "find_spec", lambda _: None)
    assert model.take(None) == []  # nothing was measured
    assert esm2_fused.keep(model, {"graph", "norm"})
    assert model.take(None) == ["graph"]  # Triton is gone
    assert model.why_not_taken("norm") == "Triton is not installed"
    assert isinstance(model, Esm2Compiled)
    model.in_use = True
    assert model.take(None) == [] and model.take(["attention", "graph"]) == ["attention"]
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "another card")
    model.in_use = False
    assert model.take(None) == [] and model.take(["graph"]) == ["graph"]  # as recorded in a store
    model.precision = "tf32"
    assert model.take(["graph"]) == [] and "for fp16" in model.why_not_taken("graph")
