"""Datasets: each turns a source into `Protein`s, and into a reason where it cannot.

`build` makes one from the keys of a configuration. A new dataset is a class with typed, defaulted arguments, a line in
`DATASETS` and a YAML file in conf/dataset; nothing else changes. Nothing here knows what is computed of a protein.
"""

import inspect
from typing import cast, get_args

from pydantic import TypeAdapter, ValidationError

from plmjac.datasets.alignment import AlignmentDataset
from plmjac.datasets.base import Dataset, InputError, Record
from plmjac.datasets.cameo_pta import CameoPtaDataset
from plmjac.datasets.complex import ComplexDataset
from plmjac.datasets.contact_maps import ContactMapsDataset
from plmjac.datasets.demo import DemoDataset
from plmjac.datasets.fasta import FastaDataset
from plmjac.datasets.null import Kind, NullDataset
from plmjac.datasets.pdb import PdbDataset
from plmjac.datasets.proteome import ProteomeDataset
from plmjac.datasets.zhang2024 import Zhang2024Dataset
from plmjac.files import nearest

DATASETS: dict[str, type] = {
    "alignment": AlignmentDataset,
    "cameo_pta": CameoPtaDataset,
    "complex": ComplexDataset,
    "contact_maps": ContactMapsDataset,
    "demo": DemoDataset,
    "fasta": FastaDataset,
    "pdb": PdbDataset,
    "proteome": ProteomeDataset,
    "zhang2024": Zhang2024Dataset,
}

__all__ = ["DATASETS", "Dataset", "InputError", "Record", "build"]


def build(name: str, **arguments: object) -> Dataset:
    """The dataset of this name with its arguments, their names and types checked.

    Every dataset also has `control` (shuffle, relabel) with `control_seed`: its null version, see null.py. Raises
    InputError naming the key, what was given, and the nearest right name; and where the dataset's source does not
    exist. Downloads happen at the first iteration, not here.
    """
    if name not in DATASETS:
        raise InputError(f"there is no dataset {name!r}; {nearest(name, DATASETS)}")
    dataset = DATASETS[name]
    own = {key: parameter.annotation for key, parameter in inspect.signature(dataset).parameters.items()}
    known = {**own, **_OF_EVERY_DATASET}
    for key, value in arguments.items():
        if key not in known:
            raise InputError(f"dataset={name} has no key dataset.{key}; {nearest(key, known)}")
        if value == []:
            raise InputError(f"dataset.{key} is an empty list; leave it out, or say dataset.{key}=null, for all")
        try:
            TypeAdapter(known[key]).validate_python(value, strict=True)
        except ValidationError:
            raise InputError(_wrong_type(name, key, value, known[key])) from None
    made = cast(Dataset, dataset(**{key: value for key, value in arguments.items() if key in own}))
    kind, seed = arguments.get("control"), arguments.get("control_seed")
    if kind is None:
        if seed is not None:
            raise InputError("dataset.control_seed has no effect without dataset.control, shuffle or relabel")
        return made
    return NullDataset(made, cast(Kind, kind), cast(int, seed or 0))


_OF_EVERY_DATASET: dict[str, object] = {"control": Kind | None, "control_seed": int | None}


def _wrong_type(name: str, key: str, value: object, annotation: object) -> str:
    """The sentence for a value of the wrong type; with the quotes that ids like 1E10 need, or Hydra reads a number."""
    message = f"dataset={name}: dataset.{key} must be {_in_words(annotation)}, not {value!r}"
    items = value if isinstance(value, list) else [value]
    if "str" in str(annotation) and any(isinstance(item, int | float) for item in items):
        message += f"; put what looks like a number in quotes: \"dataset.{key}=['1E10']\""
    return message


def _in_words(annotation: object) -> str:
    if choices := [
        choice for part in get_args(annotation) for choice in get_args(part) if isinstance(choice, str)
    ]:  # Literal[...] | None
        return f"{' or '.join(choices)} or null"
    plain = getattr(annotation, "__name__", None) if isinstance(annotation, type) else None
    names = {"str": "text", "int": "a whole number", "bool": "true or false", "float": "a number", "None": "null",
             "list[str]": "a list of texts", "list[float]": "a list of numbers"}  # fmt: skip
    return " or ".join(names.get(part, part) for part in (plain or str(annotation)).split(" | "))
