"""From a command line to a checked configuration, and from an outcome to an exit code.

Hydra composes the YAML tree of conf/; what comes out is a plain dictionary, validated by a pydantic model whose fields
are the schema. A wrong key or value ends with exit code 2 and a sentence that names the nearest right one.
"""

import logging
import os
import re
import select
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar, get_args

import hydra
from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, ValidationError

from plmjac.conf_tree import ADDED, groups_of, help_of
from plmjac.conf_tree import config_dir as config_dir
from plmjac.conf_tree import options as options
from plmjac.files import UsageError as UsageError
from plmjac.files import is_fasta
from plmjac.files import nearest as nearest
from plmjac.models.registry import names, options_of

DONE, USAGE, SOME_FAILED, PIPE_CLOSED = 0, 2, 3, 141
"""Exit codes; the last is that of any Unix command whose reader has gone, as in `plan ... | head`."""

FLAGS_WITH_VALUES = {
    "-c",
    "--cfg",
    "-p",
    "--package",
    "-cp",
    "--config-path",
    "-cn",
    "--config-name",
    "-cd",
    "--config-dir",
}
"""Of Hydra: what follows one of these is no KEY=VALUE."""

log = logging.getLogger("plmjac")

Config = dict[str, Any]
M = TypeVar("M", bound=BaseModel)


class Keys(BaseModel):
    """The keys of a configuration or of a part of it: an unknown one is an error, and none changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def add_registered_models() -> None:
    """Make `model=name` compose for models that were registered from outside the package and have no YAML."""
    for name in set(names()) - set(options("model")):
        node = {"name": name, **options_of(name)}
        ConfigStore.instance().store(name, node | ({"seed": "${seed}"} if "seed" in node else {}), group="model")


def run(command: str, job: Callable[[Config], int]) -> int:
    """Compose the configuration from sys.argv, run the job with it (or each job of a multirun), return the exit code.

    `dataset=pdb` is understood as well as `+dataset=pdb`, and so are the other groups outside the defaults list.
    """
    _set_up_logging()
    try:
        if {"--help", "-h"} & set(sys.argv[1:]):
            print(help_of(command, sys.argv[1:]))
            code = DONE
        else:
            code = _run(command, job)
        sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PIPE_CLOSED
    return code


def _run(command: str, job: Callable[[Config], int]) -> int:
    add_registered_models()
    try:
        os.getcwd()
        sys.argv[1:] = [_with_plus(argument, ADDED[command]) for argument in sys.argv[1:]]
    except OSError as error:
        log.error("error: the current folder is gone or cannot be read (%s); change to another", error.strerror)
        return USAGE
    except RuntimeError as error:
        log.error("error: %s", _homeless(error))
        return USAGE
    if said := _misread(command, sys.argv[1:]):
        log.error("error: %s", said)
        return USAGE
    if not any(argument.startswith("-") for argument in sys.argv[1:]):
        try:
            with initialize_config_dir(str(config_dir()), version_base="1.3"):
                compose(command, overrides=sys.argv[1:])
        except (HydraException, OmegaConfBaseException, ValueError) as error:  # Hydra raises the last for model=null
            log.error("error: %s", _explain(error, command))
            return USAGE
    codes: list[int] = []
    errors: list[Exception] = []

    def one_job(config: DictConfig) -> None:
        try:
            codes.append(_guarded(job, config))
        except Exception as error:  # kept from Hydra, which would cut the traceback and choose the exit code
            errors.append(error)

    main = hydra.main(version_base="1.3", config_path=str(config_dir()), config_name=command)(one_job)
    try:
        main()
    except BrokenPipeError:
        raise
    except OSError as error:  # of Hydra, which makes a folder for a multirun; those of jobs are kept above
        log.error("error: %s cannot be written (%s); run it in another folder", error.filename, error.strerror)
        return USAGE
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        return USAGE  # Hydra has printed the mistake
    if errors:
        raise errors[0]
    return min((code for code in codes if code != DONE), default=DONE)  # a usage error before failed proteins


def _reader_is_gone() -> bool:
    """True where nobody reads standard output any more."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return bool(poll.poll(0))


def _misread(command: str, arguments: list[str]) -> str:
    """The sentence for arguments that are no KEY=VALUE, or that Hydra cannot take together; empty if all may be."""
    flags = set(arguments)
    if flags & {"-m", "--multirun"} and flags & {"-c", "--cfg"}:
        return "--cfg shows the configuration of one job: leave -m out, and give every key one value"
    for at, argument in enumerate(arguments):
        if argument.startswith("-") or (at and arguments[at - 1] in FLAGS_WITH_VALUES):
            continue
        if argument.count("[") > argument.count("]") and not set(argument) & set("'\"\\"):
            rest = next((n for n, each in enumerate(arguments[at:], at) if each.endswith("]")), at)
            whole = "".join(arguments[at : rest + 1]) + "]" * (rest == at)
            return f"the list {argument!r} has no end: write it without blanks, {whole}, or in quotes"
        if "=" not in argument and not argument.startswith("~"):
            return f"{argument!r} is no KEY=VALUE; {_meant(command, argument)}"
    return ""


