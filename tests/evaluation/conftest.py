"""Every table that an evaluation makes in these tests is described in docs/tables.md, and so is each of its columns."""

import os
import re
from collections.abc import Iterator
from typing import Any

import pytest
from support import ROOT

from plmjac.evaluation.base import Outcome

TEXT = (ROOT / "docs/tables.md").read_text()


def cells(line: str, number: int) -> list[str]:
    text = line.strip("|").split("|")[number]
    return [word.strip() for word in text.split("; " if ";" in text else ", ")]


ROWS, COLUMNS = (part.splitlines()[2:] for part in re.findall(r"(?:^\|.*\n)+", TEXT, re.M))
TABLES = {name for line in ROWS for name in cells(line, 1)}
KNOWN = {name for line in COLUMNS for name in cells(line, 0)}


@pytest.fixture(scope="session", autouse=True)
def made() -> Iterator[list[Outcome]]:
    """The outcomes since the last look, also those of fixtures that several tests share."""
    made: list[Outcome] = []
    make = Outcome.__init__

    def noted(self: Outcome, *rest: Any, **named: Any) -> None:
        make(self, *rest, **named)
        if "tests/evaluation/" in os.environ.get("PYTEST_CURRENT_TEST", ""):  # not of a test of another folder
            made.append(self)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Outcome, "__init__", noted)
        yield made


@pytest.fixture(autouse=True)
def described(made: list[Outcome]) -> Iterator[None]:
    yield
    tables = {name: list(table.columns) for outcome in made for name, table in outcome.tables.items()}
    made.clear()
    missing = {name: [c for c in columns if str(c) not in KNOWN] for name, columns in tables.items()}
    assert set(tables) <= TABLES and not any(missing.values()), f"docs/tables.md lacks {missing}"
