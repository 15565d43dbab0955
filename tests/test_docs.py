"""README and docs are true: links lead somewhere, commands are understood, Python runs, files are named as they are.

Commands are composed and checked as the command itself does before it computes; those that need no network, GPU or
cluster are run by the tests of their subject.
"""

import re
import shlex
import warnings
from pathlib import Path

import numpy as np
import pytest
from support import ROOT, composed
from written_store import written_store

from plmjac.__main__ import COMMANDS
from plmjac.evaluate import parse_evaluate
from plmjac.inference.settings import parse_predict
from plmjac.report import ReportConfig
from plmjac.verify import VerifyConfig

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {page.relative_to(ROOT).as_posix(): page.read_text() for page in PAGES}
LINES = sorted(
    {
        (name, line.replace("\\\n", " ").strip())
        for name, text in TEXTS.items()
        for line in re.findall(r"^    ((?:[^\n]*\\\n)*[^\n]*)$", text, re.M)
        if re.match(r"(python|torchrun|sbatch|plmjac|make|pip|wandb|[A-Z]+=\S+ make) ", line)
    }
)
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
PYTHON = [
    (name, code)
    for name in ("README.md", "docs/format.md")
    for code in re.findall(r"```python\n(.*?)```", TEXTS[name], re.S)
]


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name: str) -> None:
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", TEXTS[name])
    assert [link for link in links if "://" not in link and not (ROOT / name).parent.joinpath(link).exists()] == []
    assert "../shared" not in TEXTS[name]
    for target in re.findall(r"(?:`|^    )make ([a-z-]+)", TEXTS[name], re.M):
        assert target in TARGETS
    for path in re.findall(r"\b((?:scripts|tests|examples|conf)/[\w/]+\.\w+)", TEXTS[name]):
        assert (ROOT / path).exists() or "repeats" in path or "from_start" in path, path


@pytest.mark.parametrize(("name", "line"), LINES)
def test_commands_are_understood(name: str, line: str) -> None:
    words = shlex.split(line, comments=True)
    if words[0] in ("make", "pip", "wandb") or "=" in words[0]:
        return  # targets are checked above
    if words[0] == "python" and words[1].startswith("scripts/"):
        assert (ROOT / words[1]).is_file()
        return
    if words[0] == "sbatch":
        assert (ROOT / words[1]).is_file()
        command, words = "predict", words[2:]
    elif words[0] == "plmjac":
        command, words = words[1], words[2:]
    else:
        at = words.index("-m")
        command, words = words[at + 1].removeprefix("plmjac."), words[at + 2 :]
    assert command in COMMANDS
    if "-m" in words:  # of a sweep, the first job
        words = [re.sub(r"^(\+?[\w.]+=[^\[,]+),.*", r"\1", word) for word in words if word != "-m"]
    if command in ("predict", "plan"):
        parse_predict(composed(command, *words))
    elif command == "evaluate":
        parse_evaluate(composed(command, *words))
    elif command in ("verify", "report"):
        {"verify": VerifyConfig, "report": ReportConfig}[command].model_validate(composed(command, *words))


def test_every_command_is_on_a_page() -> None:
    said = " ".join(TEXTS.values())
    assert len(LINES) > 25 and all(re.search(rf"plmjac[. ]{command}\b", said) for command in COMMANDS)


@pytest.mark.parametrize(("name", "code"), PYTHON)
def test_python_runs(name: str, code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    length = 81
    jacobian = np.random.default_rng(0).standard_normal((length, 20, length, 20), dtype=np.float32)
    for path in ("runs/pdb.zarr", "run.zarr"):
        written_store(tmp_path / path, {"1TEN_A": {"contacts": np.eye(length), "jacobian": jacobian}})
    names: dict[str, object] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        exec(compile(code, name, "exec"), names)
    assert len(names) > 2


def test_no_message_names_a_folder_that_only_developers_have() -> None:
    files = [*(ROOT / "plmjac").rglob("*.py"), *(ROOT / "conf").rglob("*.yaml"), ROOT / "Makefile"]
    assert [path for path in files if "../shared" in path.read_text()] == []
