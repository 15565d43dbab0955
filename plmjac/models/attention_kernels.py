"""Half-precision attention on a GPU by the fastest correct kernel for a shape.

When a shape (tokens rounded up to a multiple of 64, heads, channels) occurs for the first time, every available kernel
runs on its tensors, is compared with float32 and timed. The choice is saved in the cache folder by GPU and PyTorch
version, so that later runs compute the same bits; if it cannot be saved, PyTorch's flash kernel is used. For
`torch.compile` attention is a single operator, without a graph break.
"""

import logging
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from plmjac.files import remember, remembered

log = logging.getLogger(__name__)

Kernel = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Queries, keys and values (B, H, T, W) in, attended values (B, H, T, W) out."""

FIRST = "flash"
"""Used unless another kernel is faster by at least `MARGIN`."""
MARGIN = 0.05
LARGEST_ERROR = 2e-3
"""Largest root mean square error of a kernel relative to its values; float16 rounds by 3e-4, and does so twice."""
FILE = "attention.json"
"""In the cache folder: the chosen kernel by GPU, PyTorch version and shape."""


def attend(query: Float[Tensor, "B H T W"], key: Float[Tensor, "B H T W"], value: Float[Tensor, "B H T W"]) -> Tensor:
    """Attended values (B, H, T, W), by the chosen kernel in half precision on a GPU, by PyTorch's choice elsewhere."""
    if query.device.type == "cuda" and query.dtype == torch.float16:
        return torch.ops.plmjac.attend(query, key, value)  # type: ignore[no-any-return]
    return F.scaled_dot_product_attention(query, key, value)


@torch.library.custom_op("plmjac::attend", mutates_args=())
def _attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    chosen = _chosen(query.device, query, key, value)
    return by_token(kernels()[chosen](query, key, value))


@_attend.register_fake
def _(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    batch, heads, tokens, width = query.shape
    return query.new_empty(batch, tokens, heads, width).transpose(1, 2)


def by_token(attended: Tensor) -> Tensor:
    """The same values laid out in memory as (B, T, H, W), as most kernels write and the next product reads them."""
    return attended.transpose(1, 2).contiguous().transpose(1, 2)


@cache
def kernels() -> dict[str, Kernel]:
    """All kernels that can be imported, `FIRST` first; some may not work on this GPU."""
    found: dict[str, Kernel] = {
        FIRST: _of_pytorch(SDPBackend.FLASH_ATTENTION), "cudnn": _of_pytorch(SDPBackend.CUDNN_ATTENTION),
        "efficient": _of_pytorch(SDPBackend.EFFICIENT_ATTENTION),
    }  # fmt: skip
    try:
        from flash_attn_interface import flash_attn_func  # noqa: PLC0415 - FlashAttention-3, where installed

        def newest(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            attended = flash_attn_func(*(each.transpose(1, 2) for each in (query, key, value)))
            attended = attended[0] if isinstance(attended, tuple) else attended
            return torch.as_tensor(attended).transpose(1, 2)

        found["flash 3"] = newest
    except ImportError:
        pass
    try:
        from plmjac.models.attention_triton import attend as with_triton  # noqa: PLC0415 - where Triton is installed

        found["triton"] = with_triton
    except ImportError:
        pass
    return found


def _of_pytorch(backend: SDPBackend) -> Kernel:
    def kernel(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        with sdpa_kernel(backend):
            return F.scaled_dot_product_attention(query, key, value)

    return kernel


_choices: dict[str, str] = {}
"""Choices of this process, by GPU, PyTorch version and shape."""


def _chosen(device: torch.device, query: Tensor, key: Tensor, value: Tensor) -> str:
    """Name of the kernel for a shape: chosen earlier in this process, saved by another, or chosen now."""
    _, heads, tokens, width = query.shape
    where = f"{torch.cuda.get_device_name(device)}; torch {torch.__version__}"
    shape = f"{where}; {-(-tokens // 64) * 64} tokens, {heads} heads of {width}"
    if shape not in _choices:
        _choices.update(_usable(remembered(FILE)))
    if shape not in _choices:
        best = choose(kernels(), query, key, value)
        known = remembered(FILE)  # another rank may have been first
        kept = remember(FILE, {shape: best, **known})
        _choices[shape] = _usable(known).get(shape, best) if kept else FIRST
        log.info("attention of %s: %s", shape, _choices[shape])
    return _choices[shape]


def _usable(known: Mapping[str, Any]) -> dict[str, str]:
    """Choices whose kernel is installed; for others the choice is made again."""
    return {shape: name for shape, name in known.items() if name in kernels()}


def choose(
    candidates: Mapping[str, Kernel],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    timed: Callable[[Kernel], float] | None = None,
) -> str:
    """Name of the fastest kernel that works on these tensors and is right; `FIRST` unless another gains `MARGIN`.

    `timed` returns the seconds of a kernel, by default measured with CUDA events.
    """
    few = slice(0, 4)
    scores = query[few].float() @ key[few].float().transpose(-1, -2) * query.shape[-1] ** -0.5
    expected = torch.softmax(scores, dim=-1) @ value[few].float()
    seconds: dict[str, float] = {}
    for name, kernel in candidates.items():
        try:
            off = kernel(query, key, value)[few].float() - expected
            if off.square().mean().sqrt() <= LARGEST_ERROR * expected.square().mean().sqrt():  # NaN is not
                seconds[name] = (timed or (lambda kernel: _seconds(lambda: kernel(query, key, value))))(kernel)
        except torch.cuda.OutOfMemoryError:
            raise
        except Exception as error:  # any complaint of a kernel about a GPU or shape that it does not support
            log.debug("attention by %s: %s", name, error)
    if not seconds:
        return FIRST
    best = min(seconds, key=lambda name: seconds[name])
    return best if seconds[best] < (1 - MARGIN) * seconds.get(FIRST, float("inf")) else FIRST


def _seconds(work: Callable[[], object]) -> float:
    """Shortest of three timings with CUDA events; the kernel has run before."""
    event: Any = torch.cuda.Event
    times: list[float] = []
    for _ in range(3):
        start, stop = event(enable_timing=True), event(enable_timing=True)
        start.record()
        work()
        stop.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(stop) / 1000)
    return min(times)
