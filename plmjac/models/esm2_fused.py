"""`Esm2Fast` with optional faster GPU kernels ("candidates"), each used only where it was measured faster and right.

None is used by default. `make gpu` times one forward with and without each (scripts/gpu_candidates.py) and keeps the
choice in the cache folder, by GPU, PyTorch version, model and path. A new run uses the choice that it finds there and
records it in its store; a resumed run uses the recorded one.
"""

import importlib.util
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Complex64, Float, Float32, Int64
from torch import Tensor

from plmjac.files import remember, remembered
from plmjac.models.attention_kernels import attend
from plmjac.models.esm2_fast import Esm2Fast, FastLayer

Way = Literal["fast", "compiled"]

CANDIDATES: Mapping[Way, Mapping[str, str]] = {
    "fast": {
        "norm": "residual sum, layer norm and cast to float16 as one Triton kernel",
        "rotation": "rotation of queries and keys in place, with its casts, as one Triton kernel",
        "gelu": "the product in front of GELU with bias and exact GELU in its epilogue, in Triton",
        "graph": "the launches of all layers as one CUDA graph for each shape",
    },
    "compiled": {"attention": "the attention kernel chosen for the shape, as one operator, for PyTorch's own call"},
}
"""Candidates by path (the fast one, or the compiled one) and name."""

FASTER, TOLERANCE = 0.97, 1.1
"""A candidate is used if the forward takes at most FASTER times as long as without it, and if the root mean square
distance of its logits from float32 is at most TOLERANCE times that without it."""

FILE = "candidates.json"
MOST_GRAPHS, MET = 4, 3
"""A CUDA graph holds the memory of a forward and costs two to make: a shape gets one the third time it occurs."""


