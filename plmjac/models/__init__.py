"""Protein language models by name: one call loads any of them, from the package, the network or a local file.

    model = load_model("esm2_650m", device="cuda")
    model.logits(tokens)                            # (B, L) -> (B, L, 20)

Heavy libraries are imported when a model is built, not here. Only masked ESM-2 models are known so far; another family
is another adapter that implements `LanguageModel`.
"""

import difflib
import importlib.resources
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

import torch

from plmjac.models.base import READOUTS, Architecture, BosEos, LanguageModel, Precision, Readout

if TYPE_CHECKING:
    from plmjac.models.esm2 import Esm2Adapter

__all__ = [
    "MODELS", "READOUTS", "Architecture", "BosEos", "LanguageModel", "Precision", "Readout", "architecture",
    "load_model", "resolve_precision",
]  # fmt: skip

MODELS = ("tiny", "debug", "esm2_8m", "esm2_35m", "esm2_150m", "esm2_650m", "esm2_3b", "esm2_15b")
TINY_FILE = "tiny.safetensors"


def load_model(
    name: str,
    *,
    checkpoint: str | Path | None = None,
    device: str = "cpu",
    seed: int = 0,
    fast: bool = True,
    compiled: bool = False,
    precision: Precision | None = None,
    token_dropout: bool | None = None,
    bos_eos: BosEos = "keep",
) -> LanguageModel:
    """Load a model by name, ready for inference on a device.

    `checkpoint` is a local fair-esm `.pt`, a Hugging Face weights file or its folder, used instead of the published
    weights. `seed` matters to `debug` only. `fast=False` takes fair-esm's own module instead of plmjac's faster one,
    the same but for rounding; `compiled=True` has the layers of that compiled by torch.compile first. `precision` None
    means fp16 on a GPU and fp32 elsewhere. `token_dropout` None means as the weights were trained; `bos_eos="mask"` is
    the variant without BOS and EOS of Zhang et al. (2024). Raises ValueError with a remedy: unknown name, weights that
    cannot be had, a file that is not an ESM-2 of this size, no such device, a precision that does not exist there, no
    compiler.
    """
    from plmjac.models.checkpoints import open_checkpoint

    _check_name(name, checkpoint)
    target = _device(device)
    # A model that is loaded on the CPU may be moved: tf32 without a GPU is refused by its first forward.
    precision = resolve_precision(precision, "cuda" if precision == "tf32" else target.type, fast=fast)
    adapter = _adapter(fast=fast, compiled=compiled, precision=precision)
    model: Esm2Adapter
    if name == "debug":
        from plmjac.models.debug import debug_model

        dropout = True if token_dropout is None else token_dropout
        model = debug_model(seed, adapter, token_dropout=dropout, bos_eos=bos_eos)
    else:
        opened = open_checkpoint(_source(name, checkpoint))
        _check_size(name, opened.architecture)
        model = adapter(
            name=name,
            architecture=opened.architecture,
            tensors=opened.tensors,
            weights_sha256=opened.sha256(),
            token_dropout=opened.token_dropout if token_dropout is None else token_dropout,
            bos_eos=bos_eos,
        )
    model = model.to(target)
    if compiled and not (precision == "tf32" and target.type != "cuda"):
        _compile(model)
    return model


def _adapter(*, fast: bool, compiled: bool, precision: Precision) -> "Callable[..., Esm2Adapter]":
    """What makes a model of tensors: fair-esm's own module, the fast one, or that compiled.

    Raises ValueError where `compiled` would have no effect.
    """
    from plmjac.models.esm2 import Esm2
    from plmjac.models.esm2_compiled import Esm2Compiled
    from plmjac.models.esm2_fast import Esm2Fast

    if compiled and not fast:
        raise ValueError("compiled=true compiles the fast path; use it with fast=true")
    if compiled:
        return partial(Esm2Compiled, precision=precision)
    return partial(Esm2Fast, precision=precision) if fast else Esm2


