"""`Esm2Fast` with its layers compiled by torch.compile: norms, rotation, GELU and residual sums in few fused kernels.

Meant for GPUs, where these read and write more memory than the matrix products do; needs a C++ compiler on a CPU and
Triton on a GPU, and some tens of seconds before the first forward. Two compilations, for one sequence and for several,
serve all layers and lengths. The first layer's table of projections is lost, and nothing is gained where attention maps
are read out, which stay with `Esm2Fast`. (Where they are read with the wild type, its logits are rounded
as there: by one number for all mutants, which centering takes out.)
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Complex64, Float, Float32, Int64
from torch import Tensor

from plmjac.models.architecture import CPU_TOKENS
from plmjac.models.esm2_fast import Esm2Fast, FastLayer


def layer_step(
    x: Float32[Tensor, "B T D"],
    cos: Float32[Tensor, "T P"],
    sin: Float32[Tensor, "T P"],
    qkv: tuple[Tensor, Tensor],
    out: tuple[Tensor, Tensor],
    up: tuple[Tensor, Tensor],
    down: tuple[Tensor, Tensor],
    eps: float,
) -> Float32[Tensor, "B T D"]:
    """One transformer layer in real arithmetic; weights and biases as `FastLayer` holds them.

    Products and attention in the dtype of the weights, everything else in float32.
    """
    batch, length, width = x.shape
    dtype, pairs = qkv[0].dtype, cos.shape[1]
    parts = F.linear(F.layer_norm(x, (width,), eps=eps).to(dtype), *qkv).view(batch, length, 3, -1, pairs, 2)
    even, odd = parts[:, :, :2, ..., 0].float(), parts[:, :, :2, ..., 1].float()
    cos, sin = cos[:, None, None], sin[:, None, None]
    turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).to(dtype)
    query, key = turned.flatten(-2).permute(2, 0, 3, 1, 4)
    attended = F.scaled_dot_product_attention(query, key, parts[:, :, 2].flatten(-2).transpose(1, 2))
    x = x + F.linear(attended.transpose(1, 2).reshape(x.shape), *out)
    hidden = F.linear(F.layer_norm(x, (width,), eps=eps).to(dtype), *up)
    return x + F.linear(F.gelu(hidden.float()).to(dtype), *down)


class Esm2Compiled(Esm2Fast):
    """An ESM-2 for throughput whose layers are compiled."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # Unwrapped of the checks of shapes that tests put around it, which cannot be compiled.
        self._step: Callable[..., Tensor] = torch.compile(inspect.unwrap(layer_step))

    def _without_maps(
        self,
        ids: Int64[Tensor, "B T"],
        x: Float32[Tensor, "B T D"],
        table: Float[Tensor, "V E"] | None,
        turn: Complex64[Tensor, "T 1 1 P"],
    ) -> None:
        cos, sin = turn[:, 0, 0].real.contiguous(), turn[:, 0, 0].imag.contiguous()
        batch, length, _ = x.shape
        size = max(1, CPU_TOKENS // length) if x.device.type == "cpu" else batch
        for at in range(0, batch, size):
            block = hidden = x[at : at + size]
            for tensor, sizes in ((hidden, (0, 1)), (cos, (0,)), (sin, (0,))):
                for axis in sizes:
                    torch._dynamo.maybe_mark_dynamic(tensor, axis)
            for layer in self.layers:
                assert isinstance(layer, FastLayer)
                hidden = self._step(
                    hidden, cos, sin, (layer.qkv_weight, layer.qkv_bias), (layer.out_weight, layer.out_bias),
                    (layer.up_weight, layer.up_bias), (layer.down_weight, layer.down_bias), layer.eps,
                )  # fmt: skip
            block.copy_(hidden)
