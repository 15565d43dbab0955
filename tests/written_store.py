"""Stores for evaluations, written array by array without a model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from plmjac.alphabet import AMINO_ACIDS
from plmjac.evaluation.base import Store
from plmjac.store import StoreWriter, create_or_check, open_store, write_manifest
from plmjac.workplan import ManifestRow


def sequence_of(length: int, seed: int = 0) -> str:
    """A random sequence."""
    return "".join(np.random.default_rng(seed).choice(list(AMINO_ACIDS), length))


def written_store(
    path: Path,
    arrays: Mapping[str, Mapping[str, Any]],
    *,
    bad: tuple[str, ...] = (),
    model: str = "handmade",
    sequences: Mapping[str, str] | None = None,
    dataset: Mapping[str, Any] | None = None,
    attributes: Mapping[str, Any] | None = None,
) -> Store:
    """A store of kind jacobian at `path` with these arrays by protein and name; float32, `jacobian` float16.

    `bad` are ids that failed; sequences are random but fixed where none is given. `attributes` are those of every
    protein (windows, positions).
    """
    identity = {
        "kind": "jacobian", "model": {"name": model, "weights_sha256": "0" * 64},
        "keep": sorted({name for values in arrays.values() for name in values}),
    }  # fmt: skip
    create_or_check(path, identity, {"config": {"dataset": dict(dataset or {"name": "demo"})}})
    rows = [ManifestRow(each, each, 0, "", status="failed", reason="no residue") for each in bad]
    for identifier, values in arrays.items():
        sequence = (sequences or {}).get(identifier) or sequence_of(len(next(iter(values.values()))))
        protein = StoreWriter(path).begin(identifier, sequence=sequence, identifier=identifier)
        protein.attributes |= attributes or {}
        for array, numbers in values.items():
            protein.write(array, np.asarray(numbers, dtype=np.float32))
        protein.commit()
        rows.append(ManifestRow(identifier, identifier, len(sequence), sequence, status="done"))
    write_manifest(path, rows)
    return Store(path.stem, open_store(path))
