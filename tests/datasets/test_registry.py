"""build: names, keys and types are checked, and the YAML files say what the classes say."""

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml

from plmjac.datasets import DATASETS, Dataset, InputError, build

CONF = Path(__file__).resolve().parents[2] / "conf" / "dataset"


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("pbd", {}, "did you mean 'pdb'"),
        ("pdb", {"pth": "x"}, r"no key dataset.pth; .*did you mean 'path'"),
        ("pdb", {"path": 3}, "must be text or a list of texts or null, not 3"),
        ("pdb", {"ids": [1e10]}, r"quotes: \"dataset.ids=\['1E10'\]"),
        ("zhang2024", {"selected": "yes"}, "true or false"),
        ("proteome", {"min_length": "30"}, "a whole number or null"),
        ("proteome", {"min_length": True}, "a whole number or null"),
        ("fasta", {"max_record_length": 1.5}, "a whole number, not 1.5"),
        ("demo", {"path": "x"}, "no key"),
    ],
)
def test_wrong_arguments(name: str, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        build(name, **arguments)


@pytest.mark.parametrize("name", DATASETS)
def test_yaml_has_every_argument_with_its_default(name: str) -> None:
    config = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    assert config.pop("name") == name
    parameters = inspect.signature(DATASETS[name]).parameters
    assert config == {key: parameter.default for key, parameter in parameters.items()}


def test_every_dataset_has_a_yaml() -> None:
    assert {file.stem for file in CONF.glob("*.yaml")} == set(DATASETS)
    assert isinstance(build("demo"), Dataset)
