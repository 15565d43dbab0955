"""Attention as one Triton kernel with tiles of 64: a candidate of `attention_kernels`, used where it is fastest.

The 128-query tiles of libraries are meant for thousands of tokens: at T = 258 they compute 1.5 times what is needed.
Never timed on a GPU; its numbers are tested in Triton's interpreter. Needs Triton on import.
"""

import inspect
import math
from typing import Any

import torch
import triton
import triton.language as tl
from jaxtyping import Float16
from torch import Tensor

TILE = 64


def _kernel(
    query, key, value, out, scale, tokens, heads,
    query_batch, query_head, query_token, key_batch, key_head, key_token, value_batch, value_head, value_token,
    out_batch, out_head, out_token, TILES: tl.constexpr,
    WIDTH: tl.constexpr, PADDED: tl.constexpr, TILE: tl.constexpr,
):  # fmt: skip
    """One tile of queries of one head against all keys, with the softmax in float32; channels are padded with zeros."""
    batch = (tl.program_id(0) // heads).to(tl.int64)
    head = tl.program_id(0) % heads
    rows = tl.program_id(1) * TILE + tl.arange(0, TILE)
    channels = tl.arange(0, PADDED)
    here = (rows < tokens)[:, None] & (channels < WIDTH)[None, :]
    queries = tl.load(
        query + batch * query_batch + head * query_head + rows[:, None] * query_token + channels[None, :], here, 0.0
    )
    largest = tl.full((TILE,), -float("inf"), tl.float32)
    total = tl.zeros((TILE,), tl.float32)
    attended = tl.zeros((TILE, PADDED), tl.float32)
    for tile in range(TILES):
        others = tile * TILE + tl.arange(0, TILE)
        there = others < tokens
        known = there[:, None] & (channels < WIDTH)[None, :]
        keys = tl.load(
            key + batch * key_batch + head * key_head + others[:, None] * key_token + channels[None, :], known, 0.0
        )
        scores = tl.dot(queries, tl.trans(keys)) * scale
        scores = tl.where(there[None, :], scores, -float("inf"))
        now = tl.maximum(largest, tl.max(scores, 1))
        weights = tl.exp2(scores - now[:, None])
        kept = tl.exp2(largest - now)
        values = tl.load(
            value + batch * value_batch + head * value_head + others[:, None] * value_token + channels[None, :],
            known, 0.0,
        )  # fmt: skip
        total = total * kept + tl.sum(weights, 1)
        attended = attended * kept[:, None] + tl.dot(weights.to(values.dtype), values)
        largest = now
    result = (attended / total[:, None]).to(out.dtype.element_ty)
    tl.store(out + batch * out_batch + head * out_head + rows[:, None] * out_token + channels[None, :], result, here)


# Without the shape checks that tests wrap around it, since Triton reads the source.
_JITTED: Any = triton.jit(inspect.unwrap(_kernel))


def attend(
    query: Float16[Tensor, "B H T W"], key: Float16[Tensor, "B H T W"], value: Float16[Tensor, "B H T W"]
) -> Float16[Tensor, "B H T W"]:
    """softmax(query key^T / sqrt(W)) value by head; the result lies in memory as (B, T, H, W).

    Compiled once for each number of tiles.
    """
    batch, heads, tokens, width = query.shape
    assert query.stride(3) == key.stride(3) == value.stride(3) == 1
    out = torch.empty(batch, tokens, heads, width, dtype=query.dtype, device=query.device).transpose(1, 2)
    strides = [each.stride(axis) for each in (query, key, value, out) for axis in range(3)]
    _JITTED[(batch * heads, triton.cdiv(tokens, TILE))](
        query, key, value, out, width**-0.5 * math.log2(math.e), tokens, heads, *strides,
        TILES=triton.cdiv(tokens, TILE), WIDTH=width, PADDED=max(16, triton.next_power_of_2(width)), TILE=TILE,
    )  # fmt: skip
    return out
