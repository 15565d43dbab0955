"""Models for tests: a random two-layer ESM-2, and a linear model with known couplings.

The first runs the whole pipeline in milliseconds. The second tests the method exactly: the categorical Jacobian of a
model that is linear in its one-hot input equals the model's couplings.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from plmjac.models.architecture import Architecture, Esm2Size
from plmjac.models.base import BosEos, LanguageModel, ModelSize, Precision
from plmjac.models.checkpoints import sha256_of_tensors
from plmjac.models.esm2 import Esm2, Esm2Adapter
from plmjac.models.layouts import CONTACT_HEAD, expected_shapes, optional_shapes
from plmjac.models.loading import adapter, on_device

DEBUG_ARCHITECTURE = Architecture(num_layers=2, width=32, num_heads=4)


def random_tensors(architecture: Architecture, seed: int) -> dict[str, Tensor]:
    """Random weights under fair-esm's names; they depend on the seed alone.

    Scaled so that logits spread over several units, as ESM-2's do, and depend on every residue.
    """
    generator = torch.Generator(device="cpu").manual_seed(seed)
    shapes = expected_shapes(architecture) | {name: optional_shapes(architecture)[name] for name in CONTACT_HEAD}
    tensors = {}
    for name in sorted(shapes):
        noise = torch.randn(shapes[name], generator=generator, device="cpu")
        if name.endswith("layer_norm.weight") or name == "emb_layer_norm_after.weight":
            tensors[name] = 1 + 0.1 * noise
        elif name.endswith("bias"):
            tensors[name] = 0.1 * noise
        elif name == "embed_tokens.weight":
            tensors[name] = noise
        else:
            # Twice the usual scale, so that attention is not flat and couplings are well above rounding.
            tensors[name] = noise * (2 / shapes[name][-1] ** 0.5)
    return tensors


def load(
    *,
    name: str,
    seed: int,
    token_dropout: bool | None,
    bos_eos: BosEos,
    fast: bool,
    compiled: bool | None,
    precision: Precision,
    device: torch.device,
) -> LanguageModel:
    """Load the debug model on a device."""
    make = adapter(fast=fast, compiled=compiled, precision=precision, kind=device.type)
    return on_device(debug_model(seed, make, token_dropout=token_dropout is not False, bos_eos=bos_eos), device)


def size(*, name: str, kind: str, fast: bool, precision: Precision, **_: Any) -> Esm2Size:
    """Cost of the debug model on a kind of device."""
    return Esm2Size(DEBUG_ARCHITECTURE, fast, precision, kind)


def debug_model(
    seed: int = 0,
    adapter: Callable[..., Esm2Adapter] = Esm2,
    *,
    token_dropout: bool = True,
    bos_eos: BosEos = "keep",
) -> Esm2Adapter:
    """Build the debug model from a seed, which also determines its hash. `adapter` is the class of the model."""
    tensors = random_tensors(DEBUG_ARCHITECTURE, seed)
    return adapter(
        name="debug",
        architecture=DEBUG_ARCHITECTURE,
        tensors=tensors,
        weights_sha256=sha256_of_tensors(tensors),
        token_dropout=token_dropout,
        bos_eos=bos_eos,
    )


class LinearModel(LanguageModel):
    """Linear model of one length: logits[j, b] = sum over i of couplings[i, token at i, j, b].

    `couplings` are (L, T, L, 20), T = 26 for all tokens or 20 for amino acids alone. Its `size` is a stand-in, so
    forecasts of its cost mean nothing.
    """

    couplings: Tensor

    def __init__(self, couplings: Float32[Tensor, "L T L 20"]) -> None:
        super().__init__()
        self.register_buffer("couplings", couplings)
        self.name = "linear"
        self.weights_sha256 = sha256_of_tensors({"couplings": couplings})
        self.readouts = frozenset({"logits"})
        self.eval()

    @property
    def size(self) -> ModelSize:
        """Size of a small ESM-2, as a stand-in."""
        return Esm2Size(Architecture(num_layers=1, width=20, num_heads=1), False, "fp32", self.device.type)

    def read(
        self,
        tokens: Int64[Tensor, "B L"],
        readouts: Collection[str],
        positions: Int64[Tensor, " L"] | None = None,
        heads: Sequence[tuple[int, int]] | None = None,
    ) -> dict[str, Tensor]:
        """Sum the couplings of the tokens; `positions` have no effect."""
        self.check_readouts(readouts)
        places = torch.arange(tokens.shape[1], device=tokens.device)
        return {"logits": self.couplings[places, tokens].sum(1)} if readouts else {}
