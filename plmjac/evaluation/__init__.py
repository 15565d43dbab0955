"""Evaluation jobs: each reads stores, structures or alignments and answers with tables and figures.

One module here and one YAML in conf/evaluation make a job; it is found by its name, so nothing else changes. The module
has `Settings` (the keys of the YAML) and `evaluate(inputs, settings) -> Outcome`; see base.py. Importing this package
imports none of them.
"""

import importlib
import pkgutil
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from plmjac.evaluation.base import Evaluation

HELPERS = ("base", "exports", "inputs", "output", "pictures", "scoring", "structures", "tables")


def names() -> list[str]:
    """The names of all evaluations: the modules of this package but its helpers."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name not in HELPERS)


def find(name: str) -> "Evaluation":
    """The evaluation of this name, imported now. Raises KeyError where there is none."""
    if name not in names():
        raise KeyError(name)
    return cast("Evaluation", importlib.import_module(f"{__name__}.{name}"))