def _compile(model: LanguageModel) -> None:
    """Make both compilations, of one sequence and of several: a compiler that fails would fail every protein alone.

    Raises ValueError where it does.
    """
    try:
        for batch in (1, 2):
            model.logits(torch.zeros(batch, 8, dtype=torch.int64, device=model.device))
    except ValueError:  # of this model on this device
        raise
    except Exception as error:  # whatever Inductor, Triton and the compilers raise
        said = (str(error).strip() or repr(error)).splitlines()[0]
        needs = "Triton and a C compiler" if model.device.type == "cuda" else "a C++ compiler"
        raise ValueError(f"compiled=true needs {needs}; torch.compile does not work here: {said}") from error


def resolve_precision(precision: str | None, device: str, *, fast: bool = True) -> Precision:
    """What `precision` means on a kind of device: None is fp16 on cuda with the fast path, else fp32.

    Raises ValueError where it would have no effect: tf32 off the GPU, anything but fp32 on fair-esm's own module.
    """
    if precision is None:
        return "fp16" if fast and device == "cuda" else "fp32"
    if precision not in get_args(Precision):
        raise ValueError(f"there is no precision {precision!r}; choose from {', '.join(get_args(Precision))}")
    if not fast and precision != "fp32":
        raise ValueError(f"fair-esm's own module (fast=false) computes in fp32, not {precision}; use fast=true")
    if precision == "tf32" and device != "cuda":
        raise ValueError(f"tf32 exists on NVIDIA GPUs only, this run is on {device}; use fp32")
    return cast(Precision, precision)


def architecture(name: str, checkpoint: str | Path | None = None) -> Architecture:
    """The size of a model without loading or downloading its weights, for forecasts."""
    from plmjac.models.checkpoints import open_checkpoint
    from plmjac.models.hub import PUBLISHED

    _check_name(name, checkpoint)
    if name == "debug":
        from plmjac.models.debug import DEBUG_ARCHITECTURE

        return DEBUG_ARCHITECTURE
    if checkpoint is None and name in PUBLISHED:
        return PUBLISHED[name].architecture
    found = open_checkpoint(_source(name, checkpoint)).architecture
    _check_size(name, found)
    return found


def _check_name(name: str, checkpoint: str | Path | None) -> None:
    if name not in MODELS:
        near = difflib.get_close_matches(name, MODELS, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else ";"
        raise ValueError(f"there is no model {name!r}{hint} choose from {', '.join(MODELS)}")
    if name == "debug" and checkpoint is not None:
        raise ValueError("debug has random weights and takes no checkpoint; name the size, such as model=esm2_8m")


def _source(name: str, checkpoint: str | Path | None) -> Path:
    """The local file to open: the one given, the bundled one, or the published one after a download."""
    if checkpoint is not None:
        return Path(checkpoint)
    if name == "tiny":
        bundled = importlib.resources.files("plmjac.models") / TINY_FILE
        if not bundled.is_file():
            raise ValueError("this copy of plmjac has no trained model tiny; use model=debug or an esm2 size")
        with importlib.resources.as_file(bundled) as path:
            return path  # stays valid: wheels are unpacked when installed, so this is no temporary copy
    from plmjac.models.hub import fetch

    return fetch(name)


def _check_size(name: str, found: Architecture) -> None:
    """A checkpoint of another size under a published name would label its results wrongly."""
    from plmjac.models.hub import PUBLISHED

    if name not in PUBLISHED or PUBLISHED[name].architecture == found:
        return
    fitting = [other for other, published in PUBLISHED.items() if published.architecture == found]
    remedy = f"use model={fitting[0]}" if fitting else "no published size is like that; use model=tiny with it"
    raise ValueError(f"the checkpoint has {found}, but {name} has {PUBLISHED[name].architecture}; {remedy}")


def _device(device: str) -> torch.device:
    try:
        target = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"there is no device {device!r}; use cpu, cuda or cuda:0") from error
    if target.type == "cuda" and (target.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device={device}, but {torch.cuda.device_count()} CUDA devices are visible; use device=cpu")
    return target
