"""Protein language models: one call loads any of them by name, from the package, the network or a local file.

    model = load_model("esm2_650m", device="cuda")
    model.logits(tokens)                            # (B, L) -> (B, L, 20)

`register` adds a model from outside the package (CONTRIBUTING.md). Importing this package imports no torch; each name
below is imported on first use.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plmjac.models.architecture import Architecture
    from plmjac.models.base import BosEos, LanguageModel, ModelSize, Precision
    from plmjac.models.registry import load_model, names, register, resolve_precision, size_of

__all__ = [
    "Architecture", "BosEos", "LanguageModel", "ModelSize", "Precision", "load_model", "names", "register",
    "resolve_precision", "size_of",
]  # fmt: skip

_HOME = {"Architecture": "architecture"} | dict.fromkeys(("BosEos", "LanguageModel", "ModelSize", "Precision"), "base")


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(import_module(f"plmjac.models.{_HOME.get(name, 'registry')}"), name)
    raise AttributeError(f"module 'plmjac.models' has no attribute {name!r}")
