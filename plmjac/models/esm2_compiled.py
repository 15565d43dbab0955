"""`Esm2Fast` with its layers compiled by torch.compile: norms, rotation, GELU and residual sums in few fused kernels.

Meant for GPUs, where those operations move more memory than the matrix products; needs a C++ compiler on a CPU and
Triton on a GPU, and some tens of seconds before the first forward. Two compilations, for one sequence and for several,
serve all layers and lengths. Forwards that read attention maps stay on `Esm2Fast`. (The rounding of a wild type's
logits then differs by the same number for all of its mutants, which centering removes.)
"""

import inspect
import logging
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Complex64, Float, Float32, Int64
from torch import Tensor

from plmjac.models.attention_kernels import attend
from plmjac.models.esm2_fast import FastLayer, sequences_together
from plmjac.models.esm2_fused import Esm2Fused, Way

log = logging.getLogger(__name__)

_attend = inspect.unwrap(attend)  # without the shape checks that tests wrap around it, which cannot be compiled


def layer_step(
    x: Float32[Tensor, "B T D"],
    cos: Float32[Tensor, "T P"],
    sin: Float32[Tensor, "T P"],
    qkv: tuple[Tensor, Tensor],
    out: tuple[Tensor, Tensor],
    up: tuple[Tensor, Tensor],
    down: tuple[Tensor, Tensor],
    eps: float,
    own_attention: bool = False,
) -> Float32[Tensor, "B T D"]:
    """One transformer layer in real arithmetic; weights and biases as `FastLayer` holds them.

    Matrix products and attention in the dtype of the weights, everything else in float32. `own_attention` takes the
    kernel that `attention_kernels` chooses instead of PyTorch's own call.
    """
    batch, length, width = x.shape
    dtype, pairs = qkv[0].dtype, cos.shape[1]
    parts = F.linear(F.layer_norm(x, (width,), eps=eps).to(dtype), *qkv).view(batch, length, 3, -1, pairs, 2)
    even, odd = parts[:, :, :2, ..., 0].float(), parts[:, :, :2, ..., 1].float()
    cos, sin = cos[:, None, None], sin[:, None, None]
    turned = torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).to(dtype)
    query, key = turned.flatten(-2).permute(2, 0, 3, 1, 4)
    attention = _attend if own_attention else F.scaled_dot_product_attention
    attended = attention(query, key, parts[:, :, 2].flatten(-2).transpose(1, 2))
    x = x + F.linear(attended.transpose(1, 2).reshape(x.shape), *out)
    hidden = F.linear(F.layer_norm(x, (width,), eps=eps).to(dtype), *up)
    return x + F.linear(F.gelu(hidden.float()).to(dtype), *down)


class Esm2Compiled(Esm2Fused):
    """An ESM-2 with compiled layers; while `in_use` is False, its forward is that of `Esm2Fused`."""

    def __init__(self, *, in_use: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.in_use = in_use
        # Unwrapped for the same reason as `_attend`.
        self._step: Callable[..., Tensor] = torch.compile(inspect.unwrap(layer_step))

    @property
    def way(self) -> Way:
        """compiled while the compiled layers are in use, else fast."""
        return "compiled" if self.in_use else "fast"

    def compile_layers(self) -> str:
        """Compile for one sequence and for several; returns the first line of the compiler's error, empty on success.

        After an error the forward is that of `Esm2Fused`. A ValueError, which concerns the model and not the compiler,
        is raised.
        """
        self.in_use = True
        try:
            for batch in (1, 2):
                self.logits(torch.zeros(batch, 8, dtype=torch.int64, device=self.device))
        except ValueError:
            raise
        except Exception as error:  # whatever Inductor, Triton and the compilers raise
            self.in_use = False
            return (str(error).strip() or repr(error)).splitlines()[0]
        return ""

    def use_compiled(self, wanted: bool) -> bool:
        """Compile if wanted, with a warning if the compiler fails; True if the layers are compiled now."""
        if wanted and not self.in_use and (said := self.compile_layers()):
            log.warning("torch.compile does not work here (%s): going on without, about 0.8 times as fast", said)
        self.in_use &= wanted
        return self.in_use

    def _without_maps(
        self,
        ids: Int64[Tensor, "B T"],
        x: Float32[Tensor, "B T D"],
        table: Float[Tensor, "V E"] | None,
        turn: Complex64[Tensor, "T 1 1 P"],
    ) -> None:
        if not self.in_use:
            super()._without_maps(ids, x, table, turn)
            return
        cos, sin = turn[:, 0, 0].real.contiguous(), turn[:, 0, 0].imag.contiguous()
        for block in torch.split(x, sequences_together(x)):
            hidden = block
            for tensor, sizes in ((hidden, (0, 1)), (cos, (0,)), (sin, (0,))):
                for axis in sizes:
                    torch._dynamo.maybe_mark_dynamic(tensor, axis)
            for layer in self.layers:
                assert isinstance(layer, FastLayer)
                hidden = self._step(
                    hidden, cos, sin, (layer.qkv_weight, layer.qkv_bias), (layer.out_weight, layer.out_bias),
                    (layer.up_weight, layer.up_bias), (layer.down_weight, layer.down_bias), layer.eps,
                    "attention" in self.taken,
                )  # fmt: skip
            block.copy_(hidden)
