"""The YAML tree of conf/ as text: where it lies, its groups, `--help` with its comments, words to complete."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

from plmjac import readouts

ADDED = {
    "predict": ("dataset", "experiment"), "plan": ("dataset", "experiment"), "evaluate": ("evaluation", "dataset"),
    "report": ("dataset",), "verify": (),
}  # fmt: skip
"""By command, the groups outside its defaults list, which Hydra wants with a plus (`+dataset=pdb`)."""


def config_dir() -> Path:
    """The YAML tree: inside the package in a wheel, beside it in a checkout or an editable install."""
    here = Path(__file__).resolve().parent
    for conf in (here.parent / "conf", here / "conf"):
        if (conf / "predict.yaml").is_file():
            return conf
    raise FileNotFoundError(f"no conf/ beside or inside {here}; reinstall plmjac")


def options(group: str) -> list[str]:
    """The names a config group offers."""
    return sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))


def groups_of(command: str) -> tuple[str, ...]:
    """The groups that a command takes, those that need a plus first."""
    listed = _content(_same_keys(command))["defaults"]
    own = [name for each in listed if isinstance(each, dict) for name in each if "@" not in name and "/" not in name]
    return (*ADDED[command], *own)


def help_of(command: str, arguments: Iterable[str] = ()) -> str:
    """The text of `--help`: examples, the groups of the command, the keys of the options chosen, and its own keys."""
    groups = groups_of(command)
    parts = [_content(command)["hydra"]["help"]["header"].rstrip()]
    if "schedule" in groups:
        parts += ["Readouts (keep=[NAME,...]; L residues, A substituted amino acids)", readouts.table()]
    if groups:
        names = {group: f"{'+' if group in ADDED[command] else ''}{group}" for group in groups}
        parts += [f"Groups (--help with {names[groups[0]]}=OPTION, and so on, shows the keys of that option)"]
        parts += ["\n".join(f"  {names[group]}=  {' '.join(options(group))}" for group in groups)]
    for argument in arguments:
        group, _, option = argument.lstrip("+").partition("=")
        if group in groups and option in options(group):
            parts += [f"{argument} (its keys as {group}.KEY=VALUE)", _indented(_text(f"{group}/{option}"))]
    keys = _text(_same_keys(command)).partition("defaults:")[2].partition("\nhydra:")[0].partition("\n\n")[2]
    parts += ["Keys and their defaults (KEY=VALUE)", _indented(keys)]
    return "\n\n".join([*parts, "docs/, scripts/ and the sweep: `plmjac examples FOLDER` copies them into a folder."])


def words_of(command: str) -> list[str]:
    """Every argument that can be completed: OPTIONs of groups whole, keys up to the `=`."""
    words = {f"{key}=" for key in _keys(_same_keys(command)) - {"hydra", "defaults"}}
    for group in groups_of(command):
        plus = "+" if group in ADDED[command] else ""
        words |= {f"{plus}{group}={option}" for option in options(group)}
        if group != "experiment":
            words |= {f"{group}.{key}=" for option in options(group) for key in _keys(f"{group}/{option}") - {"name"}}
    return sorted(words)


def _same_keys(command: str) -> str:
    """The command whose keys these are: those of plan are those of predict."""
    return "predict" if command == "plan" else command


def _keys(name: str) -> set[str]:
    return set(_content(name))


def _content(name: str) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(config_dir() / f"{name}.yaml")))


def _text(name: str) -> str:
    return (config_dir() / f"{name}.yaml").read_text()


def _indented(text: str) -> str:
    """Two blanks before every line, without lines that are for Hydra alone."""
    lines = [line for line in text.strip().splitlines() if not re.match(r"# @package|name: \w+$", line)]
    return "\n".join(f"  {line}".rstrip() for line in lines)
