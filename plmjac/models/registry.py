"""Registry of models: names, the options that each takes, and how to load one. Imports no torch.

One call of `register` adds a model: those of plmjac at the end of this file, those of other packages in a module that
they name as an entry point of the group `plmjac.models`.
"""

import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from plmjac.files import nearest

if TYPE_CHECKING:
    import torch

    from plmjac.models.base import BosEos, LanguageModel, ModelSize, Precision

ENTRY_POINTS = "plmjac.models"
PRECISIONS = ("fp32", "tf32", "fp16")

COMMON: Mapping[str, Any] = {
    "checkpoint": None, "seed": 0, "fast": True, "compiled": None, "precision": None, "token_dropout": None,
    "bos_eos": "keep",
}  # fmt: skip
"""Options shared by several models, with their defaults; documented in `load_model`."""


@dataclass(frozen=True)
class Registered:
    """A registered model: `options` with their defaults; loader and size as functions or as `module:function`."""

    name: str
    loader: "str | Callable[..., LanguageModel]"
    options: Mapping[str, Any]
    size: "str | Callable[..., ModelSize] | None"


_FAST = ("compiled", False)
_MODELS: dict[str, Registered] = {}


def register(
    name: str,
    loader: "str | Callable[..., LanguageModel]",
    *,
    options: Mapping[str, Any],
    size: "str | Callable[..., ModelSize] | None" = None,
) -> None:
    """Make a model known to `load_model`, and to the command line as `model=name` with `model.<option>=...`.

    `loader(name=, device=, **options)` returns the model on a device. `options` are the options that it takes, with
    their defaults; each is recorded in a store's identity, except checkpoint and seed, which the hash of the weights
    covers. The loader gets `precision` resolved for the device. `size(name=, kind=, **options)` is the `ModelSize` on
    a kind of device, cpu or cuda; without it a forecast loads the model. A later registration replaces an earlier one.
    """
    _MODELS[name] = Registered(name, loader, dict(options), size)


def names() -> tuple[str, ...]:
    """Names of all registered models."""
    _import_entry_points()
    return tuple(_MODELS)


def options_of(name: str) -> Mapping[str, Any]:
    """The options that a model takes, with their defaults. Raises ValueError for a name that is not registered."""
    return _find(name).options


def check_options(name: str, given: Mapping[str, Any]) -> None:
    """Raise ValueError for an option without effect on this model, or one that does not exist.

    An option given its usual default is allowed.
    """
    known = options_of(name)
    for option, value in given.items():
        if option in known:
            _check_kind(option, value, known[option])
            continue
        if option in COMMON and value == COMMON[option]:
            continue
        takes = f"{name} takes {', '.join(sorted(known)) or 'no options'}"
        if option == "checkpoint":
            raise ValueError(f"{takes}, and no checkpoint; name the size with it: model=esm2_8m, or model=tiny for any")
        if option in COMMON or any(option in each.options for each in _MODELS.values()):
            raise ValueError(f"model.{option} has no effect on model={name}: {takes}")
        raise ValueError(f"there is no key 'model.{option}'; {nearest(option, known)}")


def _check_kind(option: str, value: Any, default: Any) -> None:
    """Raise ValueError for a value of another type than the default; a default of None allows any."""
    kinds = {bool: (bool,), int: (int,), float: (int, float), str: (str,)}.get(type(default))
    if kinds is not None and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
        raise ValueError(f"model.{option}={value}: it is {default!r} by default, and takes a value of that kind")


