"""Triton kernels for the smaller operations of an ESM-2 layer, in half precision; candidates of `esm2_fused`.

Never timed on a GPU; their numbers are tested in Triton's interpreter. Needs Triton on import.
"""

import inspect
from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Float16, Float32
from torch import Tensor

TILE = {"M": 128, "N": 128, "K": 32, "GROUP": 8}
"""Rows, columns and summed channels of one tile of a product, and tiles of rows in a group."""


def _add_norm(stream, change, out, eps, width: tl.constexpr, PADDED: tl.constexpr):
    """One row: stream += change in place, and the layer norm of the sum without scale and shift, in float32."""
    at = tl.program_id(0).to(tl.int64) * width + tl.arange(0, PADDED)
    here = tl.arange(0, PADDED) < width
    total = tl.load(stream + at, here, 0.0) + tl.load(change + at, here, 0.0).to(tl.float32)
    tl.store(stream + at, total, here)
    centred = tl.where(here, total - tl.sum(total, 0) / width, 0.0)
    scale = 1 / tl.sqrt(tl.sum(centred * centred, 0) / width + eps)
    tl.store(out + at, (centred * scale).to(out.dtype.element_ty), here)


def _rotate(qkv, cos, sin, tokens, pairs: tl.constexpr, number: tl.constexpr, PADDED: tl.constexpr):
    """One token: rotates its queries and keys, `number` pairs of channels, in place and in float32."""
    row = tl.program_id(0).to(tl.int64)
    pair = tl.arange(0, PADDED)
    here = pair < number
    angle = (row % tokens) * pairs + pair % pairs
    turn_cos, turn_sin = tl.load(cos + angle, here, 1.0), tl.load(sin + angle, here, 0.0)
    first = qkv + row * (3 * number) + 2 * pair  # queries, keys and values have `number` channels each
    even, odd = tl.load(first, here, 0.0).to(tl.float32), tl.load(first + 1, here, 0.0).to(tl.float32)
    tl.store(first, (even * turn_cos - odd * turn_sin).to(qkv.dtype.element_ty), here)
    tl.store(first + 1, (even * turn_sin + odd * turn_cos).to(qkv.dtype.element_ty), here)


def _linear_gelu(
    left, weight, bias, out, rows, columns, inner: tl.constexpr, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr,
    GROUP: tl.constexpr,
):  # fmt: skip
    """One tile of gelu(left weight^T + bias): float16 in and out, sums and the exact GELU in float32."""
    # Tiles are grouped by a few rows and all columns, so that their inputs stay in the shared cache.
    down, across = tl.cdiv(rows, M), tl.cdiv(columns, N)
    first = tl.program_id(0) // (GROUP * across) * GROUP
    height, within = tl.minimum(down - first, GROUP), tl.program_id(0) % (GROUP * across)
    row = ((first + within % height) * M + tl.arange(0, M)).to(tl.int64)
    column = (within // height * N + tl.arange(0, N)).to(tl.int64)
    total = tl.zeros((M, N), tl.float32)
    for start in range(0, inner, K):
        channel = start + tl.arange(0, K)
        known = channel < inner
        a = tl.load(left + row[:, None] * inner + channel[None, :], (row < rows)[:, None] & known[None, :], 0.0)
        b = tl.load(
            weight + column[None, :] * inner + channel[:, None], (column < columns)[None, :] & known[:, None], 0.0
        )
        total += tl.dot(a, b)
    total += tl.load(bias + column, column < columns, 0.0).to(tl.float32)[None, :]
    total = 0.5 * total * (1 + tl.erf(total * 0.7071067811865476))
    here = (row < rows)[:, None] & (column < columns)[None, :]
    tl.store(out + row[:, None] * columns + column[None, :], total.to(out.dtype.element_ty), here)


# Without the shape checks that tests wrap around them, since Triton reads the source.
_JIT: dict[str, Any] = {each.__name__: triton.jit(inspect.unwrap(each)) for each in (_add_norm, _rotate, _linear_gelu)}


def add_norm(
    stream: Float32[Tensor, "B T D"], change: Float16[Tensor, "B T D"], eps: float
) -> Float16[Tensor, "B T D"]:
    """stream += change, and the layer norm of the sum without scale and shift; both contiguous."""
    out = torch.empty_like(change)
    width = stream.shape[-1]
    padded = triton.next_power_of_2(width)
    _JIT["_add_norm"][(stream.numel() // width,)](stream, change, out, eps, width, padded, num_warps=4)
    return out


def rotate(qkv: Float16[Tensor, "B T E"], cos: Float32[Tensor, "T P"], sin: Float32[Tensor, "T P"]) -> None:
    """Rotate the queries and keys of contiguous projections in place; channels rotated together are neighbours."""
    batch, tokens, width = qkv.shape
    padded = triton.next_power_of_2(width // 3)
    _JIT["_rotate"][(batch * tokens,)](qkv, cos, sin, tokens, cos.shape[1], width // 3, padded, num_warps=4)


def linear_gelu(
    left: Float16[Tensor, "B T D"], weight: Float16[Tensor, "F D"], bias: Float16[Tensor, " F"]
) -> Float16[Tensor, "B T F"]:
    """gelu(linear(left)) with the exact GELU fused into the product; all contiguous."""
    inner, columns = left.shape[-1], len(weight)
    rows = left.numel() // inner
    out = torch.empty(*left.shape[:-1], columns, dtype=left.dtype, device=left.device)
    programs = triton.cdiv(rows, TILE["M"]) * triton.cdiv(columns, TILE["N"])
    _JIT["_linear_gelu"][(programs,)](left, weight, bias, out, rows, columns, inner, **TILE, num_warps=8, num_stages=3)
    return out
