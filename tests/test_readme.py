"""The README is true: its links lead somewhere, its commands are understood, its files are named as they are."""

import re
import shlex

import pytest
from support import ROOT, composed

from plmjac.evaluate import parse_evaluate
from plmjac.inference.settings import parse_predict
from plmjac.report import ReportConfig
from plmjac.verify import VerifyConfig

TEXT = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^    (?:python|torchrun .*?) ?-m (plmjac\.\w+) ([^#\n]*)", TEXT, re.MULTILINE)


def test_links_lead_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert len(links) > 5
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []
    assert "@" not in re.sub(r"P@L|L@|\S+@\S+", "", TEXT)  # nothing left to be filled in


@pytest.mark.parametrize(("module", "line"), COMMANDS)
def test_commands_are_understood(module: str, line: str) -> None:
    arguments = shlex.split(line)
    name = module.removeprefix("plmjac.")
    if name in ("predict", "plan"):
        parse_predict(composed(name, *(text for text in arguments if text != "-m")))
    elif name == "evaluate":
        parse_evaluate(composed(name, *arguments))
    else:
        schema = {"verify": VerifyConfig, "report": ReportConfig}[name]
        schema.model_validate(composed(name, *arguments))


def test_there_are_commands_to_check() -> None:
    assert {module for module, _ in COMMANDS} == {
        f"plmjac.{name}" for name in ("predict", "plan", "evaluate", "verify", "report")
    }