def _meant(command: str, word: str) -> str:
    """The keys that an argument without one may belong to, as the end of a sentence."""
    for group in groups_of(command):
        if word in options(group):
            return f"did you mean {'+' * (group in ADDED[command])}{group}={word}?"
    if "dataset" in groups_of(command) and not word.rstrip("/").endswith(".zarr") and Path(word).exists():
        kind = "fasta" if is_fasta(Path(word)) else "pdb"
        return f"did you mean +dataset={kind} dataset.path={word}?"
    if word.rstrip("/").endswith(".zarr") or Path(word).is_dir():
        return f"did you mean store={word}?"
    return f"{command} --help lists the keys"


def parse(schema: type[M], config: Config, group: str = "") -> M:
    """Check a composed configuration, or one group of it, by its schema. Raises UsageError naming each wrong key."""
    try:
        return schema.model_validate(config)
    except ValidationError as error:
        raise UsageError("\n".join(_problem(problem, schema, group) for problem in error.errors())) from None


def _guarded(job: Callable[[Config], int], config: DictConfig) -> int:
    """Run one job; a mistake of the user's becomes a sentence and exit code 2."""
    try:
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
        assert isinstance(plain, dict)
        return job({str(key): value for key, value in plain.items()})
    except (UsageError, OmegaConfBaseException) as error:
        log.error("error: %s", _explain(error, None))
        return USAGE
    except RuntimeError as error:
        log.error("error: %s", _homeless(error))
        return USAGE


def _homeless(error: RuntimeError) -> str:
    """The sentence for a path that begins with ~ where there is no home folder; any other error is raised again."""
    if "home directory" not in str(error):
        raise error
    return "there is no home folder here that ~ could stand for; write the path in full, or set HOME"


def _with_plus(argument: str, groups: Iterable[str]) -> str:
    """An argument as Hydra needs it: with the plus of an added group or a model's option, and ~/ written out."""
    argument = re.sub(r"^(\+*[\w.]+=)~(?=/)", lambda found: found[1] + str(Path.home()), argument)
    # The registry knows which options a model takes, not the YAML.
    argument = re.sub(r"^\+?(?=model\.\w+=)", "++", argument)
    return f"+{argument}" if any(argument.startswith(f"{group}=") for group in groups) else argument


def _explain(error: Exception, config_name: str | None) -> str:
    """Hydra's message, with the nearest right word instead of its advice to add the wrong one."""
    text = str(error).strip()
    missing = re.search(r"full_key: (\S+)", text) if "Missing mandatory value" in text else None
    if missing:
        return f"{missing[1]} is needed: give {missing[1]}=..."
    wrong_key = re.search(r"Could not override '([^']+)'", text)
    if wrong_key and config_name:
        return f"there is no key {wrong_key[1]!r}; {nearest(wrong_key[1], _known_keys(config_name))}"
    wrong_option = re.search(r"Could not find '([^'/]+)/([^']+)'", text)
    if wrong_option and (config_dir() / wrong_option[1]).is_dir():
        group, option = wrong_option[1], wrong_option[2]
        return f"there is no {group} {option!r}; {nearest(option, options(group))}"
    if (
        "mismatched input" in text
        or "token recognition" in text
        or "Ambiguous value" in text
        or "LexerNoViable" in text
    ):
        return f"{text}\nValues with commas, blanks or brackets need two pairs of quotes: 'dataset.path=\"a,b.fasta\"'"
    return text


def _known_keys(config_name: str) -> list[str]:
    """Every dotted key of the main configuration with every option of the groups in the command line."""
    chosen = [argument for argument in sys.argv[1:] if "." not in argument.split("=")[0] and argument.count("=") == 1]
    groups = [path.name for path in config_dir().iterdir() if path.is_dir()]
    good = [text for text in chosen if text.lstrip("+").split("=")[0] in groups]
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        config = compose(config_name, overrides=good)
    keys = _dotted(OmegaConf.to_container(config, resolve=False))
    return [*keys, *groups]


def _dotted(value: Any, prefix: str = "") -> list[str]:
    if not isinstance(value, dict):
        return [prefix]
    return [name for key, inner in value.items() for name in _dotted(inner, f"{prefix}.{key}" if prefix else str(key))]


def _problem(problem: Any, schema: type[BaseModel], group: str) -> str:
    where = ".".join(str(part) for part in (*([group] if group else []), *problem["loc"]))
    if problem["type"] == "extra_forbidden":
        known = _fields_at(schema, problem["loc"][:-1])
        return f"there is no key {where!r}; {nearest(str(problem['loc'][-1]), known)}"
    if problem["type"] == "missing":
        return f"{where} is needed: give {where}=..."
    said = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "value_error" and isinstance(problem["input"], dict):  # several keys; the message names them
        return said
    return f"{where}={problem['input']!r}: {said[0].lower()}{said[1:]}"


def _fields_at(schema: type[BaseModel], path: tuple[str | int, ...]) -> list[str]:
    """The keys that are known at a place of a nested schema; a tagged union is entered by its tag."""
    models: list[type[BaseModel]] = [schema]
    for part in path:
        inner = [model.model_fields[str(part)].annotation for model in models if str(part) in model.model_fields]
        choices = [each for annotation in inner for each in (get_args(annotation) or (annotation,))]
        models = [each for each in choices if isinstance(each, type) and issubclass(each, BaseModel)] or models
    return [name for model in models for name in model.model_fields]


def _set_up_logging() -> None:
    """Plain sentences on stderr, without Python's names of modules and levels."""
    root = logging.getLogger()
    if not root.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(message)s"))
        root.addHandler(handler)
    log.setLevel(logging.INFO)