class Esm2Fused(Esm2Fast):
    """An ESM-2 whose layers use the candidates in `taken`; without any its forward is that of `Esm2Fast`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.taken: frozenset[str] = frozenset()
        self._graphs: dict[tuple[int, ...], Graph] = {}
        self._met: Counter[tuple[int, ...]] = Counter()

    @property
    def way(self) -> Way:
        """The path whose candidates can be used."""
        return "fast"

    def why_not_taken(self, name: str) -> str:
        """The reason why a candidate cannot be used here; empty if it can."""
        if name not in CANDIDATES[self.way]:
            return f"no candidate of the {self.way} way"
        if self.device.type != "cuda":
            return "no CUDA device"
        if self.precision != "fp16":
            return f"it is for fp16, this is {self.precision}"
        if name in ("norm", "rotation", "gelu") and importlib.util.find_spec("triton") is None:
            return "Triton is not installed"
        return ""

    def take(self, names: Collection[str] | None) -> list[str]:
        """Use these candidates, or those chosen for this GPU and model; returns those in use, sorted by name."""
        wanted = kept(self) if names is None else names
        self.taken = frozenset(name for name in wanted if not self.why_not_taken(name))
        self._graphs.clear()
        return sorted(self.taken)

    def _without_maps(
        self,
        ids: Int64[Tensor, "B T"],
        x: Float32[Tensor, "B T D"],
        table: Float[Tensor, "V E"] | None,
        turn: Complex64[Tensor, "T 1 1 P"],
    ) -> None:
        if not self.taken:
            super()._without_maps(ids, x, table, turn)
            return
        self._met[x.shape] += 1
        if "graph" not in self.taken or self._met[x.shape] < MET:
            self._fused_layers(x, turn)
        else:
            if x.shape not in self._graphs:
                while len(self._graphs) >= MOST_GRAPHS:
                    self._graphs.pop(next(iter(self._graphs)))
                self._graphs[x.shape] = Graph(self._fused_layers, x, turn)
            self._graphs[x.shape](x, turn)

    def _fused_layers(self, x: Float32[Tensor, "B T D"], turn: Complex64[Tensor, "T 1 1 P"]) -> None:
        """Apply all layers to the contiguous `x` in place, without a CUDA graph."""
        cos, sin = turn[:, 0, 0].real.contiguous(), turn[:, 0, 0].imag.contiguous()
        if self.taken & {"norm", "rotation", "gelu"}:
            from plmjac.models import fused_triton as fused  # noqa: PLC0415 - Triton is not everywhere

        channels: Tensor | None = None  # output of the layer's first norm, computed at the end of the layer before
        for layer in self.layers:
            assert isinstance(layer, FastLayer)
            if channels is None:
                channels = layer.normalised(x)
            qkv = F.linear(channels, layer.qkv_weight, layer.qkv_bias)
            if "rotation" in self.taken:
                fused.rotate(qkv, cos, sin)
                parts = qkv.view(*qkv.shape[:2], 3, layer.heads, layer.head_width)
                query, key, value = parts.permute(2, 0, 3, 1, 4)
            else:
                query, key, value = layer.heads_of(qkv, turn)
            attended = attend(query, key, value).transpose(1, 2).reshape(x.shape)
            del qkv, query, key, value
            change = F.linear(attended, layer.out_weight, layer.out_bias)
            channels = fused.add_norm(x, change, layer.eps) if "norm" in self.taken else layer.added(x, change)
            if "gelu" in self.taken:
                hidden = fused.linear_gelu(channels, layer.up_weight, layer.up_bias)
            else:
                hidden = torch.ops.aten.gelu_(F.linear(channels, layer.up_weight, layer.up_bias))
            change = F.linear(hidden, layer.down_weight, layer.down_bias)
            channels = fused.add_norm(x, change, layer.eps) if "norm" in self.taken else layer.added(x, change)


class Graph:
    """A CUDA graph of a function that changes `x` in place, for one shape."""

    def __init__(self, work: Callable[[Tensor, Tensor], None], x: Tensor, turn: Tensor) -> None:
        self.x, self.turn = x.clone(), turn.clone()
        cuda: Any = torch.cuda
        stream = cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            work(self.x, self.turn)  # before the capture, so that every kernel is chosen and loaded
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            work(self.x, self.turn)

    def __call__(self, x: Tensor, turn: Tensor) -> None:
        """Replay the function on this `x`."""
        self.x.copy_(x)
        self.turn.copy_(turn)
        self.graph.replay()
        x.copy_(self.x)


def choose(
    names: Sequence[str], plain: tuple[float, float], measured: Callable[[frozenset[str]], tuple[float, float]]
) -> tuple[frozenset[str], dict[str, tuple[float, float]]]:
    """Choose candidates; returns them with all measurements (seconds of a forward, distance from float32).

    Each is measured alone, then all that are right and faster together; the choice is all of these or the single best
    one, whichever is faster. `plain` is the measurement without any.
    """
    found = {name: measured(frozenset([name])) for name in names}
    good = [name for name in names if _good(found[name], plain)]
    best = frozenset([min(good, key=lambda name: found[name][0])]) if good else frozenset()
    if len(good) > 1:
        found[" + ".join(good)] = together = measured(frozenset(good))
        if _good(together, plain) and together[0] < min(found[name][0] for name in good):
            best = frozenset(good)
    return best, found


def _good(measured: tuple[float, float], plain: tuple[float, float]) -> bool:
    return measured[0] <= FASTER * plain[0] and measured[1] <= TOLERANCE * plain[1]  # which NaN is not


def kept(model: Esm2Fused) -> list[str]:
    """Candidates chosen for a model on its GPU; empty if none were measured."""
    names = remembered(FILE).get(_where(model)) if model.device.type == "cuda" else None
    return [str(name) for name in names] if isinstance(names, list) else []


def keep(model: Esm2Fused, names: Collection[str]) -> bool:
    """Save the choice for a model on its GPU; False if the cache folder cannot be written."""
    return remember(FILE, {**remembered(FILE), _where(model): sorted(names)})


def _where(model: Esm2Fused) -> str:
    card = torch.cuda.get_device_name(model.device)
    return f"{card}; torch {torch.__version__}; {model.architecture}; {model.way}"
