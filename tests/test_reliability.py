"""docs/reliability.md promises nothing without a test: all that it names are there."""

import ast
import re

import pytest
from faults.kinds import kinds
from support import ROOT

TEXT = (ROOT / "docs/reliability.md").read_text()
TABLE = [line.strip("| ").split(" | ") for line in TEXT.splitlines() if line.startswith("| ")][1:]
COMMANDS = {"make test-faults", "make test-slurm", "make test"}


def test_every_promise_has_a_test() -> None:
    assert len(TABLE) > 15
    for promise, held_by in TABLE:
        assert re.search(r"tests/\S+::test_\w+|`[^`]+`", held_by), promise


@pytest.mark.parametrize("name", sorted(set(re.findall(r"tests/[\w/]+\.py::\w+", TEXT))))
def test_the_tests_that_are_named_are_there(name: str) -> None:
    path, _, function = name.partition("::")
    tree = ast.parse((ROOT / path).read_text())
    assert function.startswith("test_")
    assert function in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_kinds_of_fault_that_are_named_are_tried() -> None:
    known = {kind.name for kind in kinds()}
    named = {name for _, held_by in TABLE for name in re.findall(r"`([^`]+)`", held_by)}
    assert len(named) > 10 and named <= known, named - known