def identity(name: str, given: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Options that change a model's numbers on a kind of device, as recorded in a store.

    fast, token_dropout and bos_eos are always recorded if the model takes them, others if they differ from their
    default, so that stores can be resumed after an option was added. compiled is recorded only if it was asked for; a
    run that decides for itself records that among the facts of the run.
    """
    known = options_of(name)
    values = {**known, **{option: value for option, value in given.items() if option in known}}
    always = ("fast", "token_dropout", "bos_eos")
    told = {
        option: value
        for option, value in values.items()
        if option in always
        or (option not in ("checkpoint", "seed", "precision") and value != known[option] and (option, value) != _FAST)
    }
    return told | ({"precision": precision_on(name, given, kind)} if "precision" in known else {})


def precision_on(name: str, given: Mapping[str, Any], kind: str) -> "Precision":
    """Arithmetic of a model's matrix products on a kind of device; fp32 for a model without a choice."""
    known = options_of(name)
    if "fast" in known:
        return resolve_precision(given.get("precision"), kind, fast=bool(given.get("fast", known["fast"])))
    return resolve_precision((given.get("precision") if "precision" in known else None) or "fp32", kind)


def resolve_precision(precision: str | None, device: str, *, fast: bool = True) -> "Precision":
    """Resolve `precision` for a kind of device: None means fp16 on cuda with the fast path, else fp32.

    Raises ValueError if it would have no effect: tf32 off the GPU, anything but fp32 on fair-esm's own module.
    """
    if precision is None:
        return "fp16" if fast and device == "cuda" else "fp32"
    if precision not in PRECISIONS:
        raise ValueError(f"there is no precision {precision!r}; choose from {', '.join(PRECISIONS)}")
    if not fast and precision != "fp32":
        raise ValueError(f"fair-esm's own module (fast=false) computes in fp32, not {precision}; use fast=true")
    if precision == "tf32" and device != "cuda":
        raise ValueError(f"tf32 exists on NVIDIA GPUs only, this run is on {device}; use fp32")
    return cast("Precision", precision)


def load_model(
    name: str,
    *,
    checkpoint: str | Path | None = None,
    device: str = "cpu",
    seed: int = 0,
    fast: bool = True,
    compiled: bool | None = None,
    precision: "Precision | None" = None,
    token_dropout: bool | None = None,
    bos_eos: "BosEos" = "keep",
    **others: Any,
) -> "LanguageModel":
    """Load a model by name, ready for inference on a device.

    `checkpoint` is a local fair-esm `.pt`, a Hugging Face weights file or its folder, used instead of the published
    weights. `seed` has an effect on `debug` only. `fast=False` uses fair-esm's own module instead of plmjac's faster
    one (same results up to rounding); `compiled=True` compiles the layers of the faster one by torch.compile, and None
    leaves that to `LanguageModel.use_compiled`, which a long run calls on a GPU. `precision` None means fp16 on a GPU
    and fp32 elsewhere. `token_dropout` None means as the weights were trained; `bos_eos="mask"` is the variant without
    BOS and EOS of Zhang et al. (2024). `others` are options that only some models declare. Raises ValueError with a
    remedy for an unknown name, an option without effect on this model, missing weights, a file that is not an ESM-2 of
    this size, a missing device, a precision that the device lacks, or a missing compiler.
    """
    given = {
        "checkpoint": checkpoint, "seed": seed, "fast": fast, "compiled": compiled, "precision": precision,
        "token_dropout": token_dropout, "bos_eos": bos_eos, **others,
    }  # fmt: skip
    check_options(name, given)
    target = _device(device)
    options = {option: given.get(option, default) for option, default in options_of(name).items()}
    if "precision" in options:
        # A model that is loaded on the CPU may be moved: tf32 without a GPU is refused by its first forward.
        options["precision"] = precision_on(name, given, "cuda" if precision == "tf32" else target.type)
    loader = cast("Callable[..., LanguageModel]", _function(_find(name).loader))
    return loader(name=name, device=target, **options)


def size_of(name: str, *, kind: str = "cpu", **given: Any) -> "ModelSize":
    """Cost of a model with these options on a kind of device, cpu or cuda; loads weights only if it must."""
    check_options(name, given)
    options = {option: given.get(option, default) for option, default in options_of(name).items()}
    if _find(name).size is None:
        return load_model(name, **options).size
    if "precision" in options:
        options["precision"] = precision_on(name, given, kind)
    size = cast("Callable[..., ModelSize]", _function(_find(name).size))
    return size(name=name, kind=kind, **options)


def _find(name: str) -> Registered:
    _import_entry_points()
    if name not in _MODELS:
        raise ValueError(f"there is no model {name!r}; {nearest(name, _MODELS)}")
    return _MODELS[name]


def _function(where: Any) -> Any:
    if not isinstance(where, str):
        return where
    module, _, function = where.partition(":")
    return getattr(import_module(module), function)


@cache
def _import_entry_points() -> None:
    for entry in importlib.metadata.entry_points(group=ENTRY_POINTS):
        entry.load()


def _device(device: str) -> "torch.device":
    import torch  # noqa: PLC0415 - 2 s, and the settings read this table

    try:
        target = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"there is no device {device!r}; use cpu, cuda or cuda:0") from error
    if target.type == "cuda" and (target.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device={device}, but {torch.cuda.device_count()} CUDA devices are visible; use device=cpu")
    return target


_ESM1 = {"checkpoint": None, "token_dropout": None, "bos_eos": "keep"}
_MASKED_LM = {"checkpoint": None, "revision": None, "trust_remote_code": False, "precision": None, "bos_eos": "keep"}
_ESM2 = {option: default for option, default in COMMON.items() if option != "seed"}
_DEBUG = {option: default for option, default in COMMON.items() if option != "checkpoint"}
register("tiny", "plmjac.models.loading:load", options=_ESM2, size="plmjac.models.loading:size")
register("debug", "plmjac.models.debug:load", options=_DEBUG, size="plmjac.models.debug:size")
for _size in ("8m", "35m", "150m", "650m", "3b", "15b"):
    register(f"esm2_{_size}", "plmjac.models.loading:load", options=_ESM2, size="plmjac.models.loading:size")
register("masked_lm", "plmjac.models.masked_lm:load", options=_MASKED_LM, size="plmjac.models.masked_lm:size")
for _size in ("esm1b", "esm1v"):
    register(_size, "plmjac.models.esm1:load", options=_ESM1, size="plmjac.models.esm1:size")
