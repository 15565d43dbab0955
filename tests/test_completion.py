"""Completion as a shell does it: the words that bash, or zsh where there is one, offers behind a line."""

import shutil
import subprocess

import pytest

from plmjac.__main__ import COMMANDS
from plmjac.completion import script

LINES = {
    "plmjac pre": ["predict "],
    "plmjac predict +dataset=p": ["pdb ", "proteome "],
    "plmjac predict +dataset=pdb model=esm2_15": ["esm2_150m ", "esm2_15b "],
    "plmjac predict dataset.pa": ["dataset.path="],
    "plmjac evaluate +evaluation=cap": ["capacity "],
    "plmjac evaluate evaluation.fam": ["evaluation.families="],
    "plmjac verify ": ["deep=", "repair=", "store="],
    "plmjac verify model": [],
    "plmjac completion ": ["bash ", "zsh "],
}


@pytest.mark.parametrize("line", LINES)
def test_bash(line: str) -> None:
    before = line.split()
    words = " ".join(f"'{word}'" for word in before)
    asked = f"""
        COMP_LINE='{line}' COMP_POINT={len(line)} COMP_WORDS=({words}); _plmjac
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(
        ["bash", "--norc", "-c", script("bash", list(COMMANDS)) + asked], capture_output=True, text=True, timeout=60
    )
    assert not done.stderr and [word for word in done.stdout.split("\n") if word] == LINES[line]


@pytest.mark.skipif(not shutil.which("zsh"), reason="needs zsh")
@pytest.mark.parametrize("line", [line for line in LINES if "=" not in line])
def test_zsh(line: str) -> None:
    """The same words, from what the function gives to compadd."""
    *words, current = line.split(" ")
    asked = f"""
        compadd() {{ shift; [[ $1 == '' ]] && shift; [[ $1 == -- ]] && shift; print -l -- "$@" }}
        compset() {{ return 1 }}
        compdef() {{ }}
        words=({" ".join(words)} '{current}') CURRENT={len(words) + 1}; _plmjac
    """
    done = subprocess.run(
        ["zsh", "-f", "-c", script("zsh", list(COMMANDS)) + asked], capture_output=True, text=True, timeout=60
    )
    found = [word for word in done.stdout.split("\n") if word.startswith(current) and word]
    assert sorted(found) == sorted(word.strip() for word in LINES[line]), done.stderr
