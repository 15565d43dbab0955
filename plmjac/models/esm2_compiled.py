"""`Esm2Fast` with its layers compiled by torch.compile: norms, rotation, GELU and residual sums in few fused kernels.

Meant for GPUs, where these read and write more memory than the matrix products do; needs a C++ compiler on a CPU and
Triton on a GPU, and some tens of seconds before the first forward. Two compilations, for one sequence and for several,
serve all layers and lengths. The first layer's table of projections is lost, and nothing is gained where attention maps
are read out, which stay with `Esm2Fast`. (Where they are read with the wild type, its logits are rounded
as there: by one number for all mutants, which centering takes out.)
"""

import inspect
import logging
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Complex64, Float, Float32, Int64
from torch import Tensor

from plmjac.models.architecture import CPU_TOKENS
from plmjac.models.attention_kernels import attend
from plmjac.models.esm2_fast import FastLayer
from plmjac.models.esm2_fused import Esm2Fused, Way

log = logging.getLogger(__name__)

_attend = inspect.unwrap(attend)  # of the checks of shapes that tests put around it, which cannot be compiled


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

    Products and attention in the dtype of the weights, everything else in float32. `own_attention`: by the kernel that
    `attention_kernels` chooses, not by PyTorch's call, with which the compiled path was measured.
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
    """An ESM-2 whose layers are compiled; while that is not `in_use`, the forward is that of `Esm2Fused`."""

    def __init__(self, *, in_use: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.in_use = in_use
        # Unwrapped as above.
        self._step: Callable[..., Tensor] = torch.compile(inspect.unwrap(layer_step))

    @property
    def way(self) -> Way:
        """The compiled way while it is in use."""
        return "compiled" if self.in_use else "fast"

    def compile_layers(self) -> str:
        """Make both compilations, of one sequence and of several; where that fails, the first line of the error.

        Then the forward is that of `Esm2Fast`. ValueError, which is of the model on this device, is raised.
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
        """Compile if that is wanted and works, and say so if it does not."""
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
                    "attention" in self.taken,
                )  # fmt: skip
            block.copy_(hidden)
