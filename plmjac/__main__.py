"""All commands under one name: `plmjac predict ...` is `python -m plmjac.predict ...`, and so on."""

import runpy
import sys

import plmjac
from plmjac.files import nearest

COMMANDS = {
    "predict": "compute Jacobians and contact maps, or contact recovery under masking",
    "plan": "forecast a run with the arguments of predict; nothing is run",
    "evaluate": "score the maps of stores: tables and figures",
    "report": "one HTML file about a store",
    "verify": "check every byte of a store, or repair it",
    "examples": "copy the documentation, job scripts and a notebook into a folder",
    "completion": "print the script that completes commands and keys in bash or zsh",
}


def main() -> None:
    """Run the command that the first argument names; ends the process with its exit code, 2 for no such command."""
    command, arguments = (sys.argv[1], sys.argv[2:]) if len(sys.argv) > 1 else ("", [])
    if command in COMMANDS:
        sys.argv = [f"plmjac {command}", *arguments]
        runpy.run_module(f"plmjac.{command}", run_name="__main__", alter_sys=False)
    elif command in ("--version", "-V"):
        print(f"plmjac {plmjac.__version__}")
    elif command in ("--help", "-h"):
        print(usage())
    else:
        said = f"there is no command {command!r}; {nearest(command, COMMANDS)}\n\n" if command else ""
        sys.exit(_refused(said + usage()))


def usage() -> str:
    """The commands, one a line."""
    lines = [f"  plmjac {name:10s} {does}" for name, does in COMMANDS.items()]
    return "\n".join(["usage: plmjac COMMAND [KEY=VALUE ...]   (plmjac COMMAND --help lists the keys)", *lines])


def _refused(message: str) -> int:
    print(message, file=sys.stderr)
    return 2


if __name__ == "__main__":
    main()
