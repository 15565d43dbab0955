"""Stores by their paths and the structures beside them, as an evaluation is given them.

A store may come from a stranger. Of the dataset that it records only local files and folders are read; nothing that it
says is fetched, names a folder to write to, or is a URL.
"""

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from plmjac.datasets import DATASETS, build
from plmjac.evaluation.base import EvaluationError, Inputs, Store
from plmjac.files import cache_folder
from plmjac.records import Protein
from plmjac.store import open_store

log = logging.getLogger("plmjac.evaluate")

LOCAL = {"demo": ("ids",), "pdb": ("path", "ids", "chains"), "complex": ("path", "chains", "linker", "index_gap"),
         "cameo_pta": ("path", "split", "ids"), "contact_maps": ("path", "ids")}  # fmt: skip
"""Datasets with structures, and those of their keys that a store is believed: none is a URL or a folder to write to."""


def inputs_of(paths: Iterable[Path], dataset: dict[str, Any] | None, structures: Path | None = None) -> Inputs:
    """These stores, opened, with the structures of the dataset or folder named, or else of the stores' own datasets."""
    stores = tuple(_named(list(paths)))
    if dataset and structures:
        raise EvaluationError("give dataset=... or structures=FOLDER, not both: either says where the structures are")

    def truth() -> Iterator[Protein]:
        if not (stores or dataset or structures):
            raise EvaluationError("structures are needed: give structures=FOLDER, or +dataset=pdb dataset.path=FOLDER")
        if dataset and "name" not in dataset:
            raise EvaluationError(f"which dataset? Add one of: {'  '.join(f'+dataset={name}' for name in DATASETS)}")
        datasets = [dataset] if dataset else [_of_folder(stores, structures)] if structures else _own_datasets(stores)
        for each in datasets:
            arguments = {key: value for key, value in each.items() if key != "name"}
            yield from (record for record in build(each["name"], **arguments) if isinstance(record, Protein))

    return Inputs(stores, truth)


def _named(paths: list[Path]) -> Iterator[Store]:
    """The stores, each called after its folder; with its place in the list where two folders have one name."""
    stems = [path.absolute().stem for path in paths]
    for number, (path, stem) in enumerate(zip(paths, stems, strict=True), start=1):
        yield Store(stem if stems.count(stem) == 1 else f"{stem}_{number}", open_store(path))


def _of_folder(stores: Iterable[Store], structures: Path) -> dict[str, Any]:
    """The chains of a folder of structures; as complexes, joined as the store's are, where a store has some."""
    for store in stores:
        if (recorded := store.recorded.get("dataset", {})).get("name") == "complex":
            kept: dict[str, Any] = {key: recorded[key] for key in ("chains", "linker", "index_gap") if key in recorded}
            return {"name": "complex", "path": str(structures), **kept}
    return {"name": "pdb", "path": str(structures)}


def _own_datasets(stores: Iterable[Store]) -> list[dict[str, Any]]:
    """The local datasets with structures that the stores were made from, each once."""
    datasets: list[dict[str, Any]] = []
    for store in stores:
        recorded = store.recorded.get("dataset", {})
        name = str(recorded.get("name"))
        keys = (*LOCAL.get(name, ()), "control", "control_seed")  # of null sequences, whose structures have them too
        local = {"name": name, **{key: recorded[key] for key in keys if key in recorded}}
        if name == "pdb" and not local.get("path"):
            local["path"] = _fetched(recorded)
        if name not in LOCAL or local in datasets:
            continue
        paths = _listed(local.get("path"))
        if name != "demo" and not (paths and all(map(_is_there, paths))):
            named = ", ".join(paths) or f"dataset={name}"
            log.warning(
                "%s: the structures it was made from are not here (%s); give structures=FOLDER", store.path, named
            )
            continue
        datasets.append(local)
    return datasets


def _is_there(path: str) -> bool:
    """True for a folder or an ordinary file; a pipe or a device is not read."""
    try:
        return Path(path).expanduser().is_dir() or Path(path).expanduser().is_file()
    except (OSError, RuntimeError, ValueError):
        return False


def _listed(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else [str(value)] if value else []


def _fetched(recorded: Mapping[str, Any]) -> list[str]:
    """The files of entries that an earlier run fetched; none is fetched here."""
    folder = cache_folder("pdb")
    names = [*_listed(recorded.get("ids")), *_listed(recorded.get("chains"))]
    entries = dict.fromkeys(name[:4].upper() for name in names if re.fullmatch(r"[0-9]\w{3}(_\w+)?", name, re.ASCII))
    return [str(file) for entry in entries if (file := folder / f"{entry}.cif.gz").is_file()]
