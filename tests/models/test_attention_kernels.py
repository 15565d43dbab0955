"""Kernels of attention are equal to plain attention, and the fastest right one is taken, once."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from plmjac.models import attention_kernels

ON_GPU = torch.cuda.is_available()
Heads = tuple[Tensor, Tensor, Tensor]


def _heads(batch: int, heads: int, tokens: int, width: int, device: str = "cpu") -> Heads:
    """Queries, keys and values as they lie in one projection: (B, T, 3, H, W) with heads and tokens exchanged."""
    generator = torch.Generator().manual_seed(tokens)
    parts = torch.randn(batch, tokens, 3, heads, width, generator=generator).half().to(device)
    query, key, value = parts.unbind(2)
    return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)


@pytest.fixture
def nothing_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """No choice so far, a cache folder of its own, and a card by name."""
    monkeypatch.setenv("PLMJAC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(attention_kernels, "_choices", {})
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: "a card")
    yield tmp_path / "cache" / attention_kernels.FILE


@pytest.mark.gpu
@pytest.mark.skipif(not ON_GPU, reason="PyTorch sees no CUDA device here")
@pytest.mark.parametrize(("tokens", "heads", "width"), [(66, 20, 16), (258, 20, 64), (130, 20, 24), (1026, 20, 32)])
def test_every_kernel_of_a_gpu_is_right_or_left_out(tokens: int, heads: int, width: int) -> None:
    query, key, value = _heads(4, heads, tokens, width, "cuda")
    expected = F.scaled_dot_product_attention(query.float(), key.float(), value.float())
    right = []
    for name, kernel in attention_kernels.kernels().items():
        try:
            found = kernel(query, key, value).float()
        except Exception as error:  # not made for this shape or card
            print(name, error)
            continue
        assert (found - expected).square().mean().sqrt() <= 2e-3 * expected.square().mean().sqrt(), name
        right.append(name)
    assert "flash" in right
    found = attention_kernels.attend(query, key, value).float()
    torch.testing.assert_close(found, expected, atol=5e-3, rtol=0)


IN_INTERPRETER = """
import torch
from plmjac.models.attention_triton import attend
for batch, heads, tokens, width in ((1, 1, 5, 8), (2, 3, 64, 16), (2, 2, 66, 24), (1, 2, 130, 64)):
    parts = torch.randn(batch, tokens, 3, heads, width, generator=torch.Generator().manual_seed(tokens)).half()
    query, key, value = (each.transpose(1, 2) for each in parts.unbind(2))
    value = (3 * value + 1).transpose(1, 2).contiguous().transpose(1, 2)
    expected = torch.nn.functional.scaled_dot_product_attention(query.float(), key.float(), value.float())
    found = attend(query, key, value)
    assert found.dtype == torch.float16 and found.transpose(1, 2).is_contiguous()
    torch.testing.assert_close(found.float(), expected, atol=4e-3, rtol=2e-3)
    print(tokens, float((found.float() - expected).abs().max()))
"""


def test_the_triton_kernel_is_plain_attention() -> None:
    """In Triton's interpreter, which has to be told before anything imports Triton."""
    pytest.importorskip("triton")
    done = subprocess.run(
        [sys.executable, "-c", IN_INTERPRETER],
        env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0 and len(done.stdout.splitlines()) == 4, done.stderr


def _times(by_name: dict[str, float], candidates: dict[str, Callable[..., Tensor]]) -> Callable[..., float]:
    names = {id(kernel): name for name, kernel in candidates.items()}
    return lambda kernel: by_name[names[id(kernel)]]


def _plain(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(query.float(), key.float(), value.float()).half()


def _broken(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    raise RuntimeError("no kernel for this card")


CANDIDATES: dict[str, Callable[..., Tensor]] = {
    "flash": lambda *qkv: _plain(*qkv), "cudnn": lambda *qkv: _plain(*qkv), "wrong": lambda *qkv: _plain(*qkv) * 1.01,
    "nan": lambda *qkv: _plain(*qkv) * float("nan"), "broken": _broken,
}  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({"flash": 1.0, "cudnn": 0.5}, "cudnn"),
        ({"flash": 1.0, "cudnn": 0.97}, "flash"),  # within the noise the usual one stays
        ({"flash": 1.0, "cudnn": 2.0}, "flash"),
    ],
)
def test_the_fastest_right_one_is_taken_and_a_wrong_one_never(seconds: dict[str, float], chosen: str) -> None:
    timed = _times({**seconds, "wrong": 0.01, "nan": 0.01, "broken": 0.01}, CANDIDATES)
    assert attention_kernels.choose(CANDIDATES, *_heads(2, 3, 17, 16), timed) == chosen


def test_without_a_usual_one_another_is_taken_and_without_any_the_usual_one() -> None:
    only = {"cudnn": CANDIDATES["cudnn"], "flash": _broken}
    assert attention_kernels.choose(only, *_heads(1, 1, 9, 16), _times({"cudnn": 1.0}, only)) == "cudnn"
    assert attention_kernels.choose({"flash": _broken}, *_heads(1, 1, 9, 16)) == "flash"


def test_a_choice_is_made_once_and_kept(nothing_chosen: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    monkeypatch.setattr(attention_kernels, "kernels", lambda: CANDIDATES)
    monkeypatch.setattr(attention_kernels, "choose", lambda _, query, *rest: made.append(query.shape[2]) or "cudnn")
    for tokens in (65, 100, 128, 129):  # two classes of up to 128 and up to 192
        found = torch.ops.plmjac.attend(*_heads(2, 3, tokens, 16))
        torch.testing.assert_close(found, _plain(*_heads(2, 3, tokens, 16)))
        assert found.transpose(1, 2).is_contiguous()
    assert made == [65, 129]
    kept = json.loads(nothing_chosen.read_text())
    assert len(kept) == 2 and set(kept.values()) == {"cudnn"} and "128 tokens, 3 heads of 16" in min(kept)
    attention_kernels._choices.clear()  # another process
    torch.ops.plmjac.attend(*_heads(2, 3, 65, 16))
    assert made == [65, 129]
    nothing_chosen.write_text(json.dumps(dict.fromkeys(kept, "flash 3")))  # which is not installed any more
    attention_kernels._choices.clear()
    torch.ops.plmjac.attend(*_heads(2, 3, 65, 16))
    assert made == [65, 129, 65]


def test_where_a_choice_cannot_be_kept_the_usual_kernel_is_taken(
    nothing_chosen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or two runs might round differently."""
    nothing_chosen.parent.write_text("a file in the place of the folder")
    monkeypatch.setattr(attention_kernels, "kernels", lambda: CANDIDATES)
    monkeypatch.setattr(attention_kernels, "choose", lambda *_: "cudnn")
    torch.ops.plmjac.attend(*_heads(1, 2, 9, 16))
    assert set(attention_kernels._choices.values()) == {"flash"}


def test_it_is_one_operator_of_a_graph_with_the_strides_it_promises(
    nothing_chosen: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention_kernels, "kernels", lambda: CANDIDATES)
    monkeypatch.setattr(attention_kernels, "choose", lambda *_: "flash")
    torch.library.opcheck(torch.ops.plmjac.attend, _heads(2, 3, 17, 16), test_utils=["test_schema", "test_faketensor"])


def test_on_a_cpu_and_in_float32_pytorch_chooses() -> None:
    query, key, value = _heads(2, 3, 17, 16)
    assert torch.equal(attention_kernels.attend(query, key, value), F.scaled_dot_product_attention(query, key, value))
