"""One name for all commands: the same exit codes and words as `python -m plmjac.predict`."""

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from support import ROOT

import plmjac
from plmjac.__main__ import COMMANDS, main


def run(*arguments: str, cwd: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "plmjac", *arguments], cwd=cwd, capture_output=True, text=True, timeout=240
    )  # fmt: skip


def test_a_command_is_its_module(tmp_path: Path) -> None:
    done = run("predict", "+dataset=nothing", cwd=tmp_path)
    alone = subprocess.run(
        [sys.executable, "-m", "plmjac.predict", "+dataset=nothing"], cwd=tmp_path, capture_output=True, text=True,
        timeout=240,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (alone.returncode, alone.stderr) and done.returncode == 2
    assert "there is no dataset 'nothing'" in done.stderr


def test_version_help_and_no_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def said(*arguments: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["plmjac", *arguments])
        code: object = 0
        try:
            main()
        except SystemExit as stop:
            code = stop.code
        return code, *capsys.readouterr()

    assert said("--version") == (0, f"plmjac {version('plmjac')}\n", "") and plmjac.__version__ == version("plmjac")
    code, text, _ = said("--help")
    assert code == 0 and all(f"plmjac {name}" in text for name in COMMANDS)
    code, _, error = said("pedict")
    assert code == 2 and "there is no command 'pedict'; did you mean 'predict'?" in error
    assert said()[0] == 2


@pytest.mark.parametrize("command", COMMANDS)
def test_an_entry_point_fits_on_a_screen(command: str) -> None:
    assert len((ROOT / "plmjac" / f"{command}.py").read_text().splitlines()) <= 80
