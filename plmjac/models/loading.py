"""Loads an ESM-2 by its name: the bundled one, a published one, or one from a local file."""

import importlib.resources
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from plmjac.models.architecture import Architecture, Esm2Size
from plmjac.models.base import BosEos, LanguageModel, Precision
from plmjac.models.checkpoints import open_checkpoint
from plmjac.models.esm2 import Esm2, Esm2Adapter
from plmjac.models.esm2_compiled import Esm2Compiled
from plmjac.models.esm2_fast import Esm2Fast
from plmjac.models.hub import PUBLISHED, fetch

TINY_FILE = "tiny.safetensors"


def load(
    *,
    name: str,
    checkpoint: str | Path | None,
    token_dropout: bool | None,
    bos_eos: BosEos,
    fast: bool,
    compiled: bool | None,
    precision: Precision,
    device: torch.device,
) -> LanguageModel:
    """Load an ESM-2 on a device; `token_dropout` None follows the file."""
    make = adapter(fast=fast, compiled=compiled, precision=precision, kind=device.type)
    opened = open_checkpoint(_source(name, checkpoint))
    _check_size(name, opened.architecture)
    model = make(
        name=name,
        architecture=opened.architecture,
        tensors=opened.tensors,
        weights_sha256=opened.sha256(),
        token_dropout=opened.token_dropout if token_dropout is None else token_dropout,
        bos_eos=bos_eos,
    )
    return on_device(model, device)


def size(
    *, name: str, kind: str, checkpoint: str | Path | None, fast: bool, precision: Precision, **_: Any
) -> Esm2Size:
    """Cost of an ESM-2 on a kind of device; no weights are loaded or downloaded."""
    if checkpoint is None and name in PUBLISHED:
        return Esm2Size(PUBLISHED[name].architecture, fast, precision, kind)
    found = open_checkpoint(_source(name, checkpoint)).architecture
    _check_size(name, found)
    return Esm2Size(found, fast, precision, kind)


def adapter(*, fast: bool, compiled: bool | None, precision: Precision, kind: str) -> Callable[..., Esm2Adapter]:
    """Class of the ESM-2 for these options: fair-esm's module, the fast one, or the fast one with compiled layers.

    On a GPU `compiled` None also gives the last, not compiled yet. Raises ValueError if `compiled` has no effect.
    """
    if compiled and not fast:
        raise ValueError("compiled=true compiles the fast path; use it with fast=true")
    if fast and (compiled or (compiled is None and kind == "cuda")):
        return partial(Esm2Compiled, precision=precision, in_use=bool(compiled))
    return partial(Esm2Fast, precision=precision) if fast else Esm2


def on_device(model: Esm2Adapter, device: torch.device) -> LanguageModel:
    """Move a model to its device and compile it there, so that a compiler's failure ends the run and not each protein.

    Raises ValueError if the compiler does not work.
    """
    model = model.to(device)
    if not isinstance(model, Esm2Compiled) or not model.in_use or (model.precision == "tf32" and device.type != "cuda"):
        return model
    if said := model.compile_layers():
        needs = "Triton and a C compiler" if device.type == "cuda" else "a C++ compiler"
        raise ValueError(f"compiled=true needs {needs}; torch.compile does not work here: {said}")
    return model


def _source(name: str, checkpoint: str | Path | None) -> Path:
    """Local file of the weights: the one given, the bundled one, or the published one after a download."""
    if checkpoint is not None:
        return Path(checkpoint)
    if name == "tiny":
        bundled = importlib.resources.files("plmjac.models") / TINY_FILE
        if not bundled.is_file():
            raise ValueError("this copy of plmjac has no trained model tiny; use model=debug or an esm2 size")
        with importlib.resources.as_file(bundled) as path:
            return path  # stays valid: wheels are unpacked when installed, so this is no temporary copy
    return fetch(name)


def _check_size(name: str, found: Architecture) -> None:
    """Raise ValueError for a checkpoint of another size than its name, which would label results wrongly."""
    if name not in PUBLISHED or PUBLISHED[name].architecture == found:
        return
    fitting = [other for other, published in PUBLISHED.items() if published.architecture == found]
    remedy = f"use model={fitting[0]}" if fitting else "no published size is like that; use model=tiny with it"
    raise ValueError(f"the checkpoint has {found}, but {name} has {PUBLISHED[name].architecture}; {remedy}")
